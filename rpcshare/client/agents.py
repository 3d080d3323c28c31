"""Agents in the typed client: started, sent to, and watched from one connection to the next."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar

import anyio
import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import Promise, ReadableStream, RpcError, SessionClosedError, Stub

__all__ = [
    "Agent",
    "AgentEvent",
    "AgentEvents",
    "AgentInfo",
    "AgentPage",
    "AgentRequest",
    "Agents",
    "ApprovalLink",
    "QueuedMessage",
]

T = TypeVar("T")

Budget: TypeAlias = Mapping[str, float]
"""``{dollars?, tokens?, turns?}``."""
AgentStatus: TypeAlias = Literal[
    "initializing", "running", "idle", "blocked", "paused", "interrupted", "terminated", "failed"
]

_COMES_BACK_AFTER = 0.5  # seconds, where a stream has ended and its connection has not


class AgentInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of an agent. Times are milliseconds since the epoch, ``cost`` is in dollars."""

    id: str
    share: dict[str, str]
    """Its transcript: ``{id, url}``."""
    workspace: str
    status: AgentStatus
    title: str
    model: str
    agent: str
    parent: str | None
    created_at: int
    last_active_at: int
    cost: float
    tokens: dict[str, int]
    turns: int
    budget: dict[str, Any]
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it takes no more messages."""
        return self.status in ("terminated", "failed")


class AgentPage(msgspec.Struct, frozen=True):
    """Agents, the newest first."""

    agents: list[AgentInfo]
    cursor: str | None


class QueuedMessage(msgspec.Struct, frozen=True, rename="camel"):
    """A message that waits, or whose turn is under way."""

    message_id: str = msgspec.field(name="messageID")
    content: str
    delivery: str
    state: str
    created_at: int
    attachments: list[dict[str, str]]
    transcript_id: str | None = msgspec.field(name="transcriptID")
    command: str | None = None


class AgentRequest(msgspec.Struct, frozen=True, rename="camel"):
    """An approval or a question: what somebody has to answer, or has answered."""

    id: str
    agent: str
    kind: Literal["approval", "question"]
    state: Literal["asked", "answered", "withdrawn"]
    asked_at: int
    permission: str = ""
    patterns: list[str] = []
    always: list[str] = []
    metadata: dict[str, Any] = {}
    questions: list[dict[str, Any]] = []
    answer: dict[str, Any] | None = None
    answered_by: str | None = None


class ApprovalLink(msgspec.Struct, frozen=True, rename="camel"):
    """A page that answers one thing once."""

    url: str
    expires_at: int


class AgentEvent(msgspec.Struct, frozen=True):
    """What has happened to an agent (PROTOCOL.md, "agents")."""

    type: str
    cursor: str
    """Where :meth:`Agent.watch` goes on behind it."""
    value: dict[str, Any]
    """All of it, by the names of the wire."""

    @property
    def data(self) -> list[dict[str, Any]]:
        """The items of a ``snapshot`` or a ``sync``."""
        found: list[dict[str, Any]] = self.value.get("data", [])
        return found


class Agents:
    """The agents of a caller: ``client.agents``."""

    def __init__(self, api: Callable[[], Stub], *, comes_back: bool) -> None:
        """Made by :class:`~rpcshare.client.share_client.ShareClient`."""
        self._api = api
        self._comes_back = comes_back

    async def start(
        self,
        workspace: str,
        prompt: str | None = None,
        *,
        title: str | None = None,
        model: str | None = None,
        agent: str | None = None,
        permission: Sequence[Mapping[str, str]] | Mapping[str, str] | None = None,
        resources: Mapping[str, object] | None = None,
        budget: Budget | None = None,
    ) -> Agent:
        """Start an agent on a workspace; return it at once, while its process starts.

        Args:
            workspace: the id of one.
            prompt: its first message.
            title: of its transcript.
            model: ``NAME/model`` of the server's settings; None: the default.
            agent: which of opencode's agents answers, such as ``plan``.
            permission: opencode's rules, or ``{permission: "allow" | "ask" | "deny"}``.
            resources: limits of the workspace, such as ``{"memory": "1GiB"}``.
            budget: ``{dollars?, tokens?, turns?}``, which pauses it when it is spent.
        """
        options = {
            "workspace": workspace,
            "prompt": prompt,
            "title": title,
            "model": model,
            "agent": agent,
            "permission": permission
            if permission is None or isinstance(permission, Mapping)
            else [*permission],
            "resources": resources,
            "budget": budget,
        }
        given = {name: value for name, value in options.items() if value is not None}
        started = self._api().agents().start(given)
        info = await _converted(started.info(), AgentInfo)
        return Agent(self._api, info.id, comes_back=self._comes_back)

    async def list(
        self,
        *,
        status: AgentStatus | None = None,
        workspace: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> AgentPage:
        """Return a page of the caller's agents, the newest first."""
        options = {"status": status, "workspace": workspace, "cursor": cursor, "limit": limit}
        given = {name: value for name, value in options.items() if value is not None}
        return await _converted(self._api().agents().list(given), AgentPage)

    def get(self, session_id: str) -> Agent:
        """Return an agent by its id; whether there is one is found out with what is done."""
        return Agent(self._api, session_id, comes_back=self._comes_back)


