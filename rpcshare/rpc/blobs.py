"""Blobs on their way in: a blob's bytes come as a stream, and are put together before it is delivered."""

from __future__ import annotations

from collections.abc import Callable

from rpcshare.rpc.errors import RpcError
from rpcshare.rpc.fetch import Blob
from rpcshare.rpc.local_references import ValueReference
from rpcshare.rpc.payload import Payload
from rpcshare.rpc.pipe import Pipe
from rpcshare.rpc.promises import BrokenReference, PendingReference

__all__ = ["ArrivingBlob"]


class ArrivingBlob(PendingReference):
    """What will be a :class:`Blob` when all of it has arrived; until then it is treated as a promise is.

    Args:
        pipe: brings the bytes.
        content_type: of the blob.
        count: is told how many bytes more wait here, or fewer.
    """

    __slots__ = ("_chunks", "_count", "_pipe", "_size", "_type")

    def __init__(self, pipe: Pipe, content_type: str, count: Callable[[int], None]) -> None:
        super().__init__(pipe.owner)
        self._pipe = pipe
        self._type = content_type
        self._count = count
        self._chunks: list[bytes] = []
        self._size = 0
        self._advance()

    def _advance(self) -> None:
        """Take what has arrived."""
        while (chunk := self._pipe.next_chunk()) is not None:
            data = chunk.take()
            if not isinstance(data, bytes):
                error = RpcError("a blob is a stream of bytes", name="TypeError")
                chunk.refuse(error)
                self._pipe.fail(error)
                break
            if data:
                self._chunks.append(data)
                self._size += len(data)
                self._count(len(data))
            chunk.acknowledge()
        if self._pipe.error is not None:
            self._end()
            self.settle(BrokenReference(self.owner, self._pipe.error))
        elif self._pipe.is_finished:
            blob = Blob(b"".join(self._chunks), self._type)
            self._end()
            self._pipe.end()
            self.settle(ValueReference(self.owner, Payload.given(self.owner, blob)))
        else:
            self._pipe.on_change(self._advance)

    def _end(self) -> None:
        self._chunks.clear()
        self._count(-self._size)

    def drop(self) -> None:
        """Let go of it, and of the bytes that are still to come unless somebody waits for them."""
        super().drop()
        if not self._waiting:
            self._pipe.fail(RpcError("the reader has gone"))
