"""The pages of agents: their list, the panel that steers one on its share's page, and what its forms do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rpcshare.agents.agent import MAX_ATTACHMENT_BYTES, MAX_ATTACHMENTS, Agent, AgentRequest, RequestKind
from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.caller_agents import CallerAgents
from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.render.agents import PERMISSIONS, AgentRendering, Listed, Panel
from rpcshare.render.pieces import Draft
from rpcshare.render.rendering import Frame
from rpcshare.render.workspaces import form_problem
from rpcshare.server.failures import STATUS
from rpcshare.server.file_names import safe_file_name
from rpcshare.server.request import READS
from rpcshare.server.web.change_stream import ChangeStreams
from rpcshare.server.web.forms import check_own_form, read_fields, read_form
from rpcshare.server.web.multipart_form import SentFile, read_multipart
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.workspaces.caller_workspaces import CallerWorkspaces

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite

__all__ = ["AgentPages", "answer_of"]

_PER_PAGE = 30
_MAX_PROMPT_FORM = 4 * 2**20  # bytes: of a million characters, most as one or two, URL-encoded
_MAX_SENT_FORM = MAX_ATTACHMENT_BYTES + 4 * 2**20
_MAX_ANSWER_FORM = 512 * 1024
_MAX_ANSWERS = 1100  # fields: 20 questions with 50 options each
_HEARTBEAT = 15.0  # seconds

_FIELDS = ("prompt", "workspace", "model", "permission", "title", "agent", "dollars", "tokens", "turns")
_OF_MESSAGES = {
    "prompt": "prompt",
    "title": "title",
    "agent": "agent",
    "model": "model",
    "workspace": "workspace",
    "budget.dollars": "dollars",
    "budget.tokens": "tokens",
    "budget.turns": "turns",
    "permission": "permission",
}
_OF_FORMS = frozenset(
    {
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.WORKSPACE_NOT_FOUND,
        ErrorCode.CONTAINER_START_FAILED,
    }
)
_NOTICES = {
    "sent": "The message is sent.",
    "answered": "It is answered.",
    "abort": "The turn is stopped.",
    "pause": "It is paused.",
    "resume": "It goes on.",
    "budget": "The budget is set.",
    "terminate": "It is terminated.",
    "unqueued": "The message is taken out.",
    "started": "It is taken out of the queue already: its turn has begun.",
}
_OF_WEBHOOKS = {
    "set": "You are told there from now on.",
    "remove": "You are told nowhere any more.",
    "test": "A notice of the type test is on its way.",
}
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,80}/[\w.+-]{1,80}", re.ASCII)


class AgentPages:
    """Agents in the hands of a caller, as :class:`CallerAgents` has them."""

    def __init__(
        self,
        site: PageSite,
        services: AgentServices,
        agents_of: Callable[[Caller], CallerAgents],
        workspaces_of: Callable[[Caller], CallerWorkspaces],
    ) -> None:
        """Show as pages of ``site`` what ``agents_of`` and ``workspaces_of`` return for a caller."""
        self._site = site
        self._services = services
        self._agents_of = agents_of
        self._workspaces_of = workspaces_of
        self._drawn = AgentRendering(site.pages)
        self.streams = ChangeStreams(site.connections)

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page, one = self._site.page, "/agents/{agent_id}"
        return [
            Route("/agents", page(self.show), methods=["GET", "POST"]),
            Route("/agents/webhook", page(self.webhook), methods=["GET", "POST"]),
            Route(one, page(self.agent), methods=["GET"]),
            Route(f"{one}/panel", page(self.panel), methods=["GET"]),
            Route(f"{one}/live", page(self.live), methods=["GET"]),
            Route(f"{one}/diff", page(self.diff), methods=["GET"]),
            Route(f"{one}/send", page(self.send), methods=["POST"]),
            Route(f"{one}/unqueue", page(self.unqueue), methods=["POST"]),
            Route(f"{one}/control", page(self.control), methods=["POST"]),
            Route(f"{one}/requests/{{request_id}}", page(self.answer), methods=["POST"]),
            Route(f"{one}/requests/{{request_id}}/link", page(self.link), methods=["POST"]),
        ]

    # The list

    async def show(self, request: Request, caller: Caller) -> Response:
        """Return the list, with a form to start an agent; or start it."""
        if request.method in READS:
            return await self._list(request, caller, {"workspace": request.query_params.get("workspace", "")})
        check_own_form(request, self._site.origins)
        found = dict(await read_fields(request, most_bytes=_MAX_PROMPT_FORM, most_fields=20))
        form = {name: found.get(name, "").strip() for name in _FIELDS}
        try:
            agent = await self._agents_of(caller).start(_started(form))
        except ShareError as exc:
            if exc.code not in _OF_FORMS:
                raise
            return await self._list(request, caller, form, error=exc)
        return redirect(_place(agent, ""))

    async def agent(self, request: Request, caller: Caller) -> Response:
        """Lead to the page of an agent's share."""
        agent = await self._agents_of(caller).get(request.path_params["agent_id"])
        return redirect(_place(agent, "../"))

    async def webhook(self, request: Request, caller: Caller) -> Response:
        """Return where the caller is told of its agents, with a form to change that."""
        agents = self._agents_of(caller)
        if request.method in READS:
            return await self._webhook(request, caller)
        check_own_form(request, self._site.origins)
        form = await read_form(request)
        try:
            await _change_webhook(agents, form)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            return await self._webhook(request, caller, entered=form.get("url", ""), error=exc)
        return redirect(f"webhook?notice={form['do']}")

    async def _webhook(
        self, request: Request, caller: Caller, *, entered: str = "", error: ShareError | None = None
    ) -> Response:
        draw = partial(
            self._drawn.webhook,
            self._site.frame(request, caller, "Notifications"),
            await self._agents_of(caller).webhooks.current(),
            entered=entered,
            problem=None if error is None else form_problem(error.message, {"url": "url"}),
            notice=_OF_WEBHOOKS.get(request.query_params.get("notice", ""), ""),
        )
        return html_answer(request, await self._site.draw(request, draw), 200 if error is None else 400)

    async def _list(
        self, request: Request, caller: Caller, values: Mapping[str, str], *, error: ShareError | None = None
    ) -> Response:
        given = request.query_params
        status, workspace, cursor = (given.get(name, "")[:100] for name in ("status", "in", "cursor"))
        page = await self._agents_of(caller).list(
            status=status or None, workspace=workspace or None, cursor=cursor or None, limit=_PER_PAGE
        )
        workspaces = await self._workspaces_of(caller).list()
        names = {each.id: each.name for each in workspaces}
        following = f"status={status}&in={workspace}&cursor={page.cursor}" if page.cursor else ""
        listed = Listed(
            page.agents,
            names,
            status,
            workspace,
            following,
            is_first=not cursor,
            shows_owners=caller.has(Scope.ADMIN) or len({each.owner for each in page.agents}) > 1,
        )
        draw = partial(
            self._drawn.list,
            self._site.frame(request, caller, "Agents"),
            listed,
            workspaces=[(each.id, each.name) for each in workspaces],
            models=[(name, name) for name in self._services.model_names()],
            values=values,
            problem=None if error is None else form_problem(error.message, _OF_MESSAGES),
            has_webhooks=self._agents_of(caller).webhooks.are_offered,
            is_fragment="fragment" in given,
        )
        html = await self._site.draw(request, draw)
        return html_answer(request, html, 200 if error is None else int(STATUS[error.code]))

    # One agent

    async def panel_of(self, request: Request, caller: Caller, session_id: str) -> Draft[Markup] | None:
        """Return what steers the agent of a session; None: it is none, or not in the caller's hands."""
        agent = await self._agents_of(caller).of_session(session_id)
        if agent is None:
            return None
        return await self._panel(self._site.frame(request, caller), caller, agent, request)

    async def panel(self, request: Request, caller: Caller) -> Response:
        """Return what steers an agent, alone, as it is on the page of its share."""
        agent = await self._agents_of(caller).get(request.path_params["agent_id"])
        frame = Frame(root="../", title="")  # it is put into a page one directory below the root
        draft = await self._panel(frame, caller, agent, None)
        html, _ = await self._site.draw_share(request, agent.share_id, lambda: draft)
        return html_answer(request, html)

    async def live(self, request: Request, caller: Caller) -> Response:
        """Return a stream that tells whenever there is another panel."""
        agent_id = request.path_params["agent_id"]
        await self._agents_of(caller).get(agent_id)
        changes = self._agents_of(caller).changes(agent_id, _HEARTBEAT)
        return self.streams.answer(caller, changes)

    async def diff(self, request: Request, caller: Caller) -> Response:
        """Return what has changed in an agent's workspace."""
        agents, agent_id = self._agents_of(caller), request.path_params["agent_id"]
        agent = await agents.get(agent_id)
        diff = await agents.diff(agent_id)
        frame = self._site.frame(request, caller, "Diff")
        name = await self._workspace_name(caller, agent)
        drafted = partial(self._drawn.diff, frame, agent, name, diff)
        html, _ = await self._site.draw_share(request, agent.share_id, drafted)
        return html_answer(request, html)

    async def send(self, request: Request, caller: Caller) -> Response:
        """Give an agent a message."""
        check_own_form(request, self._site.origins)
        agents, agent_id = self._agents_of(caller), request.path_params["agent_id"]
        agent = await agents.get(agent_id)
        form = await read_multipart(request, most_bytes=_MAX_SENT_FORM, most_files=MAX_ATTACHMENTS)
        content = form.fields.get("content", "").replace("\r\n", "\n")
        sent = await asyncio.to_thread(_digest, form.fields.get("nonce", ""), content, form.files)
        await agents.send(
            agent_id,
            content,
            message_id=sent,
            attachments=await asyncio.to_thread(_attachments, form.files),
            delivery=form.fields.get("delivery") or None,
        )
        return redirect(_place(agent, "../../", "sent"))

    async def unqueue(self, request: Request, caller: Caller) -> Response:
        """Take a message out of the queue."""
        check_own_form(request, self._site.origins)
        agents, agent_id = self._agents_of(caller), request.path_params["agent_id"]
        agent = await agents.get(agent_id)
        form = await read_form(request)
        taken = await agents.unqueue(agent_id, form.get("message", ""))
        return redirect(_place(agent, "../../", "unqueued" if taken else "started"))

    async def control(self, request: Request, caller: Caller) -> Response:
        """Stop its turn, pause, resume or terminate it, or give it a budget."""
        check_own_form(request, self._site.origins)
        agents, agent_id = self._agents_of(caller), request.path_params["agent_id"]
        agent = await agents.get(agent_id)
        form = await read_form(request)
        match what := form.get("do", ""):
            case "abort":
                await agents.abort(agent_id)
            case "pause":
                await agents.pause(agent_id)
            case "resume":
                await agents.resume(agent_id)
            case "budget":
                await agents.resume(agent_id, _budget(form))
            case "terminate":
                await agents.terminate(agent_id)
            case _:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "do: there is nothing of that name to do")
        return redirect(_place(agent, "../../", what))

    async def answer(self, request: Request, caller: Caller) -> Response:
        """Answer an approval or a question."""
        check_own_form(request, self._site.origins)
        agents = self._agents_of(caller)
        agent_id, request_id = request.path_params["agent_id"], request.path_params["request_id"]
        agent = await agents.get(agent_id)
        asked = await agents.request(agent_id, request_id)
        answer, note = await answer_of(request, asked)
        await agents.answer(agent_id, request_id, answer, note)
        return redirect(_place(agent, "../../../", "answered"))

    async def link(self, request: Request, caller: Caller) -> Response:
        """Make a link that answers one request, and show it once."""
        check_own_form(request, self._site.origins)
        agents, agent_id = self._agents_of(caller), request.path_params["agent_id"]
        agent = await agents.get(agent_id)
        made = await agents.link(agent_id, request.path_params["request_id"])
        frame = self._site.frame(request, caller, "A link")
        draw = partial(self._drawn.made_link, frame, agent, made.url, made.expires_at)
        return html_answer(request, await self._site.draw(request, draw))

    async def _panel(
        self, frame: Frame, caller: Caller, agent: Agent, request: Request | None
    ) -> Draft[Markup]:
        agents = self._agents_of(caller)
        notice = "" if request is None else _NOTICES.get(request.query_params.get("notice", ""), "")
        panel = Panel(
            agent,
            await self._workspace_name(caller, agent),
            [] if agent.status.is_over else await agents.approvals(agent.id),
            [] if agent.status.is_over else await agents.queue(agent.id),
            notice,
            secrets.token_urlsafe(12),
        )
        return self._drawn.panel(frame, panel)

    async def _workspace_name(self, caller: Caller, agent: Agent) -> str:
        with contextlib.suppress(ShareError):  # it may be gone
            return (await self._workspaces_of(caller).get(agent.workspace)).name
        return ""


