"""Listings, which are made from the database, of SQLite and of PostgreSQL."""

import asyncio
import sqlite3
from contextlib import closing
from time import monotonic

import pytest
from finding import indexed, message, session, shared, text

from rpcshare.broadcast import LocalBroadcaster
from rpcshare.database import parse_location
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import Filters, Query
from rpcshare.shares.search import open_index
from rpcshare.shares.search_turns import SearchTurns
from rpcshare.shares.state import SessionIndex
from support.share_stores import until

HOUR = 3_600_000


def ids(page):
    return [row.index.id for row in page.rows]


async def made(service, caller, number, *data, **options):
    return await service.create(caller, f"ses_{number:08}", list(data) or None, options or None)


async def test_a_sync_is_listed_at_once_and_stays_so_when_it_is_written(searched, alice):
    share = await made(searched, alice, 1, session("first"))
    assert [row.index.title for row in (await searched.list_rows(alice)).rows] == ["first"]
    await searched.sync(alice, share.id, None, [session("second")])
    for _ in range(2):
        page = await searched.list_own(alice)
        assert ([each.title for each in page.sessions], page.count) == (["second"], 1)
        await indexed(searched)
    await searched.delete(alice, share.id, None)
    for _ in range(2):
        assert (await searched.list_own(alice)).count == 0
        await indexed(searched)


async def test_a_row_tells_what_a_session_took(searched, alice):
    tokens = {"input": 100, "output": 20, "reasoning": 3, "cache": {"read": 7, "write": 0}}
    changes = {"diffs": [{"file": "a.py", "additions": 5, "deletions": 2}]}
    await shared(
        searched,
        alice,
        session("A title", "/home/me/thing"),
        message("msg_1", summary=changes),
        text("prt_1", "Please mend it"),
        message("msg_2", "assistant", modelID="large", cost=0.25, tokens=tokens),
    )
    (row,) = (await searched.list_rows(alice)).rows
    figures = row.figures
    assert (row.project, figures.model, figures.cost, figures.tokens) == ("thing", "large", 0.25, 130)
    assert (figures.files, figures.additions, figures.deletions) == (1, 5, 2)
    assert figures.first_prompt == "Please mend it"


@pytest.mark.parametrize("is_written", [False, True], ids=["unwritten", "written"])
async def test_filters_choose_among_rows(searched, alice, bob, admin, is_written):
    await made(searched, alice, 1, session("one", "/home/me/red"))
    await made(searched, alice, 2, session("two", "/home/me/blue"), visibility="private")
    await made(searched, bob, 3, session("three", "/home/me/red"))
    if is_written:
        await indexed(searched)

    async def listed(caller=admin, **options):
        filters = Filters(**options.pop("filters", {}))
        page = await searched.list_rows(caller, filters=filters, **options)
        assert page.count == len(page.rows)
        return ids(page)

    assert await listed() == ["00000003", "00000002", "00000001"]
    assert await listed(filters={"project": "red"}) == ["00000003", "00000001"]
    assert await listed(filters={"is_private": True}) == ["00000002"]
    assert await listed(filters={"is_live": True}) == ["00000003", "00000002", "00000001"]
    assert await listed(filters={"until": 0}) == []
    assert await listed(owner="bob") == ["00000003"]
    assert await listed(alice, owner="bob") == ["00000002", "00000001"]
    assert await listed(query="ME/R") == ["00000003", "00000001"]
    assert await listed(query="me") == ["00000003", "00000002", "00000001"]
    assert await listed(alice, query="three") == []


async def test_pages_are_turned_forth_and_back(searched, alice):
    for number in range(7):
        await made(searched, alice, number)
    await indexed(searched)
    first = await searched.list_rows(alice, limit=3)
    second = await searched.list_rows(alice, limit=3, cursor=first.cursor_of(first.rows[-1]))
    before = await searched.list_rows(
        alice, limit=3, cursor=second.cursor_of(second.rows[0]), is_backwards=True
    )
    assert ids(second) == ["00000003", "00000002", "00000001"]
    assert (ids(before), before.has_more, before.count) == (ids(first), False, 7)


