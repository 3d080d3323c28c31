"""What was taken back: the messages and parts from ``session.revert`` on.

opencode keeps them until the next prompt, which removes them for good; until then they can be restored.
"""

import msgspec

from rpcshare.render.lenient_json import Fields
from rpcshare.shares.outline import Entry, Transcript

__all__ = ["TakenBack", "taken_back"]


class TakenBack(msgspec.Struct, frozen=True):
    """Where it begins and ends."""

    entry: int
    """The place of the first message of which something is taken back."""
    until: int
    """The place of the first message after them that is not: a new prompt."""
    part_id: str = ""
    """The first part of the first message that is taken back; empty for all of it."""
    is_gone: bool = False
    """Whether a new prompt has removed them for good."""

    def kept_parts(self, index: int, entry: Entry) -> int:
        """Return how many parts of the message at ``index`` are not taken back, from its first on."""
        if not self.entry <= index < self.until:
            return len(entry.parts)
        if index > self.entry or not self.part_id:
            return 0
        places = (place for place, part in enumerate(entry.parts) if part.id == self.part_id)
        return next(places, len(entry.parts))

    def removes(self, index: int, entry: Entry) -> bool:
        """Return whether nothing is left of the message at ``index``."""
        return self.is_gone and self.entry <= index < self.until and not self.kept_parts(index, entry)


class _Made(msgspec.Struct):
    created: float = 0


class _Prompt(msgspec.Struct):
    role: str = ""
    time: _Made = msgspec.field(default_factory=_Made)


_decode = msgspec.json.Decoder(_Prompt).decode


def taken_back(transcript: Transcript) -> TakenBack | None:
    """Return what was taken back; None where nothing was."""
    if "taken_back" in transcript.__dict__:
        known: TakenBack | None = transcript.__dict__["taken_back"]
        return known
    found = None
    if b'"revert"' in transcript.session:
        session = Fields.decode(transcript.session)
        revert = session.fields("revert")
        if message_id := revert.raw("messageID"):
            places = (place for place, entry in enumerate(transcript.entries) if entry.id == message_id)
            begin = next(places, None)
            if begin is not None:
                until = _new_prompt(transcript, begin, session.fields("time").number("updated") or 0)
                is_gone = until < len(transcript.entries)
                found = TakenBack(begin, until, revert.raw("partID"), is_gone)
    transcript.__dict__["taken_back"] = found
    return found


def _new_prompt(transcript: Transcript, begin: int, reverted_at: float) -> int:
    """Return the place of the first prompt that is newer than the session's state, or the end."""
    for place in range(begin, len(transcript.entries)):
        body = transcript.entries[place].body
        try:
            message = _decode(body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if message.role == "user" and reverted_at and message.time.created > reverted_at:
            return place
    return len(transcript.entries)
