"""Our client, and a server made with npm's capnweb (tests/node/interop_server.mjs)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from agreed_values import VALUES, shown
from websockets.asyncio.client import ClientConnection, connect

from rpcshare.rpc import (
    JSON,
    UNDEFINED,
    Connection,
    RpcError,
    RpcTarget,
    SessionClosedError,
    Stub,
    WebSocketTransport,
    rpc_method,
    rpc_property,
)

pytestmark = pytest.mark.node


class RecordingTransport(WebSocketTransport):
    """Notes each message, in the order in which they pass here."""

    def __init__(self, websocket: ClientConnection) -> None:
        super().__init__(websocket)
        self.passed: list[tuple[str, object]] = []

    async def receive(self) -> bytes | str:
        frame = await super().receive()
        self.passed.append(("received", JSON.decode(frame)))
        return frame

    async def send(self, frame: bytes, *, text: bool) -> None:
        self.passed.append(("sent", JSON.decode(frame)))
        await super().send(frame, text=text)

    def before_any_reply(self) -> list[object]:
        """Return what had been sent when the first reply arrived."""
        kinds = [kind for kind, _ in self.passed]
        return [message for _, message in self.passed[: kinds.index("received")]]


class Counter(RpcTarget):
    def __init__(self, value: int) -> None:
        self.count = value
        self.disposed = asyncio.Event()

    @rpc_method("increment(n?)")
    async def increment(self, n: int = 1) -> int:
        self.count += n
        return self.count

    @rpc_property("value")
    def value(self) -> int:
        return self.count

    def dispose(self) -> None:
        self.disposed.set()


@pytest.fixture
async def connection(npm_server: str) -> AsyncIterator[Connection]:
    async with (
        connect(npm_server, compression=None, proxy=None) as websocket,
        Connection(RecordingTransport(websocket)) as connection,
    ):
        yield connection


@pytest.fixture
def api(connection: Connection) -> Stub:
    return connection.remote_main


class TestCalls:
    async def test_square(self, api: Stub) -> None:
        assert await api.square(7) == 49

    async def test_call_square(self, api: Stub) -> None:
        assert await api.callSquare(api, 5) == {"result": 25}

    async def test_call_function(self, api: Stub) -> None:
        assert await api.callFunction(lambda i: i * 3, 5) == {"result": 15}

    async def test_call_async_function(self, api: Stub) -> None:
        async def times_four(i: int) -> int:
            await asyncio.sleep(0)
            return i * 4

        assert await api.callFunction(times_four, 5) == {"result": 20}

    async def test_generate_fibonacci(self, api: Stub) -> None:
        assert await api.generateFibonacci(10) == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
        assert await api.generateFibonacci(0) == []

    async def test_returns(self, api: Stub) -> None:
        assert await api.returnNull() is None
        assert await api.returnUndefined() is UNDEFINED
        assert await api.returnNumber(-2.5) == -2.5

    async def test_arguments_left_out_and_undefined_are_the_same(self, api: Stub) -> None:
        with await api.makeCounter(1) as counter:
            assert await counter.increment(UNDEFINED) == 2

    async def test_many_at_once(self, api: Stub) -> None:
        squares = await asyncio.gather(*(api.square(i) for i in range(300)))
        assert squares == [i * i for i in range(300)]

    async def test_order(self, api: Stub) -> None:
        for i in range(100):
            api.note(i)
        assert await api.noted() == list(range(100))


class TestErrors:
    async def test_throw_error(self, api: Stub) -> None:
        with pytest.raises(RpcError) as caught:
            await api.throwError()
        error = caught.value
        assert (error.name, error.message, error.code) == ("RangeError", "test error", "OUT")
        assert error.properties["detail"] == {"list": [1]}

    async def test_of_pipelined_calls(self, api: Stub) -> None:
        for promise in (api.throwError().deeper(1), api.square(api.throwError())):
            with pytest.raises(RpcError, match="test error"):
                await promise

    async def test_of_what_is_no_function(self, api: Stub) -> None:
        with pytest.raises(RpcError, match="'nowhere' is not a function"):
            await api.nowhere()

    async def test_of_a_callback(self, api: Stub) -> None:
        def refuse() -> None:
            raise RpcError("far", name="RangeError", code="F")

        assert await api.errorOf(refuse) == {"name": "RangeError", "message": "far", "code": "F"}

    async def test_of_a_callback_that_are_not_meant_for_the_peer(self, api: Stub) -> None:
        assert await api.errorOf(lambda: 1 / 0) == {
            "name": "Error",
            "message": "Internal server error",
            "code": "INTERNAL",
        }


class TestReferences:
    async def test_make_counter(self, api: Stub) -> None:
        with await api.makeCounter(4) as counter:
            assert await counter.increment() == 5
            assert await counter.increment(4) == 9
            assert await counter.value == 9

    async def test_pipelining(self, api: Stub) -> None:
        with api.makeCounter(4) as counter:
            calls = counter.increment(2), counter.value, counter.increment(), counter.value
            # A property is read when it is awaited, which here is after both calls have been made.
            assert await asyncio.gather(*calls) == [6, 7, 7, 7]
        assert await api.square(api.square(api.square(2))) == 256
        assert await api.returnNumber(api.callSquare(api, 3).result) == 9

    async def test_increment_counter_of_the_peer(self, api: Stub) -> None:
        with await api.makeCounter(1) as counter:
            assert await api.incrementCounter(counter, 5) == 6
        assert await api.incrementCounter(api.makeCounter(3)) == 4

    async def test_increment_counter_of_this_side(self, api: Stub) -> None:
        counter = Counter(10)
        assert await api.incrementCounter(counter) == 11
        await counter.disposed.wait()

    async def test_the_peer_uses_a_counter_of_this_side(self, api: Stub) -> None:
        assert await api.useCounter(Counter(1)) == [6, 6, 6]

    async def test_a_callback_that_the_peer_keeps(self, api: Stub) -> None:
        seen: list[object] = []

        def note(value: object) -> int:
            seen.append(value)
            return len(seen)

        await api.keep(note)
        assert await api.callKept("a") == 1
        assert await api.callKept("b") == 2
        await api.release()
        assert seen == ["a", "b"]

    async def test_disposing_of_a_stub_disposes_of_the_target(self, api: Stub) -> None:
        before = await api.disposals()
        with await api.makeCounter(1) as counter:
            await counter.increment()
        assert await api.disposals() == before + 1

    async def test_both_tables_are_back_to_the_start(self, api: Stub, connection: Connection) -> None:
        for i in range(20):
            with await api.makeCounter(i) as counter:
                await asyncio.gather(
                    counter.increment(),
                    counter.value,
                    api.callFunction(lambda x: x, i),
                    api.incrementCounter(Counter(i)),
                    api.callSquare(api, i),
                    api.errorOf(lambda: 1 / 0),
                    api.throwError(),
                    return_exceptions=True,
                )
        del counter
        await asyncio.sleep(0)
        assert await api.stats() == {"imports": 1, "exports": 1}
        stats = connection.session.stats()
        assert (stats.imports, stats.exports) == (1, 1)


class TestTheEnd:
    async def test_the_peer_hangs_up(self, api: Stub) -> None:
        broken: list[Exception] = []
        counter = await api.makeCounter(1)
        counter.on_broken(broken.append)
        with pytest.raises(SessionClosedError):
            await api.hangUp()
        assert len(broken) == 1
        with pytest.raises(SessionClosedError):
            await counter.increment()

    async def test_the_peer_aborts(self, api: Stub, connection: Connection) -> None:
        await connection.transport.send(b'["pull",99]', text=True)
        with pytest.raises(SessionClosedError, match="the peer ended the session: no such export ID: 99"):
            await api.square(1)


class TestCreateAndSync:
    """The two forms of creating and filling a share: all of it is sent before any reply arrives."""

    async def test_create_with_data(self, api: Stub, connection: Connection) -> None:
        data = [{"type": "session", "data": {"id": "ses_ab"}}]
        await api.createShare("ses_ab", data)
        assert isinstance(connection.transport, RecordingTransport)
        assert connection.transport.before_any_reply() == [
            ["push", ["pipeline", 0, ["createShare"], ["ses_ab", [data]]]],
            ["pull", 1],
        ]

    async def test_create_then_sync(self, api: Stub, connection: Connection) -> None:
        share = api.createShare("ses_ab")
        synced = await api.syncShare(share.id, share.secret, [1])
        assert synced == {"id": "ab", "secret": "secret of ses_ab", "data": [1]}
        arguments = [["pipeline", 1, ["id"]], ["pipeline", 1, ["secret"]], [[1]]]
        assert isinstance(connection.transport, RecordingTransport)
        assert connection.transport.before_any_reply() == [
            ["push", ["pipeline", 0, ["createShare"], ["ses_ab"]]],
            ["push", ["pipeline", 0, ["syncShare"], arguments]],
            ["pull", 2],
        ]


@pytest.mark.parametrize("name", VALUES)
class TestValues:
    async def test_are_echoed(self, api: Stub, name: str) -> None:
        assert shown(await api.echo(VALUES[name])) == shown(VALUES[name])

    async def test_arrive(self, api: Stub, name: str) -> None:
        assert shown(await api.valueOf_(name)) == shown(VALUES[name])
