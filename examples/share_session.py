"""Share a session in one round trip, with the bare stub: calls on results that have not arrived yet.

Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:

    RPCSHARE_TOKEN=… python examples/share_session.py ses_4f1d2c9b8a
"""

import asyncio
import os
import sys

import rpcshare

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")


async def main(session_id: str) -> None:
    items = [
        {"type": "session", "data": {"id": session_id, "title": "Shared from Python"}},
        {"type": "message", "data": {"id": "msg_1", "sessionID": session_id, "role": "user"}},
        {
            "type": "part",
            "data": {"id": "prt_1", "messageID": "msg_1", "type": "text", "text": "Hello"},
        },
    ]
    async with rpcshare.connect(URL, token=TOKEN) as api:
        info = api.createShare(session_id)
        synced = api.syncShare(info.id, info.secret, items)
        share, result = await asyncio.gather(info, synced)
        print(f"{share['url']} has seen {result['syncCount']} sync")


asyncio.run(main(sys.argv[1]))
