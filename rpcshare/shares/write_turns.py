"""When a node lets others write first to a share that several nodes write.

The store orders writers: of two that write one number, it refuses one. The loser reads what the winner wrote
and tries the next number. Meanwhile the winner has written that one, too, and so on, for as long as its
callers ask. So a writer pauses for a little longer than a request takes: after each entry while it knows of
others, and now and then while it does not, since others that always lose leave no trace. In that pause
arrives what a loser tries next. Nodes then write in turn; two of them together write less than one alone
would (docs/performance.md). Nodes that can send each other messages do so only until each has read an entry
of the other: then one of them writes for both (:mod:`~rpcshare.shares.write_forwarding`).
"""

from collections.abc import Callable
from time import monotonic

__all__ = ["WriteTurns"]

_TIMES = 1.25
"""How many times as long as the last write took a pause is: the loser has to read."""

_TIMES_FOR_STRANGERS = 4.0
"""Likewise, once, for one that is known to lose: it may have lost, and not know it yet."""

# All in seconds.
_LONGEST = 0.25
_LONGEST_FOR_STRANGERS = 0.5
_KNOWN_FOR = 2.0
"""Since others have last written: for as long, they are expected to write again."""

_NOW_AND_THEN = 0.5
"""Between pauses for others that are not known."""


class WriteTurns:
    """Of one share on one node.

    Args:
        is_shared: whether other nodes write to the store at all.
        clock: seconds, from any beginning.
    """

    def __init__(self, *, is_shared: bool, clock: Callable[[], float] = monotonic) -> None:
        self._is_shared = is_shared
        self._clock = clock
        self._wrote_at = self._others_at = self._paused_at = float("-inf")
        self._took = 0.0
        self._gives_way = False

    def wrote(self, began_at: float) -> None:
        """Take note that this node has written an entry, whose writing began at ``began_at``."""
        self._wrote_at = self._clock()
        self._took = self._wrote_at - began_at

    def others_wrote(self) -> None:
        """Take note that there is an entry of another node."""
        self._others_at = self._clock()

    def others_follow(self) -> None:
        """Take note that whoever has written lately has this node write from now on."""
        self._others_at = float("-inf")

    def give_way(self) -> None:
        """Make the next pause long enough for another node to write for certain."""
        self._gives_way = True

    def pause(self) -> float:
        """Return for how many seconds to wait before the next entry is written."""
        if not self._is_shared:
            return 0.0
        now = self._clock()
        if self._gives_way:
            until = self._wrote_at + min(self._took * _TIMES_FOR_STRANGERS, _LONGEST_FOR_STRANGERS)
        else:
            until = self._wrote_at + min(self._took * _TIMES, _LONGEST)
        if now >= until:  # as long a pause has passed by itself
            self._paused_at = now
            return 0.0
        if self._gives_way:
            self._gives_way = False
        elif now - self._others_at > _KNOWN_FOR and now - self._paused_at < _NOW_AND_THEN:
            return 0.0
        self._paused_at = until
        return until - now
