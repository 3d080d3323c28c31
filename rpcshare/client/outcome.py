"""What a call will yield that has not been sent, or may be sent again."""

from __future__ import annotations

from typing import Protocol

from rpcshare.rpc import Promise, Stub
from rpcshare.rpc.local_references import ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import PendingReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Owner, Path, Reference
from rpcshare.rpc.remote import FarReference
from rpcshare.rpc.stub import path_of, reference_of

__all__ = ["Operation", "Outcome", "on_this_session"]


class Operation(Protocol):
    """Something to be asked of the main target of a session."""

    @property
    def attempt(self) -> Reference | None:
        """What the session calls the result, as long as there is no answer."""
        ...

    def issue(self, main: Reference) -> None:
        """Ask it of ``main``."""
        ...

    def fail(self, error: Exception) -> None:
        """Give up: there will be no session for it."""
        ...

    def withdraw(self) -> None:
        """Give up: nobody wants the outcome."""
        ...

    def forget_attempt(self) -> None:
        """Let go of what the session knows of it: the session is over."""
        ...


class Outcome(PendingReference):
    """What an operation will yield."""

    __slots__ = ("operation", "pipelined", "wanted")

    def __init__(self, owner: Owner, operation: Operation) -> None:
        super().__init__(owner)
        self.operation = operation
        # Whether somebody has waited for it, and whether something else depends on it.
        self.wanted = False
        self.pipelined = False

    def drop(self) -> None:
        """Withdraw what was waited for and is not any longer; what nobody ever waited for is still done."""
        super().drop()
        if self._resolution is None and self.wanted and not self.pipelined:
            self.operation.withdraw()

    def call(self, path: Path, arguments: Payload) -> Reference:
        """Call a method of what it yields."""
        self.pipelined = True
        return super().call(path, arguments)

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        """Apply a function to what it yields."""
        self.pipelined = True
        return super().map(path, captures, instructions, budget)

    def get(self, path: Path) -> Reference:
        """Return a part of it, which is only read once the whole has come."""
        if not path or self._resolution is not None:
            return super().get(path)
        part = _Part(self, path)
        self._waiting.append(lambda resolution: (part, resolution.get(path)))
        return part

    def when_settled(self, observer: Observer) -> None:
        """Have ``observer`` called with it."""
        self.wanted = True
        super().when_settled(observer)


class _Part(PendingReference):
    """A property of what an operation will yield, known by where it is."""

    __slots__ = ("origin", "path")

    def __init__(self, origin: Outcome, path: Path) -> None:
        super().__init__(origin.owner)
        self.origin = origin.retain()
        self.path = path

    def drop(self) -> None:
        super().drop()
        self.origin.release()

    def call(self, path: Path, arguments: Payload) -> Reference:
        self.origin.pipelined = True
        return super().call(path, arguments)

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        self.origin.pipelined = True
        return super().map(path, captures, instructions, budget)

    def get(self, path: Path) -> Reference:
        if not path or self._resolution is not None:
            return super().get(path)
        return self.origin.get((*self.path, *path))

    def when_settled(self, observer: Observer) -> None:
        self.origin.wanted = True
        super().when_settled(observer)


def on_this_session(arguments: Payload) -> Payload:
    """Have ``arguments``, which are private, say of each outcome in them what the session calls it."""
    for container, key, promise in arguments.promises:
        replacement = _on_this_session(promise)
        if replacement is None:
            continue
        container[key] = replacement  # type: ignore[call-overload, index]  # arguments are a list, and what is in them
        if isinstance(replacement, Stub) and arguments.stubs is not None:
            arguments.stubs.append(replacement)
    return arguments


def _on_this_session(promise: Promise) -> object:
    """Return the promise of the session, or the plain value, that stands for ``promise``; None for itself."""
    reference: Reference = reference_of(promise)
    path = path_of(promise)
    if isinstance(reference, _Part) and reference.resolution is None:
        path = (*reference.path, *path)
        reference = reference.origin
    if isinstance(reference, Outcome) and reference.resolution is None:
        attempt = reference.operation.attempt
        return None if attempt is None else Promise(attempt.retain(), path)
    while isinstance(reference, _Part | Outcome | FarReference) and reference.resolution is not None:
        reference = reference.resolution
    if isinstance(reference, FarReference):
        return Promise(reference.retain(), path)
    if isinstance(reference, ValueReference) and isinstance(reference.payload.value, str | int | float):
        return reference.payload.value
    return None
