"""One share, open on this node: the log that others may write too, and the state that it makes.

The store is the truth. The state here is what entries 1…n make, and changes only when entry n+1 is
known to be durable: written by this node, read from the store, or heard of from the node that wrote
it. Writes of one share take turns. While one is under way the syncs that arrive gather, and go into
the next entry together.

A number may be taken by another node first: then what it wrote is read, and the next number tried. A
write of which it is not known whether it took place makes the log *unsure*: nothing is written before
the store has been read again. Each entry has an id, by which a writer finds that such a write did.

That an entry could be written proves that nobody wrote it before only as long as entries are not
deleted, which happens a grace period after they became superfluous. So what is known of the store is
trusted for a fraction of that, and a write that took longer is checked (:meth:`ShareLog._written`).
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from time import monotonic

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.broadcast import LogAppended
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import access, objects
from rpcshare.shares.compaction import Compactor
from rpcshare.shares.document import Document, Documents, Form, Version
from rpcshare.shares.events import Sync
from rpcshare.shares.failures import share_not_found, storage_unavailable
from rpcshare.shares.hub import Hub, Subscription
from rpcshare.shares.journal import Journal, StoredHead
from rpcshare.shares.node import Node
from rpcshare.shares.objects import Head, LoggedSync
from rpcshare.shares.older import OlderJournal, OlderShare, finish_upgrade
from rpcshare.shares.outline import Transcript
from rpcshare.shares.replay import replay
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import Batch
from rpcshare.shares.write_queue import Request, WriteQueue, fail_all
from rpcshare.storage import PreconditionFailedError, StoreError

__all__ = ["ShareLog"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 10  # at replacing a head, which others hardly ever do at the same time
_OVERHEAD = 6000  # bytes of memory that an empty share takes
_PACK_IN_THREAD = 256 * 1024  # bytes of an entry that are not compressed on the event loop


class ShareLog:
    """An open share.

    Made by :meth:`open`, :meth:`open_older` and :meth:`new`; not used after :meth:`close`.
    """

    def __init__(
        self, node: Node, share_id: str, head: Head, head_etag: str | None, journal: Journal | None = None
    ) -> None:
        self.share_id = share_id
        self.head = head
        self.state = ShareState(share_id, head.session_id, head.created_at)
        self.is_ended = False
        """The share is deleted."""
        self._node = node
        self._head_etag = head_etag  # None: there is no head in the store yet
        self._journal = journal or Journal(node.store, share_id, head.generation)
        self._hub = Hub(share_id)
        self._documents = Documents()
        self._compactor = Compactor(self._journal, node.sweeper, node.settings.compaction)
        self._entry = 0  # the last one that the state holds
        self._tombstone: int | None = None  # the entry behind it that ended the share, if known
        self._announced = 0  # the last entry that another node told of
        self._confirmed_at = monotonic()  # when _entry was the last in the store for certain
        self._is_unsure = False  # whether there may be entries that _announced does not tell of
        self._is_as_installed = False  # and so may have been upgraded, but not to the end
        self._queue = WriteQueue(node.settings)
        self._writing: list[Request] = []  # those whose entry is being written
        self._writing_id = ""  # the id of that entry
        self._ids = count()
        self._ids_prefix = secrets.token_hex(8)  # which no other writer of the share has
        self._lock = asyncio.Lock()  # of whoever reads or writes the store to change the state
        self._worker: asyncio.Task[None] | None = None
        self._is_open = False
        self._unsubscribe = node.broadcaster.subscribe(share_id, self._on_appended)

    @classmethod
    async def open(cls, node: Node, share_id: str, found: StoredHead) -> "ShareLog":
        """Read the share whose head is ``found``. See :attr:`is_ended` before using it.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        log = cls(node, share_id, found.head, found.etag)
        await log._read()
        if log._is_as_installed and not log.is_ended:
            finish = partial(finish_upgrade, node.store, share_id, found.head.generation)
            node.sweeper.later(share_id, finish)
        return log

    @classmethod
    async def open_older(cls, node: Node, share_id: str, older: OlderShare) -> "ShareLog":
        """Open a share in the older layout, which stays in it until the first write.

        Raises:
            StoreError: the store failed.
        """
        journal = OlderJournal(node.store, share_id, older)
        log = cls(node, share_id, older.head, None, journal)
        await log._read()
        return log

    @classmethod
    def new(cls, node: Node, share_id: str, found: StoredHead) -> "ShareLog":
        """Return the share whose head ``found`` has just been written: there is nothing to read."""
        log = cls(node, share_id, found.head, found.etag)
        log._is_open = True
        return log

    async def _read(self) -> None:
        try:
            async with self._lock:
                await self._replay()
        except BaseException:
            self.detach()
            raise
        if self.is_ended:
            self.detach()
            return
        self._is_open = True
        if self._must_catch_up():
            self._start_worker()

    @property
    def is_busy(self) -> bool:
        """Whether it has callers, subscribers or work of its own, so must stay open."""
        return bool(
            self._worker is not None
            or len(self._queue)
            or len(self._hub)
            or self._compactor.is_running
            or self._lock.locked()
        )

    @property
    def is_watched(self) -> bool:
        """Whether there are subscribers."""
        return self.subscribers > 0

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._hub)

    @property
    def version(self) -> Version:
        """Which state the share is in."""
        return Version(self.head.generation, self.state.sync_count, self.state.last_updated)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory it takes."""
        return _OVERHEAD + self.state.footprint + self._hub.size

    # What callers ask for

    async def append(self, batch: Batch) -> int:
        """Apply ``batch`` and return the new syncCount, once that is durable.

        A caller that is cancelled does not learn whether its sync took place; it may.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted. PAYLOAD_TOO_LARGE.
                STORAGE_UNAVAILABLE: the store failed; the sync may have been written.
        """
        return await self._ask(batch)

    async def delete(self) -> None:
        """Delete the share, and return once all of its content is removed.

        Raises:
            ShareError: SHARE_NOT_FOUND: another caller has deleted it. STORAGE_UNAVAILABLE: the store
                failed; the share may be deleted, but some of its content may still be there.
        """
        await self._ask(None)

    async def refresh(self) -> None:
        """Take in what other nodes have written until now.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted. STORAGE_UNAVAILABLE.
        """
        asked_at = monotonic()
        async with self._lock:
            if not self.is_ended and self._confirmed_at <= asked_at:
                try:
                    await self._catch_up()
                except StoreError as exc:
                    raise storage_unavailable(exc) from exc
        if self.is_ended:
            raise share_not_found()

    async def change_head(self, change: Callable[[Head], Head]) -> Head:
        """Put in the head's place what ``change`` makes of it; return that, once it is durable.

        When another node changes the head at the same time, ``change`` is asked again.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted. STORAGE_UNAVAILABLE: the store
                failed; the change may have been written.
        """
        if not self._is_open and not self.is_ended:
            raise storage_unavailable()  # the server is about to stop
        async with self._lock:
            try:
                return await self._change_head(change)
            except StoreError as exc:
                self._is_unsure = True
                raise storage_unavailable(exc) from exc

    async def _change_head(self, change: Callable[[Head], Head]) -> Head:
        for _ in range(_ATTEMPTS):
            try:
                await self._journal.prepare()
                if self._head_etag is None or self._is_unsure:
                    await self._catch_up()
                if self.is_ended or self._head_etag is None:
                    break
                head = change(self.head)
                if head != self.head:
                    etag = await self._journal.replace_head(head, self._head_etag)
                    self._set_head(head, etag, by_this_node=True)
            except PreconditionFailedError:
                await self._catch_up()
            else:
                return head
        if self.is_ended:
            raise share_not_found()
        raise StoreError(f"the head of share {self.share_id} cannot be replaced")

    def review_subscriptions(self, refusal: Callable[[Caller], ShareError | None]) -> None:
        """End the subscriptions of those for whom ``refusal`` returns why."""
        self._hub.review(refusal)

    def subscribe(self, from_sync_count: int | None, reader: Caller = ANONYMOUS) -> Subscription:
        """Return a subscription that begins with what the share is now (see :class:`Hub`).

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted.
        """
        if self.is_ended:
            raise share_not_found()
        return self._hub.subscribe(self.state, from_sync_count, reader)

    def document(self, form: Form) -> Document:
        """Return what the share is now."""
        return self._documents.get(form, self.version, self.state)

    def transcript(self) -> Transcript:
        """Return the share as it is read from top to bottom."""
        state, outline = self.state, self.state.outline
        return Transcript(
            share_id=self.share_id,
            session_id=state.session_id,
            generation=self.head.generation,
            is_public=access.is_public(self.head),
            created_at=state.created_at,
            last_updated=state.last_updated,
            sync_count=state.sync_count,
            known_since=outline.known_since,
            session=state.session,
            entries=outline.entries,
            files=outline.files,
            models=tuple(state.content.models.values()),
        )

    async def finish_removal(self) -> None:
        """Remove what is left of a share that is ended: its removal may have been interrupted.

        Raises:
            ShareError: STORAGE_UNAVAILABLE.
        """
        try:
            await self._remove()
        except StoreError as exc:
            raise storage_unavailable(exc) from exc

    async def close(self) -> None:
        """Write what waits, finish what has begun, and end all subscriptions."""
        self._is_open = False
        while self._worker is not None:
            await asyncio.wait([self._worker])
        await self._compactor.finish()
        self._hub.close()
        self.detach()

    def detach(self) -> None:
        """Stop listening to other nodes. All that :meth:`close` would do for a log not busy."""
        self._unsubscribe()

    # The worker: one entry after the other, as long as there is work

    async def _ask(self, batch: Batch | None) -> int:
        if self.is_ended:
            raise share_not_found()
        if not self._is_open:
            raise storage_unavailable()  # the server is about to stop
        request = self._queue.add(batch)
        self._start_worker()
        return await request.done

    def _start_worker(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while True:
                async with self._lock:
                    if not await self._work_once():
                        return
        except Exception:
            # A fault of ours must not leave callers waiting for ever.
            logger.exception("Writing to share %s failed", self.share_id)
            self._is_unsure = True
            error = ShareError(ErrorCode.INTERNAL, "Internal server error")
            fail_all(self._writing, error)
            self._queue.fail(error)
        finally:
            self._worker = None

    async def _work_once(self) -> bool:
        """Do the next thing there is to do, and return whether there may be another."""
        try:
            if not self.is_ended and self._must_catch_up():
                await self._catch_up()
        except StoreError as exc:
            self._queue.fail(storage_unavailable(exc))
            return False
        if self.is_ended:
            self._queue.fail(share_not_found())
        if not len(self._queue):
            return self._announced > self._entry and not self.is_ended
        self._writing = self._queue.take(self.state.content)
        try:
            if self._writing and self._writing[0].batch is None:
                await self._write_tombstone(self._writing[0])
            elif self._writing:
                await self._write_entry()
        except StoreError as exc:
            self._is_unsure = True
            fail_all(self._writing, storage_unavailable(exc))
        self._writing = []
        return True

    def _must_catch_up(self) -> bool:
        age = monotonic() - self._confirmed_at
        is_old = len(self._queue) > 0 and age > self._node.settings.trusted_for
        return self._is_unsure or self._announced > self._entry or is_old

    def _new_entry_id(self) -> str:
        return f"{self._ids_prefix}{next(self._ids):x}"

    async def _write_entry(self) -> None:
        self._writing_id = self._new_entry_id()
        now = self._node.clock()
        syncs = [LoggedSync(now, request.batch.items) for request in self._writing if request.batch]
        while self._writing and not self.is_ended:
            numbers = self.state.content.diffs.numbers
            entry = objects.encode_entry(self._writing_id, syncs, numbers)
            if len(entry) < _PACK_IN_THREAD:
                body = objects.pack(entry)
            else:
                body = await asyncio.to_thread(objects.pack, entry)
            if not await self._written(body):
                continue
            self._apply(self._writing_id, syncs, len(entry))
            self._compactor.start_if_due(self._entry, self.state, self._head_etag)
            generation = self.head.generation
            message = LogAppended(self.share_id, generation, self._entry, body)
            await self._node.broadcaster.publish(message)
        fail_all(self._writing, share_not_found())

    async def _write_tombstone(self, request: Request) -> None:
        self._writing_id = self._new_entry_id()
        body = objects.encode_tombstone(self._writing_id)
        while not self.is_ended:
            if await self._written(body):
                self._end(self._entry + 1)
                generation = self.head.generation
                message = LogAppended(self.share_id, generation, self._entry + 1, body)
                await self._node.broadcaster.publish(message)
        # Whoever has ended it: it is for the one that asks to see that nothing is left.
        await self._remove()
        request.succeed(0)

    async def _written(self, body: bytes) -> bool:
        """Write ``body`` as the next entry, and return whether that is the next entry now.

        If not, the state has changed: another node's entries have been read, or the entry was found
        to have been written before, or the share is deleted.

        Raises:
            StoreError: the store failed, and it is not known whether ``body`` is in the log.
        """
        number = self._entry + 1
        began_at = monotonic()
        try:
            await self._journal.append(number, body)
        except PreconditionFailedError:
            await self._catch_up()
            if self._entry < number and not self.is_ended:
                raise StoreError(f"entry {number} cannot be read") from None
            return False
        if monotonic() - self._confirmed_at > self._node.settings.trusted_for:
            # In the meantime the number may have been taken, become superfluous, and been deleted.
            survey = await self._journal.survey(after=number)
            if survey.head_etag != self._head_etag and not await self._is_head_live():
                await self._journal.delete_entry(number)
                return False
            if survey.snapshots and survey.snapshots[-1] >= number:
                raise StoreError(f"a snapshot has overtaken entry {number}")
        self._confirmed_at = began_at
        return True

    # From the store, or from other nodes, to the state

    async def _catch_up(self) -> None:
        """Read what the store has behind the last known entry."""
        began_at = monotonic()
        self._is_unsure = True  # until all has been read
        self._announced = 0
        survey = await self._journal.survey(after=self._entry)
        if survey.head_etag != self._head_etag and not await self._is_head_live():
            return
        # Where a snapshot is ahead, entries that it replaces may be gone, and their numbers taken by a
        # writer that will find out only now: so they are read only if that is too recent.
        age = began_at - self._confirmed_at
        may_be_trimmed = age > self._node.settings.trusted_for or survey.first_entry != self._entry + 1
        if survey.snapshots and survey.snapshots[-1] > self._entry and may_be_trimmed:
            await self._replay_anew()
            return
        if survey.last_entry is not None:
            async for number, entry in self._journal.entries(after=self._entry):
                if number != self._entry + 1:
                    break
                if entry.is_tombstone:
                    self._end(number)
                    return
                syncs = entry.syncs(self.state.content.diffs.distinct)
                self._apply(entry.id, syncs, entry.size)
            if self._entry < survey.last_entry:
                await self._replay_anew()
                return
        self._confirmed_at = began_at
        self._is_unsure = False

    async def _replay_anew(self) -> None:
        await self._replay()
        if not self.is_ended:
            self._node.observer.log_changed(self, by_this_node=False)

    async def _replay(self) -> None:
        """Read the share from its newest snapshot on."""
        began_at = monotonic()
        found = await replay(self._journal, self.head, self._head_etag)
        if found.is_ended:
            self._end(found.tombstone)
            return
        self.state, self._entry = found.state, found.entry
        self._is_as_installed = found.is_as_installed
        self._compactor.reset(found.tail_entries, found.tail_size, found.snapshot_size, found.snapshot_holds)
        self._hub.restart(found.state, found.recent)
        if found.superfluous_to is not None:
            trim = partial(self._journal.trim, found.superfluous_to)
            self._node.sweeper.later(self.share_id, trim)
        self._confirmed_at = began_at
        self._is_unsure = False

    async def _is_head_live(self) -> bool:
        found = await self._journal.live_head()
        if found is None:
            self._end(None)
            return False
        self._set_head(found.head, found.etag, by_this_node=False)
        return True

    def _set_head(self, head: Head, etag: str, *, by_this_node: bool) -> None:
        is_changed = head.revision != self.head.revision
        self.head, self._head_etag = head, etag
        if is_changed:
            self._node.observer.access_changed(self, by_this_node=by_this_node)

    def _apply(self, entry_id: str, syncs: Iterable[LoggedSync], size: int) -> None:
        """Take the next entry, which is durable, into the state; tell those who wait for it."""
        is_own = entry_id == self._writing_id
        requests = iter(self._writing if is_own else ())
        for sync in syncs:
            self.state.apply(sync.items, sync.at)
            self._hub.sync(Sync(self.share_id, self.state.sync_count, sync.items))
            if (request := next(requests, None)) is not None:
                request.succeed(self.state.sync_count)
        if is_own:
            self._writing = []
        self._entry += 1
        self._compactor.added(size)
        self._node.observer.log_changed(self, by_this_node=is_own)

    def _on_appended(self, message: LogAppended) -> None:
        if message.generation != self.head.generation:
            self._is_unsure = True  # the share may have been deleted and made anew
        elif message.entry <= self._entry:
            return
        else:
            self._announced = max(self._announced, message.entry)
        if not self._is_open:
            return
        is_next = message.entry == self._entry + 1
        if self._is_unsure or self._lock.locked() or not is_next:
            self._start_worker()
            return
        entry = objects.decode_entry(message.body)
        if entry.is_tombstone:
            self._end(message.entry)
        else:
            self._apply(entry.id, entry.syncs(self.state.content.diffs.distinct), entry.size)

    # The end of a share

    def _end(self, tombstone: int | None) -> None:
        self.is_ended = True
        self._tombstone = tombstone
        self._hub.delete()
        self._node.observer.log_ended(self)

    async def _remove(self) -> None:
        if self._tombstone is None:
            return  # another node has removed all
        await self._compactor.finish()
        await self._journal.remove(self._tombstone, now=self._node.clock())
        delete = partial(self._journal.delete_entry, self._tombstone)
        self._node.sweeper.later(self.share_id, delete)
