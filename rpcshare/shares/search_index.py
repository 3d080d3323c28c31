"""The texts of shares in the database, and finding them. All of it can be made again from the store.

SQLite has them in an FTS5 table, with its own tokenizer; PostgreSQL as a tsvector, whose words are made here
and not by PostgreSQL's parser, which takes a path or a host name for one word.
"""

import asyncio
import itertools
import math
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.ext.asyncio import AsyncConnection

from rpcshare.database.engine import Database
from rpcshare.database.tables import leases, progress, shares, text_index, texts
from rpcshare.shares.catalogue import Catalogue
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.search_query import MAX_HITS, SearchQuery, Term
from rpcshare.shares.search_texts import SearchableText
from rpcshare.shares.search_words import folded_words, joined, separated, spellings

__all__ = ["Found", "IndexedShare", "SearchIndex"]

_LOCKS = 0x72706373  # "rpcs": tells them from other advisory locks of PostgreSQL
_AT_ONCE = 200  # rows of a statement
_RANDOM_BITS = 20  # of an id, behind its time
_MAX_SPREAD = 16  # bits, that are added one by one: a minute
_AGE_HALVES_IN = 90 * 86_400_000.0  # ms
_LONGEST_SEARCH = 5.0  # seconds
_SNIPPET = 200  # characters
_BEFORE_MATCH = 60
_LONGEST_WORD = 500  # bytes; PostgreSQL takes 2046
_MAX_SPELLINGS = 8  # of a phrase, roughly
_LAST_POSITION = 16383  # of PostgreSQL


class IndexedShare(msgspec.Struct, frozen=True):
    """What the index knows of a share."""

    id: str
    generation: str
    head_etag: str
    entry: int
    """The last entry of its log whose texts are all in the index."""
    is_deleted: bool = False
    owner: str | None = None
    expires_at: int | None = None
    title: str = ""
    reverted_to: str = ""


class Found(msgspec.Struct, frozen=True):
    """A text that has what was looked for."""

    share_id: str
    generation: str
    title: str
    message_id: str | None
    part_id: str | None
    snippet: str
    time: int


