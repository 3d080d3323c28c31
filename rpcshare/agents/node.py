"""The agents that this node runs: those of the workspaces that it has leased.

A node leases a workspace when there is something to do for its agents, and gives it back when there is not.
Workspaces of a
node that is gone are leased by another as soon as their leases have expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from rpcshare.agents.agent import Agent, JSONObject
from rpcshare.agents.agent_calls import AgentCalls
from rpcshare.agents.agents import Agents
from rpcshare.agents.leases import LEASE_SECONDS, Leases
from rpcshare.agents.running import Running
from rpcshare.agents.workspace_runner import WorkspaceRunner
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["AgentNode"]

logger = logging.getLogger("rpcshare.agents")

_ROUND = LEASE_SECONDS / 3
"""Seconds between two looks at leases."""


class AgentNode:
    """Runs agents; see :class:`rpcshare.agents.agent_services.Node`."""

    def __init__(
        self,
        name: str,
        opened: Callable[[], Awaitable[Agents]],
        prepare: Callable[[Agents], Awaitable[Running]],
    ) -> None:
        """Run them.

        Args:
            name: that no other process has had.
            opened: returns the agents.
            prepare: returns what runners need. Raises ShareError where no agents can be run.
        """
        self._name = name
        self._opened = opened
        self._prepare = prepare
        self._running: Running | None = None
        self._runners: dict[str, WorkspaceRunner] = {}
        self._leases: Leases | None = None
        self._calls: AgentCalls | None = None
        self._rounds: asyncio.Task[None] | None = None
        self._waking: set[asyncio.Task[None]] = set()
        self._answering: dict[str, asyncio.Task[None]] = {}  # what other nodes ask, by workspace
        self._is_closed = False

    @property
    def processes(self) -> int:
        """How many processes there are."""
        return sum(each.is_running for each in self._runners.values())

    def start(self) -> None:
        """Begin to look after agents, those too that a node has left behind."""
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._look_after())

    async def check(self) -> None:
        """Return if agents can be started. Raises ShareError: CONTAINER_START_FAILED, INVALID_ARGUMENT."""
        await self._prepared(await self._opened())

    def wake(self, workspace: str) -> None:
        """Look at a workspace soon."""
        runner = self._runners.get(workspace)
        if runner is not None:
            runner.wake()
            return
        if not self._is_closed:
            task = asyncio.create_task(self._adopt(workspace))
            self._waking.add(task)
            task.add_done_callback(self._waking.discard)

    async def call(self, agent: Agent, name: str, arguments: JSONObject) -> object:
        """Return what opencode answers, here or on the node that runs the agent."""
        runner = await self._runner(agent.workspace)
        if runner is not None:
            return await runner.call(agent, name, arguments)
        return await AgentCalls(await self._opened()).ask(agent, name, arguments)

    async def close(self) -> None:
        """End all processes; turns that are under way are interrupted."""
        self._is_closed = True
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        await asyncio.gather(*self._waking, return_exceptions=True)
        answering = list(self._answering.values())
        for each in answering:
            each.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        runners = dict(self._runners)
        await asyncio.gather(*(each.close() for each in runners.values()))
        for workspace in runners:
            await self._give_back(workspace)

    async def _adopt(self, workspace: str) -> None:
        try:
            await self._runner(workspace)
        except (ShareError, DatabaseError) as exc:
            logger.warning("the agents of a workspace cannot be run: %s", exc)

    async def _runner(self, workspace: str) -> WorkspaceRunner | None:
        """Return the runner of a workspace, which is leased if it can be; None: another node has it."""
        runner = self._runners.get(workspace)
        if runner is not None:
            return runner
        agents = await self._opened()
        running = await self._prepared(agents)
        if self._leases is None:
            self._leases = Leases(agents.database, self._name)
        if not await self._leases.take(workspace):
            return None
        runner = self._runners.get(workspace)
        if runner is None:
            runner = self._runners[workspace] = WorkspaceRunner(workspace, running)
        runner.wake()
        self.start()
        return runner

    async def _prepared(self, agents: Agents) -> Running:
        if self._is_closed:
            raise ShareError(ErrorCode.CONTAINER_START_FAILED, "the server is being stopped")
        if self._running is None:
            self._running = await self._prepare(agents)
        return self._running

    async def _look_after(self) -> None:
        while True:
            try:
                await self._look()
            except (ShareError, DatabaseError) as exc:
                logger.warning("agents cannot be looked after: %s", exc)
            await asyncio.sleep(_ROUND)

    async def _look(self) -> None:
        agents = await self._opened()
        if self._leases is None:
            self._leases = Leases(agents.database, self._name)
        if self._calls is None:
            self._calls = AgentCalls(agents)
        own = await self._leases.prolong(list(self._runners))
        for workspace, runner in list(self._runners.items()):
            if workspace not in own:
                logger.warning("another server has taken over the agents of a workspace")
                del self._runners[workspace]
                runner.abandon()
            elif not runner.is_needed and not await agents.has_work(workspace):
                del self._runners[workspace]
                await runner.close()
                await self._give_back(workspace)
            elif agents.is_shared:
                self._answer(self._calls, workspace, runner)
        held = await self._leases.held()
        for workspace in await agents.workspaces_at_work():
            if workspace not in held:
                self.wake(workspace)

    def _answer(self, calls: AgentCalls, workspace: str, runner: WorkspaceRunner) -> None:
        """Answer what other nodes ask, and go on meanwhile: a process may let itself be waited for."""
        if workspace in self._answering:
            return

        async def answer() -> None:
            try:
                await calls.answer(workspace, runner.call)
            except (ShareError, DatabaseError) as exc:
                logger.warning("what another server asks cannot be answered: %s", exc)
            finally:
                del self._answering[workspace]

        self._answering[workspace] = asyncio.create_task(answer())

    async def _give_back(self, workspace: str) -> None:
        if self._leases is not None:
            with contextlib.suppress(DatabaseError):
                await self._leases.give_back(workspace)
