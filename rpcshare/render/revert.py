"""What was taken back: the messages and parts from ``session.revert`` on.

opencode keeps them until the next prompt, which removes them for good; until then they can be restored.
"""

import msgspec

from rpcshare.render.lenient_json import Fields
from rpcshare.shares.outline import Entry, Transcript

__all__ = ["TakenBack", "kept_parts", "taken_back"]


class TakenBack(msgspec.Struct, frozen=True):
    """Where it begins."""

    entry: int
    """The place of the first message of which something is taken back."""
    part_id: str = ""
    """The first of its parts that is; empty for all of it."""


def taken_back(transcript: Transcript) -> TakenBack | None:
    """Return where what was taken back begins; None where nothing was."""
    if "taken_back" in transcript.__dict__:
        known: TakenBack | None = transcript.__dict__["taken_back"]
        return known
    found = None
    if b'"revert"' in transcript.session:
        revert = Fields.decode(transcript.session).fields("revert")
        if message_id := revert.raw("messageID"):
            for index, entry in enumerate(transcript.entries):
                if entry.id == message_id:
                    found = TakenBack(index, revert.raw("partID"))
                    break
    transcript.__dict__["taken_back"] = found
    return found


def kept_parts(back: TakenBack, index: int, entry: Entry) -> int:
    """Return how many parts of the message at ``index`` are not taken back, from its first on."""
    if index != back.entry:
        return len(entry.parts) if index < back.entry else 0
    if not back.part_id:
        return 0
    places = (place for place, part in enumerate(entry.parts) if part.id == back.part_id)
    return next(places, len(entry.parts))
