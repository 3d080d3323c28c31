"""What a title, directory or id must contain: found by SQLite's indexes as by reading every row."""

import random
import sqlite3
from contextlib import closing

import pytest

from rpcshare.database.character_pairs import SHORTEST, pairs_of, terms_of
from rpcshare.database.engine import Database
from rpcshare.shares.catalogue import Catalogue, row_values
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import Filters, Query
from rpcshare.shares.search import open_index
from rpcshare.shares.state import SessionIndex

MOMENT = 1_700_000_000_000
LETTERS = "abAB \u00e4\u00df\u0130\u0e01\u6f22\U0001f600'\"*%_\\-/.1\ue000\ue001"


@pytest.fixture
async def index(location):
    index = await open_index(location)
    yield index
    await index.database.close()


def row(number, title, owner="alice", **fields):
    index = SessionIndex(
        f"{number:08}", f"ses_{number:08}", title, "/home/red", 0, 0, 0, 0, number, 1, number
    )
    return CatalogueRow(index, "g", owner, **fields)


async def listed(index, text, owners=None, **filters):
    found: list[str] = []
    cursor = None
    while True:
        query = Query.parse(owners, cursor, 20, text, filters=Filters(**filters))
        page = await index.catalogue.page(query, 0, {})
        found += [row.index.id for row in page.rows]
        assert page.count <= len(found) or page.has_more or page.is_least or cursor
        if not page.has_more:
            return found
        cursor = page.cursor_of(page.rows[-1])


@pytest.mark.parametrize("seed", range(3))
async def test_a_text_is_found_wherever_it_stands_and_nowhere_else(index, monkeypatch, seed):
    if seed:
        monkeypatch.setattr("rpcshare.shares.catalogue._LOOKED_THROUGH", 150)
        monkeypatch.setattr("rpcshare.shares.catalogue._WINDOW", 40)
        monkeypatch.setattr("rpcshare.shares.catalogue._MANY", 5)
    rng = random.Random(seed)
    titles = ["".join(rng.choices(LETTERS, k=rng.randrange(40))) for _ in range(150)]
    rows = [row(at, title, rng.choice(("alice", "bob"))) for at, title in enumerate(titles)]
    await index.catalogue.put(rows)
    for _ in range(60):
        title = rng.choice(titles)
        start = rng.randrange(len(title) + 1)
        text = title[start : start + rng.choice((1, 2, 3, 5, 6, 7, 8, 13, 30))]
        if rng.random() < 0.2:
            text += rng.choice(LETTERS)
        for owners in (None, ("alice",)):
            wanted = Query.parse(owners, None, 1, text)
            expected = [each.index.id for each in reversed(rows) if wanted.takes(each, 0)]
            assert await listed(index, text, owners) == expected, (text, owners)


async def test_a_share_is_found_by_its_new_title_and_not_by_its_old_one(index):
    await index.catalogue.put([row(1, "fix the parser of layouts"), row(2, "another thing entirely")])
    await index.catalogue.put([row(1, "a wholly different name", revision=2)], gone=["00000002"])
    assert await listed(index, "wholly different") == ["00000001"]
    assert await listed(index, "the parser of") == []
    assert await listed(index, "another thing") == []


async def test_nothing_is_left_of_titles_that_are_gone(file_location):
    index = await open_index(file_location)
    rows = [row(at, f"fix the parser {at}") for at in range(50)]
    await index.catalogue.put(rows)
    renamed = [row(each.index.created_at, "another title", revision=1) for each in rows]
    await index.catalogue.put(renamed)
    await index.catalogue.put([CatalogueRow(each.index, "g2", "bob") for each in renamed])
    await index.catalogue.put([], gone=[each.index.id for each in rows])
    await index.database.close()
    with closing(sqlite3.connect(file_location.path)) as connection:
        connection.execute(
            "CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'catalogue_pairs', 'row')"
        )
        assert connection.execute("SELECT count(*) FROM temp.words").fetchone() == (0,)
        connection.execute("INSERT INTO catalogue_pairs (catalogue_pairs) VALUES ('integrity-check')")


async def test_filters_of_a_text_in_very_many_titles_count_no_more_than_there_are(index, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.catalogue.COUNTED", 20)
    await index.catalogue.put([row(at, "fix the parser", is_private=at < 6) for at in range(60)])
    page = await index.catalogue.page(
        Query.parse(None, None, 3, "the parser", filters=Filters(is_private=True)), 0, {}
    )
    assert page.count <= 6
    assert await listed(index, "the parser", is_private=True) == [f"{at:08}" for at in range(5, -1, -1)]


async def test_rows_of_the_version_before_are_found_by_longer_texts(file_location):
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from rpcshare.database.schema_version import PROJECTION
    from rpcshare.database.tables import catalogue

    file_location.path.parent.mkdir(exist_ok=True)
    engine = create_engine(f"sqlite:///{file_location.path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(PROJECTION.migrations))
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        values = [row_values(row(at, f"fix the parser {at}"), is_new=True) for at in range(30)]
        connection.execute(catalogue.insert(), values)
    engine.dispose()
    database = await Database.open(file_location)
    page = await Catalogue(database).page(Query.parse(None, None, 5, "parser 17"), 0, {})
    assert [each.index.id for each in page.rows] == ["00000017"]
    await database.close()


@pytest.mark.parametrize("text", ["abcdef", "the parser", "\u00e4" * 6, "\ud800bcdef\udfff", "x y" * 400])
def test_each_text_has_the_terms_by_which_it_is_looked_for(text):
    for before in ("", "1", "22", "\u6f22"):
        pairs = pairs_of(f"{before}{text}behind")
        terms = terms_of(text)
        assert 1 <= len(terms) <= 65
        assert all(term in pairs for term in terms)
    assert len(text) >= SHORTEST


@pytest.mark.parametrize("text", ["", "parser", "the", "a"])
@pytest.mark.parametrize("by_change", [False, True], ids=["newest", "last changed"])
async def test_pages_of_shares_made_in_one_moment_have_each_of_them_once(index, monkeypatch, text, by_change):
    monkeypatch.setattr("rpcshare.shares.catalogue._WINDOW", 20)
    monkeypatch.setattr("rpcshare.shares.catalogue._MANY", 5)
    monkeypatch.setattr("rpcshare.shares.catalogue._LOOKED_THROUGH", 60)
    names = [f"{number:08}" for number in range(50)]
    indexes = [
        SessionIndex(name, f"ses_{name}", "fix the parser", "/", 0, 0, 0, 0, MOMENT, 1, MOMENT)
        for name in names
    ]
    await index.catalogue.put([CatalogueRow(each, "g", "alice") for each in indexes])
    for owners in (None, ("alice",)):

        async def page(cursor, *, back=False, owners=owners):
            query = Query.parse(owners, cursor, 7, text, by_change=by_change, is_backwards=back)
            return await index.catalogue.page(query, 0, {})

        pages = [await page(None)]
        while pages[-1].has_more:
            pages.append(await page(pages[-1].cursor_of(pages[-1].rows[-1])))
        assert [each.index.id for one in pages for each in one.rows] == names
        before = await page(pages[2].cursor_of(pages[2].rows[0]), back=True)
        assert [each.index.id for each in before.rows] == names[7:14]
