"""How lengths of time are written, on the command line and over RPC."""

import pytest

from rpcshare.durations import MAX_DURATION, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        (" 1d ", 86_400),
        (45, 45),
        (0.5, 0.5),
        (MAX_DURATION, MAX_DURATION),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "30", "d", "1y", "30D", "1.5h", "1d12h", "-1d", "\u0663d", "1" * 13 + "s"]
)
def test_text_in_another_form_is_refused(written):
    with pytest.raises(ValueError, match="such as 30d, 12h"):
        parse_duration(written)


@pytest.mark.parametrize("value", [None, True, [], {}, b"30d"])
def test_what_is_neither_text_nor_a_number_is_refused(value):
    with pytest.raises(ValueError, match="a number of seconds"):
        parse_duration(value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), MAX_DURATION + 1])
def test_nothing_and_more_than_two_hundred_years_are_refused(value):
    with pytest.raises(ValueError, match="two hundred years"):
        parse_duration(value)
