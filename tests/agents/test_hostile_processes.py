"""What a process in a sandbox tells is its own: it changes nothing of others, and holds nobody up."""

import asyncio
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from agents.hostile_opencode import HostileOpencode, HostileWorld
from agents.real_agents import eventually
from rpcshare.agents.agent import AgentStatus
from rpcshare.agents.agent_calls import AgentCalls
from rpcshare.agents.opencode.client import Opencode, OpencodeError
from rpcshare.agents.transcript import AGENTS
from rpcshare.auth.caller import Caller, Scope
from rpcshare.workspaces.workspaces import Reach

ALICE = Caller("alice", frozenset({Scope.CREATE}), source="key")
MALLORY = Caller("mallory", frozenset({Scope.CREATE}), source="key")


@pytest.fixture
async def hostile(world, tmp_path) -> AsyncIterator[HostileWorld]:
    made = HostileWorld(world.agents, world.shares, world.workspaces, tmp_path)
    world.services.node = made.node
    yield made
    await made.node.close()


async def items_of(world, share_id):
    return msgspec.json.decode(await world.shares.sync_data(AGENTS, share_id))


def message(session_id: str, text: str) -> dict:
    return {"info": {"id": "msg_1", "sessionID": session_id, "role": "user", "text": text}}


async def told(hostile, process, agent) -> None:
    """Return once all that was told has been taken: what is told in order is taken in order."""
    marker = f"marker{len(process.asked)}"
    process.tell("session.updated", {"sessionID": agent.id, "info": {"id": agent.id, "title": marker}})

    async def is_taken() -> bool:
        return (await hostile.agents.find(agent.id, Reach((), is_all=True))).title == marker

    await eventually(is_taken, 20)


async def test_a_process_cannot_take_over_an_agent_of_another_workspace(world, hostile):
    victim = await world.start(ALICE)
    await hostile.runs(victim)
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    before = await items_of(world, victim.share_id)
    process.tell_sync(
        "session.created", victim.id, 0, {"info": {"id": victim.id, "parentID": own.id, "title": "mine"}}
    )
    process.tell("session.created", {"sessionID": victim.id, "info": {"id": victim.id, "parentID": own.id}})
    process.tell_sync("message.updated", victim.id, 5, message(victim.id, "pwned"))
    process.tell("permission.asked", {"sessionID": victim.id, "id": "per_1", "permission": "bash"})
    process.tell("session.updated", {"sessionID": victim.id, "info": {"id": victim.id, "title": "pwned"}})
    await told(hostile, process, own)
    assert await items_of(world, victim.share_id) == before
    now = await world.agents.find(victim.id, Reach((), is_all=True))
    assert (now.title, now.status) == (victim.title, AgentStatus.IDLE)


async def test_a_process_cannot_write_into_a_share_that_its_owner_has_made_elsewhere(world, hostile):
    share = await world.shares.create(
        MALLORY, "ses_private", [{"type": "session", "data": {"id": "ses_private", "title": "Diary"}}]
    )
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    before = await items_of(world, share.id)
    info = {"id": "ses_private", "parentID": own.id, "title": "pwned"}
    process.tell_sync("session.created", "ses_private", 0, {"info": info})
    process.tell_sync("message.updated", "ses_private", 5, message("ses_private", "pwned"))
    await told(hostile, process, own)
    assert await items_of(world, share.id) == before


async def test_a_compressed_answer_is_not_unpacked(tmp_path):
    unpacked = 64 * 2**20
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = packer.compress(bytes(unpacked)) + packer.flush()
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    process = await HostileOpencode(tmp_path / "o.sock").start()
    process.answers["/vcs/diff"] = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    async with Opencode(process.socket_path, "password") as opencode:
        tracemalloc.start()
        try:
            with pytest.raises(OpencodeError, match="compressed"):
                await opencode.diff()
            assert tracemalloc.get_traced_memory()[1] < unpacked / 8
        finally:
            tracemalloc.stop()
    await process.terminate()


async def test_an_answer_of_millions_of_values_is_not_decoded(tmp_path):
    process = await HostileOpencode(tmp_path / "o.sock").start()
    body = b"[" + b"{}," * 2_000_000 + b"{}]"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    process.answers["/vcs/diff"] = head.encode() + body
    async with Opencode(process.socket_path, "password") as opencode:
        with pytest.raises(OpencodeError, match="values"):
            await opencode.diff()
    await process.terminate()


