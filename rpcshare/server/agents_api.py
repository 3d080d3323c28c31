"""Agents over HTTP: ``/api/sessions``, a stream of Server-Sent Events and a plain WebSocket of events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from rpcshare.agents.agent import Agent, JSONObject
from rpcshare.agents.caller_agents import CallerAgents
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server import agent_schemas as schemas
from rpcshare.server.event_streams import EventStream, EventStreams, deliver_server_sent
from rpcshare.server.json_body import read_json_body
from rpcshare.server.operation import Handler, Needs, Operation, Parameter
from rpcshare.server.schemas import Success
from rpcshare.shares.event_source import EventSource

__all__ = ["CURSOR", "SOCKET_PATH", "AgentsApi"]

SOCKET_PATH = "/api/sessions/{session_id}/ws"

_MAX_BODY = 16 * 2**20  # a message with its attachments
_SMALL_BODY = 64 * 1024
_SUCCESS = {"success": True}
_CODES = (ErrorCode.INVALID_ARGUMENT, ErrorCode.SESSION_NOT_FOUND)
_CHANGES = (*_CODES, ErrorCode.SESSION_TERMINATED, ErrorCode.CONTAINER_START_FAILED)

CURSOR = Parameter(
    name="cursor",
    place="query",
    schema={"type": "string", "pattern": r"^[0-9]{0,15}\.[0-9]{0,15}$"},
    description="The `cursor` of the last event that was seen; without it, all begins anew.",
)
_LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    place="header",
    schema=CURSOR.schema,
    description="The same, as browsers send it when they come back; counts before `cursor`.",
)
_CONFIG = ("title", "model", "agent", "permission", "resources", "budget")


class AgentsApi:
    """The handlers; rights are those of :class:`~rpcshare.agents.caller_agents.CallerAgents`."""

    def __init__(
        self, agents_of: Callable[[Caller], CallerAgents], event_streams: EventStreams, base_url: str
    ) -> None:
        """Take what returns the agents in the hands of a caller; ``base_url`` is that of the server."""
        self._agents_of = agents_of
        self._event_streams = event_streams
        self._sockets = base_url.rstrip("/").replace("http", "ws", 1)

    def operations(self) -> Mapping[str, Mapping[str, Operation]]:
        """Return what can be done, by path and method."""
        session = "/api/sessions/{session_id}"
        approval = session + "/approvals/{approval_id}"
        request, sent, success = schemas.AgentRequestInfo, schemas.Sent, Success
        return {
            "/api/sessions": {
                "POST": _operation(
                    "Start an agent",
                    self._start,
                    schemas.Started,
                    body=schemas.NewSessionBody,
                    codes=(ErrorCode.INVALID_ARGUMENT, ErrorCode.WORKSPACE_NOT_FOUND, *_CHANGES[2:]),
                )
            },
            session: {
                "GET": _operation("An agent", self._info, schemas.AgentInfo, codes=_CODES),
                "DELETE": _operation(
                    "End an agent for good; its transcript stays",
                    self._does("terminate"),
                    success,
                    codes=_CODES,
                ),
            },
            session + "/messages": {
                "POST": _operation("Give an agent a message", self._send, sent, body=schemas.MessageBody)
            },
            session + "/commands": {
                "POST": _operation(
                    "Have an agent run a command of opencode's",
                    self._command,
                    sent,
                    body=schemas.CommandBody,
                )
            },
            session + "/queue": {
                "GET": _operation(
                    "The messages that wait", self._queue, list[schemas.QueuedMessageInfo], codes=_CODES
                )
            },
            session + "/queue/{message_id}": {
                "DELETE": _operation("Take a message out of the queue", self._unqueue, schemas.Removed)
            },
            session + "/events": {
                "GET": Operation(
                    summary="What happens to an agent, as Server-Sent Events whose ids are cursors",
                    handler=self._events,
                    needs=Needs.CREDENTIAL,
                    parameters=(CURSOR, _LAST_EVENT_ID),
                    answers={200: "One event after the other, without end."},
                    media_type="text/event-stream",
                    events=dict[str, Any],
                    codes=(*_CODES, ErrorCode.RATE_LIMITED),
                )
            },
            session + "/approvals": {
                "GET": _operation("What an agent asks", self._approvals, list[request], codes=_CODES)  # type: ignore[valid-type]
            },
            approval: {
                "GET": _operation("An approval or a question", self._approval, request, codes=_CODES),
                "POST": _operation(
                    "Answer an approval or a question", self._answer, request, body=schemas.AnswerBody
                ),
            },
            approval + "/link": {
                "POST": _operation(
                    "Make a link that answers it once, from a phone", self._link, schemas.LinkInfo
                )
            },
            session + "/abort": {"POST": _operation("End the turn under way", self._does("abort"), success)},
            session + "/pause": {"POST": _operation("Begin no further turn", self._does("pause"), success)},
            session + "/resume": {
                "POST": _operation(
                    "Go on", self._resume, success, body=schemas.ResumeBody, body_required=False
                )
            },
            session + "/fork": {
                "POST": _operation(
                    "Make a new agent with the same transcript",
                    self._fork,
                    schemas.AgentInfo,
                    body=schemas.ForkBody,
                    body_required=False,
                )
            },
            session + "/revert": {
                "POST": _operation(
                    "Take back a message and all behind it", self._revert, success, body=schemas.RevertBody
                )
            },
            session + "/unrevert": {
                "POST": _operation("Restore what was taken back", self._does("unrevert"), success)
            },
            session + "/diff": {
                "GET": _operation("What has changed in the workspace", self._diff, list[dict[str, Any]])
            },
            session + "/todo": {"GET": _operation("The agent's to-dos", self._todo, list[dict[str, Any]])},
        }

    async def watched(self, connection: HTTPConnection, caller: Caller) -> EventSource:
        """Return the events that a request asks for: behind ``Last-Event-ID``, or the query's cursor."""
        last = connection.headers.get("last-event-id") or connection.query_params.get("cursor") or None
        return await self._agents_of(caller).watch(_session(connection), last)

    async def described_sessions(self, caller: Caller, session_ids: list[str]) -> dict[str, JSONObject]:
        """Return of which sessions that the caller lists there are agents: ``{status, workspace}``."""
        try:
            found = await self._agents_of(caller).of_sessions(session_ids)
        except ShareError as exc:
            if exc.code is not ErrorCode.STORAGE_UNAVAILABLE:
                raise
            return {}  # which is logged; the shares are there all the same
        return {each.id: {"status": each.status.value, "workspace": each.workspace} for each in found}

    async def _start(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, _MAX_BODY, longest_member=_MAX_BODY)).all_but()
        given = {name: body.pop(name) for name in ("workspace", "prompt") if name in body}
        config = body.pop("config", None)
        if body:
            raise _wrong(f"{next(iter(body))}: is not known: expected workspace, config and prompt")
        if config is not None:
            if not isinstance(config, dict):
                raise _wrong("config: expected an object")
            unknown = [name for name in config if name not in _CONFIG]
            if unknown:
                raise _wrong(f"config.{unknown[0]}: is not known: expected {', '.join(_CONFIG)}")
            given |= config
        agent = await self._agents_of(caller).start(given)
        return {
            "sessionId": agent.id,
            "status": agent.status.value,
            "websocketUrl": self._socket(agent),
            "share": {"id": agent.share_id, "url": agent.share_url},
        }

    async def _info(self, request: Request, caller: Caller) -> object:
        return self._described(await self._agents_of(caller).get(_session(request)))

    async def _send(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, _MAX_BODY, longest_member=_MAX_BODY)).all_but()
        _only(body, "content", "attachments", "id", "delivery")
        message_id = body.get("id")
        if message_id is not None and not isinstance(message_id, str):
            raise _wrong("id: expected a string")
        sent = await self._agents_of(caller).send(
            _session(request),
            body.get("content"),
            message_id=message_id,
            attachments=body.get("attachments"),
            delivery=body.get("delivery"),
        )
        return {"messageID": sent.id}

    async def _command(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, _MAX_BODY, longest_member=_MAX_BODY)).all_but()
        _only(body, "name", "arguments")
        arguments = body.get("arguments")
        sent = await self._agents_of(caller).command(
            _session(request), body.get("name"), "" if arguments is None else arguments
        )
        return {"messageID": sent.id}

    async def _queue(self, request: Request, caller: Caller) -> object:
        return [each.described() for each in await self._agents_of(caller).queue(_session(request))]

    async def _unqueue(self, request: Request, caller: Caller) -> object:
        message_id = request.path_params["message_id"]
        return {"removed": await self._agents_of(caller).unqueue(_session(request), message_id)}

    async def _events(self, request: Request, caller: Caller) -> Response:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._event_streams.connections.hold(caller))
            events = await self.watched(request, caller)
            held = stack.pop_all()
            return EventStream(self._event_streams, caller, events, held, deliver=deliver_server_sent)

    async def _approvals(self, request: Request, caller: Caller) -> object:
        return [each.described() for each in await self._agents_of(caller).approvals(_session(request))]

    async def _approval(self, request: Request, caller: Caller) -> object:
        found = await self._agents_of(caller).request(_session(request), request.path_params["approval_id"])
        return found.described()

    async def _answer(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, 2**20, longest_member=2**20)).all_but()
        _only(body, "answer", "note")
        approval_id = request.path_params["approval_id"]
        answered = await self._agents_of(caller).answer(
            _session(request), approval_id, body.get("answer"), body.get("note")
        )
        return answered.described()

    async def _link(self, request: Request, caller: Caller) -> object:
        made = await self._agents_of(caller).link(_session(request), request.path_params["approval_id"])
        return {"url": made.url, "expiresAt": made.expires_at}

    async def _resume(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, _SMALL_BODY, optional=True)).all_but()
        _only(body, "budget")
        await self._agents_of(caller).resume(_session(request), body.get("budget"))
        return _SUCCESS

    async def _fork(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, _SMALL_BODY, optional=True)).all_but()
        _only(body, "messageID")
        return self._described(await self._agents_of(caller).fork(_session(request), body.get("messageID")))

    async def _revert(self, request: Request, caller: Caller) -> object:
        body = (await read_json_body(request, _SMALL_BODY)).all_but()
        _only(body, "messageID")
        await self._agents_of(caller).revert(_session(request), body.get("messageID"))
        return _SUCCESS

    async def _diff(self, request: Request, caller: Caller) -> object:
        return await self._agents_of(caller).diff(_session(request))

    async def _todo(self, request: Request, caller: Caller) -> object:
        return await self._agents_of(caller).todo(_session(request))

    def _does(self, name: str) -> Handler:
        """Return the handler of what needs nothing but the agent."""

        async def handle(request: Request, caller: Caller) -> object:
            await getattr(self._agents_of(caller), name)(_session(request))
            return _SUCCESS

        return handle

    def _described(self, agent: Agent) -> JSONObject:
        return {**agent.described(), "websocketUrl": self._socket(agent)}

    def _socket(self, agent: Agent) -> str:
        return self._sockets + SOCKET_PATH.replace("{session_id}", agent.id)


def _operation(
    summary: str,
    handler: Handler,
    answer: object,
    *,
    body: object = None,
    body_required: bool = True,
    codes: tuple[ErrorCode, ...] = _CHANGES,
) -> Operation:
    return Operation(
        summary=summary,
        handler=handler,
        needs=Needs.CREDENTIAL,
        body=body,
        body_required=body_required,
        answer=answer,
        codes=codes,
    )


def _session(connection: HTTPConnection) -> str:
    session_id: str = connection.path_params["session_id"]
    return session_id


def _only(body: Mapping[str, object], *names: str) -> None:
    for name in body:
        if name not in names:
            raise _wrong(f"{name}: is not known: expected {', '.join(names)}")


def _wrong(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
