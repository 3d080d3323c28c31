"""Share a session from a plain script, without an event loop.

Run it against `rpcshare serve`, with the token in `.rpcshare/admin-token`:

    RPCSHARE_TOKEN=… python examples/blocking_script.py ses_4f1d2c9b8a
"""

import os
import sys

import rpcshare

URL = os.environ.get("RPCSHARE_URL", "http://127.0.0.1:8787")
TOKEN = os.environ.get("RPCSHARE_TOKEN")

session_id = sys.argv[1]
with rpcshare.connect_blocking(URL, token=TOKEN) as client:
    share = client.create_share(session_id, [{"type": "session", "data": {"id": session_id}}])
    for number in range(3):
        message = {"id": f"msg_{number}", "role": "user"}
        client.sync_share(share.id, share.secret, [{"type": "message", "data": message}])
    index = client.get_share_metadata(share.id)
    print(f"{share.url} holds {index.message_count} messages after {index.sync_count} syncs")
