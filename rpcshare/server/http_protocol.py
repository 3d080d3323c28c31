"""uvicorn's HTTP protocol, with bounds on what nobody has shown a credential for.

That is the head of a request, of which uvicorn with httptools keeps however much comes, for however long
that takes; what is left of a body when its request has been refused, which it would wait for as long; and
answers that are not taken. To those that are, however slowly, it leaves the time that they take.

A proxy in front and this server must agree where each request ends, or a caller could hide a second request
in the body of the first (request smuggling). So a request is refused, and its connection closed, if its
length can be read in two ways; trailers are not headers; and behind an ``Upgrade`` that is not wanted comes
the body, as behind any other head.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from http import HTTPStatus
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rpcshare.server.accepting import client_address
from rpcshare.server.slow_clients import SLOW_CLIENT_TIMEOUT, SlowClients
from rpcshare.server.websocket_protocol import WebSocketProtocol
from rpcshare.structured_log import structlog

__all__ = ["HEAD_TIMEOUT", "LINGER", "MAX_HEAD", "HttpProtocol"]

logger = structlog.get_logger("rpcshare.server")

MAX_HEAD = 128 * 1024
"""In bytes: of request line and headers, and of the trailers of a chunked body.

Browsers send some 30 KiB of cookies at most."""

HEAD_TIMEOUT = 20.0
"""How long, in seconds, a connection may take for a request's head, the TLS handshake not counted."""

LINGER = 10.0
"""For how long, in seconds, the rest of a body is still taken, unread, after its request has been answered.

Whoever sends one may not look for the answer before all of it is sent, and might never see the answer if the
connection were cut (RFC 9112 section 9.6)."""

MAX_PIPELINED = 256
"""Requests of one connection that may wait for the answer to an earlier one. Each takes some 2 KiB."""

