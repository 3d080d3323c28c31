"""What drives a session on an event loop: makes frames of messages, and carries out calls."""

from __future__ import annotations

import logging
import re
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

import anyio
from anyio.lowlevel import checkpoint

from rpcshare.jsontext import JSONText
from rpcshare.rpc import argument_text, short_messages
from rpcshare.rpc.codec import JSON, Codec, JSONCodec
from rpcshare.rpc.counted_calls import PLAIN
from rpcshare.rpc.errors import (
    INTERNAL_CODE,
    ConnectionLostError,
    LimitExceededError,
    ProtocolError,
    RpcError,
    SessionClosedError,
)
from rpcshare.rpc.event_loop import Task, current_task, running_loop
from rpcshare.rpc.memory_budget import VALUE_BYTES, Pool, count_values, too_much
from rpcshare.rpc.mypyc_compat import mypyc_attr
from rpcshare.rpc.preencoded import Preencoded
from rpcshare.rpc.session import DEFAULT_LIMITS, MAX_UNSENT, OnSendError, Session, redact_error
from rpcshare.rpc.stub import Stub
from rpcshare.rpc.transport import Closable, TransportClosedError
from rpcshare.rpc.waiting import Signal, finished

if TYPE_CHECKING:
    from rpcshare.rpc.limits import Limits
    from rpcshare.rpc.local_references import Call

__all__ = ["HIGH_WATER", "Driver", "lost"]

logger = logging.getLogger("rpcshare.rpc")

# Frames encoded and not yet taken by the transport: above this, a connection that throttles its peer reads no
# more. A few large results may wait; a peer that asks without ever reading what it gets may not.
HIGH_WATER: Final = 4 * 1024 * 1024

# For how many seconds what has arrived is processed at a time, before others get their turn.
TIME_SLICE: Final = 0.02

# From so many bytes on, the values of a frame are counted before they are made.
LONG_FRAME: Final = 64 * 1024

# Up to so many bytes a frame is tried to be read without the objects in between (short_messages.py).
SHORT_FRAME: Final = 16 * 1024

_read: Final = short_messages.read
_find: Final = argument_text.find

# What a call of a method of an export begins with, up to the first argument.
_CALL_HEAD: Final = re.compile(rb'\["push",\["pipeline",(0|-?[1-9]\d{0,9}),\["([A-Za-z]\w{0,63})"\],\[')

# For how long a last frame (an abort, mostly) may take before the connection is cut.
CLOSE_TIMEOUT = 5.0


