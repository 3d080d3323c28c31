"""Data that one message cannot carry: where it is split."""

from typing import Any

import pytest

from rpcshare.client.sync_pieces import sync_pieces


@pytest.fixture(autouse=True)
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpcshare.client.sync_pieces._MOST_BYTES", 1000)
    monkeypatch.setattr("rpcshare.client.sync_pieces._MOST_VALUES", 200)


def item(length: int, name: str = "p") -> dict[str, Any]:
    return {"type": "part", "data": {"id": name, "text": "x" * length}}


def test_what_fits_a_message_is_one_sync() -> None:
    assert sync_pieces([item(10)] * 5) == [[item(10)] * 5]


def test_nothing_is_one_sync_of_nothing() -> None:
    assert sync_pieces([]) == [[]]


def test_items_stay_whole_and_in_their_order() -> None:
    items = [item(400, str(number)) for number in range(7)]
    pieces = sync_pieces(items)
    assert [len(piece) for piece in pieces] == [2, 2, 2, 1]
    assert [each for piece in pieces for each in piece] == items


def test_an_item_too_large_for_any_message_has_a_sync_of_its_own() -> None:
    items = [item(1), item(5000), item(1)]
    assert sync_pieces(items) == [[items[0]], [items[1]], [items[2]]]


def test_many_small_values_are_split_by_their_number() -> None:
    items: list[dict[str, Any]] = [{"type": "model", "data": [1] * 150}] * 3
    assert [len(piece) for piece in sync_pieces(items)] == [1, 1, 1]


def test_a_list_of_values_is_split_within_an_item() -> None:
    diffs = [{"file": str(number), "patch": "x" * 300} for number in range(7)]
    pieces = sync_pieces([{"type": "session_diff", "data": diffs}])
    assert all(each["type"] == "session_diff" for piece in pieces for each in piece)
    assert [value for piece in pieces for each in piece for value in each["data"]] == diffs
    assert len(pieces) > 2


def test_what_is_no_json_is_left_to_who_refuses_it() -> None:
    odd: list[Any] = [object()]
    assert sync_pieces(odd) == [odd]
