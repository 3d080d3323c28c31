"""Messages between nodes by way of Redis, which may be away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import msgspec
import pytest
from redis.asyncio import Redis

from rpcshare.broadcast import BroadcastError, LogAppended, open_broadcaster
from rpcshare.broadcast.redis import RedisBroadcaster
from rpcshare.broadcast.sealed_messages import SealedMessages
from support.redis_server import RedisServer

NewNode = Callable[..., Awaitable[RedisBroadcaster]]

SHARE = "a"
MISSED = LogAppended.missed(SHARE)
STORE = "5" * 32
SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that is there all the time."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that the test may stop."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def new_node() -> AsyncIterator[NewNode]:
    """Return a function that makes a node; the one that this returns is connected if it can be."""
    nodes: list[RedisBroadcaster] = []

    async def make(
        server: RedisServer,
        database: int = 0,
        *,
        is_there: bool = True,
        store_id: str = STORE,
        secret: bytes = SECRET,
    ) -> RedisBroadcaster:
        node = await open_broadcaster(
            f"redis://127.0.0.1:{server.port}/{database}", store_id=store_id, secret=secret
        )
        assert isinstance(node, RedisBroadcaster)
        nodes.append(node)
        if is_there:
            await node.check()
        return node

    yield make
    for node in nodes:
        await node.close()


class Ear:
    """A subscriber of a share, which waits for messages at most 3 s."""

    def __init__(self, node: RedisBroadcaster, share_id: str = SHARE) -> None:
        self.heard: asyncio.Queue[LogAppended] = asyncio.Queue()
        self.unsubscribe = node.subscribe(share_id, self.heard.put_nowait)

    async def next(self) -> LogAppended:
        async with asyncio.timeout(3):
            return await self.heard.get()

    async def until(self, expected: LogAppended) -> None:
        while await self.next() != expected:
            pass


def message(entry: int, share_id: str = SHARE) -> LogAppended:
    return LogAppended(share_id=share_id, generation="g1", entry=entry)


def channel(share_id: str = SHARE) -> str:
    return SealedMessages(0, STORE, SECRET).channel_of(share_id)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until ``holds`` returns true, at most 3 s."""
    async with asyncio.timeout(3):
        while not await holds():  # noqa: ASYNC110 -- of what nobody tells
            await asyncio.sleep(0.01)


async def subscribers(server: RedisServer, count: int, share_id: str = SHARE) -> None:
    """Wait until Redis knows of so many nodes that watch a share."""
    async with Redis(port=server.port) as client:

        async def holds() -> bool:
            ((_, found),) = await client.pubsub_numsub(channel(share_id))
            return found == count

        await eventually(holds)


async def is_deaf(node: RedisBroadcaster) -> bool:
    return not node._listener.connected.is_set()


async def is_down(node: RedisBroadcaster) -> bool:
    return node._sender._is_down


