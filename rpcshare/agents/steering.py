"""What steering does to an agent, each within one transaction on it (:mod:`~rpcshare.agents.agent_edit`).

Who may do so is not asked here. Whoever runs the agent finds what is to be done in its rows.
"""

from __future__ import annotations

import msgspec

from rpcshare.agents.agent import (
    MAX_QUEUED,
    MAX_QUEUED_SIZE,
    Agent,
    AgentRequest,
    AgentStatus,
    Attachment,
    Budget,
    Delivery,
    MessageState,
    QueuedMessage,
    RequestState,
    StartOptions,
    new_id,
)
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.answers import parse_answer
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "abort",
    "answer",
    "begin",
    "enqueue",
    "enqueue_once",
    "pause",
    "require_alive",
    "resume",
    "terminate",
    "unknown_request",
    "unqueue",
]

_GO_ON = "Go on where you were interrupted."


def require_alive(agent: Agent) -> None:
    """Return if an agent takes messages. Raises ShareError: SESSION_TERMINATED, CONTAINER_START_FAILED."""
    if agent.status is AgentStatus.FAILED:
        message = agent.error or "the agent could not be started"
        raise ShareError(ErrorCode.CONTAINER_START_FAILED, message)
    if agent.status is AgentStatus.TERMINATED:
        raise ShareError(ErrorCode.SESSION_TERMINATED, "the agent has been terminated")


def begin(edit: AgentEdit, options: StartOptions) -> Agent:
    """Tell that an agent is there, and give it its first message."""
    edit.event("status", status=edit.agent.status.value)
    if options.prompt is not None:
        edit.add_message(new_id("msg"), options.prompt)
    return edit.agent


# Its queue


def enqueue(
    edit: AgentEdit,
    message_id: str,
    content: str,
    attachments: tuple[Attachment, ...] = (),
    delivery: Delivery = Delivery.QUEUE,
    command: str | None = None,
) -> QueuedMessage:
    """Put a message at the end of the queue.

    Raises:
        ShareError: RATE_LIMIT_EXCEEDED: too many wait.
    """
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


def enqueue_once(
    edit: AgentEdit, message_id: str, content: str, attachments: tuple[Attachment, ...], delivery: Delivery
) -> QueuedMessage:
    """Put a message at the end of the queue, unless it was sent before.

    Raises:
        ShareError: INVALID_ARGUMENT: it was, and has been taken back. RATE_LIMIT_EXCEEDED: too many wait.
    """
    known = edit.message(message_id)
    if known is None:
        return enqueue(edit, message_id, content, attachments, delivery)
    if known.state is MessageState.DROPPED:
        message = "id: this message was taken out of the queue: send it under another id"
        raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
    return known


def unqueue(edit: AgentEdit, message_id: str) -> bool:
    """Take a message out of the queue; return whether it was still there."""
    message = edit.message(message_id)
    if message is None or message.state is not MessageState.QUEUED:
        return False
    edit.move(message, MessageState.DROPPED, told="ended", reason="unqueued")
    return True


# Its turns


def abort(edit: AgentEdit) -> None:
    """End the turn under way."""
    edit.withdraw(edit.requests())  # first: nobody is to answer what has ended
    for message in edit.messages(MessageState.SENT):
        edit.move(message, MessageState.INTERRUPTED, told="ended", reason="aborted")


def pause(edit: AgentEdit) -> None:
    """Begin no further turn."""
    edit.become(AgentStatus.PAUSED)


def resume(edit: AgentEdit, budget: Budget | None) -> None:
    """Go on with an agent that is paused or interrupted, with another budget if one is given.

    Raises:
        ShareError: INVALID_ARGUMENT: its budget is spent.
    """
    if budget is not None:
        edit.set(budget=budget)
        edit.event("budget", budget=msgspec.to_builtins(budget))
    why = edit.agent.spent.exceeds(edit.agent.budget)
    if why is not None:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"budget: {why}: give it a larger one")
    if edit.agent.status in (AgentStatus.PAUSED, AgentStatus.INTERRUPTED):
        if edit.is_cut_off():
            edit.add_message(new_id("msg"), _GO_ON)
        waits = edit.messages(MessageState.QUEUED, MessageState.SENT)
        edit.become(AgentStatus.RUNNING if waits else AgentStatus.IDLE)


def terminate(edit: AgentEdit) -> None:
    """End an agent for good."""
    for message in edit.messages(MessageState.QUEUED, MessageState.SENT):
        edit.move(message, MessageState.DROPPED, told="ended", reason="terminated")
    edit.withdraw(edit.requests())
    edit.become(AgentStatus.TERMINATED)


# What it asks


def answer(edit: AgentEdit, request_id: str, given: object, note: object, by: str) -> AgentRequest:
    """Answer an approval or a question, once.

    Raises:
        ShareError: INVALID_ARGUMENT: there is none, it has been answered, or this is no answer to it.
    """
    request = edit.request(request_id)
    if request is None:
        raise unknown_request()
    parsed = parse_answer(request, given, note)
    if request.state is not RequestState.ASKED:
        is_answered = request.state is RequestState.ANSWERED
        how = "answered already" if is_answered else "withdrawn: its turn has ended"
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"it has been {how}")
    settled = edit.settle(request, RequestState.ANSWERED, parsed, by)
    if not edit.requests() and edit.agent.status is AgentStatus.BLOCKED:
        edit.become(AgentStatus.RUNNING)
    return settled


def unknown_request() -> ShareError:
    """Return what is said of a request that an agent does not have."""
    return ShareError(ErrorCode.INVALID_ARGUMENT, "approvalID: there is no such approval or question")
