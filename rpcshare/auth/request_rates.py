"""How many requests a minute a user, an organization and an API key may make, on whatever way they come.

A request is one over HTTP, a page of a browser included, or a call over RPC. Each node counts for itself, all
of its processes together (:mod:`rpcshare.auth.shared_limits`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from rpcshare.auth.allowances import Allowances, organization_key, user_key
from rpcshare.auth.caller import Caller
from rpcshare.auth.rate_limits import Clock, RateLimit, refuse_until

__all__ = ["RequestRates"]


class RequestRates:
    """Counts the requests of callers that have a limit."""

    def __init__(self, allowances: Allowances | None = None, clock: Clock = time.monotonic) -> None:
        """Allow what ``allowances`` say, and to each key what it says itself."""
        self.allowances = allowances or Allowances()
        self.counted = RateLimit(sys.maxsize, clock)
        """By key: that of a user, of an organization, or of an API key."""
        self.refused = 0
        """How often there were too many."""

    def take(self, caller: Caller) -> None:
        """Count a request of ``caller``, if there may be one.

        One that is refused is not counted, so that who comes too often is not kept out for ever.

        Raises:
            ShareError: RATE_LIMITED.
        """
        if caller.user is None and caller.key is None:
            return
        limits = [*self._limits(caller)]
        for key, limit, whose in limits:
            seconds = self.counted.wait(key, limit)
            self.refused += seconds > 0
            refuse_until(seconds, f"Too many requests of {whose}: {limit:,} a minute are allowed")
        for key, _, _ in limits:
            self.counted.count(key)

    def used(self, key: str) -> int:
        """Return how many requests there have been in the minute that is under way.

        They are counted of whom there is a limit for.
        """
        return self.counted.number(key)

    def _limits(self, caller: Caller) -> Iterator[tuple[str, int, str]]:
        if caller.key is not None and caller.key.rate_limit:
            yield f"key:{caller.key.id}", caller.key.rate_limit, "this API key"
        if (user := caller.user) is not None:
            if limit := self.allowances.of_user(user.id).requests:
                yield user_key(user.id), limit, "this user"
            if limit := self.allowances.of_organization(user.organization).requests:
                yield organization_key(user.organization), limit, "this organization"
