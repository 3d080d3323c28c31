"""The server that is abused, under a limit of memory, and what its callers need of it."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from abuse.watch import Watched, memory_of, watching
from support.running_server import RPCSHARE, RunningServer

__all__ = ["MEMORY_LIMIT", "Answer", "Target", "running_target"]

MEMORY_LIMIT = 2**30
_SETTLED = 8  # looks at the memory of a server, a quarter of a second apart, that all show the same

# RLIMIT_DATA counts what a process could write to, and not, as RLIMIT_AS does, what it has only reserved.
_LIMITED = """
import os, resource, sys
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Answer(NamedTuple):
    """What came back for an HTTP request."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Target(RunningServer):
    """A server of which each process may have ``MEMORY_LIMIT`` bytes."""

    command = (sys.executable, "-c", _LIMITED, "RLIMIT_DATA", str(MEMORY_LIMIT), RPCSHARE)

    @property
    def admin(self) -> dict[str, str]:
        """The headers of an admin."""
        return {"Authorization": f"Bearer {self.token}"}

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        *,
        timeout: float = 60.0,
    ) -> Answer:
        """Make an HTTP request as an admin, or with ``headers``; a ``body`` not in bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, self.admin if headers is None else headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def create_share(self, session_id: str, **options: object) -> dict[str, str]:
        """Make a share; return its id, url and secret."""
        answer = self.request("POST", "/api/share", {"sessionID": session_id, **options})
        assert answer.status == 200, answer
        share: dict[str, str] = answer.json()
        return share

    def sync(self, share: dict[str, str], data: list[object]) -> None:
        """Add to a share."""
        path = f"/api/share/{share['id']}/sync"
        answer = self.request("POST", path, {"secret": share["secret"], "data": data})
        assert answer.status == 200, answer

    def view_token(self, session_id: str = "ses_abuse_readable") -> str:
        """Return the token of a mere reader, got with a share's password; the share is made."""
        share = self.create_share(session_id, password="pw")
        answer = self.request("POST", f"/api/share/{share['id']}/unlock", {"password": "pw"})
        assert answer.status == 200, answer
        token: str = answer.json()["token"]
        return token

    def warm_up(self) -> None:
        """Have done what a server does at its first request, so that no caller is charged with it."""
        share = self.create_share("ses_abuse_warm_up")
        part = {"id": "p", "messageID": "m", "type": "text", "text": "a"}
        self.sync(share, [{"type": "message", "data": {"id": "m"}}, {"type": "part", "data": part}])
        place = share["id"]
        for path in (f"/share/{place}", f"/api/share/{place}", "/sessions", "/metrics", "/api/search?q=a"):
            self.request("GET", path)
        self.request("POST", "/rpc", b'["push",["pipeline",0,["getShare"],["%b"]]]' % share["id"].encode())
        self.request("DELETE", f"/api/share/{share['id']}", {"secret": share["secret"]})
        for path in ("/api/keys", "/organization"):  # SQLAlchemy, and the database of records
            self.request("GET", path)
        # The processes that draw pages are started one after the other, in the background.
        held = [0]
        while len({each // 2**20 for each in held}) > 1 or len(held) < _SETTLED:
            time.sleep(0.25)
            held = [*held, memory_of(self.process.pid)][-_SETTLED:]


@contextmanager
def running_target(folder: Path, *options: str) -> Iterator[tuple[Target, Watched]]:
    """Run a server in ``folder``, warmed up, and watch it until the block ends."""
    with Target(folder, *options) as target:
        target.warm_up()
        with watching(target.process.pid, target.port) as watched:
            yield target, watched
