"""Inputs as opencode writes them, one for each kind of thing that pages once drew wrong."""

import json
from pathlib import Path
from typing import Any

__all__ = ["field"]

_FOLDER = Path(__file__).parent / "field"


def field(number: str) -> list[Any]:
    """Return the SyncData of an input, such as ``01``; of an export, what it is pushed as."""
    (path,) = _FOLDER.glob(f"{number}-*.json")
    read: Any = json.loads(path.read_text())
    if isinstance(read, list):
        return read
    items: list[Any] = [{"type": "session", "data": read["info"]}]
    for message in read["messages"]:
        items.append({"type": "message", "data": message["info"]})
        items += [{"type": "part", "data": part} for part in message["parts"]]
    return items
