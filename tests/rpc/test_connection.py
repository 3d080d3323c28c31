"""A session over a transport: what arrives is carried out in order, and every end is a clean one."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from links import memory_link, websocket_link
from transcript import Counter

from rpcshare.rpc import (
    Connection,
    LimitExceededError,
    Limits,
    ProtocolError,
    RpcError,
    RpcTarget,
    SessionClosedError,
    Stub,
    Transport,
    rpc_method,
)
from support.narrowing import not_none
from support.waiting import eventually

Link = Callable[[], AbstractAsyncContextManager[tuple[Transport, Transport]]]

pytestmark = pytest.mark.parametrize(
    "link", [memory_link, websocket_link], ids=["in memory", "over WebSocket"]
)


class Api(RpcTarget):
    """Methods of each kind, with a log of what they did."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.connection: Connection | None = None

    @rpc_method("now(name)")
    def now(self, name: str) -> str:
        self.log.append(f"{name} began")
        return name

    @rpc_method("later(name)")
    async def later(self, name: str) -> str:
        self.log.append(f"{name} began")
        await self.gate.wait()
        self.log.append(f"{name} ended")
        return name

    @rpc_method("soon(name)")
    async def soon(self, name: str) -> str:
        self.log.append(f"{name} began")
        await asyncio.sleep(0)
        return name

    @rpc_method("fail(late)")
    async def fail(self, late: bool) -> None:
        if late:
            await asyncio.sleep(0)
        raise RpcError("no", code="NO")

    @rpc_method("crash()")
    async def crash(self) -> None:
        raise ZeroDivisionError

    @rpc_method("callBack(function, value)")
    async def call_back(self, function: Stub, value: object) -> object:
        return ["called", await function(value)]

    @rpc_method("makeCounter(value)")
    async def make_counter(self, value: int) -> Counter:
        await asyncio.sleep(0)
        return Counter(value)

    @rpc_method("text(size)")
    def text(self, size: int) -> str:
        return "x" * size

    @rpc_method("hangUp()")
    async def hang_up(self) -> None:
        await not_none(self.connection).close()
        self.log.append("hung up")


@pytest.fixture
async def api() -> Api:
    return Api()


