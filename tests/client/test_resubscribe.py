"""Subscriptions that go on from session to session, without a gap and without a repeat."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from peers import served

import rpcshare
from rpcshare import ConnectionState, SessionClosedError, ShareEvent
from rpcshare.rpc import RpcError, RpcTarget, rpc_method
from support.narrowing import not_none
from support.running_server import RunningServer
from support.tcp_proxy import TcpProxy, proxied
from support.waiting import begun, eventually, gathered, others, reached

pytestmark = [pytest.mark.slow, pytest.mark.on_trio_too]


def part(number: int) -> dict[str, Any]:
    return {"type": "part", "data": {"id": f"prt_{number:05d}"}}


def ids(events: list[ShareEvent]) -> list[str]:
    return [item["data"]["id"] for event in events for item in event.data if item["type"] == "part"]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data") as server:
        yield server


async def collect(stream: rpcshare.EventStream, events: list[ShareEvent]) -> None:
    async for event in stream:
        events.append(event)  # noqa: PERF401 -- others look at them in the meantime


@pytest.mark.slow
async def test_a_server_killed_among_500_syncs_loses_none_and_repeats_no_event(
    own_server: RunningServer,
) -> None:
    async with (
        rpcshare.ShareClient(own_server.url, token=own_server.token, reconnect=True) as writer,
        rpcshare.ShareClient(own_server.url, token=own_server.token, reconnect=True) as reader,
    ):
        share = await writer.create_share("ses_killed01")
        events: list[ShareEvent] = []
        reading = begun(collect(reader.subscribe(share.id), events))
        await eventually(lambda: len(events) == 1)
        acked = 0

        async def sync(number: int) -> int:
            nonlocal acked
            count = await writer.sync_share(share.id, share.secret, [part(number)])
            acked += 1
            return count

        syncs = [begun(sync(number)) for number in range(250)]
        await eventually(lambda: acked > 50)
        await anyio.to_thread.run_sync(own_server.kill)
        syncs += [begun(sync(number)) for number in range(250, 500)]
        await anyio.to_thread.run_sync(own_server.restart)
        counts = await gathered(syncs)
        assert counts == sorted(counts)

        found = await writer.get_share(share.id)
        expected = [f"prt_{number:05d}" for number in range(500)]
        assert [item["id"] for item in found["parts"]] == expected
        last = found["metadata"]["syncCount"]
        await eventually(lambda: events[-1].sync_count == last)
        # A server that was killed may know no more what a reader has seen, and shows the whole again.
        whole = [place for place, event in enumerate(events) if event.type == "snapshot"]
        assert {event.type for event in events} == {"snapshot", "sync"}
        assert whole[0] == 0
        assert len(whole) <= 2
        seen_counts = [not_none(event.sync_count) for event in events]
        assert seen_counts == sorted(set(seen_counts))
        assert list(dict.fromkeys(ids(events))) == expected
        # What was durable and not acknowledged was sent again, and is a sync of its own. To a reader that
        # has yet to hear of the first, both may come as one event, with the part in it once.
        assert len(ids(events)) >= 500
        assert len(ids(events[whole[-1] :])) <= last

        await writer.delete_share(share.id)
        await reading
        assert events[-1].type == "deleted"


async def test_it_goes_on_after_the_last_event(server: RunningServer, proxy: TcpProxy) -> None:
    async with (
        rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share("ses_resume01", [part(0)])
        events: list[dict[str, Any]] = []
        async with await api.subscribe(share.id, events.append):
            await eventually(lambda: len(events) == 1)
            proxy.refuses = True
            await proxy.cut()
            for number in range(1, 4):
                await writer.sync_share(share.id, share.secret, [part(number)])
            proxy.heal()
            await eventually(lambda: len(events) == 4)
            await writer.sync_share(share.id, share.secret, [part(4)])
            await eventually(lambda: len(events) == 5)
    assert [(event["type"], event["syncCount"]) for event in events] == [
        ("snapshot", 1),
        ("sync", 2),
        ("sync", 3),
        ("sync", 4),
        ("sync", 5),
    ]


async def test_it_resumes_where_the_subscriber_began_if_nothing_has_come_yet(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with (
        rpcshare.ShareClient(proxy.url, token=server.token, reconnect=True) as client,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share("ses_resume02", [part(0)])
        async with client.subscribe(share.id, from_sync_count=1) as events:
            await proxy.cut()
            await writer.sync_share(share.id, share.secret, [part(1)])
            event = await anext(events)
    assert (event.type, event.sync_count) == ("sync", 2)


async def test_a_subscription_without_an_answer_is_asked_for_again(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with (
        rpcshare.ShareClient(proxy.url, token=server.token, reconnect=True) as client,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share("ses_resume03", [part(0)])
        proxy.stall()
        first = begun(anext(client.subscribe(share.id)))
        await anyio.sleep(0.05)
        proxy.heal()
        await proxy.cut()
        assert (await first).type == "snapshot"


async def test_a_share_made_anew_in_the_meantime_begins_with_a_snapshot(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with (
        rpcshare.ShareClient(proxy.url, token=server.token, reconnect=True) as client,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share("ses_resume04", [part(0)])
        await writer.sync_share(share.id, share.secret, [part(1)])
        async with client.subscribe(share.id) as events:
            assert (await anext(events)).sync_count == 2
            proxy.refuses = True
            await proxy.cut()
            await writer.delete_share(share.id)
            await writer.create_share("ses_resume04", [part(7)])
            proxy.heal()
            snapshot = await anext(events)
            await writer.sync_share(share.id, share.secret, [part(8)])
            sync = await anext(events)
    assert (snapshot.type, snapshot.sync_count, ids([snapshot])) == ("snapshot", 1, ["prt_00007"])
    assert (sync.type, sync.sync_count) == ("sync", 2)


async def test_a_share_deleted_in_the_meantime_ends_the_stream(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with (
        rpcshare.ShareClient(proxy.url, token=server.token, reconnect=True) as client,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share("ses_resume05", [part(0)])
        async with client.subscribe(share.id) as events:
            await anext(events)
            proxy.refuses = True
            await proxy.cut()
            await writer.delete_share(share.id)
            proxy.heal()
            rest = [event async for event in events]
    assert [(event.type, event.share_id) for event in rest] == [("deleted", share.id)]


async def test_a_refused_subscription_fails(server: RunningServer) -> None:
    async with rpcshare.connect(server.url, token=server.token, reconnect=True) as api:
        with pytest.raises(RpcError, match="Share not found"):
            await api.subscribe("missing1", lambda _event: None)
        with pytest.raises(RpcError) as caught:
            await api.subscribe("missing1")
        assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("way", ["dispose", "unsubscribe"])
async def test_what_was_let_go_of_is_not_resumed(server: RunningServer, proxy: TcpProxy, way: str) -> None:
    async with (
        rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share(f"ses_ended_{way[:6]}", [part(0)])
        events: list[dict[str, Any]] = []
        subscription = await api.subscribe(share.id, events.append)
        await eventually(lambda: len(events) == 1)
        proxy.refuses = True
        await proxy.cut()
        if way == "dispose":
            subscription.dispose()
        else:
            await subscription.unsubscribe()
        proxy.heal()
        await api.whoami()
        await writer.sync_share(share.id, share.secret, [part(1)])
        await api.whoami()
        assert len(events) == 1


async def test_a_pipelined_subscription_is_resumed(server: RunningServer, proxy: TcpProxy) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        info = api.createShare("ses_resume06", [part(0)])
        events: list[dict[str, Any]] = []
        subscription = await api.subscribe(info.id, events.append)
        await eventually(lambda: len(events) == 1)
        await proxy.cut()
        await api.syncShare(info.id, info.secret, [part(1)])
        await eventually(lambda: len(events) == 2)
        subscription.dispose()


async def test_a_stream_ends_with_its_connection(server: RunningServer) -> None:
    async with rpcshare.ShareClient(server.url, token=server.token, reconnect=True) as client:
        share = await client.create_share("ses_resume07")
        stream = client.subscribe(share.id)
        await anext(stream)
        waiting = begun(anext(stream))
        await others()
    with pytest.raises(SessionClosedError):
        await waiting


async def test_a_slow_reader_misses_nothing_across_connections(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with (
        rpcshare.ShareClient(proxy.url, token=server.token, reconnect=True) as client,
        rpcshare.ShareClient(server.url, token=server.token) as writer,
    ):
        share = await writer.create_share("ses_resume08")
        async with client.subscribe(share.id) as stream:
            events = [await anext(stream)]
            for turn in range(3):
                for number in range(60):
                    await writer.sync_share(share.id, share.secret, [part(60 * turn + number)])
                await proxy.cut()
                await reached(client.healing, ConnectionState.CONNECTED)
            while events[-1].sync_count != 180:
                events.append(await anext(stream))
    assert ids(events) == [f"prt_{number:05d}" for number in range(180)]


class Unreliable(RpcTarget):
    """A server whose ``subscribe`` fails in the ways that it is given, one after another."""

    def __init__(self, *outcomes: str | None) -> None:
        self._outcomes = iter(outcomes)
        self.arguments: list[tuple[object, ...]] = []

    @rpc_method("subscribe(shareID, onEvent, fromSyncCount?)")
    async def subscribe(
        self, share_id: str, on_event: rpcshare.Stub, from_count: int | None = None
    ) -> RpcTarget:
        self.arguments.append((share_id, from_count))
        code = next(self._outcomes)
        if code is not None:
            raise RpcError("it failed", code=code)
        count = len(self.arguments)
        await on_event({"type": "sync", "shareID": share_id, "syncCount": count, "data": []})
        return RpcTarget()


async def test_a_failure_that_may_pass_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpcshare.client.resubscribe._PASSING_DELAY", 0.01)
    main = Unreliable(None, "STORAGE_UNAVAILABLE", "RATE_LIMITED", None)
    with served(main) as url, proxied(url) as proxy:
        async with (
            rpcshare.ShareClient(proxy.url, reconnect=True) as client,
            client.subscribe("share001") as events,
        ):
            assert (await anext(events)).sync_count == 1
            await proxy.cut()
            assert (await anext(events)).sync_count == 4
    assert main.arguments == [("share001", None), ("share001", 1), ("share001", 1), ("share001", 1)]


async def test_a_failure_that_will_not_pass_ends_the_stream() -> None:
    with served(Unreliable(None, "FORBIDDEN")) as url, proxied(url) as proxy:
        async with (
            rpcshare.ShareClient(proxy.url, reconnect=True) as client,
            client.subscribe("share001") as events,
        ):
            await anext(events)
            await proxy.cut()
            with pytest.raises(RpcError) as caught:
                await anext(events)
    assert caught.value.code == "FORBIDDEN"


async def test_what_arrives_twice_is_passed_on_once() -> None:
    class Repeating(RpcTarget):
        @rpc_method("subscribe(shareID, onEvent, fromSyncCount?)")
        async def subscribe(self, share_id: str, on_event: rpcshare.Stub, _from: object = None) -> RpcTarget:
            for count in (3, 4, 4, 2, 5):
                await on_event({"type": "sync", "shareID": share_id, "syncCount": count, "data": []})
            return RpcTarget()

    with served(Repeating()) as url:
        async with (
            rpcshare.ShareClient(url, reconnect=True) as client,
            client.subscribe("share001", from_sync_count=3) as events,
        ):
            assert [(await anext(events)).sync_count for _ in range(2)] == [4, 5]


def test_a_blocking_client_goes_on_after_a_restart(own_server: RunningServer) -> None:
    with rpcshare.connect_blocking(own_server.url, token=lambda: own_server.token, reconnect=True) as client:
        share = client.create_share("ses_blocking", [part(0)])
        events = client.subscribe(share.id)
        assert next(events).type == "snapshot"
        own_server.kill()
        own_server.restart()
        assert client.sync_share(share.id, share.secret, [part(1)]) == 2
        assert ids([next(events)]) == ["prt_00001"]
        assert client.state is ConnectionState.CONNECTED
        events.close()  # type: ignore[attr-defined]  # it is a generator
