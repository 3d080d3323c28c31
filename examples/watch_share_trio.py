"""Follow several shares at once on trio, until each of them is deleted.

Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token` and the ids of shares:

    RPCSHARE_TOKEN=… python examples/watch_share_trio.py 9eiXoPTK rT5yQ2bN
"""

import os
import sys

import trio

from rpcshare import ShareClient

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")


async def watch(client: ShareClient, share_id: str) -> None:
    async with client.subscribe(share_id) as events:
        async for event in events:
            kinds = [item["type"] for item in event.data]
            print(share_id, event.type, event.sync_count, *kinds, flush=True)


async def main(share_ids: list[str]) -> None:
    async with ShareClient(URL, token=TOKEN, reconnect=True) as client, trio.open_nursery() as nursery:
        for share_id in share_ids:
            nursery.start_soon(watch, client, share_id)


trio.run(main, sys.argv[1:])
