"""The failures that users of the server meet, each with the code that it has everywhere.

One code means the same thing over RPC, in a JSON error and in a Python client (PROTOCOL.md, "Errors").
Code that knows a fact raises it here; :mod:`rpcshare.server` turns it into a status or a wire error.
"""

from enum import Enum, StrEnum, auto

__all__ = ["ErrorCode", "Reason", "ShareError"]


class ErrorCode(StrEnum):
    """What went wrong, as a name that programs may compare."""

    SHARE_NOT_FOUND = "SHARE_NOT_FOUND"
    INVALID_SECRET = "INVALID_SECRET"  # noqa: S105 -- a code's name
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    SHARE_GONE = "SHARE_GONE"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    WORKSPACE_NOT_FOUND = "WORKSPACE_NOT_FOUND"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    SESSION_TERMINATED = "SESSION_TERMINATED"
    CONTAINER_START_FAILED = "CONTAINER_START_FAILED"
    INTEGRATION_AUTH_FAILED = "INTEGRATION_AUTH_FAILED"
    SYNC_FAILED = "SYNC_FAILED"
    INTERNAL = "INTERNAL"


class Reason(Enum):
    """What the server itself decides by, where a code does not say enough."""

    PASSWORD_NEEDED = auto()
    """The share has a password, and the right one would help."""


class ShareError(Exception):
    """A request that could not be carried out, and why.

    Attributes:
        code: what went wrong, for programs.
        message: what went wrong, for people. Holds nothing secret: it goes to whoever asked.
        retry_after: after how many seconds it is worth trying again, or None.
        reason: what the server decides by, or None; it does not leave the server.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after: float | None = None,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.reason = reason
