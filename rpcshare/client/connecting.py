"""Opening an authenticated connection."""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, overload
from urllib.parse import urlsplit, urlunsplit

import anyio

from rpcshare.client.connect_failures import ConnectFailedError, failure_of, refusal_of
from rpcshare.client.forks import ForkedError, break_after_fork
from rpcshare.client.reconnecting import Reconnecting, Token
from rpcshare.client.redirects import MOST_REDIRECTS, place_of, redirected
from rpcshare.rpc import JSON, Codec, Connection, Limits, OnSendError, SessionClosedError, Stub
from rpcshare.rpc.callback_connection import CallbackConnection
from rpcshare.rpc.driver import Driver
from rpcshare.rpc.event_loop import is_trio
from rpcshare.rpc.messagepack import MESSAGEPACK

if TYPE_CHECKING:
    from websockets.client import ClientProtocol
    from websockets.datastructures import Headers

    from rpcshare.client.trio_websocket import TrioWebSocket
    from rpcshare.rpc.websocket import DirectWebSocket

__all__ = [
    "ConnectFailedError",
    "ConnectOptions",
    "Connecting",
    "authorization",
    "connect",
    "endpoint",
    "place_of",
    "require_tls",
]

logger = logging.getLogger("rpcshare.client")

# What a server sends is as large as the shares that it keeps, and the caller chose the server.
CLIENT_LIMITS = Limits(message_bytes=0, values=0, memory_bytes=0)

# A peer that has vanished without a word is noticed after all three: 28 s. The last is how long it may take
# to agree that the connection is over, which such a peer never does.
PING_INTERVAL = 15.0
PING_TIMEOUT = 10.0
CLOSE_TIMEOUT = 3.0

# What is offered. JSON comes first, since many a server that knows no subprotocols selects the first one, and
# speaks JSON; rpcshare's prefers the other. A server that selects none speaks JSON, too (PROTOCOL.md, T-7).
CODECS: dict[str | None, Codec] = {
    JSON.subprotocol: JSON,
    MESSAGEPACK.subprotocol: MESSAGEPACK,
}


