"""The agents of one workspace on this node: one process of opencode's for all, while there is work.

One task does everything in rounds: it reads what is to be done, starts the process if that needs it, and has
each session take its step. So nothing here happens twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec

from rpcshare.agents.agent import Agent, AgentStatus, JSONObject, MessageState, Spent, is_session_id
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agents import Agents, AgentWork
from rpcshare.agents.counts import AgentCounts
from rpcshare.agents.model_sessions import WorkspaceModelSessions
from rpcshare.agents.opencode.binary import OpencodeBinary
from rpcshare.agents.opencode.client import Opencode, OpencodeError
from rpcshare.agents.opencode.events import LOST, OpencodeEvent
from rpcshare.agents.owners import caller_of
from rpcshare.agents.process_slots import ProcessSlots
from rpcshare.agents.redacting import redacted, redacted_aside, shown_title
from rpcshare.agents.session_runner import SessionRunner
from rpcshare.agents.transcript import AGENTS
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.metering import ModelSessions
from rpcshare.sandbox.driver import Sandbox, SandboxError, SandboxStatus
from rpcshare.shares.service import ShareService
from rpcshare.workspaces.git_clone import redacted_log
from rpcshare.workspaces.sandboxing import WorkspacePrograms
from rpcshare.workspaces.workspace import Workspace
from rpcshare.workspaces.workspaces import Reach, Workspaces

__all__ = ["Models", "RunnerSettings", "Running", "WorkspaceRunner"]

Answer: TypeAlias = "asyncio.Future[object]"

logger = logging.getLogger("rpcshare.agents")

_WATCHES = 10.0
"""Seconds between two looks whether opencode is well."""
_FAILURES = 3
_LOG_LINES = 20
_MOST_SESSIONS = 1000
"""That one process's sub-agents and agents may be, before further sub-agents are not followed."""


@dataclass(frozen=True)
class RunnerSettings:
    """How processes are run."""

    start_timeout: float = 90.0
    """Seconds until opencode has to answer."""
    idle_timeout: float = 300.0
    """Seconds without anything to do after which it is stopped."""
    grace: float = 2.0
    """The same, while others wait for a slot."""
    looks_again: float = 1.0
    """Seconds after which rows are read again, where other nodes may have changed them."""


@dataclass(frozen=True)
class Running:
    """What the runners of one node share."""

    agents: Agents
    workspaces: Callable[[], Awaitable[Workspaces]]
    programs: WorkspacePrograms
    shares: ShareService
    binary: OpencodeBinary
    open_models: Callable[[Workspace, str, ModelSessions], Awaitable[Models]]
    """Opens the models for a process that answers by this one unless it is asked for another."""
    settings: RunnerSettings
    slots: ProcessSlots
    counts: AgentCounts


class Models(Protocol):
    """The way to models of one process."""

    config: JSONObject
    """opencode's."""
    sockets: dict[int, Path]
    """Ports inside, and the sockets of the server that they lead to."""

    async def close(self) -> None:
        """Let nobody ask a model by it any more."""


@dataclass
class _Process:
    sandbox: Sandbox
    opencode: Opencode
    models: Models
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Call:
    agent: Agent
    name: str
    arguments: JSONObject
    answer: Answer


