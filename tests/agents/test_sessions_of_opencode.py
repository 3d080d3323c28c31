"""One session of an opencode that does as it is told by a test: what is sent to it, and how its turns end."""

import asyncio
from typing import Any

import pytest

from rpcshare.agents import session_runner, steering
from rpcshare.agents.agent import (
    Agent,
    AgentStatus,
    Attachment,
    Budget,
    Delivery,
    MessageState,
    Spent,
    new_id,
)
from rpcshare.agents.agents import Agents
from rpcshare.agents.opencode.client import OpencodeError
from rpcshare.agents.opencode.events import OpencodeEvent
from rpcshare.agents.session_runner import SessionRunner
from rpcshare.errors import ErrorCode, ShareError


class FakeOpencode:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.prompts: list[tuple[str, str]] = []
        self.busy: set[str] = set()
        self.stored: list[dict[str, Any]] | None = None
        self.aborts = 0
        self.hangs = False
        self.changed: list[dict[str, Any]] = []

    async def session(self, session_id: str) -> object:
        return None if self.stored is None else {"id": session_id}

    async def make_session(self, *_: object, **__: object) -> None:
        self.stored = []

    async def model(self, _name: str) -> None:
        return None

    async def messages(self, _session_id: str) -> list[dict[str, Any]]:
        return self.stored or []

    async def busy_sessions(self) -> set[str]:
        return set(self.busy)

    async def prompt(self, session_id: str, message_id: str, _parts: object, text: str, **_: object) -> None:
        self.prompts.append((message_id, text))
        self.busy.add(session_id)

    async def abort(self, session_id: str) -> None:
        self.aborts += 1
        if not self.hangs:
            self.busy.discard(session_id)

    async def change_part(self, _session_id: str, part: dict[str, Any]) -> None:
        self.changed.append(part)


class Session:
    """A runner of one agent, and what is needed to drive it."""

    def __init__(self, agents: Agents, runner: SessionRunner, opencode: FakeOpencode) -> None:
        self.agents, self.runner, self.opencode = agents, runner, opencode
        self.ended: list[str] = []

    async def send(self, text: str, delivery: Delivery = Delivery.QUEUE) -> str:
        def put(edit):
            edit.become(AgentStatus.RUNNING)
            return edit.add_message(new_id("msg"), text, (), delivery).id

        return await self.agents.edit(self.runner.id, put)

    async def step(self) -> Agent:
        (work,) = await self.agents.work_of("wsp_1")
        await self.runner.step(work)
        return (await self.agents.work_of("wsp_1"))[0].agent

    async def tell(self, kind: str, **data: object) -> None:
        await self.runner.handle(OpencodeEvent(kind, self.runner.id, data))

    async def answer(self, *parents: str) -> None:
        """Have opencode answer messages, and rest."""
        for parent in parents:
            info = {"id": new_id("msg"), "role": "assistant", "parentID": parent}
            await self.tell("message.updated", info=info)
        self.opencode.busy.clear()
        await self.tell("session.idle")

    async def states(self) -> list[tuple[str, MessageState]]:
        def read(edit):
            return [(each.content, each.state) for each in edit.messages(*MessageState)]

        return await self.agents.edit(self.runner.id, read)


@pytest.fixture
async def session(records, service, alice):
    agents, opencode = Agents(records), FakeOpencode()
    session_id = new_id("ses", descending=True)
    created = await service.create(alice, session_id)
    agent = Agent(
        id=session_id,
        owner="alice",
        workspace="wsp_1",
        share_id=created.id,
        share_url=created.url,
        status=AgentStatus.INITIALIZING,
        title="",
        model="acme/large",
        mode="",
        permission=(),
        budget=Budget(),
        spent=Spent(),
        parent=None,
        error=None,
        created_at=1,
        last_active_at=1,
    )
    await agents.add(agent, lambda edit: None)
    made = Session(agents, SessionRunner(agent, agents, service, opencode), opencode)  # type: ignore[arg-type]

    async def end_process(reason: str) -> None:
        made.ended.append(reason)

    made.runner._end_process = end_process
    yield made
    await made.runner.transcript.close()


async def test_one_message_at_a_time_is_given_to_it(session):
    await session.send("one")
    await session.send("two")
    await session.step()
    await session.step()
    assert [text for _, text in session.opencode.prompts] == ["one"]
    await session.answer(session.opencode.prompts[0][0])
    await session.step()
    assert [text for _, text in session.opencode.prompts] == ["one", "two"]
    assert session.opencode.prompts[0][0] < session.opencode.prompts[1][0]


async def test_an_early_end_that_is_told_of_the_turn_before_ends_nothing(session):
    await session.send("one")
    await session.step()
    await session.tell("session.idle")
    assert await session.states() == [("one", MessageState.SENT)]