async def test_all_are_counted_whoever_owns_them_and_however_they_end(
    new_service, searching, alice, bob, admin
):
    clock = [1_700_000_000_000]
    service = new_service(search=searching(), clock=lambda: clock[0])
    ending = await made(service, alice, 1, expiresIn="1h")
    await made(service, alice, 2)
    await made(service, bob, 3)
    await indexed(service)
    counts = {who: (await service.list_own(who)).count for who in (alice, bob)}
    assert (counts[alice], counts[bob], (await service.list_all(admin)).count) == (2, 1, 3)
    clock[0] += 2 * HOUR
    assert ((await service.list_own(alice)).count, (await service.list_all(admin)).count) == (1, 2)
    with pytest.raises(ShareError, match="Share expired"):
        await service.metadata(alice, ending.id)
    index = await service._shares.listing._projection.index()
    await index.catalogue.count_anew()
    assert (await service.list_all(admin)).count == 2


async def test_what_one_node_makes_and_deletes_another_with_the_same_database_lists(
    new_service, searching, alice
):
    one, other = (
        new_service(search=searching(), hearing=LocalBroadcaster(), shared_store=True) for _ in range(2)
    )
    share = await made(one, alice, 1, session("here"))
    await indexed(one)
    assert [each.title for each in (await other.list_own(alice)).sessions] == ["here"]
    await one.delete(alice, share.id, None)
    await indexed(one)
    assert (await other.list_own(alice)).count == 0


async def test_nodes_with_a_database_each_hear_of_each_other(new_service, searching, tmp_path, alice):
    def node(name):
        location = parse_location(f"sqlite:///{tmp_path}/{name}.sqlite3")
        return new_service(search=searching(location, is_of_node=True), shared_store=True)

    one, other = node("one"), node("other")
    for each in (one, other):
        await indexed(each)

    async def listed():
        return [each.title for each in (await other.list_own(alice)).sessions]

    share = await made(one, alice, 1, session("here"))
    while await listed() != ["here"]:  # noqa: ASYNC110 -- it tells nobody
        await asyncio.sleep(0.02)
    await one.delete(alice, share.id, None)
    await until(lambda: not other._shares.listing._projection._pending)
    while await listed():  # noqa: ASYNC110 -- likewise
        await asyncio.sleep(0.02)


async def test_a_row_that_is_written_late_does_not_bring_a_deleted_share_back(searched, alice):
    share = await made(searched, alice, 1)
    await indexed(searched)
    index = await searched._shares.listing._projection.index()
    (row,) = (await searched.list_rows(alice)).rows
    await searched.delete(alice, share.id, None)
    await indexed(searched)
    await index.catalogue.put([row])
    assert (await searched.list_own(alice)).count == 0


async def test_a_listing_without_its_database_says_so_while_syncs_go_on(
    new_service, searching, tmp_path, alice
):
    location = parse_location(f"sqlite:///{tmp_path}/file/database.sqlite3")
    (tmp_path / "file").write_text("in the way")
    service = new_service(search=searching(location))
    share = await made(service, alice, 1, session("kept"))
    with pytest.raises(ShareError, match="The list of shares is unavailable") as caught:
        await service.list_own(alice)
    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.STORAGE_UNAVAILABLE, 2.0)
    assert await service.sync(alice, share.id, None, [session("later")]) == 2
    (tmp_path / "file").unlink()
    await indexed(service)
    assert [each.title for each in (await service.list_own(alice)).sessions] == ["later"]


async def test_a_query_that_takes_too_long_is_ended_and_others_go_on(searched, alice, monkeypatch):
    await shared(searched, alice, message("msg_1"), text("prt_1", "needle"))
    monkeypatch.setattr("rpcshare.shares.search_hits._LONGEST_SEARCH", 0.000_001)
    monkeypatch.setattr("rpcshare.database.engine._STEPS", 1)
    if (await searched._shares.listing._projection.index()).database.is_sqlite:
        with pytest.raises(ShareError, match="query: takes too long"):
            await searched.search(alice, "needle")
    monkeypatch.undo()
    assert len((await searched.search(alice, "needle")).hits) == 1


