"""One who watches an agent: the events of its share and its own, from a cursor on, at the reader's pace.

What waits of the share is merged, as for all who read shares; what waits of the agent's own events is in the
database, and only a page of it in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Self

from rpcshare.agents.agent import Agent, AgentEvent, AgentRequest
from rpcshare.agents.agents import Agents
from rpcshare.agents.watched_events import AgentCursor, OwnEvent, with_cursor
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.events import Deleted, Event, Snapshot, Sync
from rpcshare.shares.subscriptions import Subscription
from rpcshare.workspaces.caller_rights import AGENTS, unreachable

__all__ = ["AgentSubscription", "watch_agent"]

_PATIENCE = 66
"""Events of a share that may wait for a reader before they are merged, and a snapshot before them: who has
taken so many has all that was there."""


async def watch_agent(
    agents: Agents,
    agent: Agent,
    cursor: AgentCursor,
    subscribe: Callable[[int | None], Awaitable[Subscription]],
    *,
    until: str | None = None,
) -> AgentSubscription:
    """Return the events of an agent behind a cursor, without end.

    Args:
        agents: have the rows.
        agent: whose events.
        cursor: the last one that was seen.
        subscribe: returns the share's subscription behind a sync count.
        until: a message with the end of whose turn the events end.

    Raises:
        ShareError: the share cannot be read.
    """
    share: Subscription | None
    try:
        share = await subscribe(cursor.syncs)
    except ShareError as exc:
        if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
            raise
        share = None  # the agent goes on without it
    watched = AgentSubscription(agents, agent, cursor, share, until)
    try:
        await watched.begin()
    except BaseException:
        watched.close()
        raise
    return watched


class AgentSubscription(AsyncIterator[Event]):
    """The events of one agent for one consumer: what a share's ``Subscription`` is for a share.

    The iteration raises a ShareError when its reader may not read any longer, and ends when the share's
    subscription does for another reason than that the share is gone: then the server stops.
    """

    def __init__(
        self,
        agents: Agents,
        agent: Agent,
        cursor: AgentCursor,
        share: Subscription | None,
        until: str | None,
    ) -> None:
        """Made by :func:`watch_agent`."""
        self.share_id = agent.share_id
        self._agents = agents
        self._agent = agent
        self._until = until
        # What was seen of another share, or before a snapshot, is nowhere to resume from.
        self._syncs = None if share is not None and share.begins_anew else cursor.syncs
        self._number = cursor.events
        self._share = share
        self._source = share  # which large events are sent from, even when there will be no more
        self._first: list[Event] = []
        self._page: list[AgentEvent] = []  # of events that the feed does not remember
        self._loading: asyncio.Task[None] | None = None
        self._taken = 0  # events of the share
        # An event of the agent comes behind all syncs that were there before it: up to which number there
        # were events when how many of the share's had been taken.
        self._marks: deque[tuple[int, int]] = deque()
        self._ended = False
        self._is_taking = False
        self._error: ShareError | None = None
        self._on_end: list[Callable[[], None]] = []
        self._wake_up: asyncio.Future[None] | None = None
        self._ready: Callable[[], None] | None = None
        self._feed = agents.feeds.open(agent.id, self, self._hear)
        if share is not None:
            share.call_when_ready(self._wake)

    async def begin(self) -> None:
        """Find out what comes first. Raises DatabaseError."""
        agent, requests = await self._agents.state_of(self._agent.id)
        if self._number is not None and self._number > agent.events:
            self._number = None  # it is a cursor of another agent, or of a database before it was restored
        if self._number is None:
            self._restart(agent, requests)
        self._feed.begin(agent.events)
        self._hear()

    async def __anext__(self) -> Event:
        if self._wake_up is not None:
            raise RuntimeError("a subscription has one consumer")
        while (event := self.take()) is None:
            if self._ended:
                error, self._error = self._error, None
                raise error or StopAsyncIteration
            self._wake_up = asyncio.get_running_loop().create_future()
            try:
                await self._wake_up
            finally:
                self._wake_up = None
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription now."""
        self.close()

    def close(self) -> None:
        """End the subscription, as :meth:`aclose` does."""
        if self._loading is not None:
            self._loading.cancel()
        if self._source is not None:
            self._source.close()
        self._share = None
        self._first, self._page = [], []
        self._agents.feeds.close(self._feed, self)
        if not self._ended:
            self._ended = True
            self._wake()
            callbacks, self._on_end = self._on_end, []
            for callback in callbacks:
                callback()

    def fail(self, error: ShareError) -> None:
        """Let the iteration raise ``error`` now: what waits is dropped."""
        if not self._ended:
            self._error = error
            self.close()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once there will be no more events."""
        self._on_end.append(callback)

    def on_give_up(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called if the consumer of :meth:`parts` holds more than can be kept for it."""
        if self._source is not None:
            self._source.on_give_up(callback)

    def parts(self, event: Snapshot | Sync) -> Generator[bytes]:
        """Yield the text of ``event``, which has just been taken, in parts."""
        assert self._source is not None  # noqa: S101 -- which it has come from
        return self._source.parts(event)

    def call_when_ready(
        self,
        ready: Callable[[], None],
        directly: Callable[[Sync], bool] | None = None,  # noqa: ARG002 -- a sync has its place among others
    ) -> None:
        """Call ``ready`` each time that there may be more to :meth:`take`, and at the end."""
        self._ready = ready

    @property
    def has_more(self) -> bool:
        """Whether there may be an event to be taken, or the end to be noticed."""
        if self._ended or self._first:
            return True
        if self._share is not None and self._share.has_more:
            return True
        return self._loading is None and self._is_behind

    @property
    def is_over(self) -> bool:
        """Whether nothing will come behind what can be taken now."""
        return self._ended

    @property
    def error(self) -> ShareError | None:
        """Why it is over, if not by itself."""
        return self._error

    def take(self) -> Event | None:
        """Return the next event if there is one."""
        if self._ended:
            return None
        self._is_taking = True
        try:
            return self._next()
        finally:
            self._is_taking = False

    def _next(self) -> Event | None:
        if self._first:
            return self._first.pop(0)
        if self._is_due and (event := self._take_own()) is not None:
            return event
        event = self._take_of_share()
        if event is None and self._is_behind and not self._ended:
            event = self._take_own()
        return event

    # The share's events

    def _take_of_share(self) -> Event | None:
        share = self._share
        if share is None:
            return None
        event = share.take()
        if event is None:
            if share.is_over:
                error = share.error
                if error is not None:
                    self.fail(error)
                else:
                    self.close()
            return None
        self._taken += 1
        if isinstance(event, Snapshot | Sync):
            self._syncs = event.sync_count
        if isinstance(event, Deleted):
            self._share = None  # the agent goes on without it
        return with_cursor(event, self._syncs, self._number)

    # The agent's own

    @property
    def _is_behind(self) -> bool:
        return self._number is not None and self._number < self._feed.last

    @property
    def _is_due(self) -> bool:
        """Whether the next event of the agent need not wait for the share's any longer."""
        if not self._is_behind:
            return False
        share = self._share
        if share is None or not share.has_more:
            return True
        number = (self._number or 0) + 1
        while self._marks and self._marks[0][0] < number:
            self._marks.popleft()
        return bool(self._marks) and self._taken - self._marks[0][1] >= _PATIENCE

    def _take_own(self) -> Event | None:
        number = (self._number or 0) + 1
        cursor = self._cursor(number)
        event = self._feed.event(number, cursor, self.share_id)
        if event is None:
            while self._page and self._page[0].number < number:
                del self._page[0]
            if not self._page:
                self._load()
                return None
            event = OwnEvent(self.share_id, cursor, self._page.pop(0).described(cursor))
        self._number = number
        told = event.told
        is_end = (told["type"], told.get("state")) == ("turn", "ended")
        if is_end and self._until is not None and told.get("messageID") == self._until:
            self.close()
        return event

    def _load(self) -> None:
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._read_page())

    async def _read_page(self) -> None:
        """Read what the feed does not remember; begin anew if the database does not have it either."""
        try:
            page = await self._agents.events(self._agent.id, self._number or 0)
            if page.is_gap or not page.events:
                self._restart(*await self._agents.state_of(self._agent.id))
            else:
                self._page = page.events
        except DatabaseError:
            self.fail(unreachable(AGENTS))
        except ShareError as exc:
            self.fail(exc)
        finally:
            self._loading = None
        self._wake()

    def _restart(self, agent: Agent, requests: Sequence[AgentRequest]) -> None:
        """Have what the agent is doing now come first, and then what happens to it."""
        self._number = agent.events
        self._page = []
        cursor = self._cursor(agent.events)
        error = {} if agent.error is None else {"error": agent.error}
        told = [
            AgentEvent(0, "status", agent.last_active_at, {"status": agent.status.value, **error}),
            *(AgentEvent(0, each.kind.value, each.asked_at, each.described()) for each in requests),
        ]
        self._first = [OwnEvent(self.share_id, cursor, each.described(cursor)) for each in told]

    def _cursor(self, number: int | None) -> str:
        return str(AgentCursor(self._syncs, number))

    def _hear(self) -> None:
        last = self._feed.last
        if self._marks and self._marks[-1][1] == self._taken:
            self._marks.pop()
        self._marks.append((last, self._taken))
        self._wake()

    def _wake(self) -> None:
        if self._is_taking:
            return  # who takes sees what has become of it
        if self._ready is not None:
            self._ready()
        elif self._wake_up is not None and not self._wake_up.done():
            self._wake_up.set_result(None)
