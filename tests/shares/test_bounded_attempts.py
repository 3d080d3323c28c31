"""Stores that refuse writes for ever: nobody tries for ever, and the caller is told."""

import asyncio

import pytest

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import objects
from rpcshare.storage import PreconditionFailedError, StoreError
from support.share_stores import RecordingStore, WrappedStore, until

SESSION = "ses_12345678"


class NeverMatchingStore(WrappedStore):
    """Gives etags that match nothing, as where they are weak."""

    async def put(self, key, body, *, if_absent=False, if_match=None):
        if if_match is not None:
            await asyncio.sleep(0)
            raise PreconditionFailedError
        return await super().put(key, body, if_absent=if_absent)


class NeverFreeStore(WrappedStore):
    """Says of keys that begin with ``prefix`` that there is an object."""

    def __init__(self, prefix, inner=None):
        super().__init__(inner)
        self.prefix = prefix

    async def put(self, key, body, *, if_absent=False, if_match=None):
        if if_absent and key.startswith(self.prefix):
            await asyncio.sleep(0)
            raise PreconditionFailedError
        return await super().put(key, body, if_absent=if_absent, if_match=if_match)


class RivalStore(WrappedStore):
    """Another node is first with each entry of a log."""

    def __init__(self, inner=None):
        super().__init__(inner)
        self.rivals = 0

    async def put(self, key, body, *, if_absent=False, if_match=None):
        if "/log/" in key:
            self.rivals += 1
            await asyncio.sleep(0)
            await self.inner.put(key, bytes(objects.encode_entry(f"rival{self.rivals}", [], {})))
            raise PreconditionFailedError
        return await super().put(key, body, if_absent=if_absent, if_match=if_match)


async def refusal(call):
    with pytest.raises(ShareError) as caught:
        async with asyncio.timeout(20):
            await call
    return caught.value.code


async def test_a_key_that_cannot_be_replaced_is_not_revoked_for_ever():
    keys = ApiKeys(NeverMatchingStore())
    made = await keys.create("laptop")
    with pytest.raises(StoreError, match="cannot be replaced"):
        await keys.revoke(made.kept.id)


async def test_a_store_that_says_of_each_id_that_it_is_taken_makes_no_key():
    with pytest.raises(StoreError, match="no API key can be made"):
        await ApiKeys(NeverFreeStore("auth/")).create("laptop")


async def test_a_head_that_cannot_be_replaced_is_told_of(new_service, alice):
    store = RecordingStore(NeverMatchingStore())
    service = new_service(store)
    share = await service.create(alice, SESSION)
    call = service.update(alice, share.id, None, {"visibility": "private"})
    assert await refusal(call) is ErrorCode.STORAGE_UNAVAILABLE
    assert len(store.calls) < 100


async def test_a_share_whose_head_cannot_be_replaced_is_deleted_and_its_removal_told_of(
    new_service, alice, caplog
):
    store = RecordingStore(NeverMatchingStore())
    service = new_service(store)
    share = await service.create(alice, SESSION)
    await service.delete(alice, share.id, None)
    assert len(store.calls) < 100
    assert "Could not remove all of share" in caplog.text


async def test_a_store_that_says_of_each_entry_that_it_is_taken_fails_the_sync(new_service, alice, store):
    share = await new_service(store).create(alice, SESSION)
    service = new_service(NeverFreeStore("share/", store))
    assert await refusal(service.sync(alice, share.id, None, [])) is ErrorCode.STORAGE_UNAVAILABLE


@pytest.mark.parametrize("operation", ["sync", "delete"])
async def test_a_writer_that_is_never_first_gives_up(new_service, alice, store, operation):
    share = await new_service(store).create(alice, SESSION)
    rivals = RivalStore(store)
    service = new_service(rivals)
    call = (
        service.sync(alice, share.id, None, [])
        if operation == "sync"
        else service.delete(alice, share.id, None)
    )
    assert await refusal(call) is ErrorCode.STORAGE_UNAVAILABLE
    assert 10 < rivals.rivals <= 200


async def test_a_writer_that_is_never_first_stops_when_its_caller_has_gone(new_service, alice, store):
    share = await new_service(store).create(alice, SESSION)
    rivals = RivalStore(store)
    service = new_service(rivals)
    call = asyncio.create_task(service.sync(alice, share.id, None, []))
    await until(lambda: rivals.rivals >= 3)
    call.cancel()
    await asyncio.wait([call])
    await service.close()  # which waits for what writes
    assert rivals.rivals < 10
