"""What callers are told when something fails: over RPC, and over HTTP."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from rpcshare import jsontext
from rpcshare.auth.current_request import current_request
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcError, SessionClosedError
from rpcshare.structured_log import structlog

__all__ = ["HttpError", "error_response", "explain", "to_rpc_error", "upgrade_required"]

logger = structlog.get_logger("rpcshare.server")

STATUS: dict[ErrorCode, HTTPStatus] = {
    ErrorCode.SHARE_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.INVALID_SECRET: HTTPStatus.FORBIDDEN,
    ErrorCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    ErrorCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorCode.SHARE_GONE: HTTPStatus.GONE,
    ErrorCode.PAYLOAD_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.RATE_LIMIT_EXCEEDED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.STORAGE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.WORKSPACE_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.SESSION_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.SESSION_TERMINATED: HTTPStatus.GONE,
    ErrorCode.CONTAINER_START_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.INTEGRATION_AUTH_FAILED: HTTPStatus.BAD_GATEWAY,
    ErrorCode.SYNC_FAILED: HTTPStatus.BAD_GATEWAY,
    ErrorCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class HttpError(Exception):
    """A refusal that only HTTP has, with a code of its own (PROTOCOL.md, "HTTP API")."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def explain(error: BaseException, request_id: str = "") -> ShareError:
    """Return what a caller may know of ``error``, having logged what only the operator may.

    The ID is that of the request in which it happened; without one, that of the current request.
    """
    if isinstance(error, ShareError):
        return error
    # Where it happened is logged, and of what type it was. Its text is not: it may quote anything.
    frames = traceback.extract_tb(error.__traceback__)
    request = current_request.get()
    request_id = request_id or (request.id if request is not None else "")
    logger.error(
        "internal error",
        **({"request_id": request_id} if request_id else {}),
        error=type(error).__name__,
        where=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-5:]],
    )
    return ShareError(ErrorCode.INTERNAL, "Internal server error")


def to_rpc_error(error: BaseException, request_id: str = "") -> RpcError:
    """Return ``error`` as the wire carries it; the ID is that of the request that opened the session."""
    if isinstance(error, RpcError):
        return error
    told = explain(error, request_id)
    return RpcError(told.message, code=told.code)


def error_response(error: BaseException) -> Response:
    """Return the HTTP answer for ``error``."""
    if isinstance(error, SessionClosedError):
        error = ShareError(ErrorCode.INVALID_ARGUMENT, error.message)
    if isinstance(error, HttpError):
        return _answer(error.message, error.code, error.status, error.headers)
    told = explain(error)
    headers = {}
    if told.code is ErrorCode.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if told.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(told.retry_after))
    return _answer(told.message, told.code, STATUS[told.code], headers)


def upgrade_required(message: str) -> Response:
    """Return the HTTP answer to what should have been the handshake of a WebSocket."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return error_response(HttpError(426, "UPGRADE_REQUIRED", message, headers))


def _answer(message: str, code: str, status: int, headers: Mapping[str, str]) -> Response:
    body = jsontext.encode({"error": message, "code": code})
    # What is refused now may be allowed, or there, a moment later.
    return Response(body, status, {**headers, "Cache-Control": "no-store"}, "application/json")
