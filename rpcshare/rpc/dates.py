"""Dates of the wire, which are milliseconds after the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from rpcshare.rpc.values import Date

__all__ = ["date_from_milliseconds", "milliseconds_from_date"]

# ECMA-262, "Time Values and Time Range": any other Date is invalid.
_MAX_MILLISECONDS: Final = 8_640_000_000_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MICROSECOND: Final = timedelta(microseconds=1)


def date_from_milliseconds(milliseconds: int | float | None) -> datetime | Date:
    """Return the date ``milliseconds`` after the epoch, to the microsecond."""
    try:
        if isinstance(milliseconds, int):
            if -_MAX_MILLISECONDS <= milliseconds <= _MAX_MILLISECONDS:
                # To multiply a timedelta takes half as long as to make one of them.
                return _EPOCH + milliseconds * _MILLISECOND
        elif milliseconds is not None and -_MAX_MILLISECONDS <= milliseconds <= _MAX_MILLISECONDS:
            return _EPOCH + round(milliseconds * 1000) * _MICROSECOND
    except OverflowError:
        return Date(milliseconds)
    return Date(None)


def milliseconds_from_date(date: datetime) -> int | float:
    """Return how long after the epoch ``date`` is; a naive one is taken as local time, as always.

    Raises:
        OverflowError, ValueError, OSError: the local clock does not reach as far as a naive ``date``.
    """
    aware = date.astimezone() if date.utcoffset() is None else date
    microseconds = (aware - _EPOCH) // _MICROSECOND
    milliseconds, rest = divmod(microseconds, 1000)
    return milliseconds if rest == 0 else microseconds / 1000
