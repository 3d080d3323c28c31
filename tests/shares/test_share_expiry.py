"""Shares whose time is over: what they answer, and that their data goes."""

import asyncio
import json

import pytest

from rpcshare.broadcast import LocalBroadcaster
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.context import wall_clock
from support.items import part
from support.share_stores import FailingStore, contents

SESSION = "ses_e07c577c9ffeM4JP4I9eiXoPTK"
GONE = (ErrorCode.SHARE_GONE, "Share expired")


class Clock:
    """The time in milliseconds, which stands still until it is moved."""

    def __init__(self):
        self.now = 1_700_000_000_000

    def __call__(self):
        return self.now

    def move(self, seconds):
        self.now += round(seconds * 1000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def service(new_service, clock):
    return new_service(clock=clock)


@pytest.fixture
def new_node(new_service, clock):
    """Return a function that makes a node of several, which hears nothing of the others."""
    return lambda: new_service(hearing=LocalBroadcaster(), shared_store=True, clock=clock)


async def refused(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code, caught.value.message


def operations(service, caller, share, secret):
    """Return every operation on a share, for any of its callers."""
    return {
        "sync": service.sync(caller, share, secret, [part("late")]),
        "delete": service.delete(caller, share, secret),
        "check_write": service.check_write(caller, share, secret),
        "update": service.update(caller, share, secret, {"expiresIn": None}),
        "create_view_token": service.create_view_token(caller, share, secret),
        "unlock": service.unlock(caller, share, "password"),
        "agent_session": service.agent_session(caller, share),
        "sync_data": service.sync_data(caller, share),
        "metadata": service.metadata(caller, share),
        "subscribe": service.subscribe(caller, share),
    }


@pytest.mark.parametrize("is_removed", [False, True], ids=["just now", "and is removed"])
async def test_whatever_is_asked_of_a_share_that_has_expired_it_is_gone(
    service, clock, alice, bob, admin, anonymous, is_removed
):
    share = await service.create(alice, SESSION, [part("a")], {"expiresIn": 60})
    clock.move(60)
    if is_removed:
        await service.remove_expired()
    for caller in (alice, bob, admin, anonymous):
        for secret in (share.secret, "wrong", None):
            for name, call in operations(service, caller, share.id, secret).items():
                assert (name, await refused(call)) == (name, GONE)


async def test_a_moment_before_it_is_all_there(service, clock, alice, anonymous):
    share = await service.create(alice, SESSION, [part("a")], {"expiresIn": 60})
    clock.move(59.999)
    await service.remove_expired()
    assert (await service.metadata(anonymous, share.id)).part_count == 1


async def test_it_stays_gone_over_a_restart(new_service, clock, alice, anonymous):
    first = new_service(clock=clock)
    share = await first.create(alice, SESSION, [part("a")], {"expiresIn": 60})
    clock.move(60)
    assert await refused(new_service(clock=clock).metadata(anonymous, share.id)) == GONE
    await first.remove_expired()
    assert await refused(new_service(clock=clock).metadata(anonymous, share.id)) == GONE


async def test_nothing_of_its_content_is_left(service, store, clock, alice):
    share = await service.create(alice, SESSION, [part("a", text="the content")], {"expiresIn": 60})
    await service.sync(alice, share.id, None, [{"type": "session", "data": {"title": "the content"}}])
    clock.move(61)
    await service.remove_expired()
    kept = contents(store)
    assert not any(b"the content" in body for body in kept.values())
    assert not any(key.startswith(("index/", "expiry/")) for key in kept)
    assert json.loads(kept[f"share/{share.id}/head"])["expired"] is True


async def test_it_is_in_no_listing_whether_it_is_removed_or_not(service, clock, alice, admin):
    await service.create(alice, SESSION, None, {"expiresIn": 60})
    kept = await service.create(alice, "ses_that_stays_0001")
    clock.move(60)
    for _ in range(2):
        for page in (await service.list_own(alice), await service.list_all(admin)):
            assert [session.id for session in page.sessions] == [kept.id]
            assert page.count == 1
        await service.remove_expired()


async def test_subscribers_get_the_end_of_it_as_of_any_share(service, clock, alice, anonymous):
    share = await service.create(alice, SESSION, None, {"expiresIn": 60})
    subscription = await service.subscribe(anonymous, share.id, 0)
    clock.move(60)
    await service.remove_expired()
    assert [event.type async for event in subscription] == ["deleted"]


@pytest.mark.parametrize("is_removed", [False, True], ids=["not removed", "removed"])
async def test_its_owner_can_share_the_session_again(service, clock, alice, anonymous, is_removed):
    first = await service.create(alice, SESSION, [part("old")], {"expiresIn": 60})
    clock.move(60)
    if is_removed:
        await service.remove_expired()
    assert await service.create(alice, SESSION, [part("new")]) == first
    merged = json.loads(await service.agent_session(anonymous, first.id))
    assert [each["id"] for each in merged["parts"]] == ["new"]
    clock.move(1000)
    await service.remove_expired()
    assert (await service.metadata(anonymous, first.id)).sync_count == 1


async def test_a_deleted_share_is_not_found_after_its_time_as_before(service, clock, alice):
    share = await service.create(alice, SESSION, None, {"expiresIn": 60})
    await service.delete(alice, share.id, None)
    clock.move(60)
    await service.remove_expired()
    assert (await refused(service.metadata(alice, share.id)))[0] is ErrorCode.SHARE_NOT_FOUND


@pytest.mark.parametrize("expires_in", ["2h", None])
async def test_the_end_can_be_put_off(new_service, clock, alice, expires_in):
    service = new_service(clock=clock)
    share = await service.create(alice, SESSION, None, {"expiresIn": "1h"})
    await service.update(alice, share.id, None, {"expiresIn": expires_in})
    clock.move(3600)
    await service.remove_expired()
    assert (await service.metadata(alice, share.id)).id == share.id
    clock.move(3600)
    await service.remove_expired()
    if expires_in is None:
        assert (await new_service(clock=clock).metadata(alice, share.id)).id == share.id
    else:
        assert await refused(service.metadata(alice, share.id)) == GONE


async def test_the_end_can_be_put_off_on_another_node(new_node, clock, alice):
    node, other = new_node(), new_node()
    share = await node.create(alice, SESSION, None, {"expiresIn": "1h"})
    await other.update(alice, share.id, None, {"expiresIn": "2h"})
    clock.move(3600)
    await node.remove_expired()
    assert await node.sync(alice, share.id, None, []) == 1
    assert [session.id for session in (await node.list_own(alice)).sessions] == [share.id]
    clock.move(3600)
    for one in (node, other):
        assert await refused(one.sync(alice, share.id, None, [])) == GONE
        assert (await one.list_own(alice)).count == 0


async def test_nodes_that_remove_it_at_once_do_not_disturb_each_other(new_node, store, clock, alice):
    nodes = [new_node() for _ in range(3)]
    shares = [
        (await nodes[0].create(alice, f"ses_{n:08}", [part("a", text="content")], {"expiresIn": 60})).id
        for n in range(5)
    ]
    for node in nodes:
        for share in shares:
            await node.metadata(alice, share)
    clock.move(60)
    await asyncio.gather(*(node.remove_expired() for node in nodes))
    for node in nodes:
        for share in shares:
            assert await refused(node.metadata(alice, share)) == GONE
    assert not any(b"content" in body for body in contents(store).values())


async def test_a_node_that_has_the_share_open_says_gone_once_another_has_removed_it(new_node, clock, alice):
    node, other = new_node(), new_node()
    share = await node.create(alice, SESSION, [part("a")])
    await other.metadata(alice, share.id)
    await node.update(alice, share.id, None, {"expiresIn": 60})
    clock.move(60)
    await node.remove_expired()
    for call in operations(other, alice, share.id, share.secret).values():
        assert await refused(call) == GONE


async def test_a_removal_that_failed_is_done_later(new_service, store, clock, alice):
    failing = True
    broken = FailingStore(lambda name, _key: failing and name == "delete", store)
    service = new_service(broken, clock=clock)
    share = await service.create(alice, SESSION, [part("a", text="content")], {"expiresIn": 60})
    clock.move(60)
    await service.remove_expired()
    failing = False
    after = new_service(clock=clock)
    await after.remove_expired()
    assert not any(b"content" in body for body in contents(store).values())
    assert await refused(after.metadata(alice, share.id)) == GONE


async def test_what_was_due_while_no_server_ran_is_removed_soon_after_the_next_start(
    new_service, store, clock, alice
):
    first = new_service(clock=clock)
    await first.create(alice, SESSION, [part("a", text="content")], {"expiresIn": 60})
    await first.close()
    clock.move(86_400)
    after = new_service(clock=clock)
    after.start_expiry()
    async with asyncio.timeout(5):
        while any(b"content" in body for body in contents(store).values()):  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.01)


async def test_it_happens_by_itself(new_service, store, alice, anonymous):
    service = new_service(clock=wall_clock)
    share = await service.create(alice, SESSION, [part("a", text="content")])
    subscription = await service.subscribe(anonymous, share.id, 1)
    await service.update(alice, share.id, None, {"expiresIn": 1})
    async with asyncio.timeout(5):
        assert [event.type async for event in subscription] == ["deleted"]
        assert await refused(service.metadata(anonymous, share.id)) == GONE
        while any(b"content" in body for body in contents(store).values()):  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.01)