class TestDelivery:
    async def test_every_node_hears_each_message_in_order(
        self, server: RedisServer, new_node: NewNode
    ) -> None:
        nodes = [await new_node(server) for _ in range(2)]
        ears = [Ear(node) for node in nodes]
        await subscribers(server, 2)
        for entry in range(300):
            await nodes[0].publish(message(entry))
        for ear in ears:
            assert [await ear.next() for _ in range(300)] == [message(entry) for entry in range(300)]

    async def test_a_subscriber_hears_of_its_own_share_only(
        self, server: RedisServer, new_node: NewNode
    ) -> None:
        node = await new_node(server)
        ear, other = Ear(node), Ear(node, "ab")
        await subscribers(server, 1)
        await subscribers(server, 1, "ab")
        await node.publish(message(1, "ab"))
        await node.publish(message(2))
        assert await other.next() == message(1, "ab")
        assert await ear.next() == message(2)

    async def test_every_subscriber_on_a_node_hears(self, server: RedisServer, new_node: NewNode) -> None:
        node = await new_node(server)
        ears = [Ear(node), Ear(node)]
        await subscribers(server, 1)
        await node.publish(message(1))
        assert [await ear.next() for ear in ears] == [message(1)] * 2

    async def test_databases_of_one_server_are_apart(self, server: RedisServer, new_node: NewNode) -> None:
        node, elsewhere = await new_node(server), await new_node(server, database=1)
        ear = Ear(node)
        await subscribers(server, 1)
        await elsewhere.publish(message(1))
        await elsewhere._sender.drain()
        await node.publish(message(2))
        assert await ear.next() == message(2)

    async def test_nodes_on_other_stores_are_apart(self, server: RedisServer, new_node: NewNode) -> None:
        ear = Ear(await new_node(server))
        await subscribers(server, 1)
        for options in ({"store_id": "6" * 32}, {"secret": bytes(32)}):
            elsewhere = await new_node(server, **options)
            await elsewhere.publish(message(1))
            await elsewhere._sender.drain()
        node = await new_node(server)
        await node.publish(message(2))
        assert await ear.next() == message(2)

    async def test_what_no_node_has_made_is_dropped_and_told_of_once(
        self, server: RedisServer, new_node: NewNode, caplog: pytest.LogCaptureFixture
    ) -> None:
        ear, other = Ear(await new_node(server)), Ear(await new_node(server), "ab")
        await subscribers(server, 1)
        await subscribers(server, 1, "ab")
        about_another = SealedMessages(0, STORE, SECRET).seal(message(1, "ab"))
        by_another = SealedMessages(0, STORE, bytes(32)).seal(message(1))
        copied = SealedMessages(0, "6" * 32, SECRET).seal(message(1))
        plain = msgspec.msgpack.encode(message(1))
        async with Redis(port=server.port) as client:
            for data in (b"", b"\xc1", plain, bytes(2**20), by_another, copied, about_another):
                await client.publish(channel(), data)
            await client.publish(channel(), SealedMessages(0, STORE, SECRET).seal(message(2)))
        assert await ear.next() == message(2)
        assert other.heard.empty()
        assert caplog.text.count("messages from Redis") == 1

    async def test_redis_is_told_neither_what_is_shared_nor_where(
        self, server: RedisServer, new_node: NewNode
    ) -> None:
        node, share_id = await new_node(server), "a-share-id-which-is-a-link"
        ear = Ear(node, share_id)
        await subscribers(server, 1, share_id)
        async with Redis(port=server.port) as client, client.pubsub() as monitor:
            await monitor.psubscribe("*")
            while await monitor.get_message(timeout=0.5):
                pass
            await node.publish(message(1, share_id))
            await ear.next()
            heard = await monitor.get_message(timeout=3)
        assert heard is not None
        assert share_id.encode() not in heard["channel"] + heard["data"]

    async def test_closing_sends_what_waits(self, server: RedisServer, new_node: NewNode) -> None:
        ear = Ear(await new_node(server))
        await subscribers(server, 1)
        node = await new_node(server)
        for entry in range(300):
            await node.publish(message(entry))
        await node.close()
        await ear.until(message(299))


class TestUnsubscribing:
    async def test_is_told_to_redis_with_the_last_subscriber(
        self, server: RedisServer, new_node: NewNode
    ) -> None:
        node = await new_node(server)
        first, second = Ear(node), Ear(node)
        await subscribers(server, 1)
        first.unsubscribe()
        first.unsubscribe()
        await node.publish(message(1))
        assert await second.next() == message(1)
        assert first.heard.empty()
        second.unsubscribe()
        await subscribers(server, 0)

    async def test_may_be_followed_by_subscribing_again(self, server: RedisServer, new_node: NewNode) -> None:
        node = await new_node(server)
        Ear(node).unsubscribe()
        ear = Ear(node)
        await subscribers(server, 1)
        await node.publish(message(1))
        assert await ear.next() == message(1)


