"""Values of the wire as the JSON that is stored."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import UNDEFINED, BigInt, Date, RpcError
from rpcshare.server.plain_json import iso_string, plain_json, plain_options


def test_what_is_plain_json_already_is_returned_as_it_is() -> None:
    value = {"a": [1, 2.5, None, True, {"b": "text"}], "": {}}
    assert plain_json(value, "data") is value


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ({"a": UNDEFINED, "b": 1}, {"b": 1}),
        ([UNDEFINED, 1], [None, 1]),
        ({"a": math.nan, "b": math.inf, "c": -math.inf}, {"a": None, "b": None, "c": None}),
        ({"at": datetime(2020, 1, 2, 3, 4, 5, 678_900, UTC)}, {"at": "2020-01-02T03:04:05.678Z"}),
        ({"at": Date(None)}, {"at": None}),
        ({"n": BigInt(2**70)}, {"n": 2**70}),
        ({"a": [{"b": [UNDEFINED]}]}, {"a": [{"b": [None]}]}),
    ],
)
def test_the_rest_is_printed_as_json_stringify_does(value: object, printed: object) -> None:
    assert plain_json(value, "data") == printed


def test_the_value_that_was_passed_is_not_changed() -> None:
    value = {"a": [UNDEFINED]}
    plain_json(value, "data")
    assert value == {"a": [UNDEFINED]}


@pytest.mark.parametrize("odd", [b"bytes", RpcError("an error"), print])
def test_what_json_has_no_form_for_is_refused_with_its_place(odd: object) -> None:
    with pytest.raises(ShareError) as refused:
        plain_json([{}, {"data": {"list": [1, odd]}}], "data")
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert refused.value.message.startswith("data[1].data.list[1]: JSON has no form for ")


def test_a_field_name_that_looks_like_content_is_not_repeated() -> None:
    with pytest.raises(ShareError) as refused:
        plain_json({"my password is hunter2": b""}, "data")
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    ("milliseconds", "printed"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
        (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
        (8.64e15, "+275760-09-13T00:00:00.000Z"),
        (-8.64e15, "-271821-04-20T00:00:00.000Z"),
        (951_782_400_000 + 146_097 * 86_400_000 * 25, "+012000-02-29T00:00:00.000Z"),
        (8.64e15 + 1, None),
        (math.nan, None),
        (None, None),
    ],
)
def test_dates_out_of_pythons_years_print_as_javascripts(
    milliseconds: float | None, printed: str | None
) -> None:
    assert iso_string(Date(milliseconds)) == printed


@pytest.mark.parametrize("year", [1, 999, 1969, 2024, 9999])
@pytest.mark.parametrize("microsecond", [0, 1, 999, 1000, 123_456, 999_999])
def test_dates_print_as_javascripts(year: int, microsecond: int) -> None:
    date = datetime(year, 2, 3, 4, 5, 6, microsecond, tzinfo=UTC)
    assert iso_string(date) == f"{year:04d}-02-03T04:05:06.{microsecond // 1000:03d}Z"


def test_a_date_of_another_zone_prints_in_utc() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    assert iso_string(datetime(2000, 1, 1, tzinfo=zone)) == "1999-12-31T18:30:00.000Z"


@pytest.mark.parametrize("end", [math.nan, math.inf, Date(None)])
def test_an_option_that_json_has_as_null_is_refused_for_null_means_none(end: object) -> None:
    """An invalid date would make what never ends."""
    with pytest.raises(ShareError, match="expiresAt: is no number"):
        plain_options({"expiresAt": end}, "options")
    assert plain_options({"expiresAt": None, "name": UNDEFINED}, "options") == {"expiresAt": None}
