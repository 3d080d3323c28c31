"""The elements of a sync's data are cut out of text that comes in pieces, wherever it is cut."""

import json
import random

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.data_scanner import DataScanner, Element

ODD = [1, -1.5, None, True, 'a\\"],[{', '},{"data":[', "é\\", '"data":[', "", "{", "]"]


def scanned(text: bytes, step: int, *, max_items: int = 0, max_value: int = 2**20, cuts: bool = True):
    """Return the elements, the members, and the scanner."""
    scanner = DataScanner(max_items=max_items, max_value=max_value, cuts=cuts)
    found: list[Element] = []
    for start in range(0, len(text), step):
        found += scanner.feed(text[start : start + step])
    return found, scanner.finish(), scanner


def value(rng: random.Random, depth: int = 0) -> object:
    if depth > 4 or rng.random() < 0.4:
        return rng.choice(ODD)
    if rng.random() < 0.5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(["data", "type", "x"]): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def element(rng: random.Random) -> dict[str, object]:
    listed: object = [{"file": value(rng)} for _ in range(rng.randrange(4))]
    return {"type": "session_diff", "data": listed if rng.random() < 0.5 else value(rng)}


@pytest.mark.parametrize("step", [1, 3, 17, 10_000])
def test_every_element_is_found_as_it_was_written(step: int) -> None:
    rng = random.Random(step)
    for number in range(60):
        data = [element(rng) for _ in range(rng.randrange(5))]
        members = {"data": data, "secret": 'a"b', "other": {"data": [1]}}
        shown = members if number % 2 else dict(reversed(members.items()))
        text = json.dumps(shown, indent=rng.choice([None, 1])).encode()
        found, others, scanner = scanned(text, step)
        assert [json.loads(each.text) for each in found] == data
        assert {name: json.loads(bytes(raw)) for name, raw in others.items()} == {**members, "data": []}
        assert scanner.secret == 'a"b'
        for each in found:
            if each.values is not None:
                cuts = zip(each.values[::2], each.values[1::2], strict=True)
                assert [json.loads(each.text[start:end]) for start, end in cuts] == json.loads(each.text)[
                    "data"
                ]


def test_the_secret_is_known_as_soon_as_it_has_come() -> None:
    scanner = DataScanner(max_items=0, max_value=100, cuts=False)
    scanner.feed(b'{"secret": "x\\u0041", "data": [{"a"')
    assert scanner.secret == "xA"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"data":[{}', "not a JSON object"),
        (b'{"data":[{}]}}', "not a JSON object"),
        (b'{"data":[{}]} {}', "not a JSON object"),
        (b'[{"data":[]}]', "not a JSON object"),
        (b'{"data":[{},5]}', r"data\[1\]: must be an object"),
        (b'{"data":[{},[]]}', r"data\[1\]: must be an object"),
        (b'{"data":[{}{}]}', r"data\[1\]: must be an object"),
        (b'{"data":[{},]}', r"data\[1\]: must be an object"),
        (b'{"data":["{}"]}', r"data\[0\]: must be an object"),
        (b'{"data":[],"data":[{}]}', "data: is there twice"),
        (b'{"data":[{}],"data":5}', "data: is there twice"),
        (b'{"x":"' + b"x" * 70_000 + b'"}', "more than 65,536 bytes beside the list data"),
        (b" " * 70_000 + b"{}", "more than 65,536 bytes beside the list data"),
    ],
)
def test_what_is_no_body_of_a_sync_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ShareError, match=message) as caught:
        scanned(text, 1000)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


LONG = b'{"t":"' + b"x" * 200 + b'"}'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'{"data":[{},{"type":"part","data":%b}]}' % LONG, "data[1]"),
        (b'{"data":[{"type":"model","data":[{},%b]}]}' % LONG, "data[0].data[1]"),
        (b'{"data":[{"type":"model","data":[{}, "%b"]}]}' % (b"x" * 200), "data[0]"),
    ],
    ids=["element", "value", "no object in a list"],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_one_value_that_is_too_long_is_refused_by_its_place(text: bytes, place: str, step: int) -> None:
    with pytest.raises(ShareError) as caught:
        scanned(text, step, max_value=100)
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    told = [f"the body is larger than 100 bytes, and so is {each} alone" for each in (place, "data[0]")]
    assert caught.value.message in told


def test_a_list_may_be_longer_than_one_value() -> None:
    values = b",".join([b'{"x":"0123456789"}'] * 50)
    found, _, _ = scanned(b'{"data":[{"type":"model","data":[%b]}]}' % values, 64, max_value=100)
    assert len(found[0].values or ()) == 100


def test_too_many_elements_are_refused() -> None:
    with pytest.raises(ShareError, match="at most 10 messages") as caught:
        scanned(b'{"data":[%b]}' % b",".join([b"{}"] * 11), 7, max_items=10, cuts=False)
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