async def test_a_steer_that_came_too_late_has_a_turn_of_its_own(session):
    await session.send("one")
    await session.step()
    await session.send("but", Delivery.STEER)
    await session.step()
    assert [text for _, text in session.opencode.prompts] == ["one", "but"]
    await session.answer(session.opencode.prompts[0][0])
    assert ("but", MessageState.QUEUED) in await session.states()
    await session.step()
    assert [text for _, text in session.opencode.prompts] == ["one", "but", "but"]


async def test_a_turn_that_cannot_be_aborted_ends_the_process_and_the_queue_goes_on(session, monkeypatch):
    monkeypatch.setattr(session_runner, "_ABORT_LOOKS", 2)
    session.opencode.hangs = True
    first = await session.send("one")
    await session.step()
    await session.tell("session.status", status={"type": "busy"})
    await session.send("two")

    def abort(edit):
        edit.move(edit.message(first), MessageState.INTERRUPTED, told="ended", reason="aborted")

    await session.agents.edit(session.runner.id, abort)
    await session.step()
    assert session.ended == ["its turn could not be aborted"]
    await session.runner.interrupt("its turn could not be aborted")
    (work,) = await session.agents.work_of("wsp_1")
    assert (work.agent.status, [each.content for each in work.queued]) == (AgentStatus.RUNNING, ["two"])


@pytest.mark.parametrize(
    ("stored", "state", "status"),
    [
        ("nothing", MessageState.QUEUED, AgentStatus.RUNNING),
        ("the message", MessageState.INTERRUPTED, AgentStatus.INTERRUPTED),
        ("a step", MessageState.INTERRUPTED, AgentStatus.INTERRUPTED),
        ("the answer", MessageState.ENDED, AgentStatus.IDLE),
    ],
)
async def test_what_was_sent_before_a_kill_is_found_out(session, stored, state, status):
    await session.send("one")
    await session.step()
    ((message_id, _),) = session.opencode.prompts
    answer = {"id": new_id("msg"), "role": "assistant", "parentID": message_id, "time": {"completed": 5}}
    tool = {"id": "prt_1", "messageID": answer["id"], "type": "tool", "state": {"status": "running"}}
    user = {"info": {"id": message_id, "role": "user"}, "parts": []}
    session.opencode.stored = {
        "nothing": [],
        "the message": [user],
        "a step": [user, {"info": {**answer, "finish": "tool-calls"}, "parts": [tool]}],
        "the answer": [user, {"info": {**answer, "finish": "stop"}, "parts": []}],
    }[stored]
    await session.runner.interrupt("it was killed")
    (work,) = await session.agents.work_of("wsp_1")
    assert (work.agent.status, work.agent.error) == (AgentStatus.INTERRUPTED, "it was killed")
    again = SessionRunner(
        work.agent,
        session.agents,
        session.runner.transcript._shares,
        session.opencode,
    )
    await again.open(work.sent)
    await again.transcript.close()
    ((_, found),) = await session.states()
    assert found is state
    assert (await session.agents.work_of("wsp_1"))[0].agent.status is status
    assert [each["state"]["status"] for each in session.opencode.changed] == ["error"] * (stored == "a step")


async def test_an_opencode_that_begins_nothing_ends_the_turn_with_a_sentence(session, monkeypatch):
    monkeypatch.setattr(session_runner, "_LATEST_BEGIN", 0.0)
    await session.send("one")
    await session.step()
    session.opencode.busy.clear()
    agent = await session.step()
    assert (agent.status, agent.error) == (AgentStatus.IDLE, "opencode has not begun to answer")


async def test_one_that_refuses_a_message_ends_its_turn_with_its_reason(session):
    async def refuse(*_: object, **__: object) -> None:
        raise OpencodeError("no such agent", 400)

    session.opencode.prompt = refuse
    await session.send("one")
    assert (await session.step()).error == "no such agent"
    await asyncio.sleep(0)
    assert await session.states() == [("", MessageState.ENDED)]


async def test_what_waits_for_one_agent_is_bounded_in_size(session, monkeypatch):
    monkeypatch.setattr(steering, "MAX_QUEUED_SIZE", 100)
    file = (Attachment("data:text/plain,x", "text/plain"),)

    def send(text: str):
        return session.agents.edit(
            session.runner.id, lambda edit: steering.enqueue(edit, new_id("msg"), text, file)
        )

    await send("a" * 500)  # one is always taken
    with pytest.raises(ShareError, match="100 characters of messages") as caught:
        await send("b")
    assert caught.value.code is ErrorCode.RATE_LIMIT_EXCEEDED
