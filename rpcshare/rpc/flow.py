"""How much of a stream may be on its way at once.

A window that is too small leaves a long link idle; one that is too large fills the memory of whoever reads
slowly. What a link holds when it is just full is its delivery rate times its round-trip time without
queues, and both can be seen from the acknowledgements alone. So the window follows a little above that
product: enough for the rate to rise if it can, which the next estimate then shows. This is the idea of BBR
(Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016), for messages in place
of packets. The first window, the least and the gains are those of npm capnweb, so that either side behaves
as the other expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

__all__ = ["FlowWindow", "Sent"]

INITIAL_WINDOW = 256 * 1024
MIN_WINDOW = 64 * 1024
# As much as one stream may make a reader hold, whatever the link.
MAX_WINDOW = 64 * 1024 * 1024

# How far above the estimate the window is: while it is being found, it may double each round trip.
SEARCH_GAIN = 2.0
STEADY_GAIN = 1.25
# How fast the window gives way to a rate that has fallen, for each acknowledgement of a full window.
DECAY = 0.9
# After so many round trips in which the window grew less than it could have, it has been found.
SEARCH_ROUNDS = 3


class Sent(NamedTuple):
    """A message that has been sent, and how things stood then."""

    size: int
    time: float
    delivered: int
    delivered_time: float
    window: float
    was_full: bool


class FlowWindow:
    """The window of one stream, in bytes.

    Args:
        clock: seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.window: float = INITIAL_WINDOW
        self.in_flight = 0

        # Bytes acknowledged so far, and when the last of them were; None before any.
        self._delivered = 0
        self._delivered_time: float | None = None
        # The first acknowledgement: messages sent before it measure the rate from there.
        self._first = (0, 0.0)
        self._shortest = math.inf

        # The search for the right size: the current round trip, and those that brought no growth.
        self._searching = True
        self._round_began = 0.0
        self._round_window: float = INITIAL_WINDOW
        self._rounds_without_growth = 0

    @property
    def is_full(self) -> bool:
        """Whether to wait for an acknowledgement before sending more."""
        return self.in_flight >= self.window

    def send(self, size: int) -> Sent:
        """Count a message as on its way, and return what :meth:`acknowledge` needs of this moment."""
        self.in_flight += size
        now = self._clock()
        delivered_time = self._delivered_time
        return Sent(
            size,
            now,
            self._delivered,
            math.nan if delivered_time is None else delivered_time,
            self.window,
            self.is_full,
        )

    def fail(self, sent: Sent) -> None:
        """Count a message as no longer on its way, and draw no conclusion from it."""
        self.in_flight -= sent.size

    def acknowledge(self, sent: Sent) -> None:
        """Count a message as delivered, and fit the window to what that says about the link."""
        now = self._clock()
        self.in_flight -= sent.size
        self._delivered += sent.size
        self._shortest = min(self._shortest, now - sent.time)
        first = self._delivered_time is None
        self._delivered_time = now
        if first:
            # A rate needs two acknowledgements.
            self._first = (self._delivered, now)
            self._round_began = now
            return
        base, base_time = (sent.delivered, sent.delivered_time)
        if math.isnan(base_time):
            base, base_time = self._first
        elapsed = now - base_time
        if elapsed <= 0:
            return
        gain = SEARCH_GAIN if self._searching else STEADY_GAIN
        wanted = (self._delivered - base) / elapsed * self._shortest * gain
        self._resize(min(wanted, sent.window * gain), sent)
        if self._searching and sent.time >= self._round_began:
            self._end_round(now)

    def _resize(self, wanted: float, sent: Sent) -> None:
        # A window that was not full says nothing about what the link could have taken.
        floor = sent.window * DECAY if sent.was_full else self.window
        self.window = min(max(wanted, floor, MIN_WINDOW), MAX_WINDOW)

    def _end_round(self, now: float) -> None:
        if self.window > self._round_window * STEADY_GAIN:
            self._rounds_without_growth = 0
        else:
            self._rounds_without_growth += 1
            self._searching = self._rounds_without_growth < SEARCH_ROUNDS
        self._round_began = now
        self._round_window = self.window
