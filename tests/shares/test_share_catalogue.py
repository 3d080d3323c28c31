import asyncio

import pytest

from rpcshare.broadcast import LocalBroadcaster
from rpcshare.errors import ShareError
from rpcshare.shares.context import LogSettings
from support.share_stores import FailingStore, GatedStore


def session(title, directory="/home"):
    return [{"type": "session", "data": {"title": title, "directory": directory}}]


def titles(page):
    return [index.title for index in page.sessions]


async def pages(ask, **arguments):
    """Return all pages, one behind the other."""
    found, cursor = [], None
    while True:
        page = await ask(cursor=cursor, **arguments)
        found.append(titles(page))
        cursor = page.cursor
        if cursor is None:
            return found


async def test_the_newest_share_comes_first(service, alice):
    for n in range(3):
        await service.create(alice, f"ses_{n:08}", session(f"share {n}"))
    page = await service.list_own(alice)
    assert titles(page) == ["share 2", "share 1", "share 0"]
    assert (page.count, page.cursor) == (3, None)


async def test_shares_of_one_time_are_in_order_of_their_ids(new_service, alice):
    service = new_service(clock=lambda: 5)
    for n in (3, 1, 2):
        await service.create(alice, f"ses_{n:08}", session(str(n)))
    assert await pages(lambda **a: service.list_own(alice, **a), limit=1) == [["1"], ["2"], ["3"]]


async def test_callers_list_their_own_and_admins_all(service, alice, bob, admin):
    await service.create(alice, "ses_a0000000", session("of alice"))
    await service.create(bob, "ses_b0000000", session("of bob"))
    assert titles(await service.list_own(alice)) == ["of alice"]
    assert titles(await service.list_own(admin)) == []
    assert titles(await service.list_all(admin)) == ["of bob", "of alice"]


async def test_pages_follow_each_other_without_gap_or_repeat(service, alice):
    for n in range(7):
        await service.create(alice, f"ses_{n:08}", session(str(n)))
    found = await pages(lambda **a: service.list_own(alice, **a), limit=3)
    assert found == [["6", "5", "4"], ["3", "2", "1"], ["0"]]


async def test_a_full_last_page_has_no_cursor(service, alice):
    for n in range(4):
        await service.create(alice, f"ses_{n:08}", session(str(n)))
    found = await pages(lambda **a: service.list_own(alice, **a), limit=2)
    assert found == [["3", "2"], ["1", "0"]]


async def test_a_cursor_stays_good_when_its_share_is_deleted(service, alice):
    made = [await service.create(alice, f"ses_{n:08}", session(str(n))) for n in range(4)]
    page = await service.list_own(alice, limit=2)
    await service.delete(alice, made[2].id, None)
    assert titles(await service.list_own(alice, limit=2, cursor=page.cursor)) == ["1", "0"]


async def test_fifty_shares_are_a_page_unless_told_otherwise(service, alice):
    for n in range(51):
        await service.create(alice, f"ses_{n:08}")
    page = await service.list_own(alice)
    assert (len(page.sessions), page.count) == (50, 51)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["b", "a"]),
        ("ALPHA", ["a"]),
        ("straße", ["b"]),
        ("STRASSE", ["b"]),
        ("ses_beta", ["b"]),
        ("work", ["b", "a"]),
        ("alpha\n/work", []),
        ("nothing", []),
    ],
)
async def test_a_query_is_looked_for_in_all_texts_in_any_case(new_service, alice, query, found):
    service = new_service()
    await service.create(alice, "ses_alph0000", session("Alpha", "/Work/a"))
    await service.create(alice, "ses_beta0000", session("Straße", "/homework/b"))
    page = await service.list_own(alice, query=query)
    assert [index.directory[-1] for index in page.sessions] == found
    assert page.count == len(found)


async def test_a_listing_shows_a_sync_at_once(service, alice):
    made = await service.create(alice, "ses_1")
    await service.list_own(alice)
    await service.sync(alice, made.id, None, session("new"))
    assert titles(await service.list_own(alice)) == ["new"]


@pytest.fixture
def new_node(new_service):
    """Return a function that makes a node that hears nothing of others."""
    return lambda on=None: new_service(on, LocalBroadcaster(), shared_store=True)


async def test_nodes_list_what_others_make_change_and_delete(new_node, store, alice):
    first, second = new_node(), new_node()
    assert (await second.list_own(alice)).count == 0
    made = [await first.create(alice, f"ses_{n:08}") for n in range(3)]
    assert (await second.list_own(alice)).count == 3
    await first.sync(alice, made[0].id, None, session("changed"))
    assert titles(await second.list_own(alice)) == ["", "", "changed"]
    third = new_node()
    await third.delete(alice, made[1].id, None)
    assert (await second.list_own(alice)).count == 2


async def test_a_share_made_or_deleted_while_the_store_is_read_is_not_mistaken(new_node, store, alice):
    gated = GatedStore(lambda name, key: name == "list" and key == "share/", store, after=True)
    service = new_node(gated)
    old = await service.create(alice, "ses_old00000")
    listing = asyncio.create_task(service.list_own(alice))
    await gated.reached.wait()
    await service.create(alice, "ses_new00000")
    await service.delete(alice, old.id, None)
    gated.open()
    assert [index.id for index in (await listing).sessions] == ["new00000"]


async def test_a_share_that_another_node_makes_anew_is_not_listed_as_it_was(new_node, alice):
    first, second = new_node(), new_node()
    made = await first.create(alice, "ses_1", session("old"))
    assert titles(await first.list_own(alice)) == ["old"]
    await second.delete(alice, made.id, None)
    await second.create(alice, "ses_1", session("new"))
    await second.close()
    assert titles(await first.list_own(alice)) == ["new"]


async def test_a_listing_while_the_store_is_down_says_so(new_service, store, alice):
    service = new_service(FailingStore(lambda *_: True, store), settings=LogSettings())
    with pytest.raises(ShareError, match="Storage unavailable"):
        await service.list_own(alice)


async def test_a_listing_by_change_has_those_first_that_changed_last(service, alice):
    made = [await service.create(alice, f"ses_{name * 8}") for name in "abcd"]
    for share in (made[2], made[0]):
        await service.sync(alice, share.id, share.secret, [])
    first = await service.list_rows(alice, by_change=True, limit=3)
    rest = await service.list_rows(alice, by_change=True, limit=3, cursor=first.cursor_of(first.rows[-1]))
    assert [row.index.id[0] for row in (*first.rows, *rest.rows)] == ["a", "c", "d", "b"]
    assert (first.has_more, rest.has_more) == (True, False)
