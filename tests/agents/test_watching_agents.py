"""Watching agents: what comes first, in what order, behind which cursor, and how it ends."""

import asyncio

import pytest

from rpcshare.agents.agents import Agents
from rpcshare.auth.caller import Caller, CallerUser, Role
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.subject_sources import user_source
from rpcshare.errors import ErrorCode, ShareError
from support.agents_in_process import NODE

pytestmark = pytest.mark.slow


def user(name: str, organization: str = "acme", role: Role = Role.MEMBER) -> Caller:
    who = CallerUser(f"usr_{name}", organization, role)
    return Caller(subject=who.id, scopes=role.scopes, user=who, source=user_source(organization))


ALICE, BOB, EVE = user("alice"), user("bob"), user("eve", "other")
VIEWER, ADMIN = user("vera", role=Role.VIEWER), user("ada", role=Role.ADMIN)


async def until(events, is_last, limit=20):
    """Return the events as values, up to the first that is the last one."""
    found = []
    async with asyncio.timeout(limit):
        async for event in events:
            found.append(event.value)
            if is_last(event.value):
                return found
    return found


def turn_ended(event):
    return (event["type"], event.get("state")) == ("turn", "ended")


def is_idle(event):
    return (event["type"], event.get("status")) == ("status", "idle")


def texts(events):
    return [
        item["data"]["text"]
        for event in events
        if event["type"] in ("snapshot", "sync")
        for item in event["data"]
        if item["type"] == "part" and "text" in item["data"]
    ]


async def test_status_comes_first_and_then_the_transcript_and_what_happens(world):
    agent = await world.start(ALICE, "hello")
    async with await world.of(ALICE).watch(agent.id) as events:
        seen = await until(events, is_idle)
    assert [event["type"] for event in seen[:2]] == ["status", "snapshot"]
    assert texts(seen)[-1] == "you said hello"
    kinds = [event["type"] for event in seen]
    assert kinds.index("turn") < len(kinds) - 1
    assert all(event["cursor"] for event in seen)


async def test_what_a_turn_says_comes_before_its_end(world):
    agent = await world.start(ALICE)
    async with await world.of(ALICE).watch(agent.id) as events:
        await world.of(ALICE).send(agent.id, "say 40")
        seen = await until(events, turn_ended)
    assert texts(seen)[-1].count("word") == 40


async def test_a_reader_who_has_fallen_behind_still_has_what_a_turn_says_before_its_end(world):
    agent = await world.start(ALICE)
    async with await world.of(ALICE).watch(agent.id) as events:
        await until(events, is_idle)
        await world.of(ALICE).send(agent.id, "say 150")
        async with await world.of(ALICE).watch(agent.id) as others:
            await until(others, turn_ended)
        seen = await until(events, turn_ended)
    assert texts(seen)[-1].count("word") == 150


async def test_from_any_cursor_on_the_agents_events_go_on_with_the_next(world):
    agent = await world.start(ALICE, "hello")
    async with await world.of(ALICE).watch(agent.id) as events:
        seen = await until(events, is_idle)
    last = int(seen[-1]["cursor"].partition(".")[2])
    for event in seen:
        number = int(event["cursor"].partition(".")[2])
        async with await world.of(ALICE).watch(agent.id, event["cursor"]) as events:
            await world.agents.edit(agent.id, lambda edit: edit.event("file", path="a"))
            last += 1
            later = await until(events, lambda each, end=f".{last}": each["cursor"].endswith(end))
        own = [each for each in later if each["type"] not in ("snapshot", "sync")]
        assert [int(each["cursor"].partition(".")[2]) for each in own] == list(range(number + 1, last + 1))


async def test_asking_ends_with_its_own_turn(world):
    agent = await world.start(ALICE)
    await world.of(ALICE).send(agent.id, "hello first")
    sent, events = await world.of(ALICE).ask(agent.id, "say 3")
    await world.of(ALICE).send(agent.id, "hello last")
    seen = await until(events, lambda _: False)
    ended = [event for event in seen if turn_ended(event)]
    assert ended[-1]["messageID"] == sent.id
    assert seen[-1] is ended[-1]
    assert "word word word " in texts(seen)
    assert len(world.agents.feeds) == 0


async def test_a_cursor_of_the_future_begins_anew(world):
    agent = await world.start(ALICE)
    async with await world.of(ALICE).watch(agent.id, "999999.999999") as events:
        seen = await until(events, lambda each: each["type"] == "snapshot")
    assert (seen[0]["type"], seen[0]["cursor"].partition(".")[0]) == ("status", "")


async def test_a_reader_behind_more_than_is_kept_begins_anew_with_what_is_asked(world, monkeypatch):
    monkeypatch.setattr("rpcshare.agents.agent_edit.KEPT_EVENTS", 10)
    agent = await world.start(ALICE, "ask")
    async with await world.of(ALICE).watch(agent.id) as events:
        seen = await until(events, lambda each: each["type"] == "approval")
        for number in range(300):
            await world.agents.edit(agent.id, lambda edit, n=number: edit.event("file", path=str(n)))
        seen = await until(events, lambda each: each["type"] == "approval")
        assert [each["type"] for each in seen[-2:]] == ["status", "approval"]
        await world.agents.edit(agent.id, lambda edit: edit.event("file", path="last"))
        seen = await until(events, lambda each: each["type"] == "file")
        assert [each["path"] for each in seen] == ["last"]
    async with await world.of(ALICE).watch(agent.id, "0.3") as events:
        seen = await until(events, lambda each: each["type"] == "approval")
    assert [each["type"] for each in seen[-2:]] == ["status", "approval"]


