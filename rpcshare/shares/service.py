"""What callers can do with shares: the operations, whatever protocol they come by.

Who may, and what is told of it, is settled here; how it is done, in :mod:`~rpcshare.shares.registry`.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from rpcshare.auth.allowances import Allowances
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller, DefaultVisibility, View
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.broadcast import Broadcaster
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.jsontext import JSONText
from rpcshare.shares import access
from rpcshare.shares.access_settings import AccessOptions, AccessSettings, ViewToken, parse_expires_in
from rpcshare.shares.activity import Activity
from rpcshare.shares.adoption import adopts_by_writing
from rpcshare.shares.audited import audited
from rpcshare.shares.authorization import Authorization
from rpcshare.shares.catalogue_row import CatalogueRow, Figures
from rpcshare.shares.content import Content
from rpcshare.shares.context import LogSettings, wall_clock
from rpcshare.shares.create import claim
from rpcshare.shares.document import Document, Form, Version
from rpcshare.shares.failures import listing_unavailable, storage_unavailable
from rpcshare.shares.objects import Head, Visibility
from rpcshare.shares.open_share import OpenShare
from rpcshare.shares.outline import Transcript
from rpcshare.shares.page import Filters, Page, Query, Reach, RowPage
from rpcshare.shares.parsing import BatchParser, DataReader, is_large
from rpcshare.shares.projection import IndexLag
from rpcshare.shares.refusals import Refusal
from rpcshare.shares.registry import ShareRegistry
from rpcshare.shares.search import SearchPage, SearchSettings
from rpcshare.shares.search_query import SearchQuery
from rpcshare.shares.share_cache import ShareCache
from rpcshare.shares.share_identity import (
    Credentials,
    ShareCredentials,
    check_session_id,
    is_session_id,
)
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.subscriptions import Subscription
from rpcshare.shares.syncdata import Batch
from rpcshare.shares.usage import OwnerUsage
from rpcshare.storage import ObjectStore, StoreUsage

__all__ = ["ShareService"]

_CREATE_ATTEMPTS = 5
_VIEW_LASTS = 7 * 86_400.0  # seconds, unless somebody says how long


class HandedOver(msgspec.Struct, frozen=True):
    """What became of an owner's shares."""

    count: int
    indexing: bool
    """Not all shares have been indexed yet, so there may be more."""


class _UpdatedAccess(NamedTuple):
    settings: AccessSettings
    is_another: bool
    """Whether they were changed."""