async def test_what_cannot_be_shown_is_rejected(world, hostile):
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    process.tell("permission.asked", {"sessionID": own.id, "id": "per_1", "metadata": "x" * 2**21})
    process.tell("question.asked", {"sessionID": own.id, "id": "que_1", "questions": ["x" * 2**21]})
    process.tell("permission.asked", {"sessionID": own.id, "id": "x" * 101})
    process.tell("permission.asked", {"sessionID": own.id, "id": "per\0"})
    await told(hostile, process, own)
    assert not await world.agents.requests(own.id)
    assert {"POST /permission/per_1/reply", "POST /question/que_1/reject"} <= set(process.asked)


async def test_a_flood_of_requests_is_bounded_in_what_waits_and_in_what_is_kept(world, hostile):
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    for number in range(300):
        process.tell("permission.asked", {"sessionID": own.id, "id": f"per_{number}"})
    await told(hostile, process, own)
    assert len(await world.agents.requests(own.id)) == 200


async def test_titles_and_paths_and_numbers_have_bounds(world, hostile):
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    title = {"id": own.id, "title": "sk-aaaaaaaaaaaaaaaaaaaa \0" * 200_000}
    began = time.monotonic()
    process.tell("session.updated", {"sessionID": own.id, "info": title})
    process.tell("file.edited", {"sessionID": own.id, "file": "x" * 2**20})
    process.tell_sync("message.updated", own.id, 10**30, message(own.id, "too far"))
    await told(hostile, process, own)
    assert time.monotonic() - began < 5
    (event,) = [each for each in (await world.agents.events(own.id, 0)).events if each.type == "file"]
    assert len(event.data["path"]) == 4096
    assert "too far" not in str(await items_of(world, own.share_id))


async def test_text_without_end_is_bounded(world, hostile):
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    part = {"id": "prt_1", "messageID": "msg_1", "sessionID": own.id, "type": "text", "text": ""}
    process.tell_sync("message.updated", own.id, 1, message(own.id, "hi"))
    process.tell_sync("message.part.updated", own.id, 2, {"part": part})
    delta = {"sessionID": own.id, "partID": "prt_1", "field": "text", "delta": "x" * 10_000}
    for _ in range(500):
        process.tell("message.part.delta", delta)
    process.tell("message.part.delta", {**delta, "field": "id"})
    await told(hostile, process, own)
    (written,) = hostile.node._runners[own.workspace].session(own.id).transcript._written.values()
    assert len(written["text"]) <= 2**20
    assert written["id"] == "prt_1"


async def test_what_is_told_faster_than_it_is_written_waits(world, hostile, monkeypatch):
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    is_slow, sync = asyncio.Event(), world.shares.sync

    async def slow(*args: object) -> int:
        await is_slow.wait()
        return await sync(*args)

    monkeypatch.setattr(world.shares, "sync", slow)
    for number in range(40):
        part = {"id": f"prt_{number}", "messageID": "msg_1", "type": "file", "text": "x" * 2**20}
        process.tell_sync("message.part.updated", own.id, number, {"part": part})
    transcript = hostile.node._runners[own.workspace].session(own.id).transcript

    async def is_full() -> bool:
        return not transcript._has_room.is_set()

    await eventually(is_full, 20)
    assert len(transcript._waiting) <= 10
    is_slow.set()
    await told(hostile, process, own)
    await transcript.flush()
    assert len(await items_of(world, own.share_id)) == 41


async def test_a_process_that_does_not_answer_keeps_no_leases_from_being_prolonged(world, hostile):
    own = await world.start(MALLORY)
    process = await hostile.runs(own)
    is_over = asyncio.Event()

    async def never(writer: asyncio.StreamWriter) -> None:
        del writer
        await is_over.wait()

    process.answers["/vcs/diff"] = never
    world.agents.is_shared = True
    asking = asyncio.create_task(AgentCalls(world.agents).ask(own, "diff", {}))

    async def is_asked() -> bool:
        await asyncio.wait_for(hostile.node._look(), 2)
        return "GET /vcs/diff" in process.asked

    await eventually(is_asked, 20)
    await asyncio.wait_for(hostile.node._look(), 2)
    asking.cancel()
    is_over.set()
