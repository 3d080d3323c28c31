"""Words within one session, in parts that a page shows and in all others.

A search reads as much as fits its time, and says where to go on: what it costs does not depend on the share.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from rpcshare.render.anchors import anchor
from rpcshare.render.lenient_json import Fields
from rpcshare.render.messages import anchor_of, facts_of
from rpcshare.render.pagination import Place
from rpcshare.render.revert import TakenBack, taken_back
from rpcshare.render.safe_text import plain
from rpcshare.shares.outline import Entry, PartEntry, Transcript

__all__ = ["MAX_QUERY", "Found", "Hit", "search_session"]

MAX_QUERY = 200
"""Characters."""

_MAX_WORDS = 8
_MAX_HITS = 50  # on one page
_SECONDS = 0.25  # of one search
_AROUND = 90  # characters of a snippet before what is found, and twice as many behind it
_MAX_TEXT = 2_000_000  # characters of a part that are looked at
_MAX_DEPTH = 6
_PLAIN_WORD: Final = re.compile(rb"[a-z0-9 .,;:_()\[\]{}#*=+-]+")
_TERM: Final = re.compile(r'"([^"]+)"?|(\S+)')


class Hit(NamedTuple):
    """A part in which all words are."""

    part: str
    """Its anchor."""
    message: str
    """Its message's."""
    who: str
    """Who speaks, or which tool it is."""
    before: str
    found: str
    after: str


class Found(NamedTuple):
    """What one search came to."""

    hits: list[Hit]
    later: str
    """The cursor from which it goes on; empty where all has been looked at."""
    is_short_of_time: bool
    """Whether it ended because of its time."""
    share_read: int
    """How much of the session has been looked at by its end, in per cent."""


class _Query:
    def __init__(self, query: str) -> None:
        terms = [(quoted or bare).casefold() for quoted, bare in _TERM.findall(query[:MAX_QUERY])]
        self.terms = list(dict.fromkeys(terms))[:_MAX_WORDS]
        # Other characters may stand in JSON as escapes, and ß for ss: what is left is looked for before
        # anything is decoded.
        pieces = [piece.encode("utf-8", "replace") for term in self.terms for piece in term.split("ss")]
        self._rough = [each for each in pieces if _PLAIN_WORD.fullmatch(each)]

    def may_be_in(self, body: bytes) -> bool:
        """Return whether a body has to be decoded."""
        if not self._rough:
            return True
        lowered = body.lower()
        return all(each in lowered for each in self._rough)

    def place_in(self, text: str) -> tuple[int, int] | None:
        """Return where the first term is in a text that has all of them; None for any other text."""
        folded = text.casefold()
        if not all(term in folded for term in self.terms):
            return None
        start, length = min((folded.find(term), len(term)) for term in self.terms)
        if len(folded) == len(text):
            return start, length
        first = _place_before(text, start)
        return first, _place_before(text, start + length) - first


def _place_before(text: str, folded: int) -> int:
    """Return how much of a text becomes ``folded`` characters when it is casefolded: ß becomes two."""
    length = 0
    for place, character in enumerate(text):
        if length >= folded:
            return place
        length += len(character.casefold())
    return len(text)


def search_session(
    transcript: Transcript, query: str, start: Place, now: Callable[[], float] = time.thread_time
) -> Found:
    """Return where all words of a query are, from a place on.

    Args:
        transcript: the share.
        query: words, and phrases in quotation marks.
        start: where to begin.
        now: CPU time in seconds.
    """
    wanted = _Query(query)
    hits: list[Hit] = []
    if not wanted.terms:
        return Found(hits, "", False, 100)
    end = now() + _SECONDS
    back = taken_back(transcript)
    for index in range(start.entry, len(transcript.entries)):
        entry = transcript.entries[index]
        for place in range(start.part if index == start.entry else 0, _seen(back, index, entry)):
            if len(hits) >= _MAX_HITS or now() > end:
                later = f"{anchor_of(entry)}.{place}" if place else anchor_of(entry)
                read = 100 * index // len(transcript.entries)
                return Found(hits, later, len(hits) < _MAX_HITS, read)
            part = entry.parts[place]
            if wanted.may_be_in(part.body):
                hits += _hit(wanted, entry, part)
    return Found(hits, "", False, 100)


def _seen(back: TakenBack | None, index: int, entry: Entry) -> int:
    """Return how many parts of a message are on its page."""
    if back is None or not back.is_gone:
        return len(entry.parts)
    return back.kept_parts(index, entry)


def _hit(wanted: _Query, entry: Entry, part: PartEntry) -> Iterator[Hit]:
    fields = Fields.decode(part.body)
    text = "\n".join(_texts(fields))[:_MAX_TEXT]
    found = wanted.place_in(text)
    if found is None:
        return
    at, length = found
    role = facts_of(entry).role
    who = {"user": "User", "assistant": "Assistant"}.get(role, "Message")
    if fields.raw("type") == "tool":
        who = fields.line("tool", limit=60) or "Tool"
    elif fields.raw("type") == "reasoning":
        who = "Thought"
    start = max(0, at - _AROUND)
    yield Hit(
        anchor(part.id),
        anchor_of(entry),
        who,
        ("…" if start else "") + plain(text[start:at]),
        plain(text[at : at + length]),
        plain(text[at + length : at + length + 2 * _AROUND]),
    )


def _texts(part: Fields) -> Iterator[str]:
    """Yield what can be seen of a part."""
    match part.raw("type"):
        case "tool":
            state = part.fields("state")
            yield part.raw("tool")
            yield state.raw("title")
            yield from _strings(state.value("input"))
            yield state.raw("error")
            yield state.raw("output")
        case "step-start" | "step-finish" | "snapshot":
            return
        case _:
            for name in ("text", "filename", "prompt", "description", "name"):
                yield part.raw(name)
            yield from _strings(part.value("files"))


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _MAX_DEPTH and isinstance(value, dict):
        for each in value.values():
            yield from _strings(each, depth + 1)
    elif depth < _MAX_DEPTH and isinstance(value, list):
        for each in value:
            yield from _strings(each, depth + 1)
