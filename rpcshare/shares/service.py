"""What callers can do with shares: the operations, whatever protocol they come by."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, View
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.broadcast import Broadcaster, BroadcastError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import access, objects
from rpcshare.shares.access_settings import AccessOptions, AccessSettings, ViewToken, parse_expires_in
from rpcshare.shares.activity import Activity
from rpcshare.shares.audited import audited
from rpcshare.shares.catalogue import Catalogue
from rpcshare.shares.claim import claim
from rpcshare.shares.credentials import (
    Credentials,
    ShareCredentials,
    check_session_id,
    is_share_id,
)
from rpcshare.shares.document import Document, Form, Version
from rpcshare.shares.doorkeeper import Doorkeeper
from rpcshare.shares.expiry import Expiry, schedule
from rpcshare.shares.failures import share_gone, share_not_found, storage_unavailable
from rpcshare.shares.hub import Subscription
from rpcshare.shares.journal import read_head
from rpcshare.shares.log import ShareLog
from rpcshare.shares.node import LogSettings, Node, OpenLog, wall_clock
from rpcshare.shares.objects import Head, IndexRow
from rpcshare.shares.older import read_older
from rpcshare.shares.open_shares import OpenShares
from rpcshare.shares.outline import Transcript
from rpcshare.shares.page import Page, Query
from rpcshare.shares.redaction import redact_batch
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.sweeper import Sweeper
from rpcshare.shares.syncdata import Batch, parse_batch
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["ShareService"]

_POLL_EVERY = 1.5  # seconds: a lost message costs an event no more than two
_CREATE_ATTEMPTS = 5
_VIEW_LASTS = 7 * 86_400.0  # seconds, unless somebody says how long


class ShareService:
    """The shares of one server, or of one node of a server. Needs a running event loop.

    Every operation takes the caller first, and raises :class:`~rpcshare.errors.ShareError`: besides
    what its docstring says, STORAGE_UNAVAILABLE when the store fails, and INVALID_ARGUMENT, which
    names the argument. An id is looked up before a secret is looked at, and data is checked last.

    Data is what a JSON decoder makes; JSON is returned as bytes.
    """

    def __init__(
        self,
        store: ObjectStore,
        broadcaster: Broadcaster,
        credentials: Credentials,
        *,
        anonymous_create: bool = False,
        shared_store: bool = False,
        redact: bool = True,
        limits: CallerLimits | None = None,
        audit: AuditLog | None = None,
        memory_budget: int = 256 * 2**20,
        settings: LogSettings | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        """Serve the shares in ``store``.

        Args:
            store: where shares are kept. The service does not close it.
            broadcaster: tells other nodes of writes, and this one of theirs. Not closed either.
            credentials: makes ids, secrets and links.
            anonymous_create: whether a caller without a subject may make shares.
            shared_store: whether other nodes write to ``store``. Then every read looks there first,
                and so do subscriptions every few seconds, in case a message was lost.
            redact: whether what looks like a credential is replaced before it is stored.
            limits: on what one caller may do; None: none.
            audit: is told of what is done, and refused.
            memory_budget: bytes of memory for open shares that are not in use.
            settings: how logs are kept.
            clock: returns the time in milliseconds since the epoch.
        """
        self._store = store
        self._broadcaster = broadcaster
        self._credentials = credentials
        self._anonymous_create = anonymous_create
        self._shared_store = shared_store
        self._redact = redact
        self._limits = limits or CallerLimits()
        self.audit = audit or AuditLog()
        self._settings = settings or LogSettings()
        self._clock = clock
        self._door = Doorkeeper(credentials, clock, self._limits.failures)
        self._sweeper = Sweeper(self._settings.grace)
        self._node = Node(store, broadcaster, self._sweeper, self._settings, clock, observer=self)
        self._catalogue = Catalogue(store, is_shared=shared_store, clock=clock)
        self._expiry = Expiry(store, clock, self._remove_expired)
        self._shares = OpenShares(self._load, memory_budget)
        self._poller: asyncio.Task[None] | None = None
        self._is_closed = False
        self.activity = Activity()

    # Operations

    @audited(Action.SHARE_CREATE)
    async def create(
        self, caller: Caller, session_id: object, data: object = None, options: object = None
    ) -> ShareCredentials:
        """Make a share of a session, or find the one that the caller made; return its credentials.

        Args:
            caller: whose share it is.
            session_id: the session: 1 to 256 letters, digits, ``_`` and ``-``.
            data: a batch that is applied as a sync, unless it is None or empty.
            options: ``{visibility?, expiresIn?, password?}``. Of a share that is there already, what is
                given is changed.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN, RATE_LIMITED, PAYLOAD_TOO_LARGE.
        """
        access.may_create(caller, anonymous_create=self._anonymous_create)
        self._limits.take_create(caller)
        session_id = check_session_id(session_id)
        wanted = AccessOptions.parse(options)
        batch = self._parse(data if data is not None else [])
        for _ in range(_CREATE_ATTEMPTS):
            try:
                created = await self._create(caller, session_id, batch, wanted)
            except ShareError as exc:
                if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                    raise
                # It is gone meanwhile, or its removal has just been finished: make it anew.
            else:
                self.activity.created += 1
                return created
        raise storage_unavailable()

    @audited(Action.SHARE_SYNC, only_refusals=True)
    async def sync(self, caller: Caller, share_id: object, secret: object, data: object) -> int:
        """Apply a batch to a share and return its new syncCount, once that is durable.

        An empty batch counts. ``secret`` may be None for the share's owner and for an admin.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN, PAYLOAD_TOO_LARGE.
        """
        async with self._open(share_id) as log:
            self._door.may_write(caller, log, secret)
            return await self._append(log, self._parse(data))

    @audited(Action.SHARE_DELETE)
    async def delete(self, caller: Caller, share_id: object, secret: object) -> None:
        """Delete a share, and return once all of its content is removed.

        ``secret`` may be None for the share's owner and for an admin.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN. After STORAGE_UNAVAILABLE the
                share may be deleted, with its content not yet removed: then delete it again.
        """
        async with self._using(share_id) as log:
            await self._refuse_expired(log)
            self._door.may_write(caller, log, secret)
            if not await self._is_gone(log):
                await log.delete()
        self.activity.deleted += 1

    @audited(Action.SHARE_SYNC, only_refusals=True)
    async def check_write(self, caller: Caller, share_id: object, secret: object) -> View:
        """Return if the caller may write a share, as :meth:`sync` decides it: the right to read it, too.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN.
        """
        async with self._open(share_id) as log:
            self._door.may_write(caller, log, secret)
            return View(log.share_id, log.head.generation, None)

    @audited(Action.SHARE_UPDATE)
    async def update(
        self, caller: Caller, share_id: object, secret: object, options: object = None
    ) -> AccessSettings:
        """Change who may read a share, and until when; return how that is now.

        Args:
            caller: as for :meth:`sync`.
            share_id: which share.
            secret: as for :meth:`sync`.
            options: ``{visibility?, expiresIn?, password?}``: what is not given stays as it is. None for
                ``expiresIn`` and ``password`` takes them away.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN.
        """
        async with self._open(share_id, is_fresh=True) as log:
            self._door.may_write(caller, log, secret)
            return AccessSettings.of(await self._change_access(log, AccessOptions.parse(options)))

    @audited(Action.VIEW_TOKEN_CREATE)
    async def create_view_token(
        self, caller: Caller, share_id: object, secret: object, expires_in: object = None
    ) -> ViewToken:
        """Return a right to read a share, whatever its visibility, until that or its password changes.

        Args:
            caller: as for :meth:`sync`.
            share_id: which share.
            secret: as for :meth:`sync`.
            expires_in: seconds, or text such as ``30d``, after which it ends; None: 7 days. It ends with
                the share in any case.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN.
        """
        async with self._open(share_id, is_fresh=True) as log:
            self._door.may_write(caller, log, secret)
            seconds = _VIEW_LASTS if expires_in is None else parse_expires_in(expires_in)
            return self._door.view_token(log.share_id, log.head, seconds)

    @audited(Action.SHARE_UNLOCK)
    async def unlock(self, caller: Caller, share_id: object, password: object) -> ViewToken:
        """Return a right to read a share for who knows its password.

        Raises:
            ShareError: SHARE_NOT_FOUND. UNAUTHORIZED: the password is wrong. UNAUTHORIZED, FORBIDDEN: the
                share is private. INVALID_ARGUMENT: the share has no password.
        """
        async with self._open(share_id, is_fresh=True) as log:
            return await self._door.unlock(caller, log, password, _VIEW_LASTS)

    async def agent_session(self, caller: Caller, share_id: object) -> bytes:
        """Return a share as AgentSession JSON. Raises SHARE_NOT_FOUND."""
        return (await self.document(caller, share_id, Form.AGENT_SESSION)).body

    async def sync_data(self, caller: Caller, share_id: object) -> bytes:
        """Return a share as a JSON list of SyncData. Raises SHARE_NOT_FOUND."""
        return (await self.document(caller, share_id, Form.SYNC_DATA)).body

    @audited(Action.SHARE_READ, only_refusals=True)
    async def document(self, caller: Caller, share_id: object, form: Form) -> Document:
        """Return a share in one of its forms, and its version. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as log:
            return log.document(form)

    @audited(Action.SHARE_READ, only_refusals=True)
    async def version(self, caller: Caller, share_id: object) -> Version:
        """Return which version of a share :meth:`document` would be of. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as log:
            return log.version

    @audited(Action.SHARE_READ, only_refusals=True)
    async def transcript(self, caller: Caller, share_id: object) -> Transcript:
        """Return a share as it is read from top to bottom. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as log:
            transcript = log.transcript()
            self._shares.resized(log, log.share_id, log.footprint)  # which it has made larger, the first time
            return transcript

    @audited(Action.SHARE_READ, only_refusals=True)
    async def metadata(self, caller: Caller, share_id: object) -> SessionIndex:
        """Return what a listing tells of a share. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as log:
            return log.state.index()

    @audited(Action.SHARE_READ, only_refusals=True)
    async def subscribe(
        self, caller: Caller, share_id: object, from_sync_count: object = None
    ) -> Subscription:
        """Return the events of a share: see :class:`~rpcshare.shares.hub.Subscription`.

        They end when the caller's standing does.

        Args:
            caller: who reads.
            share_id: what.
            from_sync_count: the last sync that the caller has seen. If those behind it are still
                remembered, they come first; else, and with None, a snapshot does.

        Raises:
            ShareError: SHARE_NOT_FOUND.
        """
        if from_sync_count is not None and (type(from_sync_count) is not int or from_sync_count < 0):
            message = "fromSyncCount: must be a whole number that is not negative"
            raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
        async with self._reading(caller, share_id) as log:
            if self._shared_store and self._poller is None:
                self._poller = asyncio.create_task(self._poll())
            subscription = log.subscribe(from_sync_count, caller)
        if caller.standing is not None:
            refusal = ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the credential holds no more")
            subscription.on_end(caller.standing.on_end(lambda: subscription.fail(refusal)))
        return subscription

    @audited(Action.SHARES_LIST, only_refusals=True)
    async def list_own(
        self, caller: Caller, *, cursor: object = None, limit: object = None, query: object = None
    ) -> Page:
        """Return the caller's shares, newest first.

        Args:
            caller: whose.
            cursor: of the page before.
            limit: how many, 1 to 200; None: 50.
            query: what a title, directory, id or session ID must contain, in whatever case.

        Raises:
            ShareError: UNAUTHORIZED.
        """
        parsed = Query.parse(access.may_list_own(caller), cursor, limit, query)
        with self._storing():
            return await self._catalogue.page(parsed)

    @audited(Action.SHARES_LIST, only_refusals=True)
    async def list_all(
        self, caller: Caller, *, cursor: object = None, limit: object = None, query: object = None
    ) -> Page:
        """Return everybody's shares, newest first; arguments as for :meth:`list_own`.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN.
        """
        access.may_list_all(caller)
        parsed = Query.parse(None, cursor, limit, query)
        with self._storing():
            return await self._catalogue.page(parsed)

    @property
    def open_shares(self) -> OpenShares:
        """The shares that are in memory."""
        return self._shares

    def start_expiry(self) -> None:
        """Begin to remove shares whose time is over, in the background: what a server does."""
        self._expiry.start()

    async def remove_expired(self) -> None:
        """Remove the shares whose time is over. Raises STORAGE_UNAVAILABLE."""
        with self._storing():
            await self._expiry.remove_due()

    async def check(self) -> None:
        """Return if store and broadcaster answer now. Raises STORAGE_UNAVAILABLE."""
        with self._storing():
            await self._store.check()
        try:
            await self._broadcaster.check()
        except BroadcastError as exc:
            raise ShareError(
                ErrorCode.STORAGE_UNAVAILABLE, "Broadcaster unavailable", retry_after=2.0
            ) from exc

    async def close(self) -> None:
        """Write what waits to be written, and end all subscriptions. No call may follow."""
        self._is_closed = True
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        await self._expiry.close()
        await self._shares.close()
        await self._catalogue.close()
        await self._sweeper.close()

    # Open shares, as their logs tell of them (LogObserver)

    def log_changed(self, log: OpenLog, *, by_this_node: bool) -> None:
        """Keep listing and memory budget up to date."""
        self._catalogue.update(_row(log), is_written_here=by_this_node)
        self._shares.resized(log, log.share_id, log.footprint)

    def access_changed(self, log: OpenLog, *, by_this_node: bool) -> None:
        """End the subscriptions of those who may not read a share any longer."""
        self._catalogue.update(_row(log), is_written_here=by_this_node)
        log.review_subscriptions(lambda reader: access.refusal(reader, log.share_id, log.head))

    def log_ended(self, log: OpenLog) -> None:
        """Let go of a share that is deleted."""
        self._catalogue.remove(log.share_id, log.head.generation)
        self._shares.discard(log, log.share_id)

    # What operations are made of

    @asynccontextmanager
    async def _using(self, share_id: object) -> AsyncIterator[ShareLog]:
        """Open a share, which may turn out to be ended."""
        if not isinstance(share_id, str):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "shareID: must be a string")
        if not is_share_id(share_id):
            raise share_not_found()
        with self._storing():
            async with self._shares.using(share_id) as log:
                try:
                    yield log
                except ShareError as exc:
                    if exc.code is ErrorCode.SHARE_NOT_FOUND and await self._is_expired_by_now(share_id):
                        raise share_gone() from None
                    raise

    @asynccontextmanager
    async def _open(self, share_id: object, *, is_fresh: bool = False) -> AsyncIterator[ShareLog]:
        """Open a share that is there; with ``is_fresh``, as other nodes have left it."""
        async with self._using(share_id) as log:
            if await self._is_gone(log):
                raise share_not_found()
            await self._refuse_expired(log, is_fresh=is_fresh)
            yield log

    async def _refuse_expired(self, log: ShareLog, *, is_fresh: bool = False) -> None:
        # Another node may have put the end off.
        if self._shared_store and (is_fresh or self._has_expired(log.head)):
            await log.refresh()
        if self._has_expired(log.head):
            raise share_gone()

    @asynccontextmanager
    async def _reading(self, caller: Caller, share_id: object) -> AsyncIterator[ShareLog]:
        async with self._open(share_id, is_fresh=True) as log:
            await self._door.may_read(caller, log)
            yield log

    def _has_expired(self, head: Head) -> bool:
        return head.expires_at is not None and head.has_expired(self._clock())

    async def _is_expired_by_now(self, share_id: str) -> bool:
        """Whether a share that is gone had expired: then the store still knows."""
        found = await read_head(self._store, share_id)
        return found is not None and found.head.has_expired(self._clock())

    async def _remove_expired(self, share_id: str) -> None:
        """Remove a share if its time is over. Raises STORAGE_UNAVAILABLE."""
        try:
            async with self._using(share_id) as log:
                if await self._is_gone(log):
                    return
                await log.refresh()
                if self._has_expired(log.head):
                    await log.delete()
                    self.audit.done(Action.SHARE_EXPIRE, share=share_id)
        except ShareError as exc:
            if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                raise
            # Another node was quicker.

    async def _is_gone(self, log: ShareLog) -> bool:
        """Whether the share is deleted; then its removal, if it was interrupted, is finished."""
        if log.is_ended:
            await log.finish_removal()
        return log.is_ended

    async def _create(
        self, caller: Caller, session_id: str, batch: Batch, wanted: AccessOptions
    ) -> ShareCredentials:
        now = self._clock()
        with self._storing():
            change = await self._door.change(wanted, None, now) if wanted.are_given else None
            made = await claim(self._store, self._credentials, caller, session_id, now, change)
        share_id = made.credentials.id
        if (head := made.new_head) is not None:
            self._shares.add(share_id, lambda: ShareLog.new(self._node, share_id, head))
        async with self._open_or_remove(share_id, is_fresh=head is None and wanted.are_given) as log:
            if head is not None:
                await self._catalogue.add(_row(log))
                if head.head.expires_at is not None:
                    self._expiry.start()
            elif wanted.are_given:
                await self._change_access(log, wanted)
            if batch.items:
                await self._append(log, batch)
        return made.credentials

    async def _append(self, log: ShareLog, batch: Batch) -> int:
        count = await log.append(batch)
        self.activity.synced += 1
        self.activity.synced_bytes += batch.size
        return count

    @asynccontextmanager
    async def _open_or_remove(self, share_id: str, *, is_fresh: bool) -> AsyncIterator[ShareLog]:
        """Open a share that its owner makes again: one that has expired is removed first."""
        try:
            async with self._open(share_id, is_fresh=is_fresh) as log:
                yield log
        except ShareError as exc:
            if exc.code is ErrorCode.SHARE_GONE:
                await self._remove_expired(share_id)
            raise

    async def _change_access(self, log: ShareLog, wanted: AccessOptions) -> Head:
        if not wanted.are_given:
            return log.head
        change = await self._door.change(wanted, log.head, self._clock())
        if isinstance(change.expires_at, int):
            await schedule(self._store, log.share_id, change.expires_at)
        head = await log.change_head(change.applied_to)
        if head.expires_at is not None:
            self._expiry.start()
        return head

    async def _load(self, share_id: str) -> ShareLog:
        if self._is_closed:
            raise storage_unavailable()
        listed = self._catalogue.generation_of(share_id)
        found = await read_head(self._store, share_id)
        if found is None:
            older = await read_older(self._store, share_id)
            if older is not None:
                return await ShareLog.open_older(self._node, share_id, older)
            found = await read_head(self._store, share_id)  # it may just have been upgraded
        live = found if found is not None and not found.head.deleted else None
        is_dead = live is None or live.head.generation != listed
        if is_dead and listed is not None and listed != objects.OLDER:
            # A head is written before its row: so one that was listed before is dead by now.
            await self._catalogue.forget(share_id, listed)
        if live is None:
            raise share_gone() if found is not None and found.head.expired else share_not_found()
        log = await ShareLog.open(self._node, share_id, live)
        try:
            if not log.is_ended:
                await self._catalogue.repair(_row(log))
        except BaseException:
            log.detach()  # nobody will close it
            raise
        return log

    def _parse(self, data: object) -> Batch:
        batch = parse_batch(data)
        if self._redact:
            batch = redact_batch(batch)
        limit = self._settings.max_share_size
        if 0 < limit < batch.size:
            message = f"A share may be at most {limit} bytes"
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
        return batch

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except StoreError as exc:
            self.activity.store_errors += 1
            raise storage_unavailable(exc) from exc
        except ShareError as exc:
            self.activity.store_errors += exc.code is ErrorCode.STORAGE_UNAVAILABLE
            raise

    async def _poll(self) -> None:
        """Look for what other nodes wrote to watched shares, should their messages be lost."""
        while True:
            await asyncio.sleep(_POLL_EVERY)
            for log in self._shares.watched():
                try:
                    await log.refresh()
                except ShareError as exc:
                    if exc.code in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                        continue  # its subscribers have been told
                    break  # the store fails, which has been logged


def _row(log: OpenLog) -> IndexRow:
    return IndexRow.of(log.head, log.state.index())
