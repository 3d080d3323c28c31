"""Streams of values, as an application reads, writes and sends them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

import anyio

from rpcshare.rpc.errors import EncodeError, RpcError, as_error
from rpcshare.rpc.flow import FlowWindow, Sent
from rpcshare.rpc.pipe import Chunk, Pipe
from rpcshare.rpc.stub import Shared, Stub, reference_of
from rpcshare.rpc.waiting import Lock, Signal, until

__all__ = ["ReadableStream", "Sink", "WritableStream", "drain", "pump", "stream_from_pipe", "stream_to"]


class ReadableStream(Shared):
    """Values that come one after another: iterate over it with ``async for``, or send it to the peer.

    One that came from the peer is read at the pace of the iteration: the peer sends no more than a window
    ahead. It ends when the peer closes it, and raises what the peer aborted it with.

    Args:
        source: where the values come from: any iterable or asynchronous iterable.
    """

    def __init__(self, source: AsyncIterable[object] | Iterable[object]) -> None:
        super().__init__()
        self._source = source
        # Set when somebody begins to read, and when that is somebody who reads it to its end.
        self._values: AsyncIterator[object] | None = None
        self._locked = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        """Return the next value.

        Raises:
            StopAsyncIteration: there is none, now or later.
            Exception: what broke the stream off.
        """
        return await anext(self._begin())

    async def next_to_pass_on(self) -> tuple[object, Callable[[], None] | None] | None:
        """Return the next value, and what to call when its reader has it; None at the end.

        Raises:
            Exception: what broke the stream off.
        """
        values = self._begin()
        if isinstance(values, _PipeReader):
            return await values.next_to_pass_on()
        try:
            return await anext(values), None
        except StopAsyncIteration:
            return None

    async def cancel(self, reason: object = None) -> None:
        """Read no more of it; the writer is told so, and ``reason``. That may be any value."""
        values = self._begin()
        if isinstance(values, _PipeReader):
            values.cancel(reason)
        elif hasattr(values, "aclose"):
            await values.aclose()

    def let_go(self) -> None:
        """Cancel the stream, unless somebody has begun to read it."""
        if self._values is None and isinstance(self._source, _PipeReader):
            self._source.cancel(None)

    def lock(self) -> None:
        """Begin to read it to its end, so that nobody else disposes of it.

        Raises:
            EncodeError: somebody else does.
        """
        if self._locked:
            raise EncodeError("a stream can be sent once")
        self._locked = True
        self._begin()

    def _begin(self) -> AsyncIterator[object]:
        if self._values is None:
            source = self._source
            self._values = aiter(source) if isinstance(source, AsyncIterable) else _iterate(source)
        return self._values


async def _iterate(values: Iterable[object]) -> AsyncIterator[object]:
    for value in values:
        yield value


class _PipeReader(AsyncIterator[object]):
    """The readable end of a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        # What has been passed on last, and may not have arrived yet.
        self._last: Chunk | None = None

    async def __anext__(self) -> object:
        chunk = await next_chunk(self._pipe)
        if chunk is None:
            self._pipe.end()
            raise StopAsyncIteration
        value = chunk.take()
        chunk.acknowledge()
        return value

    async def next_to_pass_on(self) -> tuple[object, Callable[[], None]] | None:
        """Return the next value, and what acknowledges it; None at the end.

        The next call does so too, for whoever passes a stream on has a window of its own. The last one before
        the writer pauses remains: by its answer the writer hears that the reader has gone.
        """
        chunk = await next_chunk(self._pipe)
        if self._last is not None:
            self._last.acknowledge()
        self._last = chunk
        if chunk is None:
            self._pipe.end()
            return None
        value = chunk.take()
        if self._pipe.is_closing:
            chunk.acknowledge()  # the writer waits for another answer
        return value, chunk.acknowledge

    def cancel(self, reason: object) -> None:
        self._pipe.fail(_as_exception(reason, "the reader has gone"))

    def __del__(self) -> None:
        # Nobody can read it any longer; the collector may have come at any moment, so a little later.
        if self._pipe.error is None and not self._pipe.is_finished:
            self._pipe.owner.abandon(_Unread(self._pipe))


