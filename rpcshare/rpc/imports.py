"""What a session may refer to on its peer's side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rpcshare.rpc.errors import (
    EncodeError,
    LimitExceededError,
    ProtocolError,
    SessionClosedError,
    as_error,
)
from rpcshare.rpc.local_references import ValueReference
from rpcshare.rpc.memory_budget import ENTRY_BYTES
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.preencoded import JSON_SUBPROTOCOL, Preencoded
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Instructions, Path, Reference
from rpcshare.rpc.remote import FarReference
from rpcshare.rpc.streams import ReadableStream, pump
from rpcshare.rpc.stub import Stub
from rpcshare.rpc.values import UNDEFINED, as_numbers

if TYPE_CHECKING:
    from rpcshare.rpc.encoding import Job
    from rpcshare.rpc.session import Session

__all__ = ["ImportTable"]


class ImportTable:
    """The entries by number. Numbers are never used again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.main = FarReference(session, 0, is_promise=False)
        self._entries: dict[int, FarReference] = {0: self.main}
        # Of calls whose success is all that matters: who is told of it, or of the error.
        self._notices: dict[int, Callable[[Exception | None], None]] = {}
        # Those of them that the peer keeps until they are released, since they were pushed.
        self._pushed_notices: set[int] = set()
        # Whether the peer knows "stream", with which capnweb 0.5.0 began; None: nobody has found out.
        self.peer_knows_streams: bool | None = None
        self._is_finding_out = False
        # The number that the peer gives to what is pushed to it next.
        self._next_pushed = 1
        # Why nothing is asked of the peer any longer, if it is not, and bytes of streams sent to it since.
        self._given_up: Exception | None = None
        self._unanswered = 0

    def __len__(self) -> int:
        return len(self._entries) + len(self._notices)

    def close(self, error: SessionClosedError) -> None:
        """Break every entry: the session is over."""
        entries, self._entries = self._entries, {}
        for reference in entries.values():
            if reference.id < 0:
                self._session.account.subtract(ENTRY_BYTES)
            reference.broken(error)
        notices, self._notices = self._notices, {}
        for settled in notices.values():
            settled(error)

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
                arguments.dispose()
                return BrokenReference(session, exc)
            except Exception:
                arguments.dispose()
                raise
        result = self._add_pushed(is_promise=True)
        session.send(["push", expression], encoder.introduced, arguments)
        return result

    def push_map(
        self, reference: FarReference, path: Path, captures: list[Reference], instructions: Instructions
    ) -> Reference:
        """Have the peer apply a mapper function; return a hold on what comes of it."""
        session = self._session
        if session.closed is not None:
            for capture in captures:
                capture.release()
            return BrokenReference(session, session.closed)
        exported: list[int] = []
        stubs = [Stub(capture) for capture in captures]
        encoded = [session.exports.export_stub(stub, exported) for stub in stubs]
        captured = Payload(session, stubs, stubs=[*stubs], private=True)
        result = self._add_pushed(is_promise=True)
        passed_on = as_numbers(instructions)
        session.send(["push", ["remap", reference.id, list(path), encoded, passed_on]], exported, captured)
        return result

    def notify(
        self,
        reference: FarReference,
        path: Path,
        arguments: tuple[object, ...],
        settled: Callable[[Exception | None], None],
    ) -> None:
        """Call something with arguments that the application keeps, and have ``settled`` told how it went.

        Raises:
            EncodeError: an argument has no form on the wire.
        """
        session = self._session
        if self.peer_knows_streams and self._given_up is None and not path and session.is_json:
            text = _encoded(arguments)
            if text is not None:
                # As nearly every event goes: its text is there, and is what others are sent.
                self._notices[self._next_pushed] = settled
                self._next_pushed += 1
                session.send(b'["stream",["pipeline",%d,[],[%b]]]' % (reference.id, text))
                return
        encoded: list[object]
        exported: Sequence[int] = ()
        if all(type(argument) is Preencoded for argument in arguments):
            encoded = list(arguments)
        else:
            payload = Payload.lend(session, arguments)
            encoder = session.encoder(payload)
            try:
                encoded, exported = encoder.encode_arguments(arguments), encoder.introduced
            finally:
                payload.dispose()
        if self.peer_knows_streams is None and self._given_up is None:
            self._find_out(reference)
        number = self._next_pushed
        self._next_pushed += 1
        call = ["pipeline", reference.id, list(path), encoded]
        if self._given_up is not None:
            session.send(["stream", call], exported)
            settled(self._given_up)
            return
        self._notices[number] = settled
        if self.peer_knows_streams:
            session.send(["stream", call], exported)
        else:
            self._pushed_notices.add(number)
            session.send(["push", call], exported)
            session.send(["pull", number])

    def _find_out(self, reference: FarReference) -> None:
        """Find out whether the peer knows "stream": one that does not ends the session at the sight of it.

        What one can ask without a risk is a mapper function, whose failure is that of the call alone. This
        one makes a value that came into the protocol together with "stream".
        """
        if self._is_finding_out:
            return
        self._is_finding_out = True
        result = self.push_map(reference, (), [], [["headers", []]])

        def learn(outcome: Payload | Exception) -> None:
            if self.peer_knows_streams is None:
                self.peer_knows_streams = not isinstance(outcome, Exception)
            result.release()

        result.when_settled(learn)

    def stream_call(
        self, reference: FarReference, path: Path, arguments: Payload
    ) -> tuple[FarReference, int]:
        """Call something for how it goes; return the result, which releases itself, and the message's size.

        Raises:
            EncodeError: an argument has no form on the wire.
        """
        session = self._session
        encoder = session.encoder(arguments)
        try:
            encoded = encoder.encode_arguments(arguments.value)
        except Exception:
            arguments.dispose()
            raise
        result = self._add_pushed(is_promise=True)
        result.pulled = True
        result.remote_refcount = 0
        message: list[object] = ["stream", ["pipeline", reference.id, list(path), encoded]]
        size = session.send_measured(message, encoder.introduced, arguments)
        if self._given_up is not None:
            self._count_as_read(result, size)
        return result, size

    def export_readable(self, stream: ReadableStream) -> tuple[list[object], Job]:
        """Return the expression for ``stream``, and what has to run for its values to follow."""
        stream.lock()
        reference = self._add_pushed(is_promise=False)
        self._session.send(["pipe"])
        return ["readable", reference.id], functools.partial(pump, stream, Stub(reference))

    def _add_pushed(self, *, is_promise: bool) -> FarReference:
        reference = FarReference(self._session, self._next_pushed, is_promise=is_promise)
        self._next_pushed += 1
        self._entries[reference.id] = reference
        return reference

    def pull(self, reference: FarReference) -> None:
        """Ask for the value of an import."""
        if self._given_up is not None:
            reference.broken(self._given_up)
        else:
            self._session.send(["pull", reference.id])

    def give_up(self, error: Exception) -> None:
        """Break what has been asked for, and whatever will be: the peer does not answer any longer.

        It still hears, so what is written to its streams counts as read; as much as it might leave unread.
        """
        self._given_up = error
        for reference in list(self._entries.values()):
            if reference.pulled and reference.is_promise:
                if reference.remote_refcount:
                    reference.broken(error)
                else:
                    self._count_as_read(reference, 0)
        notices, self._notices = self._notices, {}
        for settled in notices.values():
            settled(None)

    def _count_as_read(self, result: FarReference, size: int) -> None:
        """Settle what was written to a stream of a peer that does not answer any longer."""
        session = self._session
        self.release(result)
        self._unanswered += size
        bound = session.limits.unread_bytes
        if bound and self._unanswered > bound:
            result.broken(LimitExceededError("unread bytes of streams", bound))
        else:
            result.settle(ValueReference(session, Payload.given(session, UNDEFINED)))

    def release(self, reference: FarReference) -> None:
        """Tell the peer that an import is not referred to any longer."""
        entry = self._entries.pop(reference.id, None)
        if entry is None:
            return
        if reference.id < 0:
            self._session.account.subtract(ENTRY_BYTES)
        if entry.remote_refcount:
            self._session.send(["release", reference.id, reference.remote_refcount])

    # As messages of the peer change it.

    def succeeded(self, import_id: int) -> bool:
        """Take note that a call yielded nothing; return whether success was all that mattered of it."""
        settled = self._notices.pop(import_id, None)
        if settled is None:
            return False
        self._release_notice(import_id)
        settled(None)
        return True

    def _release_notice(self, import_id: int) -> None:
        if import_id in self._pushed_notices:
            self._pushed_notices.discard(import_id)
            self._session.send(["release", import_id, 1])

    def settle(self, import_id: int, payload: Payload, *, rejected: bool) -> None:
        """Take over the outcome of a promise of the peer.

        Raises:
            ProtocolError: the import is no promise.
        """
        settled = self._notices.pop(import_id, None)
        if settled is not None:
            payload.dispose()
            self._release_notice(import_id)
            settled(as_error(payload.value) if rejected else None)
            return
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
            reference.remote_refcount += 1
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
        self._session.account.add(ENTRY_BYTES)
        # The peer sends the value of a promise that it exports without being asked.
        reference = FarReference(self._session, import_id, is_promise=is_promise, pulled=True)
        self._entries[import_id] = reference
        return reference


def _encoded(arguments: tuple[object, ...]) -> bytes | None:
    """Return the JSON of what is the only argument, if it has been made for others."""
    if len(arguments) != 1:
        return None
    argument = arguments[0]
    return argument.encoded.get(JSON_SUBPROTOCOL) if isinstance(argument, Preencoded) else None
