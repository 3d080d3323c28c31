"""What a search has to do is bounded, whatever there is, and does not depend on what others have."""

from functools import partial

import pytest

from rpcshare.shares.catalogue import _page
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import Filters, Query, Reach
from rpcshare.shares.search import open_index
from rpcshare.shares.search_hits import _Newest
from rpcshare.shares.search_index import IndexedShare
from rpcshare.shares.search_query import SearchQuery
from rpcshare.shares.search_texts import SearchableText
from rpcshare.shares.state import SessionIndex


@pytest.fixture
async def index(file_location):
    index = await open_index(file_location)
    yield index
    await index.database.close()


async def put(index, share_id, owner, bodies):
    texts = [
        SearchableText(f"part:{n}", "msg_1", f"prt_{n}", "user", "", "", 1_700_000_000_000 + n, body)
        for n, body in enumerate(bodies)
    ]
    share = IndexedShare(share_id, "g", "e", 1, owner=owner, title="Some session")
    assert await index.put(share, texts)


def newest(query, owners=None):
    return _Newest(True, SearchQuery.parse(query), Reach(owners), 0)


def steps(work, connection):
    """Return how many steps SQLite's virtual machine takes for ``work``: each row that is read takes some."""
    taken = 0

    def step():
        nonlocal taken
        taken += 1

    driver = connection.connection.driver_connection
    driver.set_progress_handler(step, 1)
    try:
        work(connection)
    finally:
        driver.set_progress_handler(None, 0)
    return taken


@pytest.mark.parametrize("query", ["con", "cons", "needle con", "needle -con"])
async def test_of_a_beginning_so_many_words_are_looked_for_and_no_more(index, query):
    await put(index, "00000001", "alice", ["needle " + " ".join(f"cons{n}" for n in range(4000))])

    def matches(connection):
        return list(newest(query)._matches(connection))

    for match in await index.database.read(matches):
        assert "*" not in match
        assert match.count('"') <= 2 * 1700


async def test_a_beginning_of_two_letters_beside_a_longer_one_is_looked_for_in_few_words(index):
    await put(index, "00000001", "alice", ["needle " + " ".join(f"co{n}" for n in range(4000))])

    def matches(connection):
        return list(newest("co need")._matches(connection))

    found = await index.database.read(matches)
    assert len(found) > 1
    assert all(match.count('"') <= 2 * 210 for match in found)


async def test_words_come_before_identifiers_where_more_begin_so_than_are_looked_for(index):
    await put(index, "00000001", "alice", [" ".join(f"con{n}" for n in range(2000)), "a console here"])
    found, _ = await index.search(SearchQuery.parse("con"), Reach(None), 0)
    assert {hit.part_id for hit in found} == {"prt_0", "prt_1"}


@pytest.mark.parametrize(
    "query", ["needle", '"a needle"', "needle hay", "needle role:user", "needle -absent"]
)
async def test_a_search_of_ones_own_takes_as_many_steps_whatever_others_have(index, query):
    await put(index, "00000001", "alice", ["a needle in the hay"] * 5)
    work = newest(query, ("alice",)).found
    alone = await index.database.read(partial(steps, work))
    await put(index, "00000002", "bob", ["a needle in the hay"] * 500)
    beside = await index.database.read(partial(steps, work))
    of_bob = await index.database.read(partial(steps, newest(query, ("bob",)).found))
    assert beside < 1.5 * alone < of_bob / 10


async def test_a_listing_of_ones_own_takes_as_many_steps_whatever_others_have(index):
    async def made(owner, count):
        rows = [
            SessionIndex(f"{owner}{n:05}", "ses", "Fix a needle", "/", 0, 0, 0, 0, n, 1, n)
            for n in range(count)
        ]
        await index.catalogue.put([CatalogueRow(row, "g", owner) for row in rows])

    def listing(owner):
        return partial(steps, partial(_page, Query(Reach((owner,)), None, 30, "a needle"), 0, {}))

    await made("alice", 5)
    alone = await index.database.read(listing("alice"))
    await made("bob", 1000)
    beside = await index.database.read(listing("alice"))
    assert beside < 1.5 * alone < await index.database.read(listing("bob")) / 5


PAGES = {
    "all": Query(Reach(None), None, 30, ""),
    "all, last changed first": Query(Reach(None), None, 30, "", by_change=True),
    "from the middle": Query(Reach(None), (-250, ""), 30, ""),
    "before the middle": Query(Reach(None), (-250, ""), 30, "", is_backwards=True),
    "one's own": Query(Reach(("alice",)), None, 30, ""),
    "one's own, last changed first": Query(Reach(("alice",)), None, 30, "", by_change=True),
    "a project": Query(Reach(None), None, 30, "", filters=Filters(project="red")),
    "one's own in a project": Query(Reach(("alice",)), None, 30, "", filters=Filters(project="red")),
    "private": Query(Reach(None), None, 30, "", filters=Filters(is_private=True)),
    "since and until": Query(Reach(None), None, 30, "", filters=Filters(since=100, until=900)),
    "a text in many titles": Query(Reach(None), None, 30, "the needle"),
    "one's own with a text": Query(Reach(("alice",)), None, 30, "the needle"),
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_takes_as_many_steps_however_many_rows_there_are(index, name, monkeypatch):
    """Those that are counted, and those that are looked through for a text, are made few here."""
    monkeypatch.setattr("rpcshare.shares.catalogue.COUNTED", 100)
    monkeypatch.setattr("rpcshare.shares.catalogue._WINDOW", 200)
    monkeypatch.setattr("rpcshare.shares.catalogue._LOOKED_THROUGH", 100)

    async def made(numbers):
        # The last two are over: what is over is counted apart.
        rows = [
            CatalogueRow(
                SessionIndex(f"{at:08}", "ses", "Fix the needle", "/home/red", 0, 0, 0, 0, at, 1, at),
                "g",
                "alice",
                is_private=True,
                expires_at=1 if at < 2 else None,
            )
            for at in numbers
        ]
        await index.catalogue.put(rows)

    def taken():
        return index.database.read(partial(steps, partial(_page, PAGES[name], 10, {})))

    await made(range(500))
    few = await taken()
    await made(range(500, 5000))
    assert await taken() < 1.5 * few


async def test_what_is_over_is_left_out_of_a_count_however_much_of_it_there_is(index, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.catalogue.COUNTED", 5)
    rows = [
        CatalogueRow(
            SessionIndex(f"{at:08}", "ses", "A needle", "/home/red", 0, 0, 0, 0, at, 1, at),
            "g",
            "alice",
            expires_at=1 if at >= 4 else None,
        )
        for at in range(20)
    ]
    await index.catalogue.put(rows)
    for reach, text, filters in (
        (Reach(None), "", Filters(project="red")),
        (Reach(("alice",)), "", Filters(project="red")),
        (Reach(None), "", Filters()),
        (Reach(("alice",)), "", Filters()),
        (Reach(None), "needle", Filters()),
    ):
        page = await index.catalogue.page(Query(reach, None, 2, text, filters=filters), 10, {})
        shown = [row.index.id for row in page.rows]
        assert (shown, page.is_least) == (["00000003", "00000002"], False)
        assert page.count == 4
