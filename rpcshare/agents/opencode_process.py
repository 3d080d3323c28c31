"""One process of opencode's in a sandbox: how it is started, watched and ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from rpcshare.agents.agent import Agent
from rpcshare.agents.opencode.client import Opencode, OpencodeError
from rpcshare.agents.owners import caller_of
from rpcshare.agents.running import Models, Running
from rpcshare.errors import ShareError
from rpcshare.gateway.metering import ModelSessions
from rpcshare.sandbox.driver import Sandbox, SandboxError
from rpcshare.workspaces.git_clone import redacted_log
from rpcshare.workspaces.workspaces import Reach

__all__ = ["OpencodeProcess", "ProcessStartError"]

logger = logging.getLogger("rpcshare.agents")

_WATCHES = 10.0
"""Seconds between two looks whether opencode is well."""
_FAILURES = 3
_LOG_LINES = 20


class ProcessStartError(Exception):
    """No process could be started; the message is for the agents' owners."""

    def __init__(self, why: str, log: str = "") -> None:
        """Say why, with the last lines of a log."""
        self.message = _sentence(why, log)
        super().__init__(self.message)


@dataclass
class OpencodeProcess:
    """A process that has answered once."""

    sandbox: Sandbox
    opencode: Opencode
    models: Models
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    """What goes on as long as it runs."""

    @classmethod
    async def start(
        cls, running: Running, workspace_id: str, agent: Agent, sessions: ModelSessions
    ) -> OpencodeProcess:
        """Start a process for a workspace, and return once it answers.

        Args:
            running: what it needs.
            workspace_id: the workspace.
            agent: has the model by which the process answers unless it is asked for another.
            sessions: tells who pays for what it asks of models.

        Raises:
            ProcessStartError: it cannot be started, or does not answer. Nothing is left of it.
        """
        workspaces = await running.workspaces()
        try:
            workspace = await workspaces.find(workspace_id, Reach((), is_all=True))
            models = await running.open_models(workspace, agent.model, sessions)
            try:
                password = secrets.token_urlsafe(18)
                program = running.binary.program(
                    password=password, config=models.config, sockets=models.sockets
                )
                sandbox = await running.programs.start(workspace, program, caller_of(agent.owner))
            except BaseException:
                await models.close()
                raise
        except (ShareError, SandboxError) as exc:
            log = exc.log if isinstance(exc, SandboxError) else ""
            raise ProcessStartError(exc.message, log) from exc
        if sandbox.socket_path is None:
            raise RuntimeError("a sandbox of opencode's has no socket")
        process = cls(sandbox, Opencode(sandbox.socket_path, password), models)
        try:
            why = await process._await_ready(running.settings.start_timeout)
        except BaseException:
            await asyncio.shield(process.close())
            raise
        if why is not None:
            await process.close()
            raise ProcessStartError(why, sandbox.log_tail(_LOG_LINES))
        return process

    async def close(self) -> None:
        """End it, and let nobody ask a model by it any more."""
        await self.opencode.close()
        await self.sandbox.terminate(grace=1)
        await self.models.close()

    async def end(self) -> str:
        """Return once it has ended: how, as its agents' error."""
        status = await self.sandbox.wait()
        return _sentence(status.message or "opencode has ended", self.sandbox.log_tail(5))

    async def watch(self) -> None:
        """End it once it does not answer any more."""
        failures = 0
        while True:
            await asyncio.sleep(_WATCHES)
            try:
                await self.opencode.version(within=_WATCHES)
                failures = 0
            except OpencodeError:
                failures += 1
                if failures >= _FAILURES:
                    logger.warning("opencode does not answer: it is ended")
                    await self.sandbox.terminate(grace=0)
                    return

    async def _await_ready(self, seconds: float) -> str | None:
        """Return once opencode answers; or why it does not."""
        until = time.monotonic() + seconds
        while self.sandbox.status.running:
            try:
                version = await self.opencode.version()
            except OpencodeError:
                if time.monotonic() > until:
                    return f"opencode does not answer within {seconds:.0f} seconds of its start"
                await asyncio.sleep(0.05)
                continue
            if not version.startswith("1."):
                return f"opencode {version} runs in the sandbox: this server speaks to 1.x"
            return None
        return f"opencode has ended at its start: {self.sandbox.status.message}"


def _sentence(why: str, log: str) -> str:
    """Return what a caller is told of a failure, with the last lines of the log."""
    shown = redacted_log(log) if log.strip() else ""
    return f"{why.rstrip('.')}: {shown}" if shown else why
