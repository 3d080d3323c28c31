"""The transcript of one agent, on its way into its share.

What opencode tells is gathered for a moment, and of what changes several times the last is kept, as a
sharing opencode does
itself. Text that is being written comes in pieces, which are put together here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from rpcshare.agents.opencode.events import OpencodeEvent, SyncItem, sync_items
from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.service import ShareService

__all__ = ["AGENTS", "Transcript"]

JSONObject: TypeAlias = dict[str, Any]

logger = logging.getLogger("rpcshare.agents")

AGENTS = Caller(subject="agents", source="server", scopes=frozenset({Scope.ADMIN}))
"""Who writes transcripts: the server itself."""

_FIRST_WAIT = 0.005
_STEP = 0.02
_INTERVAL = 0.25
"""Seconds between two syncs while text is written."""
_SOON = 0.05
"""Seconds between two syncs where something else has changed."""
_LONGEST_RETRY = 10.0
_LARGEST_WAITING = 8 * 2**20
"""Bytes told and not yet written, beyond which nothing more is listened to."""
_LARGEST_WRITTEN = 2**20
"""Characters of a text that is being written, beyond which it is shown when it is complete."""
_MOST_WRITTEN = 1000
"""Texts that are being written, and tools that run, at once."""
_WRITING = frozenset({"text", "reasoning"})
"""Types of parts that are told of in pieces."""
_FOR_GOOD = frozenset(
    {
        ErrorCode.SHARE_NOT_FOUND,
        ErrorCode.SHARE_GONE,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.FORBIDDEN,
        ErrorCode.UNAUTHORIZED,
    }
)


class Transcript:
    """Takes events, and syncs them in the background."""

    def __init__(
        self,
        shares: ShareService,
        share_id: str,
        *,
        on_kept: Callable[[int], None],
        on_refused: Callable[[ShareError], None],
    ) -> None:
        """Write to a share.

        Args:
            shares: has it.
            share_id: which.
            on_kept: is told the number of the last sync event that is durable.
            on_refused: is told why the share takes no more.
        """
        self._shares = shares
        self._share_id = share_id
        self._on_kept = on_kept
        self._on_refused = on_refused
        self._waiting: dict[tuple[str, str], SyncItem] = {}
        self._written: dict[str, JSONObject] = {}  # parts whose text is being written
        self._tools: dict[str, JSONObject] = {}  # parts of tools that run
        self._waiting_size = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._seq = -1
        self._is_refused = False
        self._has_more = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._hurries = False
        self._only_writes = True  # of what waits, all is text that goes on
        self._task = asyncio.create_task(self._run())

    @property
    def seq(self) -> int:
        """The number of the last sync event that was taken."""
        return self._seq

    @property
    def running_tools(self) -> list[JSONObject]:
        """The parts of tools that run, as far as they were told."""
        return list(self._tools.values())

    def take(self, event: OpencodeEvent) -> None:
        """Take what an event says of the transcript."""
        if event.type == "message.part.delta":
            self._write_on(event.data)
            return
        if event.seq is not None:
            if event.seq <= self._seq:
                return  # of the history, and known
            self._seq = event.seq
        elif event.type != "session.diff":
            return  # the sync event says the same
        for item in sync_items(event):
            self.put(item)
            self._waiting_size += event.size
        if self._waiting_size > _LARGEST_WAITING:
            self._has_room.clear()

    async def room(self) -> None:
        """Return once what waits to be written is no more than it may be."""
        if not self._has_room.is_set():
            self._hurries = True
            await self._has_room.wait()

    def put(self, item: SyncItem) -> None:
        """Take an item."""
        if item.kind == "part" and isinstance(item.data, dict):
            self._note_part(item.key, item.data)
        self._only_writes = False
        self._waiting.pop((item.kind, item.key), None)
        self._waiting[item.kind, item.key] = item
        self._is_idle.clear()
        self._has_more.set()

    async def flush(self) -> None:
        """Return once all that was taken is durable, or is refused for good."""
        self._hurries = True
        self._has_more.set()
        await self._is_idle.wait()

    async def close(self) -> None:
        """Write what waits, as far as the store takes it within a few seconds."""
        try:
            await asyncio.wait_for(self.flush(), 5)
        except TimeoutError:
            logger.warning("the end of a transcript could not be kept", extra={"share": self._share_id})
        self._task.cancel()
        self._has_room.set()
        await asyncio.gather(self._task, return_exceptions=True)

    def _note_part(self, key: str, part: JSONObject) -> None:
        if part.get("type") in _WRITING:
            time = part.get("time")
            if isinstance(time, dict) and "end" in time:
                self._written.pop(key, None)
            elif key in self._written or len(self._written) < _MOST_WRITTEN:
                self._written[key] = dict(part)
        elif part.get("type") == "tool":
            state = part.get("state")
            if isinstance(state, dict) and state.get("status") in ("pending", "running"):
                if key in self._tools or len(self._tools) < _MOST_WRITTEN:
                    self._tools[key] = part
            else:
                self._tools.pop(key, None)

    def _write_on(self, data: JSONObject) -> None:
        key, field, delta = data.get("partID"), data.get("field"), data.get("delta")
        part = self._written.get(key) if isinstance(key, str) else None
        if part is None or not isinstance(key, str) or field != "text" or not isinstance(delta, str):
            return
        before = part.get("text", "")
        text = (before if isinstance(before, str) else "") + delta
        if len(text) > _LARGEST_WRITTEN:
            return
        part["text"] = text
        self._waiting[("part", key)] = SyncItem("part", key, part)
        self._is_idle.clear()
        self._has_more.set()

    async def _run(self) -> None:
        last = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await self._has_more.wait()
            await asyncio.sleep(_FIRST_WAIT)  # in which what comes at once is gathered
            while not self._hurries:
                wait = last + (_INTERVAL if self._only_writes else _SOON) - loop.time()
                if wait <= 0:
                    break
                await asyncio.sleep(min(wait, _STEP))
            self._has_more.clear()
            self._only_writes = True
            await self._sync()
            last = loop.time()
            if not self._waiting:
                self._hurries = False
                self._is_idle.set()

    async def _sync(self) -> None:
        """Have all that waits kept, however long that takes."""
        delay = 0.2
        while self._waiting:
            taken, size, seq = self._waiting, self._waiting_size, self._seq
            self._waiting, self._waiting_size = {}, 0
            if self._is_refused:
                self._has_room.set()
                return
            data = [{"type": each.kind, "data": each.data} for each in taken.values()]
            try:
                await self._shares.sync(AGENTS, self._share_id, None, data)
            except ShareError as exc:
                if exc.code in _FOR_GOOD:
                    self._is_refused = True
                    self._has_room.set()
                    self._on_refused(exc)
                    return
                logger.warning("a transcript cannot be kept now: %s", exc.message)
                self._waiting = {**taken, **self._waiting}
                self._waiting_size += size
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_RETRY)
            else:
                self._on_kept(seq)
                if self._waiting_size <= _LARGEST_WAITING:
                    self._has_room.set()
