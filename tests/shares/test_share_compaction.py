import asyncio
import itertools
import json

import pytest

from rpcshare.broadcast import LocalBroadcaster
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.delayed_deletes import DelayedDeletes
from rpcshare.storage import StoreError
from support.items import part
from support.service_fixtures import has_deleted, using
from support.share_stores import FailingStore, GatedStore, RecordingStore, contents, until

AT_ONCE = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=0)
NEVER = CompactionPolicy(tail_size=2**40, tail_entries=2**40)


def settings(policy, **others):
    return LogSettings(compaction=policy, grace=0.0, **others)


def numbers(store, kind):
    return [int(key.rpartition("/")[2]) for key in sorted(contents(store)) if f"/{kind}/" in key]


async def settled(service, share_id):
    """Wait until nothing is being compacted or trimmed."""
    async with using(service, share_id) as log:
        await log._compactor.finish()
    await until(lambda: has_deleted(service))


async def parts_of(service, caller, share_id):
    merged = json.loads(await service.agent_session(caller, share_id))
    return [part["id"] for part in merged["parts"]]


async def test_a_snapshot_replaces_the_entries_before_it(new_service, store, alice):
    service = new_service(settings=settings(AT_ONCE))
    share = await service.create(alice, "ses_1", [part("a")])
    await settled(service, share.id)
    await service.sync(alice, share.id, None, [part("b")])
    await settled(service, share.id)
    assert (numbers(store, "log"), numbers(store, "snapshot")) == ([], [2])
    assert await parts_of(new_service(), alice, share.id) == ["a", "b"]


async def test_writing_goes_on_while_a_snapshot_is_made(new_service, store, alice):
    gated = GatedStore(lambda name, key: name == "put" and "/snapshot/" in key, store)
    service = new_service(gated, settings=settings(AT_ONCE))
    share = await service.create(alice, "ses_1", [part("a")])
    await gated.reached.wait()
    await service.sync(alice, share.id, None, [part("b")])
    gated.open()
    await settled(service, share.id)
    assert (numbers(store, "log"), numbers(store, "snapshot")) == ([2], [1])
    assert await parts_of(new_service(), alice, share.id) == ["a", "b"]


async def test_a_long_log_of_small_entries_is_compacted(new_service, store, alice):
    policy = CompactionPolicy(tail_entries=10)
    service = new_service(settings=settings(policy))
    share = await service.create(alice, "ses_1")
    for number in range(30):
        await service.sync(alice, share.id, None, [part(str(number))])
        await settled(service, share.id)
    assert numbers(store, "snapshot") == [22]
    assert len(numbers(store, "log")) == 8


@pytest.mark.parametrize("is_compressible", [True, False], ids=["compressible", "not compressible"])
async def test_half_as_much_is_written_for_snapshots_as_syncs_carry_at_most(
    new_service, alice, monkeypatch, is_compressible
):
    if not is_compressible:
        monkeypatch.setattr("rpcshare.shares.objects.pack", bytes)
    store = RecordingStore()
    service = new_service(store, settings=settings(CompactionPolicy(tail_size=20_000)))
    share = await service.create(alice, "ses_1")
    for number in range(1000):
        await service.sync(alice, share.id, None, [part(f"{number % 200}", f"{number:x}" * 300)])
        await settled(service, share.id)
    written = {"/log/": 0, "/snapshot/": 0}
    for key, size in store.puts:
        for kind in written:
            written[kind] += size if kind in key else 0
    assert 0 < written["/snapshot/"] <= 0.5 * sum(len(f"{number:x}" * 300) for number in range(1000))


async def test_a_share_that_only_grows_is_compacted_ever_more_rarely(new_service, store, alice):
    service = new_service(settings=settings(CompactionPolicy(tail_size=2_000)))
    share = await service.create(alice, "ses_1")
    snapshots = set()
    for number in range(1000):
        await service.sync(alice, share.id, None, [part(f"{number}", f"{number:x}" * 30)])
        await settled(service, share.id)
        snapshots |= set(numbers(store, "snapshot"))
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(snapshots))]
    assert len(gaps) > 3
    assert gaps[-1] > 100 > gaps[0]


