"""What a peer makes a session hold or copy: it is counted, bounded, and given back."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from transcript import Api, BareSession, call

from rpcshare.rpc import (
    JSON,
    Connection,
    Limits,
    Preencoded,
    ReadableStream,
    RpcTarget,
    rpc_method,
)
from rpcshare.rpc.batch import BatchServerTransport
from rpcshare.rpc.callback_connection import CallbackConnection
from rpcshare.rpc.memory_budget import VALUE_BYTES, Pool
from rpcshare.rpc.messagepack import MESSAGEPACK
from rpcshare.rpc.session import MAX_UNSENT
from rpcshare.rpc.transport import TransportClosedError

WIDE = 10_000


def wide(count: int = WIDE) -> list[object]:
    """Return the expression of an array of so many empty objects."""
    return [[{}] * count]


def held(side: BareSession) -> int:
    return side.session.account.held


class Encoded(RpcTarget):
    """Returns a value that others are sent as well."""

    def __init__(self, value: Sequence[object]) -> None:
        self.value = value

    @rpc_method("get()")
    def get(self) -> Preencoded:
        count = len(self.value) + 2
        return Preencoded(load=lambda: {"value": self.value}, size=3 * count, count=lambda _most: count)


def in_rounds(side: BareSession) -> list[list[Any]]:
    """Take what the session sends, each time there is something; say then that there is room for more."""
    rounds = [side.sent()]
    while side.session.waits_for_room:
        side.session.tell_of_room()
        rounds.append(side.sent())
    return rounds


@pytest.fixture
def server() -> BareSession:
    return BareSession(Api())


@pytest.mark.parametrize(
    "expression",
    [
        {},
        [[]],
        {"a": 1},
        ["date", 1e300],
        ["bigint", "99999999999999"],
        ["url", "a:b"],
        ["bytes", "AA=="],
        ["bytes", "AA==", "Int8Array"],
        ["headers", []],
        ["headers", [["a", "b"], ["c", "d"]]],
        ["error", "E", "m"],
        ["error", "E", "m", None, {"cause": ["error", "E", "m"]}],
        ["request", "a:b", {"headers": [["a", "b"], ["c", "d"]]}],
        ["request", "a:b", {"cf": [[], [], [], [], [], []]}],
        ["response", None, {"headers": [["a", "b"], ["c", "d"]]}],
        "\N{SNOWMAN}",
        1.5,
    ],
    ids=str,
)
def test_a_value_counts_for_at_least_what_it_takes(server: BareSession, expression: object) -> None:
    text = json.dumps(["push", [[expression] * 2000]]).encode()
    server.feed(["push", wide(1)])
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0], held(server)
        server.session.receive(JSON.decode(text), len(text))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before[0]
    finally:
        tracemalloc.stop()
    assert server.session.closed is None
    assert 2000 * 8 < taken < held(server) - before[1]


class TestWhatIsHeld:
    def test_counts_for_its_values(self, server: BareSession) -> None:
        server.feed(["push", wide()])
        assert WIDE * VALUE_BYTES <= held(server) < 3 * WIDE * VALUE_BYTES

    def test_counts_no_longer_once_it_is_released(self, server: BareSession) -> None:
        before = held(server)
        server.feed(["push", wide()], ["release", 1, 1])
        assert held(server) == before

    def test_counts_no_longer_once_the_session_is_over(self, server: BareSession) -> None:
        server.feed(["push", wide()], call("note", args=[wide()]))
        server.feed(["abort", ["error", "Error", "enough"]])
        server.asked().clear()
        assert held(server) == 0

    def test_counts_no_longer_once_the_call_it_was_for_has_returned(self, server: BareSession) -> None:
        before = held(server)
        server.exchange(call("square", args=[wide()]), ["pull", 1], ["release", 1, 1])
        assert held(server) == before

    def test_counts_as_long_as_a_part_of_it_is_referred_to(self, server: BareSession) -> None:
        server.feed(["push", {"a": wide()}])
        whole = held(server)
        server.feed(["push", ["pipeline", 1, ["a"]]], ["release", 1, 1])
        assert held(server) > whole - 2 * VALUE_BYTES - 2048
        server.feed(["release", 2, 1])
        assert held(server) < WIDE

    def test_is_a_result_that_nobody_has_asked_for(self, server: BareSession) -> None:
        server.exchange(call("wrap", args=[wide()]))
        assert held(server) > WIDE * VALUE_BYTES

    def test_is_a_result_that_has_been_sent_until_it_is_released(self, server: BareSession) -> None:
        before = held(server)
        server.exchange(call("wrap", args=[wide()]), ["pull", 1])
        assert held(server) > WIDE * VALUE_BYTES
        server.feed(["release", 1, 1])
        assert held(server) == before

    def test_is_not_the_same_value_once_for_each_time_it_is_asked_for(self) -> None:
        server = BareSession(Encoded([{}] * 2 * WIDE))
        server.feed(call("get", args=[]))
        for number in range(2, 102):
            server.feed(call("value", of=1), ["pull", number])
        server.carry_out()  # upon which all of them are known
        rounds = in_rounds(server)
        assert max(map(len, rounds)) * 2 * WIDE * VALUE_BYTES < 2 * MAX_UNSENT
        answers = [message for messages in rounds for message in messages]
        assert [message[:2] for message in answers] == [["resolve", number] for number in range(2, 102)]

    def test_is_not_all_that_one_message_introduces(self) -> None:
        server = BareSession(Encoded([{}] * 2 * WIDE))
        server.feed(call("get", args=[]), ["push", [[["pipeline", 1, ["value"]] for _ in range(100)]]])
        server.feed(["pull", 2])
        server.carry_out()
        rounds = in_rounds(server)
        assert max(map(len, rounds)) * 2 * WIDE * VALUE_BYTES < 2 * MAX_UNSENT
        assert sum(map(len, rounds)) == 101

    def test_is_what_a_stream_has_not_been_read_of(self, server: BareSession) -> None:
        server.feed(["pipe"], ["stream", ["pipeline", 1, ["write"], [wide()]]])
        assert held(server) > WIDE * VALUE_BYTES
        server.feed(["release", 1, 1])
        assert held(server) < WIDE

    def test_is_what_waits_for_a_call(self, server: BareSession) -> None:
        server.feed(call("square", args=[1]), ["push", ["pipeline", 1, ["a"], [wide()]]])
        assert held(server) > WIDE * VALUE_BYTES

    def test_is_each_stub(self, server: BareSession) -> None:
        before = held(server)
        server.feed(["push", [[["export", -1 - number] for number in range(100)]]])
        assert held(server) > before + 100 * 1024
        server.feed(["release", 1, 1])
        server.sent()
        assert held(server) == before


class TestReferences:
    """However often one value is referred to, it is there once, or counts each time."""

    def test_to_a_property_share_it(self, server: BareSession) -> None:
        server.feed(["push", {"a": wide()}])
        once = held(server)
        server.feed(*[["push", ["pipeline", 1, ["a"]]]] * 100)
        assert held(server) < once + 100 * 2048

    def test_to_a_property_get_what_was_there(self, server: BareSession) -> None:
        server.feed(["push", {"a": [[{"b": [[1, 2]]}]]}], ["push", ["pipeline", 1, ["a", 0]]])
        assert server.exchange(["pull", 2]) == [["resolve", 2, {"b": [[1, 2]]}]]

    def test_to_a_property_are_copied_for_a_call(self, server: BareSession) -> None:
        server.feed(["push", {"a": [[1]]}], ["push", ["pipeline", 1, ["a"]]])
        server.exchange(call("note", args=[["pipeline", 2]]), call("note", args=[["pipeline", 2]]))
        one, other = cast("Any", server.session.exports.reference(0)).target.log
        assert one == other == [1]
        assert one is not other

    def test_from_the_elements_of_a_map_share_them(self, server: BareSession) -> None:
        server.feed(["push", [[wide(50)] * 100]])
        once = held(server)
        server.feed(*[["push", ["remap", 1, [], [], [["pipeline", 0]]]]] * 100)
        assert server.session.closed is None
        assert held(server) < 5 * once

    def test_that_double_each_time_fail_when_they_are_sent(self) -> None:
        server = BareSession(Api(), limits=Limits(values=1000))
        doubled = [[["pipeline", 0], ["pipeline", 0]]]
        server.feed(["push", {"a": 1}])
        for number in range(1, 40):
            server.feed(["push", ["remap", number, [], [], [{"a": doubled}]]])
        (answer,) = server.exchange(["pull", 40])
        assert answer[0] == "reject"
        assert "limit exceeded: values" in answer[2][2]
        assert server.exchange(call("square", args=[3]), ["pull", 41]) == [["resolve", 41, 9]]

    def test_that_take_too_much_fail_their_call_and_no_other(self) -> None:
        server = BareSession(Api(), limits=Limits(memory_bytes=2 * WIDE * VALUE_BYTES * 3))
        server.feed(["push", wide()])
        answers = server.exchange(
            *[call("wrap", args=[["pipeline", 1]]) for _ in range(10)],
            call("square", args=[3]),
            *[["pull", number] for number in range(2, 13)],
        )
        failed = [answer for answer in answers if answer[0] == "reject"]
        assert failed
        assert all(
            answer[2][2].startswith("limit exceeded: memory of the session")
            and answer[2][4] == {"code": "PAYLOAD_TOO_LARGE"}
            for answer in failed
        )
        assert answers[-1] == ["resolve", 12, 9]
        assert server.session.closed is None

    def test_of_one_message_do_not_copy_more_values_than_a_message_may_have(self) -> None:
        server = BareSession(Api(), limits=Limits(values=5 * WIDE))
        server.feed(["push", wide()])
        references = [["pipeline", 1] for _ in range(20)]
        (answer,) = server.exchange(call("wrap", args=[[references]]), ["pull", 2])
        assert "limit exceeded: values copied at once" in answer[2][2]


class TestPartsOfWhatWasEncodedBefore:
    """They are decoded once, whatever is asked of them, and count as what they are."""

    class Shelf(RpcTarget):
        def __init__(self, values: int) -> None:
            self.decoded = 0
            self.values = values

        @rpc_method("book()")
        def book(self) -> object:
            return Preencoded(load=self.load, size=100, count=lambda _most: self.values)

        def load(self) -> object:
            self.decoded += 1
            return {"pages": [{} for _ in range(self.values)]}

    def test_are_decoded_once(self) -> None:
        shelf = self.Shelf(WIDE)
        server = BareSession(shelf)
        pages = ["push", ["pipeline", 1, ["pages"]]]
        server.exchange(call("book", args=[]), *[pages] * 50, *[["push", ["remap", 1, [], [], [1]]]] * 50)
        assert shelf.decoded == 1
        assert WIDE * VALUE_BYTES < held(server) < 2 * WIDE * VALUE_BYTES + 200 * 1024

    def test_count_no_longer_once_they_are_released(self) -> None:
        server = BareSession(self.Shelf(WIDE))
        before = held(server)
        server.exchange(call("book", args=[]), ["push", ["pipeline", 1, ["pages"]]])
        server.exchange(["release", 1, 1], ["release", 2, 1])
        assert held(server) == before

    @pytest.mark.parametrize("limits", [Limits(values=WIDE - 1), Limits(memory_bytes=WIDE * VALUE_BYTES)])
    @pytest.mark.parametrize(
        "part", [["pipeline", 1, ["pages"]], ["remap", 1, ["pages"], [], [["pipeline", 0]]]]
    )
    def test_are_not_decoded_if_they_are_too_many(self, limits, part) -> None:
        shelf = self.Shelf(WIDE)
        server = BareSession(shelf, limits=limits)
        (answer,) = server.exchange(call("book", args=[]), ["push", part], ["pull", 2])
        assert answer[0] == "reject"
        assert answer[2][4] == {"code": "PAYLOAD_TOO_LARGE"}
        assert shelf.decoded == 0
        assert server.session.closed is None


class TestTooMuch:
    async def test_is_the_begin_of_a_message_that_does_not_end(self) -> None:
        pool = Pool(10**6)
        connections = [CallbackConnection(FakeTransport(), Api(), pool=pool) for _ in range(5)]
        for connection in connections:
            connection.attach()
            connection.holding(300_000)
        assert sum(connection.session.closed is not None for connection in connections) == 2
        for connection in connections:
            connection.transport_lost(TransportClosedError("the test is over"))
        assert pool.held == 0

    def test_ends_the_session_that_pushes_it(self) -> None:
        server = BareSession(Api(), limits=Limits(memory_bytes=WIDE * VALUE_BYTES))
        server.feed(["push", wide()])
        assert str(server.session.closed).startswith("limit exceeded: memory of the session")
        assert held(server) == 0

    def test_ends_the_session_of_the_caller_that_holds_most(self) -> None:
        pool = Pool(5 * WIDE * VALUE_BYTES)
        greedy = [BareSession(Api(), pool=pool, pool_owner="greedy") for _ in range(4)]
        modest = BareSession(Api(), pool=pool, pool_owner="modest")
        modest.feed(["push", wide()])
        for side in greedy:
            side.feed(["push", wide()])
        assert modest.session.closed is None
        closed = [str(side.session.closed) for side in greedy if side.session.closed is not None]
        assert closed
        assert all(reason.startswith("limit exceeded: memory of all sessions") for reason in closed)
        assert pool.held <= pool.bound

    def test_leaves_nothing_counted_when_all_sessions_are_over(self) -> None:
        pool = Pool(10**9)
        for _ in range(3):
            server = BareSession(Api(), pool=pool)
            server.feed(["push", wide()], ["pipe"], call("note", args=[wide()]), ["push", [[["export", -1]]]])
            server.carry_out()
            server.feed(["abort", ["error", "Error", "enough"]])
            server.sent()
        assert pool.held == 0
        # Nor are those kept that have nothing to be counted any longer: there may be millions.
        assert not pool.accounts
        assert not pool.ending


class TestValuesOfAMessage:
    """They are counted before they are made: one byte may stand for a hundred."""

    @pytest.mark.parametrize(
        "text",
        ["[]", "{}", "1", '"a,b"', '"[{,"', '"\\\\"', '"\\","', '{"a":[1,2]}', '{"a,":"{"}', "[[],[{}]]"],
    )
    def test_are_never_taken_for_fewer(self, text: str) -> None:
        frame = f"[{','.join([text] * 50)}]".encode()
        count = values_of(json.loads(frame))
        for most in (1, count // 2, count, 10 * count):
            counted = JSON.count(frame, most)
            assert (counted > most) == (count > most) or counted >= count

    def test_are_not_the_commas_of_a_text(self) -> None:
        frame = json.dumps(["push", "a,b,{[" * 1000 + '\\"\\\\,' * 1000]).encode()
        assert JSON.count(frame, 100) == 3

    @pytest.mark.parametrize(
        "value",
        [[1, 2.5, "text", b"bytes", None, True, -1, -100, 2**40, -(2**40)], {"a": [{}]}, ["x" * 300], [[]]],
    )
    def test_are_counted_in_messagepack_too(self, value: object) -> None:
        values = [*[value] * 100, "x" * 5000]
        frame = MESSAGEPACK.encode(values)
        assert MESSAGEPACK.count(frame, 10) > 10
        assert values_of(values) <= MESSAGEPACK.count(frame, 4000) <= 2 * values_of(values)

    @pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=["json", "messagepack"])
    async def test_end_the_session_before_they_are_made(self, codec, monkeypatch) -> None:
        decoded: list[object] = []
        transport = FakeTransport()
        connection = CallbackConnection(transport, Api(), codec=codec, limits=Limits(values=50_000))
        monkeypatch.setattr(connection, "_codec", Spy(codec, decoded))
        connection.attach()
        connection.frames_received([codec.encode(["push", [[{}] * 100_000]])])
        assert str(connection.session.closed) == "limit exceeded: values of a message (at most 50,000)"
        assert decoded == []

    def test_of_a_session_of_an_agent_fit_into_the_longest_message(self) -> None:
        traffic = Path(__file__).parents[1] / "fixtures" / "opencode-share-traffic.jsonl"
        text = traffic.read_bytes()
        limits = Limits()
        values = JSON.count(text, 0) * limits.message_bytes // len(text)
        assert values < 0.75 * limits.values

    async def test_may_be_as_many_as_it_says(self) -> None:
        transport = FakeTransport()
        connection = CallbackConnection(transport, Api(), limits=Limits(values=200_000))
        connection.attach()
        connection.frames_received([JSON.encode(["push", [[1] * 199_000]])])
        assert connection.session.closed is None


def values_of(value: object) -> int:
    """Return how many values there are, arrays and objects for one more."""
    items = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(items, list):
        return 1
    return 1 + len(items) + sum(values_of(item) for item in items if isinstance(item, dict | list))


class Spy:
    def __init__(self, codec, decoded) -> None:
        self.codec, self.decoded = codec, decoded

    def __getattr__(self, name):
        return getattr(self.codec, name)

    def decode(self, frame):
        self.decoded.append(frame)
        return self.codec.decode(frame)


class FakeTransport:
    """Takes so many bytes, and then no more until it is told to."""

    def __init__(self, takes: int = 1 << 60) -> None:
        self.takes = takes
        self.waiting = 0
        self.frames: list[bytes] = []
        self.is_paused = False

    def attach(self, receiver, *, text) -> None:
        self.receiver = receiver

    def write(self, frames, *, text) -> int:
        self.frames += frames
        self.waiting += sum(map(len, frames))
        return self.waiting if self.waiting > self.takes else 0

    def drain(self) -> None:
        self.waiting = 0
        self.receiver.writable()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    async def close(self, code, reason) -> None:
        pass


class Library(RpcTarget):
    """Returns much when it is asked for little."""

    def __init__(self) -> None:
        self.made = 0
        self.document = Preencoded(load=lambda: {"pages": ["x" * 1000] * 1000}, size=10**6)

    @rpc_method("document()")
    async def get_document(self) -> object:
        await asyncio.sleep(0)
        return self.document

    @rpc_method("pages()")
    def pages(self) -> object:
        self.made += 1
        return [{"text": "x" * 40} for _ in range(WIDE)]

    @rpc_method("letters()")
    async def letters(self) -> object:
        async def each():
            for _ in range(100):
                self.made += 1
                yield "x" * 10**6

        return ReadableStream(each())


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def asking(method: str, times: int) -> list[bytes]:
    """Return the frames that call a method so often, and pull each result."""
    messages = []
    for number in range(1, times + 1):
        messages += [call(method, args=[]), ["pull", number]]
    return [JSON.encode(message) for message in messages]


class TestAPeerThatDoesNotRead:
    def connected(self, **limits: int) -> tuple[FakeTransport, CallbackConnection, Library]:
        transport, library = FakeTransport(takes=1000), Library()
        connection = CallbackConnection(transport, library, throttle=True, limits=Limits(**limits))
        connection.attach()
        return transport, connection, library

    async def test_is_sent_no_more_than_a_little(self) -> None:
        transport, connection, _ = self.connected()
        asked = [
            JSON.encode(message)
            for n in range(1, 501)
            for message in (call("document", args=[]), ["pull", n])
        ]
        connection.frames_received(asked)
        await settle()
        assert sum(map(len, transport.frames)) < 10 * 10**6

    async def test_gets_everything_if_it_reads_after_all(self) -> None:
        transport, connection, _ = self.connected()
        asked = [
            JSON.encode(message)
            for n in range(1, 101)
            for message in (call("document", args=[]), ["pull", n])
        ]
        connection.frames_received(asked)
        for _ in range(300):
            await settle()
            transport.drain()
        resolved = {json.loads(frame)[1] for frame in transport.frames}
        assert resolved == set(range(1, 101))

    async def test_has_no_more_made_for_it(self) -> None:
        transport, connection, library = self.connected(memory_bytes=0)
        asked = asking("pages", 100)
        connection.frames_received(asked)
        await settle()
        made = library.made
        assert made < 30
        assert held_by(connection) < 30 * 4 * WIDE * VALUE_BYTES
        for _ in range(1000):
            transport.drain()
            await settle()
            if len(transport.frames) == 100:
                break
        assert library.made == 100

    async def test_has_its_streams_wait_for_each_other(self) -> None:
        transport, connection, library = self.connected()
        asked = asking("letters", 300)
        connection.frames_received(asked)
        await settle()
        assert sum(map(len, transport.frames)) < 20 * 10**6
        assert library.made < 40
        transport.receiver.transport_lost(TransportClosedError("the test is over"))
        await settle()


def held_by(connection: CallbackConnection) -> int:
    return connection.session.account.held


class TestNumbers:
    def test_of_every_size_are_read_alike_in_short_and_in_long_texts(self) -> None:
        numbers = "1.5,1e300,-2.5e-310,1.7976931348623157e308,1e999,12345678901234567890"
        short: Any = JSON.decode(f"[{numbers}]".encode())
        long: Any = JSON.decode(f"[{','.join([numbers] * 1000)}]".encode())
        assert long == short * 1000
        assert [type(each) for each in long[: len(short)]] == [type(each) for each in short]


class TestASessionThatIsOver:
    """It may wait for the garbage collector, and so may the reason it ended with."""

    WIDE = b",".join([b"{}"] * 100_000)

    @pytest.mark.parametrize(
        "messages",
        [
            [b'["push",[[%b]]]' % WIDE],
            [b'["push",{"a":[[%b]]}' % WIDE],
            [b'["push","%b"]' % WIDE, b'["pull",9]'],
        ],
        ids=["too many values", "no JSON", "an unknown entry"],
    )
    async def test_holds_nothing_of_what_it_was_sent(self, messages: list[bytes]) -> None:
        body = bytearray(b"\n".join(messages))
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            transport = BatchServerTransport(bytes(body), no_part)
            connection = Connection(transport, Api(), limits=Limits(values=1000))
            await connection.run()
            await asyncio.sleep(0.01)
            assert connection.session.closed is not None
            assert tracemalloc.get_traced_memory()[0] < len(self.WIDE) / 3
        finally:
            tracemalloc.stop()
            gc.enable()


async def no_part(_part: bytes) -> None:
    pass
