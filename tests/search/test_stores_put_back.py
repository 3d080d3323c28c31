"""A store that is put back to an older copy, and goes on: what the database has of the newer one is old."""

import pytest
from finding import found, indexed, message, session, shared, text

from rpcshare.shares.reindexing import index_anew, out_of_date
from rpcshare.shares.search import open_index
from rpcshare.shares.search_index import Change
from support.share_stores import contents


@pytest.fixture
def unresting(monkeypatch):
    """Return a function after which only rows of the catalogue are written: what changes never rests."""

    def begin():
        monkeypatch.setattr("rpcshare.shares.pending_items._RESTS_AFTER", 3600.0)
        monkeypatch.setattr("rpcshare.shares.pending_items._WAITS_AT_MOST", 3600.0)

    return begin


async def kill(service):
    """End what a service does behind its callers, with its rows written, and its texts not."""
    projection = service._shares.listing._projection
    projection._worker.cancel()
    assert projection._pending
    projection._pending.clear()
    await projection.rows.write()


async def put_back(store, yesterday):
    await store.delete([key for key in contents(store) if key not in yesterday])


async def compared(service):
    service._shares.listing._projection.compare_soon()
    await indexed(service)


async def listed(service, caller):
    page = await service.list_own(caller)
    assert page.count == len(page.sessions)
    return [(each.id, each.title, each.sync_count) for each in page.sessions]


async def test_a_row_that_was_ahead_of_the_texts_as_the_server_was_killed_is_put_back(
    new_service, searching, store, alice, unresting
):
    first = new_service(search=searching())
    share = await shared(first, alice, session("first"))
    unresting()
    yesterday = contents(store)
    await first.sync(alice, share.id, None, [session("second"), message("msg_1")])
    await kill(first)
    await put_back(store, yesterday)
    second = new_service(search=searching())
    await indexed(second)
    assert await listed(second, alice) == [(share.id, "first", 1)]


async def test_a_row_of_a_share_that_the_store_has_no_more_is_removed(
    new_service, searching, store, alice, unresting
):
    first = new_service(search=searching())
    await indexed(first)
    unresting()
    await first.create(alice, "ses_00000001", [session("first"), message("msg_1")])
    await kill(first)
    await put_back(store, {})
    second = new_service(search=searching())
    await indexed(second)
    assert await listed(second, alice) == []


async def test_a_share_that_has_as_many_entries_again_is_indexed_again(new_service, searching, store, alice):
    first = new_service(search=searching())
    share = await shared(first, alice, session("first"), message("msg_1"))
    yesterday = contents(store)
    for title in ("second", "third"):
        await first.sync(alice, share.id, None, [session(title), text("prt_1", "haystack")])
        await indexed(first)
    await first.close()
    await put_back(store, yesterday)
    without_database = new_service()
    for title in ("2nd", "3rd"):
        await without_database.sync(alice, share.id, None, [session(title), text("prt_2", "needle")])
    await without_database.close()
    second = new_service(search=searching())
    await indexed(second)
    assert await listed(second, alice) == [(share.id, "3rd", 3)]
    assert await found(second, alice, "needle") == ["prt_2"]
    assert await found(second, alice, "haystack") == []


@pytest.mark.parametrize("is_made_again", [False, True])
async def test_a_row_that_a_node_writes_late_is_put_back(
    new_service, searching, location, store, alice, is_made_again
):
    service = new_service(search=searching())
    share = await shared(service, alice, session("first"))
    yesterday = contents(store)
    await service.sync(alice, share.id, None, [session("second")])
    await indexed(service)
    index = await open_index(location)
    late = (await index.seen([share.id]))[share.id].row
    assert late is not None
    await put_back(store, yesterday)
    await compared(service)
    assert await listed(service, alice) == [(share.id, "first", 1)]
    await index.catalogue.put([late])
    assert [each async for each in out_of_date(store, index)] == [share.id]
    if is_made_again:
        assert await index_anew(store, index) == (1, [])
    else:
        await compared(service)
    assert await listed(service, alice) == [(share.id, "first", 1)]
    assert [each async for each in out_of_date(store, index)] == []
    await index.database.close()


async def test_a_row_that_a_node_removes_late_is_put_back(new_service, searching, location, alice):
    service = new_service(search=searching())
    share = await shared(service, alice, session("first"))
    index = await open_index(location)
    await index.catalogue.put([], [share.id])
    assert await listed(service, alice) == []
    await compared(service)
    assert await listed(service, alice) == [(share.id, "first", 1)]
    await index.database.close()


async def test_a_row_that_others_write_while_a_share_is_read_is_kept(
    new_service, searching, location, alice, unresting
):
    service = new_service(search=searching())
    share = await shared(service, alice, session("first"))
    unresting()
    index = await open_index(location)
    seen = (await index.seen([share.id]))[share.id]
    assert seen.share is not None
    await service.sync(alice, share.id, None, [session("second")])
    await service._shares.listing._projection.rows.write()
    newer = (await index.seen([share.id]))[share.id].row
    assert newer is not None
    await index.put_all([Change(seen.share, iter(()), seen.share, row=seen.row, listed=seen.row)])
    assert (await index.seen([share.id]))[share.id].row == newer
    assert (await index.known([share.id]))[share.id].is_ahead
    await index.database.close()
