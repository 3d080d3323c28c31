"""The whole life of a share with the typed client: create, sync, get, list, delete.

Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:

    RPCSHARE_TOKEN=… python examples/typed_client.py ses_4f1d2c9b8a
"""

import asyncio
import os
import sys

from rpcshare import ShareClient, ShareError

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")


async def main(session_id: str) -> None:
    session = {"type": "session", "data": {"id": session_id, "title": "Typed"}}
    message = {"type": "message", "data": {"id": "msg_1", "role": "user"}}
    async with ShareClient(URL, token=TOKEN) as client:
        share = await client.create_share(session_id, [session])
        count = await client.sync_share(share.id, share.secret, [message])
        print(f"{share.url} has seen {count} syncs")

        whole = await client.get_share(share.id)
        print(f"{whole['session']['title']}: {len(whole['messages'])} message")

        page = await client.list_shares(query=session_id)
        print("listed:", *(index.id for index in page.sessions))

        await client.delete_share(share.id)
        try:
            await client.get_share(share.id)
        except ShareError as error:
            print(f"deleted: {error} ({error.code})")


asyncio.run(main(sys.argv[1]))
