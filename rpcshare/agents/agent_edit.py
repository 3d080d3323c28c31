"""One transaction on one agent: its row, its messages, its requests and its events change together.

Whoever edits an agent is alone with it until the transaction ends, on whatever node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    Attachment,
    Delivery,
    JSONObject,
    MessageState,
    QueuedMessage,
    RequestState,
)
from rpcshare.agents.webhooks import note_change
from rpcshare.database.records import agent_events, agent_messages, agent_requests
from rpcshare.database.records import agents as rows
from rpcshare.workspaces.workspace import owner_from, owner_text

__all__ = ["AgentEdit", "agent_columns", "agent_from", "message_from", "request_from"]

Values: TypeAlias = dict[str, Any]

KEPT_EVENTS = 1000
"""Of one agent. A cursor from before them begins anew."""

_KEPT_REQUESTS = 1000
"""Of one agent. Of more, the oldest that wait for nobody are forgotten."""
_TRIMMED = 100  # events between two looks at what is too many
_JSON = ("permission", "budget", "spent")


class AgentEdit:
    """An agent within a transaction."""

    def __init__(self, connection: Connection, agent: Agent, now: int) -> None:
        """Made by :meth:`rpcshare.agents.agents.Agents.edit`."""
        self._connection = connection
        self._before = agent
        self.agent = agent
        self.now = now

    @property
    def has_events(self) -> bool:
        """Whether somebody has to be told of it."""
        return self.agent.events != self._before.events

    def set(self, **values: Any) -> None:  # noqa: ANN401 -- of whatever type the field is
        """Change fields of the row."""
        self.agent = msgspec.structs.replace(self.agent, **values)

    def event(self, kind: str, /, **data: Any) -> None:  # noqa: ANN401 -- likewise
        """Add an event."""
        number = self.agent.events + 1
        self.set(events=number)
        values = {"agent": self.agent.id, "number": number, "type": kind, "at": self.now}
        self._connection.execute(insert(agent_events), {**values, "data": _json(data)})
        if number % _TRIMMED == 0:
            old = (agent_events.c.agent == self.agent.id, agent_events.c.number <= number - KEPT_EVENTS)
            self._connection.execute(delete(agent_events).where(*old))

    def become(self, status: AgentStatus, error: str | None = None) -> None:
        """Change the status, and tell of it if it is another, or has another reason."""
        if (status, error) == (self.agent.status, self.agent.error):
            return
        self.set(status=status, error=error, last_active_at=self.now)
        self.event("status", status=status.value, **({} if error is None else {"error": error}))

    # Messages

    def add_message(
        self,
        message_id: str,
        content: str,
        attachments: tuple[Attachment, ...] = (),
        delivery: Delivery = Delivery.QUEUE,
        command: str | None = None,
    ) -> QueuedMessage:
        """Put a message at the end of the queue."""
        own = agent_messages.c.agent == self.agent.id
        last = self._connection.execute(select(func.max(agent_messages.c.number)).where(own)).scalar() or 0
        message = QueuedMessage(
            id=message_id,
            agent=self.agent.id,
            number=last + 1,
            content=content,
            attachments=attachments,
            delivery=delivery,
            state=MessageState.QUEUED,
            created_at=self.now,
            command=command,
        )
        values = msgspec.structs.asdict(message)
        values |= {
            "delivery": delivery.value,
            "state": message.state.value,
            "attachments": _json(attachments),
        }
        self._connection.execute(insert(agent_messages), values)
        self.set(last_active_at=self.now)
        self.event("turn", state="queued", messageID=message_id, delivery=delivery.value)
        return message

    def messages(self, *states: MessageState) -> list[QueuedMessage]:
        """Return the messages in one of ``states``, the oldest first."""
        query = select(agent_messages).where(
            agent_messages.c.agent == self.agent.id,
            agent_messages.c.state.in_([each.value for each in states]),
        )
        return [
            message_from(row) for row in self._connection.execute(query.order_by(agent_messages.c.number))
        ]

    def is_cut_off(self) -> bool:
        """Whether the agent is interrupted, its last turn was cut off, and no message follows."""
        if self.agent.status is not AgentStatus.INTERRUPTED:
            return False
        own = agent_messages.c.agent == self.agent.id
        query = select(agent_messages.c.state).where(own).order_by(agent_messages.c.number.desc()).limit(1)
        return self._connection.execute(query).scalar() == MessageState.INTERRUPTED.value

    def message(self, message_id: str) -> QueuedMessage | None:
        """Return a message, by its ID here or in the transcript."""
        of_id = (agent_messages.c.id == message_id) | (agent_messages.c.transcript_id == message_id)
        query = select(agent_messages).where(agent_messages.c.agent == self.agent.id, of_id)
        row = self._connection.execute(query).first()
        return None if row is None else message_from(row)

    def move(
        self,
        message: QueuedMessage,
        state: MessageState,
        transcript_id: str | None = None,
        *,
        told: str | None = None,
        **details: Any,  # noqa: ANN401 -- of an event
    ) -> None:
        """Change the state of a message, and tell of it as a turn that is ``told``."""
        values: Values = {"state": state.value}
        if transcript_id is not None:
            values["transcript_id"] = transcript_id
        if state in (MessageState.ENDED, MessageState.DROPPED):
            values |= {"content": "", "attachments": "[]"}
        where = (agent_messages.c.agent == self.agent.id, agent_messages.c.id == message.id)
        self._connection.execute(update(agent_messages).where(*where).values(values))
        if told is not None:
            transcript_id = transcript_id or message.transcript_id
            self.event("turn", state=told, messageID=message.id, transcriptID=transcript_id, **details)

    # Requests

    def ask(self, request: AgentRequest) -> None:
        """Note what somebody has to answer, once."""
        if self.request(request.id) is not None:
            return
        values = msgspec.structs.asdict(request)
        values |= {"kind": request.kind.value, "state": request.state.value, "asked": _json(request.asked)}
        self._connection.execute(insert(agent_requests), values)
        self._trim_requests()
        self.event(request.kind.value, **request.described())

    def _trim_requests(self) -> None:
        own = agent_requests.c.agent == self.agent.id
        count = self._connection.execute(select(func.count()).select_from(agent_requests).where(own)).scalar()
        if (count or 0) > _KEPT_REQUESTS:
            over = select(agent_requests.c.id).where(own, agent_requests.c.state != RequestState.ASKED.value)
            over = over.order_by(agent_requests.c.asked_at, agent_requests.c.id).limit(_TRIMMED)
            ids = list(self._connection.execute(over).scalars())
            self._connection.execute(delete(agent_requests).where(own, agent_requests.c.id.in_(ids)))

    def request(self, request_id: str) -> AgentRequest | None:
        """Return a request."""
        query = select(agent_requests).where(
            agent_requests.c.agent == self.agent.id, agent_requests.c.id == request_id
        )
        row = self._connection.execute(query).first()
        return None if row is None else request_from(row)

    def requests(self, state: RequestState = RequestState.ASKED) -> list[AgentRequest]:
        """Return the requests in a state, the oldest first."""
        query = select(agent_requests).where(
            agent_requests.c.agent == self.agent.id, agent_requests.c.state == state.value
        )
        found = self._connection.execute(query.order_by(agent_requests.c.asked_at, agent_requests.c.id))
        return [request_from(row) for row in found]

    def settle(
        self,
        request: AgentRequest,
        state: RequestState,
        answer: JSONObject | None = None,
        by: str | None = None,
    ) -> AgentRequest:
        """Note how a request has ended, and tell of it."""
        settled = msgspec.structs.replace(
            request, state=state, answer=answer, answered_by=by, answered_at=self.now
        )
        values = {
            "state": state.value,
            "answer": None if answer is None else _json(answer),
            "answered_by": by,
            "answered_at": self.now,
        }
        where = (agent_requests.c.agent == self.agent.id, agent_requests.c.id == request.id)
        self._connection.execute(update(agent_requests).where(*where).values(values))
        told = {"id": request.id, "state": state.value, "answer": answer, "answeredBy": by}
        self.event(request.kind.value, **told)
        return settled

    def withdraw(self, requests: Iterable[AgentRequest]) -> None:
        """Note that nobody waits for answers any more."""
        for request in requests:
            self.settle(request, RequestState.WITHDRAWN)

    def save(self) -> None:
        """Write the row, where it has changed."""
        if self.agent != self._before:
            before = agent_columns(self._before)
            values = {
                name: value for name, value in agent_columns(self.agent).items() if value != before[name]
            }
            self._connection.execute(update(rows).where(rows.c.id == self.agent.id).values(values))
            if self.agent.status is not self._before.status:
                note_change(self._connection, self._before, self.agent, self.requests(), self.now)


def agent_columns(agent: Agent) -> Values:
    """Return the row of an agent."""
    values = msgspec.structs.asdict(agent)
    return {
        **values,
        "owner": owner_text(agent.owner),
        "organization": agent.organization,
        "status": agent.status.value,
        **{name: _json(values[name]) for name in _JSON},
    }


def agent_from(row: Row[Any]) -> Agent:
    """Return the agent of a row."""
    values = {name: getattr(row, name) for name in Agent.__struct_fields__}
    values["owner"] = owner_from(row.owner)
    for name in _JSON:
        values[name] = json.loads(values[name])
    return msgspec.convert(values, Agent)


def message_from(row: Row[Any]) -> QueuedMessage:
    """Return the message of a row."""
    values = {name: getattr(row, name) for name in QueuedMessage.__struct_fields__}
    values["attachments"] = json.loads(row.attachments)
    return msgspec.convert(values, QueuedMessage)


def request_from(row: Row[Any]) -> AgentRequest:
    """Return the request of a row."""
    values = {name: getattr(row, name) for name in AgentRequest.__struct_fields__}
    values["asked"] = json.loads(row.asked)
    values["answer"] = None if row.answer is None else json.loads(row.answer)
    return msgspec.convert(values, AgentRequest)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
