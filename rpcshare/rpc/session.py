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

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from rpcshare import jsontext
from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.encoding import Encoder, Job
from rpcshare.rpc.errors import (
    INTERNAL_CODE,
    EncodeError,
    LimitExceededError,
    ProtocolError,
    RpcError,
    SessionClosedError,
    as_error,
)
from rpcshare.rpc.exports import ExportTable
from rpcshare.rpc.fifo import Fifo
from rpcshare.rpc.imports import ImportTable
from rpcshare.rpc.limits import MAX_DEPTH, Limits
from rpcshare.rpc.local_references import Call, LocalReference, ValueReference, settled_target
from rpcshare.rpc.mapping import MapBudget, apply_map
from rpcshare.rpc.members import Method
from rpcshare.rpc.memory_budget import CALL_BYTES, Account, Pool, too_much
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.pipe import Pipe
from rpcshare.rpc.promises import BrokenReference
from rpcshare.rpc.reference import Budget, Instructions, Owner, Path, Reference, Releasable
from rpcshare.rpc.remote import FarReference
from rpcshare.rpc.streams import ReadableStream, WritableStream
from rpcshare.rpc.stub import Stub

if TYPE_CHECKING:
    from rpcshare.rpc.short_messages import ShortCall

__all__ = ["MAX_UNSENT", "OnSendError", "Session", "Stats", "redact_error"]

logger = logging.getLogger("rpcshare.rpc")

DEFAULT_LIMITS = Limits()

OnSendError: TypeAlias = "Callable[[BaseException], BaseException | None]"

# Of what has been said and not yet been made frames of, in bytes of memory: above it, more can wait.
MAX_UNSENT: Final = 8 * 1024 * 1024

# The expression for what a function returns that returns nothing.
_UNDEFINED: Final[list[object]] = ["undefined"]


class Stats(msgspec.Struct, frozen=True):
    """How much a session holds. A fresh one has one import and one export: the main targets."""

    imports: int
    exports: int
    calls_in_flight: int


def redact_error(error: BaseException) -> RpcError:
    """Return what the peer is told of an error that is not meant for it: that there was one."""
    logger.error("an exported function failed", exc_info=error)
    return RpcError("Internal server error", code=INTERNAL_CODE)