async def test_a_search_of_ones_own_ends_at_a_round_time_whatever_others_have(searched, alice, monkeypatch):
    await shared(searched, alice, message("msg_1"), text("prt_1", "needle"))
    monkeypatch.setattr("rpcshare.shares.search_turns._ROUND", 0.3)
    for search in (
        searched.search(alice, "needle"),
        searched.search(alice, "nobody's"),
        searched.list_rows(alice, query="needle"),
    ):
        began = monotonic()
        await search
        assert monotonic() - began > 0.29


async def test_of_each_caller_one_search_is_under_way_and_another_caller_has_a_turn(monkeypatch):
    monkeypatch.setattr("rpcshare.shares.search_turns._PATIENCE", 0.05)
    turns = SearchTurns()
    async with turns.turn("heavy"):
        with pytest.raises(ShareError) as caught:
            async with turns.turn("heavy"):
                pass
        assert caught.value.code is ErrorCode.RATE_LIMITED
        async with turns.turn("other"):
            pass
    async with turns.turn("heavy"):
        pass


async def test_pages_are_found_by_indexes_however_many_rows_there_are(searched, alice):
    """What would read and sort all rows shows in SQLite's plan."""
    index = await searched._shares.listing._projection.index()
    if not index.database.is_sqlite:
        pytest.skip("SQLite's plans")
    plans = {
        "all": "ORDER BY created_order, id LIMIT 31",
        "own": "WHERE owner = 'a' ORDER BY created_order, id LIMIT 31",
        "own, by change": "WHERE owner = 'a' ORDER BY changed_order, id LIMIT 31",
        "behind": "WHERE (created_order, id) > (5, 'x') ORDER BY created_order, id LIMIT 31",
        "project": "WHERE project = 'p' ORDER BY created_order, id LIMIT 31",
        "own project": "WHERE owner = 'a' AND project = 'p' ORDER BY created_order, id LIMIT 31",
        "private": "WHERE is_private = 1 ORDER BY created_order, id LIMIT 31",
    }
    with closing(sqlite3.connect(index.database.location.path)) as connection:
        for name, query in plans.items():
            plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM catalogue {query}").fetchall()
            told = " ".join(row[3] for row in plan)
            assert "TEMP B-TREE" not in told, name
            assert "USING INDEX" in told, name


@pytest.mark.parametrize("owner", [None, "alice"])
@pytest.mark.parametrize("by_change", [False, True])
async def test_a_text_in_many_titles_is_counted_in_the_newest_alone_and_found_in_all(
    file_location, monkeypatch, owner, by_change
):
    monkeypatch.setattr("rpcshare.shares.catalogue._WINDOW", 20)
    monkeypatch.setattr("rpcshare.shares.catalogue._MANY", 5)
    monkeypatch.setattr("rpcshare.shares.catalogue._LOOKED_THROUGH", 10)
    index = await open_index(file_location)
    titles = ["Fix the parser" if number % 2 else "Parse the fix" for number in range(80)]
    rows = [
        CatalogueRow(SessionIndex(f"{at:08}", f"ses_{at}", title, "/", 0, 0, 0, 0, at, 1, at), "g", "alice")
        for at, title in enumerate(titles)
    ]
    await index.catalogue.put(rows)
    owners = None if owner is None else (owner,)
    wanted = [f"{at:08}" for at, title in enumerate(titles) if title == "Fix the parser"]

    async def pages():
        cursor, found = None, []
        while True:
            query = Query.parse(owners, cursor, 7, "the PARSER", by_change=by_change)
            page = await index.catalogue.page(query, 0, {})
            assert 5 <= page.count <= len(wanted)
            found += ids(page)
            if not page.has_more:
                return found
            cursor = page.cursor_of(page.rows[-1])

    first = await index.catalogue.page(Query.parse(owners, None, 7, "the parser", by_change=by_change), 0, {})
    assert (first.count, first.is_least) == (11, True)
    rare = await index.catalogue.page(Query.parse(owners, None, 7, "00000021"), 0, {})
    assert (ids(rare), rare.count, rare.is_least) == (["00000021"], 1, False)
    assert await pages() == wanted[::-1]
    await index.database.close()
