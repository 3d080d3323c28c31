"""One share as this node knows it: the state that its log makes, kept in step with the store.

The store is the truth. The state here is what entries 1…n make, and changes only when entry n+1 is
known to be durable: written by this node, or read from the store. What other nodes tell is a hint to read.

A number may be taken by another node first: then what it wrote is read, and the next number tried. A
write of which it is not known whether it took place leaves the replica *unsure*: nothing is written
before the store has been read again. Each entry has an id, by which a writer finds that such a write did.

That an entry could be written proves that nobody wrote it before only as long as entries are not
deleted, which happens a grace period after they became superfluous. So what is known of the store is
trusted for a fraction of that, and a write that took longer is checked (:meth:`Replica.write`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.broadcast import LogAppended
from rpcshare.errors import ShareError
from rpcshare.shares import access
from rpcshare.shares.compaction import Compactor
from rpcshare.shares.context import NodeContext
from rpcshare.shares.document import Document, Documents, Form, Version
from rpcshare.shares.events import Sync
from rpcshare.shares.failures import share_not_found, storage_unavailable
from rpcshare.shares.journal import Journal, Survey
from rpcshare.shares.objects import Head, LogEntry, LoggedSync
from rpcshare.shares.outline import Transcript
from rpcshare.shares.replay import replay
from rpcshare.shares.state import ShareState
from rpcshare.shares.subscriptions import Subscription, Subscriptions
from rpcshare.shares.write_queue import OwnEntry
from rpcshare.storage import PreconditionFailedError, StoreError

__all__ = ["Replica"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 10  # at replacing a head, which others hardly ever do at the same time
_READ_ONE_BY_ONE = 4  # entries; of more, a listing and a scan take fewer requests
_OVERHEAD = 6000  # bytes of memory that an empty share takes


class Replica:
    """What readers are shown of a share, and what its writer stands on. There is nothing in it at first."""

    def __init__(
        self, node: NodeContext, head: Head, head_etag: str | None, journal: Journal, compactor: Compactor
    ) -> None:
        self.share_id = journal.share_id
        self.head = head
        self.state = ShareState(self.share_id, head.session_id, head.created_at)
        self.entry = 0
        """The last entry that the state holds."""
        self._entry_id = ""  # its id, if it was not read from a snapshot
        self._entry_etag: str | None = None  # that it had in the store, if it was there
        # The etag of the last snapshot, and its number, when it was looked at. It may be all there is.
        self._snapshot: tuple[int, str | None] = 0, None
        self.own = OwnEntry("", [])
        """The entry that this node is writing, or has written last."""
        self.is_ended = False
        """The share is deleted."""
        self.is_as_installed = False
        """It may have been upgraded, but not to the end."""
        self.lock = asyncio.Lock()
        """Of whoever reads or writes the store to change the state."""
        self._node = node
        self._head_etag = head_etag  # None: there is no head in the store yet
        self._journal = journal
        self._compactor = compactor
        self._hub = Subscriptions(self.share_id, node.old_versions)
        self._documents = Documents(node.old_versions)
        self._tombstone: int | None = None  # the entry behind the last that ended the share, if known
        self._announced = 0  # the last entry that another node told of
        self._confirmed_at = monotonic()  # when the last entry was the last in the store for certain
        self._is_unsure = False  # whether there may be entries that _announced does not tell of

    @property
    def is_behind(self) -> bool:
        """Whether there are, or may be, entries in the store that the state does not hold."""
        return self._is_unsure or self._announced > self.entry

    @property
    def is_trusted(self) -> bool:
        """Whether it is so short a time since the store was looked at that it may be written to."""
        return monotonic() - self._confirmed_at <= self._node.settings.trusted_for

    @property
    def version(self) -> Version:
        """Which state the share is in."""
        return Version(self.head.generation, self.state.sync_count, self.state.last_updated)

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self._hub)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory it takes."""
        return _OVERHEAD + self.state.footprint + self._hub.size

    # What readers are shown

    def subscribe(self, from_sync_count: int | None, reader: Caller = ANONYMOUS) -> Subscription:
        """Return a subscription that begins with what the share is now (see :class:`Subscriptions`).

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted.
        """
        if self.is_ended:
            raise share_not_found()
        return self._hub.subscribe(self.state, from_sync_count, reader)

    def review_subscriptions(self, refusal: Callable[[Caller], ShareError | None]) -> None:
        """End the subscriptions of those for whom ``refusal`` returns why."""
        self._hub.review(refusal)

    def end_subscriptions(self) -> None:
        """End all subscriptions, the share being as it was."""
        self._hub.close()

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
            entries=outline.entries,
            files=outline.files,
            models=tuple(body for _, body in state.content.models.values()),
        )

    # From the store, or from other nodes, to the state

    async def read(self) -> None:
        """Read the share.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        async with self.lock:
            await self._replay()

    async def refresh(self) -> None:
        """Take in what other nodes have written until now.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted. STORAGE_UNAVAILABLE.
        """
        asked_at = monotonic()
        async with self.lock:
            if not self.is_ended and self._confirmed_at <= asked_at:
                try:
                    await self.catch_up()
                except StoreError as exc:
                    raise storage_unavailable(exc) from exc
        if self.is_ended:
            raise share_not_found()

    def doubt(self) -> None:
        """Have the store read before it is written to again."""
        self._is_unsure = True

    def notice(self, message: LogAppended) -> bool:
        """Take note of what another node tells; return whether it is news."""
        if message.generation != self.head.generation:
            self._is_unsure = True  # the share may have been deleted and made anew
        elif message.entry <= self.entry:
            return False
        else:
            self._announced = max(self._announced, message.entry)
        return True

    async def read_announced(self) -> bool:
        """Read the entries that other nodes told of, if that is sure to be right without a listing.

        Returns:
            Whether all of them are read. If not, :meth:`catch_up` has to.

        Raises:
            StoreError: the store failed, or holds something that cannot be read.
        """
        while self._announced > self.entry and not self.is_ended:
            # A listing finds many entries sooner than reading them one by one, and tells of more.
            if self._is_unsure or not self.is_trusted or self._announced - self.entry > _READ_ONE_BY_ONE:
                return False
            entry = await self._journal.read_entry(self.entry + 1)
            if entry is None:
                return False
            await self._take(entry)
        return self.is_ended or (not self._is_unsure and self.is_trusted)

    async def _take(self, entry: LogEntry) -> None:
        """Take the next entry, as the store has it."""
        if entry.is_tombstone:
            self.end(self.entry + 1)
        else:
            syncs = await self._journal.syncs_of(entry, self.state.content.diffs.distinct)
            self.apply(entry.id, syncs, entry.size, entry.etag)

    async def catch_up(self) -> None:
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
            self._node.observer.log_changed(self, by_this_node=False)

    async def _replay(self) -> None:
        """Read the share from its newest snapshot on."""
        began_at = monotonic()
        found = await replay(self._journal, self.head, self._head_etag)
        if found.is_ended:
            self.end(found.tombstone)
            return
        self.state, self.entry = found.state, found.entry
        self._entry_id, self._entry_etag = found.entry_id, found.entry_etag
        self._snapshot = found.snapshot, found.snapshot_etag
        # What is known by a version is another state's, if an older copy of the store goes by the same.
        self._documents = Documents(self._node.old_versions)
        self.is_as_installed = found.is_as_installed
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
            self.end(None)
            return False
        self._set_head(found.head, found.etag, by_this_node=False)
        return True

    def _set_head(self, head: Head, etag: str, *, by_this_node: bool) -> None:
        is_changed = head.revision != self.head.revision
        self.head, self._head_etag = head, etag
        if is_changed:
            self._node.observer.access_changed(self, by_this_node=by_this_node)

    def apply(self, entry_id: str, syncs: Iterable[LoggedSync], size: int, etag: str | None) -> None:
        """Take the next entry, which is durable, into the state; tell those who wait for it."""
        is_own = entry_id == self.own.id
        requests = iter(self.own.requests if is_own else ())
        for sync in syncs:
            self.state.apply(sync.items, sync.at)
            self._hub.sync(Sync(self.share_id, self.state.sync_count, sync.items))
            if (request := next(requests, None)) is not None:
                request.succeed(self.state.sync_count)
        if is_own:
            self.own.requests = []
        self.entry += 1
        self._entry_id, self._entry_etag = entry_id, etag
        self._compactor.added(size)
        self._node.observer.log_changed(self, by_this_node=is_own)

    # From this node to the store

    async def write(self, body: bytes) -> str | None:
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
            await self.catch_up()
            if self.entry < number and not self.is_ended:
                raise StoreError(f"entry {number} cannot be read") from None
            return None
        if not self.is_trusted:
            # In the meantime the number may have been taken, become superfluous, and been deleted.
            survey = await self._journal.survey(after=number)
            if survey.head_etag != self._head_etag and not await self._is_head_live():
                await self._journal.delete_entry(number)
                return None
            if survey.snapshots and survey.snapshots[-1] >= number:
                raise StoreError(f"a snapshot has overtaken entry {number}")
        self._confirmed_at = began_at
        return etag

    async def write_end(self, body: bytes) -> bool:
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
            if not self.is_trusted:
                await self.catch_up()
                if self.is_ended or self.entry + 1 != number:
                    return False
            try:
                now = self._node.clock()
                if await self._journal.end(
                    number, body, self.head, self._head_etag, now=now, is_shared=self._node.is_shared
                ):
                    return True
            except PreconditionFailedError:
                await self.catch_up()
                return False
        await self._journal.schedule_removal(self._node.clock())
        return await self.write(body) is not None

    def compact_if_due(self) -> None:
        """Begin a snapshot if it is time."""
        self._compactor.start_if_due(self.entry, self.state, self._head_etag)

    async def change_head(self, change: Callable[[Head], Head]) -> Head:
        """Put in the head's place what ``change`` makes of it; return that, once it is durable.

        When another node changes the head at the same time, ``change`` is asked again.

        Raises:
            ShareError: SHARE_NOT_FOUND: the share has been deleted.
            StoreError: the store failed; the change may have been written.
        """
        for _ in range(_ATTEMPTS):
            try:
                await self._journal.prepare()
                if self._head_etag is None or self._is_unsure:
                    await self.catch_up()
                if self.is_ended or self._head_etag is None:
                    break
                head = change(self.head)
                if head != self.head:
                    etag = await self._journal.replace_head(head, self._head_etag)
                    self._set_head(head, etag, by_this_node=True)
            except PreconditionFailedError:
                await self.catch_up()
            else:
                return head
        if self.is_ended:
            raise share_not_found()
        raise StoreError(f"the head of share {self.share_id} cannot be replaced")

    # The end of a share

    def end(self, tombstone: int | None) -> None:
        """Tell that the share is deleted, by the entry ``tombstone`` if that is known."""
        self.is_ended = True
        self._tombstone = tombstone
        self._hub.delete()
        self._node.observer.log_ended(self)

    async def remove(self) -> None:
        """Remove from the store what is left of the share, which is ended.

        Raises:
            StoreError: the store failed; some of it may still be there.
        """
        if self._tombstone is None:
            return  # another node has removed all
        await self._compactor.finish()
        now = self._node.clock()
        await self._journal.remove(self._tombstone, now=now, is_shared=self._node.is_shared)
        self._node.sweeper.later(self.share_id, self._journal.sweep)
