"""Agents as pages show them: their list, and what steers one beside its transcript."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from markupsafe import Markup

from rpcshare import jsontext
from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    MessageState,
    QueuedMessage,
    RequestKind,
)
from rpcshare.agents.webhooks import Webhook
from rpcshare.render import figures
from rpcshare.render.lenient_json import Fields
from rpcshare.render.pieces import CodePiece, Draft, FilePiece, Piece
from rpcshare.render.rendering import Frame, Pages
from rpcshare.render.safe_text import clean, unmistakable
from rpcshare.render.workspaces import FormProblem, shown_owner

__all__ = ["PERMISSIONS", "AgentRendering", "Listed", "Panel"]

_QUEUE_SHOWN = 25
_REQUESTS_SHOWN = 20
_QUESTIONS = 20
_OPTIONS = 50
_BEGINNING = 280  # characters of a message that waits
_FILES = 200  # of a diff

_STATUS: Final = {
    AgentStatus.INITIALIZING: ("Starting", "Its sandbox is being made."),
    AgentStatus.RUNNING: ("Running", "A turn is under way."),
    AgentStatus.IDLE: ("Idle", "It waits for a message."),
    AgentStatus.BLOCKED: ("Waits for you", "Somebody has to answer."),
    AgentStatus.PAUSED: ("Paused", "What is sent waits until it is resumed."),
    AgentStatus.INTERRUPTED: (
        "Interrupted",
        "A turn was cut off. It goes on with the next message, or when it is resumed.",
    ),
    AgentStatus.TERMINATED: ("Terminated", "It takes no more messages. Its transcript stays."),
    AgentStatus.FAILED: ("Failed", "It could not be started."),
}

PERMISSIONS: Final[Mapping[str, tuple[str, dict[str, str]]]] = {
    "": ("As opencode has it", {}),
    "ask": ("Ask before it edits, runs or fetches", {"edit": "ask", "bash": "ask", "webfetch": "ask"}),
    "read": ("Read only", {"edit": "deny", "bash": "deny"}),
    "allow": ("Allow everything in its sandbox", {"*": "allow"}),
}
"""What a form offers: (text, permissions)."""


class Listed(msgspec.Struct, frozen=True):
    """What the list of agents is about."""

    agents: Sequence[Agent]
    names: Mapping[str, str]
    """Of workspaces, by id."""
    status: str
    workspace: str
    next_page: str
    """The query of the page behind this one; empty: there is none."""
    is_first: bool
    shows_owners: bool


class AgentView(msgspec.Struct, frozen=True):
    """An agent in the list, and above its composer."""

    id: str
    share: str
    title: str
    status: str
    status_name: str
    explained: str
    error: str
    workspace: str
    workspace_name: str
    model: str
    mode: str
    owner: str
    cost: str
    tokens: str
    turns: str
    created: str
    active: str
    active_iso: str


class Meter(msgspec.Struct, frozen=True):
    """How much of one limit of a budget is spent."""

    name: str
    text: str
    part: float
    """From 0 to 1."""
    is_limited: bool


class QueuedView(msgspec.Struct, frozen=True):
    """A message that waits."""

    id: str
    text: str
    files: list[str]
    state: str
    is_steering: bool
    is_queued: bool


class OptionView(msgspec.Struct, frozen=True):
    """An answer to choose."""

    label: str
    description: str


class QuestionView(msgspec.Struct, frozen=True):
    """A question with its options."""

    header: str
    text: str
    options: list[OptionView]
    is_multiple: bool
    is_open: bool
    """Whether other words than those of the options may be the answer."""


class RequestView(msgspec.Struct, frozen=True):
    """Something that somebody has to answer; what is in pieces is by place in them."""

    id: str
    kind: str
    title: str
    asked: str
    asked_iso: str
    patterns: list[str]
    always: list[str]
    pieces: list[tuple[str, Piece]]
    """(label, piece) of what is asked about, in full."""
    questions: list[QuestionView]


class Panel(msgspec.Struct, frozen=True):
    """What a page of an agent is made of, beside its transcript."""

    agent: Agent
    workspace_name: str
    requests: Sequence[AgentRequest]
    queue: Sequence[QueuedMessage]
    notice: str = ""
    nonce: str = ""
    """Tells one composer from another: what is sent twice from one is one message."""


class AgentRendering:
    """Draws the pages of agents."""

    def __init__(self, pages: Pages) -> None:
        """Draw them as ``pages`` does the others."""
        self._pages = pages

    def list(
        self,
        frame: Frame,
        listed: Listed,
        *,
        workspaces: Sequence[tuple[str, str]],
        models: Sequence[tuple[str, str]],
        values: Mapping[str, str],
        problem: FormProblem | None = None,
        notice: str = "",
        has_webhooks: bool = False,
        is_fragment: bool = False,
    ) -> str:
        """Return the list of agents, with a form to start one.

        Args:
            frame: what is around it.
            listed: what is in it.
            workspaces: (id, name) of those that an agent can be started on.
            models: (value, text) of each that there is; none: the form asks for a name.
            values: of the form's fields.
            problem: what was wrong with the form.
            notice: what was done.
            has_webhooks: whether owners can be told by webhooks.
            is_fragment: whether the list alone is asked for.
        """
        return self._pages.render(
            "agent_rows.html" if is_fragment else "agents.html",
            frame=frame,
            agents=[view_of_agent(each, listed.names.get(each.workspace, "")) for each in listed.agents],
            listed=listed,
            statuses=[("", "Any"), *((status.value, _STATUS[status][0]) for status in AgentStatus)],
            workspaces=workspaces,
            models=models,
            permissions=[(name, text) for name, (text, _) in PERMISSIONS.items()],
            values=values,
            problem=problem,
            notice=notice,
            has_webhooks=has_webhooks,
        )

    def panel(self, frame: Frame, panel: Panel) -> Draft[Markup]:
        """Return what steers an agent, as a part of a page."""
        requests = [view_of_request(each) for each in panel.requests[:_REQUESTS_SHOWN]]
        agent = panel.agent

        def render(drawn: Mapping[Piece, Markup]) -> Markup:
            html = self._pages.render(
                "agent_panel.html",
                frame=frame,
                agent=view_of_agent(agent, panel.workspace_name),
                is_over=agent.status.is_over,
                is_busy=agent.status.is_busy,
                may_resume=agent.status in (AgentStatus.PAUSED, AgentStatus.INTERRUPTED),
                may_pause=not agent.status.is_over and agent.status is not AgentStatus.PAUSED,
                requests=requests,
                more_requests=max(0, len(panel.requests) - _REQUESTS_SHOWN),
                drawn=drawn,
                queue=[_view_of_message(each) for each in panel.queue[:_QUEUE_SHOWN]],
                more_queued=max(0, len(panel.queue) - _QUEUE_SHOWN),
                meters=meters_of(agent),
                budget=agent.budget,
                notice=panel.notice,
                nonce=panel.nonce,
                events=agent.events,
            )
            return Markup(html)  # noqa: S704 -- the template's

        return Draft([piece for request in requests for _, piece in request.pieces], render)

    def diff(self, frame: Frame, agent: Agent, workspace_name: str, diff: object) -> Draft[str]:
        """Return what has changed in an agent's workspace, file by file."""
        files = [each for each in diff if isinstance(each, dict)] if isinstance(diff, list) else []
        pieces: list[Piece] = [
            FilePiece(jsontext.encode(each), "", number, is_split=False, is_whole=True)
            for number, each in enumerate(files[:_FILES], 1)
        ]

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._pages.render(
                "agent_diff.html",
                frame=frame,
                agent=view_of_agent(agent, workspace_name),
                files=[drawn[piece] for piece in pieces],
                count=len(files),
                more_files=len(files) - len(pieces),
            )

        return Draft(pieces, render)

    def approve(
        self,
        frame: Frame,
        request: AgentRequest,
        agent: Agent,
        *,
        workspace_name: str,
        made_by: str,
        expires_at: int,
        problem: str = "",
    ) -> Draft[str]:
        """Return the page of a link that answers one request."""
        view = view_of_request(request)

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._pages.render(
                "approve.html",
                frame=frame,
                request=view,
                agent=view_of_agent(agent, workspace_name),
                made_by=shown_owner(made_by),
                expires=figures.moment(expires_at),
                expires_iso=figures.iso_time(expires_at),
                drawn=drawn,
                problem=problem,
            )

        return Draft([piece for _, piece in view.pieces], render)

    def webhook(
        self,
        frame: Frame,
        webhook: Webhook | None,
        *,
        entered: str = "",
        problem: FormProblem | None = None,
        notice: str = "",
    ) -> str:
        """Return the page that says where the caller is told of agents; ``entered`` is what was wrong."""
        delivered = None if webhook is None else webhook.delivered_at
        return self._pages.render(
            "agent_webhook.html",
            frame=frame,
            has_webhook=webhook is not None,
            values={"url": entered or ("" if webhook is None else webhook.url)},
            secret="" if webhook is None else webhook.secret,
            delivered=figures.moment(delivered),
            delivered_iso=figures.iso_time(delivered),
            failed="" if webhook is None else webhook.problem or "",
            problem=problem,
            notice=notice,
        )

    def made_link(self, frame: Frame, agent: Agent, url: str, expires_at: int) -> str:
        """Return the page that shows a link once."""
        return self._pages.render(
            "agent_link.html",
            frame=frame,
            share=agent.share_id,
            url=url,
            expires=figures.moment(expires_at),
            expires_iso=figures.iso_time(expires_at),
        )


