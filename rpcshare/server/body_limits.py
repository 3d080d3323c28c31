"""Bodies on their way in: how much of them is held for one network and in all, and an end to waiting.

Who sends a body has often not shown yet that it may, and a server that stops does not wait for a request
that is half there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rpcshare.auth.rate_limits import network_of
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["BodyLimits", "BodyLimitsMiddleware", "hold_decoded", "release_held"]

_PAUSE = 1.0  # seconds: most bodies are dealt with in less
_ALL_NETWORKS = 2  # times the budget of one
_HOLD, _RELEASE = "rpcshare.hold", "rpcshare.release"


def hold_decoded(scope: Scope, size: int) -> None:
    """Count ``size`` bytes into which the body of a request is about to be decoded, until it is answered.

    Raises:
        ShareError: as :meth:`BodyLimits.hold` does.
    """
    hold: Callable[[int], None] | None = scope.get(_HOLD)
    if hold is not None:
        hold(size)


def release_held(scope: Scope, size: int) -> None:
    """Count ``size`` bytes of the body of a request no longer: they are not in memory any more."""
    release: Callable[[int], None] | None = scope.get(_RELEASE)
    if release is not None:
        release(size)


class BodyLimits:
    """The requests whose bodies are being waited for or dealt with, and how many bytes of them are in memory.

    A compressed body counts twice: as it came, and decoded.
    """

    def __init__(self, budget: int = 0) -> None:
        """Hold at most ``budget`` bytes of bodies for one network at a time; 0 for any number.

        All networks together have twice that. When it is spent, a network is refused that has more than
        its share of it, so that one that holds little gets through.
        """
        self._budget = budget
        self._held: Counter[str] = Counter()
        self._total = 0
        self._waiting: set[asyncio.Task[object]] = set()
        self._is_over = False
        self.refused = 0
        """How often there were too many bytes."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._is_over

    def hold(self, network: str, size: int) -> None:
        """Count bytes that have come from ``network``, until they are released.

        Raises:
            ShareError: RATE_LIMITED: there are too many. They are counted all the same.
        """
        self._held[network] += size
        self._total += size
        if 0 < self._budget < self._held[network]:
            self.refused += 1
            message = f"Too many bodies at once: {self._budget:,} bytes are taken from one address"
            raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=_PAUSE)
        budget = _ALL_NETWORKS * self._budget
        if 0 < budget < self._total and self._held[network] * len(self._held) > budget:
            self.refused += 1
            message = f"Too many bodies at once: {budget:,} bytes are taken in all"
            raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=_PAUSE)

    def release(self, network: str, size: int) -> None:
        """Count them no longer: their request has been answered."""
        self._held[network] -= size
        self._total -= size
        if not self._held[network]:
            del self._held[network]

    def end(self) -> None:
        """Have every request that waits for more of its body hear that its client is gone."""
        self._is_over = True
        for task in self._waiting:
            task.cancel()

    async def receive(self, receive: Receive) -> Message:
        """Return what ``receive`` does, unless and until there is no more to wait for."""
        task = asyncio.current_task()
        if task is None or self._is_over:
            return {"type": "http.disconnect"}
        self._waiting.add(task)
        try:
            return await receive()
        except asyncio.CancelledError:
            # As asyncio.timeout() does it: only a cancellation of this object's own making ends here.
            if not self.is_over or task.uncancel() > 0:
                raise
            return {"type": "http.disconnect"}
        finally:
            self._waiting.discard(task)


class BodyLimitsMiddleware:
    """Lets HTTP requests receive by way of an :class:`BodyLimits`."""

    def __init__(self, app: ASGIApp, body_limits: BodyLimits) -> None:
        self._app = app
        self._limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        client = scope.get("client")
        network = network_of(client[0] if client is not None else "")
        held = 0
        is_complete = False

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._limits.hold(network, size)

        def release(size: int) -> None:
            nonlocal held
            held -= size
            self._limits.release(network, size)

        async def receive_while_open() -> Message:
            nonlocal is_complete
            if is_complete:  # all that is left to hear is that the client is gone
                return await receive()
            message = await self._limits.receive(receive)
            is_complete = not message.get("more_body", False)
            hold(len(message.get("body", b"")))
            return message

        try:
            # Not in a copy: whoever is around this reads there which route it was.
            scope[_HOLD], scope[_RELEASE] = hold, release
            await self._app(scope, receive_while_open, send)
        finally:
            self._limits.release(network, held)
