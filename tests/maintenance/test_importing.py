"""Bringing in the shares of an older deployment: all that can be, and a word on all that cannot."""

import pytest

from rpcshare import jsontext
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.importing import Imported, import_bucket
from rpcshare.storage import MemoryStore, StoreError
from support.older_shares import SECRET, older_share, put_older
from support.share_stores import DyingStore, contents

IDS = ["00000000", "11111111", "22222222"]


@pytest.fixture
async def bucket():
    store = MemoryStore()
    for share_id in IDS:
        await put_older(store, share_id, older_share(f"ses_{share_id}"))
    return store


@pytest.fixture(params=["another store", "in place"])
def target(request, store, bucket):
    return bucket if request.param == "in place" else store


async def test_every_share_is_there_with_its_content_and_its_secret(bucket, target, new_service, bob):
    assert await import_bucket(bucket, target) == Imported(imported=3)
    service = new_service(target)
    for share_id in IDS:
        merged = jsontext.decode(await service.agent_session(bob, share_id))
        expected = older_share(f"ses_{share_id}")
        assert {name: merged[name] for name in merged if name != "metadata"} == {
            name: expected[name] for name in expected if name != "metadata"
        }
        assert await service.sync(bob, share_id, SECRET, []) == 8


async def test_every_share_is_listed(bucket, target, new_service, admin):
    await import_bucket(bucket, target)
    page = await new_service(target).list_all(admin)
    assert sorted(index.id for index in page.sessions) == IDS
    assert {index.part_count for index in page.sessions} == {1}


async def test_the_store_is_well_and_holds_no_secret(bucket, target):
    await import_bucket(bucket, target)
    report = await examine(target, patience=0.0)
    assert (report.shares, report.older, report.findings) == (3, 0, [])
    assert not any(SECRET.encode() in body for body in contents(target).values())


async def test_another_bucket_is_left_as_it_is(bucket, store):
    before = contents(bucket)
    await import_bucket(bucket, store)
    assert contents(bucket) == before


async def test_doing_it_again_changes_nothing(bucket, target, new_service, bob):
    await import_bucket(bucket, target)
    service = new_service(target)
    await service.sync(bob, IDS[0], SECRET, [{"type": "part", "data": {"id": "new"}}])
    await service.close()
    before = contents(target)
    again = await import_bucket(bucket, target)
    assert (again.imported, again.skipped) == (0, [])
    assert again.unchanged == (0 if bucket is target else 3)
    assert contents(target) == before


async def test_a_share_that_was_deleted_since_does_not_come_back(bucket, store, new_service, bob):
    await import_bucket(bucket, store)
    service = new_service()
    await service.delete(bob, IDS[0], SECRET)
    again = await import_bucket(bucket, store)
    assert (again.unchanged, again.deleted, again.skipped) == (2, 1, [])
    with pytest.raises(ShareError) as caught:
        await new_service().agent_session(bob, IDS[0])
    assert caught.value.code is ErrorCode.SHARE_NOT_FOUND


async def test_malformed_entries_are_skipped_listed_and_kept(bucket, target, new_service, bob):
    broken = {
        "share/brokenjs": b"{",
        "share/no-share": b'{"a":1}',
        "share/some.json": b"{}",
        "share/fault123": jsontext.encode(older_share(messages=[{"id": "msg_1"}, {"role": "x"}], parts={})),
        "index/brokenjs": b"?",
        "index/00000000": b"?",
        "index/nobody12": b"{}",
    }
    for key, body in broken.items():
        await bucket.put(key, body)
    imported = await import_bucket(bucket, target)
    assert imported.imported == 4
    not_json = "the store holds an older index object that is not JSON"
    # The row of a share that is upgraded goes with it.
    rows = [] if bucket is target else [("index/00000000", not_json)]
    assert sorted(imported.skipped) == [
        *rows,
        ("index/brokenjs", not_json),
        ("index/nobody12", "is the row of a share that is not there"),
        ("share/brokenjs", "share/brokenjs is not JSON"),
        ("share/fault123", "messages[1].id: must be a string that is not empty"),
        ("share/fault123", "parts: must be a list"),
        ("share/no-share", "share/no-share is not an AgentSession"),
        ("share/some.json", "is not the id of a share"),
    ]
    if bucket is target:
        broken["older/fault123"] = broken.pop("share/fault123")
        del broken["index/00000000"]
    assert broken.items() <= contents(bucket).items()
    merged = jsontext.decode(await new_service(target).agent_session(bob, "fault123"))
    assert merged["messages"] == [{"id": "msg_1"}]


async def test_an_id_that_another_share_has_is_not_taken_from_it(bucket, store, new_service, alice):
    service = new_service()
    await service.create(alice, f"ses_{IDS[0]}")
    await service.close()
    imported = await import_bucket(bucket, store)
    assert imported.imported == 2
    assert imported.skipped == [(f"share/{IDS[0]}", "the store has, or had, another share of this id")]
    assert b'"messages":[]' in await new_service().agent_session(alice, IDS[0])


async def test_an_id_that_another_older_share_has_is_not_taken_from_it(bucket, store):
    await put_older(store, IDS[0], older_share(parts=[]))
    before = contents(store)
    imported = await import_bucket(bucket, store)
    assert [key for key, _ in imported.skipped] == [f"share/{IDS[0]}"]
    assert before.items() <= contents(store).items()


async def test_shares_with_a_log_are_not_touched(bucket, new_service, alice):
    service = new_service(bucket)
    made = await service.create(alice, "ses_another1", [{"type": "part", "data": {"id": "a"}}])
    await service.close()
    before = {key: body for key, body in contents(bucket).items() if made.id in key}
    imported = await import_bucket(bucket, bucket)
    assert (imported.imported, imported.skipped) == (3, [])
    assert before.items() <= contents(bucket).items()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_it_can_be_interrupted_anywhere_and_done_again(after, new_service, bob):
    for at in range(1, 40):
        store = MemoryStore()
        await put_older(store)
        dying = DyingStore(store, at, after=after)
        try:
            await import_bucket(dying, dying)
        except StoreError:
            assert dying.has_died
        assert (await import_bucket(store, store)).skipped == []
        assert (await examine(store, patience=0.0)).findings == []
        assert await new_service(store).sync(bob, "12345678", SECRET, []) == 8
        if not dying.has_died:
            return
    pytest.fail("it makes more calls than were tried")
