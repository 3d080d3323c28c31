"""Pass functions and an object to the server, which uses them over the same connection.

Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:

    RPCSHARE_TOKEN=… python examples/callbacks.py ses_4f1d2c9b8a
"""

import asyncio
import os
import sys
from typing import Any

import rpcshare

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")


class Inbox(rpcshare.RpcTarget):
    """Stays here; the server gets a reference, and may call what is marked."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    @rpcshare.rpc_method("size()")
    def size(self) -> int:
        """Return how many events have not been looked at."""
        return self.events.qsize()


async def main(session_id: str) -> None:
    inbox = Inbox()
    async with rpcshare.connect(URL, token=TOKEN) as api:
        print(await api.probeCallback(lambda words: f"{words}, and answered"))

        share = await api.createShare(session_id)
        async with await api.subscribe(share["id"], inbox.events.put):
            await api.syncShare(share["id"], share["secret"], [])
            for _ in range(2):
                print((await inbox.events.get())["type"])

        # The callback gives the inbox to the server, and the call on what comes back goes through it.
        print("left:", await api.probeCallback(lambda _: inbox).size())


asyncio.run(main(sys.argv[1]))