class _Unread:
    """Breaks a pipe off when the session gets round to it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def release(self) -> None:
        self._pipe.fail(RpcError("the reader has gone"))


class Sink(Protocol):
    """Takes what is written to a stream: one call at a time, in order."""

    async def write(self, value: object) -> None:
        """Take one value; the writer may go on when this returns."""
        ...

    async def close(self) -> None:
        """Take note that there will be no more; returns when all is done."""
        ...

    async def abort(self, reason: Exception) -> None:
        """Take note that there will be no more because something went wrong."""
        ...


class WritableStream(Shared):
    """Takes values one after another: write to it, or send it to the peer to have it write.

    As a context manager it is closed at the end of the block, or aborted with what the block raised.

    Args:
        sink: what takes the values. :meth:`calling` makes one of functions.
    """

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self._locked = False

    @classmethod
    def calling(
        cls,
        write: Callable[[object], Awaitable[None] | None],
        *,
        close: Callable[[], Awaitable[None] | None] | None = None,
        abort: Callable[[Exception], Awaitable[None] | None] | None = None,
    ) -> WritableStream:
        """Return a stream that calls these functions, which may be ``async``."""
        return cls(_Functions(write, close, abort))

    async def write(self, value: object) -> None:
        """Write a value; returns when another may follow, which may be before this one has arrived.

        Raises:
            Exception: what broke the stream off, with this value or an earlier one.
        """
        await self._sink.write(value)

    async def close(self) -> None:
        """Write no more; returns when everything that was written has been taken.

        Raises:
            Exception: what broke the stream off.
        """
        await self._sink.close()

    async def abort(self, reason: object = None) -> None:
        """Break the stream off; the other side learns ``reason``, which may be any value."""
        await self._sink.abort(_as_exception(reason, "the stream was aborted"))

    def lock(self) -> None:
        """Become one more owner of it, the one who has others write to it.

        Raises:
            EncodeError: somebody does so already.
        """
        if self._locked:
            raise EncodeError("a stream can be sent once")
        self._locked = True
        self.share()

    def let_go(self) -> None:
        """Let go of the stream; one that has not been closed breaks off."""
        if isinstance(self._sink, _RemoteSink):
            self._sink.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            await self.close()
        else:
            await self.abort(exc if isinstance(exc, Exception) else None)


class _Functions:
    """A sink made of functions."""

    def __init__(
        self,
        write: Callable[[object], Awaitable[None] | None],
        close: Callable[[], Awaitable[None] | None] | None,
        abort: Callable[[Exception], Awaitable[None] | None] | None,
    ) -> None:
        self._write = write
        self._close = close
        self._abort = abort

    async def write(self, value: object) -> None:
        await _finished(self._write(value))

    async def close(self) -> None:
        if self._close is not None:
            await _finished(self._close())

    async def abort(self, reason: Exception) -> None:
        if self._abort is not None:
            await _finished(self._abort(reason))


def _as_exception(reason: object, without: str) -> Exception:
    """Return what is raised to others for ``reason``; if there is none, an error that says ``without``."""
    if isinstance(reason, Exception):
        return reason
    return RpcError(without) if reason is None or isinstance(reason, BaseException) else as_error(reason)


async def _finished(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result


class _RemoteSink:
    """A stream of the peer's. Writes go ahead of their acknowledgements by a window."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._flow = FlowWindow()
        # Whose turn it is, of several that write at the same time.
        self._turn = Lock()
        # Why nothing can be written any longer: an error, or that the stream is closed.
        self._error: Exception | None = None
        self._changed: list[Callable[[], None]] = []
        # Called when something that was written has failed.
        self.on_failed: Callable[[], None] | None = None

    async def write(self, value: object) -> None:
        await self.pass_on(value, None)

    async def pass_on(self, value: object, acknowledge: Callable[[], None] | None) -> None:
        """Write ``value``, and call ``acknowledge`` when the reader has it."""
        async with self._turn:
            await self._call("write", (value,), waits=False, acknowledge=acknowledge)

    async def close(self) -> None:
        async with self._turn:
            try:
                await self._call("close", (), waits=True)
            finally:
                self._end()

    async def abort(self, reason: Exception) -> None:
        if self._error is None:
            try:
                await self._call("abort", (reason,), waits=True)
            finally:
                self._end()

    async def _call(
        self,
        method: str,
        arguments: tuple[object, ...],
        *,
        waits: bool,
        acknowledge: Callable[[], None] | None = None,
    ) -> None:
        """Call a method of the peer's end, and wait: for the answer, or only for room in the window."""
        self._raise_error()
        answered = False
        sent: Sent | None = None

        def settled(error: Exception | None) -> None:
            nonlocal answered
            answered = True
            if sent is not None:
                (self._flow.acknowledge if error is None else self._flow.fail)(sent)
            if error is None and acknowledge is not None:
                acknowledge()
            self._error = self._error or error
            changed, self._changed = self._changed, []
            for callback in changed:
                callback()
            if error is not None and self.on_failed is not None:
                self.on_failed()

        reference = reference_of(self._stub)
        size = reference.owner.stream(reference, (method,), arguments, settled, measure=True)
        if size is None:
            waits = True  # what stays on this side has no size and no round trip: one at a time will do
        elif not answered:
            sent = self._flow.send(size)
        while not answered and (waits or self._flow.is_full):
            self._raise_error()
            await until(self._changed.append)
        self._raise_error()

    @property
    def error(self) -> Exception | None:
        """Why nothing can be written any longer, if nothing can."""
        return self._error

    def _raise_error(self) -> None:
        if self._error is not None:
            # It is raised to each who writes, and must not gather the frames of all of them.
            raise self._error.with_traceback(None)

    def _end(self) -> None:
        self._error = self._error or RpcError("the stream is closed", name="TypeError")
        self._stub.dispose()

    def dispose(self) -> None:
        self._stub.dispose()


