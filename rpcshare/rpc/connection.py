"""A session over a transport that is asked for frames, by two tasks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import perf_counter

from rpcshare.rpc.codec import JSON, Codec
from rpcshare.rpc.driver import TIME_SLICE, Driver, lost
from rpcshare.rpc.errors import RpcError, SessionClosedError
from rpcshare.rpc.event_loop import Task
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.memory_budget import Pool
from rpcshare.rpc.session import DEFAULT_LIMITS, OnSendError, redact_error
from rpcshare.rpc.transport import BatchOverError, Transport, TransportClosedError
from rpcshare.rpc.waiting import Signal, turn

__all__ = ["Connection"]


class Connection(Driver):
    """One session over one transport: a task reads frames from it, another writes them.

    Enter it to run it, or await :meth:`run`. Arguments are those of :class:`~rpcshare.rpc.driver.Driver`.
    """

    def __init__(
        self,
        transport: Transport,
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
        self.transport = transport
        self._reader: Task | None = None
        self._has_frames = Signal()

    async def run(self) -> None:
        """Run the session until it ends; the reason is then ``session.closed``."""
        writer = self._loop.create_task(self._write())
        reader = self._reader = self._loop.create_task(self._read())
        is_over = Signal()
        for task in (writer, reader):
            task.add_done_callback(lambda _task: is_over.set())
        try:
            await is_over.wait()
            if self._draining:
                await self._let_calls_finish()
            for task in (writer, reader):
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            reader.cancel()
            self.session.close(self._last_word)
            await self._finish(writer)

    def _stop_reading(self) -> bool:
        """Take no more frames, so that :meth:`run` comes to its end; return whether it has begun."""
        if self._reader is None:
            return False
        self._reader.cancel()
        return True

    # Reading.

    async def _read(self) -> None:
        began = perf_counter()
        while self.session.closed is None:
            try:
                frame = await self.transport.receive()
            except TransportClosedError as exc:
                self.session.close(lost(exc))
                return
            except BatchOverError as exc:
                self._peer_finished(exc.reason)
                return
            self._receive(frame)
            while (self._is_blocked() or self.session.has_calls()) and self.session.closed is None:
                self._room.clear()
                self._wake()
                await self._room.wait()
            # Who asked for a batch may leave as soon as it has a result, and what else came with it is there.
            if self._throttle and perf_counter() - began > TIME_SLICE:
                await turn()
                began = perf_counter()

    def _peer_finished(self, reason: Exception) -> None:
        """Go on until the peer has its answers, and all of them have left, however slowly it reads."""
        self.session.peer_finished(reason)
        self._draining = self._answers_batch = True
        self._last_word = SessionClosedError(str(reason))
        self._close_timeout = None

    # Writing.

    def _pass_on(self) -> None:
        """Have the frames written that there are."""
        self._has_frames.set()

    async def _write(self) -> None:
        text = self._codec.text
        while True:
            await self._has_frames.wait()
            self._has_frames.clear()
            frames, self._frames = self._frames, []
            for frame in frames:
                try:
                    await self.transport.send(frame, text=text)
                except TransportClosedError as exc:
                    self.session.close(lost(exc))
                    return
                self._pending -= len(frame)
                self._encode()
            if self.session.closed is not None:
                self._flush()  # the last word may have come while other frames were on their way
                if not self._frames and not self._messages:
                    return
