"""What ``rpcshare doctor`` finds wrong, what it puts right, and what it leaves alone."""

import json
from contextlib import suppress

import pytest

from rpcshare import jsontext
from rpcshare.errors import ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.findings import Problem
from rpcshare.shares import LogSettings, objects
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.objects import IndexRow
from rpcshare.shares.state import ShareState
from rpcshare.storage import MemoryStore, StoredObject, StoreError
from support.items import part
from support.older_shares import SECRET, older_share, put_older
from support.service_fixtures import using
from support.share_stores import DyingStore, FailingStore, contents

DELETED = b'{"v":1,"generation":"0123456789abcdef","deleted":true}'


async def examined(store, *, fix=False):
    return await examine(store, fix=fix, grace=0.0, patience=0.0)


def problems(report):
    return [finding.problem for finding in report.findings]


def only_key(store, fragment):
    (key,) = [key for key in contents(store) if fragment in key]
    return key


@pytest.fixture
async def share(new_service, alice):
    """Return the credentials of a share with three entries in its log."""
    service = new_service()
    made = await service.create(alice, "ses_12345678", [part("a")])
    for name in "bc":
        await service.sync(alice, made.id, None, [part(name)])
    await service.close()
    return made


@pytest.fixture
def compacting():
    policy = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=0)
    return LogSettings(compaction=policy, grace=3600.0)


async def compact(service, share_id):
    async with using(service, share_id) as log:
        await log._compactor.finish()


async def test_an_empty_store_is_well(store):
    report = await examined(store)
    assert (report.shares, report.findings, report.is_well) == (0, [], True)


async def test_shares_that_servers_have_written_are_well(store, new_service, compacting, share, alice):
    service = new_service(settings=compacting)
    for number in range(5):
        await service.create(alice, f"ses_another_{number:08d}", [part("a")])
        await service.sync(alice, f"{number:08d}", None, [part("b")])
        await compact(service, f"{number:08d}")
    await service.delete(alice, "00000000", None)
    await service.close()
    report = await examined(store)
    assert (report.shares, report.findings) == (5, [])


async def test_what_servers_will_remove_is_counted_and_is_no_problem(store, new_service, compacting, alice):
    service = new_service(settings=compacting)
    made = await service.create(alice, "ses_12345678", [part("a")])
    await compact(service, made.id)
    await service.sync(alice, made.id, None, [part("b")])
    await compact(service, made.id)
    await service.close()
    report = await examined(store)
    assert (report.superfluous, report.is_well) == (3, True)  # two entries and a snapshot
    await examined(store, fix=True)
    assert (await examined(store)).superfluous == 0
    assert len(json.loads(await new_service().agent_session(alice, made.id))["parts"]) == 2


async def test_looking_changes_nothing(store, share):
    await store.put("share/unknown1/0123456789abcdef/log/000000000001", b"?")
    before = contents(store)
    assert not (await examined(store)).is_well
    assert contents(store) == before


# Indexes


async def test_the_row_of_a_former_version_for_a_share_that_is_not_there_is_removed(store, share):
    body = objects.encode_index(IndexRow(1, "0" * 16, None, ShareState("id", "ses_1", 5).index()))
    await store.put("index/12345678/0000000000000000", body)
    await store.put("index/87654321/0000000000000000", body)
    report = await examined(store)
    assert problems(report) == [Problem.LEFTOVER] * 2
    assert (await examined(store, fix=True)).is_well
    assert not [key for key in contents(store) if key.startswith("index/")]


# Damage


def log_key(store, number):
    return only_key(store, f"/log/{number:012d}")


async def test_a_gap_in_a_log_is_named_and_left_alone(store, share):
    await store.delete([log_key(store, 2)])
    before = contents(store)
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.DAMAGED]
    assert report.findings[0].detail == "entry 2 of the log is missing"
    assert contents(store) == before


async def test_an_entry_that_cannot_be_read_is_named(store, share):
    key = log_key(store, 3)
    await store.put(key, b"\x28\xb5\x2f\xfdnot zstd")
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.DAMAGED]
    assert report.findings[0].detail.startswith(f"{key}: the store holds an object that cannot be dec")


async def test_a_snapshot_that_cannot_be_read_is_named(store, new_service, compacting, alice):
    service = new_service(settings=compacting)
    made = await service.create(alice, "ses_12345678", [part("a")])
    await compact(service, made.id)
    await service.close()
    key = only_key(store, "/snapshot/")
    await store.put(key, b"{}")
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.DAMAGED]
    assert report.findings[0].detail.startswith(key)
    assert log_key(store, 1)  # the last that is left of it


@pytest.mark.parametrize("body", [b"", b"{}", b'{"v":2,"generation":"00"}'])
async def test_a_head_that_cannot_be_read_is_told_of_and_nothing_is_touched(store, share, body):
    await store.put("share/12345678/head", body)
    before = contents(store)
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.DAMAGED]
    assert contents(store) == before


async def test_a_log_without_a_head_is_told_of_and_not_touched(store, share):
    await store.delete(["share/12345678/head"])
    before = contents(store)
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.DAMAGED]
    assert contents(store) == before


async def test_a_damaged_share_does_not_hide_the_others(store, share, service, alice):
    await service.create(alice, "ses_another_00000000", [part("a")])
    await service.close()
    await store.delete([log_key(store, 2)])
    report = await examined(store)
    assert report.shares == 1
    assert len(report.findings) == 1


async def test_a_store_that_fails_is_no_damage(store, share):
    failing = FailingStore(lambda name, key: name != "list", store)
    with pytest.raises(StoreError):
        await examined(failing)


async def test_a_read_that_fails_once_is_no_damage(store, share):
    failures = iter([True])
    failing = FailingStore(lambda name, key: name == "get" and next(failures, False), store)
    assert (await examined(failing)).is_well