class Connecting:
    """What :func:`connect` returns: enter it for the stub."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        main: object = None,
        headers: Mapping[str, str] | None = None,
        open_timeout: float = 10.0,
        limits: Limits = CLIENT_LIMITS,
        on_send_error: OnSendError | None = None,
        ping_interval: float = PING_INTERVAL,
        ping_timeout: float = PING_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = endpoint(url, {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"})
        self.connection: Driver | None = None
        self._headers = {**(headers or {}), **authorization(token)}
        self._main = main
        self._open_timeout = open_timeout
        self._limits = limits
        self._on_send_error = on_send_error
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._ssl_context = ssl_context
        require_tls(self.url, ssl_context)

    async def __aenter__(self) -> Stub:
        websocket = await self._open()
        drive = cast("type[CallbackConnection]", Connection if is_trio() else CallbackConnection)
        self.connection = drive(
            cast("DirectWebSocket", websocket),
            self._main,
            codec=CODECS.get(websocket.subprotocol, JSON),
            limits=self._limits,
            on_send_error=self._on_send_error,
        )
        await self.connection.__aenter__()
        break_after_fork(self)
        return self.connection.remote_main

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.connection is not None:
            await self.connection.__aexit__(exc_type, exc, traceback)

    def break_copy(self) -> None:
        """Fail whatever is asked in a process that was forked from the one that has the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.session.closed = ForkedError()

    @property
    def closed(self) -> SessionClosedError | None:
        """Why the session is over; None before it is."""
        return self.connection.session.closed if self.connection is not None else None

    async def _open(self) -> DirectWebSocket | TrioWebSocket:
        from websockets.exceptions import InvalidStatus, WebSocketException  # noqa: PLC0415 -- as in _handshake

        try:
            with anyio.fail_after(self._open_timeout):
                for _ in range(MOST_REDIRECTS):
                    try:
                        return await self._handshake()
                    except InvalidStatus as exc:
                        self._follow(exc.response.status_code, exc.response.headers)
        except TimeoutError:
            message = f"{place_of(self.url)} did not answer within {self._open_timeout:g} s"
            raise ConnectFailedError(message) from None
        except ConnectFailedError:
            raise
        except (OSError, WebSocketException, ImportError, ValueError) as exc:
            # What says more than the error may hold a proxy's password.
            raise failure_of(exc, place_of(self.url)) from (exc if isinstance(exc, OSError) else None)
        raise ConnectFailedError(f"{place_of(self.url)} redirects again and again", is_permanent=True)

    async def _handshake(self) -> DirectWebSocket | TrioWebSocket:
        # A third of the time that `import rpcshare` would take, and not every script connects.
        from websockets.asyncio.client import connect as connect_websocket  # noqa: PLC0415
        from websockets.exceptions import InvalidMessage  # noqa: PLC0415
        from websockets.typing import Subprotocol  # noqa: PLC0415

        from rpcshare.rpc.websocket import DirectWebSocket  # noqa: PLC0415

        max_size = self._limits.message_bytes or None
        options: dict[str, Any] = {
            "additional_headers": self._headers,
            "subprotocols": [Subprotocol(codec.subprotocol) for codec in CODECS.values()],
            "compression": None,
            "open_timeout": None,  # it is that of all handshakes together
            "ping_interval": self._ping_interval,
            "ping_timeout": self._ping_timeout,
            "close_timeout": min(CLOSE_TIMEOUT, self._ping_timeout),
            "max_size": max_size,
            "ssl": self._ssl_context,
        }
        websocket: DirectWebSocket | TrioWebSocket | None = None

        def make(protocol: ClientProtocol, **more: Any) -> DirectWebSocket:  # noqa: ANN401 -- the package's
            nonlocal websocket
            websocket = DirectWebSocket(protocol, max_size=max_size, **more)
            return websocket

        try:
            if is_trio():
                from rpcshare.client.trio_websocket import TrioWebSocket  # noqa: PLC0415 -- few have trio

                websocket = TrioWebSocket(self.url, **options)
                await websocket.open()
                return websocket
            if self.url.startswith("wss:"):
                options["ssl"] = self._ssl_context or True
            connecting = connect_websocket(self.url, create_connection=make, **options)  # type: ignore[arg-type]  # a class is asked for, and called
            # Its own way with redirects takes the headers, and a key in the path, to other hosts.
            connecting.process_redirect = _as_it_is  # type: ignore[method-assign]
            return await connecting  # type: ignore[return-value]  # what create_connection makes
        except InvalidMessage:
            if websocket is not None and websocket.greeting[:4] not in (b"", b"HTTP"):
                raise ConnectFailedError(
                    f"{place_of(self.url)} speaks no HTTP; perhaps it speaks TLS, and the URL is to be https://",
                    is_permanent=True,
                ) from None
            raise

    def _follow(self, status: int, headers: Headers) -> None:
        """Go where an answer to the handshake leads to.

        Raises:
            ShareError, ConnectFailedError: it is no redirect, or none to follow.
        """
        url = redirected(self.url, status, headers.get("Location"), within_origin=True)
        if url is None:
            place = place_of(self.url)
            retry_after = headers.get("Retry-After", "")
            raise refusal_of(status, place, "the handshake", retry_after=retry_after) from None
        if url.startswith("wss:") and not self.url.startswith("wss:"):
            _tell_of_upgrade(place_of(self.url), place_of(url))
        self.url = url


@functools.cache  # once each
def _tell_of_upgrade(place: str, to: str) -> None:
    logger.warning("%s redirects to %s: use https://, so that no credential goes unencrypted", place, to)


def _as_it_is(exc: Exception) -> Exception:
    return exc


class ConnectOptions(TypedDict, total=False):
    """The arguments of :func:`connect` that any connection has; it says what they mean."""

    main: object
    headers: Mapping[str, str] | None
    open_timeout: float
    limits: Limits
    on_send_error: OnSendError | None
    ping_interval: float
    ping_timeout: float
    ssl_context: ssl.SSLContext | None


