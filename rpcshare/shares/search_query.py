"""What a user types into a search field: words, phrases, what must not be there, and filters.

``word`` finds words that begin so; ``"two words"`` finds exactly these, one behind the other; ``-word``
leaves out what has it. ``tool:bash``, ``file:app.ts``, ``role:user``, ``before:2026-11-28`` and
``after:2026-11-01`` choose among what is found, and with ``-`` in front leave out.
"""

import re
from datetime import UTC, datetime
from typing import Self

import msgspec

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.search_words import clean, words_of

__all__ = ["MAX_HITS", "MAX_QUERY", "NO_WORD", "SearchQuery", "Term"]

MAX_QUERY = 1000
"""Characters of a query."""

MAX_HITS = 1000
"""How far hits go on behind the first; nobody reads further."""

NO_WORD = "query: must have at least one word to look for"
"""What is said of a query that may find titles, and no words."""

_MAX_TERMS = 32
_MAX_WORDS = 64  # of a term
_DEFAULT_LIMIT = 20
_MAX_LIMIT = 100
_TERM = re.compile(
    r'(?P<no>-?)(?:(?P<filter>tool|file|role|before|after):)?(?:"(?P<phrase>[^"]*)"?|(?P<bare>\S+))', re.I
)
_CURSOR = re.compile("[1-9][0-9]{0,3}")


class Term(msgspec.Struct, frozen=True):
    """Words that follow each other."""

    words: tuple[str, ...]
    is_prefix: bool
    """Whether the last may go on."""

    @property
    def folded(self) -> tuple[str, bool]:
        """What is the same for terms that find the same."""
        return " ".join(self.words).casefold(), self.is_prefix


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, and which of the hits."""

    wanted: tuple[Term, ...]
    unwanted: tuple[Term, ...] = ()
    tools: tuple[str, ...] = ()
    not_tools: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    not_files: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    not_roles: tuple[str, ...] = ()
    before: int | None = None
    """Milliseconds since the epoch."""
    after: int | None = None
    start: int = 0
    """How many hits to leave out: what the cursor says."""
    limit: int = _DEFAULT_LIMIT

    @classmethod
    def parse(cls, query: object, cursor: object = None, limit: object = None) -> Self:
        """Return what a caller's arguments ask for.

        Raises:
            ShareError: INVALID_ARGUMENT; the message names the argument.
        """
        if limit is None:
            limit = _DEFAULT_LIMIT
        if type(limit) is not int or not 1 <= limit <= _MAX_LIMIT:
            raise _invalid(f"limit: must be a whole number from 1 to {_MAX_LIMIT}")
        if cursor is not None and (not isinstance(cursor, str) or not _CURSOR.fullmatch(cursor)):
            raise _invalid("cursor: is not one that this server gave")
        if not isinstance(query, str):
            raise _invalid("query: must be a string")
        if len(query) > MAX_QUERY:
            raise _invalid(f"query: must be at most {MAX_QUERY} characters")
        found = _Terms()
        for number, match in enumerate(_TERM.finditer(query)):
            if number == _MAX_TERMS:
                raise _invalid(f"query: must be at most {_MAX_TERMS} words, phrases and filters")
            found.take(match)
        if not found.wanted:
            raise _invalid(NO_WORD)
        return cls(
            wanted=tuple(found.wanted),
            unwanted=tuple(found.unwanted),
            start=int(cursor) if cursor is not None else 0,
            limit=limit,
            before=found.before,
            after=found.after,
            **{name: tuple(values) for name, values in found.chosen.items()},
        )


class _Terms:
    def __init__(self) -> None:
        self.wanted: list[Term] = []
        self.unwanted: list[Term] = []
        self.chosen: dict[str, list[str]] = {}
        self.before: int | None = None
        self.after: int | None = None

    def take(self, match: re.Match[str]) -> None:
        """Take in one more term."""
        phrase, bare = match["phrase"], match["bare"] or ""
        text = phrase if phrase is not None else bare
        name = (match["filter"] or "").lower()
        if name in ("before", "after"):
            self._bound(_moment(name, text), is_before=(name == "before") is not bool(match["no"]))
        elif name:
            key = f"{'not_' if match['no'] else ''}{name}s"
            self.chosen.setdefault(key, []).append(clean(text).lower())
        elif words := words_of(text):
            is_prefix = phrase is None or text.endswith("*")
            term = Term(tuple(words[:_MAX_WORDS]), is_prefix)
            terms = self.unwanted if match["no"] else self.wanted
            if term.folded not in {each.folded for each in terms}:  # to look for it twice takes twice as long
                terms.append(term)

    def _bound(self, moment: int, *, is_before: bool) -> None:
        """Keep the narrowest of several bounds: each says what must hold."""
        if is_before:
            self.before = moment if self.before is None else min(self.before, moment)
        else:
            self.after = moment if self.after is None else max(self.after, moment)


def _moment(name: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise _invalid(f"query: {name}: must be a date such as 2026-11-28") from None


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
