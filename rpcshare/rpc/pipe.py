"""Chunks on their way from a peer that writes a stream to whoever reads it here."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable

from rpcshare.rpc.errors import RpcError, as_error
from rpcshare.rpc.local_references import ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.promises import BrokenReference, PendingReference
from rpcshare.rpc.reference import Budget, Instructions, Observer, Owner, Path, Reference
from rpcshare.rpc.trampoline import in_turn
from rpcshare.rpc.values import UNDEFINED

__all__ = ["Chunk", "Pipe", "PipeReference"]


class Chunk:
    """One value of a stream, from when it arrived until it has been dealt with."""

    __slots__ = ("_answered", "_result", "payload", "ready")

    def __init__(self, payload: Payload, result: PendingReference) -> None:
        # The arguments of the write: a list of one value.
        self.payload = payload
        # Whether the promises in it have settled.
        self.ready = False
        self._result = result
        self._answered = False

    def take(self) -> object:
        """Return the value, which is the reader's from here on, with the stubs in it."""
        values: list[object] = self.payload.hand_over()  # type: ignore[assignment]  # checked on arrival
        return values[0]

    def acknowledge(self) -> None:
        """Tell the writer that the reader has dealt with the chunk, and may be sent another."""
        if not self._answered:
            self._answered = True
            self._result.settle(_undefined(self._result.owner))

    def refuse(self, error: Exception) -> None:
        """Tell the writer that the chunk will not be read, or was of no use."""
        self.payload.dispose()
        if not self._answered:
            self._answered = True
            self._result.settle(BrokenReference(self._result.owner, error))

    @property
    def is_answered(self) -> bool:
        """Whether the writer has been told what became of the chunk."""
        return self._answered


class Pipe:
    """The chunks of one stream, in order, and how it ends: without input, output or waiting.

    A chunk that has not been acknowledged counts against the window of its writer, so what waits here is
    bounded by that window (see :mod:`~rpcshare.rpc.flow`), and by the session's limit on exports for a
    writer that keeps to none.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        # Why the stream broke off; None while it has not.
        self.error: Exception | None = None
        self._chunks: deque[Chunk] = deque()
        # Those that the reader has taken and not acknowledged yet, and maybe some that it has.
        self._taken: deque[Chunk] = deque()
        # The writer's call of close(), which returns when all has been read.
        self._closing: PendingReference | None = None
        self._ended = False
        self._changed: list[Callable[[], None]] = []

    # For the writer.

    def write(self, arguments: Payload) -> Reference:
        """Add the chunk that is the one argument; return what settles when it has been dealt with."""
        result = PendingReference(self.owner)
        if self._closing is not None or self.error is not None:
            arguments.dispose()
            result.settle(BrokenReference(self.owner, self.error or _closed()))
            return result
        arguments.own()
        chunk = Chunk(arguments, result)
        self._chunks.append(chunk)

        def delivered(error: Exception | None) -> None:
            if error is not None:
                self.fail(error)
                return
            chunk.ready = True
            self._notify()

        arguments.deliver(delivered)
        return result

    def close(self) -> Reference:
        """Let the stream end behind what has been written; return what settles when it has ended."""
        if self.error is not None:
            return BrokenReference(self.owner, self.error)
        if self._closing is not None:
            return BrokenReference(self.owner, _closed())
        self._closing = PendingReference(self.owner)
        self._notify()
        return self._closing

    def fail(self, error: Exception) -> None:
        """Break the stream off, from either side; what has not been read is dropped."""
        if self.error is not None or self._ended:
            return
        self.error = error
        chunks, self._chunks, self._taken = self._taken + self._chunks, deque(), deque()
        # A chunk may hold another pipe, or be waited for by the chunk of another, and so on.
        in_turn(functools.partial(self._tell_of_failure, chunks, error))

    def _tell_of_failure(self, chunks: deque[Chunk], error: Exception) -> None:
        for chunk in chunks:
            chunk.refuse(error)
        if self._closing is not None:
            self._closing.settle(BrokenReference(self.owner, error))
        self._notify()

    # For the reader.

    def next_chunk(self) -> Chunk | None:
        """Return the next chunk, to be acknowledged; None if none is there now."""
        if not self._chunks or not self._chunks[0].ready:
            return None
        while self._taken and self._taken[0].is_answered:
            self._taken.popleft()
        chunk = self._chunks.popleft()
        self._taken.append(chunk)
        return chunk

    @property
    def is_closing(self) -> bool:
        """Whether the writer has closed the stream."""
        return self._closing is not None

    @property
    def is_finished(self) -> bool:
        """Whether the writer has closed the stream and everything in it has been read."""
        return self._closing is not None and not self._chunks and self.error is None

    def end(self) -> None:
        """Tell the writer that its close() has taken effect."""
        if self._closing is not None and not self._ended:
            self._ended = True
            self._closing.settle(_undefined(self.owner))

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when there may be something new for the reader."""
        self._changed.append(callback)

    def _notify(self) -> None:
        changed, self._changed = self._changed, []
        for callback in changed:
            callback()


class PipeReference(Reference):
    """The writable end of a pipe, as the peer refers to it. Dropped before ``close``, it breaks the pipe."""

    __slots__ = ("pipe",)

    def __init__(self, owner: Owner, pipe: Pipe) -> None:
        super().__init__(owner)
        self.pipe = pipe

    def drop(self) -> None:
        if not self.pipe.is_closing:
            self.pipe.fail(RpcError("the stream was disposed without calling close"))

    def call(self, path: Path, arguments: Payload) -> Reference:
        values = arguments.value
        count = len(values) if isinstance(values, list | tuple) else 0
        if path == ("write",) and count == 1:
            return self.pipe.write(arguments)
        if path == ("close",):
            arguments.dispose()
            return self.pipe.close()
        if path == ("abort",):
            return self._abort(arguments)
        arguments.dispose()
        return BrokenReference(self.owner, RpcError("a stream takes write(chunk), close() and abort(reason)"))

    def _abort(self, arguments: Payload) -> Reference:
        arguments.dispose()
        reasons: list[object] = arguments.value  # type: ignore[assignment]  # always a list
        self.pipe.fail(as_error(reasons[0]) if reasons else RpcError("the stream was aborted"))
        return _undefined(self.owner)

    def get(self, path: Path) -> Reference:
        if path:
            return BrokenReference(self.owner, RpcError("a stream has no properties"))
        return self.retain()

    def map(
        self,
        path: Path,  # noqa: ARG002 -- there is nothing to map, whatever it is
        captures: list[Reference],
        instructions: Instructions,  # noqa: ARG002
        budget: Budget,  # noqa: ARG002
    ) -> Reference:
        for capture in captures:
            capture.release()
        return BrokenReference(self.owner, RpcError("a stream cannot be mapped"))

    def when_settled(self, observer: Observer) -> None:
        observer(RpcError("a stream is no promise"))

    def on_broken(self, callback: Callable[[Exception], None]) -> None:
        if self.pipe.error is not None:
            callback(self.pipe.error)


def _undefined(owner: Owner) -> Reference:
    return ValueReference(owner, Payload(owner, UNDEFINED, stubs=[]))


def _closed() -> RpcError:
    return RpcError("the stream is closed", name="TypeError")
