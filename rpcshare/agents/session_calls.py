"""What callers ask of opencode's sessions, such as to fork one; it is answered between two steps of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from rpcshare.agents.agent import Agent, JSONObject
from rpcshare.agents.opencode.client import Opencode, OpencodeError
from rpcshare.agents.redacting import redacted, redacted_aside
from rpcshare.agents.session_runner import SessionRunner
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["SessionCalls"]

Answer: TypeAlias = "asyncio.Future[object]"


@dataclass
class _Call:
    agent: Agent
    name: str
    arguments: JSONObject
    answer: Answer


class SessionCalls:
    """The calls that wait for one process."""

    def __init__(
        self,
        opened: Callable[[Agent], Awaitable[SessionRunner]],
        adopted: Callable[[SessionRunner, JSONObject], Awaitable[SessionRunner]],
    ) -> None:
        """Answer them.

        Args:
            opened: returns the session of an agent.
            adopted: returns the session that opencode has made of one by a fork, of which it tells.
        """
        self._opened = opened
        self._adopted = adopted
        self._waiting: list[_Call] = []

    @property
    def agent(self) -> Agent | None:
        """Whose session the first is about; None: nobody waits."""
        return self._waiting[0].agent if self._waiting else None

    def put(self, agent: Agent, name: str, arguments: JSONObject) -> Answer:
        """Have a call wait; see :class:`rpcshare.agents.agent_services.Node`."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(agent, name, arguments, answer))
        return answer

    def refuse(self, why: str) -> None:
        """Answer all with CONTAINER_START_FAILED."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if not call.answer.done():
                call.answer.set_exception(ShareError(ErrorCode.CONTAINER_START_FAILED, why))

    async def answer(self, opencode: Opencode) -> None:
        """Have opencode answer all."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if call.answer.done():
                continue
            try:
                call.answer.set_result(await self._answer(opencode, call))
            except ShareError as exc:
                call.answer.set_exception(exc)
            except OpencodeError as exc:
                call.answer.set_exception(_refusal(exc))

    async def _answer(self, opencode: Opencode, call: _Call) -> object:
        session = await self._opened(call.agent)
        match call.name:
            case "diff":
                return await redacted_aside(await opencode.diff())
            case "todo":
                return await redacted_aside(await opencode.todo(session.id))
            case "fork":
                return await self._fork(opencode, session, call.arguments.get("messageID"))
            case "revert" | "unrevert" if session.is_busy:
                raise _busy()
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
        forked = await self._adopted(session, await opencode.fork(session.id, message_id))
        await forked.transcript.flush()
        return forked.id


def _busy() -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, "the agent is busy: abort its turn, or wait for its end")


def _refusal(error: OpencodeError) -> ShareError:
    if error.is_busy:
        return _busy()
    if error.status is None:
        message = f"opencode does not answer: {redacted(error.message)}"
        return ShareError(ErrorCode.CONTAINER_START_FAILED, message)
    return ShareError(ErrorCode.INVALID_ARGUMENT, f"opencode refuses: {redacted(error.message)}")
