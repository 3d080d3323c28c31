"""Opening an authenticated connection."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import JSON, Connection, Limits, SessionClosedError, Stub, WebSocketTransport

__all__ = ["ConnectFailedError", "Connecting", "connect"]

# What a server sends is as large as the shares that it keeps, and the caller chose the server.
CLIENT_LIMITS = Limits(message_bytes=0)

# A peer that has vanished without a word is noticed after both: 25 s.
PING_INTERVAL = 15.0
PING_TIMEOUT = 10.0


class ConnectFailedError(ConnectionError):
    """No connection could be made; the message says to where, and why."""


class Connecting:
    """What :func:`connect` returns: enter it for the stub."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        main: object,
        headers: Mapping[str, str] | None,
        open_timeout: float,
        limits: Limits,
    ) -> None:
        self.url = websocket_url(url)
        self.connection: Connection | None = None
        self._headers = dict(headers or {})
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._main = main
        self._open_timeout = open_timeout
        self._limits = limits

    async def __aenter__(self) -> Stub:
        websocket = await self._open()
        self.connection = Connection(
            WebSocketTransport(websocket), self._main, codec=JSON, limits=self._limits
        )
        await self.connection.__aenter__()
        return self.connection.remote_main

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.connection is not None:
            await self.connection.__aexit__(exc_type, exc, traceback)

    @property
    def closed(self) -> SessionClosedError | None:
        """Why the session is over; None before it is."""
        return self.connection.session.closed if self.connection is not None else None

    async def _open(self) -> ClientConnection:
        parts = urlsplit(self.url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # a path may hold a key
        try:
            return await connect_websocket(
                self.url,
                additional_headers=self._headers,
                subprotocols=[Subprotocol(JSON.subprotocol)],
                compression=None,
                open_timeout=self._open_timeout,
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_TIMEOUT,
                max_size=self._limits.message_bytes or None,
            )
        except InvalidStatus as exc:
            status = exc.response.status_code
            if status == 401:
                raise ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized by {place}") from None
            if status == 403:
                raise ShareError(ErrorCode.FORBIDDEN, f"Forbidden by {place}") from None
            raise ConnectFailedError(f"{place} answered {status} to the handshake") from None
        except TimeoutError:
            raise ConnectFailedError(f"{place} did not answer within {self._open_timeout:g} s") from None
        except (OSError, WebSocketException) as exc:
            raise ConnectFailedError(f"cannot connect to {place}: {exc}") from exc


def connect(
    url: str,
    *,
    token: str | None = None,
    main: object = None,
    headers: Mapping[str, str] | None = None,
    open_timeout: float = 10.0,
    limits: Limits = CLIENT_LIMITS,
) -> Connecting:
    """Connect to the RPC endpoint of a server; enter the result for a stub of its main target.

    The stub has the server's own names, and pipelines::

        async with rpcshare.connect("https://share.example", token=token) as api:
            info = api.createShare(session_id)
            await api.syncShare(info.id, info.secret, items)

    Args:
        url: of the server: ``http``, ``https``, ``ws`` or ``wss``. Without a path, ``/rpc`` is meant.
        token: sent as ``Authorization: Bearer`` in the handshake.
        main: a target that the server may call as its remote main.
        headers: more headers for the handshake.
        open_timeout: in seconds, for the whole of the handshake.
        limits: how much the server may ask of this side.

    Raises (on entering):
        ShareError: ``UNAUTHORIZED`` or ``FORBIDDEN``: the server refused the handshake.
        ConnectFailedError: there is no connection for any other reason.
    """
    return Connecting(url, token=token, main=main, headers=headers, open_timeout=open_timeout, limits=limits)


def websocket_url(url: str) -> str:
    """Return the WebSocket URL of the RPC endpoint that ``url`` means.

    Raises:
        ValueError: ``url`` is not an absolute URL of one of the four schemes.
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError("a server's URL begins with http://, https://, ws:// or wss:// and a host")
    path = parts.path.rstrip("/")
    is_endpoint = path.endswith(("/rpc", "/rpc/share"))
    if not path or (path.startswith("/k/") and not is_endpoint):
        path += "/rpc"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))
