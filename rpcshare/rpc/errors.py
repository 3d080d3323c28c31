"""What can go wrong in a session, and what of it the peer is told.

One hierarchy: everything that this package raises on purpose is an :class:`RpcError`. An
``RpcError`` is also the value that an ``["error", …]`` expression stands for, so one that a method raises
reaches the caller as it is, and one that the caller sees is what the method raised. Any other exception
is internal: the peer learns that there was one, and nothing else.
"""

from collections.abc import Mapping

__all__ = [
    "DisposedError",
    "EncodeError",
    "LimitExceededError",
    "ProtocolError",
    "RpcError",
    "SessionClosedError",
]

INTERNAL_CODE = "INTERNAL"
INVALID_ARGUMENT_CODE = "INVALID_ARGUMENT"


class RpcError(Exception):
    """An error that is meant for the peer, or that came from it.

    Attributes:
        name: the JavaScript error type, such as ``"Error"`` or ``"RangeError"``.
        message: what went wrong, for people.
        properties: more about it, by name; any values that the wire can carry.
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
        self.message = message
        self.name = name
        self.properties: dict[str, object] = dict(properties or {})
        if code is not None:
            self.properties["code"] = code
        self.stack = stack

    @property
    def code(self) -> str | None:
        """The error's ``code`` property if that is a string: what programs compare."""
        code = self.properties.get("code")
        return code if isinstance(code, str) else None

    def __str__(self) -> str:
        return self.message if self.name == "Error" else f"{self.name}: {self.message}"


class SessionClosedError(RpcError):
    """The session is over, and with it every stub and every call under way."""


class ProtocolError(SessionClosedError):
    """The peer sent what the protocol does not allow; the session ended because of it."""


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


class EncodeError(RpcError, TypeError):
    """A value that the wire has no form for; nothing was sent."""
