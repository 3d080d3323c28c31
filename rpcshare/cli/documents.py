"""A share as a file: a list of SyncData, a line for each, or an AgentSession."""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from rpcshare import jsontext
from rpcshare.client.types import SyncData
from rpcshare.errors import ShareError
from rpcshare.shares.syncdata import parse_batch

__all__ = ["DocumentError", "SizedItem", "read_items", "to_sync_data"]


class DocumentError(Exception):
    """A file that holds no share. The message says where it goes wrong, and how, and quotes nothing."""


class SizedItem(msgspec.Struct, frozen=True):
    """A SyncData that the server will accept."""

    item: SyncData
    sizes: tuple[int, ...]
    """In bytes of JSON: of its ``data``, or of each of its values where that is a list."""


def read_items(content: bytes) -> list[SizedItem]:
    """Return the SyncData that a file holds, whichever of the three forms it has.

    Raises:
        DocumentError: it has none of them, or one of its items is not as it must be.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content.strip():
        raise DocumentError("is empty")
    return [_sized(item, place) for item, place in _located_items(content)]


def to_sync_data(session: dict[str, Any]) -> list[SyncData]:
    """Return what makes an AgentSession anew, item by item."""
    items = [{"type": "session", "data": session["session"]}]
    items += ({"type": "message", "data": message} for message in session["messages"])
    items += ({"type": "part", "data": part} for part in session["parts"])
    if session["diffs"]:
        items.append({"type": "session_diff", "data": session["diffs"]})
    if session["models"]:
        items.append({"type": "model", "data": session["models"]})
    return items


_Located = tuple[object, str]
"""What should be a SyncData, and where in the file it is, for people."""


def _located_items(content: bytes) -> Iterable[_Located]:
    try:
        value = jsontext.decode(content)
    except jsontext.JSONDecodeError as exc:
        # A document of several lines, or several documents? The first line tells.
        if not _is_object(content.lstrip().partition(b"\n")[0]):
            raise DocumentError(_fault(content, exc)) from None
        return _lines(content)
    if isinstance(value, list):
        return ((item, f"item {index}") for index, item in enumerate(value))
    if isinstance(value, dict) and "session" in value:
        return _items_of_session(value)
    if isinstance(value, dict) and "type" in value:
        return ((value, "line 1"),)
    raise DocumentError("is neither a list of SyncData, nor one a line, nor an AgentSession")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(jsontext.decode(line), dict)
    except jsontext.JSONDecodeError:
        return False


def _lines(content: bytes) -> Iterator[_Located]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            item = jsontext.decode(line)
        except jsontext.JSONDecodeError as exc:
            raise DocumentError(_fault(line, exc, number)) from None
        yield item, f"line {number}"


def _items_of_session(session: dict[str, Any]) -> Iterator[_Located]:
    yield {"type": "session", "data": session["session"]}, "session"
    singles = (("messages", "message"), ("parts", "part"))
    lists = (("diffs", "session_diff"), ("models", "model"))
    for name, kind in singles:
        for index, data in enumerate(_values(session, name)):
            yield {"type": kind, "data": data}, f"{name}[{index}]"
    for name, kind in lists:
        if values := _values(session, name):
            yield {"type": kind, "data": values}, name


def _values(session: dict[str, Any], name: str) -> list[Any]:
    values = session.get(name, [])
    if not isinstance(values, list):
        raise DocumentError(f"{name}: must be a list")
    return values


def _sized(item: object, place: str) -> SizedItem:
    """Check one SyncData by the server's own rules."""
    try:
        (parsed,) = parse_batch([item]).items
    except ShareError as exc:
        where, _, why = exc.message.partition(": ")
        raise DocumentError(f"{place}{where.removeprefix('data[0]')}: {why}") from None
    assert isinstance(item, dict)  # noqa: S101 -- or it would not have parsed
    return SizedItem(item, tuple(len(key) + len(body) for key, body in parsed.values))


def _fault(text: bytes, error: jsontext.JSONDecodeError, first_line: int = 1) -> str:
    """Return at which line JSON text goes wrong, and how."""
    try:
        # The standard library gives lines where msgspec gives bytes.
        json.loads(text.decode())
    except json.JSONDecodeError as exc:
        return f"line {first_line + exc.lineno - 1}: not JSON: {exc.msg}"
    except UnicodeDecodeError as exc:
        line = first_line + text.count(b"\n", 0, exc.start)
        return f"line {line}: not UTF-8"
    except RecursionError:
        return f"line {first_line}: nested too deeply"
    return f"line {first_line}: not JSON: {error}"
