"""What a pattern matches."""

import pytest

from rpcshare.conformance.patterns import filled_in, matches

ERROR = ["error", "TypeError", "m"]


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (None, None),
        (1, 1.0),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({"$any": True}, [1, {"a": None}]),
        ({"$string": True}, ""),
        ({"$id": "new"}, -3),
        ({"$id": "known"}, -1),
        ({"$error": True}, ERROR),
        ({"$error": "TypeError"}, [*ERROR, None, {"code": "X"}]),
        ({"$unknown": True}, {"$unknown": True}),
        ({"$any": True, "$string": True}, {"$any": True, "$string": True}),
    ],
)
def test_matches(pattern, value):
    assert matches(pattern, value, {"known": -1})


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (None, False),
        (0, False),
        (True, 1),
        (1, "1"),
        ([1], [1, 2]),
        ([1, 2], [1]),
        ([], {}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": 1}, ["a"]),
        ({"$string": True}, 1),
        ({"$id": "new"}, -1.0),
        ({"$id": "new"}, True),
        ({"$id": "known"}, -2),
        ({"$error": True}, "error"),
        ({"$error": True}, ["error", "TypeError"]),
        ({"$error": "RangeError"}, ERROR),
    ],
)
def test_does_not_match(pattern, value):
    assert not matches(pattern, value, {"known": -1})


def test_a_message_is_filled_in_with_the_numbers_that_are_known():
    message = ["push", {"a": [["import", {"$id": "n"}]], "b": {"$any": {"$id": "n"}}, "c": 1}]
    filled = ["push", {"a": [["import", -4]], "b": {"$any": -4}, "c": 1}]
    assert filled_in(message, {"n": -4}) == filled


def test_a_number_that_nobody_has_chosen_cannot_be_sent():
    with pytest.raises(KeyError):
        filled_in([{"$id": "n"}], {})
