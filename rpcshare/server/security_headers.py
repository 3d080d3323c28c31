"""What a browser is told about every answer, whatever is in it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SecurityHeadersMiddleware"]

_DEFAULTS = {
    "X-Content-Type-Options": "nosniff",
    # A share's link is the right to read it: no other site is to see it.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # An answer shown by itself runs nothing, loads nothing and is framed by nobody. Pages set their own.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_TRANSPORT_SECURITY = "max-age=31536000"  # a year


class SecurityHeadersMiddleware:
    """Adds the headers that an answer does not have yet."""

    def __init__(self, app: ASGIApp, base_url: str) -> None:
        self._app = app
        self._headers = dict(_DEFAULTS)
        if base_url.startswith("https:"):
            self._headers["Strict-Transport-Security"] = _TRANSPORT_SECURITY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_with_headers(message: Message) -> None:
            # A handshake that is refused is answered, too.
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(raw=message["headers"])
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_with_headers)
