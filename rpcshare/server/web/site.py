"""The pages as one site: their routes, and what each of them needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import ANONYMOUS, Caller, Scope
from rpcshare.auth.cookies import SessionSeal, SiteCookies
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.rate_limits import ConnectionLimit
from rpcshare.auth.sign_in_link import SignInLink
from rpcshare.render.pieces import Draft
from rpcshare.render.rendering import Frame, Pages
from rpcshare.server.metrics import Metrics
from rpcshare.server.request import request_head
from rpcshare.server.web.key_pages import KeyPages
from rpcshare.server.web.live import LiveStreams
from rpcshare.server.web.refusals import refusal
from rpcshare.server.web.render_cache import RenderCache
from rpcshare.server.web.render_processes import RenderProcesses
from rpcshare.server.web.render_queue import BusyError, DrawingQueue
from rpcshare.server.web.responses import busy_answer, html_answer, static_answer
from rpcshare.server.web.session_pages import SessionPages
from rpcshare.server.web.share_pages import SharePages
from rpcshare.server.web.signing_in import SigningIn
from rpcshare.server.web.user_pages import UserPages
from rpcshare.server.web.user_sign_in import SignedIn, UserSignIn
from rpcshare.server.web.vault_pages import VaultPages
from rpcshare.shares.service import ShareService
from rpcshare.vault.caller_vault import CallerVault

if TYPE_CHECKING:
    from rpcshare.agents.agent_services import AgentServices
    from rpcshare.agents.caller_agents import CallerAgents
    from rpcshare.server.web.agent_pages import AgentPages
    from rpcshare.server.web.workspace_pages import WorkspacePages
    from rpcshare.workspaces.caller_workspaces import CallerWorkspaces

__all__ = ["PageSite"]

T = TypeVar("T")

# Bytes that each of the processes of a server may take, or of those of all its workers together.
DRAWING_MEMORY = 256 * 2**20
LEAST_DRAWING_MEMORY = 128 * 2**20

_FOR_USERS = ("To see your sessions, and those of your organization.",)

Handler = Callable[[Request, Caller], Awaitable[Response]]


class PageSite:
    """What pages are made of, and who may see them."""

    def __init__(
        self,
        service: ShareService,
        authenticator: Authenticator,
        origins: OriginPolicy,
        base_url: str,
        seal: SessionSeal | None,
        connections: ConnectionLimit,
        metrics: Metrics,
        workers: int = 1,
        keys: ApiKeys | None = None,
        signed_in: SignedIn | None = None,
        vault_of: Callable[[Caller], CallerVault] | None = None,
    ) -> None:
        """Serve pages of ``service``; without a ``seal``, nobody can sign in.

        Live pages count among the ``connections`` of their callers. The memory of render processes is
        divided between ``workers``. Admins manage ``keys``. Users are ``signed_in``; None: there are none.
        """
        self.service = service
        self.authenticator = authenticator
        self.origins = origins
        self.base_url = base_url
        self.seal = seal
        self.link: SignInLink | None = None
        """Signs in once whoever has started the server."""
        self.agents: AgentServices | None = None
        """What runs agents; None: nothing does."""
        self.agents_of: Callable[[Caller], CallerAgents] | None = None
        """Returns the agents in the hands of a caller."""
        self.workspaces_of: Callable[[Caller], CallerWorkspaces] | None = None
        """Returns what they work on, likewise."""
        self.cookies = SiteCookies(base_url)
        self.connections = connections
        self.pages = Pages()
        self.drawings = DrawingQueue()
        memory = max(DRAWING_MEMORY // workers, LEAST_DRAWING_MEMORY)
        self.processes = RenderProcesses(memory=memory, on_end=metrics.drawing_process_ended)
        self.pieces = RenderCache(self.processes, self.pages.omitted, metrics.piece_drawn)
        self.live = LiveStreams(self)
        self._shares = SharePages(self)
        self._sessions = SessionPages(self)
        self._keys = KeyPages(self, keys) if keys is not None else None
        self.vault_of = vault_of
        self._vault = VaultPages(self, vault_of) if vault_of is not None else None
        self._workspace_pages: WorkspacePages | None = None
        self.agent_pages: AgentPages | None = None
        self._signing_in = SigningIn(self)
        self.signed_in = signed_in
        self._users = UserSignIn(self, signed_in) if signed_in is not None else None
        self._user_pages = UserPages(self, signed_in, keys) if signed_in is not None else None

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all pages."""
        routes = [
            Route("/share/{share_id}", self.page(self._shares.share), methods=["GET"]),
            Route("/share/{share_id}/part/{part}", self.page(self._shares.part), methods=["GET"]),
            Route("/share/{share_id}/live", self.page(self.live.stream), methods=["GET"]),
            Route("/share/{share_id}/unlock", self.form(self._signing_in.unlock), methods=["POST"]),
            Route("/sessions", self.page(self._sessions.everybody), methods=["GET"]),
            Route("/my-sessions", self.page(self._sessions.own), methods=["GET"]),
            Route("/sessions/{share_id}/delete", self.page(self._sessions.delete), methods=["GET", "POST"]),
            Route("/sign-in", self.form(self._signing_in.sign_in), methods=["GET", "POST"]),
            Route("/sign-out", self.form(self._signing_in.sign_out), methods=["POST"]),
            Route("/static/{name}", self._static, methods=["GET"]),
        ]
        if (keys := self._keys) is not None:
            routes += [
                Route("/keys", self.page(keys.show), methods=["GET", "POST"]),
                Route("/keys/{key_id}/rotate", self.page(keys.rotate), methods=["POST"]),
                Route("/keys/{key_id}/revoke", self.page(keys.revoke), methods=["POST"]),
            ]
        if (vault := self._vault) is not None:
            routes += [
                Route("/vault", self.page(vault.show), methods=["GET", "POST"]),
                Route("/vault/{entry_id}/rotate", self.page(vault.rotate), methods=["POST"]),
                Route("/vault/{entry_id}/revoke", self.page(vault.revoke), methods=["POST"]),
            ]
        if (users := self._users) is not None and (pages := self._user_pages) is not None:
            routes += [
                Route("/auth/{name}/login", self.form(users.login), methods=["GET"]),
                Route("/auth/{name}/callback", self.form(users.callback), methods=["GET"]),
                Route(
                    "/auth/{name}/backchannel-logout", self.form(users.ended_by_provider), methods=["POST"]
                ),
                Route("/signed-out", self.form(users.signed_out), methods=["GET"]),
                Route("/auth/logout/provider", self.form(users.logout_at_provider), methods=["GET"]),
                Route("/auth/logout", self.form(self._signing_in.sign_out), methods=["POST"]),
                Route("/profile", self.page(pages.profile), methods=["GET"]),
                Route("/profile/sessions/end", self.page(pages.end_session), methods=["POST"]),
                Route("/organization", self.page(pages.organization), methods=["GET"]),
                Route("/organization/audit", self.page(pages.audit), methods=["GET"]),
                Route("/organization/users/{user_id}", self.page(pages.change_user), methods=["POST"]),
            ]
        routes += self._routes_of_agents()
        for route in routes:
            route.include_in_schema = False  # the document is of what programs use
        return [WebSocketRoute("/share/{share_id}/live", self.live.socket), *routes]

    def _routes_of_agents(self) -> list[Route]:
        """Return the routes of workspaces and agents, whose pages are imported where there are any."""
        routes: list[Route] = []
        if self.workspaces_of is not None:
            from rpcshare.server.web.workspace_pages import WorkspacePages  # noqa: PLC0415 -- few servers

            self._workspace_pages = WorkspacePages(self, self.workspaces_of, self.vault_of)
            routes += self._workspace_pages.routes()
        if self.workspaces_of is not None and self.agents_of is not None and self.agents is not None:
            from rpcshare.server.web.agent_pages import AgentPages  # noqa: PLC0415 -- likewise
            from rpcshare.server.web.approve_pages import ApprovePages  # noqa: PLC0415 -- likewise

            self.agent_pages = AgentPages(self, self.agents, self.agents_of, self.workspaces_of)
            routes += [*self.agent_pages.routes(), *ApprovePages(self, self.agents).routes()]
        return routes

    def warm_up(self) -> None:
        """Start what renders, and compile the templates; whoever comes first waits for that otherwise."""
        self.processes.start()
        asyncio.get_running_loop().run_in_executor(None, self.pages.compile_templates)

    async def drain(self) -> None:
        """End the live pages; return when those that are being drawn are."""
        if self.agent_pages is not None:
            self.agent_pages.streams.drain()
        await asyncio.gather(self.live.drain(), self.drawings.drain())

    async def close(self) -> None:
        """End the processes that draw, and what is being done in the background."""
        if self._workspace_pages is not None:
            await self._workspace_pages.close()
        await self.processes.close()

    async def draw(self, request: HTTPConnection, draw: Callable[[], T]) -> T:
        """Return what ``draw`` does, beside the event loop.

        Raises:
            BusyError: too many pages wait.
        """
        return await self.drawings.draw(_address(request), draw)

    async def draw_share(
        self, request: HTTPConnection, share_id: str, draft: Callable[[], Draft[T]]
    ) -> tuple[T, bool]:
        """Return a page of a share as it is drafted, and whether it would look the same if drawn again.

        Raises:
            BusyError: too many pages wait.
        """
        with self.drawings.waiting(_address(request)):
            drafted = await self.drawings.run(draft)
            pieces, is_final = await self.pieces.draw(share_id, drafted.pieces)
            return await self.drawings.run(partial(drafted.render, pieces)), is_final

    def frame(self, request: Request, caller: Caller, title: str = "") -> Frame:
        """Return what is around a page for ``caller``."""
        is_signed_in = self.cookies.session in request.cookies and caller.subject is not None
        is_admin = caller.subject is None or caller.has(Scope.ADMIN) or caller.user is not None
        return Frame(
            root="../" * (request.scope["path"].count("/") - 1),
            title=title,
            subject=_name(caller) if is_signed_in else "",
            is_user=caller.user is not None,
            home="sessions" if is_admin else "my-sessions",
            has_keys=self._keys is not None and caller.subject is not None and _has_keys(caller),
            has_workspaces=self.workspaces_of is not None
            and caller.owner is not None
            and caller.has(Scope.CREATE),
            has_agents=self.agents_of is not None and caller.owner is not None and caller.has(Scope.CREATE),
            has_vault=self._vault is not None and caller.subject is not None and caller.has(Scope.CREATE),
        )

    async def refuse(self, request: Request, caller: Caller, error: Exception, problem: str = "") -> Response:
        """Return the page for what could not be done."""
        if isinstance(error, BusyError):
            return busy_answer(error.retry_after)
        told = refusal(error, request.path_params.get("share_id", ""), problem, request.scope["path"])
        frame = self.frame(request, caller, told.title)
        is_for_users = self.signed_in is not None and told.title == "Sign in"
        draw = partial(
            self.pages.notice,
            frame,
            *(_FOR_USERS if is_for_users else told.lines),
            code=0 if told.has_sign_in else told.status,
            problem=told.problem,
            has_sign_in=told.has_sign_in and self.seal is not None,
            next_address=told.next_address,
            unlock_address=told.unlock_address,
            links=told.links,
            providers=self.providers if told.has_sign_in else (),
        )
        answer = await self._notice(request, draw, told.status)
        answer.headers.update(told.headers)
        return answer

    @property
    def providers(self) -> list[tuple[str, str]]:
        """What the buttons say by which users sign in, and where each leads."""
        if self.signed_in is None:
            return []
        return [(each.label, f"auth/{each.name}/login") for each in self.signed_in.sign_ins.providers]

    async def tell(
        self, request: Request, title: str, line: str, status: int, links: tuple[tuple[str, str], ...] = ()
    ) -> Response:
        """Return a page with one sentence."""
        frame = self.frame(request, ANONYMOUS, title)
        return await self._notice(request, partial(self.pages.notice, frame, line, links=links), status)

    async def refuse_address(self, request: Request) -> Response:
        """Return the page for an address at which there is nothing."""
        frame = self.frame(request, ANONYMOUS, "There is nothing here")
        line = "The address may be mistyped, or what was here is gone."
        return await self._notice(request, partial(self.pages.notice, frame, line, code=404), 404)

    async def _notice(self, request: Request, draw: Callable[[], str], status: int) -> Response:
        try:
            return html_answer(request, await self.draw(request, draw), status)
        except BusyError as busy:
            return busy_answer(busy.retry_after)

    def page(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return ``handler`` as Starlette calls it: with a caller, and with failures as pages."""

        async def endpoint(request: Request) -> Response:
            caller = ANONYMOUS
            try:
                caller = await self.authenticator.caller(request_head(request))
                return await handler(request, caller)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                return await self.refuse(request, caller, exc)

        return endpoint

    def form(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return ``handler`` for a form of somebody who may have nothing to show yet, or something old."""

        async def endpoint(request: Request) -> Response:
            caller = Caller(subject=None, address=request.client.host if request.client else "")
            try:
                return await handler(request, caller)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                return await self.refuse(request, caller, exc)

        return endpoint

    async def _static(self, request: Request) -> Response:
        asset = self.pages.assets.by_name.get(request.path_params["name"])
        if asset is None:
            return Response("Not found", 404, {"Cache-Control": "no-store"}, "text/plain")
        return static_answer(request, asset.content, asset.media_type)


def _name(caller: Caller) -> str:
    """Return what a person is called who has signed in."""
    user = caller.user
    return (user.name or user.email or user.id) if user is not None else caller.subject or ""


def _has_keys(caller: Caller) -> bool:
    return caller.has(Scope.ADMIN) or (caller.user is not None and caller.user.may_have_keys)


def _address(request: HTTPConnection) -> str:
    return request.client.host if request.client else ""