class TestOutages:
    async def test_who_subscribes_while_redis_is_away_hears_that_it_may_have_missed_something(
        self, own_server: RedisServer, new_node: NewNode
    ) -> None:
        own_server.kill()
        ear = Ear(await new_node(own_server, is_there=False))
        own_server.start()
        assert await ear.next() == MISSED

    async def test_every_subscriber_hears_it_when_redis_was_restarted_and_messages_flow_again(
        self, own_server: RedisServer, new_node: NewNode
    ) -> None:
        nodes = [await new_node(own_server) for _ in range(2)]
        ears = [Ear(node) for node in nodes]
        await subscribers(own_server, 2)
        own_server.kill()
        own_server.start()
        for ear in ears:
            assert await ear.next() == MISSED
        await nodes[0].publish(message(2))
        for ear in ears:
            await ear.until(message(2))

    async def test_a_node_that_lost_its_connection_alone_hears_it(
        self, server: RedisServer, new_node: NewNode
    ) -> None:
        ear = Ear(await new_node(server))
        await subscribers(server, 1)
        async with Redis(port=server.port) as client:
            await client.client_kill_filter(_type="pubsub")
        assert await ear.next() == MISSED

    async def test_what_could_not_be_published_is_missed_by_who_kept_its_connection(
        self, own_server: RedisServer, new_node: NewNode
    ) -> None:
        ear = Ear(await new_node(own_server))
        node = await new_node(own_server)
        await subscribers(own_server, 1)
        async with Redis(port=own_server.port) as client:
            await client.config_set("maxclients", 3)  # no more than there are
            await client.client_kill_filter(_type="normal", skipme=True)
            await node.publish(message(1))
            await eventually(lambda: is_down(node))
            await client.config_set("maxclients", 100)
        assert await ear.next() == MISSED

    async def test_publishing_neither_waits_nor_raises_nor_piles_up(
        self, own_server: RedisServer, new_node: NewNode
    ) -> None:
        own_server.kill()
        node = await new_node(own_server, is_there=False)
        async with asyncio.timeout(3):
            for entry in range(20_000):
                await node.publish(message(entry))
        assert len(node._sender._waiting) <= 10_000
        assert list(node._sender._missed) == [SHARE]

    @pytest.mark.parametrize(
        ("break_it", "mend_it"),
        [
            (("CONFIG", "SET", "requirepass", "x"), ("CONFIG", "SET", "requirepass", "")),
            (("ACL", "SETUSER", "default", "resetchannels"), ("ACL", "SETUSER", "default", "allchannels")),
            (("ACL", "SETUSER", "default", "-subscribe"), ("ACL", "SETUSER", "default", "+subscribe")),
            (("ACL", "SETUSER", "default", "-publish"), ("ACL", "SETUSER", "default", "+publish")),
            (("CONFIG", "SET", "maxclients", "1"), ("CONFIG", "SET", "maxclients", "100")),
        ],
        ids=lambda words: " ".join(words[1:]),
    )
    @pytest.mark.filterwarnings(
        # redis-py leaves a connection that Redis refuses to the collector.
        "ignore:.*unclosed:ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    )
    async def test_whatever_redis_answers_for_a_while_the_node_hears_again(
        self, own_server: RedisServer, new_node: NewNode, break_it: tuple[str, ...], mend_it: tuple[str, ...]
    ) -> None:
        node = await new_node(own_server)
        ear = Ear(node)
        await subscribers(own_server, 1)
        async with Redis(port=own_server.port, single_connection_client=True) as client:
            await client.ping()
            await client.execute_command(*break_it)
            for kind in ("pubsub", "normal"):
                await client.client_kill_filter(_type=kind, skipme=True)
            new = Ear(node, "new")
            await node.publish(message(1))
            await asyncio.sleep(0.5)  # for it to have been answered so more than once
            await client.execute_command(*mend_it)
        async with asyncio.timeout(20):
            await node.check()
            while await is_down(node):  # noqa: ASYNC110 -- of what nobody tells
                await asyncio.sleep(0.01)
        await subscribers(own_server, 1, "new")
        await node.publish(message(2))
        await ear.until(message(2))
        await node.publish(message(3, "new"))
        await new.until(message(3, "new"))

    async def test_a_redis_that_hangs_is_noticed_and_so_is_its_return(
        self, own_server: RedisServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rpcshare.broadcast.redis_listener._HEARTBEAT", 0.1)
        node = await new_node(own_server)
        ear = Ear(node)
        await subscribers(own_server, 1)
        own_server.freeze()
        await eventually(lambda: is_deaf(node))
        own_server.thaw()
        assert await ear.next() == MISSED

    async def test_a_quiet_redis_is_not_taken_for_one_that_hangs(
        self, server: RedisServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rpcshare.broadcast.redis_listener._HEARTBEAT", 0.5)
        node = await new_node(server)
        ear = Ear(node)
        await asyncio.sleep(1.6)
        await node.publish(message(1))
        assert await ear.next() == message(1)


class TestCheck:
    async def test_fails_while_redis_is_away(self, own_server: RedisServer, new_node: NewNode) -> None:
        node = await new_node(own_server)
        own_server.kill()
        with pytest.raises(BroadcastError, match=f"redis://127.0.0.1:{own_server.port}/0: "):
            await node.check()
        own_server.start()
        async with asyncio.timeout(2):
            await node.check()

    async def test_takes_a_password_and_does_not_tell_it(
        self, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        with RedisServer(tmp_path_factory.mktemp("redis"), "--requirepass", "hunter2") as server:
            right = await open_broadcaster(
                f"redis://:hunter2@127.0.0.1:{server.port}/0", store_id=STORE, secret=SECRET
            )
            await right.check()
            await right.close()
            wrong = await open_broadcaster(
                f"redis://:hunter3@127.0.0.1:{server.port}/0", store_id=STORE, secret=SECRET
            )
            with pytest.raises(BroadcastError) as failure:
                await wrong.check()
            await wrong.close()
        assert "hunter" not in str(failure.value) + caplog.text
