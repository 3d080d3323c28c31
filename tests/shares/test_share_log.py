"""Writing to one share from one node: group commit, failures of the store, limits."""

import asyncio
import json

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import LogSettings
from rpcshare.storage import MemoryStore
from support.items import part
from support.plain_merge import PlainShare, assert_same
from support.service_fixtures import using
from support.share_stores import FailingStore, GatedStore, RecordingStore, contents


def diff(file):
    return {"type": "session_diff", "data": [{"file": file}]}


def is_log_put(name, arguments):
    return name == "put" and "/log/" in arguments


def log_entries(store):
    return [key for key in contents(store) if "/log/" in key]


async def parts_of(service, caller, share_id):
    merged = json.loads(await service.agent_session(caller, share_id))
    return [part["id"] for part in merged["parts"]]


async def test_syncs_that_arrive_during_a_write_go_into_one_entry(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    syncs = [asyncio.create_task(service.sync(alice, share.id, None, [part("0")]))]
    await gated.reached.wait()
    syncs += [
        asyncio.create_task(service.sync(alice, share.id, None, [part(str(number))]))
        for number in range(1, 20)
    ]
    await asyncio.sleep(0)
    gated.open()
    assert await asyncio.gather(*syncs) == list(range(1, 21))
    assert len(log_entries(store)) == 2


async def test_an_entry_is_bounded_in_syncs_and_in_bytes(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated, settings=LogSettings(entry_syncs=3, entry_size=1000))
    share = await service.create(alice, "ses_1")
    texts = ["", "", "", "", "x" * 600, "x" * 600, "x" * 5000, ""]
    syncs = [
        asyncio.create_task(service.sync(alice, share.id, None, [part(str(number), text)]))
        for number, text in enumerate(texts)
    ]
    await gated.reached.wait()
    gated.open()
    await asyncio.gather(*syncs)
    # 1, then at most 3 syncs or 1000 bytes, and a sync larger than that alone.
    assert len(log_entries(store)) == 5
    assert await parts_of(new_service(), alice, share.id) == [str(n) for n in range(8)]


async def test_nothing_is_seen_of_a_sync_before_it_is_durable(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    subscription = await service.subscribe(alice, share.id)
    await anext(subscription)
    event = asyncio.create_task(anext(subscription))
    sync = asyncio.create_task(service.sync(alice, share.id, None, [part("a")]))
    await gated.reached.wait()
    assert not event.done()
    assert not sync.done()
    assert await parts_of(service, alice, share.id) == []
    gated.open()
    assert await sync == 1
    assert (await event).sync_count == 1


async def test_a_cancelled_caller_does_not_disturb_the_others(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    first, second, third = (
        asyncio.create_task(service.sync(alice, share.id, None, [part(name)])) for name in "abc"
    )
    await gated.reached.wait()
    first.cancel()
    second.cancel()
    gated.open()
    assert await third == 3
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await parts_of(service, alice, share.id) == ["a", "b", "c"]


async def fails_once(new_service, alice, *, after):
    """Return a service, its share, and a function that lets the next write to the log fail."""
    failing: list[bool] = []

    def fails(name, arguments):
        return is_log_put(name, arguments) and bool(failing and failing.pop())

    service = new_service(FailingStore(fails, after=after, inner=MemoryStore()))
    share = await service.create(alice, "ses_1", [part("before"), diff("f")])
    return service, share, lambda: failing.append(True)


@pytest.mark.parametrize("after", [False, True], ids=["not written", "written"])
async def test_a_failed_write_is_told_to_its_callers_only(new_service, alice, after):
    service, share, fail = await fails_once(new_service, alice, after=after)
    fail()
    with pytest.raises(ShareError) as caught:
        await service.sync(alice, share.id, None, [part("lost"), diff("g")])
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert caught.value.retry_after
    count = await service.sync(alice, share.id, None, [part("next"), diff("g"), diff("f")])
    assert count == (3 if after else 2)


@pytest.mark.parametrize("after", [False, True], ids=["not written", "written"])
async def test_what_a_failed_write_left_is_applied_once_everywhere(new_service, alice, after):
    service, share, fail = await fails_once(new_service, alice, after=after)
    plain = PlainShare()
    plain.sync([part("before"), diff("f")])
    fail()
    with pytest.raises(ShareError):
        await service.sync(alice, share.id, None, [part("lost"), diff("g")])
    if after:
        plain.sync([part("lost"), diff("g")])
    await service.sync(alice, share.id, None, [part("next"), diff("g"), diff("f")])
    plain.sync([part("next"), diff("g"), diff("f")])
    assert_same(await service.agent_session(alice, share.id), plain)
    reopened = new_service(service._shares._store)
    assert_same(await reopened.agent_session(alice, share.id), plain)


async def test_after_a_failed_write_the_log_is_read_before_the_next(new_service, store, alice):
    failing: list[bool] = []
    recording = RecordingStore(store)
    service = new_service(FailingStore(lambda *call: failing and failing.pop(), recording))
    share = await service.create(alice, "ses_1", [part("a")])
    failing.append(True)
    recording.calls.clear()
    with pytest.raises(ShareError):
        await service.sync(alice, share.id, None, [part("b")])
    await service.sync(alice, share.id, None, [part("c")])
    assert [name for name, _ in recording.calls] == ["list", "put"]


async def test_the_store_is_not_asked_again_and_again_what_others_wrote(new_service, alice, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("rpcshare.shares.open_share.monotonic", lambda: now)
    store = RecordingStore()
    service = new_service(store)
    share = await service.create(alice, "ses_1", [part("a")])
    store.calls.clear()
    for _ in range(20):
        now += 15.0
        await service.sync(alice, share.id, None, [part("a")])
    assert [name for name, _ in store.calls] == ["put"] * 20
    now += 25.0
    await service.sync(alice, share.id, None, [part("a")])
    assert [name for name, _ in store.calls[20:]] == ["list", "put"]


class RetryingStore(FailingStore):
    """Writes, loses the answer, writes again, and so finds its own object in the way."""

    async def call(self, name, arguments, run):
        if self.fails(name, arguments):
            await run()
        return await run()


async def test_a_write_that_the_store_client_repeated_is_recognised(new_service, store, alice):
    service = new_service(RetryingStore(is_log_put, store))
    share = await service.create(alice, "ses_1")
    assert await service.sync(alice, share.id, None, [part("a"), diff("f")]) == 1
    assert await service.sync(alice, share.id, None, [part("b"), diff("f")]) == 2
    merged = json.loads(await new_service().agent_session(alice, share.id))
    assert (len(merged["diffs"]), merged["metadata"]["syncCount"]) == (2, 2)


async def test_a_deletion_that_the_store_client_repeated_is_recognised(new_service, store, alice):
    service = new_service(RetryingStore(is_log_put, store))
    share = await service.create(alice, "ses_1", [part("a")])
    await service.delete(alice, share.id, None)
    assert b"deleted" in contents(store)[f"share/{share.id}/head"]


async def test_a_store_that_is_down_fails_all_who_wait_and_then_works_again(new_service, store, alice):
    is_down = False
    service = new_service(FailingStore(lambda *_: is_down, store))
    share = await service.create(alice, "ses_1", [part("a")])
    is_down = True
    syncs = (service.sync(alice, share.id, None, [part(str(n))]) for n in range(10))
    for result in await asyncio.gather(*syncs, return_exceptions=True):
        assert isinstance(result, ShareError)
        assert result.code is ErrorCode.STORAGE_UNAVAILABLE
    is_down = False
    assert await service.sync(alice, share.id, None, [part("b")]) == 2
    assert await parts_of(new_service(), alice, share.id) == ["a", "b"]


async def test_a_share_that_cannot_be_read_is_unavailable_and_stays_as_it_is(new_service, store, alice):
    share = await new_service().create(alice, "ses_1", [part("a")])
    (entry,) = log_entries(store)
    await store.put(entry, b'{"v":2}')
    before = contents(store)
    service = new_service()
    with pytest.raises(ShareError) as caught:
        await service.sync(alice, share.id, None, [part("b")])
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
    assert contents(store) == before


async def test_a_fault_of_ours_leaves_nobody_waiting(new_service, alice, caplog, monkeypatch):
    service = new_service()
    share = await service.create(alice, "ses_1")
    async with using(service, share.id) as log:
        monkeypatch.setattr(log._journal, "append", None)
        with pytest.raises(ShareError) as caught:
            await service.sync(alice, share.id, None, [part("a")])
    assert caught.value.code is ErrorCode.INTERNAL
    assert "TypeError" in caplog.text


LIMIT = LogSettings(max_share_size=10_000)


async def test_a_share_cannot_grow_past_its_limit(new_service, store, alice):
    service = new_service(settings=LIMIT)
    share = await service.create(alice, "ses_1", [part("a", "x" * 6000)])
    before = contents(store)
    with pytest.raises(ShareError, match="10000") as caught:
        await service.sync(alice, share.id, None, [part("b", "x" * 6000)])
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert contents(store) == before


async def test_a_share_at_its_limit_can_be_replaced_and_shrunk(new_service, alice):
    service = new_service(settings=LIMIT)
    share = await service.create(alice, "ses_1", [part("a", "x" * 9000)])
    assert await service.sync(alice, share.id, None, [part("a", "y" * 9000)]) == 2
    assert await service.sync(alice, share.id, None, [part("a", "y")]) == 3
    assert await service.sync(alice, share.id, None, [part("b", "y" * 9000)]) == 4


async def test_syncs_of_one_entry_count_together_for_the_limit(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated, settings=LIMIT)
    share = await service.create(alice, "ses_1")
    syncs = [
        asyncio.create_task(service.sync(alice, share.id, None, [part(str(n), "x" * 4000)])) for n in range(5)
    ]
    await gated.reached.wait()
    gated.open()
    results = await asyncio.gather(*syncs, return_exceptions=True)
    assert [isinstance(result, int) for result in results] == [True, True, False, False, False]


async def test_a_batch_larger_than_a_share_makes_no_share(new_service, store, alice):
    service = new_service(settings=LIMIT)
    with pytest.raises(ShareError) as caught:
        await service.create(alice, "ses_1", [part("a", "x" * 10_001)])
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert contents(store) == {}


async def test_no_limit_is_no_limit(new_service, alice):
    service = new_service(settings=LogSettings(max_share_size=0))
    share = await service.create(alice, "ses_1", [part("a", "x" * 20_000)])
    assert await service.sync(alice, share.id, None, [part("b", "x" * 20_000)]) == 2


async def test_a_sync_writes_what_it_carries_however_large_the_share(new_service, alice):
    store = RecordingStore()
    service = new_service(store)
    share = await service.create(alice, "ses_1")
    await service.sync(alice, share.id, None, [part(f"prt_{number}", "x" * 100) for number in range(20_000)])
    async with using(service, share.id) as log:
        await log._compactor.finish()
    store.calls.clear()
    store.puts.clear()
    for number in range(100):
        await service.sync(alice, share.id, None, [part(f"prt_{number}", "y" * 100)])
    # A snapshot, and a row of the listing, may be written meanwhile: for many syncs, and not by them.
    assert sum("/log/" in key for key, _ in store.puts) == 100
    assert sum(size for key, size in store.puts if "/log/" in key) < 100 * 300


async def test_a_diff_sent_again_writes_only_a_number(new_service, alice):
    store = RecordingStore()
    service = new_service(store)
    large = {"type": "session_diff", "data": [{"file": f"{n}", "after": "x" * n} for n in range(99)]}
    share = await service.create(alice, "ses_1", [large])
    before = store.bytes_put
    await service.sync(alice, share.id, None, [large])
    assert store.bytes_put - before < 500


async def test_close_writes_what_waits(new_service, store, alice):
    gated = GatedStore(is_log_put, store)
    service = new_service(gated)
    share = await service.create(alice, "ses_1")
    syncs = [asyncio.create_task(service.sync(alice, share.id, None, [part(str(n))])) for n in range(3)]
    await gated.reached.wait()
    closing = asyncio.create_task(service.close())
    await asyncio.sleep(0)
    gated.open()
    await closing
    assert await asyncio.gather(*syncs) == [1, 2, 3]


async def test_who_comes_after_close_is_told_to_come_back(service, alice):
    share = await service.create(alice, "ses_1")
    await service.close()
    with pytest.raises(ShareError) as caught:
        await service.sync(alice, share.id, None, [])
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
