"""What one node asks of the node that runs an agent, by rows that both see."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Update, delete, insert, select, update

from rpcshare.agents.agent import Agent, JSONObject
from rpcshare.agents.agents import Agents
from rpcshare.database.records import agent_calls as rows
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.workspaces import Reach

__all__ = ["AgentCalls"]

_LOOKS_AGAIN = 0.25
_LONGEST = 120.0
"""Seconds that a call waits for its answer."""
_KEPT = 3600 * 1000


class AgentCalls:
    """Calls from node to node. Methods raise DatabaseError."""

    def __init__(self, agents: Agents) -> None:
        """Keep them in the database of the agents."""
        self._agents = agents

    async def ask(self, agent: Agent, name: str, arguments: JSONObject) -> object:
        """Return what the node answers that runs an agent.

        Raises:
            ShareError: as it says; CONTAINER_START_FAILED: it does not answer.
        """
        call_id, database = secrets.token_hex(12), self._agents.database
        now = self._agents.now()
        values = {
            "id": call_id,
            "agent": agent.id,
            "workspace": agent.workspace,
            "name": name,
            "arguments": msgspec.json.encode(arguments).decode(),
            "state": "asked",
            "created_at": now,
        }

        def write(connection: Connection) -> None:
            connection.execute(delete(rows).where(rows.c.created_at < now - _KEPT))
            connection.execute(insert(rows), values)

        await database.write(write)
        query = select(rows.c.state, rows.c.result).where(rows.c.id == call_id)
        for _ in range(int(_LONGEST / _LOOKS_AGAIN)):
            await asyncio.sleep(_LOOKS_AGAIN)
            row = await database.read(lambda connection: connection.execute(query).first())
            if row is not None and row.state != "asked":
                return _answer(row.state, msgspec.json.decode(row.result))
        raise ShareError(ErrorCode.CONTAINER_START_FAILED, "the server that runs this agent does not answer")

    async def answer(
        self, workspace: str, call: Callable[[Agent, str, JSONObject], Awaitable[object]]
    ) -> None:
        """Answer what other nodes ask of the agents of a workspace."""
        database = self._agents.database
        query = select(rows).where(rows.c.workspace == workspace, rows.c.state == "asked")
        for row in await database.read(lambda connection: list(connection.execute(query))):
            state, result = await self._answered(row, call)
            values = {"state": state, "result": msgspec.json.encode(result).decode()}
            statement = update(rows).where(rows.c.id == row.id).values(values)
            await database.write(partial(_execute, statement))

    async def _answered(
        self,
        row: Row[Any],
        call: Callable[[Agent, str, JSONObject], Awaitable[object]],
    ) -> tuple[str, object]:
        try:
            agent = await self._agents.find(row.agent, Reach((), is_all=True))
            return "answered", await call(agent, row.name, msgspec.json.decode(row.arguments))
        except ShareError as exc:
            return "refused", [exc.code.value, exc.message]


def _execute(statement: Update, connection: Connection) -> None:
    connection.execute(statement)


def _answer(state: str, result: Any) -> object:  # noqa: ANN401 -- JSON
    if state == "refused":
        code, message = result
        raise ShareError(ErrorCode(code), message)
    found: object = result
    return found
