"""The agents of one workspace on this node: one process of opencode's for all, while there is work.

One task does everything in rounds: it reads what is to be done, starts the process if that needs it, and has
each session take its step. So nothing here happens twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from rpcshare.agents.agent import Agent, AgentStatus, JSONObject, MessageState
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agents import AgentWork
from rpcshare.agents.model_sessions import WorkspaceModelSessions
from rpcshare.agents.opencode.client import OpencodeError
from rpcshare.agents.opencode.events import LOST, OpencodeEvent
from rpcshare.agents.opencode_process import OpencodeProcess, ProcessStartError
from rpcshare.agents.redacting import redacted
from rpcshare.agents.running import Running
from rpcshare.agents.session_adoption import SessionAdoption
from rpcshare.agents.session_calls import SessionCalls
from rpcshare.agents.session_runner import SessionRunner
from rpcshare.database import DatabaseError
from rpcshare.errors import ShareError

__all__ = ["WorkspaceRunner"]

logger = logging.getLogger("rpcshare.agents")


class WorkspaceRunner:
    """Runs the agents of one workspace, for as long as this node has its lease."""

    def __init__(self, workspace: str, running: Running) -> None:
        """Run them; :meth:`wake` begins."""
        self.workspace = workspace
        self._running = running
        self._agents = running.agents
        self._process: OpencodeProcess | None = None
        self._sessions: dict[str, SessionRunner] = {}
        self._opening: dict[str, asyncio.Event] = {}  # until their history has been read
        self._calls = SessionCalls(self._opened, self._adopt_fork)
        self._adoption = SessionAdoption(running.agents, running.shares, workspace)
        self._awake = asyncio.Event()
        self._reason: str | None = None  # why the process is being ended
        self._ended: str | None = None  # how the process has ended, until that is noted
        self._is_new = True
        self._has_given_up = False
        self._used_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def is_needed(self) -> bool:
        """Whether there is a process, or somebody waits for one."""
        return self._process is not None or self._calls.agent is not None or self._awake.is_set()

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
        answer = self._calls.put(agent, name, arguments)
        self.wake()
        return await answer

    async def close(self, reason: str | None = None) -> None:
        """End the process; turns that are under way are interrupted, for ``reason``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(DatabaseError):
            await self._stop(reason or "the server has been stopped")
        self._calls.refuse("the server is being stopped")

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
        self._calls.refuse("another server runs this agent now")

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
            if self._calls.agent is None and not any(self._needs_process(each) for each in work):
                return
            if not await self._start(work):
                return
            work = await self._agents.work_of(self.workspace)
        assert self._process is not None  # noqa: S101 -- for the type checker
        await self._end_those_over(work)
        await asyncio.gather(*(self._step(each) for each in work))
        await self._calls.answer(self._process.opencode)
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
        self._opening[agent.id] = is_open = asyncio.Event()
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
        finally:
            del self._opening[agent.id]
            is_open.set()
        return session

    # The process

    async def _start(self, work: Sequence[AgentWork]) -> bool:
        running = self._running
        first = next((each.agent for each in work), self._calls.agent)
        if first is None:
            return False
        await running.slots.take()
        try:
            latest = await self._agents.work_of(self.workspace)
            if self._calls.agent is None and not any(map(self._needs_process, latest)):
                running.slots.give_back()  # it was terminated meanwhile
                return False
            sessions = WorkspaceModelSessions(self._agents, lambda: self._sessions)
            process = await OpencodeProcess.start(running, self.workspace, first, sessions)
        except ProcessStartError as exc:
            running.slots.give_back()
            await self._fail(work, exc.message)
            return False
        except BaseException:
            running.slots.give_back()
            raise
        self._process = process
        self._has_given_up = False
        running.counts.starts["ok"] += 1
        running.counts.processes += 1
        self._ended = None
        self._used_at = time.monotonic()
        process.tasks = [
            asyncio.create_task(each)
            for each in (self._await_end(process), self._follow(process), process.watch())
        ]
        return True

    async def _end_process(self, reason: str) -> None:
        """End the process because it does not do what it is told; what is under way is interrupted."""
        process = self._process
        if process is not None:
            logger.warning("opencode is ended: %s", reason)
            self._reason = reason
            await process.sandbox.terminate(grace=0)

    async def _discard(self, process: OpencodeProcess) -> None:
        await process.close()
        self._running.slots.give_back()

    async def _await_end(self, process: OpencodeProcess) -> None:
        how = await process.end()
        if self._process is process:
            reason, self._reason = self._reason, None
            self._ended = reason or how
            self._awake.set()

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
        self._calls.refuse(why)

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

    async def _follow(self, process: OpencodeProcess) -> None:
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

    async def _take(self, process: OpencodeProcess, event: OpencodeEvent) -> None:
        if event.type == LOST:
            await self._catch_up(process)
            return
        if (is_open := self._opening.get(event.session)) is not None:
            # Once a later event is known, those of the history that come before it would seem to be, too.
            await is_open.wait()
        session = self._sessions.get(event.session)
        if session is None and event.type == "session.created":
            session = await self._open_child(event.session, event.data.get("info"))
        if session is not None:
            await session.handle(event)

    async def _catch_up(self, process: OpencodeProcess) -> None:
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
        agent = await self._adoption.adopt_child(
            parent.root.agent, session_id, info, parent=parent.id, count=len(self._sessions)
        )
        if agent is None:
            return None
        return await self._open(agent, root=parent.root)

    # What callers ask of it

    async def _opened(self, agent: Agent) -> SessionRunner:
        return self._sessions.get(agent.id) or await self._open(agent)

    async def _adopt_fork(self, session: SessionRunner, info: JSONObject) -> SessionRunner:
        return await self._open(await self._adoption.adopt(session.agent, str(info["id"]), info, parent=None))
