"""One agent on a process that runs: its turns, what it asks, and its transcript."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from rpcshare.agents.agent import (
    Agent,
    AgentRequest,
    AgentStatus,
    Delivery,
    MessageState,
    QueuedMessage,
    RequestKind,
    RequestState,
    new_id,
)
from rpcshare.agents.agent_edit import AgentEdit
from rpcshare.agents.agents import Agents, AgentWork
from rpcshare.agents.counts import AgentCounts
from rpcshare.agents.opencode.client import Opencode, OpencodeError
from rpcshare.agents.opencode.events import OpencodeEvent, SyncItem
from rpcshare.agents.opencode.forms import ended_tool, error_of, is_finished, part_ids
from rpcshare.agents.redacting import redacted, shown_title
from rpcshare.agents.transcript import Transcript
from rpcshare.errors import ShareError
from rpcshare.shares.service import ShareService

__all__ = ["SessionRunner"]

JSONObject: TypeAlias = dict[str, Any]

logger = logging.getLogger("rpcshare.agents")

_LATEST_BEGIN = 20.0
"""Seconds after which a turn that opencode does not begin is over."""
_ABORT_LOOKS = 150
_FLUSH_SECONDS = 10.0
_LARGEST_ASKED = 2**20
"""Bytes of the JSON of what somebody has to answer."""
_MOST_ASKED = 200
"""What may wait for answers at once, of one agent and its sub-agents."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LONGEST_PATH = 4096
_REPLIES = frozenset({"once", "always", "reject"})


@dataclass
class _Turn:
    message: QueuedMessage
    transcript_id: str
    began_at: float = field(default_factory=time.monotonic)
    has_begun: bool = False
    """Whether opencode was seen at work on it."""
    error: str | None = None
    steers: dict[str, QueuedMessage] = field(default_factory=dict)
    """By their IDs in the transcript."""
    answered: set[str] = field(default_factory=set)
    """IDs of messages that opencode has begun to answer."""
    command: asyncio.Task[None] | None = None


