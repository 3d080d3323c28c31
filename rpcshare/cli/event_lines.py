"""What happens to a share, in lines for people.

What a share holds is opencode's, and anybody's: any field may be missing, of another type, or hostile.
"""

import time
from collections.abc import Iterator
from typing import Any

from rpcshare.cli.terminal import printable
from rpcshare.client import ShareEvent
from rpcshare.client.types import SyncData

__all__ = ["EventLines"]

_KIND_WIDTH = 11  # of "step-finish", the longest that opencode has
_END_OF_TIME = 253_402_300_800_000  # ms since the epoch: the year 10000, where Python's dates end
_MOST_LINES = 10**9  # of a change in a file that is to be believed
_LONGEST_TEXT = 2_000  # characters looked at, for a line that is cut to the screen anyway


class EventLines:
    """Tells of events, one line an item: its time, its kind, and what is new in it."""

    def __init__(self) -> None:
        # Of each part whose text may grow, how it was last seen.
        self._texts: dict[str, str] = {}

    def of(self, event: ShareEvent) -> Iterator[str]:
        """Yield the lines for ``event``."""
        now = time.time()
        if event.type == "deleted":
            yield _line(now, "deleted", "the share is gone")
        elif event.type == "snapshot":
            # What is there already came some time ago, and nothing but the item itself could tell when.
            yield from (self._item(item, None) for item in _in_reading_order(event.data))
        else:
            yield from (self._item(item, now) for item in event.data)

    def _item(self, item: SyncData, arrived: float | None) -> str:
        kind, data = item.get("type"), item.get("data")
        match kind, data:
            case "session", dict():
                return _line(_time(data) or arrived, "session", _session(data))
            case "message", dict():
                return _line(_time(data) or arrived, "message", _message(data))
            case "part", dict():
                return _line(_time(data) or arrived, _text(data.get("type")) or "part", self._part(data))
            case "session_diff", list():
                return _line(arrived, "diff", _diffs(data))
            case "model", list():
                return _line(arrived, "model", ", ".join(map(_model, data)))
            case _:
                return _line(arrived, _text(kind), "")

    def _part(self, part: dict[str, Any]) -> str:
        match part.get("type"):
            case "text" | "reasoning":
                return self._growth(_text(part.get("id")), _text(part.get("text")))
            case "tool":
                state = _object(part.get("state"))
                said = state.get("error") or state.get("title") or _object(state.get("input")).get("command")
                return _joined(part.get("tool"), state.get("status"), said)
            case "file":
                return _joined(part.get("filename"), part.get("mime"))
            case "patch":
                files = part.get("files")
                return ", ".join(map(_text, files)) if isinstance(files, list) else ""
            case "step-finish":
                return _text(part.get("reason"))
            case _:
                return _joined(part.get("name"), part.get("description"))

    def _growth(self, part_id: str, text: str) -> str:
        """Return what has come to a text since it was last seen; all of it if it is not a longer one."""
        before = self._texts.get(part_id, "")
        self._texts[part_id] = text
        if before and len(text) > len(before) and text.startswith(before):
            return "… " + text[len(before) :]
        return text


def _in_reading_order(items: list[SyncData]) -> Iterator[SyncData]:
    """Yield ``items`` with each part behind its message, instead of all messages before all parts."""
    parts: dict[str, list[SyncData]] = {}
    others: list[SyncData] = []
    for item in items:
        if item.get("type") == "part":
            parts.setdefault(_text(_object(item.get("data")).get("messageID")), []).append(item)
        else:
            others.append(item)
    for item in others:
        yield item
        if item.get("type") == "message":
            yield from parts.pop(_text(_object(item.get("data")).get("id")), ())
    for orphans in parts.values():
        yield from orphans


def _line(seconds: float | None, kind: str, text: str) -> str:
    clock = "" if seconds is None else time.strftime("%H:%M:%S", time.localtime(seconds))
    kind = printable(kind[:_KIND_WIDTH]) or "?"
    return f"{clock:8}  {kind:<{_KIND_WIDTH}}  {printable(text[:_LONGEST_TEXT])}".rstrip()


def _time(data: dict[str, Any]) -> float | None:
    """Return when an item came to be or last changed, in seconds since the epoch, if it says so."""
    for times in (_object(data.get("time")), _object(_object(data.get("state")).get("time"))):
        for name in ("updated", "completed", "end", "start", "created"):
            milliseconds = times.get(name)
            if isinstance(milliseconds, int | float) and 0 < milliseconds < _END_OF_TIME:
                return milliseconds / 1000
    return None


def _session(session: dict[str, Any]) -> str:
    return _joined(session.get("title") or session.get("id"), session.get("directory"))


def _message(message: dict[str, Any]) -> str:
    failure = _object(message.get("error"))
    named = _object(message.get("model"))
    model = _text(message.get("modelID")) or _text(named.get("modelID"))
    said = _text(_object(failure.get("data")).get("message"))
    return _joined(message.get("role"), model, failure.get("name"), said)


def _model(model: object) -> str:
    fields = _object(model)
    return "/".join(filter(None, (_text(fields.get("providerID")), _text(fields.get("id")))))


def _diffs(diffs: list[Any]) -> str:
    files = [_object(diff) for diff in diffs]
    changes = (
        f"{_text(file.get('file'))} +{_count(file.get('additions'))} -{_count(file.get('deletions'))}"
        for file in files
    )
    return ", ".join(changes) or "no changes"


def _joined(*values: object) -> str:
    return " ".join(filter(None, map(_text, values)))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> str:
    return str(value) if type(value) is int and 0 <= value < _MOST_LINES else "?"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