async def _change_webhook(agents: CallerAgents, form: Mapping[str, str]) -> None:
    match form.get("do", ""):
        case "set":
            await agents.webhooks.set(form.get("url", "").strip())
        case "remove":
            await agents.webhooks.remove()
        case "test":
            await agents.webhooks.test()
        case _:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "do: there is nothing of that name to do")


async def answer_of(request: Request, asked: AgentRequest) -> tuple[object, str | None]:
    """Return what a form answers, and the note to it: questions have ``q0``, ``t0`` and so on.

    Raises:
        ShareError: INVALID_ARGUMENT: nothing is answered.
    """
    fields = await read_fields(request, most_bytes=_MAX_ANSWER_FORM, most_fields=_MAX_ANSWERS)
    form = dict(fields)
    if form.get("answer") == "reject" or asked.kind is RequestKind.APPROVAL:
        return form.get("answer", ""), form.get("note", "").strip() or None
    questions = asked.asked.get("questions")
    answers = [
        _chosen(question, number, fields, form)
        for number, question in enumerate(questions if isinstance(questions, list) else [])
    ]
    if not any(answers):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "answer: choose something, or say it in your own words")
    return answers, None


def _chosen(
    question: object, number: int, fields: Sequence[tuple[str, str]], form: Mapping[str, str]
) -> list[str]:
    """Return what is chosen of a question. Where one thing is, what was written takes its place."""
    question = question if isinstance(question, dict) else {}
    options = question.get("options")
    labels = (
        [each.get("label") for each in options if isinstance(each, dict)] if isinstance(options, list) else []
    )
    places = [
        int(value) for name, value in fields if name == f"q{number}" and value.isdecimal() and len(value) < 4
    ]
    chosen = [label for place in places if place < len(labels) and isinstance(label := labels[place], str)]
    written = form.get(f"t{number}", "").replace("\r\n", "\n").strip()
    if not written:
        return chosen
    return [*chosen, written] if question.get("multiple") is True else [written]