def view_of_agent(agent: Agent, workspace_name: str) -> AgentView:
    """Return what is shown of an agent."""
    name, explained = _STATUS[agent.status]
    spent = agent.spent
    return AgentView(
        agent.id,
        agent.share_id,
        _line(agent.title, 200) or "An agent",
        agent.status.value,
        name,
        explained,
        _line(agent.error or "", 2000),
        agent.workspace,
        _line(workspace_name) or agent.workspace,
        _line(agent.model),
        _line(agent.mode),
        shown_owner(agent.owner),
        figures.money(spent.dollars),
        figures.tokens(spent.tokens) if spent.tokens else "",
        figures.plural(spent.turns, "turn") if spent.turns else "",
        figures.moment(agent.created_at),
        figures.moment(agent.last_active_at),
        figures.iso_time(agent.last_active_at),
    )


def view_of_request(request: AgentRequest) -> RequestView:
    """Return what is shown of an approval or a question: all of it, for it is answered by what is seen."""
    asked = Fields(request.asked)
    is_question = request.kind is RequestKind.QUESTION
    permission = asked.line("permission", limit=64)
    return RequestView(
        request.id,
        request.kind.value,
        "It asks you" if is_question else f"May it {_SAID.get(permission, f'use “{permission}”')}?",
        figures.moment(request.asked_at),
        figures.iso_time(request.asked_at),
        [] if is_question else _patterns(asked),
        [] if is_question else _texts(asked.items("always")),
        [] if is_question else _pieces(request.id, asked.fields("metadata")),
        [_question(each) for each in asked.all_fields("questions")[:_QUESTIONS]] if is_question else [],
    )


