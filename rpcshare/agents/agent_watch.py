"""The events of one agent, from a cursor on: what its transcript says, and what happens to it beside that.

A cursor has two numbers, ``SYNCS.EVENTS``: of the share's last sync, and of the agent's last event. What
comes of the
two in between is in no fixed order, and neither is repeated or left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgspec

from rpcshare.agents.agent import Agent, JSONObject
from rpcshare.agents.agents import Agents
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.events import Event, Snapshot, Sync
from rpcshare.shares.subscriptions import Subscription

__all__ = ["AgentCursor", "watch_agent"]

_LOOKS_AGAIN = 0.5
"""Seconds after which a node looks whether another one has changed an agent."""


class AgentCursor(msgspec.Struct, frozen=True):
    """How far somebody has watched."""

    syncs: int | None
    """None: nothing, so that a snapshot comes first."""
    events: int | None
    """None: nothing, so that the agent's status comes first."""

    def __str__(self) -> str:
        return f"{'' if self.syncs is None else self.syncs}.{'' if self.events is None else self.events}"

    @classmethod
    def parse(cls, text: object) -> AgentCursor:
        """Return the cursor that ``text`` is; None is where everything begins.

        Raises:
            ShareError: INVALID_ARGUMENT.
        """
        if text is None:
            return cls(None, None)
        syncs, point, events = text.partition(".") if isinstance(text, str) else ("", "", "")
        if not point or not all(
            each == "" or (each.isdecimal() and len(each) <= 15) for each in (syncs, events)
        ):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "cursor: is none of an event of an agent")
        return cls(int(syncs) if syncs else None, int(events) if events else None)


async def watch_agent(
    agents: Agents,
    agent: Agent,
    cursor: AgentCursor,
    subscribe: Callable[[int | None], Any],
    *,
    wraps: Callable[[JSONObject], JSONObject] = lambda event: event,
) -> AsyncIterator[JSONObject | tuple[str, Event]]:
    """Yield events by the names of the wire, without end.

    What comes of the share is ``(cursor, event)``: it is made once for all who watch the share.

    Args:
        agents: have the rows.
        agent: whose events.
        cursor: the last one that was seen.
        subscribe: ``await subscribe(sync_count)`` returns the share's subscription.
        wraps: is given each of the agent's own events before it is yielded.

    Raises:
        ShareError: the share cannot be read any longer.
    """
    subscription: Subscription | None
    try:
        subscription = await subscribe(cursor.syncs)
    except ShareError as exc:
        if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
            raise
        subscription = None  # the agent goes on without it
    with agents.news.waiting(agent.id) as changed:
        try:
            async for event in _merged(agents, agent, cursor, subscription, changed):
                yield wraps(event) if isinstance(event, dict) else event
        finally:
            if subscription is not None:
                await subscription.aclose()


async def _merged(
    agents: Agents,
    agent: Agent,
    cursor: AgentCursor,
    subscription: Subscription | None,
    changed: asyncio.Event,
) -> AsyncIterator[JSONObject | tuple[str, Event]]:
    syncs, number = cursor.syncs, cursor.events
    if number is None:
        number = agent.events
        first = AgentCursor(syncs, number)
        error = {} if agent.error is None else {"error": agent.error}
        yield {
            "type": "status",
            "cursor": str(first),
            "at": agent.last_active_at,
            "status": agent.status.value,
            **error,
        }
        for request in await agents.requests(agent.id):
            yield {
                "type": request.kind.value,
                "cursor": str(first),
                "at": request.asked_at,
                **request.described(),
            }
    following = None if subscription is None else asyncio.ensure_future(anext(subscription, None))
    try:
        while True:
            changed.clear()
            page = await agents.events(agent.id, number)
            for each in page.events:
                number = each.number
                yield each.described(str(AgentCursor(syncs, number)))
            if page.events:
                continue
            waiting = asyncio.ensure_future(changed.wait())
            pending = {waiting} if following is None else {waiting, following}
            timeout = _LOOKS_AGAIN if agents.is_shared else None
            try:
                await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if following is not None and following.done():
                event = following.result()
                if event is None:
                    following = None
                    continue
                if isinstance(event, Snapshot | Sync):
                    syncs = event.sync_count
                yield str(AgentCursor(syncs, number)), event
                assert subscription is not None  # noqa: S101 -- for the type checker
                following = asyncio.ensure_future(anext(subscription, None))
    finally:
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, ShareError):
                await following
