"""Some nodes write one share; messages between them are lost, repeated and late; answers of the store are
lost; nodes freeze, die, and are cut off; the log is compacted; the share is deleted.

Whatever happens, on a virtual clock and from one seed:

- Each sync is in the log at most once; once, if it was acknowledged, and then at the place that was told.
- The syncs of one caller are in the log in the order in which they were sent.
- Every subscriber sees the syncs of the log, in its order.
"""

import asyncio
import itertools
import json
import logging
import random
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import objects
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.context import LogSettings, NodeContext
from rpcshare.shares.delayed_deletes import DelayedDeletes
from rpcshare.shares.events import Deleted, Snapshot, Sync
from rpcshare.shares.journal import read_head
from rpcshare.shares.node_inbox import NodeInbox
from rpcshare.shares.objects import Head
from rpcshare.shares.open_share import OpenShare
from rpcshare.shares.syncdata import Kind, parse_batch
from rpcshare.shares.write_turns import WriteTurns
from rpcshare.storage import MemoryStore, StoreError
from support.items import part
from support.narrowing import not_none
from support.share_stores import WrappedStore
from support.virtual_time import VirtualTimeLoop

SHARE, GENERATION = "12345678", "a" * 16
LOG = objects.log_prefix(SHARE, GENERATION)
SYNCS = 12  # of each caller


@pytest.fixture(autouse=True)
def silent():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Store(WrappedStore):
    """A store as one node has it: far, unreliable, and sometimes cut off."""

    def __init__(self, world, inner):
        super().__init__(inner)
        self.world = world
        self.is_cut_off = False
        self.is_dead = False
        self.frozen = asyncio.Event()
        self.frozen.set()

    async def call(self, name, arguments, run):
        rng = self.world.random
        await asyncio.sleep(rng.uniform(0, self.world.distance))
        if self.is_cut_off or self.is_dead or rng.random() < self.world.failures:
            raise StoreError("cut off")
        try:
            result = await run()
        finally:
            await asyncio.sleep(rng.uniform(0, self.world.distance))
            await self.frozen.wait()
        if self.is_dead or rng.random() < self.world.failures:
            raise StoreError("the answer was lost")
        return result


class LogStore(MemoryStore):
    """Remembers what has been written to the log, by number."""

    def __init__(self):
        super().__init__()
        self.log: dict[int, bytes] = {}

    async def put(self, key, body, *, if_absent=False, if_match=None):
        etag = await super().put(key, body, if_absent=if_absent, if_match=if_match)
        if key.startswith(LOG) and if_absent:
            self.log[objects.number_of(key)] = body
        return etag


class Endpoint:
    """A broadcaster of one node."""

    def __init__(self, world):
        self.world = world
        self.is_deaf = False
        self.frozen = asyncio.Event()
        self.frozen.set()
        self.callbacks = {}

    async def publish(self, message):
        for other in self.world.endpoints:
            self.world.post(other, message.share_id, message)

    def send(self, node, message):
        self.world.sent[type(message).__name__] += 1
        for other in self.world.endpoints:
            if node in other.callbacks:
                self.world.post(other, node, message)
        return True

    def subscribe(self, topic, callback):
        self.callbacks[topic] = callback
        return lambda: self.callbacks.pop(topic, None)

    listen = subscribe

    async def check(self):
        pass

    async def close(self):
        self.callbacks.clear()

    async def deliver(self, delay, topic, message):
        await asyncio.sleep(delay)
        await self.frozen.wait()
        if not self.is_deaf and topic in self.callbacks:
            self.callbacks[topic](message)


class Observer:
    def log_changed(self, log, items, *, by_this_node):
        pass

    def access_changed(self, log):
        pass

    def log_ended(self, log):
        pass


