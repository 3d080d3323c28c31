"""What becomes of calls when the connection is lost: before they were sent, and before they were answered."""

import gc
import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import rpcshare
from rpcshare import ConnectionState, SessionClosedError
from rpcshare.client.backoff import Backoff
from rpcshare.rpc import ConnectionLostError, EncodeError, RpcError, RpcTarget, rpc_method
from support.running_server import RunningServer
from support.tcp_proxy import TcpProxy
from support.waiting import begun, eventually, gathered, limited, others, reached

pytestmark = pytest.mark.on_trio_too


class DisposedOf(RpcTarget):
    def __init__(self) -> None:
        self.disposals = 0

    def dispose(self) -> None:
        self.disposals += 1


def part(number: int, **more: object) -> dict[str, Any]:
    return {"type": "part", "data": {"id": f"prt_{number:05d}", **more}}


async def disconnect(connection: Any, proxy: TcpProxy) -> None:
    """Cut the connection, and let no other come about."""
    proxy.refuses = True
    await proxy.cut()
    await reached(connection, ConnectionState.WAITING)


async def test_calls_made_without_a_connection_go_out_in_order(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        share = await api.createShare("ses_queued01")
        await disconnect(connection, proxy)
        syncs = [begun(api.syncShare(share["id"], share["secret"], [part(n)])) for n in range(20)]
        await others()
        proxy.heal()
        answers = await gathered(syncs)
        assert [answer["syncCount"] for answer in answers] == list(range(1, 21))


async def test_calls_pipelined_without_a_connection_go_out_together(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        await disconnect(connection, proxy)
        info = api.createShare("ses_queued02")
        synced = api.syncShare(info.id, info.secret, [part(1)])
        proxy.heal()
        assert (await synced)["syncCount"] == 1
        assert await info.id == "queued02"


async def test_what_had_no_answer_is_asked_again_with_its_arguments_of_the_new_session(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        proxy.stall()
        info = api.createShare("ses_again001")
        synced = [begun(api.syncShare(info.id, info.secret, [part(n)])) for n in range(3)]
        await anyio.sleep(0.05)  # so that they have left
        proxy.heal()
        await proxy.cut()
        assert [answer["syncCount"] for answer in await gathered(synced)] == [1, 2, 3]


async def test_what_was_carried_out_and_not_acknowledged_is_there_once(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with (
        rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api,
        rpcshare.ShareClient(server.url, token=server.token) as observer,
    ):
        share = await api.createShare("ses_again002")
        proxy.swallows_answers = True
        syncs = [begun(api.syncShare(share["id"], share["secret"], [part(n)])) for n in range(5)]
        async with observer.subscribe("again002", from_sync_count=0) as events:
            while (await anext(events)).sync_count != 5:
                pass
        proxy.heal()
        await proxy.cut()
        await gathered(syncs)
        found = await api.getShare(share["id"])
        assert [item["id"] for item in found["parts"]] == [f"prt_{n:05d}" for n in range(5)]


async def test_an_answer_that_came_is_used_by_what_is_asked_again(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        info = api.createShare("ses_again003")
        await info
        proxy.stall()
        synced = begun(api.syncShare(info.id, info.secret, [part(1)]))
        await anyio.sleep(0.05)
        proxy.heal()
        await proxy.cut()
        assert (await synced)["syncCount"] == 1


async def test_what_nobody_waits_for_is_done_all_the_same(server: RunningServer, proxy: TcpProxy) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        share = await api.createShare("ses_again004")
        proxy.stall()
        api.syncShare(share["id"], share["secret"], [part(1)])
        await anyio.sleep(0.05)
        proxy.heal()
        await proxy.cut()
        async with rpcshare.ShareClient(server.url, token=server.token) as observer:
            async for event in observer.subscribe(share["id"], from_sync_count=0):
                assert event.sync_count == 1
                break


async def test_a_change_of_an_argument_after_the_call_is_not_sent(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        share = await api.createShare("ses_again005")
        await disconnect(connection, proxy)
        items = [part(1, text="as called")]
        synced = begun(api.syncShare(share["id"], share["secret"], items))
        await others()
        items[0]["data"]["text"] = "changed"
        proxy.heal()
        await synced
        assert (await api.getShare(share["id"]))["parts"][0]["text"] == "as called"


@pytest.mark.parametrize("method", ["deleteShare", "probeValue"])
async def test_what_may_not_be_done_twice_fails(server: RunningServer, proxy: TcpProxy, method: str) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        proxy.stall()
        asked = begun(api[method]("nothing", None))
        await others()
        proxy.heal()
        await proxy.cut()
        with pytest.raises(SessionClosedError, match="the connection was lost"):
            await asked


async def test_what_may_not_be_done_twice_is_done_once_if_it_was_never_sent(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        share = await api.createShare("ses_delete01")
        await disconnect(connection, proxy)
        deleted = begun(api.deleteShare(share["id"], share["secret"]))
        await others()
        proxy.heal()
        assert await deleted == {"success": True}


async def test_a_result_of_a_session_breaks_with_it(server: RunningServer, proxy: TcpProxy) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        value = api.probeValue({})
        await others()
        await proxy.cut()
        await api.whoami()
        with pytest.raises(SessionClosedError):
            await value.size


async def test_an_error_is_an_answer(server: RunningServer) -> None:
    async with rpcshare.connect(server.url, token=server.token, reconnect=True) as api:
        with pytest.raises(RpcError, match="Share not found"):
            await api.getShare("missing1")


async def test_a_call_that_was_given_up_before_it_was_sent_is_not_sent(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        share = await api.createShare("ses_cancel01")
        await disconnect(connection, proxy)
        for call in (
            lambda: api.deleteShare(share["id"], share["secret"]),
            lambda: api.syncShare(share["id"], share["secret"], [part(1)]),
        ):
            with pytest.raises(TimeoutError):
                async with limited(0.01):
                    await call()
        await others()  # what is not referred to any longer is let go of in the next turn
        proxy.heal()
        assert (await api.getShareMetadata(share["id"]))["syncCount"] == 0


async def test_a_call_that_was_given_up_is_not_asked_again(server: RunningServer, proxy: TcpProxy) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        share = await api.createShare("ses_cancel02")
        proxy.stall()
        with pytest.raises(TimeoutError):
            async with limited(0.05):
                await api.syncShare(share["id"], share["secret"], [part(1)])
        await others()
        proxy.heal()
        await proxy.cut()
        assert (await api.getShareMetadata(share["id"]))["syncCount"] == 0


async def test_more_calls_wait_than_a_server_takes_at_once(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        await disconnect(connection, proxy)
        asked = [begun(api.whoami()) for _ in range(3_000)]
        await others()
        proxy.heal()
        await gathered(asked)
    assert proxy.accepted == 2


async def test_what_a_server_cannot_take_is_not_sent_to_it_again(
    server: RunningServer, proxy: TcpProxy
) -> None:
    async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
        share = await api.createShare("ses_toolarge")
        with pytest.raises(SessionClosedError, match="message bytes"):
            await api.syncShare(share["id"], share["secret"], [part(1, text="x" * (17 << 20))])
        assert (await api.whoami())["subject"] == "admin"
    assert proxy.accepted == 2


async def test_what_ends_every_session_is_given_up_and_nothing_else_is(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    connection._backoff = Backoff(first=0.01, longest=0.02)
    async with connection as api:
        share = await api.createShare("ses_poison01")
        proxy.longest_talk = 100_000
        texts = ["before", "x" * 200_000, "after"]
        syncs = [
            begun(api.syncShare(share["id"], share["secret"], [part(number, text=text)]))
            for number, text in enumerate(texts)
        ]
        outcomes = await gathered(syncs)
        assert [type(outcome) for outcome in outcomes] == [dict, ConnectionLostError, dict]


async def test_what_has_no_form_on_the_wire_fails_at_the_call(server: RunningServer) -> None:
    async with rpcshare.connect(server.url, token=server.token, reconnect=True) as api:
        for method in (api.syncShare, api.probeValue):
            with pytest.raises(EncodeError):
                method(object())
        assert (await api.whoami())["subject"] == "admin"


async def test_what_waits_and_has_no_form_on_the_wire_fails_when_its_turn_comes(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        await disconnect(connection, proxy)
        asked = [begun(api.syncShare(object())) for _ in range(2_000)]
        await others()
        proxy.heal()
        for outcome in await gathered(asked):
            assert isinstance(outcome, EncodeError)
        assert (await api.whoami())["subject"] == "admin"


class Callback(RpcTarget):
    def __init__(self) -> None:
        self.is_disposed = False

    @rpc_method("call()")
    def call(self) -> None: ...

    def dispose(self) -> None:
        self.is_disposed = True


async def test_a_target_that_is_passed_lives_as_long_as_the_server_holds_it(server: RunningServer) -> None:
    async with rpcshare.connect(server.url, token=server.token, reconnect=True) as api:
        target = Callback()
        asked = api.probeValue({"nested": target})
        await checkpoint()  # it is on its way
        assert not target.is_disposed
        with pytest.raises(RpcError):  # the server has no use for it
            await asked
        await eventually(lambda: target.is_disposed)


async def test_functions_are_called_whether_the_call_had_to_wait_or_not(
    server: RunningServer, proxy: TcpProxy
) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        assert await api.probeCallback(lambda word: f"{word}!") == "server-called!"
        await disconnect(connection, proxy)
        asked = begun(api.probeCallback(lambda word: f"{word}?"))
        await others()
        proxy.heal()
        assert await asked == "server-called?"


async def test_a_map_is_applied_on_the_session_that_there_is(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        await disconnect(connection, proxy)
        asked = begun(api.whoami().scopes.map(lambda scope: {"scope": scope}))
        await others()
        proxy.heal()
        assert await asked == [{"scope": "admin"}]


async def test_nothing_piles_up(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        share = await api.createShare("ses_pilesup1")
        for turn in range(3):
            for number in range(100):
                await api.syncShare(share["id"], share["secret"], [part(number)])
                await api.probeCallback(lambda word: word)
                with pytest.raises(RpcError):
                    await api.getShare("missing1")
            if turn:
                await proxy.cut()
                await api.whoami()
        attempt = connection._current
        assert attempt is not None
        assert attempt.connection is not None
        session = attempt.connection.session
        await eventually(lambda: (session.stats().imports, session.stats().exports) == (1, 1))
        calls = connection._calls
        assert calls is not None
        held = (calls._waiting, calls._sent, calls._standing, calls._near, calls._tasks)
        assert not any(held)


async def test_nothing_of_a_session_that_ended_is_kept(server: RunningServer, proxy: TcpProxy) -> None:
    connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
    async with connection as api:
        await api.whoami()
        attempt = connection._current
        assert attempt is not None
        assert attempt.connection is not None
        # Compiled, a session takes no weak references; what it alone keeps is gone when it is.
        kept_by_it = weakref.ref(attempt.connection.session.remote_main)
        del attempt
        await proxy.cut()
        await api.whoami()
        await eventually(lambda: not connection._endings)
        gc.collect()
        assert kept_by_it() is None


class TestATargetThatWasPassedToACall:
    async def test_is_disposed_of_if_there_was_no_session_for_the_call(
        self, server: RunningServer, proxy: TcpProxy
    ) -> None:
        connection = rpcshare.connect(proxy.url, token=server.token, reconnect=True)
        targets = [DisposedOf(), DisposedOf()]
        async with connection as api:
            await disconnect(connection, proxy)
            calls = [begun(api.nothing(targets[0])), begun(api.createShare("ses_none01", [targets[1]]))]
            await others()
        await gathered(calls)
        assert [target.disposals for target in targets] == [1, 1]

    async def test_is_disposed_of_if_there_will_be_no_other(
        self, server: RunningServer, proxy: TcpProxy
    ) -> None:
        target = DisposedOf()
        async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
            await api.whoami()
        with pytest.raises(SessionClosedError):
            await api.nothing(target)
        assert target.disposals == 1

    async def test_is_disposed_of_once_by_the_session_that_sent_it(
        self, server: RunningServer, proxy: TcpProxy
    ) -> None:
        target = DisposedOf()
        async with rpcshare.connect(proxy.url, token=server.token, reconnect=True) as api:
            with pytest.raises(RpcError):
                await api.nothing(target)
            await eventually(lambda: target.disposals > 0)
            await api.whoami()
            gc.collect()
            await api.whoami()
        assert target.disposals == 1
