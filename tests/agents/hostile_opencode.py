"""Programs in sandboxes that answer as opencode does, and not only: what a test has put in ``answers``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeAlias

from rpcshare.agents.agent import Agent, AgentStatus, new_id
from rpcshare.agents.agents import Agents
from rpcshare.agents.counts import AgentCounts
from rpcshare.agents.node import AgentNode
from rpcshare.agents.opencode.binary import OpencodeBinary
from rpcshare.agents.process_slots import ProcessSlots
from rpcshare.agents.running import RunnerSettings, Running
from rpcshare.sandbox.driver import SandboxStatus
from rpcshare.shares.service import ShareService
from rpcshare.workspaces.workspace import Workspace
from rpcshare.workspaces.workspaces import Reach

__all__ = ["HostileOpencode", "HostileWorld", "Reply"]

Writes: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]
Reply: TypeAlias = "bytes | object | Writes"
"""What is sent as it is, as JSON, or by a function that writes all of the answer."""

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


class HostileOpencode:
    """One process: its socket, what it answers, and what it was asked. It is a sandbox, too."""

    def __init__(self, socket: Path) -> None:
        self.name = "hostile"
        self.socket_path = socket
        self.answers: dict[str, Reply] = {
            "/global/health": {"healthy": True, "version": "1.0.0"},
            "/session/status": {},
            "/config/providers": {"providers": []},
            "/sync/history": [],
            "/session": [],
            "/permission": [],
            "/question": [],
            "/global/event": self._tell,
        }
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.asked: list[str] = []
        self.status = SandboxStatus(running=True)
        self._ended = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket_path))
        return self

    def tell(self, kind: str, properties: dict[str, Any]) -> None:
        """Tell an event of the bus."""
        self.tell_line({"payload": {"type": kind, "properties": properties}})

    def tell_sync(self, kind: str, session: str, seq: int, data: dict[str, Any]) -> None:
        """Tell a sync event."""
        event = {"type": f"{kind}.1", "aggregateID": session, "seq": seq, "data": data}
        self.tell_line({"payload": {"type": "sync", "syncEvent": event}})

    def tell_line(self, value: object) -> None:
        """Tell anything."""
        self.events.put_nowait(b"data: " + json.dumps(value).encode() + b"\n\n")

    async def all_told(self) -> None:
        """Return once all events are on their way."""
        await self.events.join()

    async def wait(self) -> SandboxStatus:
        await self._ended.wait()
        return self.status

    async def terminate(self, *, grace: float = 5.0) -> SandboxStatus:
        del grace
        self._server.close()
        for each in self._connections:
            each.cancel()
        self.status = SandboxStatus(running=False)
        self._ended.set()
        return self.status

    def log_tail(self, lines: int = 20) -> str:
        del lines
        return ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        length = next((int(each[15:]) for each in head.lower().split("\r\n") if "content-length:" in each), 0)
        await reader.readexactly(length)
        path = target.partition("?")[0]
        self.asked.append(f"{method} {path}")
        reply = self.answers.get(f"{method} {path}", self.answers.get(path, {}))
        if callable(reply):
            await reply(writer)
        elif isinstance(reply, bytes):
            writer.write(reply)
        else:
            body = json.dumps(reply).encode()
            writer.write(_HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def _tell(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(await self.events.get())
            await writer.drain()
            self.events.task_done()


class _NoModels:
    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.sockets: dict[int, Path] = {}

    async def close(self) -> None:
        pass


class HostileWorld:
    """A node whose every process is a hostile one, by workspace."""

    def __init__(self, agents: Agents, shares: ShareService, workspaces: Any, folder: Path) -> None:
        self.agents = agents
        self._folder = folder
        self.processes: dict[str, HostileOpencode] = {}
        self.prepare: Callable[[HostileOpencode], None] = lambda _process: None

        async def opened() -> Agents:
            return agents

        async def opened_workspaces() -> Any:
            return workspaces

        async def models(*_: object) -> _NoModels:
            return _NoModels()

        running = Running(
            agents=agents,
            workspaces=opened_workspaces,
            programs=self,
            shares=shares,
            binary=OpencodeBinary(None, "1.0.0"),
            open_models=models,
            settings=RunnerSettings(start_timeout=10, looks_again=0.1),
            slots=ProcessSlots(8),
            counts=AgentCounts(),
        )

        async def prepared(_: Agents) -> Running:
            return running

        self.node = AgentNode(new_id("node"), opened, prepared)

    async def start(self, workspace: Workspace, program: object, caller: object) -> HostileOpencode:
        """Start a process; see :class:`rpcshare.workspaces.sandboxing.WorkspacePrograms`."""
        del program, caller
        made = HostileOpencode(self._folder / f"{len(self.processes)}.sock")
        self.processes[workspace.id] = made
        self.prepare(made)
        return await made.start()

    async def runs(self, agent: Agent) -> HostileOpencode:
        """Return the process of an agent, once it is followed."""
        self.node.wake(agent.workspace)
        async with asyncio.timeout(10):
            while True:
                found = await self.agents.find(agent.id, Reach((), is_all=True))
                process = self.processes.get(agent.workspace)
                followed = process is not None and "GET /global/event" in process.asked
                if process is not None and followed and found.status is AgentStatus.IDLE:
                    return process
                await asyncio.sleep(0.02)
