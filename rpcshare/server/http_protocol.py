"""uvicorn's HTTP protocol, with bounds on the head of a request.

Nobody has been asked for a credential while it arrives. uvicorn with httptools keeps however much of it
comes, for however long that takes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEAD_TIMEOUT", "MAX_HEAD", "HttpProtocol"]

MAX_HEAD = 128 * 1024
"""In bytes: of request line and headers, and of the trailers of a chunked body.

Browsers send some 30 KiB of cookies at most."""

HEAD_TIMEOUT = 20.0
"""How long, in seconds, a connection may take for a request's head, the TLS handshake not counted."""

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 26\r\nconnection: close\r\n\r\n"
    b"The headers are too large."
)


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1."""

    head_timeout = HEAD_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- whatever uvicorn passes
        super().__init__(*args, **kwargs)
        # What has arrived since the last that was no head: bytes that the parser keeps.
        self._kept = 0
        self._has_head = False
        self._has_request = False  # or had
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin a connection."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process what has arrived, unless it makes the head too large."""
        self._kept += len(data)
        super().data_received(data)
        if self._kept and not self._has_head:
            self._wait_for_head()
        if self._kept > MAX_HEAD and not self.transport.is_closing():
            if not self._has_head:
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._kept = 0
        self._has_head = True
        self._stop_waiting()
        super().on_headers_complete()
        # An upgrade has no cycle, but no further head either.
        self._has_request = True

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, which flow control bounds."""
        self._kept = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete a request; what waits for another is uvicorn's timeout for idle connections."""
        self._kept = 0
        self._has_head = False
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.head_timeout, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self._has_request and not self.cycle.response_complete:
            self._wait_for_head()  # an answer is on its way yet, to what was asked before
        else:
            self.transport.close()
