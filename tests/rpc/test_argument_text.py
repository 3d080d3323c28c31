"""An argument that may stay JSON text is what the general way makes of it, or is not found at all."""

import asyncio
import gc
import math
import random
import sys
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.texts import HEAD, call, check_argument, compact, wrapped
from rpcshare import jsontext
from rpcshare.compiled import core
from rpcshare.jsontext import JSONText
from rpcshare.rpc import JSON, RpcTarget, argument_text, rpc_method
from rpcshare.rpc.callback_connection import CallbackConnection
from rpcshare.rpc.driver import LONG_FRAME
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.session import Session
from rpcshare.rpc.transport import Receiver

in_c = pytest.mark.skipif(core() != "compiled", reason="in pure Python there is no shorter way")

seeds = st.randoms(use_true_random=False)
session = Session()
shallow = Session(limits=Limits(depth=4))
DEFAULT = Limits()


@given(seeds, st.sampled_from([session, shallow]))
@settings(max_examples=1000, deadline=None)
def test_an_argument_is_what_the_general_way_decodes_or_is_not_found(
    choose: random.Random, of: Session
) -> None:
    frame, index = call(choose)
    check_argument(argument_text, frame, index, of)


@given(st.binary(max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_bytes_may_be_looked_through(behind: bytes) -> None:
    check_argument(argument_text, HEAD + behind, 0, session)


def find(argument: bytes, index: int = 0, max_depth: int = 64) -> Any:
    frame = HEAD + argument + b"]]]"
    return argument_text.find(frame, len(HEAD), index, max_depth)


@in_c
@pytest.mark.parametrize(
    "value",
    [
        [],
        [[], [[]], {"a": [1, [2]]}],
        {"a": [], "b": {"c": "x"}},
        [1, -1, 0, 2**53 - 1, 1 - 2**53, 0.5, -0.25, 0.30000000000000004, 123456789012345],
        ["\x00\x1b\x1f\x7f", '"\\\b\f\n\r\t/', "é\u2028\N{GRINNING FACE}"],
        [None, True, False],
        {str(number): number for number in range(32)},
    ],
)
def test_what_javascript_writes_is_found(value: object) -> None:
    text = compact(wrapped(value), ascii_only=False)
    start, stop, found, _ = find(b'"first",["date",1],%b' % text, index=2)
    assert (start, stop) == (len(HEAD) + 19, len(HEAD) + 19 + len(text))
    assert bytes(found) == compact(value, ascii_only=False)


@in_c
def test_an_argument_without_inner_arrays_is_no_copy() -> None:
    assert isinstance(find(b'[[{"a":1},2]]')[2], memoryview)
    assert isinstance(find(b"[[[[1]]]]")[2], bytes)


@pytest.mark.parametrize(
    "argument",
    [
        b"1",
        b'"text"',
        b"null",
        b'["date",1]',
        b"[[1],2]",
        b"[]",
        b'[[["undefined"]]]',
        b"[[ 1]]",
        b'{"a":1,"a":2}',
        b'{"a":1,}',
        b'[["\\u0041"]]',
        b'[["\\/"]]',
        b'[["\\ud83d"]]',
        b'[["\xed\xa0\xbd"]]',
        b'[["\xff"]]',
        b"[[1e5]]",
        b"[[-0]]",
        b"[[01]]",
        b"[[9007199254740992]]",
        b"[[0.10]]",
        b"[[0.300000000000000044]]",
        b"[[NaN]]",
        b"{%b}" % b",".join(b'"%d":1' % number for number in range(33)),
    ],
)
def test_what_is_unusual_is_left_to_the_general_way(argument: bytes) -> None:
    assert find(argument) is None


@in_c
@pytest.mark.parametrize(("value", "most"), [(b"0.30000000000000004", 10_000), (b"{}", 249_999)])
def test_what_takes_long_to_look_through_is_left_to_the_general_way(value: bytes, most: int) -> None:
    assert find(b"[[%b]]" % b",".join([value] * most)) is not None
    assert find(b"[[%b]]" % b",".join([value] * (most + 2))) is None


def test_no_depth_is_too_much_for_the_stack() -> None:
    assert find(b"[[" * 100_000, max_depth=10**6) is None
    assert find(b'{"a":' * 100_000, max_depth=10**6) is None


@in_c
def test_nesting_has_the_bound_of_the_general_way() -> None:
    for depth in range(1, 7):
        frame = HEAD + b"[[" * depth + b"]]" * depth + b"]]]"
        assert check_argument(argument_text, frame, 0, shallow) == (depth < 4)


@in_c
def test_nothing_is_kept_of_what_has_been_looked_through() -> None:
    choose = random.Random(1)
    calls = [call(choose) for _ in range(2000)]

    def work() -> None:
        for frame, index in calls:
            argument_text.find(frame, len(HEAD), index, 64)

    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        references = [sys.getrefcount(frame) for frame, _ in calls]
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            work()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 10_000
    assert [sys.getrefcount(frame) for frame, _ in calls] == references


class Keeper(RpcTarget):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    @rpc_method("keep(name, data?, options?)", text="data")
    def keep(self, name: str, data: object = None, options: object = None) -> int:
        self.given.append((name, data, options))
        return len(self.given)

    @rpc_method("take(name, data)")
    def take(self, name: str, data: object) -> int:
        self.given.append((name, data))
        return len(self.given)

    @rpc_method("other()")
    def other(self) -> "Keeper":
        return self


def test_a_signature_names_a_parameter_of_its_own() -> None:
    with pytest.raises(TypeError, match="keep: has no parameter 'nothing'"):

        class _Wrong(RpcTarget):
            @rpc_method("keep(data)", text="nothing")
            def keep(self, data: object) -> None: ...


LONG = [{"n": number, "list": [number, "x" * 100]} for number in range(LONG_FRAME // 100)]


class Wire:
    """A transport that takes all that is written."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def attach(self, receiver: Receiver, *, text: bool) -> None:
        self.receiver = receiver

    def write(self, frames: Sequence[bytes], *, text: bool) -> int:
        self.written += map(JSON.decode, frames)
        return 0

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        pass


@asynccontextmanager
async def keeper(limits: Limits = DEFAULT) -> AsyncIterator[tuple[Keeper, Wire]]:
    wire, main = Wire(), Keeper()
    connection = CallbackConnection(wire, main, limits=limits)
    async with connection:
        await asyncio.sleep(0)
        yield main, wire


def push(name: str, *arguments: object, target: int = 0) -> bytes:
    return compact(["push", ["pipeline", target, [name], list(arguments)]], ascii_only=False)


def told(value: object) -> object:
    return jsontext.decode(bytes(value.take())) if isinstance(value, JSONText) else value


async def test_a_long_argument_stays_text_where_a_method_says_so() -> None:
    async with keeper() as (main, wire):
        wire.receiver.frames_received([push("keep", "one", wrapped(LONG), {"when": ["date", 0]})])
        wire.receiver.frames_received([push("take", "two", wrapped(LONG))])
        wire.receiver.frames_received([push("keep", "three", wrapped([1]))])
        wire.receiver.frames_received([push("keep", "four", wrapped([*LONG, math.pi * 1e-9]))])
    [(_, first, options), (_, second), (_, third, _), (_, fourth, _)] = main.given
    assert isinstance(first, JSONText) == (core() == "compiled")
    assert options == {"when": datetime(1970, 1, 1, tzinfo=UTC)}
    assert told(first) == second == LONG
    assert (third, fourth) == ([1], [*LONG, math.pi * 1e-9])


@in_c
async def test_so_it_does_for_a_target_that_a_call_has_returned() -> None:
    async with keeper() as (main, wire):
        wire.receiver.frames_received([push("other"), push("keep", "x", wrapped(LONG), target=1)])
        wire.receiver.frames_received([b'["pull",1]', push("keep", "x", wrapped(LONG), target=1)])
    # The first was called before it was known what it is.
    assert [type(each[1]) for each in main.given] == [list, JSONText]


async def test_a_wrong_frame_ends_the_session_as_any_other_does() -> None:
    ends = []
    for name in ("keep", "take"):
        for spoil in (b"", b"]", b"],[", b"\x00", b"]]]]"):
            async with keeper() as (_, wire):
                wire.receiver.frames_received([push(name, "x", wrapped(LONG))[:-3] + spoil])
            ends.append(wire.written)
    assert ends[:5] == ends[5:]
    assert all(said[0][0] == "abort" for said in ends)


async def test_values_that_stay_text_count_against_the_limit_of_a_message() -> None:
    frames = [push(name, "x", wrapped(LONG)) for name in ("keep", "take")]
    most = JSON.count(frames[0], 10**9)
    for frame in frames:
        for values, is_taken in ((most, True), (most - 1, False)):
            async with keeper(Limits(values=values)) as (main, wire):
                wire.receiver.frames_received([frame])
            assert bool(main.given) == is_taken
            assert ("values of a message" in str(wire.written)) != is_taken


@in_c
async def test_text_counts_as_memory_of_the_session_until_its_call_ends() -> None:
    class Waiting(RpcTarget):
        @rpc_method("keep(data)", text="data")
        async def keep(self, data: object) -> None:
            await ends.wait()

    ends, wire = asyncio.Event(), Wire()
    async with CallbackConnection(wire, Waiting()) as connection:
        await asyncio.sleep(0)
        before = connection.session.account.held
        frame = push("keep", wrapped(LONG))
        wire.receiver.frames_received([frame, b'["pull",1]'])
        await asyncio.sleep(0)
        assert connection.session.account.held >= before + len(frame)
        ends.set()
        while not wire.written:  # noqa: ASYNC110 -- what is written wakes nobody
            await asyncio.sleep(0)
        wire.receiver.frames_received([b'["release",1,1]'])
        assert connection.session.account.held == before
