"""What the peer of a session may refer to."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeGuard

from rpcshare.rpc import short_messages
from rpcshare.rpc.blobs import ArrivingBlob
from rpcshare.rpc.errors import (
    DisposedError,
    LimitExceededError,
    ProtocolError,
    RpcError,
    SessionClosedError,
)
from rpcshare.rpc.fifo import Fifo
from rpcshare.rpc.limits import MAX_CHAIN
from rpcshare.rpc.local_references import LocalReference, settled_stub
from rpcshare.rpc.local_stubs import LocalOwner
from rpcshare.rpc.memory_budget import ENTRY_BYTES, VALUE_BYTES, too_much
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.pipe import Pipe, PipeReference
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Reference
from rpcshare.rpc.remote import FarReference
from rpcshare.rpc.streams import WritableStream, drain
from rpcshare.rpc.stub import Promise, Stub, path_of, reference_of
from rpcshare.rpc.target import passed

if TYPE_CHECKING:
    from rpcshare.rpc.encoding import Job
    from rpcshare.rpc.session import Session

__all__ = ["ExportTable"]

_write: Final = short_messages.write


class Export:
    """An entry of the table."""

    __slots__ = (
        "id",
        "is_counted",
        "is_promise",
        "pipe",
        "pulled",
        "reference",
        "remote_refcount",
        "stream_size",
        "table",
    )

    def __init__(self, table: ExportTable, number: int, reference: Reference, *, is_promise: bool) -> None:
        self.table = table
        self.id = number
        self.reference = reference
        # How often the peer has been told of it, less how often it has released it.
        self.remote_refcount = 1
        # Whether the session's account counts it.
        self.is_counted = False
        # Whether the peer expects its value without asking.
        self.is_promise = is_promise
        # Whether the peer is to be sent the value, or has been.
        self.pulled = False
        # Of what a "pipe" message made: what is to be read, until somebody reads it.
        self.pipe: Pipe | None = None
        # Of what a "stream" message brought: its bytes. Such an entry goes when it has been answered.
        self.stream_size: int | None = None

    def __call__(self, outcome: Payload | Exception) -> None:
        """Send the peer the value. So an entry observes what it refers to, with no function made for it."""
        self.table.send_outcome(self, outcome)

    def break_off(self, error: Exception) -> None:
        """Fail the stream that this is the writable end of, unless all of it has been written."""
        if isinstance(self.reference, PipeReference) and not self.reference.pipe.is_closing:
            self.reference.pipe.fail(error)


class ExportTable:
    """The entries by number, and how many times the peer has been told of each.

    An entry stays until the peer has released it as often as it was introduced. Numbers are never used again.
    """

    def __init__(self, session: Session, main: object) -> None:
        self._session = session
        self._bound = session.limits.exports
        if main is None:
            error = RpcError("this connection has no main object")
            reference: Reference = BrokenReference(session, error)
        elif isinstance(main, Stub):
            # What another session has, maybe, which knows its own by it.
            reference = reference_of(main).get(path_of(main))
        else:
            reference = session.near(main).retain()
        self._entries = {0: Export(self, 0, reference, is_promise=False)}
        # Bytes of stream messages that have not been answered, and of blobs that have not arrived wholly.
        self._unread = 0
        # Why the peer writes to no stream any longer, if it does not.
        self._given_up: Exception | None = None
        # Promises that the peer has been told of, whose values are to be sent; and whether that is going on.
        self._to_pull: Fifo[int] = Fifo()
        self._is_pulling = False
        # Entries whose outcome is known, and is encoded when the peer has taken most of what it was sent.
        self._unanswered: Fifo[int] = Fifo()
        # The next numbers: of what the peer pushes, and of what this side exports.
        self._next_pushed = 1
        self._next_exported = -1
        self.calls = 0
        """How many of the entries are what the peer has pushed: as a rule calls that it still waits for."""

    def __len__(self) -> int:
        return len(self._entries)

    def reference(self, export_id: int) -> Reference:
        """Return what is exported as ``export_id``, with no new hold on it.

        Raises:
            ProtocolError: nothing is.
        """
        return self._entry(export_id).reference

    def find(self, export_id: int) -> Reference | None:
        """Return what :meth:`reference` does, or None."""
        entry = self._entries.get(export_id)
        return None if entry is None else entry.reference

    def _entry(self, export_id: int) -> Export:
        entry = self._entries.get(export_id)
        if entry is None:
            raise ProtocolError(f"{export_id} is not exported")
        return entry

    def add_pushed(self, reference: Reference) -> int:
        """Add what the peer has pushed, taking over one hold on it, and return its number.

        Raises:
            LimitExceededError: the peer holds too much.
        """
        export_id = self._next_pushed
        self._next_pushed += 1
        entry = self._entries[export_id] = Export(self, export_id, reference, is_promise=False)
        self.calls += 1
        if self._session.closed is not None:
            self._unintroduce(export_id, 1)  # what was pushed has ended the session
            return export_id
        self._session.account.add(ENTRY_BYTES)
        entry.is_counted = True
        bound = self._bound
        if bound and len(self._entries) > bound:
            raise LimitExceededError("exports held by the peer", bound)
        return export_id

    def add_streamed(self, reference: Reference, size: int) -> None:
        """Add what a ``stream`` message of ``size`` bytes brought, whose outcome is sent unasked.

        Raises:
            LimitExceededError: the peer holds too much, or too much of what it sent is unread.
        """
        export_id = self.add_pushed(reference)
        if self._session.closed is not None:
            return
        self._entries[export_id].stream_size = size
        self._count_unread(size)
        self.pull(export_id)

    def _count_unread(self, size: int) -> None:
        self._unread += size
        bound = self._session.limits.unread_bytes
        if bound and self._unread > bound:
            raise LimitExceededError("unread bytes of streams", bound)

    def add_pipe(self) -> None:
        """Add a pipe for the peer to write to."""
        pipe = Pipe(self._session)
        export_id = self.add_pushed(PipeReference(self._session, pipe))
        self._entries[export_id].pipe = pipe

    def take_pipe(self, export_id: int) -> Pipe:
        """Return the pipe ``export_id`` to be read; that can be asked for once.

        Raises:
            ProtocolError: it is no pipe, or is read already.
        """
        entry = self._entry(export_id)
        if entry.pipe is None:
            raise ProtocolError(f"{export_id} is no pipe, or is read already")
        pipe, entry.pipe = entry.pipe, None
        return pipe

    def collect_blob(self, export_id: int, content_type: str) -> Reference:
        """Return a hold on the blob that the pipe ``export_id`` brings.

        Raises:
            ProtocolError: it is no pipe, or is read already.
        """

        def count(size: int) -> None:
            try:
                self._count_unread(size)
            except LimitExceededError as exc:
                self._session.abort(exc)  # whose bytes they are is not who called

        return ArrivingBlob(self.take_pipe(export_id), content_type, count)

    def release(self, export_id: int, count: int) -> None:
        """Take note that the peer has released an entry ``count`` times.

        Raises:
            ProtocolError: there is no such entry, or it was not introduced that often.
        """
        entry = self._entry(export_id)
        if not 0 < count <= entry.remote_refcount:
            raise ProtocolError(
                f"release of {export_id} by {count}; it was introduced {entry.remote_refcount} times"
            )
        self._unintroduce(export_id, count)

    def close(self, error: SessionClosedError) -> None:
        """Let go of everything: the session is over."""
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            self._uncount(entry)
            entry.break_off(error)
            entry.reference.release()

    def give_up(self, error: Exception) -> None:
        """Break off, now and from now on, the streams that the peer has not closed: it writes no more."""
        self._given_up = error
        for entry in list(self._entries.values()):
            entry.break_off(error)

    def _unintroduce(self, export_id: int, count: int) -> None:
        entry = self._entries[export_id]
        entry.remote_refcount -= count
        if entry.remote_refcount == 0:
            del self._entries[export_id]
            if export_id > 0:
                self.calls -= 1
            self._uncount(entry)
            entry.reference.release()

    def _uncount(self, entry: Export) -> None:
        if entry.is_counted:
            entry.is_counted = False
            self._session.account.subtract(ENTRY_BYTES)

    # Values on their way to the peer.

    def pull(self, export_id: int) -> None:
        """Send the value of an entry once it is known, unless that is under way.

        Raises:
            ProtocolError: there is no such entry.
        """
        entry = self._entry(export_id)
        if not entry.pulled:
            entry.pulled = True
            entry.reference.when_settled(entry)

    def introduced(self, exported: Sequence[int]) -> None:
        """Take note that a message has been sent that introduces these entries."""
        if not exported:
            return  # as nearly always
        promises = [export_id for export_id in exported if self._entries[export_id].is_promise]
        if not promises:
            return
        self._to_pull.extend(promises)
        if self._is_pulling:
            return  # for the value of one of them may introduce another, and so on
        self._is_pulling = True
        bound = self._bound
        try:
            while len(self._to_pull):
                export_id = self._to_pull.popleft()
                if export_id in self._entries:
                    # Not before now: the peer has to hear of it first.
                    self.pull(export_id)
                if bound and len(self._entries) > bound:
                    # Promises of two promises each, thirty times, are too many to be told of.
                    self._session.abort(LimitExceededError("exports held by the peer", bound))
        finally:
            self._is_pulling = False

    def send_outcome(  # noqa: C901 -- on the path of each call
        self, entry: Export, outcome: Payload | Exception, chain: int = 0
    ) -> None:
        """Send the peer what an entry has turned out to be, unless the peer has released it."""
        session = self._session
        export_id = entry.id
        if self._entries.get(export_id) is not entry:
            return  # released in the meantime
        if len(self._unanswered) or not session.has_room:
            # A large value may be asked for a thousand times in little text, and all of that settles at once.
            if not len(self._unanswered):
                session.when_room(self._answer_more)
            self._unanswered.append(export_id)
            return
        if (
            not isinstance(outcome, Exception)
            and isinstance(outcome.value, Promise)
            and self._is_of_this_side(outcome.value)
        ):
            # The peer could only wait for it; better to wait here.
            if chain < MAX_CHAIN:
                self._follow(entry, outcome.value, chain + 1)
                return
            outcome = RpcError("promises of promises are nested too deeply")
        if isinstance(outcome, Exception):
            session.send(["reject", export_id, session.encode_error(outcome)])
            self._answered(entry)
            return
        if session.is_json and self._send_short(entry, outcome):
            self._answered(entry)
            return
        encoder = session.encoder(outcome)
        try:
            expression = encoder.encode_payload()
            if outcome.charge is None and not outcome.values:
                # It may stay here for as long as the peer likes.
                outcome.account_for(encoder.values, encoder.size)
        except LimitExceededError as exc:
            session.unexport(encoder.exported())
            session.send(["reject", export_id, session.encode_error(too_much(exc))])
        except Exception as exc:  # noqa: BLE001 -- whatever is wrong with a result, only its call fails
            session.send(["reject", export_id, session.encode_error(exc)])
        else:
            session.unsent += encoder.values * VALUE_BYTES + encoder.size
            session.send(["resolve", export_id, expression], encoder.introduced)
        self._answered(entry)

    def _send_short(self, entry: Export, outcome: Payload) -> bool:
        """Send a value in the shorter way, if it is plain; return whether that has been done."""
        session = self._session
        if outcome.stubs or outcome.lent:
            return False
        written = _write(entry.id, outcome.value, session.max_depth)
        if written is None:
            return False
        frame, values = written
        if values > session.max_values > 0:
            return False  # which is an error, and told so
        if outcome.charge is None and not outcome.values:
            try:
                outcome.account_for(values)
            except LimitExceededError as exc:
                session.send(["reject", entry.id, session.encode_error(too_much(exc))])
                return True
        if outcome.stubs is None:
            outcome.stubs = []
        session.unsent += len(frame)
        session.send(frame)
        return True

    def _answer_more(self) -> None:
        """Send the outcomes that have waited, until there is no room again."""
        unanswered = self._unanswered.take_all()
        answered = 0
        while answered < len(unanswered) and not len(self._unanswered):
            export_id = unanswered[answered]
            answered += 1
            entry = self._entries.get(export_id)
            if entry is not None:
                entry.reference.when_settled(entry)
        self._unanswered.extend(unanswered[answered:])

    def _answered(self, entry: Export) -> None:
        """Let go of what a ``stream`` message brought: its answer is its release."""
        if entry.stream_size is not None and self._session.closed is None:
            self._unread -= entry.stream_size
            self._unintroduce(entry.id, 1)

    def _follow(self, entry: Export, promise: Promise, chain: int) -> None:
        reference = reference_of(promise).get(path_of(promise))

        def settled(outcome: Payload | Exception) -> None:
            self.send_outcome(entry, outcome, chain)
            reference.release()

        reference.when_settled(settled)

    def _is_of_this_side(self, promise: Promise) -> bool:
        """Whether ``promise`` is another than the peer's own."""
        try:
            reference = reference_of(promise)
        except DisposedError:
            return False  # which becomes an error when it is encoded
        return not self._is_the_peers(reference)

    def _is_the_peers(self, reference: Reference) -> TypeGuard[FarReference]:
        return isinstance(reference, FarReference) and reference.is_of(self._session)

    def _is_anothers(self, reference: Reference) -> bool:
        """Whether ``reference`` belongs to another session, and might end with it."""
        return reference.owner is not self._session and not isinstance(reference.owner, LocalOwner)

    # Stubs and targets on their way to the peer, as the encoder meets them.

    def export_stub(self, stub: Stub, exported: list[int]) -> list[object]:
        """Return the expression for ``stub``: the peer's own by its number, any other as an export.

        A promise that has turned out to be a stub is one: the peer need not wait for it.
        """
        reference, path = reference_of(stub), path_of(stub)
        if self._is_the_peers(reference):
            if path:
                return ["pipeline", reference.id, list(path)]
            awaits = isinstance(stub, Promise) and reference.is_promise
            return ["pipeline" if awaits else "import", reference.id]
        found = settled_stub(stub)
        if found is not None and self._is_the_peers(found):
            return ["import", found.id]
        if found is None and isinstance(stub, Promise):
            return ["promise", self._add(reference.get(path), exported, is_promise=True)]
        if isinstance(found, LocalReference) and self._is_anothers(found):
            # A target of this process that came here by another session must not depend on that one.
            found.passed_on()
            found = self._session.near(found.target)
        return ["export", self._add(reference.get(path) if found is None else found.retain(), exported)]

    def export_target(self, target: object, payload: Payload, exported: list[int]) -> list[object]:
        """Return the expression for a target or a function that is part of ``payload``."""
        reference = self._session.near(passed(target) if payload.lent else target).retain()
        # The value of a promise keeps its targets for calls that are pipelined on it; arguments keep theirs
        # until all of them have been encoded.
        payload.hold(reference.retain())
        return ["export", self._add(reference, exported)]

    def export_writable(self, stream: WritableStream, exported: list[int]) -> tuple[list[object], Job]:
        """Return the expression for ``stream``, and what has to run for it to get values."""
        stream.lock()
        pipe = Pipe(self._session)
        export_id = self._add(PipeReference(self._session, pipe), exported)
        if self._given_up is not None:
            pipe.fail(self._given_up)
        return ["writable", export_id], functools.partial(drain, pipe, stream)

    def unexport(self, exported: list[int]) -> None:
        """Take back the exports noted in ``exported``: the message that introduces them is not sent."""
        for export_id in exported:
            self._unintroduce(export_id, 1)

    def _add(self, reference: Reference, exported: list[int], *, is_promise: bool = False) -> int:
        try:
            self._session.account.add(ENTRY_BYTES)
        except LimitExceededError as exc:
            reference.release()
            raise too_much(exc) from None
        export_id = self._next_exported
        self._next_exported -= 1
        entry = self._entries[export_id] = Export(self, export_id, reference, is_promise=is_promise)
        entry.is_counted = True
        exported.append(export_id)
        return export_id
