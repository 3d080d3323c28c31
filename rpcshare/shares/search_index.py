"""The texts of shares in the database, and finding them. All of it can be made again from the store.

SQLite has them in an FTS5 table, with its own tokenizer; PostgreSQL as a tsvector, whose words are made here
and not by PostgreSQL's parser, which takes a path or a host name for one word.
"""

import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, not_, or_, select, text, tuple_, update

from rpcshare.database import upsert
from rpcshare.database.engine import Database
from rpcshare.database.tables import leases, progress, shares, text_index, texts
from rpcshare.shares.catalogue import Catalogue
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import Query, Reach
from rpcshare.shares.search_hits import RANDOM_BITS, Found, first_id, marks_of, search, tsvector
from rpcshare.shares.search_query import SearchQuery
from rpcshare.shares.search_texts import SearchableText
from rpcshare.shares.search_words import separated
from rpcshare.shares.state import SessionIndex

__all__ = ["Change", "Found", "IndexedShare", "SearchIndex", "Seen"]

_LOCKS = 0x72706373  # "rpcs": tells them from other advisory locks of PostgreSQL
_AT_ONCE = 200  # rows of a statement
_ADDED_AT_ONCE = 2 * 2**20  # characters, of texts of 64 K at most
_ADDED_AT_ONCE_IN_BULK = 8 * 2**20
_MAX_ADDED = 20_000  # texts
_MAX_SPREAD = 16  # bits, that are added one by one: a minute
# All rows are one value, so that the thread needs Python's interpreter before and after, and not for each of
# them; and FTS5 begins a new segment of its index at each statement of several rows.
_ADD_TEXTS = """
    INSERT INTO texts (id, share_id, item, message_id, part_id, role, tool, files, time)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]')
    FROM json_each(:rows)
"""
_ADD_WORDS = """
    INSERT INTO text_index (rowid, body, marks)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each(:rows)
"""
# For each transaction, whose connection may be any. A third of the time of writing very much is for pages
# that are read, and written, again and again, and overwritten as they become free (Debian's SQLite does so).
_BULK = ("PRAGMA cache_size=-65536", "PRAGMA wal_autocheckpoint=4000", "PRAGMA secure_delete=FAST")
_MERGED = 4  # segments of the index, at once: FTS5's default
_KNOWN_NUMBERS = "SELECT id FROM texts WHERE id IN (SELECT value FROM json_each(:rows))"
# Joined in this order: the index of a share's items is looked into for each of them.
_TEXTS_OF = """
    SELECT texts.id FROM json_each(:rows) AS named CROSS JOIN texts
    ON texts.share_id = json_extract(named.value, '$[0]') AND texts.item = json_extract(named.value, '$[1]')
"""
_REMOVE_WORDS = "DELETE FROM text_index WHERE rowid IN (SELECT value FROM json_each(:rows))"
_REMOVE_TEXTS = "DELETE FROM texts WHERE id IN (SELECT value FROM json_each(:rows))"
_ADD_WORDS_IN_POSTGRESQL = text(
    "INSERT INTO text_index (id, body, words) VALUES (:id, :body, CAST(CAST(:words AS text) AS tsvector))"
)

_Values = tuple[object, ...]


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
    log_etag: str | None = None
    """Of the entry, or of the snapshot in its place; None: not known, or there is neither."""
    is_ahead: bool = False
    """Whether the database may have something of later entries, or of a later head."""


class Seen(NamedTuple):
    """What the database has of a share at one moment."""

    share: IndexedShare | None
    row: CatalogueRow | None


