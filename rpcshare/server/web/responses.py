"""Answers that browsers show, and what they are told to allow."""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.server.content_coding import compress, wanted_coding

__all__ = ["busy_answer", "etag", "html_answer", "not_modified", "redirect", "static_answer"]

# Nothing is loaded from elsewhere, and nothing that stands in a page itself is run, whatever gets into it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": _POLICY,
    # With no-referrer, browsers would send the origin "null" with forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_COMPRESSED_FROM = 1_000  # bytes


def html_answer(request: Request, html: str, status: int = 200, *, tag: str | None = None) -> Response:
    """Return a page. Pages differ by who asks and change while they are looked at."""
    headers = {**HEADERS, "Cache-Control": "private, no-cache" if tag else "no-store"}
    if tag is not None:
        headers["ETag"] = tag
    return _encoded(request, html.encode(), status, headers, "text/html; charset=utf-8")


def static_answer(request: Request, content: bytes, media_type: str) -> Response:
    """Return a file whose name changes with its content."""
    headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return _encoded(request, content, 200, headers, media_type)


def busy_answer(retry_after: int) -> Response:
    """Return the answer where there is no time to draw a page: when to come again, in seconds."""
    headers = {**HEADERS, "Retry-After": str(retry_after), "Cache-Control": "no-store"}
    text = "The server is drawing too many pages at the moment. Please try again in a few seconds.\n"
    return Response(text, 503, headers, "text/plain")


def redirect(location: str) -> Response:
    """Return an answer that leads on with GET."""
    return Response(status_code=303, headers={**HEADERS, "Location": location, "Cache-Control": "no-store"})


def etag(*parts: object) -> str:
    """Return the tag of a page that is made of ``parts``: weak, for it may be encoded in several ways."""
    text = "\n".join(map(str, parts))
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def not_modified(request: Request, tag: str) -> Response | None:
    """Return the answer for a browser that has what ``tag`` stands for, or None if it does not."""
    held = [part.strip() for part in request.headers.get("if-none-match", "").split(",")]
    if tag not in held:
        return None
    headers = {
        **HEADERS,
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Cookie",
    }
    return Response(status_code=304, headers=headers)


def _encoded(
    request: Request, content: bytes, status: int, headers: dict[str, str], media_type: str
) -> Response:
    headers["Vary"] = "Accept-Encoding, Cookie"
    coding = wanted_coding(request) if len(content) >= _COMPRESSED_FROM else None
    if coding is not None:
        content = compress(content, coding)
        headers["Content-Encoding"] = coding
    return Response(content, status, headers, media_type)
