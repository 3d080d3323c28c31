"""Which answers a page of another origin may look at (https://fetch.spec.whatwg.org/#http-cors-protocol).

What anybody may read, any page may: without a credential a page sees no more than its author could. A page
that shows a credential, or changes something, has to come from an origin that may call (``OriginPolicy``).
No answer is for requests with a browser's own credentials, such as cookies.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rpcshare.auth.authenticator import shows_credential
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.failures import error_response
from rpcshare.server.request import READS, request_head

__all__ = ["CorsMiddleware"]

_METHODS = "GET, HEAD, POST, PATCH, DELETE"
# What may be sent from anywhere, and what only from origins that may call.
_PLAIN_HEADERS = ("accept", "cache-control", "if-none-match", "last-event-id")
_OTHER_HEADERS = (
    "authorization",
    "content-encoding",
    "content-type",
    "traceparent",
    "tracestate",
    "x-opencode-share-key",
    "x-request-id",
)
_EXPOSED = "ETag, Retry-After, WWW-Authenticate, X-Request-Id"
_MAX_AGE = "7200"  # seconds: as long as any browser takes it for


class CorsMiddleware:
    """Answers preflights under ``/api``, and says of other answers there who may look at them."""

    def __init__(self, app: ASGIApp, origins: OriginPolicy) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "origin" not in headers or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._preflight(request)(scope, receive, send)
            return
        origin = "*" if scope["method"] in READS else headers["origin"]
        may_look = origin == "*" or self._may_call(request_head(request))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and may_look:
                answer = MutableHeaders(raw=message["headers"])
                answer["Access-Control-Allow-Origin"] = origin
                answer["Access-Control-Expose-Headers"] = _EXPOSED
                if origin != "*":
                    answer.add_vary_header("Origin")
                message = {**message, "headers": answer.raw}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _preflight(self, request: Request) -> Response:
        wanted = request.headers.get("access-control-request-headers", "").lower()
        names = {name.strip() for name in wanted.split(",") if name.strip()}
        is_plain = (
            request.headers["access-control-request-method"] in READS
            and names <= set(_PLAIN_HEADERS)
            and not shows_credential(request_head(request))
        )
        may_call = self._may_call(request_head(request))
        if not (is_plain or may_call):
            return error_response(
                ShareError(
                    ErrorCode.FORBIDDEN,
                    "Forbidden: pages of that origin may read without a credential, and nothing else",
                )
            )
        allowed = (*_PLAIN_HEADERS, *_OTHER_HEADERS) if may_call else _PLAIN_HEADERS
        headers = {
            "Access-Control-Allow-Origin": request.headers["origin"] if may_call else "*",
            "Access-Control-Allow-Methods": _METHODS if may_call else ", ".join(READS),
            "Access-Control-Allow-Headers": ", ".join(allowed),
            "Access-Control-Max-Age": _MAX_AGE,
            "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        }
        return Response(status_code=204, headers=headers)

    def _may_call(self, head: RequestHead) -> bool:
        try:
            self._origins.check(head)
        except ShareError:
            return False
        return True
