"""The ASGI application: every route, and what each is handled by."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from rpcshare import jsontext
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller
from rpcshare.auth.cookies import SessionSeal
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.auth.sign_in_link import SignInLink
from rpcshare.auth.trusted_proxies import TrustedProxies
from rpcshare.config import Settings
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import Limits
from rpcshare.rpc.memory_budget import Pool
from rpcshare.server import schemas
from rpcshare.server.body_limits import BodyLimits, BodyLimitsMiddleware
from rpcshare.server.connection_verifiers import proxy_secret
from rpcshare.server.cors import CorsMiddleware
from rpcshare.server.event_socket import EVENTS_OF_A_SHARE, EventSocketEndpoint, share_events
from rpcshare.server.event_streams import EventStreams
from rpcshare.server.failures import HttpError, error_response
from rpcshare.server.large_syncs import LargeSyncs
from rpcshare.server.metrics import Metrics, MetricsMiddleware
from rpcshare.server.openapi import openapi_document
from rpcshare.server.operation import ApiRoute, Needs, Operation
from rpcshare.server.request import PathKeyMiddleware, ProxyMiddleware
from rpcshare.server.request_log import AccessLog, RequestLogMiddleware
from rpcshare.server.responses import read_response
from rpcshare.server.rest import RestApi
from rpcshare.server.rpc_endpoint import MESSAGES_IN_A_BATCH, RpcEndpoint
from rpcshare.server.security_headers import SecurityHeadersMiddleware
from rpcshare.server.shutdown import Shutdown
from rpcshare.server.vault_api import VaultApi
from rpcshare.server.vault_opening import OpenVault
from rpcshare.server.web import PageSite
from rpcshare.server.web.user_sign_in import SignedIn
from rpcshare.shares.service import ShareService
from rpcshare.tracing import Tracing
from rpcshare.vault.caller_vault import CallerVault

if TYPE_CHECKING:
    from rpcshare.agents.agent_services import AgentServices
    from rpcshare.agents.caller_agents import CallerAgents
    from rpcshare.server.agents_api import AgentsApi
    from rpcshare.server.workspaces_api import WorkspacesApi
    from rpcshare.workspaces.caller_workspaces import CallerWorkspaces, WorkspaceServices

__all__ = ["create_app"]

# Of so many messages of the greatest length the bodies may be held at a time for one network: by all workers,
# but by each of them those of a batch.
BODIES_AT_ONCE = 16


def create_app(
    settings: Settings,
    service: ShareService,
    authenticator: Authenticator,
    base_url: str,
    *,
    keys: ApiKeys | None = None,
    open_vault: OpenVault | None = None,
    caller_limits: CallerLimits | None = None,
    audit: AuditLog | None = None,
    seal: SessionSeal | None = None,
    tracing: Tracing | None = None,
    link: SignInLink | None = None,
    signed_in: SignedIn | None = None,
    check_records: Callable[[], Awaitable[None]] | None = None,
    workspaces: WorkspaceServices | None = None,
    agents: AgentServices | None = None,
) -> tuple[Starlette, Shutdown]:
    """Return the application, and what knows the connections that are to be drained and then closed.

    Args:
        settings: limits, origins and trusted proxies are taken from there.
        service: the shares.
        authenticator: who is asking.
        base_url: under which the server is reached.
        keys: the API keys that admins may manage.
        open_vault: opens the vault when it is first needed; None: there is none.
        caller_limits: on what one caller may do; None: none.
        audit: is told of who is refused.
        seal: for the cookie of who signs in; without it, nobody can.
        link: signs in once whoever has started the server.
        tracing: makes a span of each request and call; None: none are made.
        signed_in: the users, and how they sign in; None: nobody does.
        check_records: raises ShareError where the database of records fails; None: there is none.
        workspaces: what agents work on; None: this server runs none.
        agents: what runs them, on these workspaces; None: nothing does.
    """
    limits = Limits(
        message_bytes=settings.max_message_size,
        values=settings.max_values,
        memory_bytes=settings.max_session_memory,
        calls_in_flight=settings.max_calls_in_flight,
    )
    audit = audit or AuditLog()
    is_public = settings.public_url is not None
    origins = OriginPolicy(base_url, settings.allowed_origins, audit, is_public=is_public)
    metrics = Metrics(service, caller_limits)
    access_log = AccessLog() if settings.access_log else None
    held = (caller_limits or CallerLimits()).connections
    vault_of = None if open_vault is None else _vault_of(open_vault, audit, settings)
    workspaces_of = None if workspaces is None else _workspaces_of(workspaces, audit)
    agents_of = None if agents is None or workspaces_of is None else _agents_of(agents, workspaces_of, audit)
    rpc = RpcEndpoint(
        service,
        authenticator,
        origins,
        limits,
        held,
        audit,
        anonymous=settings.anonymous_create,
        metrics=metrics,
        pool=Pool(settings.max_rpc_memory // settings.workers) if settings.max_rpc_memory else None,
        keys=keys,
        vault_of=vault_of,
        workspaces_of=workspaces_of,
        agents_of=agents_of,
        access_log=access_log,
        tracing=tracing,
        signed_in=signed_in,
    )
    event_streams = EventStreams(held)
    large_syncs = LargeSyncs(
        settings.data_dir,
        max_message=settings.max_message_size,
        max_size=settings.max_share_size,
        max_items=settings.max_share_items,
        workers=settings.workers,
    )
    agents_api = None if agents_of is None else _agents_api(agents_of, event_streams, base_url)
    rest = RestApi(
        service,
        authenticator,
        origins,
        settings.max_message_size,
        event_streams,
        large_syncs,
        None if vault_of is None else VaultApi(vault_of),
        None if workspaces_of is None else _workspaces_api(workspaces_of),
        agents_api,
    )
    events = EventSocketEndpoint(share_events(service), authenticator, origins, event_streams)
    site = PageSite(
        service,
        authenticator,
        origins,
        base_url,
        seal,
        held,
        metrics,
        settings.workers,
        keys,
        signed_in,
        vault_of,
    )
    site.link = link
    site.agents_of, site.workspaces_of, site.agents = agents_of, workspaces_of, agents
    connections = Shutdown(
        rpc, event_streams, site, BodyLimits(_bodies_at_once(settings) * settings.max_message_size), metrics
    )
    if workspaces is not None:
        _count_sandboxes(metrics, workspaces)
    for collector in () if agents is None else agents.collectors:
        metrics.registry.register(collector)
    metrics.queues.pages = site.drawings.__len__
    metrics.limits.others = {
        "pages": lambda: site.drawings.refused,
        "bodies": lambda: connections.body_limits.refused,
        "requests": lambda: authenticator.rates.refused,
    }
    routes: list[BaseRoute] = [
        *rpc.routes("/rpc"),
        *rpc.routes("/rpc/share"),
        *events.routes("/ws/{share_id}", EVENTS_OF_A_SHARE),
        *([] if agents_api is None else _agent_sockets(agents_api, authenticator, origins, event_streams)),
        *rest.routes(),
        *site.routes(),
        *_health_routes(service, check_records),
        *([_metrics_route(settings, metrics, caller_limits or CallerLimits())] if settings.metrics else []),
        _start_route(base_url),
    ]
    routes.append(_document_route(routes, base_url))
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(
                ProxyMiddleware,
                proxies=TrustedProxies(settings.trusted_proxy, settings.proxy_hops),
                secret=proxy_secret(settings),
            ),
            Middleware(PathKeyMiddleware),
            Middleware(RequestLogMiddleware, log=access_log, tracing=tracing),
            Middleware(MetricsMiddleware, metrics=metrics),
            Middleware(SecurityHeadersMiddleware, base_url=base_url),
            Middleware(CorsMiddleware, origins=origins),
            Middleware(BodyLimitsMiddleware, body_limits=connections.body_limits),
        ],
        exception_handlers={404: _not_found, 405: _method_not_allowed},
    )
    # A redirect would lead behind the key in the path, and to the wrong scheme behind a proxy.
    app.router.redirect_slashes = False
    app.state.pages = site
    return app, connections


def _vault_of(open_vault: OpenVault, audit: AuditLog, settings: Settings) -> Callable[[Caller], CallerVault]:
    def vault_of(caller: Caller) -> CallerVault:
        return CallerVault(open_vault, caller, audit, may_retrieve=settings.vault_retrieve)

    return vault_of


def _workspaces_of(services: WorkspaceServices, audit: AuditLog) -> Callable[[Caller], CallerWorkspaces]:
    from rpcshare.workspaces.caller_workspaces import CallerWorkspaces  # noqa: PLC0415 -- few servers run agents

    return lambda caller: CallerWorkspaces(services, caller, audit)


def _agents_of(
    services: AgentServices, workspaces_of: Callable[[Caller], CallerWorkspaces], audit: AuditLog
) -> Callable[[Caller], CallerAgents]:
    from rpcshare.agents.caller_agents import CallerAgents  # noqa: PLC0415 -- likewise

    return lambda caller: CallerAgents(services, caller, workspaces_of(caller), audit)


def _workspaces_api(workspaces_of: Callable[[Caller], CallerWorkspaces]) -> WorkspacesApi:
    from rpcshare.server.workspaces_api import WorkspacesApi  # noqa: PLC0415 -- likewise

    return WorkspacesApi(workspaces_of)


def _agents_api(
    agents_of: Callable[[Caller], CallerAgents], event_streams: EventStreams, base_url: str
) -> AgentsApi:
    from rpcshare.server.agents_api import AgentsApi  # noqa: PLC0415 -- likewise

    return AgentsApi(agents_of, event_streams, base_url)


def _agent_sockets(
    api: AgentsApi, authenticator: Authenticator, origins: OriginPolicy, event_streams: EventStreams
) -> list[BaseRoute]:
    from rpcshare.server.agents_api import CURSOR, SOCKET_PATH  # noqa: PLC0415 -- likewise

    operation = Operation(
        summary="What happens to an agent, one JSON text message each",
        needs=Needs.CREDENTIAL,
        parameters=(CURSOR,),
        codes=(ErrorCode.INVALID_ARGUMENT, ErrorCode.SESSION_NOT_FOUND),
    )
    endpoint = EventSocketEndpoint(api.watched, authenticator, origins, event_streams)
    return endpoint.routes(SOCKET_PATH, operation)


def _count_sandboxes(metrics: Metrics, services: WorkspaceServices) -> None:
    from rpcshare.server.workspace_metrics import WorkspaceMetrics  # noqa: PLC0415 -- likewise

    metrics.registry.register(WorkspaceMetrics(services.programs))


def _bodies_at_once(settings: Settings) -> int:
    return max(MESSAGES_IN_A_BATCH, BODIES_AT_ONCE // settings.workers)


def _health_routes(
    service: ShareService, check_records: Callable[[], Awaitable[None]] | None
) -> list[ApiRoute]:
    async def healthz(_request: Request) -> Response:
        return _uncached({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        try:
            await service.check()  # which asks the broadcaster as well
            if check_records is not None:
                await check_records()
        except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
            return error_response(exc)
        return _uncached({"status": "ok"})

    health, unready = (
        schemas.Health,
        {503: "The store, the broadcaster or the database of records does not answer."},
    )
    return [
        ApiRoute("/healthz", healthz, {"GET": Operation(summary="The server runs", answer=health)}),
        ApiRoute(
            "/readyz",
            readyz,
            {
                "GET": Operation(
                    summary="The store, the broadcaster and the database of records answer",
                    answer=health,
                    answers=unready,
                )
            },
        ),
    ]


def _metrics_route(settings: Settings, metrics: Metrics, limits: CallerLimits) -> ApiRoute:
    wanted = settings.metrics_token

    def check(request: Request) -> None:
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if wanted is None:
            return
        if scheme.lower() != "bearer":
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the metrics have a token of their own")
        address = request.client.host if request.client else ""
        with limits.failures.attempt(address, f"metrics {shown}"):
            if not compare_digest(shown.strip().encode(), wanted.get_secret_value().encode()):
                raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: that is not the token of the metrics")

    async def text(request: Request) -> Response:
        try:
            check(request)
        except ShareError as exc:
            return error_response(exc)
        headers = {"Cache-Control": "no-store"}
        return Response(await metrics.scraped(), headers=headers, media_type=CONTENT_TYPE_LATEST)

    operation = Operation(
        summary="What this server does, in numbers",
        needs=Needs.NOTHING if wanted is None else Needs.CREDENTIAL,
        answers={200: "In Prometheus' text format."},
        media_type="text/plain",
    )
    return ApiRoute("/metrics", text, {"GET": operation})


def _start_route(base_url: str) -> ApiRoute:
    # Only of the server's own path: a key in the path of the request is to stay out of what browsers show.
    location = urlsplit(base_url).path.rstrip("/") + "/sessions"

    async def start(_request: Request) -> Response:
        return RedirectResponse(location, 302, {"Cache-Control": "no-store"})

    return ApiRoute(
        "/", start, {"GET": Operation(summary="The page of shares", answers={302: "It is there."})}
    )


def _document_route(routes: list[BaseRoute], base_url: str) -> ApiRoute:
    @functools.cache
    def body() -> bytes:
        return jsontext.encode(openapi_document([*routes, route], base_url))

    async def document(request: Request) -> Response:
        # Made when it is first asked for, and in a thread: it takes a tenth of a second.
        answer = await read_response(request, await asyncio.to_thread(body))
        answer.headers["Access-Control-Allow-Origin"] = "*"  # anybody's tools may read it
        return answer

    route = ApiRoute(
        "/openapi.json",
        document,
        {"GET": Operation(summary="This document", answer=dict[str, Any], has_etag=True)},
    )
    return route


def _uncached(value: object) -> Response:
    return JSONResponse(value, headers={"Cache-Control": "no-store"})


async def _not_found(request: Request, _exc: Exception) -> Response:
    if "text/html" in request.headers.get("accept", "") and not request.scope["path"].startswith("/api/"):
        site: PageSite = request.app.state.pages
        return await site.refuse_address(request)
    return error_response(HttpError(404, "NOT_FOUND", "Not found"))


async def _method_not_allowed(_request: Request, exc: Exception) -> Response:
    headers = exc.headers if isinstance(exc, HTTPException) else None
    return error_response(HttpError(405, "METHOD_NOT_ALLOWED", "Method not allowed", headers))
