"""One side of a Cap'n Web session, without input or output.

A session takes the messages that the peer sent (:meth:`Session.receive`) and says what is to be done: calls
to carry out (:meth:`Session.next_call`) and messages to send (:meth:`Session.take_output`). It has no
socket, no event loop and no text encoding: messages are lists as JSON would have them. What drives it
(:class:`~rpcshare.rpc.connection.Connection`, for one) is told by ``wake`` when there is something to do
that no call of its own brought about.

Both sides keep two tables. The *export* table has what the peer may refer to, the *import* table what this
side may refer to; one side's exports are the other side's imports, under the same number:

========  ===========================================  ===========================================
number    as an export                                 as an import
========  ===========================================  ===========================================
0         the main target, from the beginning          the peer's main target
1, 2, …   the result of a ``push`` of the peer         the result of a call that this side made
-1, -2 …  a stub or promise that this side has sent    a stub or promise that the peer has sent
========  ===========================================  ===========================================

Numbers are never used again. An entry leaves the export table when the peer has released it as often as it
was introduced; an import is released when nothing on this side refers to it any longer, and the result of
a call as soon as it has arrived. PROTOCOL.md has the whole of the rules, by message.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.encoding import Encoder
from rpcshare.rpc.errors import (
    INTERNAL_CODE,
    DisposedError,
    EncodeError,
    LimitExceededError,
    ProtocolError,
    RpcError,
    SessionClosedError,
)
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.local import BrokenReference, Call, NearReference, ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.reference import Path, Reference
from rpcshare.rpc.remote import FarReference
from rpcshare.rpc.stub import Promise, Stub, path_of, reference_of

__all__ = ["Session", "Stats", "conceal"]

logger = logging.getLogger("rpcshare.rpc")

DEFAULT_LIMITS = Limits()


class Stats(msgspec.Struct, frozen=True):
    """How much a session holds. A fresh one has one import and one export: the main targets."""

    imports: int
    exports: int
    calls_in_flight: int


class _Export:
    """An entry of the export table."""

    __slots__ = ("introductions", "is_promise", "pulled", "reference")

    def __init__(self, reference: Reference, *, is_promise: bool = False) -> None:
        self.reference = reference
        # Whether it was introduced as a promise, whose value the peer need not ask for.
        self.is_promise = is_promise
        # How often the peer has been told of it, less how often it has released it.
        self.introductions = 1
        # Whether the peer is to be sent the value, or has been.
        self.pulled = False


def conceal(error: BaseException) -> RpcError:
    """Return what the peer is told of an error that is not meant for it: that there was one."""
    logger.error("an exported function failed", exc_info=error)
    return RpcError("Internal server error", code=INTERNAL_CODE)


class Session:
    """The tables of one session, and the rules by which messages change them.

    Args:
        main: the target (or function) that the peer finds at 0; None to offer nothing.
        limits: how much the peer may ask.
        raw_bytes: whether the encoding below carries ``bytes`` as they are; else they are sent as base64.
        describe_error: what to tell the peer of an exception that is not an :class:`RpcError`.
        wake: called, from any thread, when there may be something to take or to carry out.
    """

    def __init__(
        self,
        main: object = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        raw_bytes: bool = False,
        describe_error: Callable[[BaseException], RpcError] = conceal,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self.limits = limits
        self.wake = wake
        # Why the session is over; None as long as it is not.
        self.closed: SessionClosedError | None = None

        self._raw_bytes = raw_bytes
        self._describe_error = describe_error

        # Targets and functions of this side that something refers to, by identity.
        self._near: dict[int, NearReference] = {}

        # What the peer may refer to, and the number under which a stub has been exported already.
        if main is None:
            error = RpcError("this connection has no main object")
            self._exports = {0: _Export(BrokenReference(self, error))}
        else:
            self._exports = {0: _Export(self.near(main).retain())}
        self._export_ids: dict[Reference, int] = {}
        self._next_pushed_id = 1
        self._next_export_id = -1

        # What this side may refer to.
        remote_main = FarReference(self, 0, is_promise=False)
        self._imports: dict[int, FarReference] = {0: remote_main}
        self._next_import_id = 1
        self.remote_main = Stub(remote_main)

        # What is to be done: messages to send, and calls to carry out.
        self._output: list[object] = []
        self._calls: deque[Call] = deque()
        self._calls_in_flight = 0
        # Whether calls are being rejected because the session is over.
        self._rejecting = False

        # References that only the garbage collector knew to be unused.
        self._abandoned: deque[Reference] = deque()

    # What the driver asks and tells.

    def receive(self, message: object) -> None:
        """Process one message of the peer. A peer that breaks the rules ends the session, not the caller."""
        if self.closed is not None:
            return
        try:
            self._dispatch(message)
        except ProtocolError as exc:
            self.abort(exc)
        except RecursionError:
            self.abort(LimitExceededError("nesting depth", self.limits.depth))
        except Exception:
            # Whatever it was, the tables may be half changed, and are not to be used again.
            logger.exception("a session failed")
            self.abort(SessionClosedError("Internal server error", code=INTERNAL_CODE))

    def next_call(self) -> Call | None:
        """Return the next call to start, in the order in which they were asked for; None if there is none."""
        return self._calls.popleft() if self._calls else None

    def take_output(self) -> list[object]:
        """Return the messages to send, in order, and forget them."""
        while self._abandoned:
            self._abandoned.popleft().release()
        output, self._output = self._output, []
        return output

    def abort(self, error: SessionClosedError) -> None:
        """End the session and tell the peer why."""
        if self.closed is None:
            self._output.append(["abort", self._encode_error(error)])
            self.close(error)

    def close(self, error: SessionClosedError) -> None:
        """End the session: the connection is gone, or is not wanted any longer. Again is no error."""
        if self.closed is not None:
            return
        self.closed = error
        imports, self._imports = self._imports, {}
        exports, self._exports = self._exports, {}
        self._export_ids.clear()
        for reference in imports.values():
            reference.broken(error)
        for export in exports.values():
            export.reference.release()
        self._reject_calls(error)
        self._notify()

    def stats(self) -> Stats:
        """Return how much the session holds."""
        return Stats(len(self._imports), len(self._exports), self._calls_in_flight)

    # Messages of the peer, by kind.

    def _dispatch(self, message: object) -> None:
        if type(message) is not list or not message:
            raise ProtocolError("a message is not a list")
        kind = message[0]
        if kind == "push" and len(message) == 2:
            self._on_push(message[1])
        elif kind == "pull" and len(message) == 2:
            self._on_pull(_entry_id(message))
        elif kind in ("resolve", "reject") and len(message) == 3:
            self._on_settled(_entry_id(message), message[2], rejected=kind == "reject")
        elif kind == "release" and len(message) == 3 and type(message[2]) is int:
            self._on_release(_entry_id(message), message[2])
        elif kind == "abort" and len(message) == 2:
            self._on_abort(message[1])
        else:
            raise ProtocolError("malformed or unknown message")

    def _on_push(self, expression: object) -> None:
        decoder = Decoder(self, self)
        reference = decoder.reference(expression)
        if reference is None:
            reference = ValueReference(self, decoder.decode(expression))
        if self.closed is not None:  # the call went past a limit
            reference.release()
            return
        self._exports[self._next_pushed_id] = _Export(reference)
        self._next_pushed_id += 1
        self._check_exports()

    def _on_pull(self, export_id: int) -> None:
        export = self._exports.get(export_id)
        if export is None:
            raise ProtocolError(f"pull of {export_id}, which is not exported")
        self._send_when_settled(export_id, export)

    def _on_settled(self, import_id: int, expression: object, *, rejected: bool) -> None:
        reference = self._imports.get(import_id)
        payload = Decoder(self, self).decode(expression)
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
            resolution = BrokenReference(self, _as_error(payload.value))
        else:
            resolution = ValueReference(self, payload)
        self.release_import(reference)
        reference.settle(resolution)

    def _on_release(self, export_id: int, count: int) -> None:
        export = self._exports.get(export_id)
        if export is None:
            raise ProtocolError(f"release of {export_id}, which is not exported")
        if not 0 < count <= export.introductions:
            raise ProtocolError(
                f"release of {export_id} by {count}; it was introduced {export.introductions} times"
            )
        self._unintroduce(export_id, count)

    def _on_abort(self, expression: object) -> None:
        payload = Decoder(self, self).decode(expression)
        payload.dispose()
        error = _as_error(payload.value)
        self.close(
            SessionClosedError(
                f"the peer ended the session: {error.message}",
                name=error.name,
                properties=error.properties,
            )
        )

    # The export table.

    def _send_when_settled(self, export_id: int, export: _Export) -> None:
        """Send the value of an export once it is known, unless that is under way."""
        if not export.pulled:
            export.pulled = True
            export.reference.when_settled(functools.partial(self._send_outcome, export_id, export))

    def _send_outcome(self, export_id: int, export: _Export, outcome: Payload | Exception) -> None:
        if self._exports.get(export_id) is not export:
            return  # released in the meantime
        if isinstance(outcome, Exception):
            self._send(["reject", export_id, self._encode_error(outcome)])
            return
        if isinstance(outcome.value, Promise) and self._is_of_this_side(outcome.value):
            # The peer could only wait for it; better to wait here.
            self._follow(export_id, export, outcome.value)
            return
        encoder = self._encoder(outcome)
        try:
            expression = encoder.encode_payload()
        except Exception as exc:  # noqa: BLE001 -- whatever is wrong with a result, only its call fails
            self._send(["reject", export_id, self._encode_error(exc)])
        else:
            self._send(["resolve", export_id, expression], encoder.exported)

    def _follow(self, export_id: int, export: _Export, promise: Promise) -> None:
        reference = reference_of(promise).get(path_of(promise))

        def settled(outcome: Payload | Exception) -> None:
            self._send_outcome(export_id, export, outcome)
            reference.release()

        reference.when_settled(settled)

    def _unintroduce(self, export_id: int, count: int) -> None:
        export = self._exports[export_id]
        export.introductions -= count
        if export.introductions == 0:
            del self._exports[export_id]
            if self._export_ids.get(export.reference) == export_id:
                del self._export_ids[export.reference]
            export.reference.release()

    def _check_exports(self) -> None:
        bound = self.limits.exports
        if bound and len(self._exports) > bound:
            raise LimitExceededError("exports held by the peer", bound)

    # The import table, as the references in it use it.

    def push_call(self, reference: FarReference, path: Path, arguments: Payload | None) -> Reference:
        """Call (without arguments: read) what ``path`` of an import leads to; return a hold on the result."""
        if self.closed is not None:
            if arguments is not None:
                arguments.dispose()
            return BrokenReference(self, self.closed)
        expression: list[object] = ["pipeline", reference.id, list(path)]
        encoder = self._encoder(arguments)
        if arguments is not None:
            try:
                expression.append(encoder.encode_arguments(arguments.value))
            except EncodeError as exc:
                return BrokenReference(self, exc)
            finally:
                arguments.dispose()  # exported stubs are held by the table now
        result = FarReference(self, self._next_import_id, is_promise=True)
        self._imports[result.id] = result
        self._next_import_id += 1
        self._send(["push", expression], encoder.exported)
        return result

    def pull_import(self, reference: FarReference) -> None:
        """Ask for the value of an import."""
        self._send(["pull", reference.id])

    def release_import(self, reference: FarReference) -> None:
        """Tell the peer that an import is not referred to any longer."""
        if self._imports.pop(reference.id, None) is not None:
            self._send(["release", reference.id, reference.introductions])

    # What the references of this session ask of it (rpcshare.rpc.reference.Owner).

    def ask(self, call: Call) -> None:
        """Have ``call`` carried out."""
        if self.closed is not None:
            self._calls.append(call)
            self._reject_calls(self.closed)
            return
        bound = self.limits.calls_in_flight
        if bound and self._calls_in_flight >= bound:
            self.abort(LimitExceededError("calls in flight", bound))
            call.reject(RpcError("too many calls in flight"))
            return
        self._calls_in_flight += 1
        call.finished = self._call_finished
        self._calls.append(call)
        self._notify()

    def _reject_calls(self, error: SessionClosedError) -> None:
        """Reject the calls that have not begun, and those that wait for their results, one after another."""
        if self._rejecting:
            return
        self._rejecting = True
        while self._calls:
            self._calls.popleft().reject(error)
        self._rejecting = False

    def _call_finished(self, _call: Call) -> None:
        self._calls_in_flight -= 1

    def near(self, target: object) -> NearReference:
        """Return the one reference to a target or a function of this side."""
        reference = self._near.get(id(target))
        if reference is None:
            reference = self._near[id(target)] = NearReference(self, target)
        return reference

    def forget(self, target: object) -> None:
        """Note that nothing refers to ``target`` any longer."""
        self._near.pop(id(target), None)

    def invoke(self, reference: Reference, path: Path, arguments: tuple[object, ...]) -> Reference:
        """Call what ``path`` of ``reference`` leads to, with arguments that the application keeps.

        Raises:
            EncodeError: an argument has no form on the wire.
        """
        result = reference.call(path, Payload.lend(self, arguments))
        if isinstance(result, BrokenReference) and isinstance(result.error, EncodeError):
            raise result.error
        return result

    def abandon(self, reference: Reference) -> None:
        """Release ``reference`` when output is taken next. Any thread may call this at any time."""
        self._abandoned.append(reference)
        self._notify()

    # What the decoder and the encoder ask of it.

    def import_stub(self, import_id: int) -> Reference:
        """Return a new hold on the peer's export ``import_id``, which it has just introduced."""
        reference = self._imports.get(import_id) if import_id < 0 else None
        if reference is not None:
            reference.introductions += 1
            return reference.retain()
        return self._new_import(import_id, is_promise=False)

    def import_promise(self, import_id: int) -> Reference:
        """Return a hold on the peer's new promise ``import_id``."""
        if import_id in self._imports:
            raise ProtocolError(f"the promise {import_id} is not new")
        return self._new_import(import_id, is_promise=True)

    def _new_import(self, import_id: int, *, is_promise: bool) -> Reference:
        if import_id >= 0:
            raise ProtocolError(f"{import_id} is not a number that an exporter may choose")
        # The peer sends the value of a promise that it exports without being asked.
        reference = FarReference(self, import_id, is_promise=is_promise, pulled=True)
        self._imports[import_id] = reference
        return reference

    def exported(self, export_id: int) -> Reference:
        """Return what is exported as ``export_id``, with no new hold on it."""
        export = self._exports.get(export_id)
        if export is None:
            raise ProtocolError(f"{export_id} is not exported")
        return export.reference

    def export_stub(self, stub: Stub, exported: list[int]) -> list[object]:
        """Return the expression for ``stub``: the peer's own by its number, any other as an export."""
        reference, path = reference_of(stub), path_of(stub)
        while isinstance(reference, FarReference) and reference.resolution is not None:
            reference = reference.resolution
        if isinstance(reference, FarReference) and reference.session is self:
            if not isinstance(stub, Promise):
                return ["import", reference.id]
            return ["pipeline", reference.id, list(path)] if path else ["pipeline", reference.id]
        held = reference.get(path)
        if isinstance(stub, Promise):
            return ["promise", self._export(held, exported, is_promise=True)]
        if isinstance(held, NearReference) and held.owner is not self:
            # A target of this process that came here by another session must not depend on that one.
            foreign, held = held, self.near(held.target).retain()
            foreign.release()
        return ["export", self._export_again(held, exported)]

    def export_target(self, target: object, payload: Payload, exported: list[int]) -> list[object]:
        """Return the expression for a target or a function that is part of ``payload``."""
        reference = self.near(target).retain()
        if not payload.lent:
            # The value of a promise keeps its targets for calls that are pipelined on it.
            payload.holds.append(reference.retain())
        return ["export", self._export_again(reference, exported)]

    def unexport(self, exported: list[int]) -> None:
        """Take back the exports noted in ``exported``: the message that introduces them is not sent."""
        for export_id in exported:
            self._unintroduce(export_id, 1)

    def _export(self, reference: Reference, exported: list[int], *, is_promise: bool = False) -> int:
        export_id = self._next_export_id
        self._next_export_id -= 1
        self._exports[export_id] = _Export(reference, is_promise=is_promise)
        exported.append(export_id)
        return export_id

    def _export_again(self, reference: Reference, exported: list[int]) -> int:
        """Export a stub, under the number that it has if the peer knows it; takes over one hold."""
        export_id = self._export_ids.get(reference)
        if export_id is None:
            export_id = self._export_ids[reference] = self._export(reference, exported)
        else:
            self._exports[export_id].introductions += 1
            reference.release()
            exported.append(export_id)
        return export_id

    def describe(self, error: BaseException) -> RpcError:
        """Return what the peer may know about ``error``."""
        return error if isinstance(error, RpcError) else self._describe_error(error)

    def _is_of_this_side(self, promise: Promise) -> bool:
        """Whether ``promise`` is another than the peer's own."""
        try:
            reference = reference_of(promise)
        except DisposedError:
            return False  # which becomes an error when it is encoded
        return not (
            isinstance(reference, FarReference) and reference.session is self and reference.resolution is None
        )

    # Sending.

    def _encoder(self, payload: Payload | None = None) -> Encoder:
        return Encoder(self, max_depth=self.limits.depth, raw_bytes=self._raw_bytes, payload=payload)

    def _encode_error(self, error: BaseException) -> object:
        return self._encoder().encode(error)

    def _send(self, message: list[object], exported: Sequence[int] = ()) -> None:
        """Send ``message``, which introduces what it ``exported``."""
        if self.closed is not None:
            return
        self._output.append(message)
        for export_id in exported:
            export = self._exports[export_id]
            if export.is_promise:
                # Not before now: the peer has to hear of it first.
                self._send_when_settled(export_id, export)
        self._notify()

    def _notify(self) -> None:
        if self.wake is not None:
            self.wake()


def _entry_id(message: list[object]) -> int:
    if type(message[1]) is not int:
        raise ProtocolError("malformed message: the number of a table entry is an integer")
    return message[1]


def _as_error(value: object) -> RpcError:
    """Return ``value`` as an error; JavaScript may throw anything."""
    return value if isinstance(value, RpcError) else RpcError(str(value))
