"""What a process in a sandbox tells is its own: it changes nothing of others, and holds nobody up."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from agents.hostile_opencode import HostileWorld
from agents.real_agents import eventually
from rpcshare.agents.agent import AgentStatus
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