class Node:
    """A share as one node has it open."""

    def __init__(self, world):
        self.store = Store(world, world.store)
        self.endpoint = Endpoint(world)
        world.endpoints.append(self.endpoint)
        self.context = NodeContext(
            self.store,
            self.endpoint,
            DelayedDeletes(world.settings.grace),
            world.settings,
            lambda: 1_700_000_000_000 + int(asyncio.get_running_loop().time() * 1000),
            Observer(),
            NodeInbox(self.endpoint),
            is_shared=True,
        )
        self.share: Any = None  # until it is opened
        self.readers = []

    async def open(self):
        while True:
            try:
                found = not_none(await read_head(self.store, SHARE))
                self.share = await OpenShare.open(self.context, SHARE, found)
            except StoreError:
                continue
            return

    def kill(self):
        self.store.is_dead = True
        self.endpoint.is_deaf = True
        self.endpoint.world.endpoints.remove(self.endpoint)


class World:
    def __init__(self, seed):
        self.random = rng = random.Random(seed)
        self.seed = seed
        self.store = LogStore()
        self.endpoints = []
        self.heard = []
        self.sent = {"SyncsForwarded": 0, "SyncsDeclined": 0, "EntryWritten": 0}
        self.tasks = set()
        self.distance = rng.choice([0.002, 0.015, 0.1])  # seconds to the store, at most, and back
        self.delay = rng.choice([0.001, 0.001, 0.02, 0.3])  # of a message
        self.failures = rng.choice([0.0, 0.0, 0.01, 0.05])  # of calls of the store
        self.losses = rng.choice([0.0, 0.0, 0.05, 0.4])  # of messages
        self.repeats = rng.choice([0.0, 0.1])
        self.settings = LogSettings(
            # Nothing may be relied on, or nearly all.
            trusted_for=rng.choice([0.0, 20.0, 20.0]),
            grace=60.0,
            entry_syncs=rng.choice([3, 500, 500]),
            compaction=CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=rng.choice([3, 2000])),
        )
        self.is_deleted = False

    def post(self, endpoint, topic, message):
        self.heard.append((endpoint, topic, message))
        for _ in range(1 + (self.random.random() < self.repeats)):
            if self.random.random() >= self.losses:
                self.later(endpoint.deliver(self.random.uniform(0, self.delay), topic, message))
        if self.random.random() < self.repeats:  # whoever controls the messages sends an old one again
            self.later(self.random.choice(self.heard)[0].deliver(0, *self.random.choice(self.heard)[1:]))

    def later(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run(self):
        rng = self.random
        head = Head(objects.VERSION, GENERATION, session_id="ses_12345678", created_at=1)
        await self.store.put(objects.head_key(SHARE), objects.encode_head(head), if_absent=True)
        nodes = [Node(self) for _ in range(rng.choice([2, 2, 3, 4]))]
        for node in nodes:
            await node.open()
            node.readers = [node.share.subscribe(None) for _ in range(2)]
        callers = [
            Caller(self, node, f"c{number}", rng.choice([1, 1, 4]))
            for number, node in enumerate(node for node in nodes for _ in range(rng.choice([1, 4])))
        ]
        befalls = asyncio.ensure_future(self.befall(nodes))
        await asyncio.gather(*(caller.run() for caller in callers))
        befalls.cancel()
        await asyncio.wait([befalls])
        self.failures = self.losses = 0.0
        alive = [node for node in nodes if not node.store.is_dead]
        for node in alive:
            node.store.is_cut_off = False
            node.store.frozen.set()
            node.endpoint.frozen.set()
        await asyncio.sleep(5)
        for node in alive:
            if not node.share.is_ended:
                with suppress(ShareError):  # it is deleted: which is looked for below
                    await node.share.refresh()
        self.check(callers, alive)
        for node in nodes:
            node.store.frozen.set()
            await node.share.close()
            await node.context.delayed_deletes.close()
        for task in list(self.tasks):
            task.cancel()

    async def befall(self, nodes):
        rng = self.random
        nodes = list(nodes)
        while True:
            await asyncio.sleep(rng.expovariate(1 / (10 * self.distance)))
            node = rng.choice(nodes)
            lasts = rng.choice([0.05, 0.5, 3.0, 30.0])
            match rng.randrange(8):
                case 0:
                    node.store.is_cut_off = True
                    await asyncio.sleep(lasts)
                    node.store.is_cut_off = False
                case 1 | 2:
                    node.store.frozen.clear()
                    node.endpoint.frozen.clear()
                    await asyncio.sleep(lasts)
                    node.store.frozen.set()
                    node.endpoint.frozen.set()
                case 3:
                    node.endpoint.is_deaf = True
                    await asyncio.sleep(lasts)
                    node.endpoint.is_deaf = False
                case 4 if len(nodes) > 1 and rng.random() < 0.3:
                    nodes.remove(node)
                    node.kill()
                case 5 if rng.random() < 0.05:
                    self.is_deleted = True
                    with suppress(ShareError):
                        await node.share.delete()

    def check(self, callers, nodes):
        logged = []  # names of syncs, in the order of the log
        is_ended = False
        for number in range(1, len(self.store.log) + 1):
            entry = objects.decode_entry(self.store.log[number])
            if entry.is_tombstone:
                assert self.is_deleted
                is_ended = True
                break
            logged += [name for sync in entry.syncs(()) for name in names_of(sync.items)]
        places = {name: place for place, name in enumerate(logged, 1)}
        assert len(places) == len(logged), "a sync is in the log twice"
        for caller in callers:
            for name, sync_count in caller.acknowledged.items():
                assert places.get(name) == sync_count, (name, sync_count, places.get(name))
            mine = [int(name.partition("-")[2]) for name in logged if name.startswith(f"{caller.name}-")]
            assert mine == sorted(mine), caller.name
        for node in nodes:
            assert node.share.is_ended == is_ended
            if not is_ended:
                assert node.share.state.sync_count == len(logged)
            for reader in node.readers:
                self.check_reader(reader, logged, is_ended=node.share.is_ended)

    def check_reader(self, reader, logged, *, is_ended):
        seen = 0
        while (event := reader.take()) is not None:
            match event:
                case Snapshot():
                    seen = event.sync_count
                    assert names_of(event.items) == logged[:seen]
                case Sync():
                    assert event.sync_count > seen
                    assert names_of(event.items) == logged[seen : event.sync_count]
                    seen = event.sync_count
                case Deleted():
                    assert is_ended
                    return
        assert seen == len(logged) or is_ended


def names_of(items):
    return [json.loads(body)["id"] for item in items if item.kind is Kind.PART for _, body in item.values]


class Caller:
    def __init__(self, world, node, name, at_once):
        self.world, self.node, self.name, self.at_once = world, node, name, at_once
        self.acknowledged = {}

    async def run(self):
        numbers = itertools.count()
        rng = self.world.random
        for _ in range(SYNCS // self.at_once):
            if self.node.store.is_dead:
                return
            try:
                waiting = [self.submit(f"{self.name}-{next(numbers)}") for _ in range(self.at_once)]
            except ShareError:
                return
            _, pending = await asyncio.wait([task for _, task in waiting], timeout=120)
            for name, task in waiting:
                if task in pending:
                    assert self.node.store.is_dead, f"{name} was never answered"
                elif (error := task.exception()) is None:
                    self.acknowledged[name] = task.result()
                else:
                    assert error.code in {ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.SHARE_NOT_FOUND}, error
            if rng.random() < 0.2:
                await asyncio.sleep(rng.choice([0.001, 0.1, 3.0]))

    def submit(self, name):
        # Some are too large to be forwarded.
        size = 40_000 if self.world.random.random() < 0.05 else 20
        text = part(name)
        text["data"]["text"] = self.world.random.randbytes(size // 2).hex()
        batch = parse_batch([text])
        return name, self.node.share.submit(batch)


def simulate(seed):
    loop = VirtualTimeLoop()
    try:
        with (
            mock.patch("rpcshare.shares.open_share.monotonic", loop.time),
            mock.patch("rpcshare.shares.write_forwarding.monotonic", loop.time),
            mock.patch.dict(WriteTurns.__init__.__kwdefaults__, clock=loop.time),
        ):
            world = World(seed)
            loop.run_until_complete(asyncio.wait_for(world.run(), 100_000))
            return world
    finally:
        loop.close()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_sync_is_written_once_in_order_and_seen_by_all(seed):
    simulate(seed)
