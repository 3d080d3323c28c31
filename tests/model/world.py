"""Nodes on stores, what goes between them, and what befalls them: all from one seed.

A site is a store with its nodes. Messages between nodes are lost, repeated, reordered, forged and late; the
answers of stores are lost; stores are copied, rolled back and restored; clocks step.
"""

import asyncio
import contextlib
import itertools
import random
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from model.inline_database import open_inline
from rpcshare.auth.api_key_verifier import ApiKeyVerifier
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LogAppended, NodeMessage, SyncsForwarded, Unsubscribe
from rpcshare.shares import Credentials, LogSettings, ShareService
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.rollback import HighWaterMarks, RollbackCheckedStore
from rpcshare.shares.search import SearchSettings
from rpcshare.storage import (
    IDENTITY_KEY,
    MemoryStore,
    ObjectInfo,
    StoredObject,
    StoreError,
    store_identity,
)

__all__ = ["ADMIN", "OWNERS", "Bus", "NodeContext", "Site", "World"]

OWNERS = [Caller(name, frozenset({Scope.CREATE})) for name in ("alice", "bob")]
ADMIN = Caller("admin", frozenset({Scope.ADMIN}))

_CREDENTIALS = Credentials(uuid.UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8"), "https://share.example")
_SNAPSHOTS = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=3)
_SETTINGS = [
    # What is superfluous is deleted at once, so nothing may be relied on.
    LogSettings(trusted_for=0.0, grace=0.0, compaction=_SNAPSHOTS),
    # Nothing is deleted while the model runs, and nodes write without looking.
    LogSettings(compaction=_SNAPSHOTS),
]
_HEARD = 50  # messages that may be sent again


class NodeStore:
    """A store as one node has it: others run in between, and an answer may be lost."""

    def __init__(self, inner: MemoryStore, seed: int) -> None:
        self._inner = inner
        self._random = random.Random(seed)
        self.loses_answer = False
        """Of the next write."""
        self.has_lost_answer = False

    async def _pause(self) -> None:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)

    async def get(self, key: str) -> StoredObject | None:
        await self._pause()
        found = await self._inner.get(key)
        await self._pause()
        return found

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        await self._pause()
        etag = await self._inner.put(key, body, if_absent=if_absent, if_match=if_match)
        if self.loses_answer:
            self.loses_answer, self.has_lost_answer = False, True
            raise StoreError("the answer was lost")
        await self._pause()
        return etag

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            await self._pause()
            await self._inner.delete([key])

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._pause()
        async for info in self._inner.list(prefix, start_after=start_after):
            yield info

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        await self._pause()
        async for found in self._inner.scan(prefix, start_after=start_after):
            yield found

    async def check(self) -> None:
        await self._inner.check()

    async def close(self) -> None:
        """Leave the store to the others."""


class Bus:
    """What nodes of all sites tell each other, as badly as a network and an attacker can have it."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self.endpoints: list[Endpoint] = []
        self._heard: deque[LogAppended] = deque(maxlen=_HEARD)
        self._heard_by_nodes: deque[tuple[str, NodeMessage]] = deque(maxlen=_HEARD)

    def endpoint(self) -> "Endpoint":
        """Return a node's own."""
        made = Endpoint(self)
        self.endpoints.append(made)
        return made

    def leave(self, endpoint: "Endpoint") -> None:
        """Deliver nothing to it any more."""
        self.endpoints.remove(endpoint)

    def send(self, message: LogAppended) -> None:
        """Take a message that is delivered some time, or not."""
        self._heard.append(message)
        for endpoint in self.endpoints:
            if self._random.random() < 0.7:
                endpoint.waiting.append(message)

    def send_to_node(self, node: str, message: NodeMessage) -> None:
        """Take a message to one node, likewise."""
        self._heard_by_nodes.append((node, message))
        for endpoint in self.endpoints:
            if node in endpoint.nodes and self._random.random() < 0.9:
                endpoint.waiting_nodes.append((node, message))

    def move(self, share_ids: Sequence[str]) -> None:
        """Let something happen to one node's messages."""
        if not self.endpoints:
            return
        endpoint = self._random.choice(self.endpoints)
        match self._random.randrange(8):
            case 0:
                endpoint.deliver(len(endpoint.waiting))
            case 1:
                self._random.shuffle(endpoint.waiting)
                endpoint.deliver(self._random.randrange(3))
            case 2 if self._heard:
                endpoint.receive(self._random.choice(self._heard))
            case 3 if share_ids:
                endpoint.receive(self._forged(self._random.choice(share_ids)))
            case 4:
                endpoint.deliver_to_nodes(len(endpoint.waiting_nodes))
            case 5:
                endpoint.deliver_to_nodes(self._random.randrange(3))
            case 6 if self._heard_by_nodes:
                endpoint.receive_for_node(*self._random.choice(self._heard_by_nodes))
            case _:
                endpoint.waiting.clear()

    def _forged(self, share_id: str) -> LogAppended:
        generations = {heard.generation for heard in self._heard if heard.share_id == share_id}
        generation = self._random.choice([*sorted(generations), "f" * 16, ""])
        entry = self._random.choice([-1, 0, 1, 2, 3, 5, 8, 13, 21, 100, 2**40])
        return LogAppended(share_id, generation, entry)


