"""HTTP/1.1 to one server, for many small requests: each is one write and, most often, one read.

aiohttp takes 110 µs of CPU for such a request, this 25. It does only what such requests need: it follows no
redirect, uses no proxy, never repeats a request, and reads a response whole. httptools parses responses, and
aiohappyeyeballs connects.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

import aiohappyeyeballs
import httptools
import msgspec

__all__ = [
    "CannotConnectError",
    "CutShortError",
    "HTTPConnections",
    "NotHTTPError",
    "Response",
    "SlowConnectError",
    "TooLargeError",
]

# Servers close idle connections themselves: those of AWS after some 20 s. A request that is on its way then
# is lost, so a connection is not used again so late.
_IDLE_FOR = 12.0  # seconds
_NEXT_ADDRESS_AFTER = 0.25  # seconds: RFC 8305 section 5
_LARGEST_HEAD = 256 * 2**10  # bytes of a response before its body, with what has come of that

OnBody = Callable[[int], None]


class CannotConnectError(ConnectionError):
    """The server has no address, or takes no connection at it."""


class SlowConnectError(TimeoutError):
    """The server did not take a connection in time."""


class CutShortError(ConnectionError):
    """The connection was closed in the middle of a response."""


class NotHTTPError(ConnectionError):
    """What came is no response by the letter of RFC 9112, or one that was not asked for."""


class TooLargeError(ConnectionError):
    """The body of a response is larger than any that was to be expected."""


class Response(msgspec.Struct, frozen=True):
    """A final response, read whole."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case; the last one of a name."""
    body: bytes


class HTTPConnections:
    """A pool of connections to one server: as many as there are requests under way at once."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, connect_timeout: float = 3.0
    ) -> None:
        """Connect to ``host`` when a request needs it; by TLS if ``tls`` is given.

        Args:
            host: a name or an address, without brackets.
            port: at which it listens.
            tls: has to check the certificate, and the name in it.
            connect_timeout: seconds for the address, the connection and TLS together.
        """
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._idle: deque[_Connection] = deque()  # the one that was used last is last
        self._is_closed = False

    async def exchange(
        self, request: bytes, on_body: OnBody | None = None, *, largest: int | None = None
    ) -> Response:
        """Send ``request``, which is whole, and return the response to it.

        Args:
            request: its head and its body. It must ask neither for leave to send its body nor for a
                response without the body that its headers tell of, as HEAD does.
            on_body: called with how many bytes of a body have arrived, each time that some have.
            largest: bytes that the body may have; None: any number.

        Raises:
            CannotConnectError, SlowConnectError: nothing was sent.
            ssl.SSLError: TLS failed, likewise.
            CutShortError, NotHTTPError: there is only a part of a response, or something else.
            TooLargeError: the body has more bytes than ``largest``.
            ConnectionError: there is no response.
        """
        connection = self._take_idle() or await self._connect()
        try:
            response = await connection.send(request, on_body, largest)
        except BaseException:
            connection.abort()
            raise
        if self._is_closed or not connection.is_reusable:
            connection.close()
        else:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        return response

    def close(self) -> None:
        """Close the connections: those in use after their response."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> "_Connection | None":
        too_old = asyncio.get_running_loop().time() - _IDLE_FOR
        while self._idle and self._idle[0].idle_since < too_old:
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER, interleave=1
                )
                try:
                    name = self._host if self._tls else None
                    _, connection = await loop.create_connection(
                        _Connection, sock=connected, ssl=self._tls, server_hostname=name
                    )
                except BaseException:
                    connected.close()
                    raise
        except TimeoutError as exc:
            raise SlowConnectError(f"no connection within {self._connect_timeout:g} s") from exc
        except ssl.SSLError:
            raise
        except OSError as exc:
            raise CannotConnectError(str(exc)) from exc
        return connection


class _Connection(asyncio.Protocol):
    """A connection, which has one request under way at most."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answered: asyncio.Future[Response] | None = None  # None: no request is under way
        self._on_body: OnBody | None = None
        self._largest: int | None = None
        self._head_size = 0  # of what has come before a body
        self._is_keeping_alive = True
        self._start_response()

    def _start_response(self) -> None:
        self._headers: dict[str, str] = {}
        self._has_head = False
        self._body: list[bytes] = []
        self._body_size = 0

    async def send(self, request: bytes, on_body: OnBody | None, largest: int | None) -> Response:
        """Send a request and return the response. If this fails, the connection is of no more use."""
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._answered = answered
        self._on_body = on_body
        self._largest = largest
        self._head_size = 0
        self._start_response()
        self._transport.write(request)
        return await answered

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent."""
        return self._is_keeping_alive and not self._transport.is_closing()

    def close(self) -> None:
        """Close the connection when all is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        self._answered = None
        self._transport.abort()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by their class

    def data_received(self, data: bytes) -> None:
        if self._answered is None:
            # It would be taken for the response to the next request.
            self.abort()
            return
        if not self._has_head:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD:
                self._fail(NotHTTPError("the head of a response is too large"))
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(NotHTTPError(str(exc)))
        else:
            if self._largest is not None and self._body_size > self._largest:
                self._fail(TooLargeError(f"the body of a response has more than {self._largest:,} bytes"))

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._answered is None:
            return
        if self._has_head and not self._headers.keys() & _FRAMED_BY:
            self.on_message_complete()  # RFC 9112 section 6.3: it ends with the connection
        elif self._has_head or self._head_size:
            self._fail(CutShortError("the connection was closed in the middle of a response"))
        else:
            self._fail(ConnectionError("the connection was closed before a response"))

    # httptools calls these

    def on_message_begin(self) -> None:
        if self._answered is None:
            raise NotHTTPError("more than one response came to a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("utf-8", "replace").strip(" \t")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= _FINAL:
            self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._largest is None or self._body_size <= self._largest:
            self._body.append(body)
        if self._on_body is not None:
            self._on_body(len(body))

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < _FINAL:
            self._start_response()  # RFC 9110 section 15.2: others follow
            return
        answered, self._answered = self._answered, None
        if self._largest is not None and self._body_size > self._largest:
            self._answered = answered
            return  # data_received tells
        # A server that answers before it has read the request may close, or read the rest as another request.
        is_sent = not self._transport.get_write_buffer_size()
        self._is_keeping_alive = is_sent and self._parser.should_keep_alive()
        if answered is not None and not answered.done():
            answered.set_result(Response(status, self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        answered = self._answered
        self.abort()
        if answered is not None and not answered.done():
            answered.set_exception(error)


_FINAL = 200  # RFC 9110 section 15: lower ones are interim
_FRAMED_BY = frozenset({"content-length", "transfer-encoding"})
