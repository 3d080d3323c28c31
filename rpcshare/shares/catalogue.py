"""The catalogue in the database: a row for each share that is listed, and pages of them.

A page costs what it shows, however many shares there are: rows are found by an index, behind a place in its
order; all rows of an owner, and of everybody, are counted as they are written.
"""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    text,
    tuple_,
    update,
)

from rpcshare.auth.subject_sources import organization_of
from rpcshare.database import upsert
from rpcshare.database.character_pairs import SHORTEST, pairs_of, terms_of
from rpcshare.database.engine import Database
from rpcshare.database.tables import FOR_ORGANIZATION, PRIVATE, catalogue, catalogue_counts, shares
from rpcshare.shares.catalogue_row import CatalogueRow, Figures
from rpcshare.shares.page import COUNTED, LIVE_FOR, Filters, Query, Reach, RowPage, place_of
from rpcshare.shares.search_words import clean
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.usage import OwnedSize, Usage

__all__ = ["Catalogue", "row_values"]

_LOCKS = 0x72706373  # as the search index locks a share
_AT_ONCE = 200  # rows of a statement
_OF_TRIGRAMS = 3  # characters that SQLite's index of words can look for
_LOOKED_THROUGH = 2000  # rows in which something shorter is looked for
_WINDOW = 5000  # rows, the newest, that tell whether a text is in many
_MANY = 25  # of these
_MARKS = 0xE000  # private characters, of which three stand for an owner in the index of words
_MARK_BITS = 12
_BETWEEN = "\x1f"  # between the texts of a row: part of none of them
_NEVER = 2**62
_NUMBER_BITS = 20  # of the number of a row, behind its time: random
_LONGEST = 5.0  # seconds

_Values = dict[str, object]