async def test_one_agent_is_read_once_for_fifty_who_watch_it(world, monkeypatch):
    agent = await world.start(ALICE)
    reads = []
    original = Agents.events

    async def counted(self, agent_id, after):
        reads.append(after)
        return await original(self, agent_id, after)

    async with asyncio.TaskGroup() as group:
        watched = [await world.of(ALICE).watch(agent.id) for _ in range(50)]
        for each in watched:
            await until(each, is_idle)
        monkeypatch.setattr(Agents, "events", counted)
        await world.of(ALICE).send(agent.id, "say 5")
        ends = [group.create_task(until(each, turn_ended)) for each in watched]
    assert all(end.result()[-1]["type"] == "turn" for end in ends)
    assert len(reads) < 20
    for each in watched:
        each.close()
    assert len(world.agents.feeds) == 0


async def test_the_end_of_a_credential_is_the_end_of_what_it_watches(world):
    agent = await world.start(ALICE)
    validity = CredentialValidity()
    caller = Caller(
        subject=ALICE.subject, scopes=ALICE.scopes, user=ALICE.user, source=ALICE.source, standing=validity
    )
    async with await world.of(caller).watch(agent.id) as events:
        await until(events, is_idle)
        validity.end()
        with pytest.raises(ShareError) as caught:
            await until(events, lambda _: False)
    assert caught.value.code is ErrorCode.UNAUTHORIZED
    assert len(world.agents.feeds) == 0


async def test_nobody_else_watches(world):
    agent = await world.start(ALICE)
    for caller, code in (
        (BOB, ErrorCode.SESSION_NOT_FOUND),
        (EVE, ErrorCode.SESSION_NOT_FOUND),
        (VIEWER, ErrorCode.FORBIDDEN),
    ):
        with pytest.raises(ShareError) as caught:
            await world.of(caller).watch(agent.id)
        assert caught.value.code is code
    (await world.of(ADMIN).watch(agent.id)).close()
    (await world.of(NODE).watch(agent.id)).close()


async def test_without_its_share_an_agent_is_watched_all_the_same(world):
    agent = await world.start(ALICE)
    async with await world.of(ALICE).watch(agent.id) as events:
        await until(events, is_idle)
        await world.shares.delete(ALICE, agent.share_id, None)
        await world.of(ALICE).pause(agent.id)
        seen = await until(events, lambda each: each.get("status") == "paused")
    async with await world.of(ALICE).watch(agent.id) as events:
        seen += await until(events, lambda each: each.get("status") == "paused")
    assert "deleted" in {each["type"] for each in seen}


@pytest.mark.parametrize("cursor", ["", "x", "1", ".", "-1.2", "1.2.3", "1.²", 5, "1" * 16 + ".1", "1.1\0"])
async def test_a_cursor_that_is_none_is_refused(world, cursor):
    agent = await world.start(ALICE)
    if cursor == ".":
        (await world.of(ALICE).watch(agent.id, cursor)).close()
        return
    with pytest.raises(ShareError, match="cursor"):
        await world.of(ALICE).watch(agent.id, cursor)


async def test_a_reader_that_stalls_has_what_waits_merged_and_holds_up_nobody(world):
    agent = await world.start(ALICE)
    stalled = await world.of(ALICE).watch(agent.id)
    async with await world.of(ALICE).watch(agent.id) as quick:
        await world.of(ALICE).send(agent.id, "say 400")
        await until(quick, turn_ended)
    assert len(stalled._share._events) <= 66
    seen = await until(stalled, turn_ended)
    assert len([each for each in seen if each["type"] == "sync"]) < 100
    assert texts(seen)[-1].count("word") == 400
    stalled.close()


async def test_events_are_encoded_once_for_all_who_are_at_the_same_place(world):
    agent = await world.start(ALICE)
    watched = [await world.of(ALICE).watch(agent.id) for _ in range(3)]
    for each in watched:
        await until(each, is_idle)

    async def four(events):
        return [await anext(events) for _ in range(4)]

    found = [asyncio.ensure_future(four(each)) for each in watched]
    await asyncio.sleep(0)
    await world.of(ALICE).send(agent.id, "hello")
    found = await asyncio.gather(*found)
    made: dict = {}
    for event in (each for events in found for each in events if each.value["type"] in ("sync", "turn")):
        assert made.setdefault(event.value["cursor"], event) is event
    for each in watched:
        each.close()


async def test_what_happens_while_a_watcher_finds_out_where_it_begins_is_not_missed(world, monkeypatch):
    agent = await world.start(ALICE, "hang")
    original = Agents.state_of

    async def overtaken(self, agent_id):
        found = await original(self, agent_id)
        await self.edit(agent_id, lambda edit: edit.event("file", path="meanwhile"))
        return found

    async with await world.of(ALICE).watch(agent.id) as events:
        await until(events, lambda each: each.get("state") == "started")
    monkeypatch.setattr(Agents, "state_of", overtaken)
    async with await world.of(ALICE).watch(agent.id) as events:
        seen = await until(events, lambda each: each["type"] == "file")
    assert [each["type"] for each in seen if each["type"] in ("status", "file")] == ["status", "file"]
