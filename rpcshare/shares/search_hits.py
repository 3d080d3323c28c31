"""Finding texts in the index: the newest that match, and of these the best first.

What is looked at is bounded. The index yields the newest matches, at most :data:`MAX_HITS`, without reading
those that are older; so BM25 is not taken from it, for which it would read every match of every word.
"""

import asyncio
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    column,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
)

from rpcshare.auth.subject_sources import organization_of
from rpcshare.database.engine import Database
from rpcshare.database.tables import FOR_ORGANIZATION, catalogue, shares, text_index, texts
from rpcshare.shares.page import Reach
from rpcshare.shares.search_query import MAX_HITS, SearchQuery, Term
from rpcshare.shares.search_words import folded_words, joined, spellings

__all__ = ["RANDOM_BITS", "ROWID", "Found", "first_id", "marks_of", "search", "tsvector"]

RANDOM_BITS = 20
"""Of the id of a text, behind its time."""

_AGE_HALVES_IN = 90 * 86_400_000.0  # ms
_LONGEST_SEARCH = 5.0  # seconds
_AT_ONCE = 200  # rows of a statement
_RANKED_BY = 2048  # characters of a text, at its beginning
_MEAN_LENGTH = 1000.0  # characters of a text; for BM25, with its usual constants:
_SATURATION, _BY_LENGTH = 1.2, 0.75
_TITLE_COUNTS = 2.0  # times as much as another text
_LOOKED_THROUGH = 20_000  # matches, the newest, for what is of a file
_SPELLED_OUT = (200, 1600)  # words that begin as those that are looked for: at first; if that finds few
_FEWEST = 20  # of these for each
_SHORT = 2  # characters of a beginning for which the first few of these do
_LAST = "\U0010ffff"  # what no word goes on with
_MARK = "\ue000"  # FTS5 takes it for a letter, and Python does not: nobody can look for it
_SNIPPET = 200  # characters
_BEFORE_MATCH = 60
_LONGEST_WORD = 500  # bytes; PostgreSQL takes 2046
_MAX_SPELLINGS = 8  # of a phrase, roughly
_LAST_POSITION = 16383  # of PostgreSQL

ROWID: ColumnElement[int] = literal_column("text_index.rowid", BigInteger)
"""The id of a text in SQLite."""

_whole_table: ColumnElement[str] = literal_column("text_index")


class Found(msgspec.Struct, frozen=True):
    """A text that has what was looked for."""

    share_id: str
    generation: str
    title: str
    message_id: str | None
    part_id: str | None
    snippet: str
    time: int


async def search(database: Database, query: SearchQuery, reach: Reach, now: int) -> tuple[list[Found], bool]:
    """Return the hits that a query asks for, and whether there are more: as ``SearchIndex.search``.

    Raises:
        DatabaseError: it failed.
    """
    newest = _Newest(database.is_sqlite, query, reach, now)
    rows, heads = await database.read(newest.found, limit=_LONGEST_SEARCH)
    hits = await asyncio.to_thread(_ranked, query, rows, heads, now)
    shown = hits[query.start : query.start + query.limit]
    bodies = await database.read(partial(_bodies, [row.id for row in shown]))
    # Up to a hundred long texts: in a thread, they let the event loop have its turns.
    found = await asyncio.to_thread(_found, shown, bodies, query.wanted[0].words[0])
    return found, len(hits) > query.start + query.limit