async def test_no_snapshot_is_made_of_what_the_log_says_as_shortly(new_service, store, alice):
    service = new_service(settings=settings(CompactionPolicy(tail_size=20_000)))
    share = await service.create(alice, "ses_1", [part(f"{number}", "a word " * 50) for number in range(200)])
    await service.sync(
        alice, share.id, None, [part(f"{number}", "new words " * 50) for number in range(200, 300)]
    )
    await settled(service, share.id)
    assert (numbers(store, "log"), numbers(store, "snapshot")) == ([1, 2], [])
    # Once the log has what the share has no longer, one is.
    await service.sync(
        alice, share.id, None, [part(f"{number}", "other words " * 50) for number in range(200)]
    )
    await settled(service, share.id)
    assert (numbers(store, "log"), numbers(store, "snapshot")) == ([], [3])


async def test_too_many_entries_are_compacted_whatever_it_costs(new_service, store, alice):
    policy = CompactionPolicy(tail_size=0, tail_ratio=2**40, tail_entries=3)
    service = new_service(settings=settings(policy))
    share = await service.create(alice, "ses_1", [part("a")])
    for _ in range(40):
        await service.sync(alice, share.id, None, [part("a")])
        await settled(service, share.id)
    assert numbers(store, "snapshot") == [32]


async def test_entries_stay_for_the_grace_period(new_service, store, alice):
    service = new_service(settings=LogSettings(compaction=AT_ONCE, grace=3600.0))
    share = await service.create(alice, "ses_1", [part("a")])
    async with using(service, share.id) as log:
        await log._compactor.finish()
    assert (numbers(store, "log"), numbers(store, "snapshot")) == ([1], [1])


async def test_what_a_crash_left_is_deleted_after_the_next_opening(new_service, store, alice):
    first = new_service(settings=LogSettings(compaction=AT_ONCE, grace=3600.0))
    share = await first.create(alice, "ses_1", [part("a")])
    await first.close()
    second = new_service(settings=settings(NEVER))
    assert await parts_of(second, alice, share.id) == ["a"]
    await settled(second, share.id)
    assert (numbers(store, "log"), numbers(store, "snapshot")) == ([], [1])


async def test_a_closed_delayed_deletes_deletes_nothing_any_more():
    deleted = []

    async def delete():
        deleted.append(True)

    delayed_deletes = DelayedDeletes(grace=0.0)
    delayed_deletes.later("ses_1", delete)
    await delayed_deletes.close()
    await asyncio.sleep(0.01)
    assert deleted == []


async def test_a_deletion_that_fails_is_logged_and_others_go_on(caplog):
    deleted = asyncio.Event()

    async def fail():
        raise StoreError("out of reach")

    async def delete():
        deleted.set()

    delayed_deletes = DelayedDeletes(grace=0.0)
    delayed_deletes.later("ses_1", fail)
    delayed_deletes.later("ses_1", delete)
    await deleted.wait()
    await delayed_deletes.close()
    assert "out of reach" in caplog.text


@pytest.mark.parametrize(
    "policy", [CompactionPolicy(tail_entries=4), CompactionPolicy(tail_size=600, tail_ratio=0.0)]
)
async def test_a_snapshot_that_cannot_be_written_is_not_tried_at_every_sync(
    new_service, store, alice, caplog, policy
):
    tried = []

    def fails(name, key):
        is_snapshot = name == "put" and "/snapshot/" in key
        tried.extend([key] if is_snapshot else [])
        return is_snapshot

    service = new_service(FailingStore(fails, store), settings=settings(policy))
    share = await service.create(alice, "ses_1")
    for number in range(40):
        await service.sync(alice, share.id, None, [part(str(number))])
        await settled(service, share.id)
    assert len(tried) == 3  # with about 5, 11 and 23 entries
    assert "Could not write a snapshot" in caplog.text
    assert len(await parts_of(new_service(), alice, share.id)) == 40


