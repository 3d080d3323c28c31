"""Sessions that belong together: a session, those of its sub-agents, and the one that started it."""

from collections.abc import Mapping

import msgspec

from rpcshare.render.lenient_json import Fields
from rpcshare.shares.outline import Entry, Transcript
from rpcshare.transcripts.opencode_tools import task_result

__all__ = ["MAX_CHILDREN", "children_of", "parent_of", "session_of_parts"]

MAX_CHILDREN = 24
"""Sub-agents of one session that are looked for: the first."""


def children_of(transcript: Transcript) -> list[str]:
    """Return the session IDs of the first sub-agents that a session started."""
    found: dict[str, None] = {}
    for entry in transcript.entries:
        found |= dict.fromkeys(session_of_parts(entry).values())
        if len(found) >= MAX_CHILDREN:
            break
    return list(found)[:MAX_CHILDREN]


def parent_of(transcript: Transcript) -> str:
    """Return the ID of the session that started this one; empty where none did."""
    if b'"parentID"' not in transcript.session:
        return ""
    return Fields.decode(transcript.session).line("parentID", limit=256)


def session_of_parts(entry: Entry) -> Mapping[str, str]:
    """Return the session that each call of a sub-agent in a message started, by the part's ID."""
    known = entry.__dict__.get("started")
    if known is None:
        known = {}
        for part in entry.parts:
            is_call = b'"task"' in part.body or b'"subagent"' in part.body
            if is_call and (session_id := _started(part.body)):
                known[part.id] = session_id
        entry.__dict__["started"] = known
    started: Mapping[str, str] = known
    return started


class _Call(msgspec.Struct):
    tool: str = ""


_call = msgspec.json.Decoder(_Call).decode


def _started(body: bytes) -> str:
    try:
        if _call(body).tool.lower() not in ("task", "subagent"):
            return ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    state = Fields.decode(body).fields("state")
    return task_result(state.fields("metadata").whole, state.raw("output")).session_id
