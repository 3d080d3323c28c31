"""What nodes that have a database each tell each other: that a share has changed, and is to be looked at."""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from rpcshare.broadcast import CATALOGUE, Broadcaster, LogAppended
from rpcshare.database import DatabaseError

if TYPE_CHECKING:
    from rpcshare.shares.projection import Projection

__all__ = ["CatalogueNews"]

_EVERY = 5.0  # seconds between two looks at a share that changes all the time
_KNOWN = 10_000  # shares of which it is known when they were told of


class CatalogueNews:
    """Tells other nodes what this one has written, and has looked at what they tell.

    A message is a hint: what is lost is found when the store is compared.
    """

    def __init__(self, broadcaster: Broadcaster, projection: "Projection") -> None:
        """Listen to ``broadcaster``."""
        self._broadcaster = broadcaster
        self._projection = projection
        self._name = ""  # of the database: what is told by who uses the same is known
        self._told_at: OrderedDict[str, float] = OrderedDict()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._unsubscribe = broadcaster.subscribe(CATALOGUE, self._hear)

    def tell(self, share_ids: list[str]) -> None:
        """Tell of shares: of the first change at once, and of those that follow it together."""
        now, loop = monotonic(), asyncio.get_running_loop()
        for share_id in share_ids:
            due = self._told_at.get(share_id, -_EVERY) + _EVERY
            if due <= now:
                self._send(share_id)
            elif share_id not in self._later:
                self._later[share_id] = loop.call_later(due - now, self._send, share_id)

    def close(self) -> None:
        """Listen no longer."""
        self._unsubscribe()
        for timer in self._later.values():
            timer.cancel()
        for task in self._sending:
            task.cancel()

    def _send(self, share_id: str) -> None:
        self._later.pop(share_id, None)
        self._told_at[share_id] = monotonic()
        self._told_at.move_to_end(share_id)
        if len(self._told_at) > _KNOWN:
            self._told_at.popitem(last=False)
        task = asyncio.get_running_loop().create_task(self._publish(share_id))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _publish(self, share_id: str) -> None:
        with suppress(DatabaseError):  # of which the projection tells; the share is found by a comparison
            self._name = self._name or await (await self._projection.index()).identity()
            message = LogAppended(share_id=CATALOGUE, generation=f"{self._name}/{share_id}", entry=0)
            await self._broadcaster.publish(message)

    def _hear(self, message: LogAppended) -> None:
        name, _, share_id = message.generation.partition("/")
        if not share_id:
            self._projection.compare_soon()
        elif name != self._name:
            self._projection.touch(share_id, by_others=True)