async def test_a_reader_that_loses_the_race_with_a_deletion_reads_again(new_service, store, alice):
    writer = new_service(settings=settings(AT_ONCE))
    share = await writer.create(alice, "ses_1", [part("a")])
    await settled(writer, share.id)
    gated = GatedStore(lambda name, key: name == "get" and "/snapshot/" in key, store)
    reader = new_service(gated, LocalBroadcaster())
    reading = asyncio.create_task(parts_of(reader, alice, share.id))
    await gated.reached.wait()  # it has seen snapshot 1
    await writer.sync(alice, share.id, None, [part("b")])
    await settled(writer, share.id)
    assert numbers(store, "snapshot") == [2]
    gated.open()
    assert await reading == ["a", "b"]


async def test_a_reader_whose_entries_vanish_reads_again(new_service, store, alice):
    writer = new_service(settings=settings(CompactionPolicy(tail_entries=2)))
    share = await writer.create(alice, "ses_1", [part("a")])
    gated = GatedStore(lambda name, key: name == "scan" and "/log/" in key, store)
    reader = new_service(gated, LocalBroadcaster())
    reading = asyncio.create_task(parts_of(reader, alice, share.id))
    await gated.reached.wait()  # it has seen entry 1
    for name in "bc":
        await writer.sync(alice, share.id, None, [part(name)])
    await settled(writer, share.id)
    assert numbers(store, "log") == []
    gated.open()
    assert await reading == ["a", "b", "c"]


async def test_a_node_whose_entries_vanish_while_it_catches_up_reads_anew(new_service, store, alice):
    writer = new_service(settings=settings(CompactionPolicy(tail_entries=2)))
    share = await writer.create(alice, "ses_1", [part("a")])
    gated = GatedStore(lambda name, key: name == "scan", store)
    gated.is_armed = False
    reader = new_service(gated, LocalBroadcaster(), shared_store=True)
    assert await parts_of(reader, alice, share.id) == ["a"]
    gated.is_armed = True
    await writer.sync(alice, share.id, None, [part("b")])
    reading = asyncio.create_task(parts_of(reader, alice, share.id))
    await gated.reached.wait()  # it has seen entry 2
    await writer.sync(alice, share.id, None, [part("c")])
    await settled(writer, share.id)
    assert numbers(store, "log") == []
    gated.open()
    assert await reading == ["a", "b", "c"]


async def test_a_log_with_a_gap_is_not_served(new_service, store, alice):
    service = new_service(settings=settings(NEVER))
    share = await service.create(alice, "ses_1", [part("a")])
    for name in "bc":
        await service.sync(alice, share.id, None, [part(name)])
    await store.delete([key for key in contents(store) if key.endswith("/log/000000000002")])
    with pytest.raises(Exception, match="Storage unavailable"):
        await new_service().agent_session(alice, share.id)


@pytest.mark.parametrize("moment", ["after the deletion", "during the deletion"])
async def test_the_snapshot_of_a_share_deleted_meanwhile_does_not_stay(new_service, store, alice, moment):
    gated = GatedStore(lambda name, key: name == "put" and "/snapshot/" in key, store)
    slow = new_service(gated, settings=settings(AT_ONCE), shared_store=True)
    share = await slow.create(alice, "ses_1", [part("a")])
    await gated.reached.wait()
    deleting = GatedStore(lambda name, keys: name == "delete", store)
    other = new_service(deleting, LocalBroadcaster(), settings=settings(NEVER), shared_store=True)
    deletion = asyncio.create_task(other.delete(alice, share.id, None))
    await deleting.reached.wait()  # it knows what to delete, and does not know of the snapshot
    if moment == "after the deletion":
        deleting.open()
        await deletion
    gated.open()
    await slow.close()
    deleting.open()
    await deletion
    assert numbers(store, "snapshot") == []


async def test_a_deletion_waits_for_the_snapshot_that_is_being_written(new_service, store, alice):
    gated = GatedStore(lambda name, key: name == "put" and "/snapshot/" in key, store)
    service = new_service(gated, settings=settings(AT_ONCE))
    share = await service.create(alice, "ses_1", [part("a", "the content")])
    await gated.reached.wait()
    deletion = asyncio.create_task(service.delete(alice, share.id, None))
    done, _ = await asyncio.wait([deletion], timeout=0.05)
    assert not done
    gated.open()
    await deletion
    assert not any(b"the content" in body for body in contents(store).values())