class Catalogue:
    """Reads and writes the rows. Methods raise DatabaseError, and never keep the event loop waiting."""

    def __init__(self, database: Database) -> None:
        """Use ``database``, which is not closed."""
        self._database = database
        self._is_sqlite = database.is_sqlite

    # Writing

    async def put(self, rows: Collection[CatalogueRow], gone: Collection[str] = ()) -> None:
        """Write rows, unless the catalogue has newer ones; remove those of shares that are gone."""
        await self._database.write(lambda connection: self.write_in(connection, rows, gone))

    def write_in(self, connection: Connection, rows: Collection[CatalogueRow], gone: Collection[str]) -> None:
        """Do so in a transaction.

        What is known of the shares is not: until that follows, their rows are ahead of it.
        """
        if not self._is_sqlite:
            # In one order, so that nobody waits for whom he keeps waiting.
            ids = sorted([*(row.index.id for row in rows), *gone])
            lock = "SELECT pg_advisory_xact_lock(hashtextextended(id, :lock)) FROM unnest(:ids) AS id"
            statement = text(lock).bindparams(bindparam("ids", type_=ARRAY(catalogue.c.id.type)))
            connection.execute(statement, {"lock": _LOCKS, "ids": ids})
        for share_id in gone:
            self.remove_in(connection, share_id)
        if gone:
            # One that is indexed may be there still: the store had another in its place for a moment.
            is_there = shares.c.id.in_(list(gone)), ~shares.c.is_deleted
            connection.execute(update(shares).where(*is_there).values(is_ahead=True))
        self._put(connection, rows, may_be_older=False, seen={}, are_ahead=True)

    def put_in(
        self,
        connection: Connection,
        rows: Collection[CatalogueRow],
        *,
        may_be_older: bool,
        seen: Mapping[str, CatalogueRow],
    ) -> None:
        """Write rows in a transaction of others, who have locked the shares, and written what they know.

        With ``may_be_older``, rows replace newer ones: the store has been put back. So do they with those
        that were ``seen`` before the store was read.
        """
        self._put(connection, rows, may_be_older=may_be_older, seen=seen, are_ahead=False)

    def _put(
        self,
        connection: Connection,
        rows: Collection[CatalogueRow],
        *,
        may_be_older: bool,
        seen: Mapping[str, CatalogueRow],
        are_ahead: bool,
    ) -> None:
        ids = [row.index.id for row in rows]
        known = self.rows_in(connection, ids)
        query = select(shares.c.id, shares.c.generation, shares.c.is_deleted, shares.c.is_ahead)
        found = connection.execute(query.where(shares.c.id.in_(ids)))
        states = {share_id: _State(*state) for share_id, *state in found}
        changes = _Changes(states)
        for row in rows:
            if not changes.is_dead(row):
                before = known.get(row.index.id)
                is_seen = before is not None and before == seen.get(row.index.id)
                changes.take(row, before, may_be_older=may_be_older or is_seen)
        if changes.replaced:
            self._remove_pairs(connection, changes.replaced)
            connection.execute(delete(catalogue).where(catalogue.c.id.in_(changes.replaced)))
        if changes.added:
            self.add_in(connection, changes.added)
        if changes.renamed:
            self._remove_pairs(connection, changes.renamed)
        if changes.changed:
            connection.execute(_change, changes.changed)
        if changes.renamed:
            self._add_pairs(connection, self._words(connection, changes.renamed))
        self._add_to_counts(connection, changes.counts)
        # Unless they are indexed before, the next comparison with the store looks at the shares. Where
        # nothing is known of one, its row is found by that, should the store not have it any more.
        ahead = changes.noticed if are_ahead else changes.newer
        if added := [_not_indexed(row) for row in ahead if row.index.id not in states]:
            connection.execute(insert(shares), added)
        if noted := [row.index.id for row in ahead if changes.is_to_be_noted(row)]:
            connection.execute(update(shares).where(shares.c.id.in_(noted)).values(is_ahead=True))

    def add_in(self, connection: Connection, added: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of which there are none, made by :func:`row_values`: they are not counted."""
        connection.execute(insert(catalogue), added)
        self._add_pairs(connection, [(row["number"], row["words"]) for row in added])

    # A table without content: what it has of a row is removed by whoever knows what that was.

    def _words(self, connection: Connection, ids: Sequence[str]) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        for start in range(0, len(ids) if self._is_sqlite else 0, _AT_ONCE):
            some = catalogue.c.id.in_(ids[start : start + _AT_ONCE])
            query = select(catalogue.c.number, catalogue.c.words).where(some)
            found += [(row.number, row.words) for row in connection.execute(query)]
        return found

    def _add_pairs(self, connection: Connection, rows: Sequence[tuple[int, str]]) -> None:
        if self._is_sqlite and rows:
            pairs = [(number, pairs_of(words)) for number, words in sorted(rows)]
            connection.exec_driver_sql("INSERT INTO catalogue_pairs (rowid, pairs) VALUES (?, ?)", pairs)

    def _remove_pairs(self, connection: Connection, ids: Sequence[str]) -> None:
        if rows := self._words(connection, ids):
            remove = "INSERT INTO catalogue_pairs (catalogue_pairs, rowid, pairs) VALUES ('delete', ?, ?)"
            connection.exec_driver_sql(remove, [(number, pairs_of(words)) for number, words in sorted(rows)])

    def remove_in(self, connection: Connection, share_id: str) -> None:
        """Remove a row, in a transaction of others, who have locked the share."""
        query = select(catalogue.c.owner, catalogue.c.size).where(catalogue.c.id == share_id)
        found = (connection.execute(query)).first()
        if found is not None:
            self._remove_pairs(connection, [share_id])
            connection.execute(delete(catalogue).where(catalogue.c.id == share_id))
            counts: dict[str, Usage] = {}
            _count(counts, found.owner, Usage(-1, -found.size))
            self._add_to_counts(connection, counts)

    def _add_to_counts(self, connection: Connection, counts: Mapping[str, Usage]) -> None:
        for name in sorted(name for name, by in counts.items() if any(by)):
            shares, size = counts[name]
            added = upsert.insert(catalogue_counts, is_sqlite=self._is_sqlite).values(
                name=name, shares=shares, bytes=size
            )
            statement = added.on_conflict_do_update(
                index_elements=["name"],
                set_={
                    "shares": catalogue_counts.c.shares + shares,
                    "bytes": catalogue_counts.c.bytes + size,
                },
            )
            connection.execute(statement)

    async def count_anew(self) -> None:
        """Count all rows: what is counted as they are written is made right, should it ever be wrong."""
        await self._database.write(_count_anew)

    # Reading

    async def page(self, query: Query, now: int, unwritten: Mapping[str, CatalogueRow | None]) -> RowPage:
        """Return a page of a listing.

        Args:
            query: which.
            now: milliseconds since the epoch: what has expired is not listed.
            unwritten: rows that the database does not have yet; None for what is gone.
        """
        found, count, is_least = await self._database.read(
            partial(_page, query, now, unwritten), limit=_LONGEST
        )
        new = [row for row in unwritten.values() if row is not None and query.takes(row, now)]

        def place(row: CatalogueRow) -> tuple[int, str]:
            return place_of(row, by_change=query.by_change)

        after = query.after
        if after is not None:
            found += [
                row for row in new if (place(row) < after if query.is_backwards else place(row) > after)
            ]
        else:
            found += new
        found.sort(key=place, reverse=query.is_backwards)
        shown = found[: query.limit]
        if query.is_backwards:
            shown.reverse()
        has_more = len(found) > query.limit
        return RowPage(shown, count + len(new), has_more, query.by_change, is_least=is_least)

    async def usage(self, owner: str, unwritten: Mapping[str, OwnedSize | None]) -> tuple[Usage, Usage]:
        """Return what the shares of an owner take, and those of its organization together.

        Args:
            owner: whose.
            unwritten: shares whose rows the database does not have yet; None for what is gone.
        """
        names = _counted_as(owner)
        found = await self._database.read(partial(_usage, names, unwritten), limit=_LONGEST)
        of_organization = found[names[1]] if len(names) > 1 else Usage()
        return found[names[0]], of_organization

    def rows_in(self, connection: Connection, ids: Collection[str]) -> dict[str, CatalogueRow]:
        """Return the rows that there are of some shares."""
        found: dict[str, CatalogueRow] = {}
        each = list(ids)
        for start in range(0, len(each), _AT_ONCE):
            query = select(catalogue).where(catalogue.c.id.in_(each[start : start + _AT_ONCE]))
            found.update((row.id, _row(row)) for row in connection.execute(query))
        return found


def _not_indexed(row: CatalogueRow) -> _Values:
    return {
        "id": row.index.id,
        "generation": row.generation,
        "head_etag": "",
        "entry": -1,
        "is_deleted": False,
        "owner": row.owner,
        "expires_at": row.expires_at,
        "title": row.index.title,
        "reverted_to": "",
        "log_etag": None,
        "is_ahead": True,
    }


class _State(NamedTuple):
    """What is known of a share."""

    generation: str
    is_deleted: bool
    is_ahead: bool


class _Changes:
    """What becomes of the catalogue by some rows."""

    def __init__(self, states: Mapping[str, "_State"]) -> None:
        self._states = states  # of the shares that are known, at least as they were
        self.replaced: list[str] = []
        self.added: list[_Values] = []
        self.changed: list[_Values] = []
        self.renamed: list[str] = []
        self.counts: dict[str, Usage] = {}
        self.noticed: list[CatalogueRow] = []
        """Rows that tell of another state than those before."""
        self.newer: list[CatalogueRow] = []
        """Rows that are, and stay, newer than those that were to be written."""

    def is_dead(self, row: CatalogueRow) -> bool:
        """Whether the share of a row is known to be deleted."""
        state = self._states.get(row.index.id)
        return state is not None and state.is_deleted and state.generation == row.generation

    def is_to_be_noted(self, row: CatalogueRow) -> bool:
        """Whether it is not noted yet that there may be a row that is ahead of what is known of its share."""
        state = self._states.get(row.index.id)
        return state is not None and not state.is_ahead

    def take(self, row: CatalogueRow, before: CatalogueRow | None, *, may_be_older: bool) -> None:
        """Take in a row, where ``before`` is what there is of its share."""
        if before is None or before.generation != row.generation:
            if before is not None:
                if before.index.created_at > row.index.created_at and not may_be_older:
                    self.newer.append(before)
                    return
                self.replaced.append(row.index.id)
                _count(self.counts, before.owner, Usage(-1, -before.size))
            self.added.append(row_values(row, is_new=True))
            self.noticed.append(row)
            _count(self.counts, row.owner, Usage(1, row.size))
            return
        newest = row if may_be_older else row.merged_with(before)
        if not newest.tells_the_same_as(row):
            self.newer.append(newest)
        if newest != before:
            if not newest.tells_the_same_as(before):
                self.noticed.append(newest)
            self.changed.append(row_values(newest, is_new=False))
            if _words(newest) != _words(before):
                self.renamed.append(row.index.id)
            _count(self.counts, before.owner, Usage(-1, -before.size))
            _count(self.counts, newest.owner, Usage(1, newest.size))


def _page(
    query: Query, now: int, unwritten: Collection[str], connection: Connection
) -> tuple[list[CatalogueRow], int, bool]:
    """Return the rows that a page may have, but those ``unwritten``, and how many the listing has at least.

    The last value tells whether there may be more.
    """
    found: list[CatalogueRow] = []
    count, is_least = 0, False
    for part in _parts(query.reach):
        listing = _Listing(connection, query, part, now)
        chosen = listing.chosen()
        rows = listing.rows(chosen, query.limit + 1 + len(unwritten))
        found += [row for row in rows if row.index.id not in unwritten]
        is_all = query.after is None and len(rows) <= query.limit
        count += len(rows) if is_all else listing.count(chosen, len(rows))
        if unwritten:
            count -= listing.count_among(chosen, unwritten)
        is_least |= listing.is_least and not is_all
    return found, count, is_least


class _Part(NamedTuple):
    """Some of the rows that a caller may list, which an index has together. No row is in two parts."""

    owner: str | None = None
    organization: str | None = None
    is_all_of_it: bool = False
    but_of: tuple[str, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what a row has to be; nothing, where all are meant."""
        if self.owner is not None:
            return [catalogue.c.owner == self.owner]
        if self.organization is None:
            return []
        chosen = [catalogue.c.organization == self.organization]
        if not self.is_all_of_it:
            chosen.append(catalogue.c.is_private == FOR_ORGANIZATION)
        if self.but_of:
            chosen.append(catalogue.c.owner.not_in(self.but_of))
        return chosen


def _parts(reach: Reach) -> list[_Part]:
    if reach.owners is None:
        return [_Part()]
    organization = reach.organization
    if organization is None:
        return [_Part(owner) for owner in reach.owners]
    if reach.sees_all_of_it:
        others = [owner for owner in reach.owners if organization_of(owner) != organization]
        return [*map(_Part, others), _Part(None, organization, is_all_of_it=True)]
    return [*map(_Part, reach.owners), _Part(None, organization, but_of=reach.owners)]


class _Listing:
    """The rows of one part that a query asks for."""

    def __init__(self, connection: Connection, query: Query, part: _Part, now: int) -> None:
        self._connection = connection
        self._query = query
        self._part = part
        self._owner = part.owner
        self._now = now
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._order = catalogue.c.changed_order if query.by_change else catalogue.c.created_order
        self._is_not_over = func.coalesce(catalogue.c.expires_at, _NEVER) > now
        self._counted: int | None = None  # if the text alone tells that there are very many
        self._number: ColumnElement[int] = catalogue.c.number  # as the index that finds the text has it
        self._are_found = False  # the rows that have the text, by their numbers
        self._newest: list[int] = []  # numbers of rows that have the text, if these are many
        self.is_least = False
        """Whether there may be more than are counted."""

    def chosen(self) -> list[ColumnElement[bool]]:
        """Return the conditions on a row."""
        filters = self._query.filters
        chosen = self._part.conditions()
        if filters.project:
            chosen.append(catalogue.c.project == filters.project)
        if filters.is_private:
            chosen.append(catalogue.c.is_private == PRIVATE)
        if filters.is_live:
            # Few, whatever the order: so they are found first.
            live = select(catalogue.c.number).where(catalogue.c.changed_order < LIVE_FOR - self._now)
            chosen.append(catalogue.c.number.in_(live))
        if filters.since is not None:
            chosen.append(self._order <= -filters.since)
        if filters.until is not None:
            chosen.append(self._order > -filters.until)
        if not self._query.text:
            return chosen
        has_text = self._has_text()
        # Found numbers are few: no other index leads to less.
        return [has_text, _opaque(chosen)] if chosen and self._are_found else [*chosen, has_text]

    def _has_text(self) -> ColumnElement[bool]:
        """Return the condition on the text: rare ones are found by the index of words, others in passing."""
        wanted = self._query.text
        own = self._part.conditions()
        contains: ColumnElement[bool] = (
            func.instr(catalogue.c.words, wanted) > 0
            if self._is_sqlite
            else catalogue.c.words.contains(wanted, autoescape=True)
        )
        if self._is_sqlite and self._owner is not None and self._counted_rows() <= _LOOKED_THROUGH:
            return contains
        if self._is_sqlite and len(wanted) < _OF_TRIGRAMS:
            newest = select(catalogue.c.number).where(*own).order_by(self._order, catalogue.c.id)
            found = select(catalogue.c.number).where(
                catalogue.c.number.in_(newest.limit(_LOOKED_THROUGH)), self._is_not_over, contains
            )
        elif self._is_sqlite:
            found = self._matching(wanted, contains)
            if self._part.organization is None and self._is_in_many(found):
                return contains
        else:
            found = select(catalogue.c.number).where(*own, self._is_not_over, contains)
        if self._part.organization is not None:
            found = select(catalogue.c.number).where(catalogue.c.number.in_(found), *own)
        numbers = list(self._connection.execute(found.limit(COUNTED)).scalars())
        if len(numbers) >= COUNTED:
            self._counted, self.is_least = COUNTED, True
            return contains
        self._are_found = True
        if not self._is_sqlite:
            return catalogue.c.number.in_(numbers)
        # One value, whose statement need not be made for each of them.
        each = func.json_each(json.dumps(numbers)).table_valued("value")
        return catalogue.c.number.in_(select(each.c.value))

    def _matching(self, wanted: str, contains: ColumnElement[bool]) -> Select[Any]:
        """Return a query for the numbers of rows that have a text, which SQLite's indexes find."""
        by_pairs = len(wanted) >= SHORTEST
        source = table("catalogue_pairs" if by_pairs else "catalogue_words", column("rowid", BigInteger))
        self._number = source.c.rowid
        terms = terms_of(wanted) if by_pairs else [wanted]
        matches = literal_column(source.name).op("MATCH")(_fts5_match(terms, self._part))
        if by_pairs:
            # Which tell only that a row may have the text.
            rows = source.join(catalogue, catalogue.c.number == self._number)
            is_wanted = _opaque([contains, self._is_not_over, *self._part.conditions()])
            return select(self._number).select_from(rows).where(matches, is_wanted)
        over = select(catalogue.c.number).where(catalogue.c.expires_at <= self._now)
        return select(self._number).select_from(source).where(matches, self._number.not_in(over))

    def _is_in_many(self, found: Select[Any]) -> bool:
        """Whether so many of the newest rows have the text that those of a page are found in passing.

        The index of words reads the places of each three letters of a text, in however many rows these are:
        for a text in one title of a hundred, of a million rows a quarter of a second.
        """
        if self._query.filters != Filters():
            return False  # which may leave out all that have it
        at = self._edge(None)
        if at is None:
            return False
        numbers = self._numbers_since(found, at, None)
        count, after = len(numbers), self._query.after
        if count >= _MANY and after is not None:
            # Those behind the cursor may be others.
            if self._query.by_change or self._query.is_backwards:
                return False
            edge = self._edge(after[0])
            if edge is not None:
                numbers = self._numbers_since(found, edge, after[0])
                if len(numbers) < _MANY:
                    return False
        if count < _MANY:
            return False
        self._newest = sorted(numbers, reverse=True)
        self._counted, self.is_least = count, True
        return True

    def _edge(self, behind: int | None) -> int | None:
        """Return the order of the row _WINDOW rows behind another; None if there are not so many."""
        order = catalogue.c.created_order
        query = select(order).order_by(order, catalogue.c.id).offset(_WINDOW).limit(1)
        if self._owner is not None:
            query = query.where(catalogue.c.owner == self._owner)
        if behind is not None:
            query = query.where(order >= behind)
        edge: int | None = self._connection.execute(query).scalar()
        return edge

    def _numbers_since(self, found: Select[Any], edge: int, behind: int | None) -> list[int]:
        """Return which of the rows ``found`` are not behind ``edge``, of those from ``behind`` on."""
        found = found.where(self._number >= _first_number(-edge))
        if behind is not None:
            found = found.where(self._number < _first_number(-behind + 1))
        return list(self._connection.execute(found.limit(COUNTED)).scalars())

    def rows(self, chosen: Collection[ColumnElement[bool]], limit: int) -> list[CatalogueRow]:
        """Return the first rows behind the place that the query begins at."""
        if not self._query.by_change and len(self._newest) >= limit:
            # No other can be before these, but one of the same time.
            last = _first_number(_time_of(self._newest[limit - 1]))
            newest = [number for number in self._newest if number >= last]
            rows = self._rows([_opaque(chosen), catalogue.c.number.in_(newest)], limit)
            if len(rows) == limit:
                return rows
        return self._rows(chosen, limit)

    def _rows(self, chosen: Collection[ColumnElement[bool]], limit: int) -> list[CatalogueRow]:
        where, after = [*chosen, self._is_not_over], self._query.after
        order: tuple[ColumnElement[Any], ColumnElement[Any]] = (self._order, catalogue.c.id)
        if after is not None:
            place = tuple_(*order)
            where.append(place < after if self._query.is_backwards else place > after)
        ordered = tuple(column.desc() for column in order) if self._query.is_backwards else order
        query = select(catalogue).where(*where).order_by(*ordered).limit(limit)
        return [_row(row) for row in self._connection.execute(query)]

    def count(self, chosen: Collection[ColumnElement[bool]], shown: int) -> int:
        """Return how many rows there are, of which ``shown``: of all, exactly; of others, at most COUNTED."""
        if self._counted is not None:
            # Of those that have the text, filters may leave out any.
            return self._counted if self._query.filters == Filters() else shown
        # All conditions but that on the expiry are in an index: rows need not be read to be counted. Those
        # whose time is over are removed within seconds, so there are few of them.
        over = self._count_over(chosen)
        if self._query.text or self._query.filters != Filters() or self._part.organization is not None:
            some = select(literal(1)).select_from(catalogue).where(*chosen).limit(COUNTED + over)
            total = self._connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()
            self.is_least = total - over >= COUNTED
        else:
            total = self._counted_rows()
        return int(total) - over

    def _counted_rows(self) -> int:
        """Return how many rows there are of the owner, or in all."""
        name = "all" if self._owner is None else f"of:{self._owner}"
        query = select(catalogue_counts.c.shares).where(catalogue_counts.c.name == name)
        return self._connection.execute(query).scalar() or 0

    def _count_over(self, chosen: Collection[ColumnElement[bool]]) -> int:
        query = select(func.count()).select_from(catalogue).where(catalogue.c.expires_at <= self._now)
        if chosen:
            query = query.where(_opaque(chosen))
        return int(self._connection.execute(query).scalar_one())

    def count_among(self, chosen: Collection[ColumnElement[bool]], ids: Collection[str]) -> int:
        """Return how many rows there are of some shares."""
        return self._count_of([*chosen, self._is_not_over, catalogue.c.id.in_(list(ids))])

    def _count_of(self, chosen: Collection[ColumnElement[bool]]) -> int:
        query = select(func.count()).select_from(catalogue).where(*chosen)
        return int(self._connection.execute(query).scalar_one())


def _opaque(conditions: Collection[ColumnElement[bool]]) -> ColumnElement[bool]:
    """Return ``conditions`` so that no index is used for them: by it, all that an owner has would be read."""
    return case((and_(*conditions), 1)) == 1


_change = (
    update(catalogue)
    .where(catalogue.c.id == bindparam("share_id"))
    .values({column: bindparam(column.name) for column in catalogue.c if column.name not in ("number", "id")})
)


def _count_anew(connection: Connection) -> None:
    connection.execute(delete(catalogue_counts))
    totals = func.count(), cast(func.coalesce(func.sum(catalogue.c.size), 0), BigInteger)
    for prefix, of in (("of:", catalogue.c.owner), ("in:", catalogue.c.organization)):
        rows = select(literal(prefix) + of, *totals).where(of.is_not(None)).group_by(of)
        connection.execute(insert(catalogue_counts).from_select(["name", "shares", "bytes"], rows))
    rows = select(literal("all"), *totals).select_from(catalogue)
    connection.execute(insert(catalogue_counts).from_select(["name", "shares", "bytes"], rows))


def _count(counts: dict[str, Usage], owner: str | None, by: Usage) -> None:
    for name in ("all", *_counted_as(owner)):
        before = counts.get(name, Usage())
        counts[name] = Usage(before.shares + by.shares, before.storage + by.storage)


def _counted_as(owner: str | None) -> list[str]:
    """Return the names under which shares of an owner are counted, besides ``all``."""
    organization = organization_of(owner)
    of_organization = [] if organization is None else [f"in:{organization}"]
    return of_organization if owner is None else [f"of:{owner}", *of_organization]


def _usage(
    names: Collection[str], unwritten: Mapping[str, OwnedSize | None], connection: Connection
) -> dict[str, Usage]:
    found = dict.fromkeys(names, Usage())
    counted = select(catalogue_counts).where(catalogue_counts.c.name.in_(names))
    found.update((row.name, Usage(row.shares, row.bytes)) for row in connection.execute(counted))

    def add(owner: str | None, by: int, size: int) -> None:
        for name in _counted_as(owner):
            if name in found:
                before = found[name]
                found[name] = Usage(before.shares + by, before.storage + by * size)

    ids = list(unwritten)
    for start in range(0, len(ids), _AT_ONCE):
        some = catalogue.c.id.in_(ids[start : start + _AT_ONCE])
        for row in connection.execute(select(catalogue.c.owner, catalogue.c.size).where(some)):
            add(row.owner, -1, row.size)
    for each in unwritten.values():
        if each is not None:
            add(each.owner, 1, each.size)
    return found


def row_values(row: CatalogueRow, *, is_new: bool) -> _Values:
    """Return the columns of a row, as they are inserted or updated."""
    index, figures = row.index, row.figures
    values: _Values = {
        "generation": row.generation,
        "session_id": index.session_id,
        "owner": row.owner,
        "title": index.title,
        "directory": index.directory,
        "message_count": index.message_count,
        "part_count": index.part_count,
        "diff_count": index.diff_count,
        "model_count": index.model_count,
        "sync_count": index.sync_count,
        "created_order": -index.created_at,
        "changed_order": -index.last_updated,
        "revision": row.revision,
        "expires_at": row.expires_at,
        "organization": organization_of(row.owner),
        "is_private": PRIVATE if row.is_private else FOR_ORGANIZATION if row.is_for_organization else 0,
        "has_password": int(row.has_password),
        "size": row.size,
        "project": row.project,
        "words": _words(row),
        **msgspec.structs.asdict(figures),
    }
    if is_new:
        # In the order of time, so that what is added last is added at the end of the index of words.
        number = _first_number(index.created_at) + secrets.randbits(_NUMBER_BITS)
        return {"id": index.id, "number": number, **values}
    return {"share_id": index.id, **values}


def _words(row: CatalogueRow) -> str:
    """Return what is looked for in a row."""
    index = row.index
    texts = (index.title, index.directory, index.id, index.session_id)
    return _BETWEEN.join([*_marks(row.owner), *(clean(each).casefold() for each in texts)])


def _first_number(time: int) -> int:
    """Return the first number of rows of shares that were made at ``time``."""
    return max(-(2**42), min(time, 2**42)) << _NUMBER_BITS


def _time_of(number: int) -> int:
    return number >> _NUMBER_BITS


def _row(row: Row[Any]) -> CatalogueRow:
    index = SessionIndex(
        row.id,
        row.session_id,
        row.title,
        row.directory,
        row.message_count,
        row.part_count,
        row.diff_count,
        row.model_count,
        -row.changed_order,
        row.sync_count,
        -row.created_order,
    )
    figures = Figures(
        row.model, row.cost, row.tokens, row.files, row.additions, row.deletions, row.first_prompt
    )
    return CatalogueRow(
        index,
        row.generation,
        row.owner,
        row.revision,
        row.expires_at,
        row.is_private == PRIVATE,
        bool(row.has_password),
        figures,
        row.is_private == FOR_ORGANIZATION,
        row.size,
    )


def _marks(owner: str | None) -> list[str]:
    """Return what stands for an owner, and for its organization, in the words of a row."""
    name = b"" if owner is None else b"=" + owner.encode("utf-8", "surrogatepass")
    organization = organization_of(owner)
    return [_mark(name), *([] if organization is None else [_organization_mark(organization)])]


def _organization_mark(organization: str) -> str:
    return _mark(b"@" + organization.encode("utf-8", "surrogatepass"))


def _mark(name: bytes) -> str:
    """Return what stands for a name: as long as a term of SQLite's index."""
    number = int.from_bytes(blake2b(name, digest_size=5).digest())
    return "".join(
        chr(_MARKS + (number >> shift) % 2**_MARK_BITS) for shift in (0, _MARK_BITS, 2 * _MARK_BITS)
    )


def _fts5_match(wanted: Sequence[str], part: _Part) -> str:
    marks = [] if part.owner is None else [_marks(part.owner)[0]]
    if part.organization is not None:
        marks = [_organization_mark(part.organization)]
    return " AND ".join('"' + phrase.replace('"', '""') + '"' for phrase in [*marks, *wanted])
