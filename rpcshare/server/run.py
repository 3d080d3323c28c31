"""Running the server: from settings to a listening socket, and to a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote
from uuid import UUID

import structlog
import uvicorn
from anyio.lowlevel import checkpoint

from rpcshare.auth.admin_token import AdminTokenVerifier
from rpcshare.auth.api_key_verifier import ApiKeyVerifier
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.cookies import CookieReader, SessionSeal, SiteCookies
from rpcshare.auth.ended_tokens import EndedTokens
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.revocation_list import RevocationList
from rpcshare.auth.secret_files import ADMIN_TOKEN_FILE, admin_token, shared_secret
from rpcshare.auth.signed_tokens import SignedTokenVerifier
from rpcshare.auth.subject_sources import SubjectSources
from rpcshare.auth.unprefixed_owners import UnprefixedOwners, kept_unprefixed_owners
from rpcshare.auth.view_tokens import ViewTokenVerifier
from rpcshare.broadcast import Broadcaster, LocalBroadcaster, open_broadcaster
from rpcshare.compiled import core
from rpcshare.config import ConfigError, Settings
from rpcshare.database import DatabaseError, DatabaseLocation, check_not_newer, parse_location
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.accepting import raise_descriptor_limit
from rpcshare.server.app import create_app
from rpcshare.server.connection_verifiers import head_verifiers, warn_of_wide_networks
from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.http_server import HttpServer
from rpcshare.server.listening import listen, passed_sockets
from rpcshare.server.logs import configure_logging
from rpcshare.server.malloc_trim import giving_back, tune_allocator
from rpcshare.server.shutdown import Shutdown
from rpcshare.server.tls import ServerTls
from rpcshare.server.tls_protocols import TlsHttpProtocol, TlsWebSocketProtocol
from rpcshare.server.token_issuers import token_issuers
from rpcshare.server.websocket_protocol import WebSocketProtocol
from rpcshare.shares.context import LogSettings
from rpcshare.shares.rollback import MARKS_FILE, HighWaterMarks, MarksError, RollbackCheckedStore
from rpcshare.shares.search import SearchSettings, open_index
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import (
    MissingKeysError,
    ObjectStore,
    StoreError,
    check_needs_no_keys,
    note_shared_secret,
    open_store,
    store_identity,
)
from rpcshare.storage.conditional_write_probe import UnconditionalWritesError, check_conditional_writes
from rpcshare.storage.sqlite_versions import wal_reset_warning

if TYPE_CHECKING:
    from rpcshare.server.worker import Worker

__all__ = ["serve"]

logger = structlog.get_logger("rpcshare.server")

# How long a stop may take, which is 10 s in all: for sessions to end, and then for what else is open.
DRAIN_SECONDS = 7.0
CLOSE_SECONDS = 2

# Of the latter, how long requests may take whose bodies are still arriving.
BODY_SECONDS = 1.0

# Bytes of memory for open shares that are not in use, of all workers.
MEMORY_BUDGET = 256 * 2**20

# Seconds until what draws pages is started without having been asked for: many servers do not live that long.
WARM_UP_AFTER = 3.0

# Seconds between comparisons of the search index with the store: where every server tells of its writes, and
# where each has an index of its own.
COMPARE_EVERY = 300.0
COMPARE_OFTEN = 5.0

PING_INTERVAL = 15.0
PING_TIMEOUT = 10.0

# How many more objects must have been made than freed for the collector to look at the young ones; Python's
# own 700 are made by a few calls that are under way.
GC_THRESHOLD = 100_000


def serve(settings: Settings) -> int:
    """Run the server until SIGTERM or SIGINT; return the exit status.

    Raises:
        ConfigError: a URL in the settings names nothing that there is.
        ShareError: the store or the broadcaster cannot be reached.
        OSError: the address cannot be listened on.
        SecretFileError: the data directory's secrets can be neither read nor made.
        CertificateFileError: a certificate, a key or a revocation list is of no use.
    """
    configure_logging(settings)
    raise_descriptor_limit()
    _refuse_workers_without_store(settings)
    loop_factory = _loop_factory()
    passed = passed_sockets(os.environ)
    if passed:
        address = passed[0].getsockname()
        settings = settings.model_copy(update={"host": address[0], "port": address[1]})
    with _prepared(settings, passed) as ground:
        warn_of_wide_networks(settings)
        _tune_garbage_collection()
        tune_allocator()

        def serve_here(worker: Worker | None = None) -> None:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(checkpoint())  # anyio imports its backend now: 40 ms the first caller would wait
                runner.run(_serve(settings, ground, worker))

        if settings.workers > 1:
            from rpcshare.server.workers import supervise  # noqa: PLC0415 -- one process needs none of it

            say_ready = partial(_say_ready, settings, ground)
            return supervise(settings.workers, serve_here, ground.listeners, say_ready)
        serve_here()
    return 0


def _say_ready(settings: Settings, ground: _Ground) -> None:
    """Tell where the server listens, now that it does. A start that fails says nothing but why."""
    print(_announcement(settings, ground), flush=True)  # noqa: T201 -- this is what the command is for
    warning = wal_reset_warning() if settings.store_url.startswith("sqlite:") else None
    if warning is not None:
        logger.warning(warning)


class _Ground(NamedTuple):
    """What there is before anything is begun, and is the same for all workers."""

    token: str
    secret: UUID
    tls: ServerTls | None
    listeners: list[socket.socket]
    are_passed: bool
    """Whether the listeners are a service manager's, who listens on when this server does not."""

    @property
    def port(self) -> int:
        """The port of the first."""
        return int(self.listeners[0].getsockname()[1])

    def base_url(self, settings: Settings) -> str:
        """Return the base of every link to the server."""
        return settings.base_url(self.port)

    def __repr__(self) -> str:
        """Leave out token and secret."""
        return f"_Ground(listeners={self.listeners!r})"


@contextlib.contextmanager
def _prepared(settings: Settings, passed: list[socket.socket]) -> Iterator[_Ground]:
    token = settings.token.get_secret_value() if settings.token else None
    token = admin_token(token, settings.data_dir)
    secret = shared_secret(
        settings.shared_secret.get_secret_value() if settings.shared_secret else None,
        settings.data_dir,
    )
    tls = ServerTls.of_settings(settings)
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in passed or [listen(settings)]]
        yield _Ground(token, secret, tls, listeners, are_passed=bool(passed))


def _refuse_workers_without_store(settings: Settings) -> None:
    if settings.workers > 1 and settings.store_url.startswith("memory:"):
        raise ConfigError("--workers: a store in memory is one process's own; more need another --store")


def _tune_garbage_collection() -> None:
    """Have the collector look less often, and never at what stays as long as the process.

    Reference counts free nearly all that a request makes; cycles are rare, and what connections hold is
    walked through in vain each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 -- not to be had on every platform
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(settings: Settings, ground: _Ground, worker: Worker | None) -> None:
    """Serve until SIGTERM or SIGINT, as one of several workers or alone."""
    base_url = ground.base_url(settings)
    async with contextlib.AsyncExitStack() as stack:
        if worker is not None:
            stack.enter_context(worker.among_others())
        if ground.tls is not None:
            stack.enter_context(ground.tls.renewing())
        revocation_lists: list[RevocationList] = []
        verifiers_of_heads = stack.enter_context(head_verifiers(settings, revocation_lists.append))
        store = await stack.enter_async_context(_opened_store(settings))
        broadcaster = await stack.enter_async_context(_opened_broadcaster(settings, worker, store))
        credentials = Credentials(ground.secret, base_url)
        await _warn_of_another_shared_secret(store, credentials)
        audit = AuditLog()
        stack.callback(audit.close)
        limits = CallerLimits(
            creates=settings.max_creates,
            failed_authentications=settings.max_failed_authentications,
            connections=settings.max_connections,
            key=None if worker is None else worker.limits_key,
        )
        service = ShareService(
            store,
            broadcaster,
            credentials,
            anonymous_create=settings.anonymous_create,
            default_visibility=settings.default_visibility,
            shared_store=_may_be_shared(settings),
            redact=settings.redact,
            limits=limits,
            audit=audit,
            memory_budget=MEMORY_BUDGET // settings.workers,
            settings=LogSettings(
                max_share_size=settings.max_share_size, max_share_items=settings.max_share_items
            ),
            search=await stack.enter_async_context(_search(settings)),
        )
        stack.push_async_callback(service.close)
        service.start_expiry()
        issuers = await stack.enter_async_context(token_issuers(settings))
        api_keys = await stack.enter_async_context(ApiKeyVerifier(store).refreshing())
        ended = await stack.enter_async_context(EndedTokens(store).refreshing())
        signed_tokens = SignedTokenVerifier(issuers, ended)
        view_tokens = ViewTokenVerifier(credentials.view_tokens())
        seal = SessionSeal(ground.secret)
        origins = OriginPolicy(base_url, is_public=settings.public_url is not None)
        authenticator = Authenticator(
            [AdminTokenVerifier(ground.token), api_keys, view_tokens, signed_tokens],
            verifiers_of_heads,
            is_no_guess=signed_tokens.names_unknown_key,
            sources=await _subject_sources(store, settings),
            failures=limits.failures,
            audit=audit,
            cookies=CookieReader(seal, origins, SiteCookies(base_url)),
        )
        app, connections = create_app(
            settings,
            service,
            authenticator,
            base_url,
            keys=ApiKeys(store),
            caller_limits=limits,
            audit=audit,
            seal=seal,
        )
        stack.push_async_callback(connections.close)
        stack.enter_context(connections.metrics.measuring_lag())
        stack.enter_context(giving_back())
        for lists in revocation_lists:
            connections.metrics.count_unchecked_authorities(partial(_unchecked, lists))
        if worker is not None:
            worker.share_limits(limits, audit)
            metrics = connections.metrics
            metrics.summed = worker.sum_metrics(metrics.registry)
            stack.callback(metrics.summed.close)
            worker.join()
        server = HttpServer(
            uvicorn.Config(
                app,
                http=HttpProtocol if settings.client_ca is None else TlsHttpProtocol,
                ws=WebSocketProtocol if settings.client_ca is None else TlsWebSocketProtocol,
                ssl_context_factory=_tls_factory(ground.tls),
                # A message over the limit reaches the session, which names the limit when it ends.
                ws_max_size=2 * settings.max_message_size or sys.maxsize,
                ws_per_message_deflate=False,
                ws_ping_interval=PING_INTERVAL,
                ws_ping_timeout=PING_TIMEOUT,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # a part of a second is fine
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        connections.metrics.count_accept_pauses(lambda: server.pauses)
        stop = asyncio.Event()
        say_ready: Callable[[], None] = partial(_say_ready, settings, ground)
        heeded = [signal.SIGTERM, signal.SIGINT]
        if worker is not None:
            say_ready, heeded = worker.say_ready, [signal.SIGTERM]
            worker.on_orphaned(stop.set)
        for number in heeded:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await _run_until(stop, server, service, connections, ground, say_ready)
    if worker is None:
        logger.info("stopped")


async def _run_until(
    stop: asyncio.Event,
    server: HttpServer,
    service: ShareService,
    connections: Shutdown,
    ground: _Ground,
    say_ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    running = loop.create_task(server.serve(sockets=ground.listeners))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait(
        {running, loop.create_task(server.has_started.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    if not running.done():
        say_ready()
    warming_up = loop.call_later(WARM_UP_AFTER, connections.warm_up)
    indexing = loop.call_later(WARM_UP_AFTER, service.start_search)
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    warming_up.cancel()
    indexing.cancel()
    server.stop_accepting(takes_waiting=not ground.are_passed)
    for listener in ground.listeners:
        listener.close()
    last_answers = loop.create_task(server.answer_the_last())
    try:
        await asyncio.wait_for(connections.drain(), DRAIN_SECONDS)
    except TimeoutError:
        logger.warning("calls were still under way when the server stopped", sessions=len(connections))
    await last_answers
    loop.call_later(BODY_SECONDS, connections.body_limits.end)
    server.should_exit = True
    await running


def _unchecked(lists: RevocationList) -> int:
    return len(lists.unchecked)


def _tls_factory(tls: ServerTls | None) -> Callable[..., ssl.SSLContext] | None:
    return None if tls is None else lambda *_: tls.context


def _database_location(settings: Settings) -> DatabaseLocation:
    """Return where the database is, if this server can use it.

    Raises:
        ConfigError: the URL names none. ShareError: it is a newer server's, or no database.
    """
    try:
        location = parse_location(settings.database_url)
    except ValueError as exc:
        raise ConfigError(f"--database: {exc}") from exc
    try:
        check_not_newer(location)
    except DatabaseError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    return location


async def _require_database(location: DatabaseLocation) -> None:
    """Refuse to begin without a database that was named. One in a file is opened when it is needed."""
    try:
        await (await open_index(location)).database.close()
    except DatabaseError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


@contextlib.asynccontextmanager
async def _search(settings: Settings) -> AsyncIterator[SearchSettings]:
    """Return how shares are indexed. The database of a store in memory is one for as long as that."""
    with contextlib.ExitStack() as stack:
        if settings.store_url.startswith("memory:") and settings.database is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rpcshare-"))
            location = parse_location(f"sqlite:///{quote(folder)}/database.sqlite3")
        else:
            location = _database_location(settings)
        if location.path is None:
            await _require_database(location)
        # Workers have one database; servers whose database is a file have one each, and must look for what
        # others have written.
        is_alone = location.path is None or settings.store is None or settings.store.startswith("memory:")
        every = COMPARE_EVERY if is_alone else COMPARE_OFTEN
        yield SearchSettings(partial(open_index, location), compare_every=every)


@contextlib.asynccontextmanager
async def _opened_store(settings: Settings) -> AsyncIterator[ObjectStore]:
    try:
        store = await open_store(
            settings.store_url,
            key_file=settings.encryption_key_file,
            allow_plain=settings.encryption_allow_plain,
            takes_turns=settings.workers > 1,
        )
    except ValueError as exc:
        raise ConfigError(f"--store: {exc}") from exc
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    try:
        if settings.encryption_key_file is None:
            await _require_readable(store)
        if _may_be_shared(settings):
            await _require_conditional_writes(store, settings)
        if not settings.store_url.startswith("memory:"):
            store = _checked_for_rollback(store, settings.data_dir / MARKS_FILE)
        yield store
    finally:
        await store.close()


async def _require_readable(store: ObjectStore) -> None:
    try:
        await check_needs_no_keys(store)
    except MissingKeysError as exc:
        raise ConfigError(str(exc)) from exc
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


async def _warn_of_another_shared_secret(store: ObjectStore, credentials: Credentials) -> None:
    try:
        is_same = await note_shared_secret(store, credentials.fingerprint())
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    if not is_same:
        logger.warning(
            "The store was served with another shared secret before. Secrets of shares, view tokens and "
            "sign-ins that come from there are refused here. Servers on one store need one --shared-secret"
        )


def _checked_for_rollback(store: ObjectStore, path: Path) -> ObjectStore:
    try:
        return RollbackCheckedStore(store, HighWaterMarks.open(path))
    except MarksError as exc:
        logger.warning("older objects put back into the store go unnoticed", reason=str(exc))
        return store


async def _subject_sources(store: ObjectStore, settings: Settings) -> SubjectSources:
    """Return which sources' subjects are the same, as the settings and the store have it.

    Raises:
        ConfigError: the settings name an issuer that there is not.
        ShareError: the store failed.
    """
    united, chosen = settings.sources("same_subjects"), settings.sources("unprefixed_subjects")
    if chosen:
        return SubjectSources(united, UnprefixedOwners(sources=list(chosen)))
    outside = settings.outside_sources
    try:
        return SubjectSources(united, await kept_unprefixed_owners(store, outside))
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


def _may_be_shared(settings: Settings) -> bool:
    """Whether others may write to the store: other workers, or servers if it was named."""
    return settings.workers > 1 or (settings.store is not None and not settings.store.startswith("memory:"))


async def _require_conditional_writes(store: ObjectStore, settings: Settings) -> None:
    """Refuse to be one of several writers of a store that would let them overwrite each other."""
    try:
        await check_conditional_writes(store)
    except UnconditionalWritesError as exc:
        if settings.workers > 1 or not settings.broadcast.startswith("local:"):
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
        logger.warning("this must be the only server on the store", reason=str(exc))
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc


@contextlib.asynccontextmanager
async def _opened_broadcaster(
    settings: Settings, worker: Worker | None, store: ObjectStore
) -> AsyncIterator[Broadcaster]:
    try:
        identity = await store_identity(store)
        broadcaster = await open_broadcaster(settings.broadcast, store_id=identity.id, secret=identity.secret)
    except ValueError as exc:
        raise ConfigError(f"--broadcast: {exc}") from exc
    except StoreError as exc:
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, str(exc)) from exc
    if worker is not None and isinstance(broadcaster, LocalBroadcaster):
        broadcaster = worker.broadcaster()  # local is what is on this machine
    try:
        yield broadcaster
    finally:
        await broadcaster.close()


def _announcement(settings: Settings, ground: _Ground) -> str:
    """Return what a user needs who has just started the server. The token itself is not in it."""
    base_url = ground.base_url(settings)
    listens = settings.listening_url(ground.port)
    if settings.token is not None:
        place, key = "as given in the settings", "TOKEN"
    else:
        # opencode puts the content of a file in the place of {file:…}.
        path = str((Path(settings.data_dir) / ADMIN_TOKEN_FILE).resolve())
        place, key = path, f"{{file:{path}}}"
    line = f'"enterprise": {{"url": {json.dumps(f"{base_url}/k/{key}")}}}'
    lines = [f"rpcshare is listening on {listens} ({core()})"]
    if base_url != listens:
        lines.append(f"  public URL:       {base_url}")
    return "\n".join([*lines, f"  admin token:      {place}", f"  opencode config:  {line}"])
