"""References to what the peer has: the entries of a session's import table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rpcshare.rpc.local_references import observe_stub
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Path, Reference

if TYPE_CHECKING:
    from rpcshare.rpc.session import Session

__all__ = ["FarReference"]


class FarReference(Reference):
    """An entry of the import table: a target of the peer, or the result of a call to it.

    Once a result has arrived the entry has left the table, and this passes everything on to the result.
    """

    __slots__ = (
        "_broken_callbacks",
        "_observers",
        "_resolution",
        "id",
        "is_promise",
        "pulled",
        "remote_refcount",
        "session",
    )

    def __init__(self, session: Session, import_id: int, *, is_promise: bool, pulled: bool = False) -> None:
        super().__init__(session)
        self.session = session
        self.id = import_id
        # How often the peer has named the entry, which is how often it has to be released.
        self.remote_refcount = 1
        self.is_promise = is_promise
        # Whether the peer knows that the value is wanted.
        self.pulled = pulled
        self._resolution: Reference | None = None
        self._observers: list[Observer] = []
        self._broken_callbacks: list[Callable[[Exception], None]] = []

    @property
    def resolution(self) -> Reference | None:
        return self._resolution

    @property
    def is_target(self) -> bool:
        return not self.is_promise

    def is_of(self, session: object) -> bool:
        """Whether this is still an entry of the import table of ``session``."""
        return self.session is session and self._resolution is None

    def settle(self, resolution: Reference) -> None:
        """Take over one hold on ``resolution``, which stands for the entry from here on."""
        if self.refcount == 0:
            resolution.release()
            return
        self._resolution = resolution
        observers, self._observers = self._observers, []
        callbacks, self._broken_callbacks = self._broken_callbacks, []
        for observer in observers:
            resolution.when_settled(observer)
        for callback in callbacks:
            resolution.on_broken(callback)

    def drop(self) -> None:
        if self._resolution is not None:
            self._resolution.release()
        else:
            self.session.imports.release(self)

    def call(self, path: Path, arguments: Payload) -> Reference:
        if self._resolution is not None:
            return self._resolution.call(path, arguments)
        return self.session.imports.push_call(self, path, arguments)

    def get(self, path: Path) -> Reference:
        if not path:
            return self.retain()
        if self._resolution is not None:
            return self._resolution.get(path)
        return self.session.imports.push_call(self, path, None)

    def map(
        self, path: Path, captures: list[Reference], instructions: Instructions, budget: Budget
    ) -> Reference:
        if self._resolution is not None:
            return self._resolution.map(path, captures, instructions, budget)
        return self.session.imports.push_map(self, path, captures, instructions)

    def when_settled(self, observer: Observer) -> None:
        if self._resolution is not None:
            self._resolution.when_settled(observer)
            return
        if not self.is_promise:
            observe_stub(self, observer)
            return
        self._observers.append(observer)
        if not self.pulled:
            self.pulled = True
            self.session.imports.pull(self)

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        if self._resolution is not None:
            self._resolution.on_broken(callback)
        else:
            self._broken_callbacks.append(callback)

    def broken(self, error: Exception) -> None:
        """The session is over: nothing will come any longer."""
        if self._resolution is None:
            self.settle(BrokenReference(self.session, error))
