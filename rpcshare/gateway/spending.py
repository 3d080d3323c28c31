"""A budget that many requests at once do not overrun."""

from __future__ import annotations

import asyncio

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.metering import Usage

__all__ = ["Spending"]


class Spending:
    """What has been spent of a budget, and what is about to be.

    What a request costs is known once it has ended. Until then it counts as much as the dearest so far, and
    a request for which that leaves nothing waits until one of those in flight has ended. So of fifty that
    come at once when little is left, few are sent, and what is spent beyond the budget is what one request
    costs, and those beside it cost more than any before them. Nothing can be known of the first: it goes
    alone, if there is a budget at all.

    All of this happens in one event loop; nothing here is kept.
    """

    def __init__(
        self, *, dollars: float | None = None, tokens: int | None = None, spent: Usage | None = None
    ) -> None:
        """Spend at most ``dollars`` and ``tokens``, of which some are ``spent``; None: any number."""
        self.dollars = dollars
        self.tokens = tokens
        self.spent_dollars = 0.0 if spent is None else spent.cost
        self.spent_tokens = 0 if spent is None else spent.tokens
        self.in_flight = 0
        self._dearest: tuple[float, int] | None = None
        self._changed = asyncio.Condition()

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        is_over = self.dollars is not None and self.spent_dollars >= self.dollars
        return is_over or (self.tokens is not None and self.spent_tokens >= self.tokens)

    async def admit(self) -> None:
        """Count one request more in flight, once there is room for it.

        Raises:
            ShareError: FORBIDDEN: the budget is spent.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_spent or self._has_room)
            if self.is_spent:
                raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: the budget of this agent is spent")
            self.in_flight += 1

    async def charge(self, usage: Usage) -> None:
        """Count what a request has used, which is in flight no more."""
        async with self._changed:
            self.in_flight -= 1
            self.spent_dollars += usage.cost
            self.spent_tokens += usage.tokens
            dollars, tokens = self._dearest or (0.0, 0)
            if usage.tokens or usage.cost:
                self._dearest = max(dollars, usage.cost), max(tokens, usage.tokens)
            self._changed.notify_all()

    async def change(self, *, dollars: float | None, tokens: int | None) -> None:
        """Take another budget from now on."""
        async with self._changed:
            self.dollars, self.tokens = dollars, tokens
            self._changed.notify_all()

    @property
    def _has_room(self) -> bool:
        if not self.in_flight or (self.dollars is None and self.tokens is None):
            return True
        if self._dearest is None:
            return False
        dollars, tokens = self._dearest
        has_dollars = self.dollars is None or self.spent_dollars + self.in_flight * dollars < self.dollars
        return has_dollars and (
            self.tokens is None or self.spent_tokens + self.in_flight * tokens < self.tokens
        )
