"""Sessions as opencode sends them, in one request, to a server whose limits are low."""

import json
import os
import socket
from typing import Any

import httpx

from support.running_server import RunningServer

__all__ = ["MESSAGE", "SHARE", "Share", "body", "half_sent", "session"]

MESSAGE = 64 * 1024
"""Bytes of a message."""

SHARE = 4 * 2**20
"""Bytes of a share."""


class Share:
    def __init__(self, server: RunningServer, session_id: str) -> None:
        self.headers = {"Authorization": f"Bearer {server.token}"}
        made = httpx.post(
            f"{server.url}/api/share", json={"sessionID": session_id}, headers=self.headers
        ).json()
        self.secret: str = made["secret"]
        self.url = f"{server.url}/api/share/{made['id']}"
        self.path = f"/api/share/{made['id']}/sync"

    def sync(self, body: bytes, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}/sync", content=body, headers=headers, timeout=60)

    def data(self) -> list[dict[str, object]]:
        return list(httpx.get(f"{self.url}/data", headers=self.headers).json())

    def count(self) -> int:
        return int(httpx.get(f"{self.url}/metadata", headers=self.headers).json()["syncCount"])


def session(parts: int) -> list[dict[str, Any]]:
    text = os.urandom(2000).hex()
    diffs: list[object] = [
        {"file": f"f{number}", "before": text, "after": f'{{"[\\\ud83d {number}'} for number in range(60)
    ]
    return [
        {"type": "session", "data": {"id": "ses", "title": 'ä \\ " ]}', "n": [[1], {}]}},
        {"type": "message", "data": {"id": "msg", "role": "user"}},
        *(
            {"type": "part", "data": {"id": f"prt_{n}", "messageID": "msg", "text": text}}
            for n in range(parts)
        ),
        {"type": "session_diff", "data": diffs},
        {"type": "model", "data": [{"id": f"m{number}", "x": text} for number in range(60)]},
    ]


def body(secret: str | None, data: object) -> bytes:
    """Return a body as JSON.stringify makes it."""
    shown = {} if secret is None else {"secret": secret}
    return json.dumps({**shown, "data": data}, separators=(",", ":")).encode()


def half_sent(server: RunningServer, share: Share, text: bytes, length: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = f"POST {share.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + text)
    return connection
