"""The gateway as one sandbox sees it: a Unix socket, and the sessions that its requests are of.

Which session a request is of, opencode says itself. Seen with opencode 1.18.33, the same for both packages:

- ``x-session-id`` and ``x-session-affinity`` have the session's id (``ses_…``), with the requests for titles,
  too, which go to ``small_model``;
- a sub-agent has a session of its own, and ``x-parent-session-id`` has the one that began it;
- a provider that is called ``opencode…`` gets ``x-opencode-session`` in place of these, and one that is
  called ``openai`` gets ``session-id`` beside them;
- it sends ``stream_options: {include_usage: true}`` itself, and ``Accept-Encoding: gzip, deflate, br, zstd``.

So no plugin is needed. What begins with a sub-agent's id is followed to the session at the top.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rpcshare.gateway.http_connection import BodyPool, HttpAnswer, HttpConnection, HttpRequest, Pace
from rpcshare.gateway.keys import KeyFor
from rpcshare.gateway.metering import ModelSessions

if TYPE_CHECKING:
    from rpcshare.gateway.gateway import ModelGateway

__all__ = ["GatewaySocket"]

_MAX_PARENTS = 1000
_DEEPEST = 32

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SESSION_HEADERS = ("x-session-id", "x-opencode-session", "x-session-affinity")


class GatewaySocket:
    """The gateway as one sandbox sees it."""

    def __init__(self, gateway: ModelGateway, path: Path, sessions: ModelSessions, key_for: KeyFor) -> None:
        """Made by :meth:`ModelGateway.open`."""
        self.path = path
        self.sessions = sessions
        self.under_way = 0
        """Requests that are carried out."""
        self._gateway = gateway
        self._key_for = key_for
        self._parents: dict[str, str] = {}
        self._pool = BodyPool(gateway.limits.held_bytes, gateway.pool)
        self._pace = Pace(gateway.limits.requests)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Listen. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._server = await asyncio.start_unix_server(self._on_connection, self.path, backlog=128)
        # Who is inside is another user; the directory keeps others out.
        os.chmod(self.path, 0o666)  # noqa: PTH101, S103 -- a Path follows links

    async def close(self) -> None:
        """End all requests. What they have used is charged soon, and before the gateway has closed."""
        if self._server is not None:
            self._server.close()
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._gateway.forget(self)
        with contextlib.suppress(OSError):
            self.path.unlink()

    def key_for(self, session_id: str | None) -> KeyFor:
        """Return what a key is used for."""
        return self._key_for._replace(session_id=session_id or "")

    def session_of(self, headers: Mapping[str, str]) -> str | None:
        """Return the session that a request says it is of: of a sub-agent, the one at the top; or None."""
        given = (headers.get(name, "") for name in _SESSION_HEADERS)
        session = next((each for each in given if _SESSION.fullmatch(each)), None)
        parent = headers.get("x-parent-session-id", "")
        if session is None:
            return None
        if _SESSION.fullmatch(parent) and parent != session:
            self._parents.pop(session, None)
            self._parents[session] = parent
            while len(self._parents) > _MAX_PARENTS:
                del self._parents[next(iter(self._parents))]
        for _ in range(_DEEPEST):
            above = self._parents.get(session)
            if above is None:
                break
            session = above
        return session

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= self._gateway.limits.connections:
            writer.transport.abort()
            return
        self._connections.add(task)
        gateway = self._gateway

        async def handle(request: HttpRequest, answer: HttpAnswer) -> None:
            await gateway.handle(self, request, answer)

        try:
            connection = HttpConnection(
                reader, writer, handle, gateway.refusal, gateway.limits, self._pool, self._pace
            )
            await connection.serve()
        except asyncio.CancelledError:
            writer.transport.abort()
            if not task.cancelling():
                raise
        finally:
            self._connections.discard(task)
