"""A process that dies at any call to the store leaves shares that are whole, or gone."""

import asyncio
import json
from collections.abc import Awaitable

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.storage import MemoryStore
from support.items import part
from support.plain_merge import PlainShare, assert_same
from support.service_fixtures import using
from support.share_stores import DyingStore, contents

COMPACTING = LogSettings(grace=0.0, compaction=CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=1))
CALLS = 40  # more than any of the operations makes
SESSION = "ses_12345678"


def diff(file):
    return {"type": "session_diff", "data": [{"file": file}]}


async def outcome(call: Awaitable[object]):
    """Return None if ``call`` succeeded, else the code of its error."""
    (result,) = await asyncio.gather(call, return_exceptions=True)
    if isinstance(result, ShareError):
        return result.code
    assert not isinstance(result, BaseException)
    return None


async def try_to(call):
    """Return whether ``call`` succeeded; nothing but the store may be the reason if not."""
    code = await outcome(call)
    assert code in (None, ErrorCode.STORAGE_UNAVAILABLE)
    return code is None


async def parts_of(service, caller, share_id):
    merged = json.loads(await service.agent_session(caller, share_id))
    return [part["id"] for part in merged["parts"]]


deaths = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


@deaths
async def test_creating(new_service, alice, bob, after):
    outcomes = set()
    for at in range(1, CALLS):
        store = MemoryStore()
        dying = DyingStore(store, at, after=after)
        first = new_service(dying)
        acknowledged = await try_to(first.create(alice, SESSION, [part("a")]))
        await first.close()

        service = new_service(store)
        left = [key for key in contents(store) if key.endswith("/head")]
        has_data = False
        if left:
            assert left == ["share/12345678/head"]
            has_data = await parts_of(service, bob, "12345678") == ["a"]
        assert has_data or not acknowledged
        made = await service.create(alice, SESSION, [part("a")])
        assert made.id == "12345678"
        assert await parts_of(service, alice, made.id) == ["a"]
        assert (await service.list_own(alice)).count == 1
        outcomes.add((bool(left), has_data, acknowledged))
        if not dying.has_died:
            break
    else:
        pytest.fail("creating makes more calls than were tried")
    assert {(False, False, False), (True, False, False), (True, True, True)} <= outcomes


@deaths
async def test_deleting(new_service, alice, after):
    for at in range(1, CALLS):
        store = MemoryStore()
        writer = new_service(store, settings=LogSettings(compaction=CompactionPolicy(tail_entries=2)))
        made = await writer.create(alice, SESSION, [part("a", "the content")])
        for name in "bcde":
            await writer.sync(alice, made.id, None, [part(name, "the content")])
        await writer.close()
        dying = DyingStore(store, at, after=after)
        first = new_service(dying)
        acknowledged = await try_to(first.delete(alice, made.id, None))
        await first.close()

        service = new_service(store)
        is_ended = any(b'"deleted":true' in body for body in contents(store).values())
        assert is_ended or not acknowledged
        if is_ended:
            await service.list_own(alice)
            with pytest.raises(ShareError, match="Share not found"):
                await service.agent_session(alice, made.id)
            assert not any(b"the content" in body for body in contents(store).values())
            assert (await service.list_own(alice)).count == 0
            await service.create(alice, SESSION, [part("new")])
            assert await parts_of(new_service(store), alice, made.id) == ["new"]
        else:
            assert await parts_of(service, alice, made.id) == list("abcde")
            assert (await service.list_own(alice)).count == 1
        if not dying.has_died:
            break
    else:
        pytest.fail("deleting makes more calls than were tried")


@deaths
async def test_a_deletion_that_was_interrupted_is_finished_by_asking_again(new_service, alice, after):
    for at in range(1, CALLS):
        store = MemoryStore()
        made = await new_service(store).create(alice, SESSION, [part("a", "the content")])
        dying = DyingStore(store, at, after=after)
        first = new_service(dying)
        acknowledged = await try_to(first.delete(alice, made.id, made.secret))
        await first.close()
        second = new_service(store)
        if not acknowledged:
            code = await outcome(second.delete(alice, made.id, made.secret))
            assert code in (None, ErrorCode.SHARE_NOT_FOUND)
        await second.remove_expired()
        assert not any(b"the content" in body for body in contents(store).values())
        assert not any(key.startswith("index/") for key in contents(store))
        if not dying.has_died:
            break
    else:
        pytest.fail("deleting makes more calls than were tried")


@deaths
async def test_making_a_share_anew_where_a_deletion_was_interrupted(new_service, alice, after):
    for at in range(1, CALLS):
        store = MemoryStore()
        made = await new_service(store).create(alice, SESSION, [part("old")])
        dying = DyingStore(store, at, after=after)
        first = new_service(dying)
        await try_to(first.delete(alice, made.id, None))
        await first.close()
        was_ended = any(b'"deleted":true' in body for body in contents(store).values())
        again = await new_service(store).create(alice, SESSION, [part("new")])
        assert again == made
        expected = ["new"] if was_ended else ["old", "new"]
        assert await parts_of(new_service(store), alice, made.id) == expected
        if not dying.has_died:
            break
    else:
        pytest.fail("deleting makes more calls than were tried")


@deaths
async def test_syncing_and_compacting(new_service, alice, after):
    batches = [[part(str(n % 3), str(n)), diff(str(n % 4)), diff(f"own {n}")] for n in range(8)]
    deaths = 0
    for at in range(1, 10 * CALLS):
        store = MemoryStore()
        made = await new_service(store).create(alice, SESSION)
        dying = DyingStore(store, at, after=after)
        first = new_service(dying, settings=COMPACTING)
        acknowledged = 0
        for batch in batches:
            if not await try_to(first.sync(alice, made.id, None, batch)):
                break
            acknowledged += 1
            async with using(first, made.id) as log:
                await log._compactor.finish()
        await first.close()

        service = new_service(store, settings=COMPACTING)
        found = (await service.metadata(alice, made.id)).sync_count
        assert found in (acknowledged, acknowledged + 1)
        plain = PlainShare()
        for batch in batches[:found]:
            plain.sync(batch)
        assert_same(await service.agent_session(alice, made.id), plain)
        await service.sync(alice, made.id, None, batches[0])
        plain.sync(batches[0])
        assert_same(await new_service(store).agent_session(alice, made.id), plain)
        deaths += dying.has_died
        if not dying.has_died:
            break
    assert deaths > 20
    assert not dying.has_died
