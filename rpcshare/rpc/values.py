"""Python forms of JavaScript values that Python has no form for.

===============  ==========================================================
On the wire      In Python
===============  ==========================================================
null, true, "a"  ``None``, ``bool``, ``str``
1, 1.5, 1e20     ``int`` or ``float``; beyond ±(2**53 - 1) always ``float``
an object        ``dict`` with ``str`` keys
an array         ``list`` (a ``tuple`` is sent as one)
undefined        :data:`UNDEFINED`
inf, -inf, nan   ``float``
bigint           :class:`BigInt`; an ``int`` beyond ±(2**53 - 1) is sent as one
date             an aware ``datetime``, or :class:`Date` where that cannot hold it
bytes            ``bytes``, whichever of JavaScript's containers they were in
error            :class:`~rpcshare.rpc.errors.RpcError`
export, import   :class:`~rpcshare.rpc.stub.Stub`
===============  ==========================================================
"""

import math
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

import msgspec

__all__ = [
    "MAX_SAFE_INTEGER",
    "UNDEFINED",
    "BigInt",
    "Date",
    "Undefined",
    "date_from_milliseconds",
    "float_from_integer",
    "format_bigint",
    "milliseconds_from_date",
    "parse_bigint",
]

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer of which JavaScript's ``number`` holds every smaller one."""

# ECMA-262, "Time Values and Time Range": any other Date is invalid.
_MAX_MILLISECONDS = 8.64e15

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Undefined(Enum):
    """The type of :data:`UNDEFINED`."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined.UNDEFINED
"""JavaScript's ``undefined``: what a function returns that returns nothing. False in a condition."""


class BigInt(int):
    """An integer that is a ``bigint`` on the wire whatever its size."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}n"


class Date(msgspec.Struct, frozen=True):
    """A JavaScript Date that ``datetime`` cannot hold: out of its years, or invalid."""

    milliseconds: float | None
    """Since the epoch; None for an invalid date."""


def date_from_milliseconds(milliseconds: float | None) -> datetime | Date:
    """Return the date ``milliseconds`` after the epoch, to the microsecond."""
    if milliseconds is None or not abs(milliseconds) <= _MAX_MILLISECONDS:  # nan compares as false
        return Date(None)
    try:
        return _EPOCH + timedelta(microseconds=round(milliseconds * 1000))
    except OverflowError:
        return Date(milliseconds)


def milliseconds_from_date(date: datetime) -> int | float:
    """Return how long after the epoch ``date`` is; a naive one is taken as local time, as always.

    Raises:
        OverflowError, ValueError, OSError: the local clock does not reach as far as a naive ``date``.
    """
    aware = date.astimezone() if date.utcoffset() is None else date
    microseconds = (aware - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1000)
    return milliseconds if rest == 0 else microseconds / 1000


def float_from_integer(value: int) -> float:
    """Return the number that JavaScript reads ``value`` as, which has too many digits for it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# int() and str() refuse decimal forms of over 4,300 digits unless the whole process turns that bound
# off. A session has a bound of its own, so long numbers go through in pieces below Python's.
_PIECE = 4_000


def parse_bigint(digits: str) -> BigInt:
    """Return the integer with this decimal form.

    Raises:
        ValueError: ``digits`` is not an optional ``-`` and ASCII digits.
    """
    magnitude = digits.removeprefix("-")
    if not (magnitude.isascii() and magnitude.isdecimal()):
        raise ValueError("not a decimal integer")
    value = 0
    for start in range(0, len(magnitude), _PIECE):
        piece = magnitude[start : start + _PIECE]
        value = value * 10 ** len(piece) + int(piece)
    return BigInt(-value if digits[0] == "-" else value)


def format_bigint(value: int) -> str:
    """Return the decimal form of ``value``, however long."""
    rest = abs(value)
    pieces: list[str] = []
    while rest >= 10**_PIECE:
        rest, piece = divmod(rest, 10**_PIECE)
        pieces.append(f"{piece:0{_PIECE}d}")
    pieces.append(str(rest))
    return ("-" if value < 0 else "") + "".join(reversed(pieces))