class Session(Owner):
    """The tables of one session, and the rules by which messages change them.

    Args:
        main: the target, function or stub that the peer finds at 0; None to offer nothing.
        limits: how much the peer may ask.
        raw_bytes: whether the encoding below carries ``bytes`` as they are; else they are sent as base64.
        describe_error: what to tell the peer of an exception that is not an :class:`RpcError`.
        on_send_error: called with each error that is sent, wherever it is in a value. If it returns another,
            that one is sent in its place, and with its ``stack`` if it is an RpcError that has one.
        wake: called, from any thread, when there may be something to take or to carry out.
        encode: makes a frame of a message. Messages whose size matters are encoded by it at once, and are in
            the output as frames; without it, their size is that of their JSON.
        is_json: whether that is JSON, whose commonest messages are read and written in a shorter way.
        pool: counts what all sessions of the process hold together.
        pool_owner: whose session it is, there.
    """

    def __init__(
        self,
        main: object = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        raw_bytes: bool = False,
        describe_error: Callable[[BaseException], RpcError] = redact_error,
        on_send_error: OnSendError | None = None,
        wake: Callable[[], None] | None = None,
        encode: Callable[[object], bytes] | None = None,
        is_json: bool = False,
        pool: Pool | None = None,
        pool_owner: Hashable = None,
    ) -> None:
        super().__init__(Account(limits.memory_bytes, limits.values, pool, pool_owner, self.abort))
        self.limits = limits
        self.max_depth = min(limits.depth or MAX_DEPTH, MAX_DEPTH)
        self._max_calls = limits.calls_in_flight
        self.max_values = limits.values
        self.wake = wake
        # Whether what drives the session knows that there is something to take, or to carry out.
        self.is_scheduled = False
        # Why the session is over; None as long as it is not.
        self.closed: SessionClosedError | None = None

        self._raw_bytes = raw_bytes
        self._encode = encode
        self.is_json = is_json
        self._describe_error = describe_error
        self._on_send_error = on_send_error

        # Targets and functions of this side that something refers to, by identity.
        self._near: dict[int, LocalReference] = {}

        self.exports = ExportTable(self, main)
        self.imports = ImportTable(self)
        self.remote_main = Stub(self.imports.main)

        # What is to be done: messages to send, and calls to carry out.
        self._output: list[object] = []
        # About how many bytes of memory the large ones among the former take.
        self.unsent = 0
        # Whether what drives the session has more to send than is worth having, and who waits for less.
        self.is_congested = False
        self._waiting_for_room: list[Callable[[], None]] = []
        self._calls: Fifo[Call] = Fifo()
        self._calls_in_flight = 0
        # Whether calls are being rejected because the session is over.
        self._rejecting = False

        # Bytes of the message that is being processed, and what its mapper functions may still take.
        self._size = 0
        self._uncharged = 0
        self._map_budget: MapBudget | None = None

        # References that only the garbage collector knew to be unused.
        self._abandoned: list[Releasable] = []

    # What the driver asks and tells.

    def receive(self, message: object, size: int = 0) -> None:
        """Process one message of the peer. A peer that breaks the rules ends the session, not the caller.

        Args:
            message: as the codec decoded it, or :mod:`rpcshare.rpc.short_messages`.
            size: of its encoded form in bytes, which counts where it has to wait to be read.
        """
        if self.closed is not None:
            return
        self._size = self._uncharged = size
        self._map_budget = None
        self.account.copied = 0
        try:
            self._dispatch(message)
        except ProtocolError as exc:
            self.abort(exc)
        except RecursionError:
            self.abort(LimitExceededError("nesting depth", self.limits.depth))
        except MemoryError:
            self.abort(SessionClosedError("there is no memory left for this session", code=INTERNAL_CODE))
        except Exception:
            # Whatever it was, the tables may be half changed, and are not to be used again.
            logger.exception("a session failed")
            self.abort(SessionClosedError("Internal server error", code=INTERNAL_CODE))

    def next_call(self) -> Call | None:
        """Return the next call to start, in the order in which they were asked for; None if there is none."""
        return self._calls.popleft() if len(self._calls) else None

    def take_output(self) -> list[object]:
        """Return the messages to send, in order, and forget them.

        What is large waits until :meth:`tell_of_room` says that the peer has taken most of what there was.
        """
        while self._abandoned:
            self._abandoned.pop().release()
        output, self._output = self._output, []
        self.unsent = 0
        return output

    def has_output(self) -> bool:
        """Whether there is something to take, or to be let go of by the way."""
        return len(self._output) > 0 or len(self._abandoned) > 0 or self.unsent > 0

    @property
    def waits_for_room(self) -> bool:
        """Whether somebody is to be told when there is room (:meth:`tell_of_room`)."""
        return bool(self._waiting_for_room)

    def has_calls(self) -> bool:
        """Whether there are calls to be started."""
        return len(self._calls) > 0

    def tell_of_room(self) -> None:
        """Have those go on who wait to send more: there is room, or the session is over."""
        self.is_congested = False
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for callback in waiting:
            callback()

    def peer_finished(self, reason: Exception) -> None:
        """Take note that the peer has said all that it will.

        What is asked of it fails with ``reason``, and so do streams of its that it has not closed. What is
        written to it counts as read.
        """
        self.imports.give_up(reason)
        self.exports.give_up(reason)

    def abort(self, error: SessionClosedError) -> None:
        """End the session and tell the peer why."""
        if self.closed is None:
            self._output.append(["abort", self.encode_error(error)])
            self.close(error)

    def close(self, error: SessionClosedError) -> None:
        """End the session: the connection is gone, or is not wanted any longer. Again is no error."""
        if self.closed is not None:
            return
        # Without the frames, which have the message that was being read, and refer to what refers to this.
        self.closed = error.with_traceback(None)
        self.account.close()
        self.imports.close(error)
        self.exports.close(error)
        self._reject_calls(error)
        self._notify()

    def stats(self) -> Stats:
        """Return how much the session holds."""
        return Stats(len(self.imports), len(self.exports), self._calls_in_flight)

    # Messages of the peer, by kind.

    def _dispatch(self, message: object) -> None:  # noqa: C901 -- a case for each kind
        if isinstance(message, tuple):
            self._push(cast("ShortCall", message))
            return
        if not isinstance(message, list) or not message:
            raise ProtocolError("a message is not a list")
        kind = message[0]
        if not isinstance(kind, str):
            raise _bad_message()
        if kind == "push" and len(message) == 2:
            self.exports.add_pushed(self._evaluate(message[1]))
        elif kind == "pull" and len(message) == 2:
            self.exports.pull(_entry_id(message))
        elif kind in ("resolve", "reject") and len(message) == 3:
            if message[2] == _UNDEFINED and kind == "resolve" and self.imports.succeeded(_entry_id(message)):
                return
            payload = Decoder(self, self, self).decode(message[2])
            self.imports.settle(_entry_id(message), payload, rejected=kind == "reject")
        elif kind == "release" and len(message) == 3 and type(message[2]) is int:
            self.exports.release(_entry_id(message), message[2])
        elif kind == "stream" and len(message) == 2:
            self.imports.peer_knows_streams = True
            self.exports.add_streamed(self._evaluate(message[1]), self._size)
        elif kind == "pipe" and len(message) == 1:
            self.imports.peer_knows_streams = True
            self.exports.add_pipe()
        elif kind == "abort" and len(message) == 2:
            self._on_abort(message[1])
        else:
            raise _bad_message()

    def _push(self, call: ShortCall) -> None:
        """Make a call that has been read in the shorter way: its arguments are decoded, and have no stubs."""
        target, path, arguments, values = call
        reference = self.exports.reference(target)
        payload = Payload(self, arguments, stubs=[], private=True)
        payload.account_for(values, self.take_size())
        self.exports.add_pushed(reference.call(path, payload))

    def _evaluate(self, expression: object) -> Reference:
        """Return a hold on what ``expression`` stands for, having made the calls in it."""
        decoder = Decoder(self, self, self)
        reference = decoder.reference(expression)
        return ValueReference(self, decoder.decode(expression)) if reference is None else reference

    def _on_abort(self, expression: object) -> None:
        payload = Decoder(self, self, self).decode(expression)
        payload.dispose()
        error = as_error(payload.value)
        self.close(
            SessionClosedError(
                f"the peer ended the session: {error.message}",
                name=error.name,
                properties=error.properties,
            )
        )

    # What the references of this session ask of it (rpcshare.rpc.reference.Owner).

    def ask(self, call: Call) -> None:
        """Have ``call`` carried out."""
        if self.closed is not None:
            self._calls.append(call)
            self._reject_calls(self.closed)
            return
        bound = self._max_calls
        if bound and self._calls_in_flight >= bound:
            self.abort(LimitExceededError("calls in flight", bound))
            call.reject(RpcError("too many calls in flight"))
            return
        try:
            self.account.add(CALL_BYTES)
        except LimitExceededError as exc:
            call.reject(too_much(exc))
            return
        self._calls_in_flight += 1
        call.session = self
        self._calls.append(call)
        self._notify()

    def _reject_calls(self, error: SessionClosedError) -> None:
        """Reject the calls that have not begun, and those that wait for their results, one after another."""
        if self._rejecting:
            return
        self._rejecting = True
        while len(self._calls):
            self._calls.popleft().reject(error)
        self._rejecting = False

    def call_finished(self) -> None:
        """Count a call no longer as under way."""
        self._calls_in_flight -= 1
        self.account.subtract(CALL_BYTES)
        self.account.copied = 0

    def near(self, target: object) -> LocalReference:
        """Return the one reference to a target or a function of this side."""
        reference = self._near.get(id(target))
        if reference is None:
            reference = self._near[id(target)] = LocalReference(self, target)
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

    def stream(
        self,
        reference: Reference,
        path: Path,
        arguments: tuple[object, ...],
        settled: Callable[[Exception | None], None],
        *,
        measure: bool,
    ) -> int | None:
        """Call something for how it goes; return the size of the message if it was measured and sent.

        Raises:
            EncodeError: an argument has no form on the wire.
        """
        far = reference if isinstance(reference, FarReference) and reference.is_of(self) else None
        if far is not None and not measure:
            self.imports.notify(far, path, arguments, settled)
            return None
        payload = Payload.lend(self, arguments)
        size = None
        result: Reference
        if far is not None:
            result, size = self.imports.stream_call(far, path, payload)
        else:
            result = reference.call(path, payload)

        def observe(outcome: Payload | Exception) -> None:
            settled(outcome if isinstance(outcome, Exception) else None)
            result.release()

        result.when_settled(observe)
        return size

    def apply_map(
        self,
        value: object,
        captures: list[Reference],
        instructions: Instructions,
        budget: Budget,
        *,
        fixed: bool,
    ) -> Reference:
        """Apply a mapper function to ``value``, or to each element of it; return a hold on the result."""
        return apply_map(self, value, captures, instructions, budget, fixed=fixed)

    def run(self, job: Job) -> None:
        """Have ``job`` carried out, which is this side's own and counts against no limit."""
        self._calls.append(Call(self, job, Payload.given(self, [])))
        self._notify()

    @property
    def has_room(self) -> bool:
        """Whether it is worth sending more now."""
        return self.closed is not None or not (self.is_congested or self.unsent > MAX_UNSENT)

    def when_room(self, callback: Callable[[], None]) -> bool:
        """Return whether it is worth sending more now; else ``callback`` is called when it may be."""
        if self.has_room:
            return True
        self._waiting_for_room.append(callback)
        return False

    def abandon(self, reference: Releasable) -> None:
        """Release ``reference`` when output is taken next. Any thread may call this at any time."""
        self._abandoned.append(reference)
        self._notify()

    # What the decoder and the encoder ask of it (their Importer and Exporter): the tables answer.

    def import_stub(self, import_id: int) -> Reference:
        """Return a new hold on the peer's export ``import_id``, which it has just introduced."""
        return self.imports.add_stub(import_id)

    def import_promise(self, import_id: int) -> Reference:
        """Return a hold on the peer's new promise ``import_id``."""
        return self.imports.add_promise(import_id)

    def exported(self, export_id: int) -> Reference:
        """Return what is exported as ``export_id``, with no new hold on it."""
        return self.exports.reference(export_id)

    def export_stub(self, stub: Stub, exported: list[int]) -> list[object]:
        """Return the expression for ``stub``."""
        return self.exports.export_stub(stub, exported)

    def export_target(self, target: object, payload: Payload, exported: list[int]) -> list[object]:
        """Return the expression for a target or a function that is part of ``payload``."""
        return self.exports.export_target(target, payload, exported)

    def map_budget(self) -> Budget:
        """Return how much the mapper functions of the message that is being processed may take."""
        if self._map_budget is None:
            self._map_budget = MapBudget(self.limits.map_steps, self.max_depth)
        return self._map_budget

    def take_pipe(self, export_id: int) -> Pipe:
        """Return the pipe ``export_id`` to be read."""
        return self.exports.take_pipe(export_id)

    def text_index(self, export_id: int, name: str) -> int:
        """Return which argument a method of an export takes as JSON text; -1: none that is known."""
        reference = self.exports.find(export_id)
        target = None if reference is None else settled_target(reference)
        member = None if target is None else target.rpc_members.get(name)
        return member.text_index if isinstance(member, Method) else -1

    def take_size(self) -> int:
        """Return the bytes of the message being processed, to whoever asks first."""
        size, self._uncharged = self._uncharged, 0
        return size

    def collect_blob(self, export_id: int, content_type: str) -> Reference:
        """Return a hold on the blob that the pipe ``export_id`` brings."""
        return self.exports.collect_blob(export_id, content_type)

    def export_readable(self, stream: ReadableStream) -> tuple[list[object], Job]:
        """Return the expression for ``stream``, and what has to run for its values to follow."""
        return self.imports.export_readable(stream)

    def export_writable(self, stream: WritableStream, exported: list[int]) -> tuple[list[object], Job]:
        """Return the expression for ``stream``, and what has to run for it to get values."""
        return self.exports.export_writable(stream, exported)

    def unexport(self, exported: list[int]) -> None:
        """Take back the exports noted in ``exported``: the message that introduces them is not sent."""
        self.exports.unexport(exported)

    def rewrite(self, error: BaseException) -> BaseException | None:
        """Return what is sent in place of ``error``; None: the error itself."""
        if self._on_send_error is None:
            return None
        try:
            return self._on_send_error(error)
        except Exception:
            # What it might have taken out is not to be sent.
            logger.exception("on_send_error failed")
            return RpcError("Internal server error", code=INTERNAL_CODE)

    def describe(self, error: BaseException) -> RpcError:
        """Return what the peer may know about ``error``."""
        return error if isinstance(error, RpcError) else self._describe_error(error)

    # What the tables need in order to send.

    def encoder(self, payload: Payload | None = None) -> Encoder:
        """Return an encoder for a value that is sent, of ``payload`` if it may hold stubs."""
        return Encoder(
            self,
            max_depth=self.max_depth,
            raw_bytes=self._raw_bytes,
            payload=payload,
            max_values=self.max_values,
        )

    def encode_error(self, error: BaseException) -> object:
        """Return the expression for what the peer may know about ``error``.

        Whoever waits for an outcome has to get one: an error that cannot be sent gives way to one that can.
        """
        try:
            return self.encoder().encode(error)
        except EncodeError as exc:
            return self.encoder().encode(RpcError(exc.message))
        except Exception:
            logger.exception("an error has no form on the wire")
            return self.encoder().encode(RpcError("Internal server error", code=INTERNAL_CODE))

    def send(
        self, message: list[object] | bytes, exported: Sequence[int] = (), named: Payload | None = None
    ) -> None:
        """Send ``message``, which introduces what it ``exported``, and dispose of what it ``named``.

        In this order: the peer has to hear of an entry in a message before it hears of its release.
        """
        if self.closed is None:
            self._output.append(message)
            self.exports.introduced(exported)
            self._notify()
        if named is not None:
            named.dispose()

    def send_measured(
        self, message: list[object], exported: Sequence[int] = (), named: Payload | None = None
    ) -> int:
        """Send ``message`` as :meth:`send` does, and return the bytes of its encoded form."""
        if self._encode is None:
            self.send(message, exported, named)
            return len(jsontext.encode(message))
        frame = self._encode(message)
        self.unsent += len(frame)
        self.send(frame, exported, named)
        return len(frame)

    def _notify(self) -> None:
        if not self.is_scheduled and self.wake is not None:
            self.wake()


def _bad_message() -> ProtocolError:
    return ProtocolError("bad RPC message: malformed, or of an unknown kind")


def _entry_id(message: list[object]) -> int:
    if type(message[1]) is not int:
        raise ProtocolError("malformed message: the number of a table entry is an integer")
    return message[1]
