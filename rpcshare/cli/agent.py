"""``rpcshare agent``: start agents, follow them, answer what they ask."""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from rpcshare.cli.agent_following import Follower
from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.exit_status import NotFoundError
from rpcshare.cli.terminal import Column, ago, json_text, print_table, printable_text, say, standard_output
from rpcshare.client import Agent, AgentInfo, AgentRequest, ShareClient

__all__ = ["agent"]

T = TypeVar("T")

_WORKSPACE_ID = re.compile(r"wsp_[0-9a-f]{24}")
_BUDGET = re.compile(r"(\d+(?:\.\d+)?) ?(USD|\$|tokens?|turns?)", re.IGNORECASE)

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_agent_argument = click.argument("session_id", metavar="AGENT")
_watch_options = (
    click.option("--watch", "follows", is_flag=True, help="Follow it until its turn has ended."),
    click.option("--yes", "allows", is_flag=True, help="With --watch: allow what it asks for, once each."),
)


@click.group(invoke_without_command=True)
@click.pass_context
def agent(ctx: click.Context) -> None:
    """Start agents on workspaces, send them messages, follow them, and answer what they ask.

    AGENT is its id, ses_…, or `-` for the one that was started last.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _with_watching(command: Callable[..., int | None]) -> Callable[..., int | None]:
    for option in reversed(_watch_options):
        command = option(command)
    return command


@agent.command("start", short_help="Start an agent.")
@click.argument("prompt", nargs=-1)
@click.option("-w", "--workspace", required=True, metavar="NAME|ID", help="What it works on.")
@click.option("--model", metavar="NAME/MODEL", help="One of the server's. [default: its first]")
@click.option("--title", metavar="TEXT", help="Of its transcript.")
@click.option("--agent", "mode", metavar="NAME", help="Which of opencode's agents, such as plan.")
@click.option("--budget", metavar="AMOUNT", multiple=True,
              help="What it may spend: 2USD, 100000tokens or 5turns; may be repeated.")  # fmt: skip
@click.option("--permission", "permissions", metavar="NAME=ACTION", multiple=True,
              help="allow, ask or deny something, such as bash=ask; may be repeated.")  # fmt: skip
@_with_watching
@_json_option
@with_server
def start(
    server: Server,
    prompt: tuple[str, ...],
    workspace: str,
    model: str | None,
    title: str | None,
    mode: str | None,
    budget: tuple[str, ...],
    permissions: tuple[str, ...],
    follows: bool,
    allows: bool,
    as_json: bool,
) -> int | None:
    """Start an agent, with PROMPT as its first message if there is one. `-`: read it from standard input."""
    text = _text_of(prompt)
    if follows and text is None:
        raise click.UsageError("--watch goes with a PROMPT")
    rules = dict(_pair(each, "--permission", "NAME=ACTION") for each in permissions)

    async def work(client: ShareClient) -> int | None:
        made = await client.agents.start(
            await _workspace_of(client, workspace),
            text,
            title=title,
            model=model,
            agent=mode,
            permission=rules or None,
            budget=_budget_of(budget),
        )
        info = await made.info()
        if follows:
            say(f"{made.id}  {info.share['url']}", err=True)
            return await _follow(
                made, as_json=as_json, allows=allows, cursor=None, ends_idle=True, is_new=True
            )
        _print(_plain(info), as_json, made.id, info.share["url"])
        return None

    return _run(server, work)


@agent.command("send", short_help="Send a message to an agent.")
@_agent_argument
@click.argument("content", nargs=-1, required=True)
@click.option("--steer", is_flag=True, help="Before the next step of the turn under way, not behind it.")
@click.option("--file", "files", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
              help="A file that goes with it; may be repeated.")  # fmt: skip
@_with_watching
@_json_option
@with_server
def send(
    server: Server,
    session_id: str,
    content: tuple[str, ...],
    steer: bool,
    files: tuple[Path, ...],
    follows: bool,
    allows: bool,
    as_json: bool,
) -> int | None:
    """Send a message to AGENT; returns once the server has it. `-`: read it from standard input."""
    text = _text_of(content) or ""
    attachments = [_attachment(each) for each in files]

    async def work(client: ShareClient) -> int | None:
        found = await _agent_of(client, session_id)
        cursor = await _now(found) if follows else None
        message = await found.send(text, attachments=attachments, delivery="steer" if steer else "queue")
        if follows:
            return await _follow(found, as_json=as_json, allows=allows, cursor=cursor, ends_with=message)
        _print({"messageID": message}, as_json, message)
        return None

    return _run(server, work)


@agent.command("watch", short_help="Follow an agent.")
@_agent_argument
@click.option("--cursor", metavar="CURSOR", help="Behind this event, as --json prints its cursor.")
@click.option("--until-idle", is_flag=True, help="End when it has nothing left to do.")
@click.option("--yes", "allows", is_flag=True, help="Allow, once each, whatever it asks for.")
@_json_option
@with_server
def watch(
    server: Server, session_id: str, cursor: str | None, until_idle: bool, allows: bool, as_json: bool
) -> int | None:
    """Follow AGENT: its words as they come, a line for each tool. On a terminal you are asked what it asks.

    Ctrl-C ends its turn, and another one the command.
    """

    async def work(client: ShareClient) -> int | None:
        found = await _agent_of(client, session_id)
        return await _follow(found, as_json=as_json, allows=allows, cursor=cursor, ends_idle=until_idle)

    return _run(server, work)


@agent.command("approve", short_help="Answer what an agent asks.")
@_agent_argument
@click.argument("approval_id", metavar="[APPROVAL]", required=False)
@click.option("--always", is_flag=True, help="This, and what is like it.")
@click.option("--reject", is_flag=True, help="Do not allow it.")
@click.option("--note", metavar="TEXT", help="What the agent is told of a rejection.")
@click.option("--answer", "answers", metavar="TEXT", multiple=True, help="To a question, one for each.")
@click.option("--link", is_flag=True, help="Print a link that answers it once, from a phone.")
@_json_option
@with_server
def approve(
    server: Server,
    session_id: str,
    approval_id: str | None,
    always: bool,
    reject: bool,
    note: str | None,
    answers: tuple[str, ...],
    link: bool,
    as_json: bool,
) -> int | None:
    """Allow what AGENT asks for, or answer its questions. APPROVAL may be left out where there is one."""
    if sum((always, reject, bool(answers), link)) > 1:
        raise click.UsageError("--always, --reject, --answer and --link exclude each other")

    async def work(client: ShareClient) -> int | None:
        found = await _agent_of(client, session_id)
        request = await _request_of(found, approval_id)
        if link:
            made = await found.link(request.id)
            _print(_plain(made), as_json, made.url)
            return None
        if request.kind == "question" and not (answers or reject):
            raise click.UsageError("it is a question: give --answer or --reject")
        answer: str | list[list[str]] = "always" if always else "reject" if reject else "once"
        if answers:
            answer = [[each] for each in answers]
        answered = await found.answer(request.id, answer, note)
        _print(_plain(answered), as_json, f"{answered.state} {answered.id}")
        return None

    return _run(server, work)


@agent.command("approvals", short_help="List what an agent asks.")
@_agent_argument
@_json_option
@with_server
def approvals(server: Server, session_id: str, as_json: bool) -> int | None:
    """List what AGENT wants to be allowed or to know."""

    async def work(client: ShareClient) -> int | None:
        requests = await (await _agent_of(client, session_id)).approvals()
        rows = [(each.id, each.kind, each.permission, _asked(each)) for each in requests]
        names = ("id", "kind", "permission", "what")
        _table(_plain(requests), as_json, [Column(name) for name in names], rows)
        return None

    return _run(server, work)


@agent.command("ls", short_help="List your agents.")
@click.option("--status", metavar="STATUS", help="Only those that are idle, running, blocked, …")
@click.option("-w", "--workspace", metavar="NAME|ID", help="Only those of a workspace.")
@_json_option
@with_server
def ls(server: Server, status: str | None, workspace: str | None, as_json: bool) -> int | None:
    """List your agents, the newest first."""

    async def work(client: ShareClient) -> int | None:
        where = None if workspace is None else await _workspace_of(client, workspace)
        found: list[AgentInfo] = []
        cursor = None
        while True:
            page = await client.agents.list(status=status, workspace=where, cursor=cursor, limit=200)  # type: ignore[arg-type]
            found += page.agents
            cursor = page.cursor
            if cursor is None:
                break
        now = time.time()
        columns = [Column("id"), Column("status"), Column("cost", is_number=True), Column("active")]
        columns += [Column("title", without_room="cut")]
        rows = [
            (each.id, each.status, f"${each.cost:.2f}", ago(now - each.last_active_at / 1000), each.title)
            for each in found
        ]
        _table(_plain(found), as_json, columns, rows)
        return None

    return _run(server, work)


@agent.command("show", short_help="Show an agent.")
@_agent_argument
@_json_option
@with_server
def show(server: Server, session_id: str, as_json: bool) -> int | None:
    """Show what is known of AGENT."""

    async def work(client: ShareClient) -> int | None:
        info = await (await _agent_of(client, session_id)).info()
        budget = ", ".join(f"{value:g} {name}" for name, value in info.budget.items() if value)
        lines = [
            f"id: {info.id}",
            f"status: {info.status}",
            *([] if info.error is None else [f"error: {info.error}"]),
            f"title: {info.title}",
            f"transcript: {info.share['url']}",
            f"workspace: {info.workspace}",
            f"model: {info.model}",
            f"spent: ${info.cost:.4f}, {info.tokens['total']:,} tokens, {info.turns:,} turns",
            *([f"budget: {budget}"] if budget else []),
        ]
        _print(_plain(info), as_json, *lines)
        return None

    return _run(server, work)


@agent.command("queue", short_help="List the messages that wait.")
@_agent_argument
@click.option("--remove", "removed", metavar="MESSAGE", help="Take this one out of the queue.")
@_json_option
@with_server
def queue(server: Server, session_id: str, removed: str | None, as_json: bool) -> int | None:
    """List the messages to AGENT that wait, and the one whose turn is under way."""

    async def work(client: ShareClient) -> int | None:
        found = await _agent_of(client, session_id)
        if removed is not None:
            if not await found.unqueue(removed):
                raise NotFoundError("there is no such message in the queue")
            _print({"removed": True}, as_json, f"removed {removed}")
            return None
        waiting = await found.queue()
        columns = [Column("id"), Column("state"), Column("content", without_room="cut")]
        rows = [(each.message_id, each.state, each.content) for each in waiting]
        _table(_plain(waiting), as_json, columns, rows)
        return None

    return _run(server, work)


@agent.command("resume", short_help="Go on with an agent.")
@_agent_argument
@click.option("--budget", metavar="AMOUNT", multiple=True, help="Another budget: 2USD, 100000tokens, 5turns.")
@_json_option
@with_server
def resume(server: Server, session_id: str, budget: tuple[str, ...], as_json: bool) -> int | None:
    """Go on with AGENT, which is paused or interrupted."""

    async def work(client: ShareClient) -> int | None:
        found = await _agent_of(client, session_id)
        await found.resume(_budget_of(budget))
        await _tell(found, as_json, "resumed")
        return None

    return _run(server, work)


@agent.command("diff", short_help="Print what has changed in the workspace.")
@_agent_argument
@_json_option
@with_server
def diff(server: Server, session_id: str, as_json: bool) -> int | None:
    """Print what has changed in the workspace of AGENT, as a patch where there is one."""

    async def work(client: ShareClient) -> int | None:
        found = await (await _agent_of(client, session_id)).diff()
        lines: list[str] = []
        for each in found:
            patch = each.get("patch")
            head = f"{each.get('file')} +{each.get('additions')} -{each.get('deletions')}"
            lines += [head, *(patch.splitlines() if isinstance(patch, str) else [])]
        if as_json:
            click.echo(json_text(found))
        else:
            click.echo(
                "".join(printable_text(line) + "\n" for line in lines), file=standard_output(), nl=False
            )
        return None

    return _run(server, work)


def _control(name: str, done: str, about: str, short: str) -> None:
    """Add a command that needs nothing but the agent."""

    @agent.command(name, short_help=short, help=about)
    @_agent_argument
    @_json_option
    @with_server
    def control(server: Server, session_id: str, as_json: bool) -> int | None:
        async def work(client: ShareClient) -> int | None:
            found = await _agent_of(client, session_id)
            await {"abort": found.abort, "pause": found.pause, "stop": found.terminate}[name]()
            await _tell(found, as_json, done)
            return None

        return _run(server, work)


_control("abort", "aborted", "End the turn under way of AGENT.", "End the turn under way.")
_control("pause", "paused", "Begin no further turn of AGENT.", "Begin no further turn.")
_control("stop", "stopped", "End AGENT for good, but for its transcript.", "End an agent for good.")


async def _follow(
    found: Agent,
    *,
    as_json: bool,
    allows: bool,
    cursor: str | None,
    ends_idle: bool = False,
    ends_with: str | None = None,
    is_new: bool = False,
) -> int:
    follower = Follower(found, as_json=as_json, allows=allows)
    return await follower.follow(cursor, ends_idle=ends_idle, ends_with=ends_with, is_new=is_new)


async def _now(found: Agent) -> str | None:
    """Return a cursor behind all that has happened up to now."""
    async with found.watch() as events:
        async for event in events:
            if event.type == "snapshot":
                return event.cursor
    return None


async def _tell(found: Agent, as_json: bool, done: str) -> None:
    info = await found.info()
    _print(_plain(info), as_json, f"{done} {found.id}: {info.status}")


async def _agent_of(client: ShareClient, named: str) -> Agent:
    if named != "-":
        return client.agents.get(named)
    page = await client.agents.list(limit=1)
    if not page.agents:
        raise NotFoundError("you have no agent")
    return client.agents.get(page.agents[0].id)


async def _workspace_of(client: ShareClient, named: str) -> str:
    if _WORKSPACE_ID.fullmatch(named):
        return named
    found = [each["id"] for each in await client.api.workspaces().list() if each["name"] == named]
    if len(found) != 1:
        why = (
            "there are several workspaces of this name: give an id" if found else "there is no such workspace"
        )
        raise NotFoundError(f"{why} (see 'rpcshare workspace ls')")
    return str(found[0])


async def _request_of(found: Agent, approval_id: str | None) -> AgentRequest:
    requests = [each for each in await found.approvals() if approval_id in (None, each.id)]
    if not requests:
        raise NotFoundError("nothing of that id is asked" if approval_id else "it asks nothing")
    if len(requests) > 1:
        raise click.UsageError(f"it asks {len(requests)} things: say which (see 'rpcshare agent approvals')")
    return requests[0]


def _asked(request: AgentRequest) -> str:
    if request.kind == "question":
        return "; ".join(str(each.get("question", "")) for each in request.questions)
    return ", ".join(request.patterns)


def _text_of(words: tuple[str, ...]) -> str | None:
    if words == ("-",):
        return sys.stdin.read()
    return " ".join(words) or None


def _attachment(path: Path) -> dict[str, str]:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    content = base64.b64encode(path.read_bytes()).decode()
    return {"url": f"data:{kind};base64,{content}", "mimeType": kind, "filename": path.name}


def _budget_of(given: tuple[str, ...]) -> dict[str, float] | None:
    budget: dict[str, float] = {}
    for each in given:
        found = _BUDGET.fullmatch(each)
        if found is None:
            raise click.BadParameter(
                f"{each!r} is not like 2USD, 100000tokens or 5turns", param_hint="--budget"
            )
        amount, unit = float(found[1]), found[2].lower().rstrip("s")
        name = {"usd": "dollars", "$": "dollars", "token": "tokens", "turn": "turns"}[unit]
        budget[name] = amount if name == "dollars" else int(amount)
    return budget or None


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f"{text!r} is not {form}", param_hint=option)
    return name, value


def _run(server: Server, work: Callable[[ShareClient], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with server.connected() as client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except KeyboardInterrupt:
        click.echo(err=True)
        sys.exit(130)


def _plain(value: object) -> object:
    return msgspec.to_builtins(value)


def _print(value: object, as_json: bool, *lines: str) -> None:
    if as_json:
        click.echo(json_text(value))
    else:
        say(*lines)


def _table(value: object, as_json: bool, columns: list[Column], rows: Sequence[tuple[str, ...]]) -> None:
    if as_json:
        click.echo(json_text(value))
    elif rows:
        print_table(columns, rows)
