"""Agents in the hands of one caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import msgspec

from rpcshare.agents.agent import (
    MAX_QUEUED,
    MAX_QUEUED_SIZE,
    Agent,
    AgentRequest,
    AgentStatus,
    Attachment,
    Delivery,
    JSONObject,
    MessageState,
    QueuedMessage,
    RequestState,
    Spent,
    StartOptions,
    check_command,
    check_content,
    check_message_id,
    is_session_id,
    new_id,
    parse_attachments,
    parse_start,
    unknown_agent,
)
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agent_watch import AgentSubscription, watch_agent
from rpcshare.agents.agents import AgentPage, Agents
from rpcshare.agents.answers import parse_answer
from rpcshare.agents.watched_events import AgentCursor
from rpcshare.agents.webhooks import Webhook, Webhooks, check_url
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.egress_proxy import EgressPolicy
from rpcshare.shares.service import ShareService
from rpcshare.shares.subscriptions import Subscription
from rpcshare.workspaces.caller_rights import AGENTS, CallerRights
from rpcshare.workspaces.caller_workspaces import CallerFiles, CallerWorkspaces
from rpcshare.workspaces.workspaces import Reach

__all__ = ["AgentServices", "CallerAgents", "Node", "RequestLink"]

T = TypeVar("T")

_GO_ON = "Go on where you were interrupted."
_LINK_LASTS = 24 * 3600.0  # seconds
_MAX_PAGE = 200


class Node(Protocol):
    """What runs agents: this node those whose workspaces it has leased, and others by asking their nodes."""

    def wake(self, workspace: str) -> None:
        """Look at a workspace soon: something of its agents has changed."""

    async def call(self, agent: Agent, name: str, arguments: JSONObject) -> object:
        """Return what opencode answers: ``fork``, ``revert``, ``unrevert``, ``diff`` or ``todo``.

        Raises:
            ShareError: INVALID_ARGUMENT: the agent is busy, or opencode refuses it. CONTAINER_START_FAILED.
        """


class RequestLink(msgspec.Struct, frozen=True, rename="camel"):
    """A link that answers one request once."""

    url: str
    expires_at: int
    """Milliseconds since the epoch."""


class AgentServices:
    """What all callers' agents have in common on one server."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Agents]],
        node: Node,
        shares: ShareService,
        choose_model: Callable[[str | None], str],
        *,
        public_url: str,
        check_start: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Take them.

        Args:
            opened: returns the agents, whose database is opened when somebody first needs it.
            node: runs them.
            shares: has their transcripts.
            choose_model: returns the full name of a model that was asked for, or of the default. Raises
            ShareError.
            public_url: the base of links.
            check_start: returns if agents can be started now. Raises ShareError.
        """
        self.opened = opened
        self.node = node
        self.shares = shares
        self.choose_model = choose_model
        self.public_url = public_url.rstrip("/")
        self.check_start = check_start
        self.model_names: Callable[[], Sequence[str]] = tuple
        """Returns the models that there are, the default first; none: it is not known."""
        self.webhook_policy: EgressPolicy | None = None
        """Where webhooks may be; None: there are none."""
        self.wake_webhooks: Callable[[], None] = lambda: None
        """Delivers at once what is due."""
        self.collectors: Sequence[Any] = ()
        """Of metrics: what a registry of prometheus_client takes."""


class CallerAgents:
    """What one caller may do with agents, by its rights (:mod:`~rpcshare.workspaces.caller_rights`).

    Every method raises ShareError: UNAUTHORIZED, FORBIDDEN, INVALID_ARGUMENT, STORAGE_UNAVAILABLE, and where
    it takes an ID SESSION_NOT_FOUND. What changes an agent that is over raises SESSION_TERMINATED, or, of one
    that has failed, CONTAINER_START_FAILED with its error.
    """

    def __init__(
        self, services: AgentServices, caller: Caller, workspaces: CallerWorkspaces, audit: AuditLog
    ) -> None:
        """Act for ``caller`` and tell ``audit`` of it."""
        self._services = services
        self._caller = caller
        self._workspaces = workspaces
        self._audit = audit
        self._rights = CallerRights(AGENTS, caller, audit)

    @property
    def has_webhooks(self) -> bool:
        """Whether owners can be told by webhooks."""
        return self._services.webhook_policy is not None

    async def webhook(self) -> Webhook | None:
        """Return where the caller is told of its own agents; None: nowhere."""
        with self._rights.checked(Action.AGENT_READ):
            owner = self._rights.owner()
            return await Webhooks((await self._services.opened()).database).of(owner)

    async def set_webhook(self, url: str | None) -> Webhook | None:
        """Tell the caller at ``url`` from now on when an agent of its own waits, is done or fails.

        None ends that. Raises ShareError: INVALID_ARGUMENT: nothing may be delivered there.
        """
        with self._rights.checked(Action.AGENT_WEBHOOK):
            owner, policy = self._rights.owner(), self._services.webhook_policy
            if policy is None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "url: this server has no webhooks")
            webhooks = Webhooks((await self._services.opened()).database)
            made = None if url is None else await webhooks.set(owner, check_url(url, policy))
            if url is None:
                await webhooks.remove(owner)
        self._audit.done(Action.AGENT_WEBHOOK, self._caller, what="remove" if url is None else "set")
        return made

    async def test_webhook(self) -> None:
        """Deliver a notice of the type ``test``."""
        with self._rights.checked(Action.AGENT_WEBHOOK):
            webhooks = Webhooks((await self._services.opened()).database)
            if await webhooks.of(self._rights.owner()) is None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "url: there is none yet")
            await webhooks.test(self._rights.owner())
        self._services.wake_webhooks()
        self._audit.done(Action.AGENT_WEBHOOK, self._caller, what="test")

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
                made = await agents.add(agent, lambda edit: _begin(edit, options))
            except BaseException:
                await services.shares.delete(self._caller, agent.share_id, None)
                raise
        self._audit.done(Action.AGENT_START, self._caller, agent=made.id, workspace=workspace.id)
        services.node.wake(workspace.id)
        return made

    async def list(
        self,
        *,
        status: object = None,
        workspace: str | None = None,
        cursor: str | None = None,
        limit: object = None,
    ) -> AgentPage:
        """Return a page of the agents that the caller may use, the newest first: at most 200, or 50."""
        with self._rights.checked(Action.AGENTS_LIST):
            reach = self._rights.reach()
            wanted = None
            if status is not None:
                try:
                    wanted = AgentStatus(str(status))
                except ValueError:
                    message = f"status: must be one of {', '.join(AgentStatus)}"
                    raise ShareError(ErrorCode.INVALID_ARGUMENT, message) from None
            if limit is None:
                limit = 50
            if type(limit) is not int or not 1 <= limit <= _MAX_PAGE:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, f"limit: must be 1 to {_MAX_PAGE}")
            agents = await self._services.opened()
            return await agents.list(reach, status=wanted, workspace=workspace, cursor=cursor, limit=limit)

    async def get(self, agent_id: str) -> Agent:
        """Return an agent."""
        with self._rights.checked(Action.AGENT_READ):
            return (await self._find(agent_id))[1]

    async def of_session(self, session_id: str) -> Agent | None:
        """Return the agent of a session; None: it is none, or not in this caller's hands."""
        if not self._rights.is_any or not is_session_id(session_id):
            return None
        try:
            return await self.get(session_id)
        except ShareError as exc:
            if exc.code is ErrorCode.SESSION_NOT_FOUND:
                return None
            raise

    async def of_sessions(self, session_ids: Sequence[str]) -> Sequence[Agent]:
        """Return those of the sessions that are agents which the caller may use; to others there are none."""
        try:
            reach = self._rights.reach()
        except ShareError:
            return []
        with self._rights.checked(Action.AGENTS_LIST):
            wanted = [each for each in session_ids if is_session_id(each)]
            if not wanted:
                return []
            return await (await self._services.opened()).find_all(wanted, reach)

    async def changes(self, agent_id: str, heartbeat: float) -> AsyncIterator[int | None]:
        """Yield the number of an agent's last event whenever it is another, without end.

        None is yielded after ``heartbeat`` seconds without one. The first number comes at once.
        """
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
        number = -1
        with agents.news.waiting(agent.id) as changed:
            since = time.monotonic()
            while True:
                changed.clear()
                agent = await agents.find(agent.id, self._rights.reach())
                if agent.events != number:
                    number, since = agent.events, time.monotonic()
                    yield number
                    continue
                if time.monotonic() - since >= heartbeat:
                    since = time.monotonic()
                    yield None
                patience = 0.5 if agents.is_shared else heartbeat
                with suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await changed.wait()

    async def children(self, agent_id: str) -> Sequence[Agent]:
        """Return the sub-agents of an agent."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            return await agents.children(agent.id)

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

            def put(edit: AgentEdit) -> QueuedMessage:
                known = edit.message(wanted)
                if known is not None and known.state is MessageState.DROPPED:
                    message = "id: this message was taken out of the queue: send it under another id"
                    raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
                return known or _queued(edit, wanted, content, files, when)

            sent = await self._changed(agent_id, put)
        self._audit.done(Action.AGENT_SEND, self._caller, agent=agent_id, message=sent.id)
        return sent

    async def command(self, agent_id: str, name: object, arguments: object = "") -> QueuedMessage:
        """Have opencode run one of its commands, as a message of its own."""
        with self._rights.checked(Action.AGENT_SEND):
            if not isinstance(name, str) or not isinstance(arguments, str):
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "name and arguments: must be strings")
            check_command(name, arguments)
            sent = await self._changed(
                agent_id, lambda edit: _queued(edit, new_id("msg"), arguments, command=name)
            )
        self._audit.done(Action.AGENT_SEND, self._caller, agent=agent_id, message=sent.id)
        return sent

    async def queue(self, agent_id: str) -> Sequence[QueuedMessage]:
        """Return the messages that wait, and the one whose turn is under way."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            return await agents.messages(agent.id, MessageState.SENT, MessageState.QUEUED)

    async def unqueue(self, agent_id: str, message_id: str) -> bool:
        """Take a message out of the queue; return whether it was still there."""
        with self._rights.checked(Action.AGENT_CONTROL):

            def take(edit: AgentEdit) -> bool:
                message = edit.message(message_id)
                if message is None or message.state is not MessageState.QUEUED:
                    return False
                edit.move(message, MessageState.DROPPED, told="ended", reason="unqueued")
                return True

            return await self._changed(agent_id, take)

    async def watch(self, agent_id: str, cursor: object = None) -> AgentSubscription:
        """Return the events of an agent from a cursor on (:mod:`~rpcshare.agents.watched_events`).

        They end with a ShareError when the caller's credential does.
        """
        with self._rights.checked(Action.AGENT_READ):
            return await self._watched(agent_id, AgentCursor.parse(cursor))

    async def ask(self, agent_id: str, content: object) -> tuple[QueuedMessage, AgentSubscription]:
        """Send a message; return it, and the events from now until its turn has ended."""
        message_id = new_id("msg")
        with self._rights.checked(Action.AGENT_READ):
            _, agent = await self._find(agent_id)
            require_alive(agent)
            metadata = await self._services.shares.metadata(self._caller, agent.share_id)
            from_now = AgentCursor(metadata.sync_count, agent.events)
            events = await self._watched(agent_id, from_now, until=message_id)
        try:
            return await self.send(agent_id, content, message_id=message_id), events
        except BaseException:
            events.close()
            raise

    async def approvals(self, agent_id: str) -> Sequence[AgentRequest]:
        """Return what somebody has to answer: approvals and questions, the oldest first."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            return await agents.requests(agent.id)

    async def request(self, agent_id: str, request_id: str) -> AgentRequest:
        """Return an approval or a question. Raises ShareError: INVALID_ARGUMENT: there is none."""
        with self._rights.checked(Action.AGENT_READ):
            agents, agent = await self._find(agent_id)
            request = await agents.request(agent.id, request_id)
            if request is None:
                raise ShareError(
                    ErrorCode.INVALID_ARGUMENT, "approvalID: there is no such approval or question"
                )
            return request

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

        def end(edit: AgentEdit) -> None:
            edit.withdraw(edit.requests())  # first: nobody is to answer what has ended
            for message in edit.messages(MessageState.SENT):
                edit.move(message, MessageState.INTERRUPTED, told="ended", reason="aborted")

        await self._controlled(agent_id, "abort", end)

    async def pause(self, agent_id: str) -> None:
        """Begin no further turn until it is resumed. A turn under way goes on to its end."""
        await self._controlled(agent_id, "pause", lambda edit: edit.become(AgentStatus.PAUSED))

    async def resume(self, agent_id: str, budget: object = None) -> None:
        """Go on with an agent that is paused or interrupted, with another budget if one is given.

        One whose turn was cut off, and for which nothing waits, is told to go on.

        Raises:
            ShareError: INVALID_ARGUMENT: its budget is spent.
        """
        wanted = None if budget is None else parse_start({"workspace": "", "budget": budget}).budget

        def go_on(edit: AgentEdit) -> None:
            if wanted is not None:
                edit.set(budget=wanted)
                edit.event("budget", budget=msgspec.to_builtins(wanted))
            why = edit.agent.spent.exceeds(edit.agent.budget)
            if why is not None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, f"budget: {why}: give it a larger one")
            if edit.agent.status in (AgentStatus.PAUSED, AgentStatus.INTERRUPTED):
                if edit.is_cut_off():
                    edit.add_message(new_id("msg"), _GO_ON)
                waits = edit.messages(MessageState.QUEUED, MessageState.SENT)
                edit.become(AgentStatus.RUNNING if waits else AgentStatus.IDLE)

        await self._controlled(agent_id, "resume", go_on)

    async def terminate(self, agent_id: str) -> None:
        """End an agent for good; its transcript stays. Doing so again changes nothing."""
        with self._rights.checked(Action.AGENT_TERMINATE):
            agents, agent = await self._find(agent_id)
            if agent.status is AgentStatus.TERMINATED:
                return

            def end(edit: AgentEdit) -> None:
                for message in edit.messages(MessageState.QUEUED, MessageState.SENT):
                    edit.move(message, MessageState.DROPPED, told="ended", reason="terminated")
                edit.withdraw(edit.requests())
                edit.become(AgentStatus.TERMINATED)

            await agents.edit(agent.id, end)
            for child in await agents.children(agent.id):
                await agents.edit(child.id, end)
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

    async def files(self, agent_id: str) -> CallerFiles:
        """Return the files of its workspace."""
        return self._workspaces.files((await self.get(agent_id)).workspace)

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
            require_alive(edit.agent)
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
                require_alive(agent)
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

    async def _find(self, agent_id: str) -> tuple[Agents, Agent]:
        reach = self._rights.reach()
        if not is_session_id(agent_id):
            raise unknown_agent()
        agents = await self._services.opened()
        return agents, await agents.find(agent_id, reach)

    async def _watched(
        self, agent_id: str, cursor: AgentCursor, until: str | None = None
    ) -> AgentSubscription:
        agents, agent = await self._find(agent_id)

        def subscribe(sync_count: int | None) -> Awaitable[Subscription]:
            return self._services.shares.subscribe(self._caller, agent.share_id, sync_count)

        watched = await watch_agent(agents, agent, cursor, subscribe, until=until)
        standing = self._caller.standing
        if standing is not None:
            message = "Unauthorized: the credential has expired or been revoked"
            over = ShareError(ErrorCode.UNAUTHORIZED, message)
            watched.on_end(standing.on_end(lambda: watched.fail(over)))
        return watched


async def answer_request(
    services: AgentServices, agent_id: str, request_id: str, answer: object, note: object, by: str
) -> AgentRequest:
    """Answer a request, whoever may: the caller's rights are known, or a link is shown.

    Raises:
        ShareError: INVALID_ARGUMENT: there is none, or it has been answered.
    """
    agents = await services.opened()

    def settle(edit: AgentEdit) -> AgentRequest:
        request = edit.request(request_id)
        if request is None:
            message = "approvalID: there is no such approval or question"
            raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
        parsed = parse_answer(request, answer, note)
        if request.state is not RequestState.ASKED:
            how = (
                "answered already"
                if request.state is RequestState.ANSWERED
                else "withdrawn: its turn has ended"
            )
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"it has been {how}")
        settled = edit.settle(request, RequestState.ANSWERED, parsed, by)
        if not edit.requests() and edit.agent.status is AgentStatus.BLOCKED:
            edit.become(AgentStatus.RUNNING)
        return settled

    answered = await agents.edit(agent_id, settle)
    agent = await agents.find(agent_id, Reach((), is_all=True))
    services.node.wake(agent.workspace)
    return answered


def require_alive(agent: Agent) -> None:
    """Return if an agent takes messages. Raises ShareError: SESSION_TERMINATED, CONTAINER_START_FAILED."""
    if agent.status is AgentStatus.FAILED:
        message = agent.error or "the agent could not be started"
        raise ShareError(ErrorCode.CONTAINER_START_FAILED, message)
    if agent.status is AgentStatus.TERMINATED:
        raise ShareError(ErrorCode.SESSION_TERMINATED, "the agent has been terminated")


def _begin(edit: AgentEdit, options: StartOptions) -> Agent:
    edit.event("status", status=edit.agent.status.value)
    if options.prompt is not None:
        edit.add_message(new_id("msg"), options.prompt)
    return edit.agent


def _queued(
    edit: AgentEdit,
    message_id: str,
    content: str,
    attachments: tuple[Attachment, ...] = (),
    delivery: Delivery = Delivery.QUEUE,
    command: str | None = None,
) -> QueuedMessage:
    waiting = edit.messages(MessageState.QUEUED)
    if len(waiting) >= MAX_QUEUED:
        message = f"{MAX_QUEUED} messages of this agent wait already"
        raise ShareError(ErrorCode.RATE_LIMIT_EXCEEDED, message, retry_after=5)
    size = len(content) + sum(len(each.url) for each in attachments)
    if waiting and size + sum(each.size for each in waiting) > MAX_QUEUED_SIZE:
        message = f"more than {MAX_QUEUED_SIZE:,} characters of messages to this agent would wait"
        raise ShareError(ErrorCode.RATE_LIMIT_EXCEEDED, message, retry_after=5)
    sent = edit.add_message(message_id, content, attachments, delivery, command)
    if edit.agent.status in (AgentStatus.IDLE, AgentStatus.INTERRUPTED):
        edit.become(AgentStatus.RUNNING)
    return sent
