"""A session from top to bottom, as the writers of files take it: JSON texts, decoded one at a time."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rpcshare import jsontext
from rpcshare.transcripts.json_fields import JsonObject, obj, objects, text

__all__ = ["Turn", "Turns", "turns_of_agent_session"]


class Turn(NamedTuple):
    """A message with its parts, each as JSON."""

    message: bytes | None
    """None where only its parts are known."""
    parts: Sequence[bytes]


class Turns(NamedTuple):
    """What a file is written of."""

    session: bytes
    turns: Iterable[Turn]
    files: Iterable[bytes] = ()
    """The newest FileDiff of each file."""


def turns_of_agent_session(session: JsonObject) -> Turns:
    """Return an AgentSession in the order in which it is read."""
    parts: dict[str, list[JsonObject]] = {}
    for part in objects(session.get("parts")):
        parts.setdefault(text(part, "messageID"), []).append(part)
    latest = 0.0
    timed: list[tuple[float, JsonObject]] = []
    for message in objects(session.get("messages")):
        created = obj(message, "time").get("created")
        # One that does not say when stays behind the one before it.
        latest = created if isinstance(created, int | float) and created else latest
        timed.append((latest, message))
    timed.sort(key=lambda each: each[0])
    turns = [
        Turn(jsontext.encode(message), [*map(jsontext.encode, parts.pop(text(message, "id"), ()))])
        for _, message in timed
    ]
    turns += (Turn(None, [*map(jsontext.encode, orphans)]) for orphans in parts.values())
    newest = {text(diff, "file") or str(n): diff for n, diff in enumerate(objects(session.get("diffs")))}
    return Turns(jsontext.encode(session["session"]), turns, [*map(jsontext.encode, newest.values())])