class Agent:
    """One agent.

    Methods raise :class:`~rpcshare.errors.ShareError`, with the codes ``SESSION_NOT_FOUND``,
    ``SESSION_TERMINATED`` and ``CONTAINER_START_FAILED`` beside others.
    """

    def __init__(self, api: Callable[[], Stub], session_id: str, *, comes_back: bool) -> None:
        """Made by :class:`Agents`."""
        self.id = session_id
        self._api = api
        self._comes_back = comes_back

    def __repr__(self) -> str:
        return f"Agent({self.id!r})"

    async def info(self) -> AgentInfo:
        """Return what is known of it."""
        return await _converted(self._stub.info(), AgentInfo)

    async def send(
        self,
        content: str,
        *,
        message_id: str | None = None,
        attachments: Sequence[Mapping[str, str]] = (),
        delivery: Literal["queue", "steer"] = "queue",
    ) -> str:
        """Give it a message; return the message's id once it is kept, for certain once.

        Args:
            content: what is said.
            message_id: ``msg_…``; sent again with the same one, it is the same message.
            attachments: ``{url, mimeType, filename?}``, the url a ``data:`` URL.
            delivery: behind what waits, or before the next step of the turn under way.
        """
        options = {"id": message_id or f"msg_{secrets.token_hex(16)}", "delivery": delivery}
        given = {**options, **({"attachments": [dict(each) for each in attachments]} if attachments else {})}
        while True:
            try:
                sent = await _converted(self._stub.send(content, given), dict[str, str])
            except SessionClosedError:
                if not self._comes_back:
                    raise
                await anyio.sleep(_COMES_BACK_AFTER)
                continue
            return sent["messageID"]

    def ask(self, content: str) -> AgentEvents:
        """Give it a message; return the events until its turn has ended. They end with the connection."""
        return AgentEvents(lambda _cursor: self._stub.ask(content), None, comes_back=False)

    def watch(self, cursor: str | None = None) -> AgentEvents:
        """Return its events behind a cursor, without end; without one, what it is doing comes first.

        With ``reconnect`` they go on from connection to connection, without a gap.
        """
        return AgentEvents(self._watched, cursor, comes_back=self._comes_back)

    async def command(self, name: str, arguments: str = "") -> str:
        """Have opencode run one of its commands; return the message's id."""
        sent = await _converted(self._stub.command(name, arguments), dict[str, str])
        return sent["messageID"]

    async def queue(self) -> list[QueuedMessage]:
        """Return the messages that wait, and the one whose turn is under way."""
        return await _converted(self._stub.queue(), list[QueuedMessage])

    async def unqueue(self, message_id: str) -> bool:
        """Take a message out of the queue; return whether it still waited."""
        return (await _converted(self._stub.unqueue(message_id), dict[str, bool]))["removed"]

    async def approvals(self) -> list[AgentRequest]:
        """Return what somebody has to answer, the oldest first."""
        return await _converted(self._stub.approvals(), list[AgentRequest])

    async def answer(
        self, approval_id: str, answer: str | Sequence[Sequence[str]], note: str | None = None
    ) -> AgentRequest:
        """Answer an approval with ``once``, ``always`` or ``reject``, or questions with labels for each."""
        given = answer if isinstance(answer, str) else [[*each] for each in answer]
        answered = self._stub.approval(approval_id).answer(given, note)
        return await _converted(answered, AgentRequest)

    async def link(self, approval_id: str) -> ApprovalLink:
        """Return a page that answers one thing once, for whoever opens it."""
        return await _converted(self._stub.approval(approval_id).link(), ApprovalLink)

    async def abort(self) -> None:
        """End the turn under way."""
        await _converted(self._stub.abort(), dict[str, Any])

    async def pause(self) -> None:
        """Begin no further turn until it is resumed."""
        await _converted(self._stub.pause(), dict[str, Any])

    async def resume(self, budget: Budget | None = None) -> None:
        """Go on, with another budget if one is given."""
        options = {} if budget is None else {"budget": budget}
        await _converted(self._stub.resume(options), dict[str, Any])

    async def terminate(self) -> None:
        """End it for good; its transcript stays."""
        await _converted(self._stub.terminate(), dict[str, Any])

    async def fork(self, message_id: str | None = None) -> Agent:
        """Return a new agent that has the transcript up to a message, or all of it."""
        info = await _converted(self._stub.fork(message_id).info(), AgentInfo)
        return Agent(self._api, info.id, comes_back=self._comes_back)

    async def revert(self, message_id: str) -> None:
        """Take back a message and all behind it, with what they did to files."""
        await _converted(self._stub.revert(message_id), dict[str, Any])

    async def unrevert(self) -> None:
        """Restore what was taken back."""
        await _converted(self._stub.unrevert(), dict[str, Any])

    async def diff(self) -> list[dict[str, Any]]:
        """Return what has changed in its workspace: ``{file, additions, deletions, patch?, status?}``."""
        return await _converted(self._stub.diff(), list[dict[str, Any]])

    async def todo(self) -> list[dict[str, Any]]:
        """Return its list of to-dos: ``{content, status, priority}``."""
        return await _converted(self._stub.todo(), list[dict[str, Any]])

    @property
    def _stub(self) -> Any:  # noqa: ANN401 -- a promise, whose methods are the server's
        # From the main target each time: what a session has given ends with it.
        return self._api().agents().get(self.id)

    def _watched(self, cursor: str | None) -> Promise:
        watched: Promise = self._stub.watch(cursor)
        return watched