@asynccontextmanager
async def connected(
    link: Link, api: Api | None = None, **options: Any
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Yield the client's and the server's connection, both running."""
    async with (
        link() as (near, far),
        Connection(far, api, **options) as server,
        Connection(near) as client,
    ):
        if api is not None:
            api.connection = server
        yield client, server


class TestCalls:
    async def test_return_what_the_method_returned(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, _):
            assert await client.remote_main.now("a") == "a"
            assert await client.remote_main.soon("b") == "b"

    async def test_go_both_ways(self, link: Link, api: Api) -> None:
        async def twice(value: int) -> int:
            await asyncio.sleep(0)
            return value * 2

        async with connected(link, api) as (client, _):
            assert await client.remote_main.callBack(twice, 4) == ["called", 8]

    async def test_may_be_made_to_the_client_by_the_server(self, link: Link) -> None:
        async with link() as (near, far), Connection(far) as server, Connection(near, Counter(1)):
            assert await server.remote_main.increment(2) == 3

    async def test_may_be_pipelined_on_what_an_async_method_has_yet_to_return(
        self, link: Link, api: Api
    ) -> None:
        async with connected(link, api) as (client, _):
            counter = client.remote_main.makeCounter(5)
            assert await asyncio.gather(counter.increment(1), counter.increment(1), counter.value) == [
                6,
                7,
                7,
            ]

    async def test_many_at_once_each_get_their_own_result(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            names = [f"call {n}" for n in range(300)]
            assert await asyncio.gather(*(client.remote_main.soon(name) for name in names)) == names
            await eventually(lambda: server.session.stats().exports == 1)

    async def test_begin_in_the_order_in_which_they_were_made(self, link: Link, api: Api) -> None:
        api.gate.set()
        async with connected(link, api) as (client, _):
            kinds = ["later", "now", "soon", "now", "now", "later", "soon", "now"] * 5
            calls = [client.remote_main[kind](str(n)) for n, kind in enumerate(kinds)]
            await asyncio.gather(*calls)
        begun = [line for line in api.log if line.endswith("began")]
        assert begun == [f"{n} began" for n in range(len(kinds))]

    async def test_do_not_wait_for_those_that_take_longer(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, _):
            slow = asyncio.ensure_future(client.remote_main.later("slow"))
            assert await client.remote_main.now("quick") == "quick"
            assert not slow.done()
            api.gate.set()
            assert await slow == "slow"


class TestErrors:
    @pytest.mark.parametrize("late", [False, True])
    async def test_of_async_methods_reach_the_caller(self, link: Link, api: Api, late: bool) -> None:
        async with connected(link, api) as (client, _):
            with pytest.raises(RpcError, match="no") as caught:
                await client.remote_main.fail(late)
            assert caught.value.code == "NO"

    async def test_that_are_not_meant_for_the_peer_are_concealed(
        self, link: Link, api: Api, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with connected(link, api) as (client, _):
            with pytest.raises(RpcError, match="Internal server error") as caught:
                await client.remote_main.crash()
            assert caught.value.code == "INTERNAL"
            assert "ZeroDivisionError" in caplog.text
            assert await client.remote_main.now("still there") == "still there"

    async def test_of_a_callback_reach_the_method_that_called_it(self, link: Link, api: Api) -> None:
        def refuse(value: object) -> None:
            raise RpcError(f"not {value}")

        async with connected(link, api) as (client, _):
            with pytest.raises(RpcError, match="not this"):
                await client.remote_main.callBack(refuse, "this")

    async def test_of_a_cancelled_method_are_errors_of_the_call(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            slow = asyncio.ensure_future(client.remote_main.later("slow"))
            await eventually(lambda: api.log == ["slow began"])
            (task,) = server._tasks
            task.cancel()
            with pytest.raises(RpcError, match="cancelled"):
                await slow


class TestWhatThePeerMayNotSend:
    @pytest.mark.parametrize(
        "frame",
        [b"", b"{", b"hello", b"\xff\xfe", b"[1]]", b"NaN", b'["push",\x00]', b"[" * 100_000],
        ids=lambda frame: repr(frame[:10]),
    )
    async def test_a_frame_that_is_not_json_ends_the_session(
        self, link: Link, api: Api, frame: bytes
    ) -> None:
        async with link() as (near, far), Connection(far, api) as server:
            await near.send(frame, text=False)
            kind, error = json.loads(await near.receive())
            assert (kind, error[0]) == ("abort", "error")
            assert isinstance(server.session.closed, ProtocolError)

    async def test_a_message_that_is_too_long_ends_the_session(self, link: Link, api: Api) -> None:
        async with connected(link, api, limits=Limits(message_bytes=1_000)) as (client, server):
            call = client.remote_main.now("x" * 1_000)
            with pytest.raises(SessionClosedError, match="message bytes"):
                await call
            assert isinstance(server.session.closed, LimitExceededError)

    async def test_another_session_of_the_same_target_goes_on(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (modest, _), connected(link, api) as (greedy, _):
            await greedy.transport.send(b"nonsense", text=True)
            with pytest.raises(SessionClosedError):
                await greedy.remote_main.later("never")
            assert await modest.remote_main.now("here") == "here"


class TestLosingTheConnection:
    async def test_fails_the_calls_under_way(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            waiting = asyncio.ensure_future(client.remote_main.later("slow"))
            await eventually(lambda: bool(api.log))
            await server.transport.close(1011, "broken")
            with pytest.raises(SessionClosedError, match=r"the connection was lost: .*1011.*broken"):
                await waiting
            api.gate.set()

    async def test_breaks_the_stubs_of_both_sides(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            broken: list[Exception] = []
            client.remote_main.on_broken(broken.append)
            server.remote_main.on_broken(broken.append)
            await client.transport.close(1000, "")
            await eventually(lambda: len(broken) == 2)

    async def test_lets_the_calls_of_the_peer_end(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            client.remote_main.later("slow").dispose()
            await eventually(lambda: bool(api.log))
            await client.close()
            await eventually(lambda: server.session.closed is not None)
            api.gate.set()
        assert api.log == ["slow began", "slow ended"]

    async def test_gives_those_calls_no_more_than_their_grace(self, link: Link, api: Api) -> None:
        async with connected(link, api, call_grace=0.01) as (client, server):
            client.remote_main.later("slow").dispose()
            await eventually(lambda: bool(api.log))
            await client.close()
            await eventually(lambda: not server._tasks)
        assert api.log == ["slow began"]

    async def test_disposes_of_what_was_exported(self, link: Link) -> None:
        counter = Counter()
        async with connected(link, None) as (client, server):
            client.remote_main.f(counter)
            await server.transport.close(1000, "")
            await eventually(lambda: counter.disposals == 1)


class TestClosing:
    async def test_fails_the_calls_of_this_side(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, _):
            waiting = asyncio.ensure_future(client.remote_main.later("slow"))
            await eventually(lambda: bool(api.log))
            await client.close()
            with pytest.raises(SessionClosedError, match="closed by this side"):
                await waiting
            api.gate.set()

    async def test_lets_what_was_sent_before_leave(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, _):
            client.remote_main.now("a last word")
            await client.close()
            await eventually(lambda: bool(api.log))

    async def test_twice_is_once(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, _):
            await asyncio.gather(client.close(), client.close())
            await client.close()

    async def test_tells_the_peer_the_code(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            await server.close(1012)
            await eventually(lambda: client.session.closed is not None)
            assert "1012" in str(client.session.closed)

    async def test_may_be_done_by_a_method(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, _):
            with pytest.raises(SessionClosedError):
                await client.remote_main.hangUp()
            await eventually(lambda: api.log == ["hung up"])

    async def test_happens_at_the_end_of_the_block(self, link: Link, api: Api) -> None:
        with pytest.raises(KeyError):
            async with connected(link, api) as (client, server):
                raise KeyError
        assert client.session.closed
        assert server.session.closed

    async def test_happens_when_whoever_runs_it_is_cancelled(self, link: Link, api: Api) -> None:
        async with link() as (near, far), Connection(near) as client:
            running = asyncio.create_task(Connection(far, api).run())
            await client.remote_main.now("a")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await eventually(lambda: client.session.closed is not None)

    async def test_leaves_nothing_behind(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            counter = await client.remote_main.makeCounter(1)
            await client.remote_main.callBack(lambda value: value, 1)
            with pytest.raises(RpcError):
                await client.remote_main.fail(True)
        # Compiled, a session takes no weak references; what it alone keeps is gone when it is.
        kept = [weakref.ref(client.session.remote_main), weakref.ref(server.session.remote_main)]
        api.connection = None
        del client, server, counter
        await asyncio.sleep(0)
        gc.collect()
        assert [stub() for stub in kept] == [None, None]


class TestDraining:
    async def test_lets_the_calls_under_way_return(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            waiting = asyncio.ensure_future(client.remote_main.later("slow"))
            await eventually(lambda: bool(api.log))
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            api.gate.set()
            assert await waiting == "slow"
            await draining

    async def test_closes_when_nothing_is_under_way(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            await client.remote_main.now("a")
            await server.drain()
            await eventually(lambda: client.session.closed is not None)
            assert "1001" in str(client.session.closed)

    async def test_lets_no_call_begin(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            waiting = asyncio.ensure_future(client.remote_main.later("slow"))
            await eventually(lambda: bool(api.log))
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            late = asyncio.ensure_future(client.remote_main.now("late"))
            await asyncio.sleep(0.01)
            api.gate.set()
            await waiting
            await draining
            with pytest.raises(SessionClosedError):
                await late
        assert api.log == ["slow began", "slow ended"]

    async def test_does_not_wait_longer_than_the_grace_for_a_call_that_waits_for_the_peer(
        self, link: Link, api: Api
    ) -> None:
        asked, over = asyncio.Event(), asyncio.Event()

        async def answer(value: object) -> None:
            asked.set()
            await over.wait()

        async with connected(link, api, call_grace=0.01) as (client, server):
            calling = asyncio.ensure_future(client.remote_main.callBack(answer, 1))
            await asked.wait()
            await server.drain()
            with pytest.raises(SessionClosedError):
                await calling
            over.set()


class TestGarbage:
    async def test_a_stub_that_another_thread_collected_is_released(self, link: Link, api: Api) -> None:
        async with connected(link, api) as (client, server):
            cycle: list[object] = [await client.remote_main.makeCounter(1)]
            cycle.append(cycle)
            await eventually(lambda: server.session.stats().exports == 2)
            del cycle
            collector = threading.Thread(target=gc.collect)
            collector.start()
            collector.join()
            await eventually(lambda: server.session.stats().exports == 1)
