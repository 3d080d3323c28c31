"""What a search has to do is bounded, whatever there is, and does not depend on what others have."""

from functools import partial

import pytest

from rpcshare.shares.catalogue import _page
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import Query, Reach
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
