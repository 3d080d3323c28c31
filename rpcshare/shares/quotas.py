"""How many shares and bytes a user, and an organization, may have: checked before anything is written.

What counts is the catalogue of the database, which all nodes write, with what this node has acknowledged and
not yet written there. So what this node has let in counts at once, what others have within a second: nodes
that write at the same time may exceed a limit by what they write in that second.

Far from a limit a sync costs no look at the database more than once a second. Near it, those of an
organization take turns on this node, each after a look, and what a sync really adds decides: to replace a
message by one that is no longer is always allowed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from time import monotonic
from typing import NamedTuple
from weakref import WeakValueDictionary

from rpcshare.auth.allowances import Allowance, Allowances
from rpcshare.auth.subject_sources import organization_of, user_of
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.usage import OwnerUsage, Usage

__all__ = ["Quotas", "Room"]

logger = logging.getLogger(__name__)

_LOOK_LASTS = 1.0  # seconds
_KNOWN = 10_000  # owners and organizations


class Room(NamedTuple):
    """By how much a sync may make a share larger."""

    size: int
    """Bytes."""
    refusal: ShareError
    """What a larger one fails with."""


class _Known:
    """What one user's shares take, or one organization's, as far as this node knows."""

    def __init__(self) -> None:
        self.used = Usage()
        self.looked_at: float | None = None
        self.grown = 0  # bytes that were let in since it was looked at, at most
        self.pending = 0  # and that are being written

    @property
    def storage(self) -> int:
        return self.used.storage + self.grown + self.pending


class _Limited(NamedTuple):
    """A user, or an organization, with what it may have."""

    key: str
    whose: str
    allowed: Allowance
    known: _Known


class Quotas:
    """Says what may be made and written. Needs a running event loop."""

    def __init__(self, allowances: Allowances, look: Callable[[str], Awaitable[tuple[Usage, Usage]]]) -> None:
        """Allow what ``allowances`` say.

        Args:
            allowances: of users and organizations. Shares of nobody who is a user have no limit.
            look: returns what the shares of an owner take, and those of its organization; may raise
                DatabaseError.
        """
        self._allowances = allowances
        self._look = look
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._is_away = False

    def concern(self, owner: str | None) -> bool:
        """Whether an owner may have a limit."""
        return self._allowances.are_any and organization_of(owner) is not None

    async def usage(self, owner: str) -> OwnerUsage:
        """Return what the shares of an owner take, and those of its organization. Raises DatabaseError."""
        return OwnerUsage(*await self._look(owner))

    @asynccontextmanager
    async def making(self, owner: str | None) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
        """Give what checks whether there may be one more share of ``owner``, of so many bytes.

        It is called before the share is made, which has to be within the context: until then, nobody else of
        the organization makes one on this node. It raises ShareError: FORBIDDEN, PAYLOAD_TOO_LARGE.
        """
        async with AsyncExitStack() as held:

            async def check(size: int) -> None:
                limited = self._limited(owner)
                if owner is None or not any(each.allowed.shares or each.allowed.storage for each in limited):
                    return
                await held.enter_async_context(self._turn(owner))
                if not await self._have_looked(owner, limited):
                    return
                for each in limited:
                    if 0 < each.allowed.shares <= each.known.used.shares:
                        raise _too_many_shares(each)
                    if size and 0 < each.allowed.storage < each.known.storage + size:
                        raise _too_much(each)
                held.enter_context(_let_in(limited, size))

            yield check

    @asynccontextmanager
    async def growing(self, owner: str | None, size: int) -> AsyncIterator[Room | None]:
        """Give the room that a share of ``owner`` has for a batch of ``size`` bytes; None: enough for it.

        The batch has to be written within the context.
        """
        limited = [each for each in self._limited(owner) if each.allowed.storage]
        if owner is None or not limited or not size:
            yield None
            return
        async with AsyncExitStack() as held:
            room: Room | None = None
            if not all(_is_fresh(each.known) and _fits(each, size) for each in limited):
                async with AsyncExitStack() as turn:
                    await turn.enter_async_context(self._turn(owner))
                    has_looked = await self._have_looked(owner, limited)
                    if has_looked and not all(_fits(each, size) for each in limited):
                        tightest = min(limited, key=_left)
                        room = Room(max(_left(tightest), 0), _too_much(tightest))
                        held.push_async_exit(turn.pop_all())
            if room is not None:  # what is really added is looked up by who comes next
                yield room
                return
            with _let_in(limited, size):
                yield None

    def _limited(self, owner: str | None) -> list[_Limited]:
        organization, user_id = organization_of(owner), user_of(owner)
        if owner is None or organization is None or user_id is None:
            return []
        of_user, of_all = f"of:{owner}", f"in:{organization}"
        return [
            _Limited(of_user, "this user", self._allowances.of_user(user_id), self._known_of(of_user)),
            _Limited(
                of_all,
                "this organization",
                self._allowances.of_organization(organization),
                self._known_of(of_all),
            ),
        ]

    def _known_of(self, key: str) -> _Known:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return known

    async def _have_looked(self, owner: str, limited: Iterable[_Limited]) -> bool:
        """Look at what is used; return whether it is known, be it from before where the database fails."""
        before = {each.key: each.known.grown for each in limited}
        try:
            found = await self._look(owner)
        except DatabaseError as exc:
            if not self._is_away:
                logger.warning("What users have stored cannot be looked up: %s", exc)
            self._is_away = True
            return all(each.known.looked_at is not None for each in limited)
        self._is_away = False
        for each in limited:
            each.known.used = found[0] if each.key.startswith("of:") else found[1]
            each.known.grown -= before[each.key]
            each.known.looked_at = monotonic()
        return True

    @asynccontextmanager
    async def _turn(self, owner: str) -> AsyncIterator[None]:
        key = organization_of(owner) or owner
        lock = self._turns.get(key)
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        async with lock:
            yield


@contextmanager
def _let_in(limited: Iterable[_Limited], size: int) -> Iterator[None]:
    """Count bytes that are let in, and written within the context, until they are looked at."""
    for each in limited:
        each.known.pending += size
    try:
        yield
    finally:
        for each in limited:
            each.known.pending -= size
            each.known.grown += size


def _is_fresh(known: _Known) -> bool:
    return known.looked_at is not None and monotonic() - known.looked_at < _LOOK_LASTS


def _left(each: _Limited) -> int:
    return each.allowed.storage - each.known.storage


def _fits(each: _Limited, size: int) -> bool:
    return size <= _left(each)


def _too_many_shares(each: _Limited) -> ShareError:
    message = f"Forbidden: {each.whose} may have at most {each.allowed.shares:,} shares; delete some"
    return ShareError(ErrorCode.FORBIDDEN, message)


def _too_much(each: _Limited) -> ShareError:
    message = (
        f"The shares of {each.whose} may hold at most {each.allowed.storage:,} bytes together; delete some"
    )
    return ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