class AgentEvents:
    """Events of one agent: iterate over it, in ``async with`` to have it end if you leave the loop early."""

    def __init__(
        self, open_stream: Callable[[str | None], Promise], cursor: str | None, *, comes_back: bool
    ) -> None:
        self._open = open_stream
        self._comes_back = comes_back
        self._stream: ReadableStream | None = None
        self._is_closed = False
        self.cursor = cursor
        """Of the last event that was taken."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AgentEvent:
        """Return the next event.

        Raises:
            StopAsyncIteration: the turn that was asked for has ended, or the server stops.
            ShareError: there is no such agent, or the caller may not watch it any longer.
        """
        while not self._is_closed:
            try:
                if self._stream is None:
                    self._stream = await _converted(self._open(self.cursor), ReadableStream)
                value = await anext(self._stream)
            except StopAsyncIteration:
                self._stream = None
                if not self._comes_back:
                    break
                await anyio.sleep(_COMES_BACK_AFTER)
                continue
            except SessionClosedError:
                self._stream = None
                if not self._comes_back:
                    raise
                await anyio.sleep(_COMES_BACK_AFTER)
                continue
            except RpcError as exc:
                raise _explained(exc) from None
            if isinstance(value, dict) and isinstance(value.get("cursor"), str):
                self.cursor = value["cursor"]
                return AgentEvent(str(value.get("type")), value["cursor"], value)
        self._is_closed = True
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Watch no longer. Again is no error."""
        self._is_closed = True
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.cancel()


async def _converted(promise: Promise, kind: type[T]) -> T:
    try:
        value: object = await promise
    except RpcError as exc:
        raise _explained(exc) from None
    if isinstance(value, kind) if kind is ReadableStream else False:
        return value  # type: ignore[return-value]
    return msgspec.convert(_plain(value), kind)


def _plain(value: object) -> object:
    """Return a value without the capabilities in it, which are released."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items() if not _released(each)}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _released(value: object) -> bool:
    if isinstance(value, Stub):
        value.dispose()
        return True
    return False


def _explained(error: RpcError) -> Exception:
    code = ErrorCode.__members__.get(error.code or "")
    return error if code is None else ShareError(code, error.message)