class SearchIndex:
    """Reads and writes the index. Methods raise DatabaseError, and never keep the event loop waiting."""

    def __init__(self, database: Database) -> None:
        """Use ``database``, which is not closed."""
        self.database = database
        self.catalogue = Catalogue(database)
        self._is_sqlite = database.is_sqlite

    # What is indexed

    async def known(self, share_ids: Collection[str]) -> dict[str, IndexedShare]:
        """Return what the index knows of some shares."""
        async with self.database.reading() as connection:
            return await self._known(connection, share_ids)

    async def ids(self, after: str, limit: int) -> list[str]:
        """Return ids of shares that are not deleted, in order."""
        query = select(shares.c.id).where(shares.c.id > after, not_(shares.c.is_deleted))
        async with self.database.reading() as connection:
            return list((await connection.execute(query.order_by(shares.c.id).limit(limit))).scalars())

    async def _known(
        self, connection: AsyncConnection, share_ids: Collection[str]
    ) -> dict[str, IndexedShare]:
        query = select(shares).where(shares.c.id.in_(bindparam("ids", expanding=True)))
        rows = await connection.execute(query, {"ids": list(share_ids)})
        return {row.id: IndexedShare(*row) for row in rows}

    async def put(
        self,
        share: IndexedShare,
        found: Iterable[SearchableText],
        *,
        expected: IndexedShare | None = None,
        changed: Collection[str] | None = None,
        since: int = 0,
        row: CatalogueRow | None = None,
    ) -> bool:
        """Write what is known of a share, and its texts; return False if that does not fit what is there.

        Args:
            share: as it is now.
            found: all of its texts; or those of the items that have changed. They are made in a thread, some
                at a time.
            expected: what the index must know before, where all are given: another process may be quicker.
            changed: these items, of which some may have no text any longer; None: all.
            since: the index must know the share up to this entry where only some items are given.
            row: what the catalogue is to have of the share; that of a deleted share is removed.
        """
        async with self.database.writing() as connection:
            await self._lock(connection, share.id)
            before = (await self._known(connection, [share.id])).get(share.id)
            if changed is None:
                if before != expected:
                    return False
            else:
                is_base = (
                    before is not None
                    and not before.is_deleted
                    and (before.generation, before.owner) == (share.generation, share.owner)
                    and before.entry >= since
                    and before.reverted_to == share.reverted_to
                )
                if not is_base or before is None:
                    return False
                if before.entry > share.entry:
                    share = msgspec.structs.replace(share, entry=before.entry)
            await self._remove_texts(connection, share.id, changed)
            values = msgspec.structs.asdict(share)
            if before is None:
                await connection.execute(insert(shares), values)
            elif before != share:
                await connection.execute(update(shares).where(shares.c.id == share.id), values)
            if share.is_deleted:
                await self.catalogue.remove_in(connection, share.id)
            elif row is not None:
                await self.catalogue.put_in(connection, [row])
            await self._add_texts(connection, share, found)
            return True

    async def _lock(self, connection: AsyncConnection, share_id: str) -> None:
        """Let nobody else write of the share before this transaction ends. SQLite has one writer in all."""
        if not self._is_sqlite:
            await connection.execute(
                select(func.pg_advisory_xact_lock(func.hashtextextended(share_id, _LOCKS)))
            )

    async def _remove_texts(
        self, connection: AsyncConnection, share_id: str, items: Collection[str] | None
    ) -> None:
        own = texts.c.share_id == share_id
        if items is None:
            old = list((await connection.execute(select(texts.c.id).where(own))).scalars())
        else:
            old, names = [], list(items)
            for start in range(0, len(names), _AT_ONCE):
                query = select(texts.c.id).where(own, texts.c.item.in_(names[start : start + _AT_ONCE]))
                old += list((await connection.execute(query)).scalars())
        key = _rowid if self._is_sqlite else text_index.c.id
        for start in range(0, len(old), _AT_ONCE):
            some = old[start : start + _AT_ONCE]
            await connection.execute(delete(text_index).where(key.in_(some)))
            await connection.execute(delete(texts).where(texts.c.id.in_(some)))

    async def _add_texts(
        self, connection: AsyncConnection, share: IndexedShare, found: Iterable[SearchableText]
    ) -> None:
        left = iter(found)
        if self._is_sqlite:
            statement = text("INSERT INTO text_index (rowid, body, owner) VALUES (:id, :body, :owner)")
        else:
            statement = text(
                "INSERT INTO text_index (id, body, words) "
                "VALUES (:id, :body, CAST(CAST(:words AS text) AS tsvector))"
            )
        while some := await asyncio.to_thread(lambda: list(itertools.islice(left, _AT_ONCE))):
            numbers = await self._free_numbers(connection, [max(each.time, 0) for each in some])
            rows = await asyncio.to_thread(self._rows, share, some, numbers)
            await connection.execute(insert(texts), [row for row, _ in rows])
            await connection.execute(statement, [indexed for _, indexed in rows])

    async def _free_numbers(self, connection: AsyncConnection, times: Sequence[int]) -> list[int]:
        """Return an id that no text has for each of ``times``, in milliseconds: random, and near to it."""
        numbers = [0] * len(times)
        taken: set[int] = set()
        missing = list(range(len(times)))
        # A million have room in each millisecond. Where many have come of one, as all texts do whose message
        # has no time, others are put into those that follow it.
        for bits in range(_RANDOM_BITS, _RANDOM_BITS + _MAX_SPREAD):
            for place in missing:
                number = _first_id(times[place]) + secrets.randbits(bits)
                while number in taken:
                    number += 1
                taken.add(number)
                numbers[place] = number
            query = select(texts.c.id).where(texts.c.id.in_([numbers[place] for place in missing]))
            clashing = set((await connection.execute(query)).scalars())
            missing = [place for place in missing if numbers[place] in clashing]
            if not missing:
                break
        return numbers

    def _rows(
        self, share: IndexedShare, some: Sequence[SearchableText], numbers: Sequence[int]
    ) -> list[tuple[dict[str, object], dict[str, object]]]:
        """Return the rows of both tables, with ascending ids."""
        owner = _owner_word(share.owner)
        # FTS5 takes ascending ids at once, and begins a new segment at each other one.
        numbered = sorted(zip(numbers, some, strict=True), key=lambda pair: pair[0])
        rows: list[tuple[dict[str, object], dict[str, object]]] = []
        for number, each in numbered:
            row: dict[str, object] = {
                "id": number,
                "share_id": share.id,
                "item": each.item,
                "message_id": each.message_id,
                "part_id": each.part_id,
                "role": each.role,
                "tool": each.tool,
                "files": each.files,
                "time": each.time,
            }
            indexed: dict[str, object]
            if self._is_sqlite:
                indexed = {"id": number, "body": separated(each.body), "owner": owner}
            else:
                indexed = {"id": number, "body": each.body, "words": _tsvector(each.body, owner)}
            rows.append((row, indexed))
        return rows

    async def forget(self, share_id: str) -> None:
        """Remove all that is known of a share."""
        async with self.database.writing() as connection:
            await self._lock(connection, share_id)
            await self._remove_texts(connection, share_id, None)
            await connection.execute(delete(shares).where(shares.c.id == share_id))
            await self.catalogue.remove_in(connection, share_id)

    # Finding

    async def search(
        self, query: SearchQuery, owners: tuple[str, ...] | None, now: int
    ) -> tuple[list[Found], bool]:
        """Return the hits that a query asks for, and whether there are more.

        Args:
            query: what is looked for.
            owners: whose shares; None: everybody's.
            now: milliseconds since the epoch: what has expired is not found.
        """
        words = None if owners is None else [_owner_word(owner) for owner in owners]
        match = _fts5_match(query, words) if self._is_sqlite else _tsquery(query, words)

        def ranked(connection: Connection) -> tuple[list[Row[Any]], dict[int, str], bool]:
            rows = connection.execute(self._statement(query, now), {"match": match}).all()
            hits = sorted(rows, key=lambda row: (-_rank(float(row.score), now - row.time), -row.id))
            shown = hits[query.start : query.start + query.limit]
            bodies = self._bodies(connection, [row.id for row in shown])
            return shown, bodies, len(hits) > query.start + query.limit

        shown, bodies, has_more = await self.database.read(ranked, limit=_LONGEST_SEARCH)
        # Up to a hundred long texts: in a thread, they let the event loop have its turns.
        hits = await asyncio.to_thread(_found, shown, bodies, query.wanted[0].words[0])
        return hits, has_more

    def _statement(self, query: SearchQuery, now: int) -> Select[Any]:
        number: ColumnElement[int]
        if self._is_sqlite:
            number = _rowid
            score: ColumnElement[float] = -func.bm25(_whole_table)
            matches: ColumnElement[bool] = _whole_table.op("MATCH")(bindparam("match"))
        else:
            number = text_index.c.id
            words: ColumnElement[str] = column("words")
            wanted = cast(cast(bindparam("match"), Text), TSQUERY)
            score = func.ts_rank_cd(words, wanted)
            matches = words.op("@@")(wanted)
        chosen = [
            matches,
            not_(shares.c.is_deleted),
            or_(shares.c.expires_at.is_(None), shares.c.expires_at > now),
            *_filters(query),
        ]
        if query.before is not None:
            chosen.append(number < _first_id(query.before))
        if query.after is not None:
            chosen.append(number >= _first_id(query.after))
        return (
            select(
                texts.c.id,
                texts.c.share_id,
                texts.c.message_id,
                texts.c.part_id,
                texts.c.time,
                shares.c.generation,
                shares.c.title,
                score.label("score"),
            )
            .select_from(
                text_index.join(texts, texts.c.id == number).join(shares, shares.c.id == texts.c.share_id)
            )
            .where(and_(*chosen))
            .order_by(number.desc())
            .limit(MAX_HITS)
        )

    def _bodies(self, connection: Connection, ids: list[int]) -> dict[int, str]:
        number = _rowid if self._is_sqlite else text_index.c.id
        query = select(number.label("id"), text_index.c.body).where(number.in_(ids))
        return {row.id: row.body for row in connection.execute(query)}

    # Who does what one does at a time, and how far it is

    async def lease(self, name: str, holder: str, now: int, until: int) -> bool:
        """Take, or keep, the lease ``name``; return whether nobody else has it."""
        dialect = sqlite if self._is_sqlite else postgresql
        taken = dialect.insert(leases).values(name=name, holder=holder, until=until)
        is_free = or_(leases.c.holder == holder, leases.c.until <= now)
        statement = taken.on_conflict_do_update(
            index_elements=[leases.c.name], set_={"holder": holder, "until": until}, where=is_free
        )
        async with self.database.writing() as connection:
            return (await connection.execute(statement)).rowcount == 1

    async def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        async with self.database.writing() as connection:
            await connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))

    async def progress_of(self, name: str) -> str:
        """Return how far work has got that was interrupted; empty if none was."""
        async with self.database.reading() as connection:
            query = select(progress.c.value).where(progress.c.name == name)
            return (await connection.execute(query)).scalar() or ""

    async def note_progress(self, name: str, value: str) -> None:
        """Note how far work has got; empty: to its end."""
        async with self.database.writing() as connection:
            await connection.execute(delete(progress).where(progress.c.name == name))
            if value:
                await connection.execute(insert(progress).values(name=name, value=value))

    async def identity(self) -> str:
        """Return what tells this database from others: random, made when somebody first asks."""
        dialect = sqlite if self._is_sqlite else postgresql
        made = dialect.insert(progress).values(name="identity", value=secrets.token_hex(8))
        async with self.database.writing() as connection:
            await connection.execute(made.on_conflict_do_nothing())
        return await self.progress_of("identity")

    async def is_empty(self) -> bool:
        """Whether nothing has been indexed yet."""
        async with self.database.reading() as connection:
            return (await connection.execute(select(shares.c.id).limit(1))).first() is None


