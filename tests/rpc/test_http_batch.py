"""A session in one request and its answer, without the HTTP around it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import (
    Connection,
    Limits,
    ReadableStream,
    RpcError,
    RpcTarget,
    SessionClosedError,
    Stub,
    WritableStream,
    rpc_method,
)
from rpcshare.rpc.batch import BatchClientTransport, BatchServerTransport, answer_batch
from support.waiting import eventually


class Counter(RpcTarget):
    def __init__(self, value: int) -> None:
        self.value = value
        self.disposed = False

    @rpc_method("increment(by?)")
    def increment(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def dispose(self) -> None:
        self.disposed = True


class Api(RpcTarget):
    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self.began: list[object] = []
        self.gate = asyncio.Event()
        self.read: list[object] = []

    @rpc_method("makeCounter(value)")
    async def make_counter(self, value: int) -> Counter:
        await asyncio.sleep(0)
        self.counters.append(Counter(value))
        return self.counters[-1]

    @rpc_method("echo(value)")
    async def echo(self, value: object) -> object:
        self.began.append(value)
        await asyncio.sleep(0)
        return value

    @rpc_method("fail()")
    async def fail(self) -> None:
        raise RpcError("no", code="NO")

    @rpc_method("callBack(function)")
    async def call_back(self, function: Stub) -> object:
        return await function("called")

    @rpc_method("tell(function)")
    def tell(self, function: Stub) -> None:
        function("told")

    @rpc_method("wait()")
    async def wait(self) -> None:
        await self.gate.wait()

    @rpc_method("count(n)")
    def count(self, n: int) -> ReadableStream:
        return ReadableStream(range(n))

    @rpc_method("chunks(n)")
    def chunks(self, n: int) -> ReadableStream:
        return ReadableStream("x" * 1000 for _ in range(n))

    @rpc_method("sum(numbers)")
    async def sum(self, numbers: ReadableStream) -> int:
        return sum([cast("int", number) async for number in numbers])

    @rpc_method("sink()")
    def sink(self) -> WritableStream:
        return WritableStream.calling(self.read.append)


async def answers(*messages: object, main: RpcTarget | None = None, grace: float = 5.0) -> list[Any]:
    """Return the messages with which a batch of ``messages`` is answered."""
    body = b"\n".join(json.dumps(message).encode() for message in messages)
    answer = await answer_batch(body, main or Api(), call_grace=grace)
    return [json.loads(line) for line in answer.splitlines()]


def push(method: str, *arguments: object) -> list[object]:
    return ["push", ["pipeline", 0, [method], list(arguments)]]


class TestAnswering:
    async def test_what_is_pulled_is_answered_when_all_of_it_has_returned(self) -> None:
        sent = await answers(push("echo", 1), push("echo", 2), ["pull", 1], ["pull", 2])
        assert sorted(sent, key=str) == [["resolve", 1, 1], ["resolve", 2, 2]]

    async def test_what_is_not_pulled_is_carried_out_and_not_answered(self) -> None:
        api = Api()
        assert await answers(push("echo", 1), main=api) == []
        assert api.began == [1]

    async def test_a_call_may_build_on_the_result_of_another(self) -> None:
        messages = [push("makeCounter", 5), ["push", ["pipeline", 1, ["increment"], [2]]], ["pull", 2]]
        assert await answers(*messages) == [["resolve", 2, 7]]

    async def test_a_failure_is_an_answer(self) -> None:
        sent = await answers(push("fail"), ["pull", 1])
        assert sent == [["reject", 1, ["error", "Error", "no", None, {"code": "NO"}]]]

    async def test_nothing_is_answered_with_nothing(self) -> None:
        assert await answer_batch(b"", Api()) == b""
        assert await answer_batch(b"\n\n", Api()) == b""

    async def test_messages_of_the_answer_are_separated_and_not_ended_by_line_feeds(self) -> None:
        body = b'["push",1]\n["push",2]\n["pull",1]\n["pull",2]'
        assert await answer_batch(body, Api()) == b'["resolve",1,1]\n["resolve",2,2]'

    @pytest.mark.parametrize("line", [b"nonsense", b"{}", b'["pull",9]', b"\xff"])
    async def test_a_broken_rule_ends_the_batch_with_an_abort(self, line: bytes) -> None:
        answer = await answer_batch(b'["push",1]\n' + line, Api())
        assert json.loads(answer)[0] == "abort"

    async def test_limits_are_those_of_a_session(self) -> None:
        limits = Limits(message_bytes=100)
        answer = await answer_batch(b'["push","' + b"x" * 100 + b'"]', Api(), limits=limits)
        assert json.loads(answer)[1][2] == "limit exceeded: message bytes (at most 100)"

    async def test_others_get_their_turn_while_a_long_batch_is_read(self) -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        busy = asyncio.create_task(others())
        await answer_batch(b"\n".join([b'["push",1]'] * 6400), Api())
        busy.cancel()
        assert turns >= 100

    async def test_a_call_that_takes_too_long_is_not_answered_but_the_others_are(self) -> None:
        messages = [push("wait"), push("echo", 1), ["pull", 1], ["pull", 2]]
        assert await answers(*messages, grace=0.05) == [["resolve", 2, 1]]

    async def test_calls_may_be_given_less_time_while_they_are_under_way(self) -> None:
        api = Api()
        answer: list[bytes] = []

        async def write(part: bytes) -> None:
            answer.append(part)

        body = json.dumps(push("wait")).encode() + b'\n["push",1]\n["pull",1]\n["pull",2]'
        batch = Connection(BatchServerTransport(body, write), api, call_grace=1000)
        running = asyncio.create_task(batch.run())
        await eventually(lambda: batch.session.stats().calls_in_flight == 1)
        async with asyncio.timeout(5):
            await batch.finish(0.01)
            await running
        assert answer == [b'["resolve",2,1]']

    async def test_at_the_end_everything_is_let_go_of(self) -> None:
        api = Api()
        sent = await answers(push("makeCounter", 1), ["pull", 1], main=api)
        assert sent == [["resolve", 1, ["export", -1]]]
        assert [counter.disposed for counter in api.counters] == [True]

    async def test_a_long_answer_leaves_in_parts_and_no_faster_than_it_is_read(self) -> None:
        parts: list[bytes] = []
        reads = asyncio.Event()

        async def write(part: bytes) -> None:
            parts.append(part)
            await reads.wait()

        text = "x" * 50_000
        messages = [["push", text] for _ in range(10)] + [["pull", n + 1] for n in range(10)]
        body = b"\n".join(json.dumps(message).encode() for message in messages)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(Connection(BatchServerTransport(body, write), Api()).run())
            await eventually(lambda: bool(parts))
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(parts) == 1
            reads.set()
        lines = [json.loads(line) for line in b"".join(parts).split(b"\n")]
        assert lines == [["resolve", n + 1, text] for n in range(10)]


class TestWhatCannotBeAsked:
    REASON = "the peer has sent its whole batch, and cannot be asked"

    async def test_a_call_that_waits_for_the_client_fails(self) -> None:
        sent = await answers(push("callBack", ["export", -1]), ["pull", 1])
        assert sent[-1] == ["reject", 1, ["error", "Error", self.REASON]]

    async def test_the_client_may_be_told_something(self) -> None:
        sent = await answers(push("tell", ["export", -1]), ["pull", 1])
        assert ["push", ["pipeline", -1, [], ["told"]]] in sent

    async def test_a_promise_of_the_clients_fails_what_it_is_an_argument_of(self) -> None:
        sent = await answers(push("echo", ["promise", -1]), ["pull", 1])
        assert sent[0] == ["reject", 1, ["error", "Error", self.REASON]]

    async def test_a_stream_that_the_client_has_not_closed_fails_its_reader(self) -> None:
        sent = await answers(
            ["pipe"],
            push("sum", ["readable", 1]),
            ["stream", ["pipeline", 1, ["write"], [3]]],
            ["pull", 2],
        )
        assert ["reject", 2, ["error", "Error", self.REASON]] in sent

    async def test_a_stream_of_the_servers_that_was_not_closed_is_aborted(self) -> None:
        api = Api()
        await answers(push("sink"), ["pull", 1], main=api, grace=0.5)
        assert api.read == []


class TestStreams:
    async def test_a_stream_that_the_client_has_closed_is_read(self) -> None:
        sent = await answers(
            ["pipe"],
            push("sum", ["readable", 1]),
            ["stream", ["pipeline", 1, ["write"], [3]]],
            ["stream", ["pipeline", 1, ["write"], [4]]],
            ["stream", ["pipeline", 1, ["close"], []]],
            ["pull", 2],
        )
        assert ["resolve", 2, 7] in sent

    async def test_a_stream_of_the_servers_is_in_the_answer_to_its_end(self) -> None:
        sent = await answers(push("count", 2), ["pull", 1])
        assert [message for message in sent if message[0] == "stream"] == [
            ["stream", ["pipeline", 1, ["write"], [0]]],
            ["stream", ["pipeline", 1, ["write"], [1]]],
            ["stream", ["pipeline", 1, ["close"], []]],
        ]

    async def test_it_may_be_longer_than_the_window_of_a_stream(self) -> None:
        sent = await answers(push("chunks", 1000), ["pull", 1])
        assert len([message for message in sent if message[0] == "stream"]) == 1001

    async def test_but_not_longer_than_the_limit_on_what_is_unread(self) -> None:
        answer = await answer_batch(
            b'["push",["pipeline",0,["chunks"],[1000]]]\n["pull",1]',
            Api(),
            limits=Limits(unread_bytes=10_000),
        )
        assert 9_000 < len(answer) < 13_000


@asynccontextmanager
async def batch(api: RpcTarget | None = None) -> AsyncIterator[tuple[Stub, list[bytes]]]:
    """Yield a stub whose batch goes to ``api``, and the bodies that have been posted."""
    posted: list[bytes] = []

    async def post(body: bytes) -> bytes:
        posted.append(body)
        return await answer_batch(body, api or Api())

    async with Connection(BatchClientTransport(post)) as connection:
        yield connection.remote_main, posted


class TestAsking:
    async def test_what_is_said_before_the_first_await_leaves_in_one_body(self) -> None:
        async with batch() as (api, posted):
            counter = api.makeCounter(5)
            counter.increment(2)
            assert await counter.increment(3) == 10
        (body,) = posted
        assert [json.loads(line)[0] for line in body.split(b"\n")].count("push") == 3

    async def test_several_results_may_be_awaited_together(self) -> None:
        async with batch() as (api, posted):
            assert await asyncio.gather(*(api.echo(i) for i in range(100))) == list(range(100))
        assert len(posted) == 1

    async def test_a_pause_in_which_nobody_waits_for_a_result_is_none(self) -> None:
        async with batch() as (api, posted):
            first = api.echo(1)
            for _ in range(20):
                await asyncio.sleep(0)
            assert posted == []
            assert await asyncio.gather(first, api.echo(2)) == [1, 2]
        assert len(posted) == 1

    async def test_a_call_after_that_fails_and_says_why(self) -> None:
        async with batch() as (api, posted):
            await api.echo(1)
            with pytest.raises(SessionClosedError, match="the batch has been sent"):
                await api.echo(2)
        assert len(posted) == 1

    async def test_a_call_while_the_answer_is_awaited_fails_when_that_has_come(self) -> None:
        api = Api()
        async with batch(api) as (stub, posted):
            waiting = asyncio.ensure_future(stub.wait())
            await eventually(lambda: bool(posted))
            late = asyncio.ensure_future(stub.echo(1))
            await asyncio.sleep(0)
            api.gate.set()
            await waiting
            with pytest.raises(SessionClosedError, match="the batch has been sent"):
                await late
        assert api.began == []

    async def test_an_answer_that_is_left_out_fails_its_call(self) -> None:
        async def post(_body: bytes) -> bytes:
            return b""

        async with Connection(BatchClientTransport(post)) as connection:
            with pytest.raises(SessionClosedError, match="there is no answer to this"):
                await connection.remote_main.anything()

    async def test_what_post_raises_is_what_those_who_wait_get(self) -> None:
        async def post(_body: bytes) -> bytes:
            raise ShareError(ErrorCode.UNAUTHORIZED, "who?")

        async with Connection(BatchClientTransport(post)) as connection:
            api = connection.remote_main
            outcomes = await asyncio.gather(api.one(), api.two(), return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["who?", "who?"]
        assert all(isinstance(outcome, ShareError) for outcome in outcomes)

    async def test_an_abort_in_the_answer_is_what_calls_fail_with(self) -> None:
        async def post(_body: bytes) -> bytes:
            return b'["abort",["error","Error","limit exceeded"]]'

        async with Connection(BatchClientTransport(post)) as connection:
            with pytest.raises(SessionClosedError, match="the peer ended the session: limit exceeded"):
                await connection.remote_main.anything()

    async def test_an_answer_that_is_no_batch_fails_the_calls(self) -> None:
        async def post(_body: bytes) -> bytes:
            return b"<!doctype html>\n<p>Sign in</p>"

        async with Connection(BatchClientTransport(post)) as connection:
            with pytest.raises(SessionClosedError, match="is not JSON"):
                await connection.remote_main.anything()

    async def test_the_server_may_tell_the_client_something(self) -> None:
        heard: list[object] = []
        async with batch() as (api, _):
            await api.tell(heard.append)
        assert heard == ["told"]

    async def test_a_stream_in_the_answer_can_be_read_after_it(self) -> None:
        async with batch() as (api, _):
            stream = await api.count(5)
        assert [number async for number in stream] == [0, 1, 2, 3, 4]

    async def test_what_came_with_a_result_is_there_however_slow_its_reader_is(self, monkeypatch) -> None:
        monkeypatch.setattr("rpcshare.rpc.connection.TIME_SLICE", -1.0)
        async with batch() as (api, _):
            stream = await api.count(5)
        assert [number async for number in stream] == [0, 1, 2, 3, 4]

    async def test_a_stream_of_the_clients_whose_values_are_there_is_sent_along(self) -> None:
        async with batch() as (api, posted):
            assert await api.sum(ReadableStream([1, 2, 3])) == 6
        assert len(posted) == 1

    async def test_leaving_gives_up_on_the_answer(self) -> None:
        given_up = asyncio.Event()

        async def post(_body: bytes) -> bytes:
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
            return b""

        async with Connection(BatchClientTransport(post)) as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.remote_main.anything(), 0.01)
        assert given_up.is_set()
