"""What those who deliver events read: a share's subscription, or that of what has a share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Protocol, Self

from rpcshare.errors import ShareError
from rpcshare.shares.events import Event, Snapshot, Sync

__all__ = ["EventSource"]


class EventSource(Protocol):
    """Events for one consumer, at its pace, as a share's ``Subscription`` has them."""

    @property
    def share_id(self) -> str:
        """Whose events these are."""

    @property
    def has_more(self) -> bool:
        """Whether there may be an event to be taken, or the end to be noticed."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will come behind what can be taken now."""

    @property
    def error(self) -> ShareError | None:
        """Why it is over, if not by itself."""

    def take(self) -> Event | None:
        """Return the next event if there is one."""

    def call_when_ready(
        self, ready: Callable[[], None], directly: Callable[[Sync], bool] | None = None
    ) -> None:
        """Call ``ready`` each time that there may be more to take, and at the end.

        Before a sync waits that would be the next event, ``directly`` may be asked to take it, and returns
        whether it has.
        """

    def parts(self, event: Snapshot | Sync) -> Generator[bytes]:
        """Yield the text of ``event``, which has just been taken, in parts."""

    def on_give_up(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called if the consumer of :meth:`parts` holds more than can be kept for it."""

    def close(self) -> None:
        """End it now: what waits is dropped."""

    async def aclose(self) -> None:
        """End it, as :meth:`close` does."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
