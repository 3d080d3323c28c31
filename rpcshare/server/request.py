"""Who a request comes from, by way of ASGI."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from rpcshare.auth.caller import Caller
from rpcshare.auth.handshake import Authenticator, split_path_key
from rpcshare.auth.request_head import RequestHead

__all__ = ["PathKeyMiddleware", "authenticate", "request_head"]

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
