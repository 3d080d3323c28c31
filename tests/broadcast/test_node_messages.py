"""Messages to one node alone, by each broadcaster; and what is dropped of those through Redis."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from rpcshare.broadcast import Broadcaster, EntryWritten, LocalBroadcaster, NodeMessage, SyncsDeclined
from rpcshare.broadcast.worker_broadcaster import WorkerBroadcaster
from support.inboxes import until, with_office
from support.redis_server import RedisServer

redis = pytest.importorskip("redis.asyncio", reason="redis is not installed")

from rpcshare.broadcast.redis import RedisBroadcaster  # noqa: E402 -- needs redis
from rpcshare.broadcast.redis_location import RedisLocation  # noqa: E402
from rpcshare.broadcast.sealed_messages import (  # noqa: E402
    MAX_NODE_MESSAGE,
    BadMessageError,
    SealedMessages,
)

STORE, SECRET = "0" * 32, bytes(range(32))
NODE, OTHER = "a" * 16, "b" * 16


def entry(number: int, size: int = 10) -> EntryWritten:
    return EntryWritten(
        "share", "g1", f"{NODE}0-0", number, f"{OTHER}0-0.1", secrets.token_bytes(size), "etag"
    )


@asynccontextmanager
async def local(_tmp_path: Path) -> AsyncIterator[list[Broadcaster]]:
    node = LocalBroadcaster()
    yield [node, node]


@asynccontextmanager
async def workers(_tmp_path: Path) -> AsyncIterator[list[Broadcaster]]:
    with with_office(2) as office:
        inboxes = [office.reader(slot) for slot in range(2)]
        nodes: list[Broadcaster] = [WorkerBroadcaster(inbox) for inbox in inboxes]
        for inbox in inboxes:
            inbox.start()
        await until(lambda: all(inbox.others for inbox in inboxes))
        yield nodes


@asynccontextmanager
async def through_redis(tmp_path: Path) -> AsyncIterator[list[Broadcaster]]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path))
        location = RedisLocation(host="127.0.0.1", port=server.port)
        nodes: list[Broadcaster] = []
        for _ in range(2):
            node = RedisBroadcaster(location, SealedMessages(0, STORE, SECRET))
            stack.push_async_callback(node.close)
            await node.check()
            nodes.append(node)
        yield nodes


@pytest.mark.parametrize("opened", [local, workers, through_redis])
async def test_a_message_reaches_the_node_that_it_is_for_and_no_other(
    opened: Callable[[Path], AbstractAsyncContextManager[list[Broadcaster]]], tmp_path: Path
) -> None:
    async with opened(tmp_path) as (here, there):
        heard: list[NodeMessage] = []
        wrong: list[NodeMessage] = []
        stop = there.listen(NODE, heard.append)
        here.listen(OTHER, wrong.append)
        declined = SyncsDeclined("share", f"{OTHER}0-0", f"{NODE}0")
        async with asyncio.timeout(20):
            while not heard:  # until it is known there who listens
                here.send(NODE, declined)
                await asyncio.sleep(0.02)
        heard.clear()
        sent = [entry(number, size=60_000) for number in range(50)]
        for message in sent:
            assert here.send(NODE, message)
        async with asyncio.timeout(20):
            while len([each for each in heard if isinstance(each, EntryWritten)]) < len(sent):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [each for each in heard if isinstance(each, EntryWritten)] == sent
        assert wrong == []
        stop()
        stop()


async def test_who_is_not_there_is_known_to_be_unreachable(tmp_path: Path) -> None:
    for opened in (local, workers):
        async with opened(tmp_path) as (here, _):
            assert not here.send(NODE, entry(1))


async def test_a_process_that_has_ended_is_not_sent_to(tmp_path: Path) -> None:
    async with workers(tmp_path) as (here, there):
        there.listen(NODE, lambda _: None)
        assert isinstance(here, WorkerBroadcaster)
        async with asyncio.timeout(20):
            while not here.send(NODE, entry(1)):  # noqa: ASYNC110 -- of what nobody tells
                await asyncio.sleep(0.01)
        here._drop(1)
        assert not here.send(NODE, entry(1))


async def test_what_raises_does_not_end_the_listening(tmp_path: Path) -> None:
    heard: list[NodeMessage] = []

    def fail_once(message: NodeMessage) -> None:
        heard.append(message)
        if len(heard) == 1:
            raise RuntimeError("a fault of ours")

    async with through_redis(tmp_path) as (here, there):
        there.listen(NODE, fail_once)
        async with asyncio.timeout(20):
            while len(heard) < 3:
                here.send(NODE, entry(1))
                await asyncio.sleep(0.02)


async def test_messages_wait_within_a_bound_and_those_of_shares_are_not_lost_for_them(tmp_path: Path) -> None:
    async with through_redis(tmp_path) as (here, _):
        sent = 0
        while here.send(NODE, entry(sent, size=100_000)):
            sent += 1
            assert sent < 1000
        assert sent > 20
        async with asyncio.timeout(20):
            while not here.send(NODE, entry(0)):  # noqa: ASYNC110 -- of what nobody tells
                await asyncio.sleep(0.01)


def messages(store: str = STORE, secret: bytes = SECRET) -> SealedMessages:
    return SealedMessages(0, store, secret)


def test_a_sealed_message_shows_nothing_and_is_read_by_its_node_alone() -> None:
    message = EntryWritten("secret-share", "g1", f"{NODE}0-0", 1, "", b"SECRET-PROMPT", "etag")
    sealed = messages().seal_for_node(NODE, message)
    assert messages().unseal_for_node(sealed, NODE) == message
    clear = base64.urlsafe_b64decode(sealed)
    assert b"SECRET-PROMPT" not in clear
    assert b"secret-share" not in clear


@pytest.mark.parametrize(
    "reader",
    [
        lambda sealed: messages().unseal_for_node(sealed, OTHER),
        lambda sealed: messages(store="1" * 32).unseal_for_node(sealed, NODE),
        lambda sealed: messages(secret=bytes(32)).unseal_for_node(sealed, NODE),
        lambda sealed: messages().unseal_for_node(sealed[:-8], NODE),
        lambda sealed: messages().unseal_for_node(sealed * (MAX_NODE_MESSAGE // len(sealed) + 1), NODE),
        lambda sealed: messages().unseal(sealed, "share"),
    ],
    ids=["another node", "another store", "another secret", "cut off", "large", "as one about a share"],
)
def test_what_is_not_for_this_node_is_dropped(reader: Callable[[bytes], object]) -> None:
    with pytest.raises(BadMessageError):
        reader(messages().seal_for_node(NODE, entry(1)))
