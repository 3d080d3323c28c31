"""What a session may refer to on its peer's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rpcshare.rpc.errors import EncodeError, ProtocolError, RpcError, SessionClosedError
from rpcshare.rpc.local import BrokenReference, ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import Path, Reference
from rpcshare.rpc.remote import FarReference

if TYPE_CHECKING:
    from rpcshare.rpc.session import Session

__all__ = ["ImportTable", "as_error"]


class ImportTable:
    """The entries by number. Numbers are never used again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.main = FarReference(session, 0, is_promise=False)
        self._entries: dict[int, FarReference] = {0: self.main}
        # The number that the peer gives to what is pushed to it next.
        self._next_pushed = 1

    def __len__(self) -> int:
        return len(self._entries)

    def close(self, error: SessionClosedError) -> None:
        """Break every entry: the session is over."""
        entries, self._entries = self._entries, {}
        for reference in entries.values():
            reference.broken(error)

    # As the references in the table use it.

    def push_call(self, reference: FarReference, path: Path, arguments: Payload | None) -> Reference:
        """Call (without arguments: read) what ``path`` of an import leads to; return a hold on the result."""
        session = self._session
        if session.closed is not None:
            if arguments is not None:
                arguments.dispose()
            return BrokenReference(session, session.closed)
        expression: list[object] = ["pipeline", reference.id, list(path)]
        encoder = session.encoder(arguments)
        if arguments is not None:
            try:
                expression.append(encoder.encode_arguments(arguments.value))
            except EncodeError as exc:
                return BrokenReference(session, exc)
            finally:
                arguments.dispose()  # exported stubs are held by the table now
        result = self._add_pushed(is_promise=True)
        session.send(["push", expression], encoder.exported)
        return result

    def _add_pushed(self, *, is_promise: bool) -> FarReference:
        reference = FarReference(self._session, self._next_pushed, is_promise=is_promise)
        self._next_pushed += 1
        self._entries[reference.id] = reference
        return reference

    def pull(self, reference: FarReference) -> None:
        """Ask for the value of an import."""
        self._session.send(["pull", reference.id])

    def release(self, reference: FarReference) -> None:
        """Tell the peer that an import is not referred to any longer."""
        if self._entries.pop(reference.id, None) is not None:
            self._session.send(["release", reference.id, reference.introductions])

    # As messages of the peer change it.

    def settle(self, import_id: int, payload: Payload, *, rejected: bool) -> None:
        """Take over the outcome of a promise of the peer.

        Raises:
            ProtocolError: the import is no promise.
        """
        reference = self._entries.get(import_id)
        if reference is None:
            # Released while the result was on its way; what came with it is released in turn.
            payload.dispose()
            return
        if not reference.is_promise:
            payload.dispose()
            raise ProtocolError(f"{import_id} is no promise and cannot be settled")
        resolution: Reference
        if rejected:
            payload.dispose()
            resolution = BrokenReference(self._session, as_error(payload.value))
        else:
            resolution = ValueReference(self._session, payload)
        self.release(reference)
        reference.settle(resolution)

    def add_stub(self, import_id: int) -> Reference:
        """Return a new hold on the peer's export ``import_id``, which it has just introduced."""
        reference = self._entries.get(import_id) if import_id < 0 else None
        if reference is not None:
            reference.introductions += 1
            return reference.retain()
        return self._add_exported(import_id, is_promise=False)

    def add_promise(self, import_id: int) -> Reference:
        """Return a hold on the peer's new promise ``import_id``."""
        if import_id in self._entries:
            raise ProtocolError(f"the promise {import_id} is not new")
        return self._add_exported(import_id, is_promise=True)

    def _add_exported(self, import_id: int, *, is_promise: bool) -> Reference:
        if import_id >= 0:
            raise ProtocolError(f"{import_id} is not a number that an exporter may choose")
        # The peer sends the value of a promise that it exports without being asked.
        reference = FarReference(self._session, import_id, is_promise=is_promise, pulled=True)
        self._entries[import_id] = reference
        return reference


def as_error(value: object) -> RpcError:
    """Return ``value`` as an error; JavaScript may throw anything."""
    return value if isinstance(value, RpcError) else RpcError(str(value))
