"""A store that fails while a share is deleted: the share is readable, or it is gone and will be removed."""

import asyncio
from collections.abc import Awaitable

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy
from support.share_stores import FailingStore, contents

SESSION = "ses_12345678"
CALLS = 40  # more than a deletion makes


def part(text):
    return {"type": "part", "data": {"id": "a", "text": text}}


class Fault:
    """Fails the calls of a deletion from number ``first`` on, ``times`` of them."""

    def __init__(self, first, times):
        self.first, self.times = first, times
        self.is_on = False
        self.calls = 0

    def __call__(self, _name, _arguments):
        self.calls += self.is_on
        return self.is_on and self.first <= self.calls < self.first + self.times


async def code_of(call: Awaitable[object]):
    """Return the code of the error of ``call``, or None."""
    (result,) = await asyncio.gather(call, return_exceptions=True)
    assert result is None or isinstance(result, ShareError | bytes)
    return result.code if isinstance(result, ShareError) else None


async def is_readable(service, alice, share_id):
    code = await code_of(service.agent_session(alice, share_id))
    assert code in (None, ErrorCode.SHARE_NOT_FOUND)
    return code is None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("times", [1, CALLS], ids=["once", "on and on"])
async def test_an_error_leaves_the_share_readable_and_a_success_leaves_nothing(
    new_service, alice, store, times, after
):
    outcomes = set()
    for first in range(1, CALLS):
        fault = Fault(first, times)
        service = new_service(FailingStore(fault, store, after=after))
        made = await service.create(alice, SESSION, [part("the content")])
        fault.is_on = True
        code = await code_of(service.delete(alice, made.id, None))
        assert code in (None, ErrorCode.STORAGE_UNAVAILABLE)
        has_succeeded = code is None
        fault.is_on = False
        is_there = await is_readable(new_service(store), alice, made.id)
        # A store that did what it was asked, and then tells nothing for long, leaves the one thing unknown.
        assert is_there is not has_succeeded or (after and times > 1)
        if has_succeeded:
            await new_service(store).remove_expired()
            assert not any(b"the content" in body for body in contents(store).values())
        elif is_there:
            await service.delete(alice, made.id, None)
        outcomes.add(has_succeeded)
        await service.close()
        if fault.calls < first:
            break
    else:
        pytest.fail("deleting makes more calls than were tried")
    assert outcomes == {False, True} or (times == 1 and outcomes == {True})


async def test_what_could_not_be_removed_is_removed_by_whoever_is_there_later(new_service, alice, store):
    def fails(name, _keys):
        return name == "delete"

    settings = LogSettings(compaction=CompactionPolicy(tail_entries=2))
    service = new_service(FailingStore(fails, store), settings=settings)
    made = await service.create(alice, SESSION, [part("the content")])
    await service.delete(alice, made.id, None)
    await service.close()
    assert any(b"the content" in body for body in contents(store).values())

    later = new_service(store)
    later.start_expiry()
    async with asyncio.timeout(20):
        while any(b"the content" in body for body in contents(store).values()):  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.01)
    assert not any(key.startswith("index/") for key in contents(store))


async def test_nothing_stays_scheduled_where_nothing_failed(new_service, alice, store):
    service = new_service(store)
    made = await service.create(alice, SESSION, [part("the content")])
    await service.delete(alice, made.id, None)
    assert not any(key.startswith("expiry/") for key in contents(store))


async def test_a_deletion_that_failed_for_good_removes_nothing_later(new_service, alice, store):
    is_full = False

    def fails(name, key):
        return is_full and name == "put" and "/log/" in key

    service = new_service(FailingStore(fails, store))
    made = await service.create(alice, SESSION, [part("the content")])
    is_full = True
    with pytest.raises(ShareError, match="Storage unavailable"):
        await service.delete(alice, made.id, None)
    is_full = False
    await new_service(store).remove_expired()
    assert await is_readable(new_service(store), alice, made.id)
