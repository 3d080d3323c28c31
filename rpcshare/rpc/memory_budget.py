"""How much memory peers make this side hold: by session, and in all sessions of a process.

What is held is estimated, from above: a value counts for :data:`VALUE_BYTES`, text and bytes for their length
too. It is counted as a session takes it on, and given back when the last that refers to it lets go, whoever
that is: a :class:`Charge` does so when it is freed. Estimates that are small are not made one by one, but are
part of what an entry of a table counts for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from rpcshare.rpc import short_messages
from rpcshare.rpc.errors import LimitExceededError, RpcError

__all__ = [
    "CALL_BYTES",
    "ENTRY_BYTES",
    "ERROR_VALUES",
    "HEADER_VALUES",
    "UNLIMITED",
    "VALUE_BYTES",
    "Account",
    "Charge",
    "Pool",
    "count_values",
    "is_leaf",
    "too_much",
]

VALUE_BYTES: Final = 96
"""For what a value counts: an empty object and its place in an array take about as much."""

ERROR_VALUES: Final = 4
"""For how many more values an error counts: an exception has a dictionary of its own."""

HEADER_VALUES: Final = 3
"""For how many values a header counts, with its name and its text."""

ENTRY_BYTES: Final = 1024
"""For what an entry of a table counts, with a small value in it."""

CALL_BYTES: Final = 4096
"""For what a call that is under way counts, with its task."""

_count: Final = short_messages.count

# What a payload may hold for what its entry counts for anyway.
_SMALL: Final = 1024


class Account:
    """What one session makes this side hold.

    Args:
        bound: in bytes; 0 for any number.
        values: how many may be copied at once; 0 for any number.
        pool: what is held in all sessions, if that has a bound.
        owner: whose session it is: of a pool that is too full, who has most is cut off.
        end: ends the session, given the reason.
    """

    def __init__(
        self,
        bound: int = 0,
        values: int = 0,
        pool: Pool | None = None,
        owner: Hashable = None,
        end: Callable[[LimitExceededError], None] | None = None,
    ) -> None:
        self.bound = bound
        self.values = values
        self.held = 0
        # Values that have been copied since whoever has the event loop had it last.
        self.copied = 0
        self.owner = owner
        self.end = end
        self.is_closed = False
        self.pool = pool
        if pool is not None:
            pool.accounts.add(self)

    def add(self, size: int) -> None:
        """Count ``size`` bytes more, until they are subtracted.

        Raises:
            LimitExceededError: they are too many. They are not counted.
        """
        held = self.held + size
        if self.bound and held > self.bound:
            raise LimitExceededError("memory of the session", self.bound)
        pool = self.pool
        if pool is not None:
            if pool.held + size > pool.bound:
                pool.relieve(self, size)
            pool.held += size
        self.held = held

    def copy(self, count: int) -> None:
        """Count values that are about to be copied, or looked at one by one.

        Raises:
            LimitExceededError: with those before, they are too many to be copied at once.
        """
        self.copied += count
        if self.values and self.copied > self.values:
            raise LimitExceededError("values copied at once", self.values)

    def subtract(self, size: int) -> None:
        """Count ``size`` bytes no longer."""
        self.held -= size
        pool = self.pool
        if pool is not None:
            pool.held -= size
            if self.is_closed and self.held <= 0:
                pool.ending.discard(self)

    def charge(self, size: int) -> Charge | None:
        """Count ``size`` bytes until what is returned is freed; None for what is too small to be counted.

        Raises:
            LimitExceededError: as :meth:`add`.
        """
        return Charge(self, size) if size > _SMALL else None

    def require_room(self, size: int) -> None:
        """Refuse what would take ``size`` bytes, without counting it.

        Raises:
            LimitExceededError: as :meth:`add`.
        """
        self.add(size)
        self.subtract(size)

    def close(self) -> None:
        """Be no candidate for being ended any longer: the session is over, and lets go of what it holds."""
        self.end = None
        self.is_closed = True
        if self.pool is not None:
            self.pool.accounts.discard(self)
            if self.held > 0:
                self.pool.ending.add(self)


class Charge:
    """Bytes that an account has to count for as long as this is there."""

    __slots__ = ("account", "size")

    def __init__(self, account: Account, size: int) -> None:
        self.size = 0
        self.account = account
        account.add(size)
        self.size = size

    def grow(self, size: int) -> None:
        """Count ``size`` bytes more.

        Raises:
            LimitExceededError: as :meth:`Account.add`.
        """
        self.account.add(size)
        self.size += size

    def __del__(self) -> None:
        self.account.subtract(self.size)


class Pool:
    """What all sessions of a process hold together.

    When that is too much, the session that holds most is ended, of the caller that holds most: another one
    that asks for a little is not made to pay for it.
    """

    def __init__(self, bound: int) -> None:
        """Have at most ``bound`` bytes held."""
        self.bound = bound
        self.held = 0
        # Those of sessions that go on, and of those that have ended and still let go of what they held.
        self.accounts: set[Account] = set()
        self.ending: set[Account] = set()

    def relieve(self, asking: Account, size: int) -> None:
        """End sessions until there is room for ``size`` bytes more.

        Raises:
            LimitExceededError: that of ``asking`` is the one that would have to be ended.
        """
        error = LimitExceededError("memory of all sessions", self.bound)
        while self.held + size - sum(account.held for account in self.ending) > self.bound:
            account = self._largest(asking, size)
            if account is None or account is asking:
                raise error
            end = account.end
            account.close()
            if end is not None:
                end(error)

    def _largest(self, asking: Account, size: int) -> Account | None:
        """Return the largest account of whoever would hold most, with what is asked for."""
        held: dict[Hashable, int] = {asking.owner: size} if self.accounts else {}
        for account in self.accounts:
            held[account.owner] = held.get(account.owner, 0) + account.held
        if not held:
            return None
        owner = max(held, key=lambda each: held[each])
        mine = [account for account in self.accounts if account.owner == owner]
        return max(mine, key=lambda account: account.held, default=None)


def is_leaf(value: object) -> bool:
    """Whether ``value`` is text, bytes, a number or null, and of that very type: nothing else is in it."""
    kind = type(value)  # compared one by one, which takes compiled code less time than to look into a set
    return kind is str or kind is int or value is None or kind is bool or kind is float or kind is bytes


def count_values(value: object, account: Account) -> tuple[int, bool]:  # noqa: C901 -- a case for each kind
    """Return how many values there are in ``value``, and whether nothing in it refers to anything.

    Raises:
        LimitExceededError: there are too many to be looked at, as there are in one that holds itself.
    """
    count = _count(value)
    if count > 0:
        account.copy(count - 1)
        return count, True
    count = 1
    is_plain = True
    left: list[object] = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            count += len(item)
            account.copy(len(item))
            for each in item.values():
                if not is_leaf(each):
                    left.append(each)  # noqa: PERF401 -- as a rule there is none, and a list of them costs more
        elif isinstance(item, list):
            count += len(item)
            account.copy(len(item))
            for each in item:
                if not is_leaf(each):
                    left.append(each)  # noqa: PERF401 -- likewise
        elif isinstance(item, tuple):
            count += len(item)
            account.copy(len(item))
            left.extend([each for each in item if not is_leaf(each)])
        elif not is_leaf(item):
            is_plain = False
    return count, is_plain


UNLIMITED: Final = Account()
"""Of what belongs to no session."""


def too_much(error: LimitExceededError) -> RpcError:
    """Return what a call fails with for which ``error`` says that there is no room."""
    return RpcError(str(error), code="PAYLOAD_TOO_LARGE")
