"""The shares of one node: found in the store, opened, written, and let go of.

Nothing here asks who may, or tells what was done: that is :mod:`~rpcshare.shares.service`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType

import msgspec

from rpcshare.auth.allowances import Allowances
from rpcshare.auth.caller import Caller
from rpcshare.broadcast import Broadcaster, BroadcastError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.access_settings import AccessChange
from rpcshare.shares.activity import Activity
from rpcshare.shares.adoption import adopted, handed_over
from rpcshare.shares.context import LogSettings, NodeContext, WatchedShare
from rpcshare.shares.create import Claim
from rpcshare.shares.delayed_deletes import DelayedDeletes
from rpcshare.shares.expiry import Expiry, schedule
from rpcshare.shares.failures import (
    share_gone,
    share_not_found,
    storage_unavailable,
    storing,
)
from rpcshare.shares.journal import read_head
from rpcshare.shares.known_heads import KnownHeads
from rpcshare.shares.legacy_layout import read_legacy
from rpcshare.shares.node_inbox import NodeInbox
from rpcshare.shares.objects import Head
from rpcshare.shares.open_share import OpenShare
from rpcshare.shares.outline import Transcript
from rpcshare.shares.quotas import Quotas
from rpcshare.shares.refusals import Refusal, Refusals
from rpcshare.shares.search import SearchSettings
from rpcshare.shares.share_cache import ShareCache
from rpcshare.shares.share_identity import Credentials, ShareCredentials, is_share_id
from rpcshare.shares.share_listing import ShareListing
from rpcshare.shares.subscriptions import Subscription
from rpcshare.shares.syncdata import Batch, Item
from rpcshare.storage import MeasuredStore, ObjectStore, StoreError, StoreUsage

__all__ = ["ShareRegistry"]

_POLL_EVERY = 1.5  # seconds: a lost message costs an event no more than two


class ShareRegistry:
    """Shares by id. Needs a running event loop.

    Every operation raises :class:`~rpcshare.errors.ShareError`: besides what its docstring says,
    STORAGE_UNAVAILABLE when the store fails.
    """

    def __init__(
        self,
        store: ObjectStore,
        broadcaster: Broadcaster,
        *,
        is_shared: bool,
        memory_budget: int,
        settings: LogSettings,
        clock: Callable[[], int],
        activity: Activity,
        refusal: Callable[[Caller, str, Head], ShareError | None],
        on_expired: Callable[[str], None],
        search: SearchSettings | None = None,
        allowances: Allowances | None = None,
    ) -> None:
        """Keep the shares in ``store``.

        Args:
            store: where they are. Not closed.
            broadcaster: tells other nodes of writes, and this one of theirs. Not closed either.
            is_shared: whether other nodes write to ``store``. Then subscribed shares are looked for there
                every few seconds, in case a message was lost.
            memory_budget: bytes of memory for open shares that are not in use.
            settings: how shares are kept.
            clock: returns the time in milliseconds since the epoch.
            activity: counts syncs, and failures of the store.
            refusal: why a subscriber may not read a share of an id any longer, now that its head is this.
            on_expired: hears the id of each share that is removed because its time is over.
            search: the index to keep up to date; None: one that ends with the service.
            allowances: what users may have; None: as much as they like.
        """
        self._store = store
        self._broadcaster = broadcaster
        self._is_shared = is_shared
        self._clock = clock
        self._activity = activity
        self._refusal = refusal
        self._on_expired = on_expired
        self._delayed_deletes = DelayedDeletes(settings.grace)
        self._inbox = NodeInbox(broadcaster)
        self._node = NodeContext(
            store,
            broadcaster,
            self._delayed_deletes,
            settings,
            clock,
            observer=self,
            inbox=self._inbox,
            is_shared=is_shared,
        )
        self.refusals = Refusals(store, is_shared=is_shared, clock=clock)
        """Syncs that were not taken."""
        self._expiry = Expiry(store, clock, self._remove_if_expired)
        self.open_shares = ShareCache(self._load, memory_budget)
        """Those that are in memory."""
        self._heads = KnownHeads(store, self.open_shares.find)
        self.listing = ShareListing(
            store,
            broadcaster,
            is_shared=is_shared,
            clock=clock,
            activity=activity,
            find_open=self.open_shares.find,
            search=search,
        )
        """Listings and searches."""
        self.quotas = Quotas(allowances or Allowances(), self.listing.usage)
        """What users may have."""
        self._poller: asyncio.Task[None] | None = None
        self._is_closed = False

    # Opening

    def opened(self, share_id: object, *, is_fresh: bool = False) -> "_Use":
        """Open a share that is there; with ``is_fresh``, as other nodes have left it.

        Raises:
            ShareError: SHARE_NOT_FOUND. SHARE_GONE: its time is over. INVALID_ARGUMENT: that is no id.
        """
        return _Use(self, share_id, self._check_fresh if is_fresh else None)

    def opened_to_delete(self, share_id: object) -> "_Use":
        """Open a share as :meth:`opened` does, or one that is deleted, but not removed to the end."""
        return _Use(self, share_id, self._check_to_delete)

    @asynccontextmanager
    async def claimed(
        self, claim: Callable[[ObjectStore], Awaitable[Claim]], caller: Caller, *, is_fresh: bool
    ) -> AsyncIterator[tuple[OpenShare, ShareCredentials, bool]]:
        """Open the caller's share that ``claim`` finds in the store, or makes there.

        With ``is_fresh``, one that was there as other nodes have left it.

        Yields:
            The share, its credentials, and whether it has just been made.

        Raises:
            ShareError: SHARE_NOT_FOUND: it has been deleted meanwhile. SHARE_GONE: its time was over, and
                it has been removed if that is certain.
        """
        with storing(self._activity):
            made = await claim(self._store)
        share_id = made.credentials.id
        check = self._check_fresh if is_fresh else self._check_is_there
        if (head := made.new_head) is not None:
            self.open_shares.add(share_id, lambda: OpenShare.new(self._node, share_id, head))
            check = partial(self._check_generation, head.head.generation)
        try:
            async with _Use(self, share_id, check) as share:
                if made.is_adopted and not await self.adopt(share, caller):
                    raise share_not_found()  # that belongs to nobody: another has adopted it meanwhile
                if head is not None:
                    self.listing.changed(share, None, by_this_node=True)
                    if head.head.expires_at is not None:
                        self._expiry.start()
                yield share, made.credentials, head is not None
        except ShareError as exc:
            if exc.code is ErrorCode.SHARE_GONE:
                await self._remove_if_expired(share_id)
            raise

    def taken_at_once(self, share_id: object) -> OpenShare | None:
        """Begin a use of a share if it is open, and all that there is to check needs no waiting."""
        share = self.open_shares.find(share_id) if isinstance(share_id, str) else None
        if share is None or share.is_ended or share.head.expires_at is not None:
            return None
        return self.open_shares.take_at_once(share.share_id)

    async def enter(
        self, share_id: object, check: Callable[[OpenShare], Awaitable[None]] | None = None
    ) -> OpenShare:
        """Begin a use of a share, if ``check`` raises nothing. The share may turn out to be ended."""
        check = check or self._check_is_there
        if not isinstance(share_id, str):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "shareID: must be a string")
        if not is_share_id(share_id):
            raise share_not_found()
        for attempt in range(2):
            share = await self._taken(share_id)
            was_live = not share.is_ended
            try:
                await check(share)
            except BaseException as exc:
                is_missing = isinstance(exc, ShareError) and exc.code is ErrorCode.SHARE_NOT_FOUND
                if is_missing and was_live and share.is_ended and attempt == 0:
                    # What was open here has been deleted elsewhere, where it may have been made anew.
                    self.open_shares.let_go(share_id)
                    continue
                await self.leave(share_id, exc)
                raise
            return share

        raise share_not_found()

    async def _taken(self, share_id: str) -> OpenShare:
        try:
            return await self.open_shares.take(share_id)
        except (StoreError, ShareError):
            with storing(self._activity):
                raise

    async def leave(self, share_id: str, error: BaseException | None) -> None:
        """End a use of a share; raise what a caller is told of ``error``, if that is another."""
        try:
            if isinstance(error, StoreError | ShareError):
                with storing(self._activity):
                    is_missing = isinstance(error, ShareError) and error.code is ErrorCode.SHARE_NOT_FOUND
                    if is_missing and await self._is_expired_by_now(share_id):
                        raise share_gone() from None
                    raise error
        finally:
            self.open_shares.let_go(share_id)

    async def _check_is_there(self, share: OpenShare) -> None:
        await self._refuse_gone(share)
        if share.head.expires_at is not None:
            await self._refuse_expired(share)

    async def _check_fresh(self, share: OpenShare) -> None:
        await self._refuse_gone(share)
        await self._refuse_expired(share, is_fresh=True)

    async def _check_generation(self, generation: str, share: OpenShare) -> None:
        if share.head.generation != generation:
            # What is open here has been deleted elsewhere, which this node has not heard of.
            await share.refresh()
        await self._check_is_there(share)

    async def _check_to_delete(self, share: OpenShare) -> None:
        if not share.is_ended:
            # It may have been deleted elsewhere, and made anew: then that is the one to be deleted.
            await self._refuse_expired(share, is_fresh=True)

    async def _check_nothing(self, share: OpenShare) -> None:
        """Take it as it is."""

    async def _load(self, share_id: str) -> OpenShare:
        if self._is_closed:
            raise storage_unavailable()
        found = await read_head(self._store, share_id)
        if found is None:
            older = await read_legacy(self._store, share_id)
            if older is not None:
                return await OpenShare.open_legacy(self._node, share_id, older)
            found = await read_head(self._store, share_id)  # it may just have been upgraded
        if found is None or found.head.deleted:
            raise share_gone() if found is not None and found.head.expired else share_not_found()
        return await OpenShare.open(self._node, share_id, found)

    # What is done with an open share

    def append(self, share: OpenShare, batch: Batch) -> Awaitable[int]:
        """Apply ``batch`` to a share, as :meth:`OpenShare.append` does, if its owner may have so much.

        Raises:
            ShareError: PAYLOAD_TOO_LARGE.
        """
        if self.quotas.concern(share.head.owner):
            return self._append_within_quota(share, batch)
        return self.appended(batch, share.submit(batch))

    async def _append_within_quota(self, share: OpenShare, batch: Batch) -> int:
        async with self.quotas.growing(share.head.owner, batch.size) as room:
            return await self.appended(batch, share.submit(batch, room))

    async def append_first(self, share: OpenShare, batch: Batch) -> int:
        """Apply ``batch`` to a new share, of which the owner is known to be allowed that."""
        return await self.appended(batch, share.submit(batch))

    async def appended(self, batch: Batch, submitted: asyncio.Future[int]) -> int:
        """Return the syncCount that a batch has made which was submitted to an open share."""
        count = await submitted
        self._activity.synced += 1
        self._activity.synced_bytes += batch.size
        return count

    async def change_access(self, share: OpenShare, change: AccessChange) -> Head:
        """Apply ``change`` to the head of a share, and return that."""
        if isinstance(change.expires_at, int):
            await schedule(self._store, share.share_id, change.expires_at)
        head = await share.change_head(change.applied_to)
        if head.expires_at is not None:
            self._expiry.start()
        return head

    async def adopt(self, share: OpenShare, caller: Caller) -> bool:
        """Make a share that belongs to nobody the caller's; return whether it is now."""
        owner = caller.owner
        if owner is None:
            return False
        return caller.owns((await share.change_head(lambda head: adopted(head, owner))).owner)

    async def hand_over(self, share: OpenShare, former: str, owner: str, credentials: Credentials) -> bool:
        """Make a share of ``former`` that of ``owner``; return whether it is now."""

        def change(head: Head) -> Head:
            return handed_over(head, owner, credentials) if head.owner == former else head

        return (await share.change_head(change)).owner == owner

    async def delete(self, share: OpenShare) -> None:
        """Delete a share, as :meth:`OpenShare.delete` does."""
        if not await self._is_gone(share):
            await share.delete()

    def subscribe(self, share: OpenShare, from_sync_count: int | None, reader: Caller) -> Subscription:
        """Return the events of a share, as :meth:`OpenShare.subscribe` does, whatever messages are lost."""
        if self._is_shared and self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        return share.subscribe(from_sync_count, reader)

    async def heads_of(self, ids: Mapping[str, Sequence[str]], owner: str) -> dict[str, tuple[str, Head]]:
        """Return the id and the head of the share that ``owner`` has of each session, if there is one.

        Args:
            ids: under which shares of each session may be, by session ID.
            owner: whose.
        """
        with storing(self._activity):
            found = await asyncio.gather(*(self._head_of(*each, owner) for each in ids.items()))
        return {session_id: each for session_id, each in zip(ids, found, strict=True) if each is not None}

    async def _head_of(
        self, session_id: str, share_ids: Sequence[str], owner: str
    ) -> tuple[str, Head] | None:
        for share_id in share_ids:
            head = await self._heads.get(share_id)
            if head is None:
                return None  # a share has a longer id only where the shorter one was another's
            is_its = head.session_id == session_id and head.owner == owner
            if is_its and not head.deleted and not self._has_expired(head):
                return share_id, head
        return None

    async def transcript(self, share: OpenShare) -> Transcript:
        """Return a share as it is read from top to bottom."""
        transcript = await share.transcript()
        self.open_shares.resized(share)  # which it has made larger, the first time
        refusal = await self.last_refusal(share)
        return transcript if refusal is None else msgspec.structs.replace(transcript, last_refusal=refusal)

    async def last_refusal(self, share: OpenShare) -> Refusal | None:
        """Return why the last sync of a share was not taken; None if it was."""
        return await self.refusals.find(share.share_id, share.head.generation, share.state.sync_count)

    # All shares

    def start_expiry(self) -> None:
        """Begin to remove shares whose time is over, in the background."""
        self._expiry.start(is_server=True)

    async def remove_expired(self) -> None:
        """Remove the shares whose time is over."""
        with storing(self._activity):
            await self._expiry.remove_due()

    async def check(self) -> None:
        """Return if store and broadcaster answer now; the error says why not."""
        try:
            await self._store.check()
        except StoreError as exc:
            self._activity.store_errors += 1
            raise storage_unavailable(exc, why=exc.reason) from exc
        try:
            await self._broadcaster.check()
        except BroadcastError as exc:
            raise ShareError(
                ErrorCode.STORAGE_UNAVAILABLE, "Broadcaster unavailable", retry_after=2.0
            ) from exc

    def store_usage(self) -> StoreUsage | None:
        """Return how much room the store takes and has; None if it is in no file."""
        return self._store.usage() if isinstance(self._store, MeasuredStore) else None

    async def close(self) -> None:
        """Write what waits to be written, and end all subscriptions. No call may follow."""
        self._is_closed = True
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        await self._expiry.close()
        await self.open_shares.close()
        self._inbox.close()
        await self.listing.close()
        await self._delayed_deletes.close()

    # Open shares, as they tell of themselves (ShareObserver)

    def log_changed(self, share: WatchedShare, items: Iterable[Item] | None, *, by_this_node: bool) -> None:
        """Keep listing, search and memory budget up to date."""
        self.listing.changed(share, items, by_this_node=by_this_node)
        self.open_shares.resized(share)

    def access_changed(self, share: WatchedShare) -> None:
        """End the subscriptions of those who may not read a share any longer."""
        self.listing.settings_changed(share)
        share.review_subscriptions(lambda reader: self._refusal(reader, share.share_id, share.head))

    def log_ended(self, share: WatchedShare) -> None:
        """Let go of a share that is deleted."""
        self.listing.ended(share.share_id)
        self.open_shares.discard(share)

    # The end of shares

    async def _is_gone(self, share: OpenShare) -> bool:
        """Whether the share is deleted; then its removal, if it was interrupted, is finished if it can be."""
        if share.is_ended:
            try:
                await share.finish_removal()
            except ShareError:  # which has been logged: it is deleted all the same, and tried again later
                self._activity.store_errors += 1
        return share.is_ended

    async def _refuse_gone(self, share: OpenShare) -> None:
        if await self._is_gone(share):
            raise share_not_found()

    async def _refuse_expired(self, share: OpenShare, *, is_fresh: bool = False) -> None:
        # Another node may have put the end off.
        if self._is_shared and (is_fresh or self._has_expired(share.head)):
            await share.refresh()
        if self._has_expired(share.head):
            raise share_gone()

    def _has_expired(self, head: Head) -> bool:
        return head.expires_at is not None and head.has_expired(self._clock())

    async def _is_expired_by_now(self, share_id: str) -> bool:
        """Whether a share that is gone had expired: then the store still knows."""
        found = await read_head(self._store, share_id)
        return found is not None and found.head.has_expired(self._clock())

    async def _remove_if_expired(self, share_id: str) -> None:
        try:
            async with _Use(self, share_id, self._check_nothing) as share:
                if share.is_ended:
                    await share.finish_removal()
                    return
                await share.refresh()
                expires_at = share.head.expires_at
                if expires_at is not None and self._expiry.is_certain(expires_at):
                    await share.delete()
                    self._on_expired(share_id)
        except ShareError as exc:
            if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                raise
            # Another node was quicker.

    async def _poll(self) -> None:
        """Look for what other nodes wrote to watched shares, should their messages be lost."""
        while True:
            await asyncio.sleep(_POLL_EVERY)
            for share in self.open_shares.watched():
                try:
                    await share.refresh()
                except ShareError as exc:
                    if exc.code in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                        continue  # its subscribers have been told
                    break  # the store fails, which has been logged


class _Use:
    """A share while it is used. Every sync has one: a class, at a third of what a generator costs."""

    __slots__ = ("_check", "_share", "_share_id", "_shares")

    def __init__(
        self,
        shares: ShareRegistry,
        share_id: object,
        check: Callable[[OpenShare], Awaitable[None]] | None = None,
    ) -> None:
        """Use the share if ``check`` raises nothing; None: if it is there, and its time is not over."""
        self._shares = shares
        self._share_id = share_id
        self._check = check

    async def __aenter__(self) -> OpenShare:
        share = self._shares.taken_at_once(self._share_id) if self._check is None else None
        if share is None:
            share = await self._shares.enter(self._share_id, self._check)
        self._share = share
        return share

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self._shares.open_shares.let_go(self._share.share_id)
        else:
            await self._shares.leave(self._share.share_id, exc)