class ShareService:
    """The shares of one server, or of one node of a server. Needs a running event loop.

    Every operation takes the caller first, and raises :class:`~rpcshare.errors.ShareError`: besides
    what its docstring says, STORAGE_UNAVAILABLE when the store fails, and INVALID_ARGUMENT, which
    names the argument. An id is looked up before a secret is looked at, and data is checked last.

    Data is what a JSON decoder makes, or :class:`~rpcshare.jsontext.JSONText`; that of a sync may be a
    :class:`~rpcshare.shares.parsing.DataReader`, too. JSON is returned as bytes.
    """

    def __init__(
        self,
        store: ObjectStore,
        broadcaster: Broadcaster,
        credentials: Credentials,
        *,
        anonymous_create: bool = False,
        default_visibility: DefaultVisibility = "link",
        shared_store: bool = False,
        redact: bool = True,
        limits: CallerLimits | None = None,
        allowances: Allowances | None = None,
        audit: AuditLog | None = None,
        memory_budget: int = 256 * 2**20,
        settings: LogSettings | None = None,
        search: SearchSettings | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        """Serve the shares in ``store``.

        Args:
            store: where shares are kept. The service does not close it.
            broadcaster: tells other nodes of writes, and this one of theirs. Not closed either.
            credentials: makes ids, secrets and links.
            anonymous_create: whether a caller without a subject may make shares.
            default_visibility: of a share whose creator does not say, and has no default of its own.
            shared_store: whether other nodes write to ``store``. Then every read looks there first,
                and so do subscriptions every few seconds, in case a message was lost.
            redact: whether what looks like a credential is replaced before it is stored.
            limits: on what one caller may do; None: none.
            allowances: what users and organizations may have; None: as much as they like.
            audit: is told of what is done, and refused.
            memory_budget: bytes of memory for open shares that are not in use.
            settings: how logs are kept.
            search: how shares are indexed; None: in a database that ends with the service.
            clock: returns the time in milliseconds since the epoch.
        """
        settings = settings or LogSettings()
        limits = limits or CallerLimits()
        self.audit = audit or AuditLog()
        self.activity = Activity()
        self._credentials = credentials
        self._anonymous_create = anonymous_create
        self._default_visibility = default_visibility
        self._limits = limits
        self._parser = BatchParser(
            max_size=settings.max_share_size, max_items=settings.max_share_items, redact=redact
        )
        self._clock = clock
        self._authorization = Authorization(credentials, clock, limits.failures)
        self._shares = ShareRegistry(
            store,
            broadcaster,
            is_shared=shared_store,
            memory_budget=memory_budget,
            settings=settings,
            clock=clock,
            activity=self.activity,
            refusal=access.refusal,
            on_expired=self._tell_of_expiry,
            search=search,
            allowances=allowances,
        )

    # Operations

    @audited(Action.SHARE_CREATE)
    async def create(
        self,
        caller: Caller,
        session_id: object,
        data: object = None,
        options: object = None,
        *,
        if_there: Callable[[bytes], bool] | None = None,
    ) -> ShareCredentials:
        """Make a share of a session, or find the one that the caller made; return its credentials.

        Args:
            caller: whose share it is.
            session_id: the session: 1 to 256 letters, digits, ``_`` and ``-``.
            data: a batch that is applied as a sync, unless it is None or empty.
            options: ``{visibility?, expiresIn?, password?, secret?}``. Of a share that is there already,
                what is given is changed. The secret is that of a share of the session that belongs to
                nobody, which becomes the caller's by it.
            if_there: of a share that is there already, whether its session, as JSON, is the one that is
                meant; None: it is. Otherwise nothing is changed.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN, RATE_LIMITED, PAYLOAD_TOO_LARGE. INVALID_SECRET: the
                session has a share that belongs to nobody, and its secret is another. INVALID_ARGUMENT:
                it is not the one that is meant.
        """
        access.may_create(caller, anonymous_create=self._anonymous_create)
        self._limits.take_create(caller)
        session_id = check_session_id(session_id)
        shown: object = None
        if isinstance(options, dict):
            options = dict(options)
            shown = options.pop("secret", None)
        if shown is not None and not isinstance(shown, str):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "secret: must be a string")
        wanted = AccessOptions.parse(options)
        if data is None or (isinstance(data, JSONText) and data.is_null):
            data = []
        gone: ShareError | None = None
        async with self._parser.room_for(data):
            parser = self._parser
            batch = await parser.parse_in_slices(data) if is_large(data) else parser.parse(data)
            for _ in range(_CREATE_ATTEMPTS):
                try:
                    created = await self._create(caller, session_id, batch, wanted, shown, if_there)
                except ShareError as exc:
                    if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                        raise
                    # It is gone meanwhile, or its removal has just been finished: make it anew.
                    gone = exc if exc.code is ErrorCode.SHARE_GONE else None
                else:
                    self.activity.created += 1
                    return created
        # One that has expired and stays: the clock was set forward, and may be wrong.
        raise gone or storage_unavailable()

    @audited(Action.SHARE_CREATE, only_refusals=True)
    async def check_create(self, caller: Caller) -> None:
        """Return if the caller may make a share now, before its data is looked at; it does not count.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN, RATE_LIMITED.
        """
        access.may_create(caller, anonymous_create=self._anonymous_create)
        self._limits.check_create(caller)

    async def check_exists(self, share_id: object) -> None:
        """Return if there is a share of this id, before a secret or data is looked at.

        Raises:
            ShareError: SHARE_NOT_FOUND, SHARE_GONE.
        """
        async with self._shares.opened(share_id):
            pass

    @audited(Action.SHARE_SYNC, only_refusals=True)
    async def sync(self, caller: Caller, share_id: object, secret: object, data: object) -> int:
        """Apply a batch to a share and return its new syncCount, once that is durable.

        An empty batch counts. ``secret`` may be None for the share's owner and for an admin.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN, PAYLOAD_TOO_LARGE.
        """
        async with self._shares.opened(share_id) as share:
            self._authorization.may_write(caller, share, secret)
            try:
                count = await self._sync(caller, share, secret, data)
            except ShareError as exc:
                await self._refused(share, exc)
                raise
            if share.share_id in self._shares.refusals:
                await self._shares.refusals.clear(share.share_id)
            return count

    def _sync(self, caller: Caller, share: OpenShare, secret: object, data: object) -> Awaitable[int]:
        adopts = adopts_by_writing(caller, share.head, secret)
        if adopts or share.is_arriving or is_large(data):
            return self._sync_in_turn(caller, share, data, adopts=adopts)
        return self._shares.append(share, self._parser.parse(data))

    async def _sync_in_turn(self, caller: Caller, share: OpenShare, data: object, *, adopts: bool) -> int:
        if not share.is_arriving and not is_large(data):
            batch = self._parser.parse(data)
            await self._adopt(caller, share)
            return await self._shares.append(share, batch)
        owner = caller.owner if adopts else share.head.owner
        async with contextlib.AsyncExitStack() as held:
            async with share.turn():
                await held.enter_async_context(self._parser.room_for(data))
                if isinstance(data, DataReader):
                    held.enter_context(self.open_shares.reserved(data.size))
                batch = await self._parser.parse_in_slices(data)
                if adopts:
                    await self._adopt(caller, share)
                # Far from a limit, this waits for nothing; near one, others of the organization wait for it.
                room = await held.enter_async_context(self._shares.quotas.growing(owner, batch.size))
                submitted = share.submit(batch, room)
            return await self._shares.appended(batch, submitted)

    async def record_refusal(
        self, caller: Caller, share_id: object, error: ShareError, *, may_write: bool
    ) -> None:
        """Take note that a sync was refused before it got here, if the caller may write the share.

        Args:
            caller: who sent it.
            share_id: which share.
            error: what the caller is told.
            may_write: whether the caller is known to be one who may; else the share has to be its own.
        """
        with contextlib.suppress(ShareError):
            async with self._shares.opened(share_id) as share:
                if not may_write:
                    access.may_write(caller, share.head, None, self._credentials)
                await self._refused(share, error)

    async def _refused(self, share: OpenShare, error: ShareError) -> None:
        if not share.is_ended:
            await self._shares.refusals.add(
                share.share_id, share.head.generation, share.state.sync_count, error
            )

    @audited(Action.SHARE_READ, only_refusals=True)
    async def last_refusal(self, caller: Caller, share_id: object) -> Refusal | None:
        """Return why the last sync of a share was not taken; None if it was. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            return await self._shares.last_refusal(share)

    @audited(Action.SHARE_DELETE)
    async def delete(self, caller: Caller, share_id: object, secret: object) -> None:
        """Delete a share, and try to remove all of its content before returning.

        What cannot be removed now, because the store fails, is removed in the background: by this server, or
        by any that is there later. ``secret`` may be None for the share's owner and for an admin.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN. STORAGE_UNAVAILABLE: the share stays
                readable.
        """
        async with self._shares.opened_to_delete(share_id) as share:
            self._authorization.may_write(caller, share, secret)
            await self._shares.delete(share)
            await self._shares.refusals.clear(share.share_id)
        self.activity.deleted += 1

    @audited(Action.SHARE_SYNC, only_refusals=True)
    async def check_write(self, caller: Caller, share_id: object, secret: object) -> View:
        """Return if the caller may write a share, as :meth:`sync` decides it: the right to read it, too.

        Raises:
            ShareError: SHARE_NOT_FOUND, INVALID_SECRET, FORBIDDEN.
        """
        async with self._shares.opened(share_id) as share:
            self._authorization.may_write(caller, share, secret)
            return View(share.share_id, share.head.generation, None)

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
        if options is None or options == {}:
            return await self._look_at_access(caller, share_id, secret)
        return (await self._update(caller, share_id, secret, options)).settings

    @audited(Action.SHARE_READ, only_refusals=True)
    async def _look_at_access(self, caller: Caller, share_id: object, secret: object) -> AccessSettings:
        async with self._shares.opened(share_id, is_fresh=True) as share:
            self._authorization.may_write(caller, share, secret)
            return AccessSettings.of(share.head)

    @audited(Action.SHARE_UPDATE, is_done=lambda updated: updated.is_another)
    async def _update(
        self, caller: Caller, share_id: object, secret: object, options: object
    ) -> _UpdatedAccess:
        async with self._shares.opened(share_id, is_fresh=True) as share:
            self._authorization.may_write(caller, share, secret)
            before = share.head
            head = await self._change_access(share, AccessOptions.parse(options))
            return _UpdatedAccess(AccessSettings.of(head), is_another=head != before)

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
        async with self._shares.opened(share_id, is_fresh=True) as share:
            self._authorization.may_write(caller, share, secret)
            seconds = _VIEW_LASTS if expires_in is None else parse_expires_in(expires_in)
            return self._authorization.view_token(share.share_id, share.head, seconds)

    @audited(Action.SHARE_UNLOCK)
    async def unlock(self, caller: Caller, share_id: object, password: object) -> ViewToken:
        """Return a right to read a share for who knows its password.

        Raises:
            ShareError: SHARE_NOT_FOUND. UNAUTHORIZED: the password is wrong. UNAUTHORIZED, FORBIDDEN: the
                share is private. INVALID_ARGUMENT: the share has no password.
        """
        async with self._shares.opened(share_id, is_fresh=True) as share:
            return await self._authorization.unlock(caller, share, password, _VIEW_LASTS)

    async def agent_session(self, caller: Caller, share_id: object) -> bytes:
        """Return a share as AgentSession JSON. Raises SHARE_NOT_FOUND."""
        return (await self.document(caller, share_id, Form.AGENT_SESSION)).body

    async def sync_data(self, caller: Caller, share_id: object) -> bytes:
        """Return a share as a JSON list of SyncData. Raises SHARE_NOT_FOUND."""
        return (await self.document(caller, share_id, Form.SYNC_DATA)).body

    @audited(Action.SHARE_READ, only_refusals=True)
    async def document(self, caller: Caller, share_id: object, form: Form) -> Document:
        """Return a share in one of its forms, and its version. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            return share.document(form)

    @audited(Action.SHARE_READ, only_refusals=True)
    async def version(self, caller: Caller, share_id: object) -> Version:
        """Return which version of a share :meth:`document` would be of. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            return share.version

    @audited(Action.SHARE_READ, only_refusals=True)
    async def transcript(self, caller: Caller, share_id: object) -> Transcript:
        """Return a share as it is read from top to bottom. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            return await self._shares.transcript(share)

    async def shares_of_same_owner(
        self, caller: Caller, share_id: str, session_ids: Sequence[str]
    ) -> dict[str, str]:
        """Return which shares of other sessions the owner of a share has, as far as the caller may read them.

        That one may not be read is no refusal, and nobody is told that it is there. Who needs a password has
        to open it.

        Args:
            caller: who looks.
            share_id: a share that the caller reads.
            session_ids: of what.

        Returns:
            Ids of shares by session ID.
        """
        async with self._shares.opened(share_id) as share:
            owner = share.head.owner
        if owner is None:
            return {}
        wanted = [each for each in session_ids if is_session_id(each)]
        ids = {each: list(self._credentials.share_ids(each, owner)) for each in wanted}
        heads = await self._shares.heads_of(ids, owner)
        return {
            session_id: found
            for session_id, (found, head) in heads.items()
            if not caller.has_lost_standing and access.reads_without_password(caller, found, head)
        }

    @audited(Action.SHARE_READ, only_refusals=True)
    async def document_and_transcript(self, caller: Caller, share_id: object) -> tuple[Document, Transcript]:
        """Return a share as AgentSession, and as it is read from top to bottom. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            transcript = await self._shares.transcript(share)
            return share.document(Form.AGENT_SESSION), transcript

    @audited(Action.SHARE_READ, only_refusals=True)
    async def part(self, caller: Caller, share_id: object, part_id: str) -> bytes | None:
        """Return a part, or the one that has an attachment of this id, as JSON; None if there is none.

        Raises:
            ShareError: SHARE_NOT_FOUND.
        """
        async with self._reading(caller, share_id) as share:
            return await share.state.part(part_id)

    @audited(Action.SHARE_READ, only_refusals=True)
    async def metadata(self, caller: Caller, share_id: object) -> SessionIndex:
        """Return what a listing tells of a share. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            refusal = await self._shares.last_refusal(share)
            return msgspec.structs.replace(share.state.index(), last_refusal=refusal)

    @audited(Action.SHARE_READ, only_refusals=True)
    async def row(self, caller: Caller, share_id: object) -> CatalogueRow:
        """Return what a list shows of a share, without what is counted. Raises SHARE_NOT_FOUND."""
        async with self._reading(caller, share_id) as share:
            return CatalogueRow.of(share.head, share.state, Figures())

    def now(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return self._clock()

    @audited(Action.SHARE_READ, only_refusals=True)
    async def subscribe(
        self, caller: Caller, share_id: object, from_sync_count: object = None
    ) -> Subscription:
        """Return the events of a share: see :class:`~rpcshare.shares.subscriptions.Subscription`.

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
        async with self._reading(caller, share_id) as share:
            subscription = self._shares.subscribe(share, from_sync_count, caller)
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
            ShareError: UNAUTHORIZED. STORAGE_UNAVAILABLE: the database failed, too.
        """
        owners = access.may_list_own(caller)
        page = await self._shares.listing.page(Query.parse(owners, cursor, limit, query))
        return await self._with_refusals(page.public())

    @audited(Action.SHARES_LIST, only_refusals=True)
    async def list_all(
        self, caller: Caller, *, cursor: object = None, limit: object = None, query: object = None
    ) -> Page:
        """Return everybody's shares, newest first; arguments as for :meth:`list_own`.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN.
        """
        access.may_list_all(caller)
        page = await self._shares.listing.page(Query.parse(None, cursor, limit, query))
        return await self._with_refusals(page.public())

    @audited(Action.SHARES_LIST, only_refusals=True)
    async def list_sessions(
        self, caller: Caller, *, cursor: object = None, limit: object = None, query: object = None
    ) -> Page:
        """Return the shares that the caller may list: an admin everybody's, others their own.

        A user lists what is for the users of the organization, too, and an admin of it all that it has.

        Raises:
            ShareError: UNAUTHORIZED.
        """
        parsed = Query.parse(access.may_list(caller), cursor, limit, query)
        page = await self._shares.listing.page(parsed)
        return await self._with_refusals(page.public())

    @audited(Action.SHARES_LIST, only_refusals=True)
    async def list_rows(
        self,
        caller: Caller,
        *,
        is_own: bool = False,
        owner: str | None = None,
        cursor: object = None,
        limit: object = None,
        query: object = None,
        by_change: bool = False,
        is_backwards: bool = False,
        filters: Filters | None = None,
    ) -> RowPage:
        """Return rows of the shares that the caller may list, as people look at them.

        Args:
            caller: who looks.
            is_own: whether an admin is shown no more than others: his own.
            owner: whose shares alone, for an admin; others see what they may list in any case.
            cursor: of a row: what comes behind it; or before it, with ``is_backwards``.
            limit: as for :meth:`list_own`.
            query: as for :meth:`list_own`.
            by_change: whether those come first that changed last, and not those that were made last.
            is_backwards: see ``cursor``.
            filters: which shares.

        Raises:
            ShareError: UNAUTHORIZED.
        """
        reach = Reach(access.may_list_own(caller)) if is_own else access.may_list(caller)
        if reach.owners is None and owner:
            reach = Reach((owner,))
        parsed = Query.parse(
            reach,
            cursor,
            limit,
            query,
            by_change=by_change,
            is_backwards=is_backwards,
            filters=filters,
        )
        page = await self._shares.listing.page(parsed)
        told = await self._told_refusals([row.index for row in page.rows])
        rows = [msgspec.structs.replace(row, index=index) for row, index in zip(page.rows, told, strict=True)]
        return msgspec.structs.replace(page, rows=rows)

    @audited(Action.SHARES_SEARCH, only_refusals=True)
    async def search(
        self, caller: Caller, query: object, *, cursor: object = None, limit: object = None
    ) -> SearchPage:
        """Find words within the shares that the caller may list: an admin everybody's, others their own.

        Args:
            caller: who looks.
            query: see :mod:`~rpcshare.shares.search_query`.
            cursor: of the page before.
            limit: how many hits, 1 to 100; None: 20.

        Raises:
            ShareError: UNAUTHORIZED. STORAGE_UNAVAILABLE: the database failed, too.
        """
        reach = access.may_list(caller)
        return await self._shares.listing.search(SearchQuery.parse(query, cursor, limit), reach)

    async def hand_over(self, caller: Caller, former: str, owner: str) -> HandedOver:
        """Make all shares of one owner those of another: for an admin, when a person signs in as a user.

        Raises:
            ShareError: UNAUTHORIZED, FORBIDDEN. STORAGE_UNAVAILABLE: some have been handed over, perhaps.
        """
        with self.audit.refusals(Action.SHARE_ADOPT, caller):
            access.may_list_all(caller)
        ids: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._shares.listing.page(Query.parse(Reach((former,)), cursor, 200, None))
            ids += [row.index.id for row in page.rows]
            cursor = page.public().cursor
            if cursor is None:
                break
        count = 0
        for share_id in ids:
            try:
                async with self._shares.opened(share_id, is_fresh=True) as share:
                    is_handed_over = await self._shares.hand_over(share, former, owner, self._credentials)
            except ShareError as exc:
                if exc.code not in (ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE):
                    raise
                continue  # it has ended meanwhile
            if is_handed_over:
                count += 1
                self.audit.done(Action.SHARE_ADOPT, caller, share=share_id, owner=owner)
        return HandedOver(count, indexing=not page.is_complete)

    async def _with_refusals(self, page: Page) -> Page:
        return msgspec.structs.replace(page, sessions=await self._told_refusals(page.sessions))

    async def _told_refusals(self, rows: list[SessionIndex]) -> list[SessionIndex]:
        return [
            msgspec.structs.replace(row, last_refusal=refusal) if refusal is not None else row
            for row in rows
            for refusal in [await self._shares.refusals.find_listed(row.id, row.sync_count)]
        ]

    async def usage(self, owner: str) -> OwnerUsage:
        """Return what the shares of an owner take, and those of its organization.

        Raises:
            ShareError: STORAGE_UNAVAILABLE: the database failed.
        """
        try:
            return await self._shares.quotas.usage(owner)
        except DatabaseError as exc:
            raise listing_unavailable(exc) from exc

    def index_lag(self) -> IndexLag:
        """Return how far the search index is behind."""
        return self._shares.listing.lag()

    async def warm_up_search(self) -> None:
        """Have ready what the first listing would wait for: a part of a second, mostly in threads."""
        await self._shares.listing.warm_up()

    def start_search(self) -> None:
        """Begin to index what no server has indexed, in the background: what a server does."""
        self._shares.listing.start()

    @property
    def open_shares(self) -> ShareCache:
        """The shares that are in memory."""
        return self._shares.open_shares

    def start_expiry(self) -> None:
        """Begin to remove shares whose time is over, in the background: what a server does."""
        self._shares.start_expiry()

    async def remove_expired(self) -> None:
        """Remove the shares whose time is over. Raises STORAGE_UNAVAILABLE."""
        await self._shares.remove_expired()

    def store_usage(self) -> StoreUsage | None:
        """Return how much room the store takes and has; None if it is in no file."""
        return self._shares.store_usage()

    async def check(self) -> None:
        """Return if store and broadcaster answer now. Raises STORAGE_UNAVAILABLE."""
        await self._shares.check()

    async def close(self) -> None:
        """Write what waits to be written, and end all subscriptions. No call may follow."""
        await self._shares.close()

    # What operations are made of

    @asynccontextmanager
    async def _reading(self, caller: Caller, share_id: object) -> AsyncIterator[OpenShare]:
        async with self._shares.opened(share_id, is_fresh=True) as share:
            await self._authorization.may_read(caller, share)
            yield share

    async def _create(
        self,
        caller: Caller,
        session_id: str,
        batch: Batch,
        wanted: AccessOptions,
        shown: str | None,
        if_there: Callable[[bytes], bool] | None,
    ) -> ShareCredentials:
        now = self._clock()
        # Of a share that is there already, only what is asked for is changed.
        of_new = wanted.with_default(self._default_visibility_of(caller))
        if of_new.visibility is not UNSET:
            access.check_visibility(of_new.visibility, caller.owner)
        claiming = partial(
            claim,
            credentials=self._credentials,
            caller=caller,
            session_id=session_id,
            now=now,
            access=await self._authorization.change(of_new, None, now) if of_new.are_given else None,
            adoptable=lambda found: self._authorization.adoptable(caller, session_id, found, shown),
            shown=shown,
        )
        async with self._shares.quotas.making(caller.owner) as may_make:
            claiming = partial(claiming, before_new=lambda: may_make(Content().growth(batch.items).size))
            claimed = self._shares.claimed(claiming, caller, is_fresh=wanted.are_given)
            async with claimed as (share, credentials, is_new):
                if is_new:
                    if batch.items:
                        await self._shares.append_first(share, batch)
                    return credentials
                if if_there is not None and not if_there(share.state.session):
                    raise ShareError(ErrorCode.INVALID_ARGUMENT, "sessionID: another session has it")
                before = share.head
                if await self._change_access(share, wanted) != before:
                    self.audit.done(Action.SHARE_UPDATE, caller, share=share.share_id)
                if batch.items:
                    await self._shares.append(share, batch)
        return credentials

    def _default_visibility_of(self, caller: Caller) -> Visibility:
        default = Visibility(caller.default_visibility or self._default_visibility)
        if default is Visibility.ORGANIZATION and caller.organization is None:
            return Visibility.PRIVATE  # of whoever is in none
        return default

    async def _adopt(self, caller: Caller, share: OpenShare) -> None:
        async with self._shares.quotas.making(caller.owner) as may_make:
            await may_make(share.state.content.size)
            await self._adopt_now(caller, share)

    async def _adopt_now(self, caller: Caller, share: OpenShare) -> None:
        if await self._shares.adopt(share, caller):
            self.audit.done(Action.SHARE_ADOPT, caller, share=share.share_id)

    async def _change_access(self, share: OpenShare, wanted: AccessOptions) -> Head:
        if not wanted.are_given:
            return share.head
        if wanted.visibility is not UNSET:
            access.check_visibility(wanted.visibility, share.head.owner)
        change = await self._authorization.change(wanted, share.head, self._clock())
        return await self._shares.change_access(share, change)

    def _tell_of_expiry(self, share_id: str) -> None:
        self.audit.done(Action.SHARE_EXPIRE, share=share_id)
