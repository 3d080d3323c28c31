"""The newest events of agents that somebody watches on this node: read once, however many watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpcshare.agents.agent import Agent, AgentEvent
from rpcshare.agents.watched_events import OwnEvent
from rpcshare.database import DatabaseError

if TYPE_CHECKING:
    from rpcshare.agents.agents import Agents

__all__ = ["AgentFeed", "AgentFeeds"]

logger = logging.getLogger("rpcshare.agents")

POLL_SECONDS = 0.5
"""How often a node looks whether other ones have changed the agents that are watched here."""
_RETRY_SECONDS = 1.0

_REMEMBERED = 256
"""Events of one agent. Who is further behind reads them from the database, a page at a time."""


class AgentFeed:
    """The newest events of one agent, for as long as somebody watches."""

    def __init__(self, agents: Agents, agent_id: str) -> None:
        """Made by :meth:`AgentFeeds.open`."""
        self.agent_id = agent_id
        self.last = -1
        """The number of the newest event that is known; -1: of none yet."""
        self._agents = agents
        self._announced = -1  # the newest that there is
        self._events: list[AgentEvent] = []  # without a gap up to `last`
        self._made: dict[str, OwnEvent] = {}  # by cursor
        self._watchers: dict[object, Callable[[], None]] = {}
        self._reading: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many watch."""
        return len(self._watchers)

    def add(self, watcher: object, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever there are further events."""
        self._watchers[watcher] = ready

    def remove(self, watcher: object) -> None:
        """Call it no longer."""
        self._watchers.pop(watcher, None)
        if not self._watchers and self._reading is not None:
            self._reading.cancel()

    def begin(self, number: int) -> None:
        """Take note of the newest event that a watcher begins behind; what is older it reads itself."""
        if self.last < 0:
            self.last = number
        self.learn(number)

    def learn(self, number: int) -> None:
        """Take note that there is an event of this number, and read what leads to it."""
        self._announced = max(self._announced, number)
        # Before a watcher knows where it begins, its read and this news may come in any order.
        if 0 <= self.last < self._announced and self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
            self._reading.add_done_callback(self._has_read)

    def event(self, number: int, cursor: str, share_id: str) -> OwnEvent | None:
        """Return an event as it is told with a cursor; None: it is not remembered."""
        if not self._events or not self._events[0].number <= number <= self.last:
            return None
        made = self._made.get(cursor)
        if made is None:
            if len(self._made) > _REMEMBERED:
                self._made.clear()
            event = self._events[number - self._events[0].number]
            made = self._made[cursor] = OwnEvent(share_id, cursor, event.described(cursor))
        return made

    def _has_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if task.cancelled():
            return
        if task.exception() is not None:
            logger.warning("the events of an agent cannot be read: %s", task.exception())
            if self._watchers:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self.learn, self._announced)
        elif self._watchers:
            self.learn(self._announced)

    async def _read(self) -> None:
        page = await self._agents.events(self.agent_id, self.last)
        if not page.events:
            self._announced = self.last
            return
        if page.is_gap:
            self._events = []
        self._events += page.events
        del self._events[:-_REMEMBERED]
        self.last = page.events[-1].number
        for ready in tuple(self._watchers.values()):
            ready()


class AgentFeeds:
    """The feeds of all agents that are watched on this node."""

    def __init__(self, agents: Agents) -> None:
        """Feed from the rows of ``agents``."""
        self._agents = agents
        self._feeds: dict[str, AgentFeed] = {}
        self._polling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many agents are watched."""
        return len(self._feeds)

    def open(self, agent_id: str, watcher: object, ready: Callable[[], None]) -> AgentFeed:
        """Return the feed of an agent, which calls ``ready`` until :meth:`close`."""
        feed = self._feeds.get(agent_id)
        if feed is None:
            feed = self._feeds[agent_id] = AgentFeed(self._agents, agent_id)
        feed.add(watcher, ready)
        if self._agents.is_shared and self._polling is None:
            self._polling = asyncio.get_running_loop().create_task(self._poll())
        return feed

    def close(self, feed: AgentFeed, watcher: object) -> None:
        """Let go of a feed; with the last watcher it ends."""
        feed.remove(watcher)
        if not len(feed) and self._feeds.get(feed.agent_id) is feed:
            del self._feeds[feed.agent_id]
        if not self._feeds and self._polling is not None:
            self._polling.cancel()
            self._polling = None

    def tell(self, agent: Agent) -> None:
        """Take note that an agent has changed."""
        feed = self._feeds.get(agent.id)
        if feed is not None:
            feed.learn(agent.events)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                numbers = await self._agents.newest_events(tuple(self._feeds))
            except DatabaseError as exc:
                logger.warning("the events of agents cannot be read: %s", exc)
                continue
            for agent_id, number in numbers.items():
                feed = self._feeds.get(agent_id)
                if feed is not None:
                    feed.learn(number)