_rowid: ColumnElement[int] = literal_column("text_index.rowid", BigInteger)
_whole_table: ColumnElement[str] = literal_column("text_index")


def _first_id(time: int) -> int:
    return max(-(2**42), min(time, 2**42)) << _RANDOM_BITS


def _found(rows: Sequence[Any], bodies: Mapping[int, str], word: str) -> list[Found]:
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


def _owner_word(owner: str | None) -> str:
    if owner is None:
        return "o"
    return "o" + blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _rank(score: float, age: int) -> float:
    """Return how much a hit is worth: a good match half a year ago as much as a poor one of today."""
    return score * (0.25 + math.exp2(-max(age, 0) / _AGE_HALVES_IN))


def _fts5_match(query: SearchQuery, owners: Iterable[str] | None) -> str:
    # Words are letters and digits alone, so none of them can mean anything to FTS5.
    wanted = "body : (" + " AND ".join(map(_fts5_phrase, query.wanted)) + ")"
    if owners is not None:
        wanted = "owner : (" + (" OR ".join(f'"{owner}"' for owner in owners) or '"none"') + f") AND {wanted}"
    if query.unwanted:
        return f"({wanted}) NOT (body : (" + " OR ".join(map(_fts5_phrase, query.unwanted)) + "))"
    return wanted