class WorkspaceRunner:
    """Runs the agents of one workspace, for as long as this node has its lease."""

    def __init__(self, workspace: str, running: Running) -> None:
        """Run them; :meth:`wake` begins."""
        self.workspace = workspace
        self._running = running
        self._agents = running.agents
        self._process: _Process | None = None
        self._sessions: dict[str, SessionRunner] = {}
        self._calls: list[_Call] = []
        self._awake = asyncio.Event()
        self._reason: str | None = None  # why the process is being ended
        self._ended: str | None = None  # how the process has ended, until that is noted
        self._is_new = True
        self._has_given_up = False
        self._has_warned = False
        self._used_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def is_needed(self) -> bool:
        """Whether there is a process, or somebody waits for one."""
        return self._process is not None or bool(self._calls) or self._awake.is_set()

    def session(self, session_id: str) -> SessionRunner | None:
        """Return a session that runs here."""
        return self._sessions.get(session_id)

    def wake(self) -> None:
        """Look soon at what is to be done."""
        self._awake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def call(self, agent: Agent, name: str, arguments: JSONObject) -> object:
        """Return what opencode answers; see :class:`rpcshare.agents.agent_services.Node`."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(agent, name, arguments, answer))
        self.wake()
        return await answer

    async def close(self, reason: str | None = None) -> None:
        """End the process; turns that are under way are interrupted, for ``reason``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(DatabaseError):
            await self._stop(reason or "the server has been stopped")
        self._refuse_calls("the server is being stopped")

    def abandon(self) -> None:
        """End the process at once, and write nothing: another node has the lease."""
        if self._task is not None:
            self._task.cancel()
        if self._process is not None:
            process, self._process = self._process, None
            self._running.counts.processes -= 1
            for task in process.tasks:
                task.cancel()
            self._background = asyncio.create_task(self._discard(process))
        self._refuse_calls("another server runs this agent now")

    async def _run(self) -> None:
        settings = self._running.settings
        while True:
            busy = any(each.is_busy for each in self._sessions.values())
            timeout = settings.looks_again if busy or self._agents.is_shared else 3.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), timeout)
            self._awake.clear()
            try:
                await self._round()
            except OpencodeError as exc:
                logger.warning("opencode fails: %s", redacted(exc.message))
                await asyncio.sleep(0.5)
                self._awake.set()
            except DatabaseError as exc:
                logger.warning("the database of agents cannot be reached: %s", exc)
                await asyncio.sleep(1)
                self._awake.set()
            except Exception:
                logger.exception("the agents of a workspace cannot be looked after")
                await asyncio.sleep(5)
                self._awake.set()

    async def _round(self) -> None:
        if self._ended is not None:
            await self._note_end(self._ended)
        work = await self._agents.work_of(self.workspace)
        if self._is_new:
            work = await self._take_over(work)
        if self._process is None:
            if not self._calls and not any(self._needs_process(each) for each in work):
                return
            if not await self._start(work):
                return
            work = await self._agents.work_of(self.workspace)
        assert self._process is not None  # noqa: S101 -- for the type checker
        await self._end_those_over(work)
        await asyncio.gather(*(self._step(each) for each in work))
        await self._answer_calls()
        self._stop_if_idle(work)
        if self._ended == "":
            self._ended = None
            await self._stop(None)

    def _needs_process(self, work: AgentWork) -> bool:
        match work.agent.status:
            case AgentStatus.INITIALIZING:
                return True
            case AgentStatus.RUNNING | AgentStatus.IDLE | AgentStatus.BLOCKED:
                return bool(work.queued or work.sent)
            case AgentStatus.INTERRUPTED:
                # How its turn has ended is found out once, and not again and again where nothing starts.
                return bool(work.sent) and not self._has_given_up
            case _:
                return False

    async def _take_over(self, work: Sequence[AgentWork]) -> Sequence[AgentWork]:
        """Say of turns that a server has left behind that they are interrupted, until more is known."""

        def cut_off(edit: AgentEdit) -> None:
            if edit.agent.status.is_busy:
                edit.withdraw(edit.requests())
                edit.become(AgentStatus.INTERRUPTED, "the server that ran it has ended")

        left = [each for each in work if each.sent and each.agent.status.is_busy]
        for each in left:
            await self._agents.edit(each.agent.id, cut_off)
        self._is_new = False
        return await self._agents.work_of(self.workspace) if left else work

    async def _step(self, work: AgentWork) -> None:
        session = self._sessions.get(work.agent.id)
        if session is None:
            session = await self._open(work.agent, work)
        await session.step(work)

    async def _open(
        self, agent: Agent, work: AgentWork | None = None, root: SessionRunner | None = None
    ) -> SessionRunner:
        process = self._process
        if process is None:
            raise OpencodeError("it has ended")
        session = SessionRunner(
            agent,
            self._agents,
            self._running.shares,
            process.opencode,
            root=root,
            wake=self.wake,
            counts=self._running.counts,
            end_process=self._end_process,
        )
        self._sessions[agent.id] = session
        try:
            if root is None:
                await session.open([] if work is None else work.sent)
            if agent.status is not AgentStatus.INITIALIZING:
                for event in await process.opencode.history({agent.id: agent.sync_seq}):
                    session.transcript.take(event)
        except BaseException:
            del self._sessions[agent.id]
            await session.transcript.close()
            raise
        return session

    # The process

    async def _start(self, work: Sequence[AgentWork]) -> bool:
        running = self._running
        workspaces = await running.workspaces()
        first = next((each.agent for each in work), self._calls[0].agent if self._calls else None)
        if first is None:
            return False
        await running.slots.take()
        if not self._calls and not any(map(self._needs_process, await self._agents.work_of(self.workspace))):
            running.slots.give_back()  # it was terminated meanwhile
            return False
        try:
            workspace = await workspaces.find(self.workspace, Reach((), is_all=True))
            sessions = WorkspaceModelSessions(self._agents, lambda: self._sessions)
            models = await running.open_models(workspace, first.model, sessions)
            try:
                password = secrets.token_urlsafe(18)
                program = running.binary.program(
                    password=password, config=models.config, sockets=models.sockets
                )
                sandbox = await running.programs.start(workspace, program, caller_of(first.owner))
            except BaseException:
                await models.close()
                raise
        except (ShareError, SandboxError) as exc:
            running.slots.give_back()
            log = exc.log if isinstance(exc, SandboxError) else ""
            await self._fail(work, _sentence(exc.message, log))
            return False
        except BaseException:
            running.slots.give_back()
            raise
        if sandbox.socket_path is None:
            raise RuntimeError("a sandbox of opencode's has no socket")
        process = _Process(sandbox, Opencode(sandbox.socket_path, password), models)
        try:
            why = await self._await_ready(process)
        except BaseException:
            await asyncio.shield(self._discard(process))
            raise
        if why is not None:
            await self._discard(process)
            await self._fail(work, _sentence(why, sandbox.log_tail(_LOG_LINES)))
            return False
        self._process = process
        self._has_given_up = False
        running.counts.starts["ok"] += 1
        running.counts.processes += 1
        self._ended = None
        self._used_at = time.monotonic()
        process.tasks = [
            asyncio.create_task(each)
            for each in (self._await_end(process), self._follow(process), self._watch(process))
        ]
        return True

    async def _await_ready(self, process: _Process) -> str | None:
        """Return once opencode answers; or why it does not."""
        until = time.monotonic() + self._running.settings.start_timeout
        while process.sandbox.status.running:
            try:
                version = await process.opencode.version()
            except OpencodeError:
                if time.monotonic() > until:
                    seconds = self._running.settings.start_timeout
                    return f"opencode does not answer within {seconds:.0f} seconds of its start"
                await asyncio.sleep(0.05)
                continue
            if not version.startswith("1."):
                return f"opencode {version} runs in the sandbox: this server speaks to 1.x"
            return None
        return f"opencode has ended at its start: {process.sandbox.status.message}"

    async def _end_process(self, reason: str) -> None:
        """End the process because it does not do what it is told; what is under way is interrupted."""
        process = self._process
        if process is not None:
            logger.warning("opencode is ended: %s", reason)
            self._reason = reason
            await process.sandbox.terminate(grace=0)

    async def _discard(self, process: _Process) -> None:
        await process.opencode.close()
        await process.sandbox.terminate(grace=1)
        await process.models.close()
        self._running.slots.give_back()

    async def _await_end(self, process: _Process) -> None:
        status = await process.sandbox.wait()
        if self._process is process:
            reason, self._reason = self._reason, None
            self._ended = reason or _how(status, process.sandbox)
            self._awake.set()

    async def _watch(self, process: _Process) -> None:
        failures = 0
        while True:
            await asyncio.sleep(_WATCHES)
            try:
                await process.opencode.version(within=_WATCHES)
                failures = 0
            except OpencodeError:
                failures += 1
                if failures >= _FAILURES:
                    logger.warning("opencode does not answer: it is ended")
                    await process.sandbox.terminate(grace=0)
                    return

    async def _note_end(self, how: str) -> None:
        """Interrupt what was under way."""
        await self._stop(how)

    async def _stop(self, reason: str | None) -> None:
        """End the process; ``reason``: of an interruption; None: there is none, as nothing is under way."""
        process, self._process = self._process, None
        self._ended = None
        sessions, self._sessions = list(self._sessions.values()), {}
        if process is None:
            return
        self._running.counts.processes -= 1
        for task in process.tasks:
            task.cancel()
        await asyncio.gather(*process.tasks, return_exceptions=True)
        try:
            for session in sessions:
                await (session.close() if reason is None else session.interrupt(reason))
        except ShareError as exc:
            logger.warning("an agent's end cannot be noted: %s", exc.message)
        finally:
            await asyncio.shield(self._discard(process))

    async def _fail(self, work: Sequence[AgentWork], why: str) -> None:
        """Note that no process can be started: of agents that are new, that they have failed."""
        logger.warning("an agent cannot be started: %s", why)
        self._running.counts.starts["failed"] += 1
        self._has_given_up = True

        def fail(edit: AgentEdit) -> None:
            if edit.agent.status is AgentStatus.INITIALIZING:
                for message in edit.messages(MessageState.QUEUED, MessageState.SENT):
                    edit.move(message, MessageState.DROPPED, told="ended", reason="failed")
                edit.become(AgentStatus.FAILED, why)
            elif edit.agent.status.is_busy:
                edit.withdraw(edit.requests())
                edit.become(AgentStatus.INTERRUPTED, why)

        for each in work:
            await self._agents.edit(each.agent.id, fail)
        self._refuse_calls(why)

    async def _end_those_over(self, work: Sequence[AgentWork]) -> None:
        alive = {each.agent.id for each in work}
        for session in list(self._sessions.values()):
            if session.root.id not in alive:
                await session.end_turn()
                await session.close()
                del self._sessions[session.id]

    def _stop_if_idle(self, work: Sequence[AgentWork]) -> None:
        if any(each.is_busy for each in self._sessions.values()) or any(
            self._needs_process(each) for each in work
        ):
            self._used_at = time.monotonic()
            return
        settings = self._running.settings
        idle = time.monotonic() - self._used_at
        if not work or idle > (settings.grace if self._running.slots.is_wanted else settings.idle_timeout):
            self._ended = ""

    # What opencode tells

    async def _follow(self, process: _Process) -> None:
        has_failed = False
        try:
            async for event in process.opencode.events():
                try:
                    await self._take(process, event)
                except (OpencodeError, DatabaseError, ShareError) as exc:
                    logger.warning("an event of opencode's could not be noted: %s", type(exc).__name__)
                    has_failed = True
                if has_failed:
                    has_failed = False
                    await asyncio.sleep(0.5)
                    await self._catch_up(process)
        except (OpencodeError, DatabaseError, ShareError) as exc:
            logger.warning("opencode cannot be followed any more: %s", exc)
            await process.sandbox.terminate(grace=0)
        except Exception:
            logger.exception("opencode cannot be followed any more")
            await process.sandbox.terminate(grace=0)

    async def _take(self, process: _Process, event: OpencodeEvent) -> None:
        if event.type == LOST:
            await self._catch_up(process)
            return
        session = self._sessions.get(event.session)
        if session is None and event.type == "session.created":
            session = await self._open_child(event.session, event.data.get("info"))
        if session is not None:
            await session.handle(event)

    async def _catch_up(self, process: _Process) -> None:
        """Take what was missed while nobody listened."""
        if not self._sessions:
            return
        known = {each.id: max(each.transcript.seq, each.agent.sync_seq) for each in self._sessions.values()}
        for event in await process.opencode.history(known):
            if (session := self._sessions.get(event.session)) is not None:
                await session.handle(event)
        for info in await process.opencode.sessions():
            session_id = str(info.get("id"))
            if session_id not in self._sessions:
                await self._open_child(session_id, info)
        for event in await process.opencode.pending():
            session = self._sessions.get(event.session)
            if session is not None:
                await session.handle(event)
        self.wake()

    async def _open_child(self, session_id: str, info: object) -> SessionRunner | None:
        """Make an agent of a sub-agent's session."""
        parent = self._sessions.get(str(info.get("parentID"))) if isinstance(info, dict) else None
        if parent is None or not isinstance(info, dict):
            return None
        if len(self._sessions) >= _MOST_SESSIONS:
            self._warn_of_sessions("opencode has more sessions than are kept")
            return None
        try:
            agent = await self._make_agent(parent.root.agent, session_id, info, parent=parent.id)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            self._warn_of_sessions(exc.message)
            return None
        return await self._open(agent, root=parent.root)

    async def _make_agent(
        self, like: Agent, session_id: str, info: JSONObject, *, parent: str | None
    ) -> Agent:
        """Make an agent, and a share, of a session that opencode has made; the same again finds them.

        Raises:
            ShareError: INVALID_ARGUMENT: there is one already that is not this one. Whoever controls a
                sandbox names sessions as they like, those of others too.
        """
        known = None if not is_session_id(session_id) else await self._known(session_id)
        if known is not None and (known.workspace, known.parent) == (self.workspace, parent):
            return known
        if known is not None or not is_session_id(session_id):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "opencode has made a session that is another's")
        owner = caller_of(like.owner)
        row = await self._running.shares.row(AGENTS, like.share_id)
        # What a password protects has parts that nobody has chosen one for.
        is_private = row.is_private or row.has_password
        visibility = "private" if is_private else "organization" if row.is_for_organization else "link"
        created = await self._running.shares.create(
            owner,
            session_id,
            [{"type": "session", "data": info}],
            {"visibility": visibility},
            # The owner's shares of other sessions have other parents. One was made by a server that has
            # ended before it could make the agent.
            if_there=lambda session: parent is not None and _parent_of(session) == parent,
        )
        now = self._agents.now()
        agent = Agent(
            id=session_id,
            owner=like.owner,
            workspace=like.workspace,
            share_id=created.id,
            share_url=created.url,
            status=AgentStatus.IDLE,
            title=shown_title(str(info.get("title") or "")),
            model=like.model,
            mode=str(info.get("agent") or like.mode)[:64].replace("\0", ""),
            permission=like.permission,
            budget=like.budget,
            spent=Spent(),
            parent=parent,
            error=None,
            created_at=now,
            last_active_at=now,
        )
        await self._agents.add(agent, lambda edit: edit.event("status", status=edit.agent.status.value))
        return agent

    def _warn_of_sessions(self, why: str) -> None:
        # Once: whoever controls a sandbox could fill the log.
        if not self._has_warned:
            self._has_warned = True
            logger.warning("a session is not followed: %s", why)

    async def _known(self, session_id: str) -> Agent | None:
        try:
            return await self._agents.find(session_id, Reach((), is_all=True))
        except ShareError:
            return None

    # What callers ask of it

    async def _answer_calls(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            if call.answer.done():
                continue
            try:
                call.answer.set_result(await self._answer(call))
            except ShareError as exc:
                call.answer.set_exception(exc)
            except OpencodeError as exc:
                call.answer.set_exception(_refusal(exc))

    async def _answer(self, call: _Call) -> object:
        process, session = self._process, self._sessions.get(call.agent.id)
        if process is None:
            raise ShareError(ErrorCode.CONTAINER_START_FAILED, "opencode has ended")
        if session is None:
            session = await self._open(call.agent)
        opencode = process.opencode
        match call.name:
            case "diff":
                return await redacted_aside(await opencode.diff())
            case "todo":
                return await redacted_aside(await opencode.todo(session.id))
            case "fork":
                return await self._fork(opencode, session, call.arguments.get("messageID"))
            case "revert" | "unrevert" if session.is_busy:
                message = "the agent is busy: abort its turn, or wait for its end"
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
            case "revert":
                await opencode.revert(session.id, str(call.arguments["messageID"]))
            case "unrevert":
                await opencode.unrevert(session.id)
        # What was done is told later than it is answered.
        for event in await opencode.history({session.id: session.transcript.seq}):
            await session.handle(event)
        await session.transcript.flush()
        return None

    async def _fork(self, opencode: Opencode, session: SessionRunner, message_id: str | None) -> str:
        info = await opencode.fork(session.id, message_id)
        made = await self._make_agent(session.agent, str(info["id"]), info, parent=None)
        forked = await self._open(made)
        await forked.transcript.flush()
        return made.id

    def _refuse_calls(self, why: str) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(ShareError(ErrorCode.CONTAINER_START_FAILED, why))


def _parent_of(session: bytes) -> object:
    return msgspec.json.decode(session).get("parentID")


def _sentence(why: str, log: str) -> str:
    """Return what a caller is told of a start that failed, with the last lines of the log."""
    shown = redacted_log(log) if log.strip() else ""
    return f"{why.rstrip('.')}: {shown}" if shown else why


def _how(status: SandboxStatus, sandbox: Sandbox) -> str:
    """Return how a process has ended, as its agents' error."""
    return _sentence(status.message or "opencode has ended", sandbox.log_tail(5))


def _refusal(error: OpencodeError) -> ShareError:
    if error.is_busy:
        return ShareError(
            ErrorCode.INVALID_ARGUMENT, "the agent is busy: abort its turn, or wait for its end"
        )
    if error.status is None:
        message = f"opencode does not answer: {redacted(error.message)}"
        return ShareError(ErrorCode.CONTAINER_START_FAILED, message)
    return ShareError(ErrorCode.INVALID_ARGUMENT, f"opencode refuses: {redacted(error.message)}")