def stream_from_pipe(pipe: Pipe) -> ReadableStream:
    """Return the stream that a pipe of the peer's is read by."""
    return ReadableStream(_PipeReader(pipe))


def stream_to(stub: Stub) -> WritableStream:
    """Return the stream that writes to what ``stub`` stands for."""
    return WritableStream(_RemoteSink(stub))


async def next_chunk(pipe: Pipe) -> Chunk | None:
    """Wait for the next chunk of ``pipe``, and return it; None at the end of the stream.

    Raises:
        Exception: what broke the stream off.
    """
    while True:
        if pipe.error is not None:
            raise pipe.error.with_traceback(None)  # each who reads gets the same one
        chunk = pipe.next_chunk()
        if chunk is not None:
            return chunk
        if pipe.is_finished:
            return None
        await until(pipe.on_change)


async def pump(readable: ReadableStream, stub: Stub) -> None:
    """Write what ``readable`` yields to the pipe that ``stub`` stands for, to its end.

    A source that takes its time, or for ever, is cancelled as soon as it is known that nobody reads it.
    """
    sink = _RemoteSink(stub)
    scope = anyio.CancelScope()
    is_waiting = False

    def stop(_error: Exception | None = None) -> None:
        if is_waiting:
            scope.cancel()

    stub.on_broken(stop)
    sink.on_failed = stop
    try:
        with scope:
            while True:
                is_waiting = True
                await _until_room(stub)
                item = await readable.next_to_pass_on()
                is_waiting = False
                if item is None:
                    break
                await sink.pass_on(*item)
            await sink.close()
        if scope.cancelled_caught:
            await readable.cancel(sink.error)
    except Exception as exc:  # noqa: BLE001 -- it is for the reader, who may be the one that broke it off
        await readable.cancel(exc)
        await sink.abort(exc)
    except anyio.get_cancelled_exc_class():
        await readable.cancel(sink.error)
        raise
    finally:
        is_waiting = False
        sink.dispose()


async def _until_room(stub: Stub) -> None:
    """Wait until the session of ``stub`` has sent most of what there is to be sent, of other streams too."""
    owner = reference_of(stub).owner
    room = Signal()
    while not owner.when_room(room.set):
        await room.wait()
        room.clear()


async def drain(pipe: Pipe, writable: WritableStream) -> None:
    """Write what arrives in ``pipe`` to a stream of this side, telling the peer how each write went."""
    try:
        while (chunk := await next_chunk(pipe)) is not None:
            try:
                await writable.write(chunk.take())
            except Exception as exc:  # noqa: BLE001 -- it is the writer's
                chunk.refuse(exc)
                pipe.fail(exc)
                return
            chunk.acknowledge()
        await writable.close()
    except Exception as exc:  # noqa: BLE001 -- it is the writer's, or came from there
        if pipe.error is None:
            pipe.fail(exc)
        else:
            await writable.abort(exc)
    else:
        pipe.end()
    finally:
        writable.dispose()