class SessionRunner:
    """Feeds one session of opencode's, and follows it."""

    def __init__(
        self,
        agent: Agent,
        agents: Agents,
        shares: ShareService,
        opencode: Opencode,
        *,
        root: SessionRunner | None = None,
        wake: Callable[[], None] = lambda: None,
        counts: AgentCounts | None = None,
        end_process: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Made by :class:`~rpcshare.agents.workspace_runner.WorkspaceRunner`.

        Args:
            agent: whose session it is.
            agents: have the rows.
            shares: have the transcripts.
            opencode: the process.
            root: of a sub-agent's, the one that people talk to; None: it is that itself.
            wake: is called when there may be something to do.
            counts: of the node.
            end_process: ends the process, for a reason: of a session that hangs.
        """
        self.agent = agent
        self.root = root or self
        self._agents = agents
        self._opencode = opencode
        self._wake = wake
        self._counts = counts or AgentCounts()
        self._end_process = end_process or _cannot_end
        self._turn: _Turn | None = None
        self._asked: set[str] = set()  # what opencode waits for an answer to
        self._last_id = ""
        self._kept_seq = agent.sync_seq
        self.transcript = Transcript(
            shares, agent.share_id, on_kept=self._note_kept, on_refused=self._note_refused
        )
        self._refused: ShareError | None = None
        self._handlers: dict[str, Callable[[JSONObject], Awaitable[None]]] = {
            "message.updated": self._on_message,
            "session.updated": self._on_session,
            "session.status": self._on_status,
            "session.idle": self._on_idle,
            "session.error": self._on_error,
            "permission.asked": self._on_asked,
            "question.asked": self._on_asked,
            "permission.replied": self._on_answered,
            "question.replied": self._on_answered,
            "question.rejected": self._on_answered,
            "file.edited": self._on_file,
        }
        self.idle_since = time.monotonic()

    @property
    def id(self) -> str:
        """The session's ID."""
        return self.agent.id

    @property
    def is_busy(self) -> bool:
        """Whether a turn is under way, or somebody has to answer."""
        return self._turn is not None or bool(self._asked)

    # What is to be done

    async def open(self, sent: Sequence[QueuedMessage]) -> None:
        """Make the session if it is not there, and find out how what was sent has ended.

        Raises:
            OpencodeError: opencode fails.
        """
        agent = self.agent
        if agent.status is AgentStatus.INITIALIZING or await self._opencode.session(agent.id) is None:
            await self._opencode.make_session(agent.id, title=agent.title, permission=agent.permission)
            model = await self._opencode.model(agent.model)
            if model is not None:
                self.transcript.put(SyncItem("model", "", [model]))
            if not sent:
                return
        messages = await self._opencode.messages(agent.id)
        await self._end_tools(messages)
        await self._settle(sent, messages)

    async def step(self, work: AgentWork) -> None:
        """Do what can be done for the agent now. Raises OpencodeError, DatabaseError."""
        self.agent = work.agent
        if self._refused is not None:
            refused, self._refused = self._refused, None
            why = f"the transcript is no longer kept: {refused.message}"
            await self._edit(lambda edit: edit.become(edit.agent.status, why))
        await self._deliver_answers()
        if self._turn is not None and all(each.id != self._turn.message.id for each in work.sent):
            await self._abort(self._turn)
        if self._turn is not None and self._turn.command is None:
            for queued in work.queued:
                if queued.delivery is Delivery.STEER:
                    await self._steer(self._turn, queued)
        if (
            self._turn is None
            and work.queued
            and work.agent.status
            in (
                AgentStatus.INITIALIZING,
                AgentStatus.RUNNING,
                AgentStatus.IDLE,
            )
        ):
            await self._begin(work.queued[0])
        elif self._turn is None and work.agent.status in (AgentStatus.INITIALIZING, AgentStatus.RUNNING):
            await self._edit(_rest)
        if self._turn is not None:
            await self._look_for_end()

    async def end_turn(self) -> None:
        """End what is under way in opencode: the agent has been terminated."""
        if self._turn is not None:
            await self._opencode.abort(self.id)
            self._turn = None
        self._asked.clear()

    async def interrupt(self, reason: str) -> None:
        """Note that the process has ended. Raises DatabaseError."""
        turn, self._turn = self._turn, None
        self._asked.clear()
        self._counts.turns["interrupted"] += turn is not None
        for part in self.transcript.running_tools:
            self.transcript.put(SyncItem("part", str(part["id"]), ended_tool(part)))
        await self.transcript.close()

        def end(edit: AgentEdit) -> None:
            edit.withdraw(edit.requests())
            if edit.agent.sync_seq < self._kept_seq:
                edit.set(sync_seq=self._kept_seq)
            if edit.agent.status.is_over:
                return
            # Whether opencode has kept what it was sent is known when it runs again.
            sent = {each.id for each in edit.messages(MessageState.SENT)}
            is_child_at_work = edit.agent.parent is not None and edit.agent.status.is_busy
            if is_child_at_work or (turn is not None and turn.message.id in sent):
                edit.become(AgentStatus.INTERRUPTED, reason)
            elif turn is not None and edit.agent.status.is_busy:
                _rest(edit)  # it was aborted

        await self._edit(end)

    async def close(self) -> None:
        """Keep what is left of the transcript, and note how far it is; the process is stopped on purpose."""
        await self.transcript.close()
        await self._edit(lambda edit: edit.set(sync_seq=max(edit.agent.sync_seq, self._kept_seq)))

    # What opencode tells

    async def handle(self, event: OpencodeEvent) -> None:
        """Take an event of this session. Raises OpencodeError, DatabaseError."""
        self.transcript.take(event)
        await self.transcript.room()
        handler = self._handlers.get(event.type)
        if handler is not None:
            await handler(event.data)

    async def _on_message(self, data: JSONObject) -> None:
        info = data.get("info")
        if not isinstance(info, dict):
            return
        self._last_id = max(self._last_id, str(info.get("id", "")))
        turn = self._turn
        if turn is not None and info.get("role") == "assistant":
            parent = str(info.get("parentID", ""))
            if parent == turn.transcript_id or parent in turn.steers:
                turn.has_begun = True
                turn.answered.add(parent)
                turn.error = error_of(info.get("error"))

    async def _on_session(self, data: JSONObject) -> None:
        info = data.get("info")
        title = info.get("title") if isinstance(info, dict) else None
        if isinstance(title, str) and title and title != self.agent.title:
            shown = shown_title(title)
            if shown != self.agent.title:
                await self._edit(lambda edit: edit.set(title=shown))

    async def _on_status(self, data: JSONObject) -> None:
        status = data.get("status")
        kind = status.get("type") if isinstance(status, dict) else None
        if kind == "idle":
            await self._on_idle(data)
            return
        if self._turn is not None:
            self._turn.has_begun = True
        elif self.agent.parent is not None and self.agent.status is not AgentStatus.RUNNING:
            await self._edit(lambda edit: edit.become(AgentStatus.RUNNING))

    async def _on_idle(self, _data: JSONObject) -> None:
        if self.agent.parent is not None:
            await self._flush()  # as at the end of a turn: who sees it idle finds what it said
            await self._edit(lambda edit: edit.become(AgentStatus.IDLE))
        elif self._turn is not None:
            await self._look_for_end()

    async def _on_error(self, data: JSONObject) -> None:
        if self._turn is not None:
            self._turn.error = error_of(data.get("error"))
            self._turn.has_begun = True

    async def _on_asked(self, data: JSONObject) -> None:
        kind = RequestKind.QUESTION if "questions" in data else RequestKind.APPROVAL
        request_id = data.get("id")
        if not isinstance(request_id, str) or _REQUEST_ID.fullmatch(request_id) is None:
            return
        # What nobody could look at, or get through, is rejected: not to answer would hang the turn.
        why = None
        if len(msgspec.json.encode(data)) > _LARGEST_ASKED:
            why = f"it asks for more than {_LARGEST_ASKED:,} bytes, which are too many to be shown"
        elif not self.root.may_ask(request_id):
            why = f"{_MOST_ASKED} others wait for an answer already"
        if why is not None:
            await self._reject(request_id, kind, why)
            return
        asked = {name: value for name, value in data.items() if name not in ("id", "sessionID")}
        if self is not self.root:
            asked["session"] = self.id
        await self.root.ask(request_id, kind, redacted(asked))

    def may_ask(self, request_id: str) -> bool:
        """Whether there is room for something to be answered, or it is known."""
        return request_id in self._asked or len(self._asked) < _MOST_ASKED

    async def _reject(self, request_id: str, kind: RequestKind, why: str) -> None:
        try:
            if kind is RequestKind.APPROVAL:
                await self._opencode.reply(request_id, "reject", why)
            else:
                await self._opencode.reject_question(request_id)
        except OpencodeError as exc:
            if exc.status is None:
                raise

    async def ask(self, request_id: str, kind: RequestKind, asked: JSONObject) -> None:
        """Have somebody answer something, for this session or a sub-agent's."""
        if request_id not in self._asked:
            self._counts.requests[kind.value] += 1
        self._asked.add(request_id)

        def ask(edit: AgentEdit) -> None:
            edit.ask(AgentRequest(request_id, self.id, kind, RequestState.ASKED, asked, edit.now))
            waits = edit.request(request_id)
            if waits is not None and waits.state is RequestState.ASKED and not edit.agent.status.is_over:
                edit.become(AgentStatus.BLOCKED)

        await self._edit(ask)
        self._wake()

    async def _on_answered(self, data: JSONObject) -> None:
        request_id = str(data.get("requestID", ""))
        await self.root.note_answered(request_id, data)

    async def note_answered(self, request_id: str, data: JSONObject) -> None:
        """Note that opencode no longer waits for an answer, whoever gave it."""
        self._asked.discard(request_id)

        def settle(edit: AgentEdit) -> None:
            request = edit.request(request_id)
            if request is not None and request.state is RequestState.ASKED:
                # "always" answers others of its kind, too.
                given = data.get("reply")
                reply = given if isinstance(given, str) and given in _REPLIES else "always"
                edit.settle(request, RequestState.ANSWERED, {"reply": reply}, "opencode")
            if not edit.requests() and edit.agent.status is AgentStatus.BLOCKED:
                edit.become(AgentStatus.RUNNING)

        await self._edit(settle)

    async def _on_file(self, data: JSONObject) -> None:
        path = str(data.get("file", ""))[:_LONGEST_PATH]
        await self._edit(lambda edit: edit.event("file", path=path.removeprefix("/workspace/")))

    # What they are made of

    async def _begin(self, message: QueuedMessage) -> None:
        transcript_id = message.id if self._is_newest(message.id) else new_id("msg")

        def take(edit: AgentEdit) -> bool:
            current = edit.message(message.id)
            if current is None or current.state is not MessageState.QUEUED or edit.agent.status.is_over:
                return False
            why = edit.agent.spent.exceeds(edit.agent.budget)
            if why is not None:
                edit.event("budget", spent=True, message=why)
                edit.become(AgentStatus.PAUSED, why)
                return False
            spent = edit.agent.spent
            edit.set(spent=msgspec.structs.replace(spent, turns=spent.turns + 1))
            edit.move(current, MessageState.SENT, transcript_id, told="started")
            edit.become(AgentStatus.RUNNING)
            return True

        if not await self._edit(take):
            return
        turn = self._turn = _Turn(message, transcript_id)
        try:
            await self._prompt(turn, message, transcript_id)
        except OpencodeError as exc:
            if exc.status is None:
                raise  # the process is ending, or hangs: it is looked after elsewhere
            turn.error = exc.message
            await self._end(turn)

    async def _prompt(self, turn: _Turn, message: QueuedMessage, transcript_id: str) -> None:
        agent = self.agent
        self._last_id = max(self._last_id, transcript_id)
        if agent.mode and agent.mode not in (modes := await self._opencode.agent_names()):
            there_are = ", ".join(sorted(modes))
            raise OpencodeError(f"opencode has no agent {agent.mode!r}, but {there_are}", 404)
        if message.command is not None:
            names = await self._opencode.command_names()
            if message.command not in names:
                raise OpencodeError(f"there is no command {message.command!r}", 404)
            turn.command = asyncio.create_task(self._run_command(turn, message, transcript_id))
            return
        await self._opencode.prompt(
            agent.id,
            transcript_id,
            part_ids(transcript_id, 1 + len(message.attachments)),
            message.content,
            attachments=message.attachments,
            model=agent.model,
            agent=agent.mode,
        )

    async def _run_command(self, turn: _Turn, message: QueuedMessage, transcript_id: str) -> None:
        agent = self.agent
        try:
            await self._opencode.command(
                agent.id,
                transcript_id,
                message.command or "",
                message.content,
                model=agent.model,
                agent=agent.mode,
            )
        except OpencodeError as exc:
            turn.error = exc.message
        turn.has_begun = True
        self._wake()

    async def _steer(self, turn: _Turn, message: QueuedMessage) -> None:
        transcript_id = new_id("msg")

        def take(edit: AgentEdit) -> bool:
            current = edit.message(message.id)
            if current is None or current.state is not MessageState.QUEUED:
                return False
            edit.move(current, MessageState.SENT, transcript_id, told="started")
            return True

        if await self._edit(take):
            turn.steers[transcript_id] = message
            await self._prompt(turn, message, transcript_id)

    async def _look_for_end(self) -> None:
        turn = self._turn
        if turn is None or (turn.command is not None and not turn.command.done()):
            return
        if not turn.has_begun and time.monotonic() - turn.began_at < _LATEST_BEGIN:
            return
        if self.id not in await self._opencode.busy_sessions() and self._turn is turn:
            if not turn.has_begun:
                turn.error = turn.error or "opencode has not begun to answer"
            await self._end(turn)

    async def _end(self, turn: _Turn) -> None:
        """Note that a turn has ended, once what it said is kept."""
        await self._flush()
        if self._turn is not turn:
            return
        self._turn = None
        self._asked.clear()
        error = None if turn.error is None else redacted(turn.error)
        self._counts.turns["completed" if error is None else "error"] += 1

        def end(edit: AgentEdit) -> None:
            details = {"reason": "completed"} if error is None else {"reason": "error", "error": error}
            for message in edit.messages(MessageState.SENT):
                steer = next((each for each, sent in turn.steers.items() if sent.id == message.id), None)
                if steer is not None and steer not in turn.answered and turn.error is None:
                    edit.move(message, MessageState.QUEUED)  # it came when the turn was about to end
                else:
                    edit.move(message, MessageState.ENDED, told="ended", **details)
            edit.withdraw(edit.requests())
            edit.set(sync_seq=max(edit.agent.sync_seq, self._kept_seq))
            if edit.agent.status in (AgentStatus.RUNNING, AgentStatus.BLOCKED):
                _rest(edit, error)

        await self._edit(end)
        self._wake()

    async def _abort(self, turn: _Turn) -> None:
        await self._opencode.abort(self.id)
        for _ in range(_ABORT_LOOKS):  # its end is told twice, the first time too early
            if self.id not in await self._opencode.busy_sessions():
                break
            await asyncio.sleep(0.1)
        else:
            # Of a session that hangs, opencode answers nothing any more; a new process does.
            await self._end_process("its turn could not be aborted")
            return
        if turn.command is not None:
            turn.command.cancel()
        await self._flush()
        self._turn = None
        self._asked.clear()
        self._counts.turns["aborted"] += 1

        def end(edit: AgentEdit) -> None:
            for message in edit.messages(MessageState.SENT):
                edit.move(message, MessageState.QUEUED)
            if edit.agent.status in (AgentStatus.RUNNING, AgentStatus.BLOCKED):
                _rest(edit)

        await self._edit(end)
        self._wake()

    async def _deliver_answers(self) -> None:
        for request_id in list(self._asked):
            request = await self._agents.request(self.id, request_id)
            if request is None or request.state is RequestState.ASKED:
                continue
            answer = request.answer or {}
            try:
                if request.state is RequestState.WITHDRAWN:
                    pass
                elif request.kind is RequestKind.APPROVAL:
                    await self._opencode.reply(request.id, str(answer.get("reply")), answer.get("note"))
                elif "answers" in answer:
                    await self._opencode.answer(request.id, answer["answers"])
                else:
                    await self._opencode.reject_question(request.id)
            except OpencodeError as exc:
                if exc.status is None:
                    raise
                logger.warning("opencode does not take an answer: %s", redacted(exc.message))
            self._asked.discard(request_id)

    async def _settle(self, sent: Sequence[QueuedMessage], messages: Sequence[JSONObject]) -> None:
        """Find out what has become of messages that were sent to a process that is gone."""
        infos = [info for each in messages if isinstance(info := each.get("info"), dict)]
        known = {info.get("id") for info in infos}
        self._last_id = max((str(each) for each in known), default="")
        finished = {
            info.get("parentID") for info in infos if info.get("role") == "assistant" and is_finished(info)
        }

        def settle(edit: AgentEdit) -> None:
            is_cut_off = False
            for message in edit.messages(MessageState.SENT):
                if message.id not in {each.id for each in sent}:
                    continue
                if message.transcript_id not in known:
                    edit.move(message, MessageState.QUEUED)
                elif message.transcript_id in finished:
                    edit.move(message, MessageState.ENDED, told="ended", reason="completed")
                else:
                    is_cut_off = True
                    edit.move(message, MessageState.INTERRUPTED, told="ended", reason="interrupted")
            edit.withdraw(edit.requests())
            if edit.agent.status.is_busy or edit.agent.status is AgentStatus.INTERRUPTED:
                if is_cut_off:
                    edit.become(AgentStatus.INTERRUPTED, edit.agent.error or "its process has ended")
                else:
                    _rest(edit)

        if sent:
            await self._edit(settle)

    async def _end_tools(self, messages: Sequence[JSONObject]) -> None:
        """Say of tools that a killed process has left running that they were interrupted."""
        for message in messages:
            for part in message.get("parts", ()):
                state = part.get("state") if isinstance(part, dict) else None
                if isinstance(state, dict) and state.get("status") in ("pending", "running"):
                    await self._opencode.change_part(self.id, ended_tool(part))

    async def _flush(self) -> None:
        try:
            await asyncio.wait_for(self.transcript.flush(), _FLUSH_SECONDS)
        except TimeoutError:
            logger.warning("the transcript of an agent is not kept yet: its turn ends without it")

    def _is_newest(self, message_id: str) -> bool:
        """Whether opencode puts a message of this ID behind all that there is."""
        moment = message_id[4:16]
        soon = new_id("msg")[4:16]
        is_time = len(message_id) == len(new_id("msg")) and all(each in "0123456789abcdef" for each in moment)
        return is_time and self._last_id < message_id and moment <= soon

    def _note_kept(self, seq: int) -> None:
        self._kept_seq = max(self._kept_seq, seq)

    def _note_refused(self, error: ShareError) -> None:
        self._refused = error
        self._wake()

    async def _edit(self, work: Callable[[AgentEdit], Any]) -> Any:  # noqa: ANN401 -- what ``work`` returns
        def noted(edit: AgentEdit) -> tuple[object, Agent]:
            done = work(edit)
            return done, edit.agent

        done, self.agent = await self._agents.edit(self.id, noted)
        self.idle_since = time.monotonic()
        return done


def _rest(edit: AgentEdit, error: str | None = None) -> None:
    """Have an agent without a turn be what it is: its next turn is about to begin, or it waits."""
    waits = bool(edit.messages(MessageState.QUEUED))
    edit.become(AgentStatus.RUNNING if waits else AgentStatus.IDLE, None if waits else error)


async def _cannot_end(reason: str) -> None:
    raise OpencodeError(reason)