class Endpoint:
    """A :class:`~rpcshare.broadcast.Broadcaster` on a bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.waiting: list[LogAppended] = []
        self._callbacks: dict[object, tuple[str, Callable[[LogAppended], None]]] = {}
        self.waiting_nodes: list[tuple[str, NodeMessage]] = []
        self.nodes: dict[str, Callable[[NodeMessage], None]] = {}
        self.has_forwarded = False
        """Whether others were asked to write syncs."""

    def send(self, node: str, message: NodeMessage) -> bool:
        self.has_forwarded |= isinstance(message, SyncsForwarded)
        self._bus.send_to_node(node, message)
        return True

    def listen(self, node: str, callback: Callable[[NodeMessage], None]) -> Unsubscribe:
        self.nodes[node] = callback
        return lambda: void(self.nodes.pop(node, None))

    def deliver_to_nodes(self, count: int) -> None:
        """Deliver so many messages to the node that this is of."""
        now, self.waiting_nodes = self.waiting_nodes[:count], self.waiting_nodes[count:]
        for node, message in now:
            self.receive_for_node(node, message)

    def receive_for_node(self, node: str, message: NodeMessage) -> None:
        """Deliver one of them."""
        if node in self.nodes:
            self.nodes[node](message)

    async def publish(self, message: LogAppended) -> None:
        self._bus.send(message)

    def subscribe(self, share_id: str, callback: Callable[[LogAppended], None]) -> Unsubscribe:
        subscription = object()
        self._callbacks[subscription] = (share_id, callback)
        return lambda: void(self._callbacks.pop(subscription, None))

    def deliver(self, count: int) -> None:
        """Deliver so many messages."""
        now, self.waiting = self.waiting[:count], self.waiting[count:]
        for message in now:
            self.receive(message)

    def receive(self, message: LogAppended) -> None:
        """Deliver one message."""
        for share_id, callback in list(self._callbacks.values()):
            if share_id == message.share_id:
                callback(message)

    async def check(self) -> None:
        """Whatever becomes of messages, this reaches the bus."""

    async def close(self) -> None:
        self._callbacks.clear()
        self.nodes.clear()


def void(_result: object) -> None:
    """Return nothing."""


class NodeContext:
    """A server on a site, with a clock of its own."""

    def __init__(self, site: "Site") -> None:
        world = site.world
        self.offset = 0
        """Milliseconds that its clock is ahead."""
        self.store = NodeStore(site.store, world.random.getrandbits(32))
        self._bus = world.bus
        self.endpoint = world.bus.endpoint()
        checked = RollbackCheckedStore(self.store, site.marks)
        self.service = ShareService(
            checked,
            self.endpoint,
            _CREDENTIALS,
            shared_store=True,
            settings=world.settings,
            clock=lambda: world.now + self.offset,
            search=SearchSettings(partial(open_inline, site.database)),
        )
        self.service.start_expiry()
        self.service.start_search()
        self.keys = ApiKeys(checked)
        self.verifier = ApiKeyVerifier(checked)

    async def close(self) -> None:
        """Stop it."""
        await self.service.close()
        self._bus.leave(self.endpoint)


class Site:
    """A store, the nodes on it, and what they have seen."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.store = MemoryStore()
        self.marks = HighWaterMarks.open(world.folder / f"{name}.sqlite3")
        self.database = world.folder / f"{name}-database.sqlite3"
        self.nodes: list[NodeContext] = []
        self.was_ahead = False
        """Whether the clock of a node has ever been so far ahead that shares expired by it."""

    async def start(self) -> None:
        """Start two nodes."""
        await store_identity(self.store)
        self.nodes = [NodeContext(self) for _ in range(2)]

    async def stop(self) -> None:
        """Stop all nodes."""
        nodes, self.nodes = self.nodes, []
        for node in nodes:
            await node.close()

    @contextlib.asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Have no node at work meanwhile."""
        await self.stop()
        yield
        await self.start()

    def contents(self) -> dict[str, bytes]:
        """Return all objects."""
        return {key: found.body for key, found in self.store._objects.items()}

    async def settle(self) -> None:
        """Let nodes finish what they are deleting."""
        for node in self.nodes:
            await asyncio.gather(*node.service._shares._delayed_deletes._running)

    async def put_back(self, old: dict[str, bytes]) -> None:
        """Make the store what it was, without a trace."""
        now = self.contents()
        await self.store.delete([key for key in now if key not in old and key != IDENTITY_KEY])
        for key, body in old.items():
            if now.get(key) != body:
                await self.store.put(key, body)


class World:
    """All that there is."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.now = 1_700_000_000_000
        self.settings = _SETTINGS[seed % len(_SETTINGS)]
        self.bus = Bus(self.random)
        self.names = itertools.count()
        self.sites = [Site(self, f"site{number}") for number in range(2)]

    async def start(self) -> None:
        """Start all nodes."""
        for site in self.sites:
            await site.start()

    def nodes(self) -> Iterator[NodeContext]:
        """Yield all nodes of all sites."""
        for site in self.sites:
            yield from site.nodes

    async def close(self) -> None:
        """Stop all of it."""
        for site in self.sites:
            await site.stop()
            site.marks.close()
