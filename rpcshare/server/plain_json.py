"""From values of the wire to the JSON that the store keeps."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.jsontext import JSONText
from rpcshare.rpc import UNDEFINED, Date
from rpcshare.rpc.limits import MAX_DEPTH
from rpcshare.shares.batch_validation import is_json

__all__ = ["iso_string", "plain_json", "plain_options"]

# ECMA-262 section 21.4.1.1: a time value is at most this far from the epoch.
_MAX_TIME = 8.64e15
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The Gregorian calendar repeats itself every 400 years; in milliseconds.
_CYCLE = 146_097 * 86_400_000


class _NoFormError(Exception):
    """A value that JSON has no form for: what it is, and the steps to it, innermost first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.steps: list[str] = []


def plain_json(value: object, place: str) -> object:
    """Return ``value`` as ``JSON.stringify`` would print it; itself if nothing has to change.

    A client that calls over RPC can send more than JSON has. What JavaScript has a JSON form for takes it:
    ``undefined`` is left out, a date becomes its ISO string, NaN and the infinities become null.

    Raises:
        ShareError: INVALID_ARGUMENT, naming where, from ``place`` on, there is what has no such form.
    """
    if isinstance(value, JSONText) or is_json(value, MAX_DEPTH):
        return value
    try:
        return _plain(value)
    except _NoFormError as exc:
        where = place + "".join(reversed(exc.steps))
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{where}: JSON has no form for {exc.what}") from None


def plain_options(value: object, place: str) -> object:
    """Return options as :func:`plain_json` does, unless one would become null that was not.

    Null stands for "none", so that an invalid date would make a key or a share that never ends.

    Raises:
        ShareError: INVALID_ARGUMENT, naming it.
    """
    plain = plain_json(value, place)
    if isinstance(value, dict) and isinstance(plain, dict):
        for name, given in value.items():
            if given is not None and plain.get(name, UNDEFINED) is None:
                message = f"{name}: is no number and no date that there is"
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
    return plain


def _plain(value: object) -> object:  # noqa: PLR0911 -- one return for each kind
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        return _plain_object(value)  # type: ignore[arg-type]  # its kind says so
    if kind is list:
        return _plain_array(value)  # type: ignore[arg-type]  # likewise
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is UNDEFINED:
        return None
    if isinstance(value, datetime | Date):
        return iso_string(value)
    if isinstance(value, int):
        return int(value)  # a bigint: JSON sets no bound to integers
    raise _NoFormError("bytes" if isinstance(value, bytes) else "a function, stub, error or stream")


def _plain_object(value: dict[str, object]) -> object:
    changed: dict[str, object] | None = None
    for name, item in value.items():
        try:
            plain = _plain(item)
        except _NoFormError as exc:
            # Names are what the user wrote: only what looks like a field's is repeated in an error.
            exc.steps.append(f".{name}" if re.fullmatch(r"\w{1,40}", name, re.ASCII) else ".…")
            raise
        if plain is item:
            continue
        if changed is None:
            changed = value.copy()
        if item is UNDEFINED:
            del changed[name]
        else:
            changed[name] = plain
    return value if changed is None else changed


def _plain_array(value: list[object]) -> object:
    changed: list[object] | None = None
    for index, item in enumerate(value):
        try:
            plain = _plain(item)
        except _NoFormError as exc:
            exc.steps.append(f"[{index}]")
            raise
        if plain is not item:
            if changed is None:
                changed = value.copy()
            changed[index] = plain
    return value if changed is None else changed


def iso_string(date: datetime | Date) -> str | None:
    """Return a date as JavaScript's ``toJSON`` does; None for an invalid one."""
    if isinstance(date, datetime):
        if date.tzinfo is not UTC:
            date = date.astimezone(UTC)
        # A fifth of the time that isoformat() takes, which asks the time zone.
        text: str = msgspec.to_builtins(date)
        return text[:23] + "Z" if date.microsecond else text[:19] + ".000Z"
    time = date.milliseconds
    if time is None or not abs(time) <= _MAX_TIME:
        return None
    # JavaScript's years go on where datetime's end. The calendar repeats itself, so a cycle within
    # datetime's years has the same days, and the year is told apart.
    cycles, within = divmod(math.trunc(time), _CYCLE)
    moment = _EPOCH + timedelta(milliseconds=within)
    year = moment.year + 400 * cycles
    years = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+07d}"
    return years + moment.isoformat(timespec="milliseconds")[4:].replace("+00:00", "Z")
