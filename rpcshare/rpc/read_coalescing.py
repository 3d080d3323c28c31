"""Lets what arrives while much is under way gather for a moment, and be read together.

A client with many calls under way sends each message by itself, and so does each of many subscribers that
have been told of an event. A server that is as quick as that is woken for each: a wait and a read, which cost
more than what the message asks for. Network cards have the same trouble and the same remedy, interrupt
moderation: the event loop pauses for some microseconds before it waits for the network again.

What bounds the pause:

- It is made only if what has just arrived was little, and nobody waits for the next thing alone: it was of a
  connection with many calls under way, or it needed no answer, like many that others have sent just now.
  Results that were produced have left before. Who makes one call at a time meets no pause but others'.
- It takes time, not CPU, and at most one is made in a turn of the loop. So a loop that is busy loses nothing
  by it: more has arrived behind it, and the turn is longer.
- Where a pause took long, because timers are coarse or the machine is busy, none is made for ten times as
  long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from rpcshare.rpc.event_loop import EventLoop

__all__ = ["ReadCoalescing"]

PAUSE: Final = 50e-6
"""Seconds. Linux makes it about 50 µs longer, unless it is told to be exact."""

FEW: Final = 16
"""Frames: with so many or more at a time, a wake-up is worth what it costs."""

MANY: Final = 16
"""Calls of one connection whose results the peer has not released; or, of those that have sent something that
needs no answer, each after another one, so many within a ``WINDOW``."""

WINDOW: Final = 1e-3
"""Seconds."""

TOO_LONG: Final = 0.3e-3
"""Seconds; where nothing else runs, one pause in a hundred takes two thirds of it. After one that took longer
there is none for ``RECOVERY`` times as long."""

RECOVERY: Final = 10

_IS_POSSIBLE: Final = sys.platform != "win32"  # where a pause takes a tick of the system's timer, up to 16 ms


class ReadCoalescing:
    """Of all connections on one event loop that is the process's own: whatever else is on it pauses, too.

    Args:
        loop: which pauses.
        sleep: pauses for some seconds.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        loop: EventLoop,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loop = loop
        self._sleep = sleep
        self._clock = clock
        self._is_due = False
        self._not_before = 0.0 if _IS_POSSIBLE else float("inf")
        # Of what has arrived and needed no answer: when the window began, how much, of whom the last was; and
        # whether it was much in the window before.
        self._window = 0.0
        self._heard = 0
        self._last: object = None
        self._was_much = False

    def arrived(self, source: object, frames: int, calls: int, *, is_answered: bool) -> None:
        """Take note that frames have been processed.

        Args:
            source: the connection.
            frames: how many.
            calls: how many calls of its peer are under way.
            is_answered: whether something has been sent because of them.
        """
        if self._is_due or frames >= FEW:
            return
        if calls >= MANY or (not is_answered and self._is_one_of_many(source)):
            self._is_due = True
            # Behind what the frames have brought about.
            self._loop.call_soon(self._pause)

    def _is_one_of_many(self, source: object) -> bool:
        if source is self._last:
            return False
        self._last = source
        now = self._clock()
        if now - self._window > WINDOW:
            self._was_much = self._heard >= MANY and now - self._window < 2 * WINDOW
            self._window, self._heard = now, 0
        self._heard += 1
        return self._was_much or self._heard >= MANY

    def _pause(self) -> None:
        self._is_due = False
        began = self._clock()
        if began < self._not_before:
            return
        self._sleep(PAUSE)
        took = self._clock() - began
        if took > TOO_LONG:
            self._not_before = began + took * (1 + RECOVERY)
