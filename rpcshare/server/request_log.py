"""The ID of each request, its line in the access log, and its span.

A line has the template of the route and never the path: that of a share is its link, and ``/k/KEY`` is a
credential. Neither query, header nor body is in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rpcshare.auth.audit import subject_fields
from rpcshare.auth.caller import Caller
from rpcshare.auth.current_request import CurrentRequest, current_request
from rpcshare.server.failures import error_response
from rpcshare.structured_log import structlog
from rpcshare.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["LOGGER", "AccessLog", "RequestLogMiddleware", "request_id_of"]

LOGGER: Final = "rpcshare.access"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")
_BEGINS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_BODIES = frozenset({"http.response.body", "websocket.http.response.body"})


class AccessLog:
    """Writes a line for each request, and for each RPC session when it opens and when it closes."""

    def request(
        self,
        request: CurrentRequest,
        scope: Scope,
        *,
        status: int | None,
        seconds: float,
        size: int,
        is_whole: bool,
    ) -> None:
        """Tell of a request that has been answered; a status of None: it never was."""
        structlog.get_logger(LOGGER).info(
            "request",
            request_id=request.id,
            method=_method(scope),
            route=_route(scope),
            status=None if status is None else int(status),  # not the name of an enumeration's member
            ms=round(seconds * 1000, 1),
            bytes=size,
            **subject_fields(request.caller),
            address=scope["client"][0] if scope.get("client") else "",
            **({} if is_whole else {"cut_off": True}),
        )

    def session_opened(self, request_id: str, caller: Caller) -> None:
        """Tell of an RPC session that begins."""
        structlog.get_logger(LOGGER).info(
            "RPC session opened",
            request_id=request_id,
            **subject_fields(caller),
            address=caller.address,
        )

    def session_closed(self, request_id: str, caller: Caller, *, calls: int, seconds: float) -> None:
        """Tell of an RPC session that has ended, and how many calls it has made."""
        structlog.get_logger(LOGGER).info(
            "RPC session closed",
            request_id=request_id,
            calls=calls,
            ms=round(seconds * 1000, 1),
            **subject_fields(caller),
            address=caller.address,
        )


def request_id_of(scope: Scope) -> str:
    """Return the ID that a request brings as ``X-Request-Id``, or a new one if that is no ID."""
    brought = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(brought) == 1 and _REQUEST_ID.fullmatch(brought[0]):
        return bytes(brought[0]).decode("ascii")
    return uuid4().hex


class RequestLogMiddleware:
    """Gives each request its ID, which is in its answer, and tells of it when it is over."""

    def __init__(self, app: ASGIApp, log: AccessLog | None = None, tracing: Tracing | None = None) -> None:
        """Without a ``log`` and ``tracing``, there is only the ID."""
        self._app = app
        self._log = log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = CurrentRequest(request_id_of(scope))
        held = current_request.set(request)
        try:
            answer = _Answer(scope, request, self._app, send)
            if self._tracing is None:
                await self._told(answer, receive)
            else:
                await self._traced(self._tracing, answer, receive)
        finally:
            current_request.reset(held)

    async def _told(self, answer: _Answer, receive: Receive) -> None:
        if self._log is None:
            await answer.run(receive)
            return
        began_at = perf_counter()
        try:
            await answer.run(receive)
        finally:
            self._log.request(
                answer.request,
                answer.scope,
                status=answer.status,
                seconds=perf_counter() - began_at,
                size=answer.size,
                is_whole=answer.is_whole,
            )

    async def _traced(self, tracing: Tracing, answer: _Answer, receive: Receive) -> None:
        scope = answer.scope
        attributes = {"http.request.method": _method(scope), "rpcshare.request_id": answer.request.id}
        with tracing.server_span(_method(scope), _headers(scope), attributes) as span:
            try:
                await self._told(answer, receive)
            finally:
                _describe(tracing, span, answer)


def _describe(tracing: Tracing, span: Span, answer: _Answer) -> None:
    """Add to the span of a request what is known once it has been answered."""
    route = _route(answer.scope)
    span.update_name(f"{_method(answer.scope)} {route}")
    span.set_attribute("http.route", route)
    if answer.status is not None:
        span.set_attribute("http.response.status_code", answer.status)
        if answer.status >= 500:
            tracing.failed(span, str(answer.status))


class _Answer:
    """The answer to one request, as it is sent."""

    __slots__ = ("_app", "_name", "_send", "is_whole", "request", "scope", "size", "status")

    def __init__(self, scope: Scope, request: CurrentRequest, app: ASGIApp, send: Send) -> None:
        self._app = app
        self._send = send
        self._name = (b"x-request-id", request.id.encode("ascii"))
        self.scope = scope
        self.request = request
        self.status: int | None = None
        self.size = 0
        self.is_whole = False

    async def run(self, receive: Receive) -> None:
        """Have the request answered."""
        try:
            await self._app(self.scope, receive, self.send)
        except Exception as exc:
            if self.status is not None or self.scope["type"] != "http":
                raise
            await error_response(exc)(self.scope, receive, self.send)

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in _BEGINS:
            self.status = message.get("status", 101)
            self.is_whole = kind == "websocket.accept"
            message = {**message, "headers": [*message.get("headers", ()), self._name]}
        elif kind in _BODIES:
            if self.scope.get("method") != "HEAD":
                self.size += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)
        await self._send(message)


def _method(scope: Scope) -> str:
    method: str = scope.get("method", "GET")
    return method if method in METHODS else "other"


def _route(scope: Scope) -> str:
    """Return the template of the route; what has none may have anything in its path."""
    route: str = getattr(scope.get("route"), "path", "none")
    return route


def _headers(scope: Scope) -> Mapping[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }
