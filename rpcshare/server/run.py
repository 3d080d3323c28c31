"""Running the server: from settings to a listening socket, and to a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import uvicorn
from anyio.lowlevel import checkpoint

from rpcshare.auth.admin_token import AdminTokenVerifier
from rpcshare.auth.allowances import Allowance, Allowances
from rpcshare.auth.api_key_verifier import ApiKeyVerifier
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.authenticator import Authenticator, HeadVerifier
from rpcshare.auth.cookies import CookieReader, SessionSeal, SiteCookies
from rpcshare.auth.ended_tokens import EndedTokens
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.signed_tokens import SignedTokenVerifier
from rpcshare.auth.view_tokens import ViewTokenVerifier
from rpcshare.config import ConfigError, Settings, require_address
from rpcshare.database.load import DatabaseLoad
from rpcshare.process_directories import remove_left_behind
from rpcshare.server.accepting import raise_descriptor_limit
from rpcshare.server.app import create_app
from rpcshare.server.backends import (
    may_be_shared,
    opened_broadcaster,
    opened_database,
    opened_store,
    subject_sources,
    warn_of_another_shared_secret,
)
from rpcshare.server.connection_verifiers import head_verifiers, warn_of_wide_networks
from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.http_server import HttpServer
from rpcshare.server.listening import host_of, passed_sockets, port_of
from rpcshare.server.logs import configure_logging
from rpcshare.server.malloc_trim import giving_back, tune_allocator
from rpcshare.server.records_opening import Records, records_on_demand
from rpcshare.server.shutdown import Shutdown
from rpcshare.server.startup import Prepared, prepared, say_ready
from rpcshare.server.tls import ServerTls
from rpcshare.server.token_issuers import token_issuers
from rpcshare.server.user_sign_in import user_sign_in
from rpcshare.server.vault_opening import OpenVault, vault_on_demand
from rpcshare.server.websocket_protocol import WebSocketProtocol
from rpcshare.shares.context import LogSettings
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.structured_log import structlog
from rpcshare.tracing import find_tracing

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from rpcshare.agents.agent_services import AgentServices
    from rpcshare.auth.credential import CredentialVerifier
    from rpcshare.auth.revocation_list import RevocationList
    from rpcshare.auth.subject_sources import SubjectSources
    from rpcshare.broadcast import Broadcaster
    from rpcshare.gateway.gateway import ModelGateway
    from rpcshare.server.metrics import Metrics
    from rpcshare.server.worker import Worker
    from rpcshare.shares.search import SearchSettings
    from rpcshare.storage import ObjectStore
    from rpcshare.workspaces.caller_workspaces import WorkspaceServices

__all__ = ["serve"]

logger = structlog.get_logger("rpcshare.server")

# How long a stop may take, which is 10 s in all: for sessions to end, and then for what else is open.
DRAIN_SECONDS = 7.0
CLOSE_SECONDS = 2

# Of the latter, how long requests may take whose bodies are still arriving.
BODY_SECONDS = 1.0

# Bytes of memory for open shares that are not in use, of all workers.
MEMORY_BUDGET = 256 * 2**20

# Seconds until what draws pages is started, and the database opened, without having been asked for: many
# servers do not live that long.
WARM_UP_AFTER = 3.0

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
        update = {"host": host_of(passed[0]), "port": port_of(passed[0])}
        settings = settings.model_copy(update=update)
        require_address(settings)
    with prepared(settings, passed) as ground:
        warn_of_wide_networks(settings)
        _tune_garbage_collection()
        tune_allocator()

        def serve_here(worker: Worker | None = None) -> None:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(checkpoint())  # anyio imports its backend now: 40 ms the first caller would wait
                runner.run(_serve(settings, ground, worker))

        if settings.workers > 1:
            from rpcshare.server.workers import supervise  # noqa: PLC0415 -- one process needs none of it

            tell_ready = partial(say_ready, settings, ground)
            return supervise(settings.workers, serve_here, ground.listeners, tell_ready)
        serve_here()
    return 0


def _refuse_workers_without_store(settings: Settings) -> None:
    if settings.workers > 1 and settings.store_url.startswith("memory:"):
        raise ConfigError("--workers: a store in memory is one process's own; more need another --store")


def _tune_garbage_collection() -> None:
    """Have the collector look less often, and never at what stays as long as the process.

    Reference counts free nearly all that a request makes; cycles are rare, and what connections hold is
    walked through in vain each time.
    """
    gc.freeze()  # the cycles that imports leave are a thousand objects: to look for them takes 70 ms
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    gc.enable()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 -- not to be had on every platform
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(settings: Settings, ground: Prepared, worker: Worker | None) -> None:
    """Serve until SIGTERM or SIGINT, as one of several workers or alone."""
    base_url, tracing = ground.base_url(settings), find_tracing()
    async with contextlib.AsyncExitStack() as stack:
        if worker is not None:
            stack.enter_context(worker.among_others())
        if ground.tls is not None:
            stack.enter_context(ground.tls.renewing())
        revocation_lists: list[RevocationList] = []
        verifiers_of_heads = stack.enter_context(head_verifiers(settings, revocation_lists.append))
        store, observed = await stack.enter_async_context(opened_store(settings, tracing))
        broadcaster = await stack.enter_async_context(opened_broadcaster(settings, worker, store))
        credentials = Credentials(ground.secret, base_url)
        await warn_of_another_shared_secret(store, credentials)
        audit = AuditLog()
        stack.callback(audit.close)
        limits, rates = _caller_limits(settings, worker), RequestRates(_allowances(settings))
        load = DatabaseLoad(tracing)
        search = await stack.enter_async_context(opened_database(settings, load))
        service = _share_service(
            settings, store, broadcaster, credentials, limits, rates.allowances, audit, search
        )
        stack.push_async_callback(service.close)
        service.start_expiry()
        issuers = await stack.enter_async_context(token_issuers(settings))
        api_keys = await stack.enter_async_context(ApiKeyVerifier(store).refreshing())
        ended = await stack.enter_async_context(EndedTokens(store).refreshing())
        signed_tokens, seal = SignedTokenVerifier(issuers, ended), SessionSeal(ground.secret)
        records = await stack.enter_async_context(records_on_demand(settings, load))
        signed_in = await stack.enter_async_context(
            user_sign_in(settings, seal, base_url, records, api_keys, rates, audit)
        )
        authenticator = _authenticator(
            [
                AdminTokenVerifier(ground.token),
                api_keys,
                ViewTokenVerifier(credentials.view_tokens()),
                signed_tokens,
                *([] if signed_in is None else [signed_in.callers]),
            ],
            verifiers_of_heads,
            signed_tokens=signed_tokens,
            sources=await subject_sources(store, settings),
            limits=limits,
            rates=rates,
            audit=audit,
            cookies=CookieReader(
                seal,
                OriginPolicy(base_url, is_public=settings.public_url is not None),
                SiteCookies(base_url),
            ),
        )
        platform = await _opened_on_demand(settings, stack, audit, records, service, base_url)
        app, connections = create_app(
            settings,
            service,
            authenticator,
            base_url,
            keys=ApiKeys(store),
            open_vault=platform.open_vault,
            caller_limits=limits,
            audit=audit,
            seal=seal,
            tracing=tracing,
            link=ground.link,
            signed_in=signed_in,
            check_records=records.check,
            workspaces=platform.workspaces,
            agents=platform.agents,
        )
        stack.push_async_callback(connections.close)
        stack.enter_context(connections.metrics.measuring_lag())
        stack.enter_context(giving_back())
        connections.metrics.observe(observed, load)
        _count_others(connections.metrics, revocation_lists, platform.gateway)
        if worker is not None:
            worker.share_limits(limits, rates if rates.counted.on_count is None else None, audit)
            _join_others(worker, connections.metrics, stack)
        server = HttpServer(_uvicorn_config(app, settings, ground.tls))
        connections.metrics.count_accept_pauses(lambda: server.pauses)
        stop = asyncio.Event()
        tell_ready: Callable[[], None] = partial(say_ready, settings, ground)
        heeded = [signal.SIGTERM, signal.SIGINT]
        if worker is not None:
            tell_ready, heeded = worker.say_ready, [signal.SIGTERM]
            worker.on_orphaned(stop.set)
        for number in heeded:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await _run_until(stop, server, service, connections, ground, tell_ready)
    if worker is None:
        logger.info("stopped")


def _join_others(worker: Worker, metrics: Metrics, stack: contextlib.AsyncExitStack) -> None:
    """Have this worker's numbers be those of all workers, and hear the others from now on."""
    metrics.summed = worker.sum_metrics(metrics.registry)
    stack.callback(metrics.summed.close)
    worker.join()


def _share_service(
    settings: Settings,
    store: ObjectStore,
    broadcaster: Broadcaster,
    credentials: Credentials,
    limits: CallerLimits,
    allowances: Allowances,
    audit: AuditLog,
    search: SearchSettings,
) -> ShareService:
    return ShareService(
        store,
        broadcaster,
        credentials,
        anonymous_create=settings.anonymous_create,
        default_visibility=settings.default_visibility,
        shared_store=may_be_shared(settings),
        redact=settings.redact,
        limits=limits,
        allowances=allowances,
        audit=audit,
        memory_budget=MEMORY_BUDGET // settings.workers,
        settings=LogSettings(
            max_share_size=settings.max_share_size, max_share_items=settings.max_share_items
        ),
        search=search,
    )


def _authenticator(
    verifiers: list[CredentialVerifier],
    of_heads: Sequence[HeadVerifier],
    *,
    signed_tokens: SignedTokenVerifier,
    sources: SubjectSources,
    limits: CallerLimits,
    rates: RequestRates,
    audit: AuditLog,
    cookies: CookieReader,
) -> Authenticator:
    return Authenticator(
        verifiers,
        of_heads,
        is_no_guess=signed_tokens.names_unknown_key,
        sources=sources,
        failures=limits.failures,
        rates=rates,
        audit=audit,
        cookies=cookies,
    )


def _allowances(settings: Settings) -> Allowances:
    return Allowances(
        Allowance(settings.max_user_storage, settings.max_user_shares, settings.max_user_requests),
        Allowance(
            settings.max_organization_storage,
            settings.max_organization_shares,
            settings.max_organization_requests,
        ),
    )


def _caller_limits(settings: Settings, worker: Worker | None) -> CallerLimits:
    return CallerLimits(
        creates=settings.max_creates,
        failed_authentications=settings.max_failed_authentications,
        connections=settings.max_connections,
        key=None if worker is None else worker.limits_key,
    )


class _Platform(NamedTuple):
    open_vault: OpenVault
    workspaces: WorkspaceServices | None
    agents: AgentServices | None
    gateway: ModelGateway | None


async def _opened_on_demand(
    settings: Settings,
    stack: contextlib.AsyncExitStack,
    audit: AuditLog,
    records: Records,
    service: ShareService,
    base_url: str,
) -> _Platform:
    """Return what opens the vault, and what agents and their workspaces are, if the settings have any run."""
    open_vault = await stack.enter_async_context(vault_on_demand(settings, records))
    if settings.agents == "off":
        return _Platform(open_vault, None, None, None)
    # Few servers run agents.
    from rpcshare.server.agents_opening import opened_agents  # noqa: PLC0415
    from rpcshare.server.gateway_opening import opened_gateway  # noqa: PLC0415
    from rpcshare.server.workspaces_opening import opened_workspaces  # noqa: PLC0415

    opening = opened_workspaces(settings, open_vault, audit, records)
    workspaces = await stack.enter_async_context(opening)
    gateway = await stack.enter_async_context(opened_gateway(settings, open_vault, audit))
    agents = opened_agents(settings, records, service, workspaces, gateway, public_url=base_url)
    return _Platform(open_vault, workspaces, await stack.enter_async_context(agents), gateway)


async def _run_until(
    stop: asyncio.Event,
    server: HttpServer,
    service: ShareService,
    connections: Shutdown,
    ground: Prepared,
    tell_ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    running = loop.create_task(server.serve(sockets=ground.listeners))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait(
        {running, loop.create_task(server.has_started.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    if not running.done():
        tell_ready()
    warming_up = loop.call_later(WARM_UP_AFTER, connections.warm_up)
    removing = loop.run_in_executor(None, remove_left_behind)
    opening = loop.create_task(service.warm_up_search())
    indexing = loop.call_later(WARM_UP_AFTER, service.start_search)
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    warming_up.cancel()
    indexing.cancel()
    opening.cancel()
    server.stop_accepting(takes_waiting=not ground.are_passed)
    for listener in ground.listeners:
        listener.close()
    last_answers = loop.create_task(server.answer_the_last())
    try:
        await asyncio.wait_for(connections.drain(), DRAIN_SECONDS)
    except TimeoutError:
        logger.warning("calls were still under way when the server stopped", sessions=len(connections))
    await last_answers
    await removing
    loop.call_later(BODY_SECONDS, connections.body_limits.end)
    server.should_exit = True
    await running


def _count_others(metrics: Metrics, lists: list[RevocationList], gateway: ModelGateway | None) -> None:
    for each in lists:
        metrics.count_unchecked_authorities(partial(_unchecked, each))
    if gateway is not None:
        from rpcshare.server.gateway_metrics import GatewayMetrics  # noqa: PLC0415 -- few servers run agents

        metrics.registry.register(GatewayMetrics(gateway.counts))


def _unchecked(lists: RevocationList) -> int:
    return len(lists.unchecked)


def _uvicorn_config(app: Starlette, settings: Settings, tls: ServerTls | None) -> uvicorn.Config:
    http, websocket = _protocols(settings)
    return uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        ssl_context_factory=_tls_factory(tls),
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


def _protocols(settings: Settings) -> tuple[type[HttpProtocol], type[WebSocketProtocol]]:
    if settings.client_ca is None:
        return HttpProtocol, WebSocketProtocol
    from rpcshare.server.tls_protocols import TlsHttpProtocol, TlsWebSocketProtocol  # noqa: PLC0415 -- few

    return TlsHttpProtocol, TlsWebSocketProtocol


def _tls_factory(tls: ServerTls | None) -> Callable[..., ssl.SSLContext] | None:
    return None if tls is None else lambda *_: tls.context