@mypyc_attr(allow_interpreted_subclasses=True)
class Driver:
    """What drives one session over one transport, whichever way round the two call each other.

    Enter it to run it, or await :meth:`run`. Everything that arrived together is processed before anything is
    sent, and what that produced is sent together.

    Args:
        transport: connected already.
        main: what the peer finds as its remote main; None to offer nothing.
        codec: the encoding of messages.
        limits: how much the peer may ask.
        describe_error: what to tell the peer of an exception that is not an RpcError.
        on_send_error: called with each error that is sent; what it returns, if anything, is sent in its
            place, with its ``stack``.
        throttle: stop reading while much waits to be sent. Of two peers at most one may do so, or each could
            wait for the other; it is the server's.
        call_grace: for how many seconds after the connection, or the peer's batch, has ended the calls of the
            peer may go on.
        pool: counts what all sessions of the process hold together.
        pool_owner: whose session it is, there.

    Attributes:
        around_call: given the function that a call of the peer is about to run, returns the one to be run.
    """

    around_call: Callable[[Callable[..., object]], Callable[..., object]] | None = None

    def __init__(
        self,
        transport: Closable,
        main: object = None,
        *,
        codec: Codec = JSON,
        limits: Limits = DEFAULT_LIMITS,
        describe_error: Callable[[BaseException], RpcError] = redact_error,
        on_send_error: OnSendError | None = None,
        throttle: bool = False,
        call_grace: float = 10.0,
        pool: Pool | None = None,
        pool_owner: Hashable = None,
    ) -> None:
        self._transport = transport
        self.session = Session(
            main,
            limits=limits,
            raw_bytes=codec.raw_bytes,
            describe_error=describe_error,
            on_send_error=on_send_error,
            wake=self._wake,
            encode=codec.encode,
            is_json=type(codec) is JSONCodec,
            pool=pool,
            pool_owner=pool_owner,
        )
        self._codec = codec
        # The same, if it is the usual one: compiled code calls what it knows without Python's calls.
        self._json = codec if type(codec) is JSONCodec else None
        self._limits = limits
        self._max_size = limits.message_bytes
        self._throttle = throttle
        self._call_grace = call_grace

        self._loop = running_loop()
        self._thread_id = threading.get_ident()
        # A call that has returned and the peer does not know of yet, and what it returned.
        self._returned: Call | None = None
        self._result: object = None

        # Messages to be encoded when there is room, frames for the writer, and how many bytes of these.
        self._messages: list[object] = []
        self._frames: list[bytes] = []
        self._pending = 0
        # Set while no message waits for room.
        self._drained = Signal(is_set=True)

        # Calls under way, and how many of their tasks have not begun.
        self._tasks: set[Task] = set()
        self._jobs: set[Task] = set()
        self._not_begun = 0
        # Calls that have ended, until what they sent has left: to let go of large arguments takes its time.
        self._finished: list[Call] = []

        # Results that wait for the peer to take what it has been sent, and what is set when it has.
        self._held_back: set[Call] = set()
        self._room = Signal(is_set=True)

        # Set when the session has ended, and what runs it if it was entered.
        self._ended = Signal()
        self._runner: Task | None = None
        self._close_code = 1000
        self._close_reason = ""
        # Whether calls under way may end before the session does, and how long for while it waits for them.
        self._draining = False
        # Whether what the session is there for is to answer what the peer has said, once.
        self._answers_batch = False
        self._finishing: anyio.CancelScope | None = None
        # What the session ends with when nothing else has ended it.
        self._last_word = SessionClosedError("the session was closed by this side")
        # For how long the last frames may take to leave.
        self._close_timeout: float | None = CLOSE_TIMEOUT

    @property
    def remote_main(self) -> Stub:
        """The stub for the peer's main target."""
        return self.session.remote_main

    async def __aenter__(self) -> Self:
        self._runner = self._loop.create_task(self.run())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Who is cancelled has an end of its own to see to, which is short.
        with anyio.CancelScope(shield=True):
            await self.close()
            if self._runner is not None:
                await finished(self._runner)
                self._runner.result()

    @abstractmethod
    async def run(self) -> None:
        """Run the session until it ends; the reason is then ``session.closed``."""

    async def close(self, code: int = 1000) -> None:
        """End the session at once and close the transport. What has been sent before leaves first."""
        self._close_code = code
        self.session.close(SessionClosedError("the session was closed by this side"))
        await self._stop()

    async def drain(self, code: int = 1001, reason: str = "") -> None:
        """Take no more messages, let the calls under way return and their results leave, then close.

        The transport closes with ``code`` and ``reason``.

        Calls that wait for the peer cannot return any longer, so none gets more time than ``call_grace``.
        """
        self._close_code = code
        self._close_reason = reason
        self._draining = True
        await self._stop()

    async def finish(self, grace: float) -> None:
        """Wait until a batch has been answered; its calls get no more than ``grace`` seconds from now."""
        self._call_grace = min(self._call_grace, grace)
        if self._finishing is not None:
            self._finishing.deadline = min(self._finishing.deadline, anyio.current_time() + grace)
        await self._ended.wait()

    async def _stop(self) -> None:
        # The end waits for the calls under way, so none of them may wait for the end.
        if self._stop_reading() and current_task() not in self._tasks:
            await self._ended.wait()

    @abstractmethod
    def _stop_reading(self) -> bool:
        """Take no more frames, so that :meth:`run` comes to its end; return whether it has begun."""

    async def _let_calls_finish(self) -> None:
        with anyio.move_on_after(self._call_grace) as self._finishing:
            # A stream has no end that a stop could wait for; that of a batch is part of its answer.
            while awaited := self._tasks | self._jobs if self._answers_batch else self._tasks:
                await finished(*awaited)
        self._finishing = None
        while self._held_back and self._close_timeout is None and self.session.closed is None:
            # They have returned, and it is their reader who takes its time.
            self._room.clear()
            await self._room.wait()
            await checkpoint()

    # Reading.

    def _receive(self, frame: bytes | str) -> None:
        """Process one frame, and start the calls in it."""
        size = _size(frame)
        bound = self._max_size
        if bound and size > bound:
            self.session.abort(LimitExceededError("message bytes", bound))
            return
        try:
            message = self._decode(frame, size) if size <= LONG_FRAME else self._decode_long(frame, size)
        except ProtocolError as exc:
            self.session.abort(exc)
            return
        except MemoryError:
            # The traceback would hold on to what there is.
            error = SessionClosedError("there is no memory left for this session", code=INTERNAL_CODE)
            self.session.abort(error)
            return
        except Exception:
            logger.exception("a frame made its codec fail")
            self.session.abort(SessionClosedError("Internal server error", code=INTERNAL_CODE))
            return
        if self._returned is not None and not _asks_for_value(message):
            self._report()
        self.session.receive(message, size)
        self._carry_out()

    def _decode(self, frame: bytes | str, size: int) -> object:
        """Return the message in a frame; a call of the usual form as what it asks for.

        Raises:
            ProtocolError: as :meth:`Codec.decode`.
        """
        if self._json is None:
            return self._codec.decode(frame)
        if size <= SHORT_FRAME:
            message = _read(frame, self.session.max_depth)
            if message is not None:
                return message
        return self._json.decode(frame)

    def _decode_long(self, frame: bytes | str, size: int) -> object:
        """Do what :meth:`_decode` does, if there is room for what is in the frame.

        Raises:
            ProtocolError: as :meth:`Codec.decode`.
            LimitExceededError: there is no room.
        """
        if isinstance(frame, bytes):
            message = self._decode_around_text(frame)
            if message is not None:
                return message
        if self._limits.values:
            self._require_room(frame, size)
        return self._decode(frame, size)

    def _decode_around_text(self, frame: bytes) -> object:
        """Return the message of a call one of whose arguments stays text; None: it is not known to be one.

        The rest is decoded, with null in the place of the argument: all that may be wrong with it is found.

        Raises:
            LimitExceededError: there is no room.
        """
        head, json = _CALL_HEAD.match(frame), self._json
        if head is None or json is None:
            return None
        index = self.session.text_index(int(head[1]), head[2].decode())
        found = _find(frame, head.end(), index, self.session.max_depth) if index >= 0 else None
        if found is None:
            return None
        start, stop, text, values = found
        rest = frame[:start] + b"null" + frame[stop:]
        if self._limits.values:
            self._require_room(rest, len(frame), values)
        try:
            message = cast("list[list[list[object]]]", json.decode(rest))
        except ProtocolError:
            return None
        message[1][3][index] = JSONText(text, is_counted=True)
        return message

    def _require_room(self, frame: bytes | str, size: int, more: int = 0) -> None:
        """Refuse a frame for whose values there is no room, before they are made.

        Args:
            frame: the frame.
            size: of it.
            more: how many values of the message are not in it, and are not made.

        Raises:
            LimitExceededError: there is none.
        """
        most = self._limits.values
        count = self._codec.count(frame, most)
        if count + more > most:
            raise LimitExceededError("values of a message", most)
        self.session.account.require_room(count * VALUE_BYTES + size)

    # Calls.

    def _carry_out(self) -> None:
        """Start the calls that the session asks for, in order.

        A peer that does not read what it gets is given no more: its calls wait, each with no result yet.
        """
        self._report()
        while not self._is_blocked():
            call = self.session.next_call()
            if call is None:
                return
            self._report()
            if self.around_call is not None:
                call.function = self.around_call(call.function)
            if self._not_begun:
                # A call that arrived earlier has yet to begin, so this one waits for its turn as well.
                self._spawn(call, None)
                continue
            try:
                result = call.start()
            except Exception as exc:  # noqa: BLE001 -- it is the caller's
                call.reject(exc)
                continue
            if type(result) in PLAIN or not isinstance(result, Awaitable) or isinstance(result, Stub):
                # What comes with the call, as a rule, asks for its result. What has been asked for is sent at
                # once, and counted by the way; else it is counted first, which takes as long.
                self._returned, self._result = call, result
                if not self.session.is_scheduled:
                    self._report()
            else:
                self._spawn(call, result)

    def _report(self) -> None:
        """Report what the last call returned, unless that has been done."""
        call, result = self._returned, self._result
        if call is not None:
            self._returned = self._result = None
            call.resolve(result)

    def _is_blocked(self) -> bool:
        """Whether results have to wait because the peer does not take those that there are."""
        return self._throttle and (len(self._messages) > 0 or self.session.unsent > MAX_UNSENT)

    async def _until_room(self, call: Call, value: object) -> None:
        """Wait until the peer has taken most of what it has been sent.

        Raises:
            LimitExceededError: the result that waits is too large for that.
        """
        account = self.session.account
        account.copied = 0
        size = 0 if isinstance(value, Preencoded) else count_values(value, account)[0] * VALUE_BYTES
        waiting = account.charge(size)
        self._held_back.add(call)
        try:
            while self._is_blocked() and self.session.closed is None:
                self._room.clear()
                await self._room.wait()
        finally:
            self._held_back.discard(call)
            del waiting

    def _spawn(self, call: Call, result: Awaitable[object] | None) -> None:
        self._not_begun += 1
        task = self._loop.create_task(self._finish_call(call, result))
        # What nobody is told the end of is a job of the session's own: a stream that is kept going.
        tasks = self._jobs if call.session is None else self._tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _finish_call(self, call: Call, result: Awaitable[object] | None) -> None:
        """Wait for what a call returned, having made it if it has returned nothing yet."""
        self._not_begun -= 1
        try:
            value = call.start() if result is None else result
            if isinstance(value, Awaitable) and not isinstance(value, Stub):
                value = await value
            if self._is_blocked():
                await self._until_room(call, value)
        except LimitExceededError as exc:
            call.reject(too_much(exc))
        except Exception as exc:  # noqa: BLE001 -- it is the caller's
            call.reject(exc)
        except BaseException:
            call.reject(RpcError("the call was cancelled"))
            raise
        else:
            call.resolve(value)
            self._finished.append(call)
            self._wake()

    # Writing.

    def _wake(self) -> None:
        if self.session.is_scheduled or self._loop.is_closed():
            return
        self.session.is_scheduled = True
        if threading.get_ident() == self._thread_id:
            self._loop.call_soon(self._flush)
        else:
            self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        """Encode what the session has to say and pass it to the writer."""
        self.session.is_scheduled = False
        try:
            self._carry_out()
            if self.session.has_output():
                self._messages.extend(self.session.take_output())
            if self._messages or not self._drained.is_set:
                self._encode()
        except MemoryError:
            self._messages.clear()
            self._frames.clear()
            self.session.close(SessionClosedError("there is no memory left for this session"))
        self._finished.clear()
        if self.session.closed is not None:
            self._pass_on()
            self._stop_reading()
        self._tell_of_room()

    def _tell_of_room(self) -> None:
        session = self.session
        if self._messages and session.closed is None:
            session.is_congested = True
            return
        session.is_congested = False
        if session.waits_for_room or session.closed is not None or not self._room.is_set:
            session.tell_of_room()
            self._room.set()
        if session.has_calls() and session.closed is None:
            self._wake()

    def _encode(self) -> None:
        """Make frames of messages, as many as are worth keeping; the rest may share what they are made of."""
        messages, taken = self._messages, 0
        while taken < len(messages) and self._pending <= HIGH_WATER:
            message = messages[taken]
            taken += 1
            try:
                if isinstance(message, bytes):
                    frame = message
                else:
                    frame = self._codec.encode(message) if self._json is None else self._json.encode(message)
            except Exception:
                # The peer would wait for ever for a message that is left out.
                logger.exception("a message has no form in the encoding of its session")
                self.session.abort(SessionClosedError("Internal server error", code=INTERNAL_CODE))
                messages = self._messages = self.session.take_output()
                taken = 0
                continue
            self._frames.append(frame)
            self._pending += len(frame)
        del messages[:taken]
        if self._frames:
            self._pass_on()
        if self._messages:
            self._drained.clear()
        elif not self._drained.is_set:
            self._drained.set()
            self._wake()  # calls may have waited for this

    @abstractmethod
    def _pass_on(self) -> None:
        """Have the frames written that there are, in ``_frames``."""

    async def _finish(self, writer: Task) -> None:
        """Have an end: who is cancelled still has to see to it, and it takes no longer than its parts may."""
        try:
            with anyio.CancelScope(shield=True):
                await self._close_transport(writer)
                await self._end_calls()
        finally:
            self._ended.set()

    async def _close_transport(self, writer: Task) -> None:
        """Let the last frames leave, and close the transport."""
        self._flush()
        with anyio.move_on_after(self._close_timeout):
            await finished(writer)
        writer.cancel()
        closed = self.session.closed
        if isinstance(closed, ProtocolError):
            await self._transport.close(closed.close_code, closed.message)
        else:
            await self._transport.close(self._close_code, self._close_reason)

    async def _end_calls(self) -> None:
        """End the calls that are still under way."""
        if rest := self._tasks | self._jobs:
            # What waited for the peer has just failed, so that of a drained session little is left.
            grace = CLOSE_TIMEOUT / 10 if self._draining else self._call_grace
            with anyio.move_on_after(grace):
                await finished(*rest)
        for task in self._tasks | self._jobs:
            task.cancel()


def _asks_for_value(message: object) -> bool:
    return isinstance(message, list) and len(message) > 0 and message[0] == "pull"


def _size(frame: bytes | str) -> int:
    """Return how many bytes a frame has, or had before it was decoded."""
    if isinstance(frame, bytes) or frame.isascii():
        return len(frame)
    return len(frame.encode("utf-8", "surrogatepass"))


def lost(error: TransportClosedError) -> ConnectionLostError:
    """Return what a session ends with whose transport is gone."""
    return ConnectionLostError(
        f"the connection was lost: {error}", close_code=error.code, close_reason=error.reason
    )
