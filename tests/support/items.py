"""Items of syncs, as small as they can be."""

from typing import Any


def part(part_id: str, text: str = "", **fields: Any) -> dict[str, Any]:
    """Return a part as SyncData."""
    return {"type": "part", "data": {"id": part_id, "text": text, **fields}}
