"""While an entry is being written: who waits for whom, and who for nobody."""

import asyncio

import pytest

from rpcshare.errors import ErrorCode, ShareError
from support.items import part
from support.service_fixtures import using
from support.share_stores import FailingStore, GatedStore


def is_log_put(name, arguments):
    return name == "put" and "/log/" in arguments


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_settings_of_a_share_change_only_behind_the_entry_that_is_being_written(
    new_service, store, alice
):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    sync = asyncio.create_task(service.sync(alice, share.id, None, [part("a")]))
    await gated.reached.wait()
    change = asyncio.create_task(service.update(alice, share.id, None, {"visibility": "private"}))
    await settled()
    assert not change.done()
    gated.open()
    assert await sync == 1
    assert (await change).visibility == "private"
    assert await service.sync(alice, share.id, None, [part("b")]) == 2


async def test_a_server_that_stops_finishes_what_is_being_written(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    syncs = [asyncio.create_task(service.sync(alice, share.id, None, [part("a")]))]
    await gated.reached.wait()
    syncs.append(asyncio.create_task(service.sync(alice, share.id, None, [part("b")])))
    await settled()
    closing = asyncio.create_task(service.close())
    await settled()
    assert not closing.done()
    gated.open()
    await closing
    assert await asyncio.gather(*syncs) == [1, 2]


async def test_a_caller_that_gives_up_takes_no_sync_back_and_holds_up_nobody(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    first = asyncio.create_task(service.sync(alice, share.id, None, [part("a")]))
    await gated.reached.wait()
    second = asyncio.create_task(service.sync(alice, share.id, None, [part("b")]))
    await settled()
    first.cancel()
    await settled()
    gated.open()
    assert await second == 2
    async with using(service, share.id) as log:
        assert set(log.state.content.parts) == {b'"a"', b'"b"'}
        assert not log.is_busy


async def test_what_fails_tells_its_own_callers_and_the_next_entry_is_written(new_service, store, alice):
    failing: list[bool] = []
    service = new_service(FailingStore(lambda *call: is_log_put(*call) and failing and failing.pop(), store))
    share = await service.create(alice, "ses_1")
    failing.append(True)
    first = asyncio.create_task(service.sync(alice, share.id, None, [part("a")]))
    await settled()
    with pytest.raises(ShareError) as caught:
        await first
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert await service.sync(alice, share.id, None, [part("b")]) == 1


async def test_an_entry_whose_number_is_taken_goes_behind_that(new_service, store, alice):
    service, other = new_service(), new_service()
    share = await service.create(alice, "ses_1", [part("a")])
    assert await other.sync(alice, share.id, None, [part("b")]) == 2
    syncs = [service.sync(alice, share.id, None, [part(str(number))]) for number in range(5)]
    assert await asyncio.gather(*syncs) == [3, 4, 5, 6, 7]
