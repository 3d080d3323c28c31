"""Callers that wait for their sync, or for the deletion of their share, to be durable."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from rpcshare.errors import ShareError
from rpcshare.shares.content import Content
from rpcshare.shares.context import LogSettings
from rpcshare.shares.failures import share_too_large, too_many_items
from rpcshare.shares.quotas import Room
from rpcshare.shares.syncdata import Batch

__all__ = ["OwnEntry", "Request", "WriteQueue"]


class Request:
    """One caller. It may be cancelled, which changes nothing for the others or for its sync."""

    def __init__(self, batch: Batch | None, room: Room | None = None) -> None:
        """Ask for ``batch`` to be written, if there is ``room``; with None, for the share to be deleted."""
        self.batch = batch
        self.room = room
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.number = 0
        """Among those of this writer that others may write as well; 0: nobody else has it."""
        self.since = 0
        """The entry that the writer had when it got its number."""
        self.is_settled = False
        """It is in the log, or somebody else's matter: it must not be written any more."""

    def is_small(self, size: int) -> bool:
        """Whether it is a sync of at most ``size`` bytes that needs no look at what its owner may have."""
        return self.batch is not None and self.room is None and self.batch.size <= size

    def succeed(self, sync_count: int) -> None:
        """Tell the caller the syncCount that its sync has made."""
        if not self.done.done():
            self.done.set_result(sync_count)

    def fail(self, error: ShareError) -> None:
        """Tell the caller what went wrong."""
        if not self.done.done():
            self.done.set_exception(error)


class OwnEntry:
    """An entry that this node writes, and the callers who wait for it to be durable."""

    def __init__(self, entry_id: str, requests: list[Request]) -> None:
        """Write ``requests`` as the entry that is recognised by ``entry_id``."""
        self.id = entry_id
        self.requests = requests  # none once their callers know

    @property
    def is_abandoned(self) -> bool:
        """Whether every caller has been cancelled."""
        return all(request.done.cancelled() for request in self.requests)

    def drop(self) -> None:
        """Forget the callers, who wait no more."""
        self.requests = []

    def fail(self, error: ShareError) -> None:
        """Tell the callers who still wait what went wrong."""
        _fail_all(self.requests, error)
        self.requests = []


class WriteQueue:
    """The requests of one share, in the order in which they came."""

    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        self._requests: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, batch: Batch | None, room: Room | None = None) -> Request:
        """Add a request and return it."""
        request = Request(batch, room)
        self._requests.append(request)
        return request

    def append(self, request: Request) -> None:
        """Add a request that was made elsewhere."""
        self._requests.append(request)

    def put_back(self, requests: Sequence[Request]) -> None:
        """Put requests before all others."""
        self._requests.extendleft(reversed(requests))

    def take_small(self, size: int, size_together: int, count: int) -> list[Request]:
        """Take the syncs that come first, as far as nobody else need be asked whether they may be written.

        Args:
            size: of each, at most, in bytes.
            size_together: of them all.
            count: how many, at most.
        """
        taken: list[Request] = []
        while self._requests and len(taken) < count:
            request = self._requests[0]
            if request.is_settled:
                self._requests.popleft()
                continue
            if request.batch is None or not request.is_small(size):
                break
            size_together -= request.batch.size
            if size_together < 0:
                break
            taken.append(self._requests.popleft())
        return taken

    def fail(self, error: ShareError) -> None:
        """Tell all callers what went wrong, and forget them."""
        _fail_all(self._requests, error)
        self._requests.clear()

    def take(self, content: Content) -> list[Request]:
        """Take what goes into one log entry: some syncs, or one deletion.

        Syncs that would make the share too large are refused, and not among them; so what is
        returned may be empty. What counts is what readers are shown. Whether a sync would is decided on
        the safe side: a group's syncs count as if none replaced what another brought.
        """
        settings = self._settings
        group: list[Request] = []
        size = 0
        grown, count = content.expanded_size, content.count
        while self._requests and len(group) < settings.entry_syncs:
            request = self._requests[0]
            if request.is_settled:
                self._requests.popleft()
                continue
            if request.batch is None:
                return group or [self._requests.popleft()]
            if group and size + request.batch.size > settings.entry_size:
                break
            self._requests.popleft()
            growth = content.growth(request.batch.items)
            if growth.size and 0 < settings.max_share_size < grown + growth.size:
                request.fail(share_too_large(settings.max_share_size))
                continue
            if growth.items and 0 < settings.max_share_items < count + growth.items:
                request.fail(too_many_items(settings.max_share_items))
                continue
            if request.room is not None and growth.size > request.room.size:
                request.fail(request.room.refusal)
                continue
            grown += growth.size
            count += growth.items
            size += request.batch.size
            group.append(request)
        return group


def _fail_all(requests: Iterable[Request], error: ShareError) -> None:
    for request in requests:
        if not request.is_settled:
            request.fail(error)