class _Newest:
    """The newest texts that match a query."""

    def __init__(self, is_sqlite: bool, query: SearchQuery, reach: Reach, now: int) -> None:
        self._is_sqlite = is_sqlite
        self._query = query
        self._reach = reach
        self._owners = _marks_of_reach(reach)
        self._now = now

    def found(self, connection: Connection) -> tuple[list[Row[Any]], dict[int, str]]:
        """Return them, and how their texts begin."""
        rows: list[Row[Any]] = []
        for match in self._matches(connection):
            rows = list(connection.execute(self._statement(), {"match": match}))
            if len(rows) == MAX_HITS:
                break
        return rows, _bodies([row.id for row in rows], connection, characters=_RANKED_BY)

    def _matches(self, connection: Connection) -> Iterator[str]:
        """Yield what to look for: the words themselves, which is quick; then words that begin so.

        For the beginning of a word FTS5 reads all that it has of each word that begins so before it yields
        anything, which is more the more text there is. So these words are spelled out, first a few of them.
        """
        terms = self._query.wanted
        if not self._is_sqlite:
            yield _tsquery(self._query, self._owners)
            return
        most = _SPELLED_OUT[-1] // max(len(self._query.unwanted), 1)
        unwanted = [_fts5_beginning(connection, term, most)[0] for term in self._query.unwanted]
        yield self._fts5_match([_fts5_phrase(term.words, is_prefix=False) for term in terms], unwanted)
        beginnings = sum(term.is_prefix for term in terms)
        for most in _SPELLED_OUT if beginnings else ():
            # What says so little is looked for in a few words alone.
            limits = [min(most, _SPELLED_OUT[0]) if _says_little(term) else most for term in terms]
            if most > _SPELLED_OUT[0] and max(limits) < most:
                break
            spelled = [
                _fts5_beginning(connection, term, max(limit // beginnings, _FEWEST))
                for term, limit in zip(terms, limits, strict=True)
            ]
            yield self._fts5_match([match for match, _ in spelled], unwanted)
            if not any(is_cut for _, is_cut in spelled):
                break

    def _fts5_match(self, wanted: Iterable[str], unwanted: Sequence[str]) -> str:
        # Words are letters and digits alone, so none of them can mean anything to FTS5.
        match = f"body : ({' AND '.join(wanted)})"
        for marks in self._wanted_marks():
            match = f"marks : ({_any_of(marks)}) AND {match}"
        if unwanted:
            match = f"({match}) NOT body : ({' OR '.join(unwanted)})"
        if marks := self._unwanted_marks():
            match = f"({match}) NOT marks : ({_any_of(marks)})"
        return match

    def _wanted_marks(self) -> list[list[str]]:
        query = self._query
        chosen = (
            self._owners or [],
            [_mark("t", tool) for tool in query.tools],
            [_mark("r", role) for role in query.roles],
        )
        return [marks for marks in chosen if marks]

    def _unwanted_marks(self) -> list[str]:
        query = self._query
        tools, roles = query.not_tools, query.not_roles
        return [*(_mark("t", tool) for tool in tools), *(_mark("r", role) for role in roles)]

    def _statement(self) -> Select[Any]:
        query = self._query
        number: ColumnElement[int]
        if self._is_sqlite:
            number = ROWID
            matches: ColumnElement[bool] = _whole_table.op("MATCH")(bindparam("match"))
        else:
            from sqlalchemy.dialects.postgresql import TSQUERY  # noqa: PLC0415 -- takes long to import

            number = text_index.c.id
            words: ColumnElement[str] = column("words")
            matches = words.op("@@")(cast(cast(bindparam("match"), Text), TSQUERY))
        found = [matches]
        if query.before is not None:
            found.append(number < first_id(query.before))
        if query.after is not None:
            found.append(number >= first_id(query.after))
        source: FromClause = text_index
        if query.files or query.not_files:
            # What is of a file is no word of the index: each match is read.
            some = select(number.label("id")).select_from(text_index).where(*found)
            source = some.order_by(number.desc()).limit(_LOOKED_THROUGH).subquery("some")
            number, found = source.c.id, []
        chosen = [
            *found,
            not_(shares.c.is_deleted),
            or_(shares.c.expires_at.is_(None), shares.c.expires_at > self._now),
            *self._among(),
            *(texts.c.files.contains(file, autoescape=True) for file in query.files),
            *(not_(texts.c.files.contains(file, autoescape=True)) for file in query.not_files),
        ]
        return (
            select(
                texts.c.id,
                texts.c.share_id,
                texts.c.item,
                texts.c.message_id,
                texts.c.part_id,
                texts.c.time,
                shares.c.generation,
                shares.c.title,
            )
            .select_from(
                source.join(texts, texts.c.id == number).join(shares, shares.c.id == texts.c.share_id)
            )
            .where(and_(*chosen))
            .order_by(number.desc())
            .limit(MAX_HITS)
        )

    def _among(self) -> list[ColumnElement[bool]]:
        """Return the conditions on a share that no word of the index tells: whom it is for changes."""
        reach = self._reach
        if reach.owners is None or reach.organization is None or reach.sees_all_of_it:
            return []
        for_members = exists().where(
            catalogue.c.id == texts.c.share_id, catalogue.c.is_private == FOR_ORGANIZATION
        )
        return [or_(shares.c.owner.in_(reach.owners), for_members)]


def _says_little(term: Term) -> bool:
    return not term.is_prefix or len(term.words[-1]) <= _SHORT


def first_id(time: int) -> int:
    """Return the first id of texts of a time."""
    return max(-(2**42), min(time, 2**42)) << RANDOM_BITS


def marks_of(owner: str | None, tool: str, role: str) -> list[str]:
    """Return the words by which the index tells whose a text is, and of what."""
    organization = organization_of(owner)
    return [
        _owner_mark(owner),
        *([] if organization is None else [_mark("u", organization)]),
        *([_mark("t", tool)] if tool else ()),
        *([_mark("r", role)] if role else ()),
    ]


def _marks_of_reach(reach: Reach) -> list[str] | None:
    if reach.owners is None:
        return None
    marks = [_owner_mark(owner) for owner in reach.owners]
    if reach.organization is not None:
        marks.append(_mark("u", reach.organization))
    return marks or [f"{_MARK}none"]


def _owner_mark(owner: str | None) -> str:
    return f"{_MARK}o" if owner is None else _mark("o", owner)


@lru_cache(1000)
def _mark(kind: str, value: str) -> str:
    return f"{_MARK}{kind}{blake2b(value.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"


def _any_of(words: Iterable[str]) -> str:
    return " OR ".join(f'"{word}"' for word in words)


def _fts5_phrase(words: Iterable[str], *, is_prefix: bool) -> str:
    phrases = [""]
    for word in words:
        spelled = spellings(word) if len(phrases) < _MAX_SPELLINGS else [word]
        phrases = [f"{phrase} {each}".strip() for phrase in phrases for each in spelled]
    found = " OR ".join(f'"{phrase}"' + (" *" if is_prefix else "") for phrase in phrases)
    return found if len(phrases) == 1 else f"({found})"


def _fts5_beginning(connection: Connection, term: Term, limit: int) -> tuple[str, bool]:
    """Return what finds a term whose last word may go on, and whether ``limit`` left out words that do."""
    last = term.words[-1].lower()
    # FTS5 may write others in another way.
    if not term.is_prefix or not last.isascii() or len(spellings(last)) > 1:
        return _fts5_phrase(term.words, is_prefix=term.is_prefix), False
    words = _words_from(connection, last, limit + 1)
    phrases = [_fts5_phrase((*term.words[:-1], word), is_prefix=False) for word in [last, *words[:limit]]]
    return f"({' OR '.join(phrases)})", len(words) > limit


# From word to word: each has a row in this table for each place where it is.
_WORDS_BETWEEN = """
    WITH RECURSIVE found(word) AS (
        SELECT (SELECT term FROM text_words WHERE term >= :first LIMIT 1)
        UNION ALL
        SELECT (SELECT term FROM text_words WHERE term >= found.word || char(1) LIMIT 1)
        FROM found WHERE found.word < :end LIMIT :limit
    )
    SELECT word FROM found WHERE word < :end
"""


def _words_from(connection: Connection, beginning: str, limit: int) -> list[str]:
    """Return ``limit`` words of the index that begin so: those that go on with a letter come first."""
    found: list[str] = []
    letters = beginning + "a"
    for first, end in ((letters, beginning + _LAST), (beginning, letters)):
        if len(found) < limit:
            values = {"first": first, "end": end, "limit": limit - len(found)}
            found += connection.execute(text(_WORDS_BETWEEN), values).scalars()
    return found


def tsvector(body: str, marks: Iterable[str]) -> str:
    """Return the words of a text, and its marks, as PostgreSQL takes them."""
    places: dict[str, list[int]] = {}
    for number, word in enumerate(folded_words(body), 1):
        places.setdefault(_shortened(word), []).append(min(number, _LAST_POSITION))
    lexemes = [f"'{word}':{','.join(map(str, found[:255]))}" for word, found in places.items()]
    return " ".join([*lexemes, *(f"'{mark}'" for mark in marks)])


def _tsquery(query: SearchQuery, owners: list[str] | None) -> str:
    chosen = (owners, [_mark("t", tool) for tool in query.tools], [_mark("r", role) for role in query.roles])
    wanted = list(map(_ts_phrase, query.wanted))
    wanted += ["(" + " | ".join(f"'{mark}'" for mark in marks) + ")" for marks in chosen if marks]
    unwanted = [_mark("t", tool) for tool in query.not_tools] + [_mark("r", role) for role in query.not_roles]
    wanted += [f"!{_ts_phrase(term)}" for term in query.unwanted] + [f"!'{mark}'" for mark in unwanted]
    return " & ".join(wanted)


def _ts_phrase(term: Term) -> str:
    words = [_shortened(word) for each in term.words for word in folded_words(each)]
    quoted = [f"'{word}'" for word in words] or ["'='"]
    if term.is_prefix:
        quoted[-1] += ":*"
    return "(" + " <-> ".join(quoted) + ")"


def _shortened(word: str) -> str:
    return word.encode()[:_LONGEST_WORD].decode(errors="ignore")


def _bodies(ids: Sequence[int], connection: Connection, *, characters: int | None = None) -> dict[int, str]:
    """Return texts, or how they begin."""
    find = _bodies_in_sqlite if connection.dialect.name == "sqlite" else _bodies_in_postgresql
    found: dict[int, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        found.update(find(ids[start : start + _AT_ONCE], connection, characters))
    return found


def _bodies_in_sqlite(
    ids: Sequence[int], connection: Connection, characters: int | None
) -> Iterable[tuple[int, str]]:
    # From the table in which FTS5 keeps them (its documentation, section 9), and by the driver: each of both
    # saves a third of what a thousand texts take.
    body = "c0" if characters is None else f"substr(c0, 1, {characters:d})"
    query = f"SELECT id, {body} FROM text_index_content WHERE id IN ({','.join('?' * len(ids))})"  # noqa: S608
    return ((number, body) for number, body in connection.exec_driver_sql(query, tuple(ids)))


def _bodies_in_postgresql(
    ids: Sequence[int], connection: Connection, characters: int | None
) -> Iterable[tuple[int, str]]:
    body: ColumnElement[str] = text_index.c.body
    if characters is not None:
        body = func.substr(body, 1, characters)
    query = select(text_index.c.id, body.label("body")).where(text_index.c.id.in_(ids))
    return ((row.id, row.body) for row in connection.execute(query))


# How good a hit is


def _ranked(
    query: SearchQuery, rows: Iterable[Row[Any]], heads: Mapping[int, str], now: int
) -> list[Row[Any]]:
    """Return the rows, the best first: by how often the text has the words, how long it is, and its age."""
    patterns = [_pattern(term) for term in query.wanted]

    def rank(row: Row[Any]) -> float:
        head = heads.get(row.id, "").lower()
        length = 1 - _BY_LENGTH + _BY_LENGTH * len(head) / _MEAN_LENGTH
        # The index has found each; maybe behind what is looked at here, or in another spelling.
        counts = [max(1, len(pattern.findall(head))) for pattern in patterns]
        score = sum(count / (count + _SATURATION * length) for count in counts)
        return score * (_TITLE_COUNTS if row.item == "session" else 1.0) * _by_age(now - row.time)

    return sorted(rows, key=lambda row: (-rank(row), -row.id))


def _by_age(age: int) -> float:
    """Return how much a hit is worth: a good match half a year ago as much as a poor one of today."""
    return 0.25 + math.exp2(-max(age, 0) / _AGE_HALVES_IN)


def _pattern(term: Term) -> re.Pattern[str]:
    first, *others = (re.escape(word.lower()) for word in term.words)
    # The word is looked for, and then what is before it: Python finds a fixed beginning quickly.
    before = rf"(?<![^\W_]{first})"
    end = "" if term.is_prefix else r"(?![^\W_])"
    return re.compile(r"[\W_]*".join((first + before, *others)) + end)


def _found(rows: Sequence[Row[Any]], bodies: Mapping[int, str], word: str) -> list[Found]:
    """Return what is told of ``rows``, each with the place of ``word`` in its body."""
    return [
        Found(
            row.share_id,
            row.generation,
            row.title,
            row.message_id,
            row.part_id,
            _snippet(joined(bodies.get(row.id, "")), word),
            row.time,
        )
        for row in rows
    ]


def _snippet(body: str, word: str) -> str:
    found = re.search("|".join(map(re.escape, spellings(word))), body, re.IGNORECASE)
    start = max(0, found.start() - _BEFORE_MATCH) if found else 0
    end = start + _SNIPPET
    shown = " ".join(body[start:end].split())
    return f"{'…' if start else ''}{shown}{'…' if end < len(body) else ''}"