@overload
def connect(
    url: str,
    *,
    token: str | None = None,
    reconnect: Literal[False] = False,
    **options: Unpack[ConnectOptions],
) -> Connecting: ...


@overload
def connect(
    url: str, *, token: Token | None = None, reconnect: Literal[True], **options: Unpack[ConnectOptions]
) -> Reconnecting: ...


@overload
def connect(
    url: str, *, token: Token | None = None, reconnect: bool, **options: Unpack[ConnectOptions]
) -> Connecting | Reconnecting: ...


def connect(
    url: str, *, token: Token | None = None, reconnect: bool = False, **options: Unpack[ConnectOptions]
) -> Connecting | Reconnecting:
    """Connect to the RPC endpoint of a server; enter the result for a stub of its main target.

    The stub has the server's own names, and pipelines::

        async with rpcshare.connect("https://share.example", token=token) as api:
            info = api.createShare(session_id)
            await api.syncShare(info.id, info.secret, items)

    Args:
        url: of the server: ``http``, ``https``, ``ws`` or ``wss``. Without a path, ``/rpc`` is meant. A
            redirect is followed on the same origin, and from http to https on the same host.
        token: sent as ``Authorization: Bearer`` in the handshake. With ``reconnect`` it may be a function,
            sync or async, that returns a fresh one for each handshake.
        reconnect: make another connection when one is lost; see
            :class:`~rpcshare.client.reconnecting.Reconnecting`.
        main: a target that the server may call as its remote main.
        headers: more headers for the handshake.
        open_timeout: in seconds, for the whole of the handshake; 10 unless said.
        limits: how much the server may ask of this side.
        on_send_error: called with each error that is sent to the server, as by a callback of this side. What
            it returns, if anything, is sent in its place, and with its ``stack`` if it has one.
        ping_interval: in seconds, from one sign of life that is asked for to the next; 15 unless said.
        ping_timeout: for how many seconds the server may owe one before the connection counts as lost; 10
            unless said.
        ssl_context: which CAs are trusted, and the client certificate to be shown, for ``https`` and ``wss``.

    Raises (on entering):
        ShareError: ``UNAUTHORIZED`` or ``FORBIDDEN``: the server refused the handshake.
        ConnectFailedError: there is no connection for any other reason. With ``reconnect``, only if no
            other attempt can go better; else it goes on trying.
    """

    def attempt(token: str | None) -> Connecting:
        return Connecting(url, token=token, **options)

    if reconnect:
        attempt(None)  # so that a URL that is none is found here, too
        return Reconnecting(attempt, token=token)
    if token is not None and not isinstance(token, str):
        raise TypeError("a function that makes tokens is for reconnect=True")
    return attempt(token)


def endpoint(url: str, schemes: Mapping[str, str]) -> str:
    """Return the URL of the RPC endpoint that ``url`` means.

    Args:
        url: of a server, or of its endpoint.
        schemes: for each that ``url`` may have, the one to use.

    Raises:
        ValueError: ``url`` is not an absolute URL of one of the schemes.
    """
    parts = urlsplit(url)
    scheme = schemes.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError("a server's URL begins with http://, https://, ws:// or wss:// and a host")
    path = parts.path.rstrip("/")
    is_endpoint = path.endswith(("/rpc", "/rpc/share"))
    if not path or (path.startswith("/k/") and not is_endpoint):
        path += "/rpc"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def require_tls(url: str, ssl_context: ssl.SSLContext | None) -> None:
    """Return if what ``ssl_context`` asks for can be had at ``url``.

    Raises:
        ValueError: no TLS is spoken there, so no certificate would be checked or shown.
    """
    if ssl_context is not None and urlsplit(url).scheme not in ("https", "wss"):
        raise ValueError("an ssl_context is for https:// and wss://")


def authorization(token: str | None) -> dict[str, str]:
    """Return the header that shows ``token``, if there is one.

    Raises:
        ValueError: no server takes such a token. Said here because others would quote it.
    """
    if token is None:
        return {}
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise ValueError("a token is made of visible ASCII characters, without a space")
    return {"Authorization": f"Bearer {token}"}