class SearchIndex:
    """Reads and writes the index. Methods raise DatabaseError, and never keep the event loop waiting."""

    def __init__(self, database: Database) -> None:
        """Use ``database``, which is not closed."""
        self.database = database
        self.catalogue = Catalogue(database)
        self._is_sqlite = database.is_sqlite
        self._is_bulk = False

    # What is indexed

    async def known(self, share_ids: Collection[str]) -> dict[str, IndexedShare]:
        """Return what the index knows of some shares."""
        return await self.database.read(partial(self._known, share_ids=share_ids))

    async def seen(self, share_ids: Collection[str]) -> dict[str, Seen]:
        """Return what the database has of some shares, for each of them."""

        def look(connection: Connection) -> dict[str, Seen]:
            known = self._known(connection, share_ids)
            rows = self.catalogue.rows_in(connection, share_ids)
            return {each: Seen(known.get(each), rows.get(each)) for each in share_ids}

        return await self.database.read(look)

    async def ids(self, after: str, limit: int, until: str | None = None) -> list[str]:
        """Return ids of shares that are not deleted, in the order of their characters' numbers."""
        # PostgreSQL's own order is that of a language; the other one has an index, too.
        number = shares.c.id if self._is_sqlite else shares.c.id.collate("C")
        query = select(shares.c.id).where(number > after, not_(shares.c.is_deleted))
        if until is not None:
            query = query.where(number <= until)
        query = query.order_by(number).limit(limit)
        return await self.database.read(lambda connection: list(connection.execute(query).scalars()))

    def _known(self, connection: Connection, share_ids: Collection[str]) -> dict[str, IndexedShare]:
        query = select(shares).where(shares.c.id.in_(bindparam("ids", expanding=True)))
        rows = connection.execute(query, {"ids": list(share_ids)})
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
        (is_written,) = await self.put_all([Change(share, iter(found), expected, changed, since, row)])
        return is_written

    async def put_all(self, changes: Collection["Change"]) -> list[bool]:
        """Do what :meth:`put` does of several shares, one change each, in one transaction: it is quicker."""
        return await self.database.write(partial(self._put_all, changes))

    @asynccontextmanager
    async def in_bulk(self) -> AsyncIterator[None]:
        """Be quick with very many texts: what SQLite does after each few, it does for many at once.

        If the process is killed meanwhile, :meth:`merge_as_usual` has it do so again.
        """
        self._is_bulk = self._is_sqlite
        await self._merge(0)
        try:
            yield
        finally:
            self._is_bulk = False
            await self._merge(_MERGED)

    async def merge_as_usual(self) -> None:
        """Have SQLite merge the segments of its index a few at a time, if :meth:`in_bulk` was interrupted."""
        query = "SELECT v FROM text_index_config WHERE k = 'automerge'"
        if self._is_sqlite:
            merged = await self.database.read(lambda connection: connection.exec_driver_sql(query).scalar())
            if merged == 0:
                await self._merge(_MERGED)

    async def _merge(self, segments: int) -> None:
        if self._is_sqlite:
            configure = "INSERT INTO text_index (text_index, rank) VALUES ('automerge', ?)"
            await self.database.write(lambda connection: connection.exec_driver_sql(configure, (segments,)))

    def _put_all(self, changes: Collection["Change"], connection: Connection) -> list[bool]:
        for statement in _BULK if self._is_bulk else ():
            connection.exec_driver_sql(statement)
        ids = sorted({change.share.id for change in changes})
        for share_id in ids:  # in one order, or two wait for each other
            self._lock(connection, share_id)
        known = self._all_known(connection, ids)
        fitting = [change.fits(known.get(change.share.id)) for change in changes]
        written = [
            (change, known.get(change.share.id))
            for change, fits in zip(changes, fitting, strict=True)
            if fits
        ]
        self._write_shares(connection, written)
        # At last: FTS5 begins a new segment of its index at most of what is done in between.
        self._add_texts(connection, ((change.share, text) for change, _ in written for text in change.found))
        return fitting

    def _all_known(self, connection: Connection, ids: Sequence[str]) -> dict[str, IndexedShare]:
        known: dict[str, IndexedShare] = {}
        for start in range(0, len(ids), _AT_ONCE):
            known.update(self._known(connection, ids[start : start + _AT_ONCE]))
        return known

    def _write_shares(
        self, connection: Connection, written: "Sequence[tuple[Change, IndexedShare | None]]"
    ) -> None:
        """Write all but the texts of shares, each with what the index knew of it."""
        added: list[dict[str, object]] = []
        updated: list[dict[str, object]] = []
        outdated: list[tuple[str, Collection[str] | None]] = []
        listed = {change.share.id: change.listed for change, _ in written if change.listed is not None}
        rows: dict[bool, list[CatalogueRow]] = {False: [], True: []}
        for change, before in written:
            share = change.share_behind(before)
            if before is None:
                added.append(msgspec.structs.asdict(share))
            else:
                outdated.append((share.id, change.items))
                if before != share:
                    updated.append({**msgspec.structs.asdict(share), "of": share.id})
            if share.is_deleted:
                self.catalogue.remove_in(connection, share.id)
            elif change.row is not None:
                rows[change.is_back(before)].append(change.row)
        self._remove_texts(connection, outdated)
        if added:
            connection.execute(insert(shares), added)
        if updated:
            connection.execute(update(shares).where(shares.c.id == bindparam("of")), updated)
        for is_back, some in rows.items():
            if some:
                self.catalogue.put_in(connection, some, may_be_older=is_back, seen=listed)

    def _lock(self, connection: Connection, share_id: str) -> None:
        """Let nobody else write of the share before this transaction ends. SQLite has one writer in all."""
        if not self._is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(share_id, _LOCKS))))

    def _remove_texts(
        self, connection: Connection, outdated: Iterable[tuple[str, Collection[str] | None]]
    ) -> None:
        """Remove the texts of some items of each share, or with None all of its texts."""
        old: list[int] = []
        named: list[tuple[str, str]] = []
        for share_id, items in outdated:
            if items is None:
                query = select(texts.c.id).where(texts.c.share_id == share_id)
                old += connection.execute(query).scalars()
            else:
                named += [(share_id, item) for item in items]
        for start in range(0, len(named), _AT_ONCE):
            old += self._texts_of(connection, named[start : start + _AT_ONCE])
        for start in range(0, len(old), _AT_ONCE):
            some = old[start : start + _AT_ONCE]
            if self._is_sqlite:
                for statement in (_REMOVE_WORDS, _REMOVE_TEXTS):
                    connection.exec_driver_sql(statement, {"rows": _json(some)})
            else:
                connection.execute(delete(text_index).where(text_index.c.id.in_(some)))
                connection.execute(delete(texts).where(texts.c.id.in_(some)))

    def _texts_of(self, connection: Connection, named: Sequence[tuple[str, str]]) -> Iterable[int]:
        """Return the numbers of the texts of items, each given with its share."""
        if self._is_sqlite:
            return connection.exec_driver_sql(_TEXTS_OF, {"rows": _json(named)}).scalars()
        query = select(texts.c.id).where(tuple_(texts.c.share_id, texts.c.item).in_(named))
        return connection.execute(query).scalars()

    def _add_texts(
        self, connection: Connection, found: Iterable[tuple[IndexedShare, SearchableText]]
    ) -> None:
        left, size = iter(found), _ADDED_AT_ONCE_IN_BULK if self._is_bulk else _ADDED_AT_ONCE
        while some := self.database.made(connection, lambda: _at_once(left, size)):
            numbers = self._free_numbers(connection, [max(each.time, 0) for _, each in some])
            rows = self.database.made(connection, partial(self._rows, some, numbers))
            if self._is_sqlite:
                for statement, values in zip((_ADD_TEXTS, _ADD_WORDS), zip(*rows, strict=True), strict=True):
                    connection.exec_driver_sql(statement, {"rows": _json(values)})
            else:
                names = [column.name for column in texts.c]
                connection.execute(insert(texts), [dict(zip(names, row, strict=True)) for row, _ in rows])
                words = [dict(zip(("id", "body", "words"), words, strict=True)) for _, words in rows]
                connection.execute(_ADD_WORDS_IN_POSTGRESQL, words)

    def _free_numbers(self, connection: Connection, times: Sequence[int]) -> list[int]:
        """Return an id that no text has for each of ``times``, in milliseconds: random, and near to it."""
        numbers = [0] * len(times)
        taken: set[int] = set()
        missing = list(range(len(times)))
        # A million have room in each millisecond. Where many have come of one, as all texts do whose message
        # has no time, others are put into those that follow it.
        for bits in range(RANDOM_BITS, RANDOM_BITS + _MAX_SPREAD):
            for place in missing:
                number = first_id(times[place]) + secrets.randbits(bits)
                while number in taken:
                    number += 1
                taken.add(number)
                numbers[place] = number
            clashing = self._known_numbers(connection, [numbers[place] for place in missing])
            missing = [place for place in missing if numbers[place] in clashing]
            if not missing:
                break
        return numbers

    def _known_numbers(self, connection: Connection, numbers: Sequence[int]) -> set[int]:
        """Return those of ``numbers`` that are ids of texts."""
        if self._is_sqlite:
            return set(connection.exec_driver_sql(_KNOWN_NUMBERS, {"rows": _json(numbers)}).scalars())
        query = select(texts.c.id).where(texts.c.id.in_(numbers))
        return set(connection.execute(query).scalars())

    def _rows(
        self, some: Sequence[tuple[IndexedShare, SearchableText]], numbers: Sequence[int]
    ) -> list[tuple[_Values, _Values]]:
        """Return the rows of both tables, with ascending ids."""
        # FTS5 takes ascending ids at once, and begins a new segment at each other one.
        numbered = sorted(zip(numbers, some, strict=True), key=itemgetter(0))
        rows: list[tuple[_Values, _Values]] = []
        for number, (share, each) in numbered:
            of = (each.message_id, each.part_id, each.role, each.tool, each.files, each.time)
            marks = marks_of(share.owner, each.tool, each.role)
            words = (
                (number, separated(each.body), " ".join(marks))
                if self._is_sqlite
                else (number, each.body, tsvector(each.body, marks))
            )
            rows.append(((number, share.id, each.item, *of), words))
        return rows

    async def forget(self, share_id: str) -> None:
        """Remove all that is known of a share."""
        await self.database.write(partial(self._forget, share_id))

    def _forget(self, share_id: str, connection: Connection) -> None:
        self._lock(connection, share_id)
        self._remove_texts(connection, [(share_id, None)])
        connection.execute(delete(shares).where(shares.c.id == share_id))
        self.catalogue.remove_in(connection, share_id)

    # Finding

    async def search(self, query: SearchQuery, reach: Reach, now: int) -> tuple[list[Found], bool]:
        """Return the hits that a query asks for, and whether there are more.

        Args:
            query: what is looked for.
            reach: in which shares.
            now: milliseconds since the epoch: what has expired is not found.
        """
        return await search(self.database, query, reach, now)

    # Who does what one does at a time, and how far it is

    async def lease(self, name: str, holder: str, now: int, until: int) -> bool:
        """Take, or keep, the lease ``name``; return whether nobody else has it.

        One that lasts much longer than ``until`` is of a clock that was ahead: its holder may be long gone.
        """
        taken = upsert.insert(leases, is_sqlite=self._is_sqlite).values(name=name, holder=holder, until=until)
        is_over = or_(leases.c.until <= now, leases.c.until > 2 * until - now)
        is_free = or_(leases.c.holder == holder, is_over)
        statement = taken.on_conflict_do_update(
            index_elements=[leases.c.name], set_={"holder": holder, "until": until}, where=is_free
        )
        return await self.database.write(lambda connection: connection.execute(statement).rowcount == 1)

    async def release(self, name: str, holder: str) -> None:
        """Give a lease back."""
        given_back = delete(leases).where(leases.c.name == name, leases.c.holder == holder)
        await self.database.write(lambda connection: connection.execute(given_back))

    async def progress_of(self, name: str) -> str:
        """Return how far work has got that was interrupted; empty if none was."""
        query = select(progress.c.value).where(progress.c.name == name)
        return await self.database.read(lambda connection: connection.execute(query).scalar() or "")

    async def note_progress(self, name: str, value: str) -> None:
        """Note how far work has got; empty: to its end."""

        def note(connection: Connection) -> None:
            connection.execute(delete(progress).where(progress.c.name == name))
            if value:
                connection.execute(insert(progress).values(name=name, value=value))

        await self.database.write(note)

    async def identity(self) -> str:
        """Return what tells this database from others: random, made when somebody first asks."""
        made = upsert.insert(progress, is_sqlite=self._is_sqlite).values(
            name="identity", value=secrets.token_hex(8)
        )
        await self.database.write(lambda connection: connection.execute(made.on_conflict_do_nothing()))
        return await self.progress_of("identity")

    async def warm_up(self) -> None:
        """Have statements compiled that the first listing and the first search would wait for.

        And those of the first writes: what is compiled at a time of much memory stays for good, and each
        piece keeps the megabyte around it from going back to the system.
        """
        for owners in (None, ("",)):
            await self.catalogue.page(Query(Reach(owners), None, 1, ""), 0, {})
        await self.search(SearchQuery.parse("a", None, 1), Reach(None), 0)
        if self._is_sqlite:
            with suppress(_RehearsedError):
                await self.database.write(self._rehearse)

    def _rehearse(self, connection: Connection) -> None:
        """Write a share that there cannot be, change and delete it, and undo all of that."""
        row = CatalogueRow(SessionIndex(" ", " ", "", "", 0, 0, 0, 0, 0, 0, 0), "", None)
        words = SearchableText("part:rehearsal", None, None, "", "", "", 0, "rehearsal")
        made = IndexedShare(" ", "", "", 1)
        changed, newer = msgspec.structs.replace(made, entry=2), msgspec.structs.replace(row, revision=1)
        deleted = msgspec.structs.replace(changed, is_deleted=True)
        self._put_all([Change(made, iter([words]), row=row)], connection)
        self._put_all([Change(changed, iter([words]), items=[words.item], since=1, row=newer)], connection)
        self._put_all([Change(deleted, iter(()), expected=changed)], connection)
        self.catalogue.write_in(connection, [msgspec.structs.replace(row, generation=" ")], [])
        self.catalogue.write_in(connection, [], [row.index.id])
        raise _RehearsedError

    async def is_empty(self) -> bool:
        """Whether nothing has been indexed yet."""
        query = select(shares.c.id).limit(1)
        return await self.database.read(lambda connection: connection.execute(query).first() is None)