async def test_keys_that_mean_nothing_are_told_of_and_not_touched(store, share):
    keys = [
        "share/12345678/0123456789abcdef/log/1",
        "share/12345678/notes",
        "share/old.json",
        "share/a b/head",
        "index/a/b/c",
    ]
    for key in keys:
        await store.put(key, b"?")
    report = await examined(store, fix=True)
    assert sorted(finding.place for finding in report.findings) == sorted(keys)
    assert set(problems(report)) == {Problem.UNKNOWN}
    assert set(keys) <= contents(store).keys()


async def test_objects_of_others_are_not_looked_at(store):
    await store.put("keys/rsk_1", b"?")
    report = await examined(store, fix=True)
    assert report.is_well
    assert list(contents(store)) == ["keys/rsk_1"]


async def test_a_session_object_that_cannot_be_read_is_told_of(store, share):
    await store.put("session/ses_2", b"?")
    report = await examined(store, fix=True)
    assert [finding.place for finding in report.findings] == ["session/ses_2"]


# What is left of what is gone


async def test_what_is_left_of_a_former_generation_is_removed(store, share, new_service, alice):
    before = contents(store)
    await new_service().delete(alice, share.id, None)
    service = new_service()
    await service.create(alice, "ses_12345678", [part("new")])
    await service.close()
    for key, body in before.items():
        if "/log/" in key:
            await store.put(key, body)
    report = await examined(store)
    assert problems(report) == [Problem.LEFTOVER]
    assert (await examined(store, fix=True)).is_well
    assert (await examined(store)).findings == []
    assert not before.keys() & contents(store).keys() - {"share/12345678/head", "session/ses_12345678"}
    assert b"new" in await new_service().agent_session(alice, share.id)


async def test_what_is_left_of_a_deleted_share_is_removed(store, share):
    before = contents(store)
    await store.put("share/12345678/head", DELETED)
    await store.put("share/12345678", b'{"session":{}}')
    report = await examined(store, fix=True)
    assert set(problems(report)) == {Problem.LEFTOVER}
    assert report.is_well
    assert contents(store).keys() == {"share/12345678/head", "session/ses_12345678"} & before.keys()


async def test_the_tombstone_of_a_deleted_share_is_no_problem(store, share, new_service, alice):
    await new_service().delete(alice, share.id, None)
    report = await examined(store)
    assert (report.findings, report.superfluous) == ([], 1)
    await examined(store, fix=True)
    assert not any("/log/" in key for key in contents(store))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_deletions_that_were_interrupted_are_finished(new_service, alice, after):
    found = set()
    for at in range(1, 30):
        store = MemoryStore()
        service = new_service(store)
        made = await service.create(alice, "ses_12345678", [part("a", "the content")])
        await service.close()
        dying = DyingStore(store, at, after=after)
        with suppress(ShareError):
            await new_service(dying).delete(alice, made.id, None)
        is_ended = any(b'"deleted":true' in body for body in contents(store).values())
        report = await examined(store, fix=True)
        assert report.is_well
        found |= set(problems(report))
        assert (await examined(store)).findings == []
        assert is_ended != any(b"the content" in body for body in contents(store).values())
    assert Problem.UNFINISHED in found


async def test_a_share_that_is_restored_meanwhile_is_not_removed(store, share):
    """Its head is written last, when the rest of it has already been seen."""
    head = contents(store)["share/12345678/head"]
    await store.put("share/12345678/head", DELETED)
    content = contents(store).keys()

    class Restoring(FailingStore):
        async def delete(self, keys):
            raise AssertionError("something was deleted")

    looks = 0

    def after_the_looks(name, key):
        nonlocal looks
        looks += name == "get" and key == "share/12345678/head"
        if looks == 3:
            store._objects[key] = StoredObject(key, head, "restored")
        return False

    report = await examined(Restoring(after_the_looks, store), fix=True)
    assert problems(report) == [Problem.LEFTOVER]
    assert not report.is_well
    assert contents(store).keys() == content


async def test_nothing_is_removed_before_the_grace_period_is_over(store, share, new_service, alice):
    await new_service().delete(alice, share.id, None)
    waits = []

    def on_wait(seconds):
        waits.append((seconds, len(contents(store))))

    before = len(contents(store))
    await examine(store, fix=True, grace=0.2, patience=0.0, on_wait=on_wait)
    ((seconds, seen),) = waits
    assert 0 < seconds <= 0.2
    assert seen == before
    assert len(contents(store)) == before - 1


# The older layout


async def test_shares_in_the_older_layout_are_well(store):
    await put_older(store)
    report = await examined(store)
    assert (report.shares, report.older, report.findings) == (1, 1, [])


async def test_what_no_share_can_hold_is_named(store):
    await put_older(store, share=older_share(messages=[{"role": "nobody"}]))
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.UNKNOWN]
    assert "messages[0].id" in report.findings[0].detail


async def test_what_is_no_share_is_named(store):
    await store.put("share/12345678", b"?")
    report = await examined(store, fix=True)
    assert problems(report) == [Problem.DAMAGED]
    assert contents(store) == {"share/12345678": b"?"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_upgrades_that_were_interrupted_are_well_or_finished(new_service, bob, after):
    for at in range(1, 30):
        store = MemoryStore()
        await put_older(store)
        dying = DyingStore(store, at, after=after)
        with suppress(ShareError):
            await new_service(dying).sync(bob, "12345678", SECRET, [])
        assert (await examined(store, fix=True)).is_well
        assert (await examined(store)).findings == []
        merged = jsontext.decode(await new_service(store).agent_session(bob, "12345678"))
        assert merged["messages"] == older_share()["messages"]