def _started(form: Mapping[str, str]) -> dict[str, object]:
    given: dict[str, object] = {"workspace": form["workspace"]}
    given |= {name: form[name] for name in ("prompt", "title", "model", "agent") if form[name]}
    if "prompt" in given:
        given["prompt"] = form["prompt"].replace("\r\n", "\n")
    if form["permission"] not in PERMISSIONS:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "permission: is none of those that the form offers")
    if permissions := PERMISSIONS[form["permission"]][1]:
        given["permission"] = dict(permissions)
    if budget := _budget(form):
        given["budget"] = budget
    return given


def _budget(form: Mapping[str, str]) -> dict[str, object]:
    budget: dict[str, object] = {}
    for name, kind in (("dollars", float), ("tokens", int), ("turns", int)):
        text = form.get(name, "").strip().removeprefix("$").replace(",", "")
        if not text:
            continue
        try:
            budget[name] = kind(text[:30])
        except ValueError:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"budget.{name}: must be a number") from None
    return budget


def _attachments(files: Sequence[SentFile]) -> list[dict[str, str]] | None:
    """Return files as a message takes them. opencode reads text only where it is called text/plain."""
    made = []
    for file in files:
        media_type = file.media_type.partition(";")[0].strip().lower()
        is_shown = media_type.startswith(("image/", "audio/", "video/")) or media_type == "application/pdf"
        if not is_shown and _is_text(file.content):
            media_type = "text/plain"
        if not _MEDIA_TYPE.fullmatch(media_type):
            media_type = "application/octet-stream"
        url = f"data:{media_type};base64,{base64.b64encode(file.content).decode()}"
        made.append({"url": url, "mimeType": media_type, "filename": safe_file_name(file.name, "file")})
    return made or None


def _is_text(content: bytes) -> bool:
    try:
        return b"\0" not in content and content.decode() is not None
    except UnicodeDecodeError:
        return False


def _digest(nonce: str, content: str, files: Sequence[SentFile]) -> str | None:
    """Return the ID of a message: one that is sent twice from one page, as impatient people do, is one."""
    if not nonce:
        return None
    digest = hashlib.sha256(msgspec.msgpack.encode((nonce, content, files)))
    return f"msg_{digest.hexdigest()[:40]}"


def _place(agent: Agent, root: str, notice: str = "") -> str:
    said = f"&notice={notice}" if notice else ""
    return f"{root}share/{agent.share_id}?end=1{said}#agent"