def _patterns(asked: Fields) -> list[str]:
    """Return what a rule would be matched with, unless that is said again by what is asked."""
    patterns = asked.items("patterns")
    return [] if patterns == [asked.fields("metadata").value("command")] else _texts(patterns)


_NO_END: Final = re.compile(r"\r(?!\n)")  # what is before it would not be seen

_SAID: Final = {
    "bash": "run this",
    "edit": "change this file",
    "write": "write this file",
    "read": "read this",
    "webfetch": "fetch this",
    "websearch": "search the web for this",
    "external_directory": "go outside its directory",
    "task": "start this sub-agent",
    "doom_loop": "go on, although it repeats itself",
}


def meters_of(agent: Agent) -> list[Meter]:
    """Return what an agent has spent, and of how much."""
    spent, budget = agent.spent, agent.budget
    rows = (
        (
            "Cost",
            figures.money(spent.dollars) or "$0",
            spent.dollars,
            budget.dollars,
            _dollars(budget.dollars),
        ),
        (
            "Tokens",
            figures.tokens(spent.tokens),
            spent.tokens,
            budget.tokens,
            figures.tokens(budget.tokens or 0),
        ),
        ("Turns", figures.count(spent.turns), spent.turns, budget.turns, figures.count(budget.turns or 0)),
    )
    return [
        Meter(
            name,
            f"{text} of {of}" if limit else text,
            min(1.0, used / limit) if limit else 0.0,
            is_limited=bool(limit),
        )
        for name, text, used, limit, of in rows
    ]


def _dollars(amount: float | None) -> str:
    return f"${amount:,.2f}" if amount and amount >= 0.01 else figures.money(amount)


def _question(question: Fields) -> QuestionView:
    return QuestionView(
        question.line("header", limit=100),
        question.text("question")[:10_000],
        [
            OptionView(option.text("label")[:1000], option.text("description")[:2000])
            for option in question.all_fields("options")[:_OPTIONS]
        ],
        question.flag("multiple"),
        question.value("custom") is not False,
    )


def _pieces(request_id: str, metadata: Fields) -> list[tuple[str, Piece]]:
    """Return what an approval is about: a diff as one, text as code, anything else as JSON."""
    found: list[tuple[str, Piece]] = []
    file = metadata.line("filepath", "filePath", "file", limit=1000)
    for number, name in enumerate(metadata, 1):
        value = metadata.value(name)
        if name == "diff" and isinstance(value, str) and value.strip():
            body = jsontext.encode(
                {"file": file, "patch": _NO_END.sub("\u240d", value).replace("\x1b", "\u241b")}
            )
            anchor = int(hashlib.sha256(f"{request_id} {number}".encode()).hexdigest()[:12], 16)
            found.append(("", FilePiece(body, "", anchor, is_split=False, is_whole=True)))
        elif name in ("filepath", "filePath", "file") and isinstance(value, str):
            continue
        elif value not in (None, "", [], {}):
            text = value if isinstance(value, str) else jsontext.encode(value).decode()
            language = "a.sh" if name == "command" else "" if isinstance(value, str) else "a.json"
            label = _line(name, 60)
            found.append((label, CodePiece(unmistakable(text).encode("utf-8", "replace"), language)))
    return found


def _view_of_message(message: QueuedMessage) -> QueuedView:
    text = clean(message.content)
    if message.command is not None:
        text = f"/{message.command} {text}"
    shown = text if len(text) <= _BEGINNING else text[: _BEGINNING - 1] + "…"
    return QueuedView(
        message.id,
        shown,
        [_line(each.filename, 120) or "file" for each in message.attachments],
        {MessageState.SENT: "under way", MessageState.INTERRUPTED: "cut off"}.get(message.state, ""),
        message.delivery.value == "steer",
        message.state is MessageState.QUEUED,
    )


def _texts(items: Sequence[object]) -> list[str]:
    return [unmistakable(each) for each in items[:200] if isinstance(each, str)]


def _line(text: str, limit: int = 300) -> str:
    return Fields({"text": text}).line("text", limit=limit)
