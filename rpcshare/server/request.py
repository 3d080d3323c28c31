"""Who a request comes from, by way of ASGI."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rpcshare.auth.caller import Caller
from rpcshare.auth.handshake import Authenticator, split_path_key
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["PathKeyMiddleware", "authenticate", "read_body", "request_head"]

_WHOLE_PATH = "rpcshare.path"


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
        subprotocols=tuple(scope.get("subprotocols", ())),
    )


async def authenticate(authenticator: Authenticator, connection: HTTPConnection) -> Caller:
    """Return the caller of a request.

    Raises:
        ShareError: UNAUTHORIZED, for a bad credential.
    """
    return await authenticator.caller(request_head(connection))


async def read_body(request: Request, bound: int) -> bytes:
    """Return the body of a request, of at most ``bound`` bytes; 0 for any number.

    Raises:
        ShareError: PAYLOAD_TOO_LARGE; or INVALID_ARGUMENT, if the client went away in the middle of it.
    """
    length = request.headers.get("content-length", "")
    _check_length(int(length) if length.isdecimal() else 0, bound)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            _check_length(len(body), bound)
    except ClientDisconnect:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not complete") from None
    return bytes(body)


def _check_length(length: int, bound: int) -> None:
    if bound and length > bound:
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than {bound:,} bytes")
