"""A stream of Server-Sent Events that says only that something is another: who reads it asks for what."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rpcshare.auth.caller import Caller
from rpcshare.auth.rate_limits import ConnectionLimit
from rpcshare.errors import ShareError
from rpcshare.server.event_streams import STREAMED
from rpcshare.server.web.responses import HEADERS

__all__ = ["ChangeStreams"]

_RETRY = b"retry: 2000\n\n"


class ChangeStreams:
    """Those that are open, and what ends them."""

    def __init__(self, connections: ConnectionLimit) -> None:
        """Count them among the ``connections`` of each caller."""
        self._connections = connections
        self._ends: set[asyncio.Event] = set()
        self._is_draining = False

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends)

    def drain(self) -> None:
        """End all of them, and all that come; their browsers will come back."""
        self._is_draining = True
        for end in self._ends:
            end.set()

    def answer(self, caller: Caller, changes: AsyncIterator[int | None]) -> Response:
        """Return the stream of numbers that ``changes`` yields; of None, an event ``alive``."""
        return _Stream(self, caller, changes)

    @contextlib.contextmanager
    def reading(self, caller: Caller) -> Iterator[asyncio.Event]:
        """Yield what is set when a reader has to go. Raises ShareError: RATE_LIMITED."""
        end = asyncio.Event()
        if self._is_draining:
            end.set()
        with self._connections.hold(caller):
            self._ends.add(end)
            try:
                yield end
            finally:
                self._ends.discard(end)


class _Stream(Response):
    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(self, streams: ChangeStreams, caller: Caller, changes: AsyncIterator[int | None]) -> None:
        self._streams = streams
        self._caller = caller
        self._changes = changes
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **STREAMED})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send numbers until the reader is gone, may read no longer, or the server is being stopped."""
        with self._streams.reading(self._caller) as end:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            if scope["method"] != "HEAD":
                tasks = [
                    asyncio.create_task(self._deliver(send)),
                    asyncio.create_task(_until_disconnected(receive)),
                    asyncio.create_task(end.wait()),
                ]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(OSError):  # the reader may be gone
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _deliver(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
        try:
            async for number in self._changes:
                # A comment is not heard by a script, which has to know that the stream is not dead.
                body = b"event: alive\ndata:\n\n" if number is None else b"data: %d\n\n" % number
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except ShareError as exc:
            body = b"event: ended\ndata: %b\n\n" % exc.code.value.encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
