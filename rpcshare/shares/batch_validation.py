"""What callers send, item by item: checked, told apart, and encoded.

It is compiled where there is a compiler: what is here sees every value of every sync.
"""

import math
import re
from collections.abc import Iterable

from rpcshare import jsontext

__all__ = ["RefusedError", "TooManyError", "Value", "checked", "is_json"]

Value = tuple[bytes, ...]
"""The key and the body of a value, always two: see :class:`~rpcshare.shares.items.Item`.

Of a tuple of two, compiled code takes the two apart and makes another tuple whenever it is stored.
"""

# Less than the 256 that a message may have, for what an event or an AgentSession puts around an item.
MAX_DEPTH = 200
"""Levels of nesting in one item. JSON decoders give up not far beyond, depending on who calls them,
and what has been accepted must stay readable."""

_TYPES = ("session", "message", "part", "session_diff", "model")
_KEYED = ("part", "message")
_LISTS = ("session_diff", "model")


class RefusedError(Exception):
    """Something is wrong with an item."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(place, why)
        self.place = place
        self.why = why


class TooManyError(Exception):
    """There are more values than may be."""


def checked(batch: list[object], first: int = 0, room: int = -1) -> list[tuple[str, list[Value]]]:
    """Return the types of what is in ``batch``, with the values of each.

    Of a type whose data is a list there is one for each item, of the others one for adjacent items.

    Args:
        batch: what a caller has sent, or a part of it.
        first: which of the whole the first of the part is.
        room: how many values there may be; an empty list counts as one. -1: any number.

    Raises:
        RefusedError: where something is wrong, such as ``[3].data.id``, and what.
        TooManyError: there are more than ``room``. It is told before they are encoded.
    """
    gathered: list[tuple[str, list[Value]]] = []
    last = ""
    values: list[Value] = []
    for index, item in enumerate(batch, first):
        try:
            name = _type(item)
            if room >= 0:
                room -= _count(item["data"]) if name in _LISTS else 1  # type: ignore[index]  # as below
                if room < 0:
                    raise TooManyError
            if name != last or name in _LISTS:
                last, values = name, []
                gathered.append((name, values))
            _add(values, name, item["data"])  # type: ignore[index]  # it has a type, so it is a dict
        except RefusedError as exc:
            raise RefusedError(f"[{index}]{exc.place}", exc.why) from None
    return gathered


def _count(data: object) -> int:
    return len(data) or 1 if type(data) is list else 1


def _type(item: object) -> str:
    if type(item) is not dict:
        raise RefusedError("", "must be an object with type and data")
    name = item.get("type")
    if type(name) is not str or name not in _TYPES:
        raise RefusedError(".type", f"must be one of {', '.join(_TYPES)}")
    if "data" not in item:
        raise RefusedError(".data", "is missing")
    return name


def _add(values: list[Value], name: str, data: object) -> None:
    if name in _KEYED:
        key = jsontext.encode(_id(_object(data, ".data"), ".data"))
        values.append((key, _encode(data, ".data")))
    elif name == "session":
        values.append((b"", _encode(_object(data, ".data"), ".data")))
    elif type(data) is not list:
        raise RefusedError(".data", "must be a list")
    elif name == "model":
        for index, each in enumerate(data):
            values.append(_model(each, f".data[{index}]"))
    else:
        for index, each in enumerate(data):
            values.append((b"", _encode(each, f".data[{index}]")))


def _model(model: object, place: str) -> Value:
    fields = _object(model, place)
    provider, model_id = fields.get("providerID"), _id(fields, place)
    key = jsontext.encode([provider if type(provider) is str else None, model_id])
    return key, _encode(model, place)


def _object(value: object, place: str) -> dict[object, object]:
    if type(value) is not dict:
        raise RefusedError(place, "must be an object")
    return value


def _id(data: dict[object, object], place: str) -> str:
    value = data.get("id")
    if type(value) is not str or not value:
        raise RefusedError(f"{place}.id", "must be a string that is not empty")
    return value


def _encode(value: object, place: str) -> bytes:
    if not is_json(value, MAX_DEPTH):
        raise RefusedError(*_first_fault(value, place, MAX_DEPTH))
    try:
        return jsontext.encode(value)
    except ValueError:  # an integer of more digits than Python turns into text
        raise RefusedError(place, "holds a number that is too large") from None


def is_json(value: object, levels: int) -> bool:
    """Whether ``value`` is what a JSON decoder could have made, with at most ``levels`` of lists and objects.

    Types are compared, not asked with isinstance: JSON has no form for a subclass's meaning, and msgspec
    would turn bytes, dates and structs into something that does not come back as it was.
    """
    if type(value) is dict:
        return levels > 0 and _is_object(value, levels - 1)
    if type(value) is list:
        return levels > 0 and _is_array(value, levels - 1)
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is str or type(value) is int or type(value) is bool or value is None


def _is_object(value: dict[object, object], levels: int) -> bool:
    for name, inner in value.items():
        if type(name) is not str or (type(inner) is not str and not is_json(inner, levels)):
            return False
    return True


def _is_array(value: list[object], levels: int) -> bool:
    return all(type(inner) is str or is_json(inner, levels) for inner in value)


def _first_fault(value: object, place: str, levels: int) -> tuple[str, str]:
    """Return where in ``value`` the first thing is that JSON has no form for, and what it is."""
    if not levels and type(value) in (dict, list):
        return ".data", f"is nested more than {MAX_DEPTH} levels deep"
    inner: Iterable[tuple[object, str]] = ()
    if type(value) is dict:
        if any(type(name) is not str for name in value):
            return place, "has a key that is not a string"
        inner = [(value[name], f"{place}.{_shown(name)}") for name in value]
    elif type(value) is list:
        inner = [(each, f"{place}[{index}]") for index, each in enumerate(value)]
    for each, its_place in inner:
        if not is_json(each, levels - 1):
            return _first_fault(each, its_place, levels - 1)
    if type(value) is float:
        return place, "is not a finite number"
    return place, f"is not a JSON value but {type(value).__name__}"


def _shown(name: str) -> str:
    # A name is what the user wrote: only what looks like a field's is repeated in an error.
    return name if re.fullmatch(r"\w{1,40}", name, re.ASCII) else "…"
