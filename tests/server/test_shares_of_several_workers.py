"""Shares that are written and read through several workers at once: nothing is lost, in one order."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

import rpcshare
from support.items import part
from support.redis_server import RedisServer
from support.running_server import RunningServer
from support.several_workers import only_one_accepts, until, worker_pids

pytestmark = pytest.mark.slow  # real servers, several of them at a time

SYNCS = 150
CLIENTS = 6  # of each worker


@pytest.fixture
def two(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", "--workers=2") as server:
        yield server


@asynccontextmanager
async def client_of(server: RunningServer, number: int) -> AsyncIterator[rpcshare.ShareClient]:
    """Give a client that one of the workers serves."""
    async with AsyncExitStack() as stack:
        with only_one_accepts(server, number):
            client = rpcshare.ShareClient(server.url, token=server.token)
            await stack.enter_async_context(client)
            await client.whoami()
        yield client


@asynccontextmanager
async def clients_of_both(server: RunningServer, each: int = 1) -> AsyncIterator[list[rpcshare.ShareClient]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(client_of(server, number))
            for _ in range(each)
            for number in range(2)
        ]


async def watch(client: rpcshare.ShareClient, share_id: str, total: int) -> list[str]:
    """Return the ids of parts in the order in which events had them."""
    seen: list[str] = []
    async with client.subscribe(share_id) as events:
        async for event in events:
            if event.type == "snapshot":
                seen.clear()
            seen += [item["data"]["id"] for item in event.data if item["type"] == "part"]
            if event.sync_count == total:
                break
    return seen


# --- many writers -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_what_all_clients_write_to_one_share_is_there_once_and_in_one_order(two: RunningServer) -> None:
    async with clients_of_both(two, CLIENTS) as clients, clients_of_both(two) as readers:
        share = await clients[0].create_share("ses_one_share_000001")
        total = len(clients) * SYNCS
        watching = [asyncio.create_task(watch(reader, share.id, total)) for reader in readers]

        async def write(writer: int) -> list[int]:
            return [
                await clients[writer].sync_share(share.id, share.secret, [part(f"prt_{writer}_{n}")])
                for n in range(SYNCS)
            ]

        counts = await asyncio.gather(*map(write, range(len(clients))))
        sessions = [await reader.get_share(share.id) for reader in readers]
        seen = await asyncio.gather(*watching)
    assert all(own == sorted(own) for own in counts)
    assert sorted(count for own in counts for count in own) == list(range(1, total + 1))
    assert sessions[0] == sessions[1]
    order = [each["id"] for each in sessions[0]["parts"]]
    # Each acknowledgement tells where its sync is in the order.
    assert all(
        order[count - 1] == f"prt_{w}_{n}" for w, own in enumerate(counts) for n, count in enumerate(own)
    )
    assert seen == [order, order]


async def test_many_shares_are_written_through_both_at_once(two: RunningServer) -> None:
    async with clients_of_both(two, CLIENTS) as clients, clients_of_both(two) as readers:
        shares = [await clients[0].create_share(f"ses_many_{number:08d}") for number in range(16)]

        async def write(writer: int) -> list[int]:
            acked = []
            for n in range(SYNCS):
                share = shares[(writer + n) % len(shares)]
                synced = clients[writer].sync_share(share.id, share.secret, [part(f"prt_{writer}_{n}")])
                acked.append(await synced)
            return acked

        counts = await asyncio.gather(*map(write, range(len(clients))))
        sessions = {}
        for share in shares:
            here, there = [await reader.get_share(share.id) for reader in readers]
            assert here == there
            sessions[share.id] = here
        assert (await readers[1].list_shares()).count == len(shares)
    for writer, own in enumerate(counts):
        for n, count in enumerate(own):
            session = sessions[shares[(writer + n) % len(shares)].id]
            assert session["parts"][count - 1]["id"] == f"prt_{writer}_{n}"
    assert sum(len(session["parts"]) for session in sessions.values()) == len(clients) * SYNCS


async def test_events_of_what_another_worker_wrote_come_without_a_look_at_the_store(
    two: RunningServer,
) -> None:
    # That the store is looked at every 1.5 s would do it too: so many syncs, each answered, take far longer.
    async with clients_of_both(two) as (writer, reader):
        share = await writer.create_share("ses_events_00000001")
        async with reader.subscribe(share.id) as events:
            assert (await anext(events)).type == "snapshot"
            async with asyncio.timeout(20):
                for n in range(100):
                    await writer.sync_share(share.id, share.secret, [part(f"prt_{n}")])
                    event = await anext(events)
                    assert (event.type, event.sync_count) == ("sync", n + 1)


async def test_large_syncs_reach_who_watches_at_another_worker(two: RunningServer) -> None:
    async with clients_of_both(two) as (writer, reader):
        share = await writer.create_share("ses_large_00000001")
        watching = asyncio.create_task(watch(reader, share.id, 6))
        for n in range(6):
            text = os.urandom(300_000).hex()  # which does not compress to less than a message may be
            await writer.sync_share(share.id, share.secret, [part(f"prt_{n}", text)])
        seen = await watching
    assert sorted(set(seen)) == [f"prt_{n}" for n in range(6)]


# --- a worker that dies -----------------------------------------------------------------------------


async def test_a_worker_killed_under_load_loses_nothing_that_was_acknowledged(two: RunningServer) -> None:
    acked: dict[str, set[str]] = {}

    async def write(
        client: rpcshare.ShareClient, writer: str, shares: list[rpcshare.ShareCredentials]
    ) -> None:
        for n in range(100_000):
            share = shares[n % len(shares)]
            part_id = f"prt_{writer}_{n}"
            try:
                await client.sync_share(share.id, share.secret, [part(part_id)])
            except rpcshare.SessionClosedError:
                return
            acked.setdefault(share.id, set()).add(part_id)

    killed = worker_pids(two)[0]
    async with AsyncExitStack() as stack:
        doomed = [await stack.enter_async_context(client_of(two, 0)) for _ in range(3)]
        lasting = [await stack.enter_async_context(client_of(two, 1)) for _ in range(3)]
        shares = [await lasting[0].create_share(f"ses_killed_{number:08d}") for number in range(4)]
        cut_off = [asyncio.create_task(write(client, f"a{n}", shares)) for n, client in enumerate(doomed)]
        going_on = [asyncio.create_task(write(client, f"b{n}", shares)) for n, client in enumerate(lasting)]
        await until_acked(acked, 300)
        os.kill(killed, signal.SIGKILL)
        await asyncio.gather(*cut_off)
        await until_acked(acked, sum(map(len, acked.values())) + 200)
        assert not any(task.done() for task in going_on)
        until(lambda: "a worker serves again" in two.log.read_text(), "word of the new worker")
        for task in going_on:
            task.cancel()
        await asyncio.wait(going_on)
        assert killed not in worker_pids(two)
        async with clients_of_both(two) as readers:
            for share in shares:
                sessions = [await reader.get_share(share.id) for reader in readers]
                assert sessions[0] == sessions[1]
                kept = [each["id"] for each in sessions[0]["parts"]]
                assert len(kept) == len(set(kept))
                assert acked[share.id] <= set(kept)


async def until_acked(acked: dict[str, set[str]], number: int) -> None:
    await asyncio.to_thread(
        until, lambda: sum(map(len, acked.values())) >= number, f"{number} acknowledgements", 20
    )


async def test_who_watches_hears_of_what_a_worker_wrote_that_came_after(two: RunningServer) -> None:
    async with client_of(two, 1) as reader:
        share = await reader.create_share("ses_again_000000001")
        async with reader.subscribe(share.id) as events:
            assert (await anext(events)).type == "snapshot"
            killed, lasting = worker_pids(two)
            os.kill(killed, signal.SIGKILL)
            until(lambda: "a worker serves again" in two.log.read_text(), "word of the new worker")
            new = next(n for n, pid in enumerate(worker_pids(two)) if pid != lasting)
            async with client_of(two, new) as writer:
                for n in range(50):
                    await writer.sync_share(share.id, share.secret, [part(f"prt_{n}")])
                    assert (await anext(events)).sync_count == n + 1


# --- what one worker is told of a share, the other knows --------------------------------------------


async def test_a_share_made_private_through_one_is_refused_by_the_other_at_once(two: RunningServer) -> None:
    async with clients_of_both(two) as (owner, other):
        share = await owner.create_share("ses_private_000001", [part("prt_1")])
        async with httpx.AsyncClient(base_url=two.url) as anybody:
            with only_one_accepts(two, 1):
                assert (await anybody.get(f"/api/share/{share.id}")).status_code == 200
            await other.get_share(share.id)
            await owner.update_share(share.id, share.secret, visibility="private")
            assert (await anybody.get(f"/api/share/{share.id}")).status_code == 401


async def test_a_share_deleted_through_one_is_gone_at_the_other_at_once(two: RunningServer) -> None:
    async with clients_of_both(two) as (owner, other):
        share = await owner.create_share("ses_deleted_000001", [part("prt_1")])
        await other.get_share(share.id)
        async with other.subscribe(share.id) as events:
            assert (await anext(events)).type == "snapshot"
            await owner.delete_share(share.id, share.secret)
            with pytest.raises(rpcshare.ShareError, match="Share not found"):
                await other.get_share(share.id)
            with pytest.raises(rpcshare.ShareError, match="Share not found"):
                await other.sync_share(share.id, share.secret, [part("prt_2")])
            assert (await anext(events)).type == "deleted"


async def test_with_redis_the_workers_hear_of_each_other_through_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        broadcast = f"--broadcast=redis://127.0.0.1:{redis.port}/0"
        with RunningServer(tmp_path / "data", "--workers=2", broadcast) as server:
            async with clients_of_both(server) as (writer, reader):
                share = await writer.create_share("ses_redis_00000001")
                watching = asyncio.create_task(watch(reader, share.id, 20))
                for n in range(20):
                    await writer.sync_share(share.id, share.secret, [part(f"prt_{n}")])
                assert await watching == [f"prt_{n}" for n in range(20)]
            async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
                assert (await client.get("/readyz")).status_code == 200
                redis.kill()
                assert (await client.get("/readyz")).status_code == 503
