"""Agents in the hands of one caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from rpcshare.agents import steering
from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    Delivery,
    JSONObject,
    QueuedMessage,
    RequestState,
    Spent,
    StartOptions,
    check_command,
    check_content,
    check_message_id,
    new_id,
    parse_attachments,
    parse_start,
)
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agent_reader import AgentReader
from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.agent_watch import AgentSubscription
from rpcshare.agents.caller_webhooks import CallerWebhooks
from rpcshare.agents.watched_events import AgentCursor
from rpcshare.auth.audit import Action
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces.workspaces import Reach

__all__ = ["CallerAgents", "RequestLink", "answer_request"]

T = TypeVar("T")

_LINK_LASTS = 24 * 3600.0  # seconds


class RequestLink(msgspec.Struct, frozen=True, rename="camel"):
    """A link that answers one request once."""

    url: str
    expires_at: int
    """Milliseconds since the epoch."""


class CallerAgents(AgentReader):
    """What one caller may do with agents.

    Methods raise ShareError as those of :class:`AgentReader` do. What changes an agent that is over raises
    SESSION_TERMINATED, or, of one that has failed, CONTAINER_START_FAILED with its error.
    """

    @property
    def webhooks(self) -> CallerWebhooks:
        """Where the caller is told of its own agents."""
        return CallerWebhooks(self._services, self._caller, self._rights, self._audit)

    async def start(self, given: object) -> Agent:
        """Make an agent, whose share is there at once; its process starts in the background.

        Raises:
            ShareError: WORKSPACE_NOT_FOUND, RATE_LIMITED, PAYLOAD_TOO_LARGE as well.
        """
        with self._rights.checked(Action.AGENT_START):
            owner = self._rights.owner()
            options = parse_start(given)
            services = self._services
            model = services.choose_model(options.model)
            workspace = await self._workspaces.get(options.workspace)
            if options.resources is not None:
                await self._workspaces.update(workspace.id, {"resources": options.resources})
            if services.check_start is not None:
                await services.check_start()
            agents = await services.opened()
            agent = await self._new_agent(owner, workspace.id, model, options, agents.now())
            try:
                made = await agents.add(agent, lambda edit: steering.begin(edit, options))
            except BaseException:
                await services.shares.delete(self._caller, agent.share_id, None)
                raise
        self._audit.done(Action.AGENT_START, self._caller, agent=made.id, workspace=workspace.id)
        services.node.wake(workspace.id)
        return made

    async def send(
        self,
        agent_id: str,
        content: object,
        *,
        message_id: str | None = None,
        attachments: object = None,
        delivery: object = None,
    ) -> QueuedMessage:
        """Give an agent a message; return once it is kept. The same ``message_id`` again changes nothing.

        Raises:
            ShareError: PAYLOAD_TOO_LARGE, RATE_LIMIT_EXCEEDED: too many wait.
        """
        with self._rights.checked(Action.AGENT_SEND):
            if not isinstance(content, str):
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "content: must be a string")
            check_content(content)
            files = parse_attachments(attachments)
            try:
                when = Delivery.QUEUE if delivery is None else Delivery(str(delivery))
            except ValueError:
                message = 'delivery: must be "queue" or "steer"'
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message) from None
            wanted = new_id("msg") if message_id is None else check_message_id(message_id)

            sent = await self._changed(
                agent_id, lambda edit: steering.enqueue_once(edit, wanted, content, files, when)
            )
        self._audit.done(Action.AGENT_SEND, self._caller, agent=agent_id, message=sent.id)
        return sent

    async def command(self, agent_id: str, name: object, arguments: object = "") -> QueuedMessage:
        """Have opencode run one of its commands, as a message of its own."""
        with self._rights.checked(Action.AGENT_SEND):
            if not isinstance(name, str) or not isinstance(arguments, str):
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "name and arguments: must be strings")
            check_command(name, arguments)
            sent = await self._changed(
                agent_id, lambda edit: steering.enqueue(edit, new_id("msg"), arguments, command=name)
            )
        self._audit.done(Action.AGENT_SEND, self._caller, agent=agent_id, message=sent.id)
        return sent

    async def unqueue(self, agent_id: str, message_id: str) -> bool:
        """Take a message out of the queue; return whether it was still there."""
        with self._rights.checked(Action.AGENT_CONTROL):
            return await self._changed(agent_id, lambda edit: steering.unqueue(edit, message_id))

    async def ask(self, agent_id: str, content: object) -> tuple[QueuedMessage, AgentSubscription]:
        """Send a message; return it, and the events from now until its turn has ended."""
        message_id = new_id("msg")
        with self._rights.checked(Action.AGENT_READ):
            _, agent = await self._find(agent_id)
            steering.require_alive(agent)
            metadata = await self._services.shares.metadata(self._caller, agent.share_id)
            from_now = AgentCursor(metadata.sync_count, agent.events)
            events = await self._watched(agent_id, from_now, until=message_id)
        try:
            return await self.send(agent_id, content, message_id=message_id), events
        except BaseException:
            events.close()
            raise

    async def answer(
        self, agent_id: str, request_id: str, answer: object, note: object = None
    ) -> AgentRequest:
        """Answer an approval or a question (:func:`~rpcshare.agents.answers.parse_answer`).

        Raises:
            ShareError: INVALID_ARGUMENT: it has been answered, or nobody waits for an answer.
        """
        with self._rights.checked(Action.AGENT_ANSWER):
            await self._find(agent_id)
            subject = self._caller.subject or ""
            answered = await answer_request(self._services, agent_id, request_id, answer, note, subject)
        self._audit.done(Action.AGENT_ANSWER, self._caller, agent=agent_id, request=request_id)
        return answered

    async def link(self, agent_id: str, request_id: str) -> RequestLink:
        """Return a link that answers one request once, within a day, for whoever opens it."""
        request = await self.request(agent_id, request_id)
        with self._rights.checked(Action.AGENT_LINK):
            if request.state is not RequestState.ASKED:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "it has been answered")
            agents = await self._services.opened()
            token, expires_at = await agents.make_link(request, self._caller.subject or "", _LINK_LASTS)
        self._audit.done(Action.AGENT_LINK, self._caller, agent=agent_id, request=request_id)
        return RequestLink(f"{self._services.public_url}/approve/{token}", expires_at)

    async def abort(self, agent_id: str) -> None:
        """End the turn under way; what waits in the queue goes on."""
        await self._controlled(agent_id, "abort", steering.abort)

    async def pause(self, agent_id: str) -> None:
        """Begin no further turn until it is resumed. A turn under way goes on to its end."""
        await self._controlled(agent_id, "pause", steering.pause)

    async def resume(self, agent_id: str, budget: object = None) -> None:
        """Go on with an agent that is paused or interrupted, with another budget if one is given.

        One whose turn was cut off, and for which nothing waits, is told to go on.

        Raises:
            ShareError: INVALID_ARGUMENT: its budget is spent.
        """
        wanted = None if budget is None else parse_start({"workspace": "", "budget": budget}).budget
        await self._controlled(agent_id, "resume", lambda edit: steering.resume(edit, wanted))

    async def terminate(self, agent_id: str) -> None:
        """End an agent for good; its transcript stays. Doing so again changes nothing."""
        with self._rights.checked(Action.AGENT_TERMINATE):
            agents, agent = await self._find(agent_id)
            if agent.status is AgentStatus.TERMINATED:
                return
            await agents.edit(agent.id, steering.terminate)
            for child in await agents.children(agent.id):
                await agents.edit(child.id, steering.terminate)
        self._audit.done(Action.AGENT_TERMINATE, self._caller, agent=agent_id)
        self._services.node.wake(agent.workspace)

    async def fork(self, agent_id: str, message_id: object = None) -> Agent:
        """Return a new agent that has the transcript up to a message, or all of it."""
        if message_id is not None:
            message_id = await self._transcript_id(agent_id, message_id)
        arguments = {} if message_id is None else {"messageID": message_id}
        made = await self._called(agent_id, "fork", arguments)
        return await self.get(str(made))

    async def revert(self, agent_id: str, message_id: object) -> None:
        """Take back a message and all behind it, with what they did to files.

        Raises:
            ShareError: INVALID_ARGUMENT: the agent is busy, or has no such message.
        """
        arguments = {"messageID": await self._transcript_id(agent_id, message_id)}
        await self._called(agent_id, "revert", arguments)

    async def unrevert(self, agent_id: str) -> None:
        """Restore what was taken back."""
        await self._called(agent_id, "unrevert", {})

    async def diff(self, agent_id: str) -> object:
        """Return what has changed in the workspace: ``[{file, additions, deletions, patch?, status?}]``."""
        return await self._called(agent_id, "diff", {}, may_be_over=True)

    async def todo(self, agent_id: str) -> object:
        """Return the agent's list of to-dos: ``[{content, status, priority}]``."""
        return await self._called(agent_id, "todo", {}, may_be_over=True)

    # What they are made of

    async def _new_agent(
        self, owner: str, workspace: str, model: str, options: StartOptions, now: int
    ) -> Agent:
        session_id = new_id("ses", descending=True)
        title = options.title or ""
        info = {"id": session_id, "title": title or "New agent", "time": {"created": now, "updated": now}}
        created = await self._services.shares.create(
            self._caller, session_id, [{"type": "session", "data": info}]
        )
        return Agent(
            id=session_id,
            owner=owner,
            workspace=workspace,
            share_id=created.id,
            share_url=created.url,
            status=AgentStatus.INITIALIZING,
            title=title,
            model=model,
            mode=options.agent or "",
            permission=options.permission,
            budget=options.budget,
            spent=Spent(),
            parent=None,
            error=None,
            created_at=now,
            last_active_at=now,
        )

    async def _changed(self, agent_id: str, work: Callable[[AgentEdit], T]) -> T:
        agents, agent = await self._find(agent_id)

        def checked(edit: AgentEdit) -> T:
            steering.require_alive(edit.agent)
            return work(edit)

        done = await agents.edit(agent.id, checked)
        self._services.node.wake(agent.workspace)
        return done

    async def _controlled(self, agent_id: str, what: str, work: Callable[[AgentEdit], None]) -> None:
        with self._rights.checked(Action.AGENT_CONTROL):
            await self._changed(agent_id, work)
        self._audit.done(Action.AGENT_CONTROL, self._caller, agent=agent_id, what=what)

    async def _called(
        self, agent_id: str, name: str, arguments: JSONObject, *, may_be_over: bool = False
    ) -> object:
        reads = name in ("diff", "todo")
        with self._rights.checked(Action.AGENT_READ if reads else Action.AGENT_CONTROL):
            _, agent = await self._find(agent_id)
            if not may_be_over or agent.status is AgentStatus.FAILED:
                steering.require_alive(agent)
            answer = await self._services.node.call(agent, name, arguments)
        if not reads:
            self._audit.done(Action.AGENT_CONTROL, self._caller, agent=agent_id, what=name)
        return answer

    async def _transcript_id(self, agent_id: str, message_id: object) -> str:
        if not isinstance(message_id, str):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "messageID: must be a string")
        agents, agent = await self._find(agent_id)
        message = await agents.edit(agent.id, lambda edit: edit.message(check_message_id(message_id)))
        return message_id if message is None else message.transcript_id or message_id


async def answer_request(
    services: AgentServices, agent_id: str, request_id: str, answer: object, note: object, by: str
) -> AgentRequest:
    """Answer a request, whoever may: the caller's rights are known, or a link is shown.

    Raises:
        ShareError: INVALID_ARGUMENT: there is none, or it has been answered.
    """
    agents = await services.opened()
    answered = await agents.edit(agent_id, lambda edit: steering.answer(edit, request_id, answer, note, by))
    agent = await agents.find(agent_id, Reach((), is_all=True))
    services.node.wake(agent.workspace)
    return answered
