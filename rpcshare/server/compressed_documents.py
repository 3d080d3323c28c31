"""Large documents in a content coding: each made once, for all who read it."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rpcshare.server.content_coding import compress_parts
from rpcshare.shares.document import Document, Form, Version
from rpcshare.structured_log import structlog

__all__ = ["Compressed", "CompressedDocuments"]

logger = structlog.get_logger("rpcshare.server")

MEMORY = 64 * 2**20
"""Bytes of compressed documents at a time, those included that slow clients are still reading."""

_KEPT_FOR = 10.0  # seconds after which nobody but a reader holds one
_MAX_WAITING = 8  # documents that are being compressed, or wait for that

_Key = tuple[Version, Form, str]


class Compressed:
    """A document in a coding. Its memory counts until nobody holds it."""

    def __init__(self, coding: str, parts: list[bytes], size: int) -> None:
        self.coding = coding
        self.size = size
        """Bytes."""
        self._parts = parts

    def parts(self) -> Iterator[bytes]:
        """Yield it in parts of some 10 KiB."""
        return iter(self._parts)


class CompressedDocuments:
    """Those that are in memory."""

    def __init__(self, memory: int = MEMORY) -> None:
        """Have at most ``memory`` bytes of them."""
        self._memory = memory
        self._used = 0  # of it
        self._thread: ThreadPoolExecutor | None = None  # one: the event loop keeps its core
        self._made: weakref.WeakValueDictionary[_Key, Compressed] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[_Key, Compressed] = OrderedDict()
        self._making: dict[_Key, asyncio.Task[Compressed | None]] = {}

    async def get(self, document: Document, coding: str, *, is_made: bool = True) -> Compressed | None:
        """Return ``document`` in ``coding``, made if need be; None where there is no memory or time for that.

        Args:
            document: which.
            coding: in which it is to be.
            is_made: whether it is made if it is not there.
        """
        key = (document.version, document.form, coding)
        if (made := self._made.get(key)) is not None:
            return made
        making = self._making.get(key)
        if making is None:
            if not is_made or len(self._making) >= _MAX_WAITING or self._used >= self._memory:
                return None
            making = self._making[key] = asyncio.create_task(self._make(key, document))
            making.add_done_callback(lambda _: self._making.pop(key, None))
        # The one that began it may be gone before the others have it.
        return await asyncio.shield(making)

    async def _make(self, key: _Key, document: Document) -> Compressed | None:
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "rpcshare-compression")
        room = self._memory - self._used
        parts = await loop.run_in_executor(self._thread, _compressed, document, key[2], room)
        if parts is None:
            logger.warning(
                "a document leaves uncompressed: clients that are slow hold too many", size=document.size
            )
            return None
        made = Compressed(key[2], parts, sum(map(len, parts)))
        self._used += made.size
        weakref.finalize(made, partial(self._count_out, made.size))
        self._made[key] = made
        self._kept[key] = made
        loop.call_later(_KEPT_FOR, self._kept.pop, key, None)
        return made

    def _count_out(self, size: int) -> None:
        self._used -= size


def _compressed(document: Document, coding: str, room: int) -> list[bytes] | None:
    """Return the parts of a document in a coding; None if they take more than ``room`` bytes."""
    parts = []
    for part in compress_parts(document.parts(), coding):
        room -= len(part)
        if room < 0:
            return None
        parts.append(part)
    return parts
