"""Shares as deployments before the log kept them."""

import json

from rpcshare import jsontext

SECRET = "6d5a2d4e-3a0c-5d77-8f27-0d1b2c3d4e5f"


def older_share(session_id="ses_older_12345678", **members):
    """Return the object of a share, as a value, with all members in use."""
    return {
        "session": {"id": session_id, "title": "Old times", "directory": "/old", "unknown": [1.0, None]},
        "messages": [{"id": "msg_1", "role": "user"}, {"id": "msg_2", "role": "assistant", "cost": 0.25}],
        "parts": [{"id": "prt_1", "messageID": "msg_1", "text": "half \ud83d of an emoji"}],
        "diffs": [{"file": "a.py"}, {"file": "b.py"}, {"file": "a.py"}],
        "models": [{"id": "m", "providerID": "p"}],
        "metadata": {
            "sessionID": session_id,
            "secret": SECRET,
            "createdAt": 1_600_000_000_000,
            "lastUpdated": 1_600_000_001_000,
            "syncCount": 7,
        },
        **members,
    }


def older_index(share_id="12345678", session_id="ses_older_12345678"):
    """Return the row of that share."""
    return {
        "id": share_id,
        "sessionID": session_id,
        "title": "Old times",
        "directory": "/old",
        "messageCount": 2,
        "partCount": 1,
        "diffCount": 3,
        "modelCount": 1,
        "lastUpdated": 1_600_000_001_000,
        "syncCount": 7,
        "createdAt": 1_600_000_000_000,
    }


async def put_older(store, share_id="12345678", share=None, index=None):
    """Put a share and its row into ``store`` as an older deployment did."""
    await store.put(f"share/{share_id}", jsontext.encode(share or older_share()))
    await store.put(f"index/{share_id}", json.dumps(index or older_index(share_id)).encode())
