"""Drives a session straight from the callbacks of a network protocol, without a task or a queue per frame."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from time import perf_counter
from typing import Final

from rpcshare.rpc.codec import JSON, Codec
from rpcshare.rpc.driver import HIGH_WATER, TIME_SLICE, Driver, lost
from rpcshare.rpc.errors import LimitExceededError, RpcError
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.memory_budget import Pool
from rpcshare.rpc.read_coalescing import ReadCoalescing
from rpcshare.rpc.session import DEFAULT_LIMITS, OnSendError, redact_error
from rpcshare.rpc.trampoline import take_turn
from rpcshare.rpc.transport import DirectTransport, TransportClosedError
from rpcshare.rpc.waiting import Signal

__all__ = ["CallbackConnection"]

_clock: Final[Callable[[], float]] = perf_counter


class CallbackConnection(Driver):
    """One session over one transport, which calls it.

    Frames that arrived together are processed in the callback that brought them, and what they produced
    is written before it returns. Arguments are those of :class:`~rpcshare.rpc.driver.Driver`.

    Args:
        coalescing: lets more arrive at a time while the peer has many calls under way.
    """

    def __init__(
        self,
        transport: DirectTransport,
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
        coalescing: ReadCoalescing | None = None,
    ) -> None:
        super().__init__(
            transport,
            main,
            codec=codec,
            limits=limits,
            describe_error=describe_error,
            on_send_error=on_send_error,
            throttle=throttle,
            call_grace=call_grace,
            pool=pool,
            pool_owner=pool_owner,
        )
        self._direct = transport
        self._coalescing = coalescing
        self._is_attached = False
        # Whether something has been written since frames arrived last.
        self._has_written = False
        # Frames that arrived while the connection took none, and whether the transport is paused for that.
        self._inbox: list[bytes | str] = []
        self._is_paused = False
        # Bytes that have arrived of a message that is not whole.
        self._begun = 0
        # Set when no more frames are taken; and the same for what asks with each frame.
        self._is_over = Signal()
        self._takes_no_more = False

    def attach(self) -> None:
        """Take frames from the transport from now on; :meth:`run` does, unless that has been done."""
        if not self._is_attached:
            self._is_attached = True
            self._direct.attach(self, text=self._codec.text)

    async def run(self) -> None:
        """Run the session until it ends; the reason is then ``session.closed``."""
        self.attach()
        try:
            await self._is_over.wait()
            if self._draining:
                await self._let_calls_finish()
        finally:
            self._stop_reading()
            self.session.close(self._last_word)
            await self._finish(self._loop.create_task(self._until_written()))

    def _stop_reading(self) -> bool:
        self._takes_no_more = True
        self._is_over.set()
        return True

    # What the transport tells (rpcshare.rpc.transport.Receiver).

    def frames_received(self, frames: Sequence[bytes | str]) -> None:
        """Process frames that arrived together, and write what they produced together."""
        self._has_written = False
        if len(frames) == 1 and not self._inbox and not self._takes_no_more and not self._is_blocked():
            # As nearly always while this side waits for its peer: each message comes alone.
            self.session.is_scheduled = True
            self._receive(frames[0])
            self._flush()
        else:
            self._inbox.extend(frames)
            self._process()
        if self._coalescing is not None:
            self._coalescing.arrived(
                self, len(frames), self.session.exports.calls, is_answered=self._has_written
            )

    def writable(self) -> None:
        """Write more of what waits."""
        self._pending = 0
        self._flush()

    def holding(self, size: int) -> None:
        """Count what has arrived of a message."""
        account = self.session.account
        begun, self._begun = self._begun, 0
        account.subtract(begun)
        if self.session.closed is not None:
            return
        try:
            account.add(size)
        except LimitExceededError as exc:
            self.session.abort(exc)
        else:
            self._begun = size

    def transport_lost(self, error: TransportClosedError) -> None:
        """End the session."""
        self.session.close(lost(error))
        self.holding(0)
        self._flush()
        self._messages.clear()
        self._drained.set()

    def _process(self) -> None:
        self.session.is_scheduled = True  # what is produced is written below
        taken = 0
        # Of one frame alone, as nearly always, nobody asks how long it took.
        began = _clock() if len(self._inbox) > 1 else 0.0
        try:
            for frame in self._inbox:
                if self._takes_no_more or self._is_blocked():
                    break
                taken += 1
                self._receive(frame)
                if taken < len(self._inbox) and _clock() - began > TIME_SLICE:
                    break  # others have something to do as well
        finally:
            del self._inbox[:taken]  # no frame is processed twice, whatever it brought about
        self._flush()
        must_wait = bool(self._inbox)
        if must_wait != self._is_paused:
            self._is_paused = must_wait
            (self._direct.pause if must_wait else self._direct.resume)()

    def _flush(self) -> None:
        super()._flush()
        if (
            self._inbox
            and not self._is_blocked()
            and not self.session.is_scheduled
            and not self._takes_no_more
        ):
            self.session.is_scheduled = True
            take_turn(self._loop, self._process)

    def _encode(self) -> None:
        super()._encode()
        while self._messages and self._pending <= HIGH_WATER:
            super()._encode()

    def _pass_on(self) -> None:
        self._has_written = True
        frames, self._frames = self._frames, []
        self._pending = self._direct.write(frames, text=self._codec.text)

    async def _until_written(self) -> None:
        while self._messages:
            self._drained.clear()
            await self._drained.wait()
