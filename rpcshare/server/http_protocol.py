"""uvicorn's HTTP protocol, with bounds on what nobody has shown a credential for.

That is the head of a request, of which uvicorn with httptools keeps however much comes, for however long
that takes; what is left of a body when its request has been refused, which it would wait for as long; and
answers that are not taken. To those that are, however slowly, it leaves the time that they take.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rpcshare.server.outflow import OUTFLOW_PATIENCE, Outflow

__all__ = ["HEAD_TIMEOUT", "LINGER", "MAX_HEAD", "HttpProtocol"]

MAX_HEAD = 128 * 1024
"""In bytes: of request line and headers, and of the trailers of a chunked body.

Browsers send some 30 KiB of cookies at most."""

HEAD_TIMEOUT = 20.0
"""How long, in seconds, a connection may take for a request's head, the TLS handshake not counted."""

LINGER = 10.0
"""For how long, in seconds, the rest of a body is still taken, unread, after its request has been answered.

Whoever sends one may not look for the answer before all of it is sent, and might never see the answer if the
connection were cut (RFC 9112 section 9.6)."""

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 26\r\nconnection: close\r\n\r\n"
    b"The headers are too large."
)


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1."""

    head_timeout = HEAD_TIMEOUT
    linger = LINGER
    outflow_patience = OUTFLOW_PATIENCE

    _outflow: Outflow

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- whatever uvicorn passes
        super().__init__(*args, **kwargs)
        # What has arrived since the last that was no head: bytes that the parser keeps.
        self._kept = 0
        self._has_head = False
        self._has_request = False  # or had
        self._patience: asyncio.TimerHandle | None = None
        # Whether the answer that has begun is the last: its client has been told so.
        self._is_last = False
        self._lingering: asyncio.TimerHandle | None = None
        # Whether the client was still taking an answer when it was last looked whether it is idle.
        self._was_taking = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin a connection."""
        super().connection_made(transport)
        self._outflow = Outflow(transport, self.loop, self.outflow_patience)
        self.app = self._closing_early(self.app)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._stop_waiting()
        self._outflow.stop()
        if self._lingering is not None:
            self._lingering.cancel()
        self.app = self.config.loaded_app  # the other one knows this object
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

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to a protocol that sees to it by pings."""
        self._outflow.stop()
        super().handle_websocket_upgrade()

    def on_headers_complete(self) -> None:
        """Begin a request."""
        self._kept = 0
        self._has_head = True
        self._stop_waiting()
        if self._is_last:
            return
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
        if self._lingering is not None:
            self._close()

    def on_response_complete(self) -> None:
        """End an answer; if its request goes on, take no more than a little of it."""
        if self._is_last:
            self.pipeline.clear()
        super().on_response_complete()
        if self._is_last and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            if self._has_head:
                self._lingering = self.loop.call_later(self.linger, self._close)
                if self.transport.can_write_eof():
                    self.transport.write_eof()
            else:
                self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that is idle, which it is from when its client has the last answer."""
        was_taking, self._was_taking = self._was_taking, not self._outflow.has_left()
        if was_taking or self._was_taking:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _close(self) -> None:
        """Close the connection, once: what asyncio has closed twice, it cannot cut off any more."""
        if not self.transport.is_closing():
            self.transport.close()

    def _closing_early(self, app: ASGIApp) -> ASGIApp:
        """Return ``app`` with answers that begin before all of the request is there as the last ones."""

        async def closing_early(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_as_last(message: Message) -> None:
                # What has been answered before is there whole, or nothing would wait behind it.
                if message["type"] != "http.response.start" or not self._has_head or self.pipeline:
                    await send(message)
                    return
                self._is_last = True
                self.cycle.keep_alive = False  # so that uvicorn says it
                await send(message)
                self.cycle.keep_alive = True  # but does not do it

            await app(scope, receive, send_as_last)

        return closing_early

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
            self._close()
