import datetime as dt
import json
import uuid

import msgspec
import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.batch_validation import MAX_DEPTH
from rpcshare.shares.syncdata import json_pieces, parse_batch


def part(**fields):
    return {"type": "part", "data": {"id": "prt_1", **fields}}


def round_trip(batch):
    return b"".join(json_pieces(parse_batch(batch).items))


VALUES: list[object] = [
    None,
    True,
    0,
    -1,
    1.5,
    1.0,
    1e300,
    2**53,
    2**80,
    "",
    "é 中 😀 \x00 \u2028",
    [],
    {},
    [[[]]],
    {"": {"a b": [1, None, {"constructor": "x", "__proto__": 1}]}},
]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_values_are_kept_exactly(value):
    batch = [part(future=value)]
    assert msgspec.json.decode(round_trip(batch)) == batch
    assert round_trip(batch) == msgspec.json.encode(batch)


def test_half_of_a_surrogate_pair_is_kept():
    batch = [part(text="cut \ud83d"), {"type": "message", "data": {"id": "\udc00"}}]
    assert json.loads(round_trip(batch)) == batch


def test_a_real_recording_is_kept_exactly(recorded_requests):
    for request in recorded_requests:
        batch = request["body"].get("data", [])
        assert json.loads(round_trip(batch)) == batch


def test_order_and_empty_lists_are_kept():
    batch = [
        {"type": "session_diff", "data": []},
        part(),
        {"type": "model", "data": []},
        {"type": "session", "data": {}},
    ]
    assert json.loads(round_trip(batch)) == batch


def test_an_empty_batch_is_an_empty_list():
    assert round_trip([]) == b"[]"


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ({"id": "m"}, {"id": "m"}, True),
        ({"id": "m", "providerID": "p"}, {"id": "m", "providerID": "p", "name": "x"}, True),
        ({"id": "m", "providerID": "p"}, {"id": "m", "providerID": "q"}, False),
        ({"id": "m", "providerID": "p"}, {"id": "m"}, False),
        ({"id": "m", "providerID": ""}, {"id": "m"}, False),
        ({"id": "m", "providerID": 1}, {"id": "m", "providerID": None}, True),
        ({"id": "b", "providerID": "a"}, {"id": "a", "providerID": "b"}, False),
    ],
)
def test_models_are_told_apart_by_id_and_provider(first, second, are_one):
    (item,) = parse_batch([{"type": "model", "data": [first, second]}]).items
    (key, _), (other_key, _) = item.values
    assert (key == other_key) is are_one


def nested(levels):
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


INVALID: list[tuple[object, str]] = [
    ({}, "data: must be a list of SyncData"),
    (None, "data: must be a list of SyncData"),
    ("[]", "data: must be a list of SyncData"),
    ((), "data: must be a list of SyncData"),
    ([part(), 1], "data[1]: must be an object with type and data"),
    ([[]], "data[0]: must be an object with type and data"),
    ([{"data": {}}], "data[0].type: must be one of session, message, part, session_diff, model"),
    ([{"type": "", "data": {}}], "data[0].type: must be one of"),
    ([{"type": "parts", "data": {}}], "data[0].type: must be one of"),
    ([{"type": ["part"], "data": {}}], "data[0].type: must be one of"),
    ([{"type": "part"}], "data[0].data: is missing"),
    ([{"type": "session", "data": None}], "data[0].data: must be an object"),
    ([{"type": "session", "data": []}], "data[0].data: must be an object"),
    ([{"type": "message", "data": "m"}], "data[0].data: must be an object"),
    ([{"type": "part", "data": 1}], "data[0].data: must be an object"),
    ([{"type": "message", "data": {}}], "data[0].data.id: must be a string that is not empty"),
    ([{"type": "part", "data": {"id": 1}}], "data[0].data.id: must be a string"),
    ([part(), part(), {"type": "part", "data": {"id": ""}}], "data[2].data.id: must be a string"),
    ([{"type": "session_diff", "data": {}}], "data[0].data: must be a list"),
    ([{"type": "model", "data": {"id": "m"}}], "data[0].data: must be a list"),
    ([{"type": "model", "data": [{"id": "m"}, "n"]}], "data[0].data[1]: must be an object"),
    ([{"type": "model", "data": [{"name": "m"}]}], "data[0].data[0].id: must be a string"),
    ([part(a={"b": [1, b""]})], "data[0].data.a.b[1]: is not a JSON value but bytes"),
    ([part(a=(1,))], "data[0].data.a: is not a JSON value but tuple"),
    ([part(a={1: 2})], "data[0].data.a: has a key that is not a string"),
    ([part(a=float("nan"))], "data[0].data.a: is not a finite number"),
    ([part(a=[float("-inf")])], "data[0].data.a[0]: is not a finite number"),
    ([part(a=dt.datetime.now(dt.UTC))], "data[0].data.a: is not a JSON value but"),
    ([part(a=uuid.uuid4())], "data[0].data.a: is not a JSON value but UUID"),
    ([part(a=msgspec.Raw(b"1"))], "data[0].data.a: is not a JSON value but Raw"),
    ([part(a=ErrorCode.INTERNAL)], "data[0].data.a: is not a JSON value but ErrorCode"),
    ([part(a=10**5000)], "data[0].data: holds a number that is too large"),
    ([{"type": "session_diff", "data": [1, {2}]}], "data[0].data[1]: is not a JSON value but set"),
    ([part(a=nested(MAX_DEPTH))], f"data[0].data: is nested more than {MAX_DEPTH} levels deep"),
]


@pytest.mark.parametrize(("value", "message"), INVALID, ids=range(len(INVALID)))
def test_a_batch_that_is_not_valid_is_refused_naming_the_place(value, message):
    with pytest.raises(ShareError) as caught:
        parse_batch(value)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert caught.value.message.startswith(message)


def test_a_value_that_holds_itself_is_refused():
    data: dict[str, object] = {"id": "prt_1"}
    data["self"] = data
    with pytest.raises(ShareError, match="nested more than"):
        parse_batch([{"type": "part", "data": data}])


def test_the_deepest_batch_that_is_taken_can_be_read_again():
    batch = [part(a=nested(MAX_DEPTH - 1))]
    assert json.loads(round_trip(batch)) == batch


def test_what_users_wrote_is_in_no_message_and_no_repr():
    with pytest.raises(ShareError) as caught:
        parse_batch([part(**{"the secret": b"the secret"})])
    batch = parse_batch([part(text="the secret")])
    assert "secret" not in caught.value.message + repr(batch)
