"""Files that a prompt mentions: opencode puts their content into parts of their own, before the file part."""

from rpcshare.render.lenient_json import Fields
from rpcshare.shares.outline import Entry

__all__ = ["mentions_of"]

_CALLED = "Called the Read tool with the following input"

Mentions = dict[int, tuple[bytes, ...] | None]


def mentions_of(entry: Entry) -> Mentions:
    """Return, by the places of parts, the contents of a file; None for a part that is shown with its file."""
    known: Mentions | None = entry.__dict__.get("mentions")
    if known is None:
        known = entry.__dict__["mentions"] = _read(entry)
    return known


def _read(entry: Entry) -> Mentions:
    found: Mentions = {}
    waiting: list[int] = []
    if not any(_CALLED.encode() in part.body for part in entry.parts):
        return found
    for place, part in enumerate(entry.parts):
        fields = Fields.decode(part.body)
        if fields.raw("type") == "text" and fields.flag("synthetic"):
            if waiting or fields.raw("text").startswith(_CALLED):
                waiting.append(place)
            continue
        if fields.raw("type") == "file" and waiting and fields.raw("url")[:5] in ("file:", "data:"):
            bodies = [entry.parts[each].body for each in waiting]
            found[place] = tuple(body for body in bodies if _CALLED.encode() not in body)
            found |= dict.fromkeys(waiting)
        waiting = []
    return found