# Headers that say where a request ends, and whether what follows it is HTTP.
_FRAMING = frozenset({b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade"})

# RFC 9110 section 7.2, RFC 3986 section 3.2.2: a name or an address, and a port. It may be empty.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?", re.ASCII)

_CLOSE = (b"connection", b"close")


class _RefusedError(Exception):
    """A request that is not served: the status of the answer, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1."""

    head_timeout = HEAD_TIMEOUT
    linger = LINGER
    slow_client_patience = SLOW_CLIENT_TIMEOUT

    _slow_client: SlowClients

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- whatever uvicorn passes
        super().__init__(*args, **kwargs)
        # What has arrived since the last that was no head: bytes that the parser keeps.
        self._kept = 0
        self._has_head = False
        self._has_request = False  # or had
        self._patience: asyncio.TimerHandle | None = None
        # Of the head that is being read, the size of its headers in bytes, and those in _FRAMING.
        self._head_size = 0
        self._framing: list[tuple[bytes, bytes]] = []
        # Whether the parser takes what follows the last head for another protocol.
        self._is_upgrade = False
        # What has arrived behind a WebSocket handshake that waits for an earlier answer to end.
        self._behind_handshake: bytearray | None = None
        # Whether nothing is read any more: what arrives is thrown away.
        self._is_refused = False
        # Whether the answer that has begun is the last: its client has been told so.
        self._is_last = False
        # Requests without a whole answer, from the first on; all but that one are uvicorn's pipeline.
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._lingering: asyncio.TimerHandle | None = None
        # Whether the client was still taking an answer when it was last looked whether it is idle.
        self._was_taking = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begin a connection."""
        super().connection_made(transport)
        self.client = client_address(transport, self.client)
        self._slow_client = SlowClients(transport, self.loop, self.slow_client_patience)
        self.app = self._closing_early(self.app)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._stop_waiting()
        self._slow_client.stop()
        if self._lingering is not None:
            self._lingering.cancel()
        # uvicorn tells the last request alone that its client is gone.
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._unanswered.clear()
        self.pipeline.clear()
        self.app = self.config.loaded_app  # the other one knows this object
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process what has arrived, unless it makes the head too large."""
        if self._is_refused:
            return
        if self._behind_handshake is not None:
            self._behind_handshake += data
            self.flow.pause_reading()
            return
        self._kept += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except _RefusedError as refusal:
            self._refuse(refusal)
            return
        if self.transport.get_protocol() is not self or self.transport.is_closing():
            return
        if self._kept and not self._has_head:
            self._wait_for_head()
        if self._kept > MAX_HEAD:
            self._refuse(_too_large(), answers=not self._has_head)

    def _feed(self, data: bytes) -> None:
        """Have ``data`` parsed.

        Raises:
            _RefusedError: it is no request that is served here.
        """
        parts: list[bytes | memoryview] = [data]  # the first is the last
        while parts:
            part = parts.pop()
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                parts += self._after_upgrade(memoryview(part)[upgrade.args[0] :])
            except httptools.HttpParserError as exc:
                cause = exc.__context__
                if isinstance(cause, _RefusedError):
                    raise cause from None
                reason = "the request target is invalid" if cause is not None else _words_of(exc)
                raise _RefusedError(HTTPStatus.BAD_REQUEST, reason) from None

    def _after_upgrade(self, rest: memoryview) -> list[bytes | memoryview]:
        """Deal with a request to speak another protocol, behind whose head ``rest`` has arrived.

        Returns:
            What is to be parsed as HTTP, from the last part to the first.

        Raises:
            _RefusedError: it is a handshake with a body.
        """
        self._is_upgrade = False
        if self._is_last or self.transport.is_closing():
            return []
        if self._is_handshake():
            if self._is_draining():
                raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is being stopped")
        else:
            # RFC 9110 section 7.8: a server may ignore Upgrade. The parser can only be told by its absence.
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            return [rest, head]
        if self._is_idle():
            self._hand_over(bytes(rest))
        else:
            self._behind_handshake = bytearray(rest)
            self.flow.pause_reading()
        return []

    def _is_handshake(self) -> bool:
        """Whether the head that has been read asks for a WebSocket.

        Raises:
            _RefusedError: it does, and announces a body.
        """
        upgrades = _tokens(self._framing, b"upgrade")
        if (
            upgrades != [b"websocket"]
            or b"upgrade" not in _tokens(self._framing, b"connection")
            or (self.scope["method"], self.scope["http_version"]) != ("GET", "1.1")
            or not issubclass(self.ws_protocol_class or object, WebSocketProtocol)
        ):
            return False
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in self._framing
        ):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "a WebSocket handshake has no body")
        return True

    def _head_without_upgrade(self) -> bytes:
        head = [self.scope["method"].encode(), b" ", self.url, b" HTTP/", self.scope["http_version"].encode()]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [b"\r\n", name, b": ", value]
        return b"".join([*head, b"\r\n\r\n"])

    def _hand_over(self, early: bytes) -> None:
        """Make the connection a WebSocket, which has read the bytes ``early`` already."""
        self._stop_waiting()
        self._slow_client.stop()
        self.connections.discard(self)
        target, headers = self.url, self.headers
        # Nothing is to hold this object any longer, and it holds itself by these.
        self.app, self.parser = self.config.loaded_app, None  # type: ignore[assignment]  # as uvicorn does it
        protocol = self.ws_protocol_class(  # type: ignore[call-arg, misc]  # uvicorn's type says less
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        assert isinstance(protocol, WebSocketProtocol)  # noqa: S101 -- _is_handshake() has looked
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.handshake_received(target, headers, early)

    def _is_draining(self) -> bool:
        """Whether the server stops, so that a client is told with each answer not to ask again here."""
        return getattr(self.server_state, "is_draining", False)

    def _is_idle(self) -> bool:
        """Whether all that was asked has been answered."""
        return not self._has_request or self.cycle.response_complete

    def _refuse(self, refusal: _RefusedError, *, answers: bool = True) -> None:
        """Read no more, and answer what is no request, unless that could be taken for another answer."""
        self._is_refused = True
        self._stop_waiting()
        logger.warning(
            "refused a request",
            address=self.client[0] if self.client else "",
            status=refusal.status.value,
            reason=refusal.reason,
        )
        answers = answers and not self._is_last
        if not self._is_idle():
            # What is refused is the body of a request without an answer yet, or a head behind such a request.
            answers = answers and self._has_head and not self.pipeline and not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not answers:
            self._close()
        elif not self.transport.is_closing():
            self.transport.write(_answer_to(refusal))
            self._linger()

    def on_message_begin(self) -> None:
        """Begin to read a head."""
        super().on_message_begin()
        self._head_size = 0
        self._framing = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What comes behind a body is none: it may not change what its request means."""
        if self._has_head:
            return
        name = name.lower()
        value = value.rstrip(b" \t")  # RFC 9110 section 5.5; the parser leaves it there
        self.headers.append((name, value))
        self._head_size += len(name) + len(value) + 4  # with what stands between and behind them
        if name in _FRAMING:
            self._framing.append((name, value))
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Begin a request.

        Raises:
            _RefusedError: where it ends is not clear, or its head is too large.
        """
        self._kept = 0
        self._stop_waiting()
        if not self._is_last:
            self._begin_request()
        self._has_head = True

    def _begin_request(self) -> None:
        if len(self.url) + self._head_size > MAX_HEAD:
            raise _too_large()
        version = self.parser.get_http_version()
        method = self.parser.get_method()
        self._check_framing(version, method)
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110 section 10.1.1
        if self.parser.should_upgrade():
            # It is dealt with when the parser stops, which is behind the head.
            self._is_upgrade = True
            self.scope["method"], self.scope["http_version"] = method.decode("ascii"), version
            return
        if len(self._unanswered) > MAX_PIPELINED:
            reason = f"more than {MAX_PIPELINED} requests wait for the answer to an earlier one"
            raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS, reason)
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        # An upgrade has no cycle, but no further head either.
        self._has_request = True

    def _check_framing(self, version: str, method: bytes) -> None:
        if version not in ("1.0", "1.1"):
            raise _RefusedError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "the version is not HTTP/1.1")
        if method == b"CONNECT":
            raise _RefusedError(HTTPStatus.NOT_IMPLEMENTED, "this is no proxy")
        for name, value in self._framing:
            if name == b"transfer-encoding":
                if version == "1.0":  # RFC 9112 section 6.1
                    raise _RefusedError(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding")
                if value.lower() != b"chunked":
                    reason = "the only transfer coding that is understood is chunked"
                    raise _RefusedError(HTTPStatus.NOT_IMPLEMENTED, reason)
        _check_host([value for name, value in self._framing if name == b"host"], version)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, which flow control bounds."""
        self._kept = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete a request; what waits for another is uvicorn's timeout for idle connections."""
        self._kept = 0
        self._has_head = False
        if self._is_upgrade:
            return
        super().on_message_complete()
        if self._lingering is not None:
            self._close()

    def on_response_complete(self) -> None:
        """End an answer; if its request goes on, take no more than a little of it."""
        if self._unanswered:
            self._unanswered.popleft()
        if self._is_last:
            self.pipeline.clear()
            self._unanswered.clear()
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._is_last:
            self._unset_keepalive_if_required()
            if self._has_head:
                self._linger()
            else:
                self.transport.close()
        elif self._behind_handshake is not None and self._is_idle():
            self._unset_keepalive_if_required()
            early, self._behind_handshake = bytes(self._behind_handshake), None
            self._hand_over(early)

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that is idle, which it is from when its client has the last answer."""
        was_taking, self._was_taking = self._was_taking, not self._slow_client.has_left()
        if was_taking or self._was_taking:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _linger(self) -> None:
        """Say that nothing more is sent, and throw away for a while what still arrives."""
        self._lingering = self.loop.call_later(self.linger, self._close)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        """Close the connection, once: what asyncio has closed twice, it cannot cut off any more."""
        if not self.transport.is_closing():
            self.transport.close()

    def _closing_early(self, app: ASGIApp) -> ASGIApp:
        """Return ``app`` with answers that begin before all of the request is there as the last ones."""

        async def closing_early(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_as_last(message: Message) -> None:
                # What has been answered before is there whole, or nothing would wait behind it.
                if message["type"] != "http.response.start" or self.pipeline:
                    await send(message)
                    return
                if not self._has_head:
                    if self._is_draining():
                        message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
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


def _check_host(hosts: list[bytes], version: str) -> None:
    """Raise a _RefusedError unless the ``hosts`` that a request names are one (RFC 9112, section 3.2)."""
    if len(hosts) > 1:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "there is more than one Host")
    if not hosts and version == "1.1":
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "there is no Host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "the Host is invalid")


def _tokens(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return what a header lists, over all that have its ``name``, in lower case."""
    listed = b",".join(value for each, value in headers if each == name)
    return [token for part in listed.split(b",") if (token := part.strip().lower())]


def _words_of(error: httptools.HttpParserError) -> str:
    """Return what the parser says of an error, in which there is nothing of the request."""
    words = str(error).replace("`", "")
    return words[:1].lower() + words[1:]


def _too_large() -> _RefusedError:
    reason = f"the headers are larger than {MAX_HEAD:,} bytes"
    return _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason)


def _answer_to(refusal: _RefusedError) -> bytes:
    body = f"Refused: {refusal.reason}.".encode()
    head = (
        f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}\r\n"
        f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
