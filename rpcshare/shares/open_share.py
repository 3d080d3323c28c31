"""One share, open on this node: what its readers are shown, and the callers who wait to have written to it.

The store is the truth. The state here is what entries 1…n make, and changes only when entry n+1 is
known to be durable: written by this node, read from the store, or sent by the node that has written it.

Writes of one share take turns. While one is under way the syncs that arrive gather, and go into
the next entry together.

What another node has sent is taken for what it has written only if nothing else can be in its place; and
what it has been asked to write is written when it is in the log (:mod:`~rpcshare.shares.write_forwarding`).

A number may be taken by another node first: then what it wrote is read, and the next number tried. A
write of which it is not known whether it took place leaves the share *unsure*: nothing is written
before the store has been read again. Each entry has an id, by which a writer finds that such a write did.

That an entry could be written proves that nobody wrote it before only as long as entries are not
deleted, which happens a grace period after they became superfluous. So what is known of the store is
trusted for a fraction of that, and a write that took longer is checked (:meth:`OpenShare._write_body`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.broadcast import EntryWritten, LogAppended
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.long_work import LongWork
from rpcshare.shares import access, objects
from rpcshare.shares.compaction import Compactor
from rpcshare.shares.context import NodeContext
from rpcshare.shares.document import Document, Documents, Form, Version
from rpcshare.shares.entry_text import LoggedSync
from rpcshare.shares.events import Sync
from rpcshare.shares.failures import share_not_found, storage_unavailable
from rpcshare.shares.journal import Journal, StoredHead, Survey
from rpcshare.shares.legacy_layout import LegacyJournal, LegacyShare, finish_upgrade
from rpcshare.shares.objects import Head, LogEntry
from rpcshare.shares.outline import Entry, Transcript
from rpcshare.shares.quotas import Room
from rpcshare.shares.replay import replay
from rpcshare.shares.state import ShareState
from rpcshare.shares.subscriptions import Subscription, Subscriptions
from rpcshare.shares.syncdata import Batch, Item
from rpcshare.shares.write_forwarding import WriteForwarding
from rpcshare.shares.write_queue import OwnEntry, Request, WriteQueue
from rpcshare.shares.write_turns import WriteTurns
from rpcshare.storage import PreconditionFailedError, StoreError

__all__ = ["OpenShare"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 200  # at the next number of a log, which another node takes first now and then
_CLOSE_BEHIND = 1.0  # seconds since all entries were read: others can have written only a few
_READ_AHEAD = 3  # entries that are read at once
_HEAD_ATTEMPTS = 10  # at replacing a head, which others hardly ever do at the same time
_READ_ONE_BY_ONE = 4  # entries; of more, a listing and a scan take fewer requests
_OVERHEAD = 7500  # bytes of memory that an empty share takes
_PACK_IN_THREAD = 256 * 1024  # bytes of an entry that are not compressed on the event loop


class OpenShare:
    """A share, from its head on.

    Made by :meth:`open`, :meth:`open_legacy` and :meth:`new`; not used after :meth:`close`.
    """

    def __init__(
        self,
        node: NodeContext,
        share_id: str,
        head: Head,
        head_etag: str | None,
        journal: Journal | None = None,
    ) -> None:
        self.share_id = share_id
        self.head = head
        self.state = ShareState(share_id, head.session_id, head.created_at)
        self.entry = 0
        """The last entry that the state holds."""
        self.is_ended = False
        """The share is deleted."""
        self._node = node
        self._journal = journal or Journal(node.store, share_id, head.generation)
        self._compactor = Compactor(self._journal, node.delayed_deletes, node.settings.compaction)
        self._subscriptions = Subscriptions(share_id, node.old_versions)
        self._documents = Documents(node.old_versions)
        self._lock = asyncio.Lock()  # of whoever reads or writes the store to change the state

        # What is known of the store.
        self._head_etag = head_etag  # None: there is no head in the store yet
        self._entry_id = ""  # of the last entry, if it was not read from a snapshot
        self._entry_etag: str | None = None  # that it had in the store, if it was there
        # The etag of the last snapshot, and its number, when it was looked at. It may be all there is.
        self._snapshot: tuple[int, str | None] = 0, None
        self._is_as_installed = False  # it may have been upgraded, but not to the end
        self._tombstone: int | None = None  # the entry behind the last that ended the share, if known
        self._announced = 0  # the last entry that another node told of
        self._confirmed_at = monotonic()  # when the last entry was the last in the store for certain
        self._is_unsure = False  # whether there may be entries that _announced does not tell of

        # Who writes.
        self._queue = WriteQueue(node.settings)
        self._turns = WriteTurns(is_shared=node.is_shared)
        self._own = OwnEntry("", [])  # that this node is writing, or has written last
        self._arrivals = asyncio.Lock()
        self._arriving = 0
        self._forwarding = WriteForwarding(
            share_id,
            head.generation,
            node.inbox,
            self._queue,
            wake=self._start_worker,
            on_entry=self._on_entry,
            turns=self._turns,
        )
        self._worker: asyncio.Task[None] | None = None
        self._is_open = False
        self._unsubscribe = node.broadcaster.subscribe(share_id, self._on_appended)

    @classmethod
    async def open(cls, node: NodeContext, share_id: str, found: StoredHead) -> "OpenShare":
        """Read the share whose head is ``found``. See :attr:`is_ended` before using it.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        share = cls(node, share_id, found.head, found.etag)
        await share._read()
        if share._is_as_installed and not share.is_ended:
            finish = partial(finish_upgrade, node.store, share_id, found.head.generation)
            node.delayed_deletes.later(share_id, finish)
        return share

    @classmethod
    async def open_legacy(cls, node: NodeContext, share_id: str, older: LegacyShare) -> "OpenShare":
        """Open a share in the older layout, which stays in it until the first write.

        Raises:
            StoreError: the store failed.
        """
        journal = LegacyJournal(node.store, share_id, older)
        share = cls(node, share_id, older.head, None, journal)
        await share._read()
        return share

    @classmethod
    def new(cls, node: NodeContext, share_id: str, found: StoredHead) -> "OpenShare":
        """Return the share whose head ``found`` has just been written: there is nothing to read."""
        share = cls(node, share_id, found.head, found.etag)
        share._is_open = True
        return share

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
        if self._is_behind:
            self._start_worker()

    @property
    def head_etag(self) -> str | None:
        """That the head has in the store; None: there is no head yet."""
        return self._head_etag

    @property
    def log_etag(self) -> str | None:
        """That of the last entry, or of the snapshot in its place; None: not known, or there is neither."""
        if self._entry_etag is not None:
            return self._entry_etag
        number, etag = self._snapshot
        return etag if number == self.entry else None

    @property
    def version(self) -> Version:
        """Which state the share is in."""
        return Version(self.head.generation, self.state.sync_count, self.state.last_updated)

    @property
    def waiting_writes(self) -> int:
        """How many syncs and deletions wait to be written."""
        return len(self._queue) + len(self._forwarding)

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._subscriptions)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory it takes."""
        return _OVERHEAD + self.state.footprint + self._subscriptions.size

    @property
    def is_busy(self) -> bool:
        """Whether it has callers, subscribers or work of its own, so must stay open."""
        return bool(
            self._worker is not None
            or len(self._queue)
            or self._forwarding.is_waiting
            or len(self._subscriptions)
            or self._compactor.is_running
            or self._lock.locked()
        )

    # What readers are shown

    def subscribe(self, from_sync_count: int | None, reader: Caller = ANONYMOUS) -> Subscription:
        """Return a subscription that begins with what the share is now (see :class:`Subscriptions`).

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted.
        """
        if self.is_ended:
            raise share_not_found()
        return self._subscriptions.subscribe(self.state, from_sync_count, reader)

    def review_subscriptions(self, refusal: Callable[[Caller], ShareError | None]) -> None:
        """End the subscriptions of those for whom ``refusal`` returns why."""
        self._subscriptions.review(refusal)

    def document(self, form: Form) -> Document:
        """Return what the share is now."""
        return self._documents.get(form, self.version, self.state)

    async def transcript(self) -> Transcript:
        """Return the share as it is read from top to bottom."""
        state = self.state
        outline = await state.outlined()
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
            entries=_left(outline.entries, state.content.reverts.messages),
            files=outline.files,
            models=tuple(body for _, body in state.content.models.values()),
            reverted_since=state.reverted_since,
        )

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

    # What writers ask for

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

    def submit(self, batch: Batch | None, room: Room | None = None) -> asyncio.Future[int]:
        """Have ``batch`` applied behind all that was submitted before; the result is as of :meth:`append`.

        One for which there is no ``room`` fails with what that says.

        Raises:
            ShareError: as :meth:`append` does.
        """
        if self.is_ended:
            raise share_not_found()
        if not self._is_open:
            raise storage_unavailable()  # the server is about to stop
        request = self._queue.add(batch, room)
        self._forwarding.arrived()
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
        async with self._lock:
            try:
                return await self._replace_head(change)
            except StoreError as exc:
                self._is_unsure = True
                raise storage_unavailable(exc) from exc

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
        self._forwarding.close()
        if len(self._queue):
            self._start_worker()
        while self._worker is not None:
            await asyncio.wait([self._worker])
        await self._compactor.finish()
        self._subscriptions.close()
        self.detach()

    def detach(self) -> None:
        """Stop listening to other nodes. All that :meth:`close` would do for a log not busy."""
        self._unsubscribe()
        self._forwarding.detach()

    # The worker: one entry after the other, as long as there is work

    def _on_appended(self, message: LogAppended) -> None:
        """Take note of what another node tells."""
        if message.generation != self.head.generation:
            self._is_unsure = True  # the share may have been deleted and made anew
        elif message.entry <= self.entry:
            return
        else:
            self._announced = max(self._announced, message.entry)
        if self._is_open:
            self._start_worker()

    def _on_entry(self, message: EntryWritten) -> None:
        """Take an entry that another node has sent, at once if nobody is reading or writing the store."""
        self._announced = max(self._announced, message.entry)
        if not self._is_open:
            return
        if not self._lock.locked():
            self._take_carried()
        if self._has_work:
            self._start_worker()

    def _start_worker(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while True:
                if not len(self._queue):
                    pass  # who only reads need not wait for a turn to write
                elif pause := self._turns.pause():
                    await asyncio.sleep(pause)
                else:
                    await self._forwarding.gather()
                async with self._lock:
                    if not await self._work_once():
                        return
        except Exception:
            # A fault of ours must not leave callers waiting for ever.
            logger.exception("Writing to share %s failed", self.share_id)
            self._is_unsure = True
            error = ShareError(ErrorCode.INTERNAL, "Internal server error")
            self._own.fail(error)
            self._queue.fail(error)
            self._forwarding.end(error)
        finally:
            self._worker = None

    async def _work_once(self) -> bool:
        """Do the next thing there is to do, and return whether there is another."""
        try:
            if not self.is_ended and self._is_behind and not await self._read_announced():
                await self._catch_up()
            if not self.is_ended:
                self._forwarding.forward()
            if not self.is_ended and self._is_to_write and not self._is_trusted:
                await self._catch_up()
        except StoreError as exc:
            self._queue.fail(storage_unavailable(exc))
            return False
        if self.is_ended:
            self._queue.fail(share_not_found())
        elif self._is_to_write:
            self._forwarding.expire()
            requests = self._queue.take(self.state.content)
            if requests:
                await self._write(requests)
        return self._has_work

    @property
    def _is_to_write(self) -> bool:
        """Whether there is something to write that must not wait for what another node is to write."""
        return len(self._queue) > 0 and not self._forwarding.is_waiting

    @property
    def _has_work(self) -> bool:
        if self.is_ended:
            return len(self._queue) > 0
        return self._is_behind or self._is_to_write

    async def _write(self, requests: list[Request]) -> None:
        own = self._own = OwnEntry(self._forwarding.new_entry_id(), requests)
        try:
            if requests[0].batch is None:
                await self._write_tombstone(own.id, requests[0])
            else:
                await self._write_entry(own)
        except StoreError as exc:
            self._is_unsure = True
            own.fail(storage_unavailable(exc))

    async def _write_entry(self, own: OwnEntry) -> None:
        # A clock that was set back must not make a share older than it was.
        now = max(self._node.clock(), self.state.last_updated)
        attempts = 0
        while own.requests and not self.is_ended:
            if attempts and own.is_abandoned:
                own.drop()
                return
            attempts += 1
            if attempts > _ATTEMPTS:
                raise StoreError(f"other nodes take each number of the log of share {self.share_id}")
            if await self._write_syncs(own, now):
                return
            # Of what others might have written as well, some is in the log by now.
            self._forwarding.expire()
            if self._forwarding.is_led(own):
                self._queue.put_back(own.requests)
                own.drop()
        if own.requests:
            own.fail(share_not_found())

    async def _write_syncs(self, own: OwnEntry, now: int) -> bool:
        """Write ``own`` as the next entry, if that is free; return whether it is there.

        Raises:
            StoreError: as :meth:`_write_body` does.
        """
        label = self._forwarding.label
        written = [(request.batch, label(request)) for request in own.requests if request.batch]
        syncs = [LoggedSync(now, batch.items, name) for batch, name in written]
        size = sum(batch.size for batch, _ in written)
        # Whose lock is held, so nothing is applied meanwhile.
        numbers = self.state.content.diffs.numbers
        if size < _PACK_IN_THREAD:
            body, length = _packed_entry(own.id, syncs, numbers)
        else:
            body, length = await asyncio.to_thread(_packed_entry, own.id, syncs, numbers)
        began_at, previous = monotonic(), self._entry_id
        etag = await self._write_body(body)
        if etag is None:
            return False
        if size < _PACK_IN_THREAD:
            self._apply(own.id, syncs, length, etag)
        else:
            async with LongWork():
                self._apply(own.id, syncs, length, etag)
        self._compactor.start_if_due(self.entry, self.state, self._head_etag)
        self._forwarding.wrote(self.entry, previous, body, etag, began_at=began_at, syncs=len(syncs))
        await self._publish(self.entry)
        return True

    async def _write_tombstone(self, entry_id: str, request: Request) -> None:
        body = objects.encode_tombstone(entry_id)
        for _ in range(_ATTEMPTS):
            if self.is_ended:
                break
            if await self._is_end_written(body):
                number = self.entry + 1
                self._end(number)
                await self._publish(number)
        if not self.is_ended:
            raise StoreError(
                f"the log of share {self.share_id} cannot be ended: the store says that it changes"
            )
        # Whoever has ended it: it is for the one that asks to see that nothing is left.
        try:
            await self._remove()
        except StoreError as exc:
            # Nobody can read it any more, and what is left has been scheduled: so this is no failure.
            logger.warning("Could not remove all of share %s, and will try again: %s", self.share_id, exc)
        request.succeed(0)

    async def _is_end_written(self, body: bytes) -> bool:
        """Write the tombstone ``body``; return whether it is there, and nobody else's."""
        try:
            return await self._write_end(body)
        except StoreError:
            # It may be there all the same: a caller that is told of a failure is to find the share readable.
            with suppress(StoreError):
                await self._catch_up()
            if not self.is_ended:
                raise
            return False

    async def _publish(self, number: int) -> None:
        message = LogAppended(self.share_id, self.head.generation, number)
        await self._node.broadcaster.publish(message)

    # From the store to the state, for who holds the lock

    @property
    def _is_behind(self) -> bool:
        """Whether there are, or may be, entries in the store that the state does not hold."""
        return self._is_unsure or self._announced > self.entry

    @property
    def _is_trusted(self) -> bool:
        """Whether it is so short a time since the store was looked at that it may be written to."""
        return monotonic() - self._confirmed_at <= self._node.settings.trusted_for

    async def _read_announced(self) -> bool:
        """Read the entries that other nodes told of, if that is sure to be right without a listing.

        Returns:
            Whether all of them are read. If not, :meth:`_catch_up` has to.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        while True:
            self._take_carried()
            if self._announced <= self.entry or self.is_ended:
                break
            self._forwarding.forward()  # which need not wait until all is read
            # A listing finds many entries sooner than reading them one by one, and tells of more.
            if self._is_unsure or not self._is_trusted or self._announced - self.entry > _READ_ONE_BY_ONE:
                return False
            last = min(self._announced, self.entry + _READ_AHEAD)
            for entry in await self._journal.read_entries(range(self.entry + 1, last + 1)):
                if entry is None:
                    return False
                if not self.is_ended:
                    await self._take(entry)
        return self.is_ended or (not self._is_unsure and self._is_trusted)

    async def _read_next(self) -> bool:
        """Read the entries behind the last one, as far as they are there; return whether there was any.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        found = await self._journal.read_entries(range(self.entry + 1, self.entry + 1 + _READ_AHEAD))
        for entry in found:
            if entry is None or self.is_ended:
                break
            await self._take(entry)
        return found[0] is not None

    async def _take(self, entry: LogEntry) -> None:
        """Take the next entry, as the store has it."""
        self._turns.others_wrote()
        if entry.is_tombstone:
            self._end(self.entry + 1)
        else:
            syncs = await self._journal.syncs_of(entry, self.state.content.diffs.distinct)
            self._forwarding.read(entry.id, syncs)
            self._apply(entry.id, syncs, entry.size, entry.etag)

    def _take_carried(self) -> None:
        """Take the next entries as far as the nodes that have written them have sent them."""
        while not self.is_ended and not self._is_unsure:
            message = self._forwarding.carried(self.entry, self._entry_id)
            if message is None:
                return
            try:
                entry = objects.decode_entry(message.body)
                syncs = entry.syncs(self.state.content.diffs.distinct)
            except StoreError:
                return  # the store tells
            if entry.is_tombstone or not self._forwarding.may_be_ours(entry.id):
                return
            self._turns.others_wrote()
            self._forwarding.others_wrote(entry.id, syncs)
            self._apply(entry.id, syncs, entry.size, message.etag)

    async def _catch_up(self) -> None:
        """Read what the store has behind the last known entry. For who holds the lock, like all below.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        began_at = monotonic()
        self._is_unsure = True  # until all has been read
        self._announced = 0
        survey = await self._journal.survey(after=self.entry)
        if survey.head_etag != self._head_etag and not await self._is_head_live():
            return
        is_lost = not survey.holds_all_before and max(survey.snapshots, default=-1) < self.entry
        if is_lost or not (await self._is_entry(survey) and await self._is_snapshot(survey)):
            logger.error(
                "The store has %s entry %d of the log of share %s, which was there: has an older copy been "
                "put in its place? The share goes on from what the store has.",
                "lost" if is_lost else "another",
                self.entry,
                self.share_id,
            )
            await self._replay_anew()
            return
        # Where a snapshot is ahead, entries that it replaces may be gone, and their numbers taken by a
        # writer that will find out only now: so they are read only if that is too recent.
        age = began_at - self._confirmed_at
        may_be_trimmed = age > self._node.settings.trusted_for or survey.first_entry != self.entry + 1
        # What is behind an entry that was there, and is not, may follow another one of its number.
        may_be_trimmed |= not self._is_there(survey)
        if survey.snapshots and survey.snapshots[-1] > self.entry and may_be_trimmed:
            await self._replay_anew()
            return
        if survey.last_entry is not None:
            async for number, entry in self._journal.entries(after=self.entry):
                if number != self.entry + 1:
                    break
                await self._take(entry)
                if self.is_ended:
                    return
            if self.entry < survey.last_entry:
                await self._replay_anew()
                return
        self._confirmed_at = began_at
        self._is_unsure = False

    def _is_there(self, survey: Survey) -> bool:
        """Whether the store has what the state was made of last: the last entry, or the snapshot of it."""
        if self.entry == 0 or survey.etag_before is not None:
            return True
        read = self._entry_etag is None and self._snapshot[0] == self.entry
        return read and survey.snapshot_etag_before == self._snapshot[1]

    async def _is_entry(self, survey: Survey) -> bool:
        """Whether what the store has in the place of the last entry is that entry, as far as can be told."""
        etag = survey.etag_before
        if etag is None or etag == self._entry_etag:
            return True
        # Somebody may have written it again as it was. One that was gone, and its snapshot read, is another.
        entry = await self._journal.read_entry(self.entry)
        if entry is None or entry.id != self._entry_id:
            return False
        self._entry_etag = etag
        return True

    async def _is_snapshot(self, survey: Survey) -> bool:
        """Whether the snapshot in the place of the last entry is of this log, as far as can be told."""
        etag = survey.snapshot_etag
        if etag is None or survey.snapshots[-1] != self.entry or self._snapshot == (self.entry, etag):
            return True
        if survey.etag_before is None:
            # It was written, by another node as well, and the entry deleted, since this one looked.
            read = await self._journal.read_snapshot(self.entry)
            if read is None:
                return True  # a newer one has just taken its place
            snapshot, _ = read
            held = self.state.sync_count, self.state.last_updated
            if (snapshot.sync_count, snapshot.last_updated) != held:
                return False
        self._snapshot = self.entry, etag
        return True

    async def _replay_anew(self) -> None:
        await self._replay()
        if not self.is_ended:
            self._node.observer.log_changed(self, None, by_this_node=False)

    async def _replay(self) -> None:
        """Read the share from its newest snapshot on."""
        began_at = monotonic()
        found = await replay(self._journal, self.head, self._head_etag)
        if found.is_ended:
            self._end(found.tombstone)
            return
        self.state, self.entry = found.state, found.entry
        self._forwarding.restart(found.entry, found.snapshot, found.labelled)
        self._entry_id, self._entry_etag = found.entry_id, found.entry_etag
        self._snapshot = found.snapshot, found.snapshot_etag
        # What is known by a version is another state's, if an older copy of the store goes by the same.
        self._documents = Documents(self._node.old_versions)
        self._is_as_installed = found.is_as_installed
        self._compactor.reset(found.tail_entries, found.tail_size, found.snapshot_size, found.snapshot_holds)
        self._subscriptions.restart(found.state, found.recent)
        if found.superfluous_to is not None:
            trim = partial(self._journal.trim, found.superfluous_to)
            self._node.delayed_deletes.later(self.share_id, trim)
        self._confirmed_at = began_at
        self._is_unsure = False

    async def _is_head_live(self) -> bool:
        found = await self._journal.live_head()
        if found is None:
            self._end(None)
            return False
        self._set_head(found.head, found.etag)
        return True

    def _set_head(self, head: Head, etag: str) -> None:
        is_changed = head.revision != self.head.revision
        self.head, self._head_etag = head, etag
        if is_changed:
            self._node.observer.access_changed(self)

    def _apply(self, entry_id: str, syncs: Iterable[LoggedSync], size: int, etag: str | None) -> None:
        """Take the next entry, which is durable, into the state; tell those who wait for it."""
        number = self._forwarding.entry = self.entry + 1
        is_own = is_for_own = entry_id == self._own.id
        requests = iter(self._own.requests if is_own else ())
        items: list[Item] = []
        for sync in syncs:
            items += sync.items
            self.state.apply(sync.items, sync.at)
            self._subscriptions.sync(Sync(self.share_id, self.state.sync_count, sync.items))
            if (request := next(requests, None)) is not None:
                request.succeed(self.state.sync_count)
            if sync.label and self._forwarding.logged(sync.label, number, self.state.sync_count):
                is_for_own = True
        if is_own:
            self._own.requests = []
        self.entry = number
        self._entry_id, self._entry_etag = entry_id, etag
        self._compactor.added(size)
        self._node.observer.log_changed(self, items, by_this_node=is_for_own)

    # From this node to the store, likewise

    async def _write_body(self, body: bytes) -> str | None:
        """Write ``body`` as the next entry, and return its etag if that is the next entry now.

        If it is not, the state has changed: another node's entries have been read, or the entry was found
        to have been written before, or the share is deleted.

        Raises:
            StoreError: the store failed, and it is not known whether ``body`` is in the log.
        """
        number = self.entry + 1
        began_at = monotonic()
        try:
            etag = await self._journal.append(number, body)
        except PreconditionFailedError:
            # A listing finds all that there is. Where that cannot be much, it only takes longer than reading.
            is_close = not self._is_unsure and began_at - self._confirmed_at < _CLOSE_BEHIND
            if not (is_close and await self._read_next()):
                await self._catch_up()
            if self.entry < number and not self.is_ended:
                raise StoreError(f"entry {number} cannot be read") from None
            return None
        if not self._is_trusted:
            # In the meantime the number may have been taken, become superfluous, and been deleted.
            survey = await self._journal.survey(after=number)
            if survey.head_etag != self._head_etag and not await self._is_head_live():
                await self._journal.delete_entry(number)
                return None
            if survey.snapshots and survey.snapshots[-1] >= number:
                raise StoreError(f"a snapshot has overtaken entry {number}")
        self._confirmed_at = began_at
        self._turns.wrote(began_at)
        return etag

    async def _write_end(self, body: bytes) -> bool:
        """Write the tombstone ``body`` as the next entry, and return whether that is the next entry now.

        Where the store can, the share is removed in the same step: so that a store that has no room for that
        keeps the share as it is. Elsewhere the removal is scheduled first: the tombstone may be the last that
        the store takes for a while.

        Raises:
            StoreError: the store failed; unless it can do all in one step, the tombstone may be in the log.
        """
        number = self.entry + 1
        if self._head_etag is not None:
            await self._compactor.finish()
            if not self._is_trusted:
                await self._catch_up()
                if self.is_ended or self.entry + 1 != number:
                    return False
            try:
                now = self._node.clock()
                if await self._journal.end(
                    number, body, self.head, self._head_etag, now=now, is_shared=self._node.is_shared
                ):
                    return True
            except PreconditionFailedError:
                await self._catch_up()
                return False
        await self._journal.schedule_removal(self._node.clock())
        return await self._write_body(body) is not None

    async def _replace_head(self, change: Callable[[Head], Head]) -> Head:
        """As :meth:`change_head`, for who holds the lock.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted.
            StoreError: the store failed; the change may have been written.
        """
        for _ in range(_HEAD_ATTEMPTS):
            try:
                await self._journal.prepare()
                if self._head_etag is None or self._is_unsure:
                    await self._catch_up()
                if self.is_ended or self._head_etag is None:
                    break
                head = change(self.head)
                if head != self.head:
                    etag = await self._journal.replace_head(head, self._head_etag)
                    self._set_head(head, etag)
            except PreconditionFailedError:
                await self._catch_up()
            else:
                return head
        if self.is_ended:
            raise share_not_found()
        raise StoreError(f"the head of share {self.share_id} cannot be replaced")

    def _end(self, tombstone: int | None) -> None:
        """Tell that the share is deleted, by the entry ``tombstone`` if that is known."""
        self.is_ended = True
        self._tombstone = tombstone
        self._forwarding.end(share_not_found())
        self._subscriptions.delete()
        self._node.observer.log_ended(self)

    async def _remove(self) -> None:
        """Remove from the store what is left of the share, which is ended.

        Raises:
            StoreError: the store failed; some of it may still be there.
        """
        if self._tombstone is None:
            return  # another node has removed all
        await self._compactor.finish()
        now = self._node.clock()
        await self._journal.remove(self._tombstone, now=now, is_shared=self._node.is_shared)
        self._node.delayed_deletes.later(self.share_id, self._journal.sweep)


def _packed_entry(entry_id: str, syncs: list[LoggedSync], numbers: Mapping[bytes, int]) -> tuple[bytes, int]:
    """Return the packed body of an entry, and how long it is when it is not packed."""
    entry = objects.encode_entry(entry_id, syncs, numbers)
    return objects.pack(entry), len(entry)


def _left(entries: tuple[Entry, ...], removed: Mapping[str, str]) -> tuple[Entry, ...]:
    """Return ``entries`` without what was taken back for good."""
    if not removed:
        return entries
    return tuple(
        entry if cut_from is None else entry.until(cut_from)
        for entry in entries
        if (cut_from := removed.get(entry.id)) != ""
    )
