"""Follow a share live, until it is deleted.

Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token` and the id of a share:

    RPCSHARE_TOKEN=… python examples/watch_share.py 9eiXoPTK
"""

import asyncio
import os
import sys

from rpcshare import ShareClient

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")


async def main(share_id: str) -> None:
    async with ShareClient(URL, token=TOKEN) as client, client.subscribe(share_id) as events:
        async for event in events:
            kinds = [item["type"] for item in event.data]
            print(event.type, event.sync_count, *kinds, flush=True)


asyncio.run(main(sys.argv[1]))
