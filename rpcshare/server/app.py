"""The ASGI application: every route, and what each is handled by."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.handshake import Authenticator
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.trusted_proxies import TrustedProxies
from rpcshare.config import Settings
from rpcshare.rpc import Limits
from rpcshare.server.failures import error_response
from rpcshare.server.request import PathKeyMiddleware, ProxyMiddleware
from rpcshare.server.rest import RestApi
from rpcshare.server.rpc_endpoint import RpcEndpoint
from rpcshare.shares.service import ShareService

__all__ = ["create_app"]


def create_app(
    settings: Settings,
    service: ShareService,
    authenticator: Authenticator,
    base_url: str,
    *,
    keys: ApiKeys | None = None,
    caller_limits: CallerLimits | None = None,
    audit: AuditLog | None = None,
) -> tuple[Starlette, RpcEndpoint]:
    """Return the application, and its RPC endpoint, which knows the sessions to be drained.

    Args:
        settings: limits, origins and trusted proxies are taken from there.
        service: the shares.
        authenticator: who is asking.
        base_url: under which the server is reached.
        keys: the API keys that admins may manage over RPC.
        caller_limits: on what one caller may do; None: none.
        audit: is told of who is refused.
    """
    limits = Limits(message_bytes=settings.max_message_size, calls_in_flight=settings.max_calls_in_flight)
    audit = audit or AuditLog()
    origins = OriginPolicy(base_url, settings.allowed_origins, audit)
    rpc = RpcEndpoint(
        service,
        authenticator,
        origins,
        limits,
        (caller_limits or CallerLimits()).connections,
        audit,
        anonymous=settings.anonymous_create,
        keys=keys,
    )
    rest = RestApi(service, authenticator, origins, settings.max_message_size)

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        try:
            await service.check()  # which asks the broadcaster as well
        except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
            return error_response(exc)
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            WebSocketRoute("/rpc", rpc),
            Route("/rpc", rpc, methods=["POST"]),
            WebSocketRoute("/rpc/share", rpc),
            Route("/rpc/share", rpc, methods=["POST"]),
            *rest.routes(),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
        ],
        middleware=[
            Middleware(ProxyMiddleware, proxies=TrustedProxies(settings.trusted_proxy)),
            Middleware(PathKeyMiddleware),
        ],
        exception_handlers={404: _not_found, 405: _method_not_allowed},
    )
    # A redirect would lead behind the key in the path, and to the wrong scheme behind a proxy.
    app.router.redirect_slashes = False
    return app, rpc


async def _not_found(_request: Request, _exc: Exception) -> Response:
    return JSONResponse({"error": "Not found", "code": "NOT_FOUND"}, 404)


async def _method_not_allowed(_request: Request, exc: Exception) -> Response:
    headers = exc.headers if isinstance(exc, HTTPException) else None
    return JSONResponse({"error": "Method not allowed", "code": "METHOD_NOT_ALLOWED"}, 405, headers)
