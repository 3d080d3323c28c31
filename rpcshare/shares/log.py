"""One share, open on this node: its replica, and the callers who wait to have written to it.

Writes of one share take turns. While one is under way the syncs that arrive gather, and go into
the next entry together. What makes that safe where others write too is in
:mod:`~rpcshare.shares.replica`.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count

from rpcshare.broadcast import LogAppended
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.long_work import LongWork
from rpcshare.shares import objects
from rpcshare.shares.compaction import Compactor
from rpcshare.shares.context import NodeContext
from rpcshare.shares.failures import share_not_found, storage_unavailable
from rpcshare.shares.journal import Journal, StoredHead
from rpcshare.shares.legacy_layout import LegacyJournal, LegacyShare, finish_upgrade
from rpcshare.shares.objects import Head, LoggedSync
from rpcshare.shares.replica import Replica
from rpcshare.shares.syncdata import Batch
from rpcshare.shares.write_queue import OwnEntry, Request, WriteQueue
from rpcshare.storage import StoreError

__all__ = ["ShareLog"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 200  # at the next number of a log, which another node takes first now and then
_PACK_IN_THREAD = 256 * 1024  # bytes of an entry that are not compressed on the event loop


class ShareLog:
    """An open share.

    Made by :meth:`open`, :meth:`open_older` and :meth:`new`; not used after :meth:`close`.
    """

    def __init__(
        self,
        node: NodeContext,
        share_id: str,
        head: Head,
        head_etag: str | None,
        journal: Journal | None = None,
    ) -> None:
        journal = journal or Journal(node.store, share_id, head.generation)
        self.share_id = share_id
        self._node = node
        self._compactor = Compactor(journal, node.sweeper, node.settings.compaction)
        self.replica = Replica(node, head, head_etag, journal, self._compactor)
        """What the share is."""
        self._queue = WriteQueue(node.settings)
        self._arrivals = asyncio.Lock()
        self._arriving = 0
        self._ids = count()
        self._ids_prefix = secrets.token_hex(8)  # which no other writer of the share has
        self._worker: asyncio.Task[None] | None = None
        self._is_open = False
        self._unsubscribe = node.broadcaster.subscribe(share_id, self._on_appended)

    @classmethod
    async def open(cls, node: NodeContext, share_id: str, found: StoredHead) -> "ShareLog":
        """Read the share whose head is ``found``. See :attr:`is_ended` before using it.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        log = cls(node, share_id, found.head, found.etag)
        await log._read()
        if log.replica.is_as_installed and not log.is_ended:
            finish = partial(finish_upgrade, node.store, share_id, found.head.generation)
            node.sweeper.later(share_id, finish)
        return log

    @classmethod
    async def open_older(cls, node: NodeContext, share_id: str, older: LegacyShare) -> "ShareLog":
        """Open a share in the older layout, which stays in it until the first write.

        Raises:
            StoreError: the store failed.
        """
        journal = LegacyJournal(node.store, share_id, older)
        log = cls(node, share_id, older.head, None, journal)
        await log._read()
        return log

    @classmethod
    def new(cls, node: NodeContext, share_id: str, found: StoredHead) -> "ShareLog":
        """Return the share whose head ``found`` has just been written: there is nothing to read."""
        log = cls(node, share_id, found.head, found.etag)
        log._is_open = True
        return log

    async def _read(self) -> None:
        try:
            await self.replica.read()
        except BaseException:
            self.detach()
            raise
        if self.is_ended:
            self.detach()
            return
        self._is_open = True
        if self.replica.is_behind:
            self._start_worker()

    @property
    def head(self) -> Head:
        """The head of the share."""
        return self.replica.head

    @property
    def is_ended(self) -> bool:
        """Whether the share is deleted."""
        return self.replica.is_ended

    @property
    def is_busy(self) -> bool:
        """Whether it has callers, subscribers or work of its own, so must stay open."""
        return bool(
            self._worker is not None
            or len(self._queue)
            or self.replica.subscribers
            or self._compactor.is_running
            or self.replica.lock.locked()
        )

    # What callers ask for

    async def append(self, batch: Batch) -> int:
        """Apply ``batch`` and return the new syncCount, once that is durable.

        A caller that is cancelled does not learn whether its sync took place; it may.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted. PAYLOAD_TOO_LARGE.
                STORAGE_UNAVAILABLE: the store failed; the sync may have been written.
        """
        return await self.submit(batch)

    @property
    def is_arriving(self) -> bool:
        """Whether a batch is being taken in, behind which others have to wait for their turn."""
        return self._arriving > 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn to submit a batch: they come in the order in which they were sent."""
        self._arriving += 1
        try:
            async with self._arrivals:  # which is fair
                yield
        finally:
            self._arriving -= 1

    def submit(self, batch: Batch | None) -> asyncio.Future[int]:
        """Have ``batch`` applied behind all that was submitted before; the result is as of :meth:`append`.

        Raises:
            ShareError: as :meth:`append` does.
        """
        if self.is_ended:
            raise share_not_found()
        if not self._is_open:
            raise storage_unavailable()  # the server is about to stop
        request = self._queue.add(batch)
        self._start_worker()
        return request.done

    async def delete(self) -> None:
        """Delete the share, and try to remove all of its content before returning.

        What cannot be removed now is removed in the background, by whatever server is there then.

        Raises:
            ShareError: SHARE_NOT_FOUND: another caller has deleted it. STORAGE_UNAVAILABLE: the store
                failed, and the share is as it was, as far as the store could say.
        """
        await self.submit(None)

    async def change_head(self, change: Callable[[Head], Head]) -> Head:
        """Put in the head's place what ``change`` makes of it; return that, once it is durable.

        When another node changes the head at the same time, ``change`` is asked again.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted. STORAGE_UNAVAILABLE: the store
                failed; the change may have been written.
        """
        if not self._is_open and not self.is_ended:
            raise storage_unavailable()  # the server is about to stop
        async with self.replica.lock:
            try:
                return await self.replica.change_head(change)
            except StoreError as exc:
                self.replica.doubt()
                raise storage_unavailable(exc) from exc

    async def finish_removal(self) -> None:
        """Remove what is left of a share that is ended: its removal may have been interrupted.

        Raises:
            ShareError: STORAGE_UNAVAILABLE.
        """
        try:
            await self.replica.remove()
        except StoreError as exc:
            raise storage_unavailable(exc) from exc

    async def close(self) -> None:
        """Write what waits, finish what has begun, and end all subscriptions."""
        self._is_open = False
        while self._worker is not None:
            await asyncio.wait([self._worker])
        await self._compactor.finish()
        self.replica.end_subscriptions()
        self.detach()

    def detach(self) -> None:
        """Stop listening to other nodes. All that :meth:`close` would do for a log not busy."""
        self._unsubscribe()

    def _on_appended(self, message: LogAppended) -> None:
        if self.replica.notice(message) and self._is_open:
            self._start_worker()

    # The worker: one entry after the other, as long as there is work

    def _start_worker(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while True:
                async with self.replica.lock:
                    if not await self._work_once():
                        return
        except Exception:
            # A fault of ours must not leave callers waiting for ever.
            logger.exception("Writing to share %s failed", self.share_id)
            self.replica.doubt()
            error = ShareError(ErrorCode.INTERNAL, "Internal server error")
            self.replica.own.fail(error)
            self._queue.fail(error)
        finally:
            self._worker = None

    async def _work_once(self) -> bool:
        """Do the next thing there is to do, and return whether there is another."""
        replica = self.replica
        try:
            if not replica.is_ended and self._must_catch_up() and not await replica.read_announced():
                await replica.catch_up()
        except StoreError as exc:
            self._queue.fail(storage_unavailable(exc))
            return False
        if replica.is_ended:
            self._queue.fail(share_not_found())
        requests = self._queue.take(replica.state.content)
        if requests:
            await self._write(requests)
        return len(self._queue) > 0 or (replica.is_behind and not replica.is_ended)

    async def _write(self, requests: list[Request]) -> None:
        replica = self.replica
        own = replica.own = OwnEntry(f"{self._ids_prefix}{next(self._ids):x}", requests)
        try:
            if requests[0].batch is None:
                await self._write_tombstone(own.id, requests[0])
            else:
                await self._write_entry(own)
        except StoreError as exc:
            replica.doubt()
            own.fail(storage_unavailable(exc))

    def _must_catch_up(self) -> bool:
        return self.replica.is_behind or (len(self._queue) > 0 and not self.replica.is_trusted)

    async def _write_entry(self, own: OwnEntry) -> None:
        replica = self.replica
        # A clock that was set back must not make a share older than it was.
        now = max(self._node.clock(), replica.state.last_updated)
        syncs = [LoggedSync(now, request.batch.items) for request in own.requests if request.batch]
        size = sum(request.batch.size for request in own.requests if request.batch)
        attempts = 0
        while own.requests and not replica.is_ended:
            if attempts and own.is_abandoned:
                own.drop()
                return
            attempts += 1
            if attempts > _ATTEMPTS:
                raise StoreError(f"other nodes take each number of the log of share {self.share_id}")
            # Whose lock is held, so nothing is applied meanwhile.
            numbers = replica.state.content.diffs.numbers
            if size < _PACK_IN_THREAD:
                body, length = _packed_entry(own.id, syncs, numbers)
            else:
                body, length = await asyncio.to_thread(_packed_entry, own.id, syncs, numbers)
            etag = await replica.write(body)
            if etag is None:
                continue
            if size < _PACK_IN_THREAD:
                replica.apply(own.id, syncs, length, etag)
            else:
                async with LongWork():
                    replica.apply(own.id, syncs, length, etag)
            replica.compact_if_due()
            await self._publish(replica.entry)
        if own.requests:
            own.fail(share_not_found())

    async def _write_tombstone(self, entry_id: str, request: Request) -> None:
        replica = self.replica
        body = objects.encode_tombstone(entry_id)
        for _ in range(_ATTEMPTS):
            if replica.is_ended:
                break
            if await self._is_end_written(body):
                number = replica.entry + 1
                replica.end(number)
                await self._publish(number)
        if not replica.is_ended:
            raise StoreError(
                f"the log of share {self.share_id} cannot be ended: the store says that it changes"
            )
        # Whoever has ended it: it is for the one that asks to see that nothing is left.
        try:
            await replica.remove()
        except StoreError as exc:
            # Nobody can read it any more, and what is left has been scheduled: so this is no failure.
            logger.warning("Could not remove all of share %s, and will try again: %s", self.share_id, exc)
        request.succeed(0)

    async def _is_end_written(self, body: bytes) -> bool:
        """Write the tombstone ``body``; return whether it is there, and nobody else's."""
        replica = self.replica
        try:
            return await replica.write_end(body)
        except StoreError:
            # It may be there all the same: a caller that is told of a failure is to find the share readable.
            with suppress(StoreError):
                await replica.catch_up()
            if not replica.is_ended:
                raise
            return False

    async def _publish(self, number: int) -> None:
        message = LogAppended(self.share_id, self.head.generation, number)
        await self._node.broadcaster.publish(message)


def _packed_entry(entry_id: str, syncs: list[LoggedSync], numbers: Mapping[bytes, int]) -> tuple[bytes, int]:
    """Return the packed body of an entry, and how long it is when it is not packed."""
    entry = objects.encode_entry(entry_id, syncs, numbers)
    return objects.pack(entry), len(entry)
