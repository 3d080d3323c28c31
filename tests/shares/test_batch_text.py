"""A batch that is cut into values as text is what the general way makes of it, or is not known at all."""

import gc
import random
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.texts import batch, check_batch, check_together, compact, split_whole
from rpcshare import jsontext
from rpcshare.compiled import core
from rpcshare.errors import ShareError
from rpcshare.jsontext import JSONText
from rpcshare.shares import batch_text
from rpcshare.shares.batch_validation import MAX_DEPTH
from rpcshare.shares.parsing import MAX_VALUES, BatchParser

in_c = pytest.mark.skipif(core() != "compiled", reason="in pure Python there is no shorter way")

seeds = st.randoms(use_true_random=False)


@given(seeds, st.sampled_from([-1, 0, 3]), st.sampled_from([1, 60, 10**6]))
@settings(max_examples=1000, deadline=None)
def test_a_batch_is_cut_into_what_the_general_way_makes_of_it_or_is_not_known(
    choose: random.Random, room: int, step: int
) -> None:
    check_batch(batch_text, batch(choose), room, step)


@given(seeds)
@settings(max_examples=500, deadline=None)
def test_bytes_of_a_class_are_found_where_they_stand_together(choose: random.Random) -> None:
    check_together(batch_text, choose)


@given(seeds, st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_parser_makes_of_text_what_it_makes_of_values(
    choose: random.Random, redact: bool, is_counted: bool
) -> None:
    text = batch(choose)
    try:
        value = jsontext.decode(text)
    except jsontext.JSONDecodeError:
        return
    parser = BatchParser(max_size=5000, max_items=30, redact=redact)
    made: list[object] = []
    for data in (value, JSONText(text, is_counted=is_counted)):
        try:
            made.append(parser.parse(data))
        except Exception as exc:  # noqa: BLE001 -- both are wrong in the same way
            made.append(str(exc))
    assert made[0] == made[1]


PART = {"type": "part", "data": {"id": "p", "text": "x", "list": [1, {}]}}
WHOLE = [
    {"type": "session", "data": {"title": "é"}},
    {"type": "message", "data": {"role": "user", "id": "m"}},
    PART,
    PART,
    {"type": "session_diff", "data": [{"file": "a"}, 1, "x"]},
    {"type": "session_diff", "data": []},
    {"type": "model", "data": [{"id": "m", "providerID": "p"}, {"id": "n"}, {"id": "o", "providerID": 1}]},
]


@in_c
def test_what_opencode_sends_is_known() -> None:
    assert check_batch(batch_text, compact(WHOLE, ascii_only=False), -1, 10**6)
    assert check_batch(batch_text, b"[]", 0, 10**6)


@in_c
def test_each_step_leaves_the_rest_for_later() -> None:
    text = compact(WHOLE, ascii_only=False)
    found = batch_text.split(text, 0, -1, -1, 1)
    assert found is not None
    assert [name for name, _, _ in found[0]] == ["session"]
    assert text[found[1] :].startswith(b'{"type":"message"')


@pytest.mark.parametrize(
    "element",
    [
        b'{"data":{"id":"p"},"type":"part"}',
        b'{"type":"part","data":{"id":"p"},"more":1}',
        b'{"type":"part","data":{"id":""}}',
        b'{"type":"part","data":{"id":5}}',
        b'{"type":"part","data":{}}',
        b'{"type":"part","data":["id"]}',
        b'{"type":"part","data":{"id":"a","id":"b"}}',
        b'{"type":"part","data":{"\\u0069d":"a"}}',
        b'{"type":"part","data":{"id":"\\u0061"}}',
        b'{"type":"parts","data":{"id":"p"}}',
        b'{"type":"session_diff","data":{}}',
        b'{"type":"model","data":[{"providerID":"p"}]}',
        b'{"type":"session","data":null}',
        b'{"type":"session", "data":{}}',
        b"null",
    ],
)
def test_what_is_wrong_or_unusual_is_left_to_the_general_way(element: bytes) -> None:
    for text in (b"[%b]" % element, b'[{"type":"session","data":{}},%b]' % element):
        assert split_whole(batch_text, text, -1, 1) is None


def test_half_a_batch_is_not_known() -> None:
    text = compact(WHOLE, ascii_only=False)
    for length in range(len(text)):
        assert split_whole(batch_text, text[:length], -1, 10**6) is None


@in_c
def test_nesting_has_the_bound_of_the_general_way() -> None:
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1):
        inner = b"[" * (depth - 1) + b"]" * (depth - 1)
        text = b'[{"type":"part","data":{"id":"p","a":%b}}]' % inner
        assert check_batch(batch_text, text, -1, 1) == (depth <= MAX_DEPTH)


LONG = 256 * 1024


@in_c
@pytest.mark.parametrize(
    ("text", "size"),
    [(b'[{"type":"part","data":%b}]', 2), (b'[{"type":"session_diff","data":[%b]}]', 35)],
    ids=["an element", "a value in a list"],
)
@pytest.mark.parametrize("shorter", [0, 1])
@pytest.mark.parametrize("fewer", [0, 1])
async def test_what_is_long_holds_no_more_values_than_may_be(
    text: bytes, size: int, shorter: int, fewer: int
) -> None:
    many = b"1," * (MAX_VALUES - 5 + (size > 2) * 2 - fewer)
    value = b'{"id":"p","a":[%b1],"b":"' % many
    value += b"x" * (LONG + size - len(text) + 2 - len(value) - 2 - shorter) + b'"}'
    text %= value
    may_be = bool(shorter or fewer)
    assert (batch_text.split(text, 0, -1, MAX_VALUES, 1) is not None) == may_be
    assert batch_text.split(text, 0, -1, -1, 1) is not None
    parser = BatchParser(max_size=0, max_items=0, redact=False)
    if may_be:
        await parser.parse_in_slices(JSONText(text))
    else:
        with pytest.raises(ShareError, match="holds more than 100,000 values"):
            await parser.parse_in_slices(JSONText(text))


@in_c
def test_nothing_is_kept_of_what_has_been_cut() -> None:
    choose = random.Random(1)
    texts = [batch(choose) for _ in range(2000)]

    def work() -> None:
        for text in texts:
            batch_text.split(text, 0, 10, 10, 100)
            batch_text.stand_together(text, bytes(256), 3)

    work()
    gc.collect()
    tracemalloc.start()
    try:
        work()
        references = [sys.getrefcount(each) for each in ("part", None, b"", *texts)]
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            work()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        after = [sys.getrefcount(each) for each in ("part", None, b"", *texts)]
    finally:
        tracemalloc.stop()
    assert grown < 10_000
    assert max(new - old for new, old in zip(after, references, strict=True)) < 100
