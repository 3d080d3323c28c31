"""Fields of JSON that other programs wrote: any may be missing, or of another type."""

import re
from datetime import datetime
from typing import Any, TypeAlias

from rpcshare import jsontext

__all__ = [
    "JsonObject",
    "boolean",
    "entry_text",
    "fenced",
    "json_block",
    "milliseconds",
    "number",
    "obj",
    "objects",
    "text",
]

JsonObject: TypeAlias = dict[str, Any]

_MAX_TIME = 253_402_300_799_000  # ms since the epoch: the end of the year 9999, and of Python's calendar


def text(fields: JsonObject, *names: str) -> str:
    """Return the first of the fields that is a string and not empty; else an empty string."""
    return next((value for name in names if isinstance(value := fields.get(name), str) and value), "")


def obj(fields: JsonObject, name: str) -> JsonObject:
    """Return a field that is an object; else an empty one."""
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[JsonObject]:
    """Return the objects of a list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def number(fields: JsonObject, name: str) -> int:
    """Return a field that is a whole number of at least 0; else 0."""
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def boolean(fields: JsonObject, name: str) -> bool:
    """Return whether a field is true."""
    return fields.get(name) is True


def milliseconds(value: object) -> int:
    """Return a time, ISO 8601 or milliseconds, in milliseconds since the epoch; 0 for any other value."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return 0
        time = moment.timestamp() * 1000 if moment.tzinfo is not None else 0
    elif isinstance(value, int | float) and not isinstance(value, bool):
        time = value
    else:
        return 0
    return int(time) if 0 <= time <= _MAX_TIME else 0


def fenced(content: str, language: str = "") -> str:
    """Return ``content`` as a fenced block of Markdown, whose fence is longer than any run within.

    Source: CommonMark 0.31, section 4.5.
    """
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if content.endswith("\n") else "\n"
    return f"{fence}{language}\n{content}{end}{fence}"


def json_block(value: object) -> str:
    """Return ``value`` as a fenced block of JSON."""
    return fenced(jsontext.indented(value), "json")


def entry_text(kind: str, entry: object) -> str:
    """Return an entry that no part has a form for, as its kind and its JSON."""
    return f"{kind}\n\n{json_block(entry)}"
