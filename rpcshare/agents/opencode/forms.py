"""Forms of opencode's messages and parts, as far as agents look into them."""

from __future__ import annotations

import re
import time
from typing import Any, TypeAlias

__all__ = ["ended_tool", "error_of", "is_finished", "part_ids"]

JSONObject: TypeAlias = dict[str, Any]

_UNFINISHED = frozenset({"", "tool-calls", "unknown"})
"""Ways in which a step ends that is not the last of its turn."""
_STACK = re.compile(r"\n[ \t]+at ")
"""Where the stack trace begins that opencode puts behind some of its errors."""


def part_ids(transcript_id: str, count: int) -> list[str]:
    """Return IDs of parts that follow from the message's, so that sending it again adds nothing."""
    return [f"prt_{transcript_id[4:]}{number:02d}" for number in range(count)]


def is_finished(info: JSONObject) -> bool:
    """Whether an answer of the assistant's, ``info`` of a message, is the last of its turn."""
    time_of = info.get("time")
    is_completed = isinstance(time_of, dict) and "completed" in time_of
    return is_completed and (info.get("finish") or "") not in _UNFINISHED


def ended_tool(part: JSONObject) -> JSONObject:
    """Return the part of a tool that was running as one that was interrupted."""
    state = part.get("state")
    before = state if isinstance(state, dict) else {}
    times = before.get("time")
    start = times.get("start") if isinstance(times, dict) else None
    now = int(time.time() * 1000)
    ended = {
        "status": "error",
        "input": before.get("input") if isinstance(before.get("input"), dict) else {},
        "error": "Interrupted: the process that ran it has ended",
        "time": {"start": start if isinstance(start, int | float) else now, "end": now},
    }
    metadata = before.get("metadata")
    if isinstance(metadata, dict):
        ended["metadata"] = metadata
    return {**part, "state": ended}


def error_of(error: object) -> str | None:
    """Return what an error says, as a sentence; None: there is none."""
    if not isinstance(error, dict):
        return None
    data = error.get("data")
    message = data.get("message") if isinstance(data, dict) else None
    return _STACK.split(str(message or error.get("name") or "an error"), 1)[0][:1000]