def _fts5_phrase(term: Term) -> str:
    phrases = [""]
    for word in term.words:
        spelled = spellings(word) if len(phrases) < _MAX_SPELLINGS else [word]
        phrases = [f"{phrase} {each}".strip() for phrase in phrases for each in spelled]
    found = " OR ".join(f'"{phrase}"' + (" *" if term.is_prefix else "") for phrase in phrases)
    return found if len(phrases) == 1 else f"({found})"


def _tsvector(body: str, owner: str) -> str:
    places: dict[str, list[int]] = {}
    for number, word in enumerate(folded_words(body), 1):
        places.setdefault(_shortened(word), []).append(min(number, _LAST_POSITION))
    lexemes = [f"'{word}':{','.join(map(str, found[:255]))}" for word, found in places.items()]
    return " ".join([*lexemes, f"'={owner}'"])


def _tsquery(query: SearchQuery, owners: Iterable[str] | None) -> str:
    wanted = list(map(_ts_phrase, query.wanted))
    if owners is not None:
        wanted.append("(" + (" | ".join(f"'={owner}'" for owner in owners) or "'=none'") + ")")
    wanted += [f"!{_ts_phrase(term)}" for term in query.unwanted]
    return " & ".join(wanted)


def _ts_phrase(term: Term) -> str:
    words = [_shortened(word) for each in term.words for word in folded_words(each)]
    quoted = [f"'{word}'" for word in words] or ["'='"]
    if term.is_prefix:
        quoted[-1] += ":*"
    return "(" + " <-> ".join(quoted) + ")"


def _shortened(word: str) -> str:
    return word.encode()[:_LONGEST_WORD].decode(errors="ignore")


def _filters(query: SearchQuery) -> list[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = []
    if query.tools:
        chosen.append(texts.c.tool.in_(query.tools))
    if query.not_tools:
        chosen.append(texts.c.tool.not_in(query.not_tools))
    if query.roles:
        chosen.append(texts.c.role.in_(query.roles))
    if query.not_roles:
        chosen.append(texts.c.role.not_in(query.not_roles))
    chosen += [texts.c.files.contains(file, autoescape=True) for file in query.files]
    chosen += [not_(texts.c.files.contains(file, autoescape=True)) for file in query.not_files]
    return chosen


def _snippet(body: str, word: str) -> str:
    found = re.search("|".join(map(re.escape, spellings(word))), body, re.IGNORECASE)
    start = max(0, found.start() - _BEFORE_MATCH) if found else 0
    end = start + _SNIPPET
    shown = " ".join(body[start:end].split())
    return f"{'…' if start else ''}{shown}{'…' if end < len(body) else ''}"
