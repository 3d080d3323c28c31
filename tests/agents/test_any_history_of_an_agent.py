"""Whatever happens to an agent and to its share, and wherever a reader is cut off, it has all of it once."""

import asyncio
import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from rpcshare.shares import Credentials, ShareService
from rpcshare.storage import MemoryStore
from support.agents_in_process import AgentWorld

ALICE = Caller("alice", frozenset({Scope.CREATE}))

steps = st.lists(
    st.tuples(st.just("sync"), st.integers(1, 90))
    | st.tuples(st.just("event"), st.integers(1, 5) | st.just(300))
    | st.tuples(st.just("read"), st.integers(1, 120))
    | st.tuples(st.just("come back"), st.integers(0, 3)),
    max_size=12,
)


class Idle:
    """Does nothing, so that nothing happens but what the steps say."""

    def wake(self, workspace):
        pass

    async def call(self, agent, name, arguments):
        raise AssertionError(name)


class Reader:
    """Reads, is cut off, and comes back with the last cursor that it has seen."""

    def __init__(self, world, agent_id):
        self.world, self.agent_id = world, agent_id
        self.cursor = None
        self.numbers = []
        self.parts = {}
        self.syncs = 0
        self.events: Any = None

    async def open(self):
        self.events = await self.world.of(ALICE).watch(self.agent_id, self.cursor)

    def close(self):
        self.events.close()

    def take(self, event):
        value = event.value
        self.cursor = value["cursor"]
        if value["type"] == "file":
            self.numbers.append(value["number"])
        if value["type"] == "snapshot":
            self.parts = {}
        if value["type"] in ("snapshot", "sync"):
            assert value["syncCount"] >= self.syncs
            assert value["type"] == "snapshot" or value["syncCount"] > self.syncs
            self.syncs = value["syncCount"]
            self.parts |= {
                item["data"]["id"]: item["data"]["text"] for item in value["data"] if item["type"] == "part"
            }

    async def read(self, most):
        for _ in range(most):
            event = self.events.take()
            if event is None:
                return
            self.take(event)

    async def read_all(self, numbers, syncs):
        async with asyncio.timeout(20):
            while len(self.numbers) < numbers or self.syncs < syncs:
                self.take(await anext(self.events))


def tell(number, edit):
    edit.event("file", number=number)


async def run(taken):
    with tempfile.TemporaryDirectory() as folder:
        database = await Database.open(parse_location(f"sqlite:///{folder}/records.sqlite3"), schema=RECORDS)
        service = ShareService(
            MemoryStore(), LocalBroadcaster(), Credentials(uuid.UUID(int=1), "https://share.example")
        )
        world = AgentWorld(database, service, Path(folder))
        world.services.node = Idle()
        agent = await world.start(ALICE)
        reader = Reader(world, agent.id)
        await reader.open()
        parts, numbers, syncs = {}, 0, 1
        for step, count in taken:
            if step == "sync":
                for _ in range(count):
                    syncs += 1
                    parts[f"p{syncs % 7}"] = str(syncs)
                    part = {"id": f"p{syncs % 7}", "messageID": "m", "text": str(syncs)}
                    await service.sync(ALICE, agent.share_id, None, [{"type": "part", "data": part}])
            elif step == "event":
                for _ in range(count):
                    numbers += 1
                    await world.agents.edit(agent.id, partial(tell, numbers))
            elif step == "read":
                await reader.read(count)
            else:
                reader.close()
                if reader.cursor is None:  # what has happened is in the status that comes first
                    reader.numbers = list(range(1, numbers + 1))
                await reader.open()
        await reader.read_all(numbers, syncs)
        assert reader.numbers == list(range(1, numbers + 1))
        assert reader.parts == parts
        reader.close()
        assert len(world.agents.feeds) == 0
        await world.node.close()
        await service.close()
        await database.close()


@pytest.fixture(autouse=True)
def _all_events_are_kept(monkeypatch):
    monkeypatch.setattr("rpcshare.agents.agent_edit.KEPT_EVENTS", 100_000)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
@pytest.mark.slow
def test_a_reader_has_each_event_once_and_the_newest_of_the_transcript(taken):
    asyncio.run(run(taken))
