"""Turns of a real opencode: what is asked of it, what it says, and what the share holds of it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agents.real_agents import BINARY, World, eventually, text_of
from agents.scripted_model import ScriptedModel
from rpcshare.agents.agent import AgentStatus
from rpcshare.agents.opencode.binary import OpencodeBinary
from rpcshare.agents.opencode.client import Opencode
from rpcshare.agents.opencode.forms import error_of
from rpcshare.errors import ErrorCode, ShareError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BINARY is None, reason="needs the opencode of tests/opencode"),
]


@pytest.fixture
async def model(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedModel]:
    monkeypatch.setenv("FAKE_KEY", "sk-fake-0123456789abcdef0123456789")
    async with ScriptedModel() as model:
        yield model


@pytest.fixture
async def world(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[World]:
    async with World(tmp_path, model) as world:
        yield world


async def test_a_prompt_is_answered_and_the_share_holds_what_opencode_has(world):
    agent = await world.start("Say hello [scenario:hello]")
    assert agent.status is AgentStatus.INITIALIZING
    done = await world.settled(agent)
    items = await world.items(agent)
    assert "Hello from the scripted model." in text_of(items)
    assert done.spent.turns == 1
    assert done.spent.dollars > 0
    await same_as_opencode(world, agent)


async def test_an_agent_of_opencode_that_is_not_there_is_named_with_those_that_are(world):
    agent = await world.start("Say hello [scenario:hello]", agent="nosuch")
    refused = await world.settled(agent)
    assert refused.error is not None
    assert refused.error.startswith("opencode has no agent 'nosuch', but build, ")
    assert "plan" in refused.error
    planned = await world.settled(await world.start("Say hello [scenario:hello]", agent="plan"))
    assert planned.error is None


def test_an_error_is_told_without_the_stack_of_opencode():
    message = "UnknownError: no\nmore\n    at <anonymous> (/$bunfs/root/chunk.js:1:2)\n    at Server.listen"
    assert error_of({"name": "UnknownError", "data": {"message": message}}) == "UnknownError: no\nmore"


async def same_as_opencode(world, agent) -> None:
    """Require that the share soon holds the messages and parts that opencode has.

    opencode sums a turn up after its end.
    """
    for _ in range(100):
        items = await world.items(agent)
        of_share = {each["data"]["id"]: each["data"] for each in items if each["type"] in ("message", "part")}
        of_opencode = {}
        for message in await world.of_opencode(agent):
            of_opencode[message["info"]["id"]] = message["info"]
            of_opencode |= {each["id"]: each for each in message["parts"]}
        if of_share == of_opencode:
            return
        await asyncio.sleep(0.1)
    assert of_share == of_opencode


async def test_three_turns_with_tools(world):
    agent = await world.start("Edit [scenario:edit]")
    await world.settled(agent)
    await world.of().send(agent.id, "And [scenario:todo]")
    await world.settled(agent)
    await world.of().send(agent.id, "Last [scenario:hello]")
    done = await world.settled(agent)
    assert done.spent.turns == 3
    assert "I wrote app.py." in text_of(await world.items(agent))
    assert [each["content"] for each in await world.of().todo(agent.id)] == ["Write it"]
    assert (await world.workspaces_of().files(agent.workspace).read("app.py")).content == 'print("hi")\n'
    await same_as_opencode(world, agent)


async def test_a_permission_is_answered_once_always_and_rejected(world):
    agent = await world.start("Do [scenario:twice]", permission={"bash": "ask"})
    blocked = await world.until(agent, AgentStatus.BLOCKED)
    (first,) = await world.of().approvals(agent.id)
    assert first.asked["permission"] == "bash"
    assert "echo one" in str(first.asked["patterns"])
    await world.of().answer(blocked.id, first.id, "once")
    await eventually(lambda: another(world, agent, first.id))
    (second,) = await world.of().approvals(agent.id)
    await world.of().answer(agent.id, second.id, "always")
    await world.settled(agent)
    files = world.workspaces_of().files(agent.workspace)
    assert (await files.read("twice.txt")).content == "one\ntwo\n"
    # What has always been allowed is not asked again; another command is.
    await world.of().send(agent.id, "Again [scenario:twice]")
    await world.settled(agent)
    assert (await files.read("twice.txt")).content == "one\ntwo\none\ntwo\n"
    with pytest.raises(ShareError, match="answered already"):
        await world.of().answer(agent.id, second.id, "once")
    other = await world.start("Do [scenario:ask]", permission={"bash": "ask"})
    await world.until(other, AgentStatus.BLOCKED)
    (asked,) = await world.of().approvals(other.id)
    await world.of().answer(other.id, asked.id, "reject", "not today")
    await world.settled(other)
    with pytest.raises(ShareError):
        await world.workspaces_of().files(other.workspace).read("permitted.txt")
    await same_as_opencode(world, other)


async def another(world, agent, request_id):
    return [each for each in await world.of().approvals(agent.id) if each.id != request_id]


async def test_a_question_is_answered(world):
    agent = await world.start("Ask [scenario:question]", permission={"question": "allow"})
    await world.until(agent, AgentStatus.BLOCKED)
    (question,) = await world.of().approvals(agent.id)
    assert question.kind == "question"
    await world.of().answer(agent.id, question.id, [["Blue"]])
    await world.settled(agent)
    assert any("Blue" in str(each) for each in await world.items(agent))
    await same_as_opencode(world, agent)


async def test_a_sub_agent_is_a_share_of_its_own(world):
    agent = await world.start("Have it done [scenario:task]")
    await world.settled(agent)
    (child,) = await world.of().children(agent.id)
    assert child.parent == agent.id
    assert "Hello from the scripted model." in text_of(await world.items(child))
    assert [each.id for each in (await world.of().list()).agents] == [agent.id]
    await same_as_opencode(world, agent)
    await same_as_opencode(world, child)


async def test_an_abort_in_a_tool_lets_the_queue_go_on(world):
    agent = await world.start("Wait [scenario:slow]")
    files = world.workspaces_of().files(agent.workspace)
    await eventually(lambda: exists(files, "slow.txt"))
    sent = [await world.of().send(agent.id, f"Then {number} [scenario:hello]") for number in range(3)]
    assert len(await world.of().queue(agent.id)) == 4
    assert await world.of().unqueue(agent.id, sent[1].id)
    await world.of().abort(agent.id)
    done = await world.settled(agent)
    assert done.spent.turns == 3
    assert [each for each in world.model.prompts() if "Then" in each] == [
        "Then 0 [scenario:hello]",
        "Then 2 [scenario:hello]",
    ]
    assert (await files.read("slow.txt")).content == "began\n"
    await same_as_opencode(world, agent)


async def exists(files, path: str) -> bool:
    try:
        await files.read(path)
    except ShareError:
        return False
    return True


async def test_a_message_steers_a_turn_under_way(world):
    world.model.delay = 0.01
    agent = await world.start("Do much [scenario:edit]")
    await world.until(agent, AgentStatus.RUNNING)
    await world.of().send(agent.id, "But stop soon [scenario:hello]", delivery="steer")
    done = await world.settled(agent)
    assert any("But stop soon" in each for each in world.model.prompts())
    assert done.status is AgentStatus.IDLE
    await same_as_opencode(world, agent)


async def test_a_fork_has_the_transcript_and_goes_its_own_way(world):
    agent = await world.start("One [scenario:hello]")
    await world.settled(agent)
    forked = await world.of().fork(agent.id)
    assert forked.id != agent.id
    await world.of().send(forked.id, "Two [scenario:hello]")
    await world.settled(forked)
    texts = text_of(await world.items(forked))
    assert "One [scenario:hello]" in texts
    assert "Two [scenario:hello]" in texts
    assert "Two [scenario:hello]" not in text_of(await world.items(agent))
    await same_as_opencode(world, forked)


async def test_a_fork_has_its_beginning_when_its_end_is_told_of_meanwhile(world, monkeypatch):
    agent = await world.start("One [scenario:hello]")
    await world.settled(agent)
    runner = world.services.node._runners[agent.workspace]
    told = []
    read = Opencode.history

    async def history(self, known):
        found = await read(self, known)
        last = next((each for each in reversed(found) if each.session in known), None)
        if last is not None and last.session != agent.id:
            told.append(asyncio.create_task(runner._take(runner._process, last)))
            await asyncio.sleep(0.2)
        return found

    monkeypatch.setattr(Opencode, "history", history)
    forked = await world.of().fork(agent.id)
    assert told
    await asyncio.gather(*told)
    await eventually(lambda: has_text(world, forked, "One [scenario:hello]"))
    await same_as_opencode(world, forked)


async def has_text(world, agent, text) -> bool:
    return text in text_of(await world.items(agent))


async def test_a_revert_takes_back_what_a_turn_did_to_files(world):
    agent = await world.start("Edit [scenario:edit]")
    await world.settled(agent)
    messages = [each["data"] for each in await world.items(agent) if each["type"] == "message"]
    message = next(each for each in messages if each["role"] == "user")
    files = world.workspaces_of().files(agent.workspace)
    assert await exists(files, "app.py")
    await world.of().revert(agent.id, message["id"])
    session = next(each for each in await world.items(agent) if each["type"] == "session")
    assert session["data"]["revert"]["messageID"] == message["id"]
    await world.of().unrevert(agent.id)
    session = next(each for each in await world.items(agent) if each["type"] == "session")
    assert "revert" not in session["data"]


async def test_an_idle_process_is_stopped_and_a_message_wakes_it(tmp_path, model):
    async with World(tmp_path, model, agents_idle_timeout=1.0) as world:
        agent = await world.start("One [scenario:hello]")
        await world.settled(agent)
        await eventually(lambda: has_stopped(world, agent))
        await world.of().send(agent.id, "Two [scenario:hello]")
        await world.settled(agent)
        texts = text_of(await world.items(agent))
        assert texts.index("One") < texts.index("Two")


async def has_stopped(world, _agent) -> bool:
    return world.services.node.processes == 0


async def test_a_terminated_agent_takes_nothing_and_keeps_its_transcript(world):
    agent = await world.start("Wait [scenario:slow]")
    await eventually(lambda: exists(world.workspaces_of().files(agent.workspace), "slow.txt"))
    await world.of().terminate(agent.id)
    with pytest.raises(ShareError) as caught:
        await world.of().send(agent.id, "More")
    assert caught.value.code is ErrorCode.SESSION_TERMINATED
    await eventually(lambda: has_stopped(world, agent))
    assert "Wait [scenario:slow]" in text_of(await world.items(agent))


async def test_a_killed_process_interrupts_its_turn_and_a_message_goes_on(world):
    agent = await world.start("Wait [scenario:slow]")
    files = world.workspaces_of().files(agent.workspace)
    await eventually(lambda: exists(files, "slow.txt"))
    await world.runner(agent)._process.sandbox.terminate(grace=0)
    stopped = await world.until(agent, AgentStatus.INTERRUPTED)
    assert stopped.error
    await world.of().send(agent.id, "Go on [scenario:hello]")
    await world.settled(agent)
    parts = [each["data"] for each in await world.items(agent) if each["type"] == "part"]
    assert [each["state"]["status"] for each in parts if each["type"] == "tool"] == ["error"]
    await same_as_opencode(world, agent)


async def test_a_budget_pauses_the_agent_that_has_spent_it(world):
    agent = await world.start("One [scenario:edit]", budget={"tokens": 1500})
    paused = await world.until(agent, AgentStatus.PAUSED)
    assert "1,500 tokens" in (paused.error or "")
    asked = len(world.model.asked)
    await world.of().send(agent.id, "Two [scenario:hello]")
    assert len(await world.of().queue(agent.id)) >= 1
    with pytest.raises(ShareError, match="larger"):
        await world.of().resume(agent.id)
    assert len(world.model.asked) == asked
    await world.of().resume(agent.id, {"tokens": 1_000_000})
    await world.settled(agent)
    assert any("Two" in each for each in world.model.prompts())


async def test_a_provider_that_refuses_ends_the_turn_with_its_reason(world):
    agent = await world.start("No [scenario:refused]")
    done = await world.until(agent, AgentStatus.IDLE)
    assert "refused by the script" in (done.error or "")
    await world.of().send(agent.id, "Yes [scenario:hello]")
    assert (await world.settled(agent)).error is None


async def test_an_opencode_that_is_not_there_is_said_by_a_sentence(tmp_path, model):
    async with World(tmp_path, model, opencode_bin=tmp_path / "nowhere") as world:
        with pytest.raises(ShareError, match="nowhere cannot be run: No such file") as caught:
            await world.start("One")
        assert caught.value.code is ErrorCode.CONTAINER_START_FAILED


async def test_one_that_dies_at_its_start_fails_the_agent_with_its_last_words(tmp_path, model):
    program = tmp_path / "opencode"
    shutil.copy("/bin/bash", program)  # which says a version, 5: so a small program stands in its way
    async with World(tmp_path, model) as world:

        async def found(_wanted: object) -> OpencodeBinary:
            return OpencodeBinary(program, "1.0.0")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(OpencodeBinary, "find", found)
            agent = await world.start("One")
            failed = await world.until(agent, AgentStatus.FAILED)
        assert "opencode has ended at its start" in (failed.error or "")
        assert "serve" in (failed.error or "")
        with pytest.raises(ShareError) as caught:
            await world.of().send(agent.id, "Two")
        assert caught.value.code is ErrorCode.CONTAINER_START_FAILED
        assert await has_stopped(world, agent)
