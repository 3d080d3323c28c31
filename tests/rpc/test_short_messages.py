"""Messages that are read and written in the shorter way are what the general way makes of them."""

import gc
import json
import random
import sys
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.short_messages import DEPTHS, check_reading, check_writing, frame, plain, sessions
from rpcshare.compiled import core
from rpcshare.rpc import short_messages
from rpcshare.rpc.dates import date_from_milliseconds

DONE = b'["resolve",12,["undefined"]]'
CALL = b'["push",["pipeline",0,["name"],[%b]]]'

in_c = pytest.mark.skipif(core() != "compiled", reason="in pure Python there is no shorter way")

seeds = st.randoms(use_true_random=False)
depths = st.integers(0, len(DEPTHS) - 1)


@given(seeds, depths)
@settings(max_examples=1000)
def test_a_frame_is_read_as_the_general_way_reads_it_or_not_at_all(choose: random.Random, depth: int) -> None:
    check_reading(short_messages, frame(choose), sessions()[depth])


@given(seeds, depths)
@settings(max_examples=500)
def test_a_result_is_written_as_the_general_way_writes_it_or_not_at_all(
    choose: random.Random, depth: int
) -> None:
    check_writing(short_messages, plain(choose), sessions()[depth])


@given(
    st.binary(max_size=40),
    st.sampled_from([b"", CALL[:31], b'["pull",', b'["release",', DONE[:14], CALL[:20]]),
)
@settings(max_examples=500)
def test_any_bytes_may_be_read(behind: bytes, begins: bytes) -> None:
    check_reading(short_messages, begins + behind, sessions()[-1])


@in_c
@pytest.mark.parametrize(
    "argument",
    [
        b'{"when":["date",1234567890123],"bytes":["bytes","AAAA"],"nested":{"list":[[1,"two",{}]]}}',
        b'"text with \\"escapes\\" \\n\\\\ and \xc3\xa9"',
        b"-0.5",
        b"[[]]",
        b"",
    ],
)
def test_a_usual_call_is_known(argument: bytes) -> None:
    assert check_reading(short_messages, CALL % argument, sessions()[-1])


@in_c
def test_that_a_call_has_been_carried_out_is_known() -> None:
    assert check_reading(short_messages, DONE, sessions()[-1])


@in_c
def test_a_usual_result_is_known() -> None:
    value = {"success": True, "syncCount": 3, "list": [1, "two", {"three": None}], "text": 'é"\n'}
    assert check_writing(short_messages, value, sessions()[-1])


@pytest.mark.parametrize(
    "whole", [CALL % b'{"a":["bytes","AAAA"],"b":[["\\n",1.5e3]]}', b'["release",12,34]', DONE]
)
def test_half_a_frame_is_not_known(whole: bytes) -> None:
    for length in range(len(whole)):
        assert short_messages.read(whole[:length], 64) is None


@in_c
@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)))
def test_a_date_is_that_of_the_calendar(moment: datetime) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = (moment.replace(tzinfo=UTC) - epoch) // timedelta(milliseconds=1)
    read = short_messages.read(CALL % b'["date",%d]' % milliseconds, 64)
    assert isinstance(read, tuple)
    (date,) = read[2]
    assert date == date_from_milliseconds(milliseconds)
    assert isinstance(date, datetime)
    assert date.tzinfo is UTC


@pytest.mark.parametrize("milliseconds", [-62135596800001, 253402300800000, 8_640_000_000_000_001])
def test_a_date_that_python_has_none_for_is_not_known(milliseconds: int) -> None:
    assert short_messages.read(CALL % b'["date",%d]' % milliseconds, 64) is None


def test_no_depth_is_too_much_for_the_stack() -> None:
    deep = b"[[" * 100_000
    assert short_messages.read(CALL % deep, 10**6) is None
    value: list[object] = []
    value.append(value)
    assert short_messages.write(1, value, 10**6) is None
    assert short_messages.count(value) == -1


@in_c
def test_a_result_that_is_too_long_is_not_known() -> None:
    assert short_messages.write(1, "x" * 70_000, 64) is None
    assert short_messages.write(1, ["x" * 10_000] * 7, 64) is None
    assert short_messages.write(1, ["x" * 10_000] * 4, 64) is not None


@in_c
def test_nothing_is_kept_of_what_has_been_read_or_written() -> None:
    choose = random.Random(1)
    frames = [frame(choose) for _ in range(2000)]
    values = [plain(choose) for _ in range(2000)]

    def work() -> None:
        for each in frames:
            short_messages.read(each, 64)
        for value in values:
            short_messages.write(1, value, 64)
            short_messages.count(value)

    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        references = [
            sys.getrefcount(each) for each in ("pull", "release", "resolve", None, True, *values[:50])
        ]
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            work()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        after = [sys.getrefcount(each) for each in ("pull", "release", "resolve", None, True, *values[:50])]
    finally:
        tracemalloc.stop()
    # 10 times 4,000 messages: one byte for each would be more.
    assert grown < 20_000
    assert max(new - old for new, old in zip(after, references, strict=True)) < 1000


@in_c
def test_what_other_threads_change_meanwhile_is_written_as_json_or_not_at_all() -> None:
    # Without the global interpreter lock they do so at any moment.
    shared: dict[str, object] = {"list": []}
    done = threading.Event()
    written: list[bytes] = []

    def change() -> None:
        items = shared["list"]
        assert isinstance(items, list)
        count = 0
        while not done.is_set():
            count += 1
            shared[f"key {count % 40}"] = [count, {"text" * (count % 9): str(count)}]
            shared.pop(f"key {(count + 20) % 40}", None)
            items.insert(0, {"number": str(count)})
            if len(items) > 50:
                items.clear()

    def write() -> None:
        for _ in range(500):
            found = short_messages.write(5, shared, 64)
            assert found is not None
            written.append(found[0])
            assert short_messages.count(shared) > 0

    changing = [threading.Thread(target=change) for _ in range(2)]
    writing = [threading.Thread(target=write) for _ in range(2)]
    for thread in (*changing, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    for thread in changing:
        thread.join()
    assert len(written) == 1000
    assert all(type(json.loads(frame)[2]) is dict for frame in written)