def _at_once(
    left: Iterator[tuple[IndexedShare, SearchableText]], size: int
) -> list[tuple[IndexedShare, SearchableText]]:
    """Return the next texts, of about ``size`` characters."""
    some: list[tuple[IndexedShare, SearchableText]] = []
    for each in left:
        some.append(each)
        size -= len(each[1].body)
        if size <= 0 or len(some) == _MAX_ADDED:
            break
    return some


def _json(values: Sequence[object]) -> str:
    return msgspec.json.encode(values).decode()


def _indexed(share: IndexedShare | None) -> IndexedShare | None:
    """Return what the texts depend on: not what only the catalogue has."""
    if share is None or share.entry < 0:
        return None
    return msgspec.structs.replace(share, is_ahead=False)


class _RehearsedError(Exception):
    """Undoes a transaction that was for nothing but its statements."""


class Change(NamedTuple):
    """What is to be written of a share: the arguments of :meth:`SearchIndex.put`."""

    share: IndexedShare
    found: Iterator[SearchableText]
    expected: IndexedShare | None = None
    items: Collection[str] | None = None
    since: int = 0
    row: CatalogueRow | None = None
    listed: CatalogueRow | None = None
    """The row there was before the share was read from the store: ``row`` replaces it, newer or not."""

    def fits(self, before: IndexedShare | None) -> bool:
        """Whether it can be written over what the index knows."""
        if self.items is None:
            return _indexed(before) == _indexed(self.expected)
        return (
            before is not None
            and not before.is_deleted
            and (before.generation, before.owner) == (self.share.generation, self.share.owner)
            and before.entry >= self.since
            and before.reverted_to == self.share.reverted_to
        )

    def share_behind(self, before: IndexedShare | None) -> IndexedShare:
        """Return what the index knows then of the share, of which it may know more than some items tell."""
        if self.items is None or before is None or before.entry <= self.share.entry:
            return self.share
        later = {"entry": before.entry, "log_etag": before.log_etag, "is_ahead": before.is_ahead}
        return msgspec.structs.replace(self.share, **later)

    def is_back(self, before: IndexedShare | None) -> bool:
        """Whether the store has an older state of the share than the index knew."""
        return (
            self.items is None
            and before is not None
            and (before.generation != self.share.generation or before.entry > self.share.entry)
        )
