"""What can go wrong in a session, and what of it the peer is told.

One hierarchy: everything that this package raises on purpose is an :class:`RpcError`. An
``RpcError`` is also the value that an ``["error", …]`` expression stands for, so one that a method raises
reaches the caller as it is, and one that the caller sees is what the method raised. Any other exception
is internal: the peer learns that there was one, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

__all__ = [
    "AggregateError",
    "ConnectionLostError",
    "DisposedError",
    "EncodeError",
    "InvalidTextError",
    "LimitExceededError",
    "ProtocolError",
    "RpcError",
    "SessionClosedError",
    "ThrownValueError",
    "as_error",
    "too_deep",
]

INTERNAL_CODE = "INTERNAL"
INVALID_ARGUMENT_CODE = "INVALID_ARGUMENT"


class RpcError(Exception):
    """An error that is meant for the peer, or that came from it.

    Attributes:
        name: the JavaScript error type, such as ``"Error"`` or ``"RangeError"``.
        properties: more about it, by name; any values that the wire can carry.
        __cause__: what ``raise … from`` gives. If that is an RpcError too, it is JavaScript's ``cause``.
        stack: the peer's stack trace, if it sent one. Never sent.
    """

    def __init__(
        self,
        message: str = "",
        *,
        name: str = "Error",
        code: str | None = None,
        properties: Mapping[str, object] | None = None,
        stack: str | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.properties: dict[str, object] = dict(properties or {})
        if code is not None:
            self.properties["code"] = code
        self.stack = stack

    @property
    def message(self) -> str:
        """What went wrong, for people."""
        return str(self.args[0])  # which may be another error, that somebody has passed on

    @property
    def code(self) -> str | None:
        """The error's ``code`` property if that is a string: what programs compare."""
        code = self.properties.get("code")
        return code if isinstance(code, str) else None

    def __str__(self) -> str:
        return self.message if self.name == "Error" else f"{self.name}: {self.message}"


class AggregateError(RpcError, ExceptionGroup[Exception]):
    """Several errors in one: JavaScript's AggregateError, and an ExceptionGroup for ``except*``.

    Attributes:
        exceptions: the errors, of which there is at least one. Those that are no RpcError are internal.
    """

    def __new__(cls, message: str, exceptions: Sequence[Exception], **_more: object) -> Self:
        """Make the group, which is done before the rest is known."""
        return super().__new__(cls, message, exceptions)

    def __init__(
        self,
        message: str,
        exceptions: Sequence[Exception],
        *,
        code: str | None = None,
        properties: Mapping[str, object] | None = None,
        stack: str | None = None,
    ) -> None:
        super().__init__(message, name="AggregateError", code=code, properties=properties, stack=stack)
        self.args = (message, tuple(exceptions))

    def derive(  # type: ignore[override]  # an RpcError is an Exception, and so is all that is in it
        self, excs: Sequence[Exception], /
    ) -> AggregateError:
        """Return an error that says the same of some of the errors, as ``except*`` asks for."""
        return AggregateError(self.message, excs, properties=self.properties, stack=self.stack)


class SessionClosedError(RpcError):
    """The session is over, and with it every stub and every call under way."""


class ConnectionLostError(SessionClosedError):
    """The transport ended under the session, and neither side had found fault with the other.

    Attributes:
        close_code: of the WebSocket close frame, if one came.
        close_reason: what that frame says; empty without one.
    """

    def __init__(self, message: str, *, close_code: int | None = None, close_reason: str = "") -> None:
        super().__init__(message)
        self.close_code = close_code
        self.close_reason = close_reason


class ProtocolError(SessionClosedError):
    """The peer sent what the protocol does not allow; the session ended because of it.

    Attributes:
        close_code: of the WebSocket close frame with which it ends.
    """

    close_code: int = 3000


class InvalidTextError(ProtocolError):
    """A message of text is not UTF-8 (RFC 6455 section 8.1)."""

    close_code = 1007

    def __init__(self) -> None:
        super().__init__("a message of text is not UTF-8")


class LimitExceededError(ProtocolError):
    """The peer went past a limit of this side; the session ended because of it."""

    def __init__(self, limit: str, bound: int) -> None:
        super().__init__(f"limit exceeded: {limit} (at most {bound:,})")
        self.limit = limit
        self.bound = bound


class DisposedError(RpcError):
    """A stub was used after it had been disposed of."""

    def __init__(self) -> None:
        super().__init__("this stub has been disposed of")


class ThrownValueError(RpcError):
    """JavaScript may throw any value, or give it as a reason: one that is no error there.

    It is sent as that value, so what came from one peer reaches another unchanged.

    Attributes:
        value: what was thrown.
    """

    def __init__(self, value: object) -> None:
        super().__init__(str(value))
        self.value = value


def as_error(value: object) -> RpcError:
    """Return ``value``, which the peer threw or gave as a reason, as what Python can raise."""
    return value if isinstance(value, RpcError) else ThrownValueError(value)


class EncodeError(RpcError, TypeError):
    """A value that the wire has no form for; nothing was sent. For the peer it is a TypeError."""

    def __init__(self, message: str, *, name: str = "TypeError") -> None:
        super().__init__(message, name=name)


def too_deep() -> EncodeError:
    """Return the error for a value that is nested too deeply to be sent, no TypeError in JavaScript."""
    return EncodeError("nested too deeply (does it hold itself?)", name="Error")
