"""What a caller sends: a batch of SyncData, checked and brought into its normal form.

A batch is a list of ``{"type", "data"}`` (PROTOCOL.md, "Data"). What is inside ``data`` is opencode's
and is kept exactly as it came; all that is looked at is what tells one item from another. Each value
is encoded once, here: from then on it is bytes, in the log, in memory and in every event.
"""

import math
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain, groupby
from operator import attrgetter
from typing import NoReturn

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["Batch", "Item", "Kind", "json_pieces", "parse_batch"]

# Less than the 256 that a message may have, for what an event or an AgentSession puts around an item.
MAX_DEPTH = 200
"""Levels of nesting in one item. JSON decoders give up not far beyond, depending on who calls them,
and what has been accepted must stay readable."""


class Kind(StrEnum):
    """The ``type`` of a SyncData."""

    SESSION = "session"
    MESSAGE = "message"
    PART = "part"
    DIFF = "session_diff"
    MODEL = "model"


_LISTS = frozenset({Kind.DIFF, Kind.MODEL})  # kinds whose data is a list


class Item(msgspec.Struct, frozen=True):
    """Values of one kind, in order.

    One SyncData of a kind whose data is a list makes one Item; of the others, adjacent ones share one.
    """

    kind: Kind
    values: tuple[tuple[bytes, bytes], ...]
    """(key, body) of each: the JSON text of its identity among its kind, and of all of it.

    The key of a message and of a part is its ``id``; of a model ``[providerID or null, id]``. A session
    has no other beside it and a FileDiff no identity: their key is empty.
    """

    @property
    def size(self) -> int:
        """Bytes of all keys and bodies."""
        return sum(len(key) + len(body) for key, body in self.values)

    def __repr__(self) -> str:
        """Leave out the values, which are what users wrote."""
        return f"{type(self).__name__}({self.kind}, <{len(self.values)} values>)"


class Batch(msgspec.Struct, frozen=True):
    """What one sync carries: applied whole or not at all."""

    items: tuple[Item, ...]
    size: int
    """Bytes of all keys and bodies."""


def json_pieces(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the pieces of the JSON text of ``items`` as a list of SyncData."""
    opening = b"["
    for item in items:
        start = b'{"type":"%b","data":' % item.kind.encode()
        if item.kind in _LISTS:
            yield opening + start + b"["
            yield from joined(body for _, body in item.values)
            yield b"]}"
            opening = b","
            continue
        for _, body in item.values:
            yield opening + start
            yield body
            yield b"}"
            opening = b","
    yield b"[]" if opening == b"[" else b"]"


def joined(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``bodies`` with commas between them."""
    first = True
    for body in bodies:
        if not first:
            yield b","
        yield body
        first = False


def parse_batch(value: object) -> Batch:
    """Check the batch ``value`` and return its normal form.

    Raises:
        ShareError: INVALID_ARGUMENT; the message names the place, such as ``data[3].data.id``.
    """
    if type(value) is not list:
        _refuse("data", "must be a list of SyncData")
    parsed = [_parse_item(item, f"data[{index}]") for index, item in enumerate(value)]
    items: list[Item] = []
    for kind, group in groupby(parsed, attrgetter("kind")):
        if kind in _LISTS:
            items.extend(group)
        else:
            values = chain.from_iterable(item.values for item in group)
            items.append(Item(kind, tuple(values)))
    return Batch(tuple(items), sum(item.size for item in items))


def _parse_item(item: object, place: str) -> Item:
    if type(item) is not dict:
        _refuse(place, "must be an object with type and data")
    kind = _KINDS.get(name) if type(name := item.get("type")) is str else None
    if kind is None:
        _refuse(f"{place}.type", f"must be one of {', '.join(Kind)}")
    if "data" not in item:
        _refuse(f"{place}.data", "is missing")
    data = item["data"]
    place = f"{place}.data"
    match kind:
        case Kind.SESSION:
            return Item(kind, ((b"", _encode(_object(data, place), place)),))
        case Kind.MESSAGE | Kind.PART:
            key = _encode(_id(_object(data, place), place), place)
            return Item(kind, ((key, _encode(data, place)),))
        case Kind.DIFF:
            diffs = enumerate(_list(data, place))
            return Item(kind, tuple((b"", _encode(diff, f"{place}[{i}]")) for i, diff in diffs))
        case Kind.MODEL:
            models = enumerate(_list(data, place))
            return Item(kind, tuple(_model(model, f"{place}[{i}]") for i, model in models))


_KINDS = {kind.value: kind for kind in Kind}


def _model(model: object, place: str) -> tuple[bytes, bytes]:
    model = _object(model, place)
    model_id = _id(model, place)
    provider = model.get("providerID")
    key = jsontext.encode([provider if type(provider) is str else None, model_id])
    return key, _encode(model, place)


def _object(value: object, place: str) -> dict[str, object]:
    if type(value) is not dict:
        _refuse(place, "must be an object")
    return value


def _list(value: object, place: str) -> list[object]:
    if type(value) is not list:
        _refuse(place, "must be a list")
    return value


def _id(data: dict[str, object], place: str) -> str:
    value = data.get("id")
    if type(value) is not str or not value:
        _refuse(f"{place}.id", "must be a string that is not empty")
    return value


def _encode(value: object, place: str) -> bytes:
    if not _is_json(value, MAX_DEPTH - 1):
        _refuse(*_first_fault(value, place, MAX_DEPTH - 1))
    try:
        return jsontext.encode(value)
    except ValueError:  # an integer of more digits than Python turns into text
        _refuse(place, "holds a number that is too large")


# Types are compared, not asked with isinstance: JSON has no form for a subclass's meaning, and msgspec
# would turn bytes, dates and structs into something that does not come back as it was.
_SCALARS = frozenset({str, int, bool, type(None)})


def _is_json(value: object, depth: int) -> bool:
    """Whether ``value`` is what a JSON decoder could have made, with ``depth`` levels inside it.

    Sees every value of every sync.
    """
    kind = type(value)
    if kind is dict:
        for name, inner in value.items():  # type: ignore[attr-defined]  # kind is the type of value
            if type(name) is not str:
                return False
            if type(inner) not in _SCALARS and not (depth and _is_json(inner, depth - 1)):
                return False
        return True
    if kind is list:
        for inner in value:  # type: ignore[attr-defined]  # likewise
            if type(inner) not in _SCALARS and not (depth and _is_json(inner, depth - 1)):
                return False
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]  # likewise
    return kind in _SCALARS


def _first_fault(value: object, place: str, depth: int) -> tuple[str, str]:
    """Return where in ``value`` the first thing is that JSON has no form for, and what it is."""
    if not depth:
        return place.partition(".data")[0] + ".data", f"is nested more than {MAX_DEPTH} levels deep"
    inner: Iterable[tuple[object, str]] = ()
    if type(value) is dict:
        if any(type(name) is not str for name in value):
            return place, "has a key that is not a string"
        inner = ((value[name], f"{place}.{_shown(name)}") for name in value)
    elif type(value) is list:
        inner = ((each, f"{place}[{index}]") for index, each in enumerate(value))
    for each, its_place in inner:
        if not _is_json(each, depth - 1):
            return _first_fault(each, its_place, depth - 1)
    if type(value) is float:
        return place, "is not a finite number"
    return place, f"is not a JSON value but {type(value).__name__}"


def _shown(name: str) -> str:
    # A name is what the user wrote: only what looks like a field's is repeated in an error.
    return name if re.fullmatch(r"\w{1,40}", name, re.ASCII) else "…"


def _refuse(place: str, why: str) -> NoReturn:
    raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{place}: {why}")
