"""Who a request comes from, by way of ASGI."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rpcshare.auth.authenticator import Authenticator, shows_credential, split_path_key
from rpcshare.auth.caller import Caller
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.proxy_secret import ProxySecret
from rpcshare.auth.request_head import ClientCertificate, RequestHead
from rpcshare.auth.trusted_proxies import TrustedProxies
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.structured_log import structlog

__all__ = [
    "READS",
    "PathKeyMiddleware",
    "ProxyMiddleware",
    "admit",
    "authenticate",
    "body_chunks",
    "read_body",
    "request_head",
]

READS = ("GET", "HEAD")

BODY_PATIENCE = 60.0
"""How long, in seconds, a body may take however small it is, and one of any size may stand still.

What has arrived of it is kept in memory."""

SLOWEST_BODY = 2048
"""Bytes for which it may take a second longer."""

WARN_EVERY = 60.0
"""Seconds between two lines in the log on requests that did not show the proxy's secret."""

logger = structlog.get_logger("rpcshare.server")

_WHOLE_PATH = "rpcshare.path"
_IS_FROM_PROXY = "rpcshare.is_from_proxy"


class PathKeyMiddleware:
    """Routes ``/k/KEY/rest`` as ``/rest``; the key stays for :func:`request_head` alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] in ("http", "websocket"):
            key, rest = split_path_key(scope["path"])
            if key is not None:
                scope = {**scope, "path": rest, "raw_path": None, _WHOLE_PATH: scope["path"]}
        await self._app(scope, receive, send)


class ProxyMiddleware:
    """Gives requests that a trusted proxy passes on the address where they came from.

    Where a proxy has to show a secret, what comes without it is from no proxy. The header with the secret
    goes no further than here.
    """

    def __init__(self, app: ASGIApp, proxies: TrustedProxies, secret: ProxySecret | None = None) -> None:
        self._app = app
        self._proxies = proxies
        self._secret = secret
        self._warned_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] in ("http", "websocket") and scope["client"] is not None:
            peer, port = scope["client"]
            is_proxy = peer in self._proxies
            if self._secret is not None:
                headers, has_shown_it = self._secret.take(scope["headers"])
                scope = {**scope, "headers": headers}
                if is_proxy and not has_shown_it:
                    is_proxy = False
                    self._warn(peer)
            if is_proxy:
                forwarded = [
                    value.decode("latin-1")
                    for name, value in scope["headers"]
                    if name.lower() == b"x-forwarded-for"
                ]
                origin = self._proxies.origin_of(peer, forwarded)
                # Which port that was is not known.
                client = (peer, port) if origin == peer else (origin, 0)
                scope = {**scope, "client": client, _IS_FROM_PROXY: True}
        await self._app(scope, receive, send)

    def _warn(self, peer: str) -> None:
        """Tell that the secret was not shown: by a proxy whose configuration is wrong, or by an intruder."""
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY:
            self._warned_at = now
            logger.warning(
                "a request from --trusted-proxy came without the right secret, so its headers name neither "
                "its address nor its subject",
                peer=peer,
            )


def request_head(connection: HTTPConnection) -> RequestHead:
    """Return the head of a request, as authentication reads it."""
    scope = connection.scope
    client = connection.client
    return RequestHead(
        headers=tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ),
        path=scope.get(_WHOLE_PATH) or scope["path"],
        address=client.host if client is not None else "",
        is_websocket=scope["type"] == "websocket",
        method=scope.get("method", "GET"),
        subprotocols=tuple(scope.get("subprotocols", ())),
        peer_certificate=_peer_certificate(scope),
        is_from_proxy=_IS_FROM_PROXY in scope,
    )


def _peer_certificate(scope: Scope) -> ClientCertificate | None:
    # A proxy's own certificate says nothing of whoever asked the proxy.
    tls = scope.get("extensions", {}).get("tls")
    if tls is None or not tls["client_cert_chain"] or _IS_FROM_PROXY in scope:
        return None
    from rpcshare.auth.client_certificates import parse_client_certificate  # noqa: PLC0415 -- few have any

    return parse_client_certificate(*tls["client_cert_chain"])


async def admit(
    head: RequestHead, method: str, authenticator: Authenticator, origins: OriginPolicy
) -> Caller:
    """Return the caller of a request.

    A page of any origin may read what anybody may. One that changes something, or that is somebody, has to
    come from an origin that may call.

    Raises:
        ShareError: FORBIDDEN, for its origin; UNAUTHORIZED, for its credential.
    """
    if method not in READS or shows_credential(head) or head.header("cookie"):
        origins.check(head)
    caller = await authenticator.caller(head)
    if not caller.is_anonymous:
        origins.check(head)
    return caller


async def authenticate(authenticator: Authenticator, connection: HTTPConnection) -> Caller:
    """Return the caller of a request.

    Raises:
        ShareError: UNAUTHORIZED, for a bad credential.
    """
    return await authenticator.caller(request_head(connection))


async def read_body(request: Request, bound: int) -> bytes:
    """Return the body of a request, of at most ``bound`` bytes; 0 for any number.

    Raises:
        ShareError: PAYLOAD_TOO_LARGE; or INVALID_ARGUMENT, if the client went away in the middle of it, or
            takes too long.
    """
    length = request.headers.get("content-length", "")
    _check_length(int(length) if length.isdecimal() else 0, bound)
    body = bytearray()
    begun = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(_latest(begun, 0)) as patience:
            async for chunk in request.stream():
                body += chunk
                _check_length(len(body), bound)
                patience.reschedule(_latest(begun, len(body)))
    except (ClientDisconnect, TimeoutError):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not complete") from None
    return bytes(body)


async def body_chunks(request: Request, bound: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request as it comes: at most ``bound`` bytes; 0 for any number.

    Raises:
        ShareError: as :func:`read_body` does, but not before there is too much.
    """
    begun, came = asyncio.get_running_loop().time(), 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(_latest(begun, came)):
                chunk = await anext(stream, None)
        except (ClientDisconnect, TimeoutError):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not complete") from None
        if chunk is None:
            return
        came += len(chunk)
        _check_length(came, bound)
        yield chunk


def _latest(begun: float, length: int) -> float:
    """Return until when there must be more of a body of which ``length`` bytes have come since ``begun``."""
    now = asyncio.get_running_loop().time()
    return min(now, begun + length / SLOWEST_BODY) + BODY_PATIENCE


def _check_length(length: int, bound: int) -> None:
    if bound and length > bound:
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than {bound:,} bytes")
