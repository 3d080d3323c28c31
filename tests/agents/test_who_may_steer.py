"""Who may steer an agent, and what is answered once however many answer."""

import asyncio

import pytest

from agents.test_watching_agents import ADMIN, ALICE, BOB, EVE, VIEWER, until, user
from rpcshare.agents.agent import MessageState
from rpcshare.agents.caller_agents import answer_request
from rpcshare.auth.caller import ANONYMOUS, Caller, Role, Scope
from rpcshare.errors import ErrorCode, ShareError

pytestmark = pytest.mark.slow

READER = Caller("rita", frozenset({Scope.READ}), source="key")


async def code_of(work):
    try:
        await work
    except ShareError as exc:
        return exc.code
    return None


def steering(agents, agent_id):
    """Return what steers an agent, or reads it: by name, each ready to be awaited."""
    return {
        "get": lambda: agents.get(agent_id),
        "send": lambda: agents.send(agent_id, "hello"),
        "ask": lambda: agents.ask(agent_id, "hello"),
        "command": lambda: agents.command(agent_id, "init"),
        "queue": lambda: agents.queue(agent_id),
        "unqueue": lambda: agents.unqueue(agent_id, "msg_0"),
        "watch": lambda: agents.watch(agent_id),
        "approvals": lambda: agents.approvals(agent_id),
        "answer": lambda: agents.answer(agent_id, "per_0", "once"),
        "link": lambda: agents.link(agent_id, "per_0"),
        "abort": lambda: agents.abort(agent_id),
        "pause": lambda: agents.pause(agent_id),
        "resume": lambda: agents.resume(agent_id),
        "fork": lambda: agents.fork(agent_id),
        "revert": lambda: agents.revert(agent_id, "msg_0"),
        "unrevert": lambda: agents.unrevert(agent_id),
        "diff": lambda: agents.diff(agent_id),
        "todo": lambda: agents.todo(agent_id),
        "files": lambda: agents.files(agent_id),
        "terminate": lambda: agents.terminate(agent_id),
    }


@pytest.mark.parametrize(
    ("caller", "code"),
    [
        (BOB, ErrorCode.SESSION_NOT_FOUND),
        (EVE, ErrorCode.SESSION_NOT_FOUND),
        (user("eva", "other", Role.ADMIN), ErrorCode.SESSION_NOT_FOUND),
        (VIEWER, ErrorCode.FORBIDDEN),
        (READER, ErrorCode.FORBIDDEN),
        (ANONYMOUS, ErrorCode.UNAUTHORIZED),
    ],
    ids=["colleague", "other organization", "admin of another", "viewer", "scope read", "nobody"],
)
async def test_others_may_do_nothing_with_an_agent(world, caller, code):
    agent = await world.start(ALICE)
    agents = world.of(caller)
    found = {name: await code_of(call()) for name, call in steering(agents, agent.id).items()}
    assert found == dict.fromkeys(found, code)
    if caller in (BOB, EVE):
        assert (await agents.list()).agents == []


async def test_the_secret_of_its_share_is_no_right_to_an_agent(world):
    agent = await world.start(ALICE)
    secret = (await world.shares.create(ALICE, agent.id)).secret
    await world.shares.check_write(BOB, agent.share_id, secret)  # it is the right one
    assert await code_of(world.of(BOB).send(agent.id, "hello")) is ErrorCode.SESSION_NOT_FOUND


async def test_an_admin_of_the_organization_has_its_agents_in_hand(world):
    agent = await world.start(ALICE)
    assert [each.id for each in (await world.of(ADMIN).list()).agents] == [agent.id]
    await world.of(ADMIN).pause(agent.id)
    await world.of(ADMIN).terminate(agent.id)


async def asked(world, prompt="ask"):
    agent = await world.start(ALICE, prompt)
    async with await world.of(ALICE).watch(agent.id) as events:
        await until(events, lambda each: each["type"] in ("approval", "question"))
    [request] = await world.of(ALICE).approvals(agent.id)
    return agent, request


async def test_of_many_answers_at_once_one_counts(world):
    agent, request = await asked(world)
    answers = ["once", "reject"] * 10
    codes = await asyncio.gather(
        *(code_of(world.of(ALICE).answer(agent.id, request.id, each)) for each in answers)
    )
    assert sorted(codes, key=str) == [ErrorCode.INVALID_ARGUMENT] * 19 + [None]


async def test_an_abort_withdraws_what_is_asked(world):
    agent, request = await asked(world)
    async with await world.of(ALICE).watch(agent.id) as events:
        await world.of(ALICE).abort(agent.id)
        seen = await until(events, lambda each: each.get("state") == "withdrawn")
    assert seen[-1]["id"] == request.id
    assert await world.of(ALICE).approvals(agent.id) == []
    with pytest.raises(ShareError, match="withdrawn"):
        await world.of(ALICE).answer(agent.id, request.id, "once")


async def test_a_link_answers_its_own_request_once_and_within_its_time(records, world, monkeypatch):
    agent, request = await asked(world)
    other, _ = await asked(world, "question")
    token = (await world.of(ALICE).link(agent.id, request.id)).url.rpartition("/")[2]
    found = await world.agents.linked_request(token)
    assert found is not None
    assert (found[0].id, found[1].id) == (request.id, agent.id)
    assert (
        await code_of(answer_request(world.services, other.id, request.id, "once", None, "link"))
        is ErrorCode.INVALID_ARGUMENT
    )
    await answer_request(world.services, found[1].id, found[0].id, "once", None, "link")
    assert (
        await code_of(answer_request(world.services, found[1].id, found[0].id, "once", None, "link"))
        is ErrorCode.INVALID_ARGUMENT
    )
    assert await code_of(world.of(ALICE).link(agent.id, request.id)) is ErrorCode.INVALID_ARGUMENT
    assert await world.agents.linked_request("x" * 32) is None
    later = world.agents.now() + 25 * 3_600_000
    monkeypatch.setattr(world.agents, "now", lambda: later)
    assert await world.agents.linked_request(token) is None


async def test_a_message_sent_again_with_its_id_is_the_same_message(world):
    agent = await world.start(ALICE)
    await world.of(ALICE).pause(agent.id)
    sent = await asyncio.gather(
        *(world.of(ALICE).send(agent.id, "hello", message_id="msg_1") for _ in range(10))
    )
    assert {each.id for each in sent} == {"msg_1"}
    assert len(await world.agents.messages(agent.id, MessageState.QUEUED)) == 1


async def test_so_many_messages_wait_and_no_more(world):
    agent = await world.start(ALICE)
    await world.of(ALICE).pause(agent.id)
    for number in range(100):
        await world.of(ALICE).send(agent.id, f"hello {number}")
    with pytest.raises(ShareError) as caught:
        await world.of(ALICE).send(agent.id, "one more")
    assert caught.value.code is ErrorCode.RATE_LIMIT_EXCEEDED
    assert caught.value.retry_after is not None
