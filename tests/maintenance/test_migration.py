"""Copying a store: all of it, in an order in which nothing is seen by halves, as often as it takes."""

import asyncio
import json

import pytest

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.migration import Migration, migrate, survey
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.objects import unpack
from rpcshare.storage import MemoryStore, SqliteStore, StoreError, store_identity
from support.items import part
from support.older_shares import put_older
from support.share_stores import DyingStore, FailingStore, RecordingStore, contents

SESSIONS = [f"ses_{number:08d}" for number in range(5)]


def is_not_found(result):
    return isinstance(result, ShareError) and result.code is ErrorCode.SHARE_NOT_FOUND


@pytest.fixture
def target():
    return MemoryStore()


@pytest.fixture
async def source(store, new_service, alice):
    """Return a store with shares, one of them deleted, one of the older layout, and other objects."""
    service = new_service()
    for session_id in SESSIONS:
        made = await service.create(alice, session_id, [part("a"), part("b")])
        await service.sync(alice, made.id, None, [part("b", "x" * 2000)])
    await service.delete(alice, "00000004", None)
    await service.close()
    await put_older(store, "older678")
    await store.put("keys/rsk_1", bytes(range(256)))
    return store


async def test_everything_is_there_afterwards(source, target):
    migration = await migrate(source, target)
    assert contents(target) == contents(source)
    assert migration == Migration(copied=len(contents(source)))


async def test_the_copy_is_another_store_to_nodes_that_tell_each_other_of_writes(source, target):
    await store_identity(source)
    assert not (await migrate(source, target)).differing
    identity = await store_identity(target)
    assert identity.secret != (await store_identity(source)).secret
    assert not (await migrate(source, target, overwrite=True)).differing
    assert await store_identity(target) == identity


async def test_a_share_is_seen_as_a_whole_or_not_at_all(source, target, new_service, bob):
    """Whatever moment the copying is looked at."""
    shares = ["00000000", "00000001", "00000002", "00000003", "older678"]
    expected = {share_id: await new_service(source).agent_session(bob, share_id) for share_id in shares}
    seen = set()

    class Watched(FailingStore):
        async def put(self, key, body, **conditions):
            await super().put(key, body, **conditions)
            service = new_service(self.inner)
            for share_id in shares:
                found = await asyncio.gather(service.agent_session(bob, share_id), return_exceptions=True)
                seen.add("not there" if is_not_found(found[0]) else "there")
                assert is_not_found(found[0]) or found == [expected[share_id]]

    await migrate(source, Watched(lambda *_: False, target))
    assert seen == {"there", "not there"}
    assert contents(target) == contents(source)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_interrupted_anywhere_it_goes_on_where_it_was(source, after):
    at = 1
    while True:
        target = MemoryStore()
        dying = DyingStore(target, at, after=after)
        try:
            await migrate(source, dying)
        except StoreError:
            there = len(contents(target))
            recording = RecordingStore(target)
            again = await migrate(source, recording)
            assert again.unchanged == there
            assert len([name for name, _ in recording.calls if name == "put"]) == again.copied
            assert again.differing == {}
            assert contents(target) == contents(source)
            at += 3
        else:
            break
    assert at > 30


async def test_nothing_is_written_the_second_time(source, target):
    await migrate(source, target)
    recording = RecordingStore(target)
    again = await migrate(source, recording)
    assert (again.copied, again.unchanged) == (0, len(contents(source)))
    assert recording.bytes_put == 0


async def test_a_second_run_brings_what_was_written_since(source, target, new_service, alice):
    await migrate(source, target)
    service = new_service()
    await service.sync(alice, "00000000", None, [part("c")])
    await service.delete(alice, "00000001", None)
    await service.create(alice, "ses_new_new_", [part("a")])
    await service.close()
    again = await migrate(source, target)
    assert again.differing == {}
    fresh = new_service(target)
    assert len(json.loads(await fresh.agent_session(alice, "00000000"))["parts"]) == 3
    with pytest.raises(ShareError, match="Share not found"):
        await fresh.agent_session(alice, "00000001")
    assert await fresh.agent_session(alice, "new_new_")


async def test_what_the_target_has_of_its_own_is_kept_and_told_of(source, target, new_service, bob):
    service = new_service(target)
    await service.create(bob, SESSIONS[0], [part("bob's")])
    await service.close()
    migration = await migrate(source, target)
    assert migration.differing == {
        "share/00000000/head": "the target has another",
        "session/ses_00000000": "the target has another",
    }
    assert migration.surplus == 1  # an entry
    assert b"bob's" in await new_service(target).agent_session(bob, "00000000")


async def test_what_the_target_has_of_its_own_is_replaced_if_told_so(source, target, new_service, bob):
    service = new_service(target)
    await service.create(bob, SESSIONS[0], [part("bob's")])
    await service.close()
    migration = await migrate(source, target, overwrite=True)
    assert migration.differing == {}
    assert contents(source).items() <= contents(target).items()


async def test_an_object_that_does_not_arrive_as_it_was_is_named(source, target):
    class Careless(FailingStore):
        async def put(self, key, body, **conditions):
            return await super().put(key, body[:-1] if key.startswith("keys/") else body, **conditions)

    migration = await migrate(source, Careless(lambda *_: False, target))
    assert migration.differing == {"keys/rsk_1": "the target has another"}


async def test_progress_adds_up_to_all_that_there_is(source, target):
    there = await survey(source)
    copied: list[int] = []
    verified: list[int] = []
    await migrate(source, target, on_copied=copied.append, on_verified=verified.append)
    assert len(copied) == len(verified) == there.objects == len(contents(source))
    assert sum(copied) == sum(verified) == there.size


async def test_a_failing_store_ends_it(source, target):
    with pytest.raises(StoreError):
        await migrate(source, FailingStore(lambda name, _: name == "put", target))


async def test_no_more_is_in_memory_than_has_room(source, target, monkeypatch):
    monkeypatch.setattr("rpcshare.maintenance.migration._BYTES_AT_ONCE", 2500)
    held = most = 0

    class Weighing(FailingStore):
        async def get(self, key):
            nonlocal held, most
            found = await super().get(key)
            held += len(found.body)
            most = max(most, held)
            return found

    class Releasing(FailingStore):
        async def put(self, key, body, **conditions):
            nonlocal held
            await asyncio.sleep(0)
            await super().put(key, body, **conditions)
            held -= len(body)

    for number in range(20):
        await source.put(f"keys/{number}", bytes(1000))
    await migrate(Weighing(lambda *_: False, source), Releasing(lambda *_: False, target))
    assert 1000 < most <= 2500


async def test_from_one_kind_of_store_to_another_and_back(source, tmp_path):
    middle = await SqliteStore.open(tmp_path / "store.sqlite3")
    back = MemoryStore()
    await migrate(source, middle)
    assert (await migrate(middle, back)).differing == {}
    await middle.close()
    assert contents(back) == contents(source)


class TestWhatWasEndedStaysEnded:
    """Whichever store it was ended in, between two runs."""

    @pytest.fixture(params=["source", "target"])
    async def ending(self, request, source, target):
        """Return the store in which things end, once both hold them."""
        assert not (await migrate(source, target)).differing
        return source if request.param == "source" else target

    @pytest.mark.parametrize("is_shared", [False, True])
    async def test_a_deleted_share(self, ending, source, target, new_service, alice, bob, is_shared):
        service = new_service(ending, shared_store=is_shared)
        await service.delete(alice, "00000001", None)
        await service.close()
        for _ in range(2):
            assert not (await migrate(source, target)).differing
        with pytest.raises(ShareError, match="Share not found"):
            await new_service(target).agent_session(bob, "00000001")
        assert not any(
            "x" * 2000 in str(unpack(body)) for key, body in contents(target).items() if "00000001" in key
        )
        assert not any(key.startswith("index/00000001") for key in contents(target))

    async def test_a_deleted_share_of_which_only_its_place_is_left(
        self, source, target, new_service, alice, bob
    ):
        head = "share/00000001/head"
        await migrate(source, target)
        service = new_service(target)
        await service.delete(alice, "00000001", None)
        await service.close()
        await target.delete([key for key in contents(target) if "00000001/" in key and key != head])
        migration = await migrate(source, target)
        assert not migration.differing
        assert migration.newer
        with pytest.raises(ShareError, match="Share not found"):
            await new_service(target).agent_session(bob, "00000001")
        of_share = ("share/00000001/", "index/00000001")
        assert [key for key in contents(target) if key.startswith(of_share)] == [head]

    async def test_a_share_that_was_made_private(self, ending, source, target, new_service, alice, bob):
        service = new_service(ending)
        await service.update(alice, "00000001", None, {"visibility": "private"})
        await service.close()
        for _ in range(2):
            assert not (await migrate(source, target)).differing
        with pytest.raises(ShareError):
            await new_service(target).agent_session(bob, "00000001")

    @pytest.mark.parametrize("closed", [{"visibility": "private"}, {"password": "long enough"}])
    async def test_a_share_that_was_closed_though_the_other_store_changed_it_more_often(
        self, ending, source, target, new_service, alice, bob, closed
    ):
        other = target if ending is source else source
        for store, changes in ((ending, [closed]), (other, [{"expiresIn": "9d"}, {"expiresIn": "8d"}])):
            service = new_service(store)
            for change in changes:
                await service.update(alice, "00000001", None, change)
            await service.close()
        for one, another in ((source, target), (target, source), (source, target)):
            assert not (await migrate(one, another)).differing
        for store in (source, target):
            with pytest.raises(ShareError):
                await new_service(store).agent_session(bob, "00000001")
            assert not (await examine(store, patience=0.0)).findings

    async def test_a_share_that_was_opened_again_after_the_copy_is_open(
        self, ending, source, target, new_service, alice, bob
    ):
        service = new_service(ending)
        await service.update(alice, "00000001", None, {"visibility": "private"})
        assert not (await migrate(source, target)).differing
        await service.update(alice, "00000001", None, {"visibility": "link"})
        await service.close()
        assert not (await migrate(source, target)).differing
        assert await new_service(target).agent_session(bob, "00000001")

    @pytest.mark.parametrize("end", ["revoke", "rotate"])
    async def test_a_key(self, source, target, end):
        keys = {store: ApiKeys(store) for store in (source, target)}
        made = [await keys[source].create("laptop") for _ in range(2)]
        await migrate(source, target)
        for store, key in zip((source, target), made, strict=True):
            await getattr(keys[store], end)(key.kept.id)
        for _ in range(2):
            assert not (await migrate(source, target)).differing
        kept = {key.id: key for key in await keys[target].list()}
        assert all(kept[key.kept.id].revoked_at for key in made)

    async def test_even_if_the_target_is_to_be_overwritten(self, source, target, new_service, alice, bob):
        key = await ApiKeys(source).create("laptop")
        await migrate(source, target)
        await ApiKeys(target).revoke(key.kept.id)
        service = new_service(target)
        await service.delete(alice, "00000001", None)
        await service.close()
        await migrate(source, target, overwrite=True)
        with pytest.raises(ShareError, match="Share not found"):
            await new_service(target).agent_session(bob, "00000001")
        assert all(kept.revoked_at for kept in await ApiKeys(target).list())


async def test_of_a_share_that_both_stores_went_on_with_nothing_is_mixed(source, target, new_service, alice):
    await migrate(source, target)
    for store, count in ((source, 3), (target, 1)):
        service = new_service(store)
        for number in range(count):
            await service.sync(alice, "00000001", None, [part(f"{count} {number}")])
        await service.close()
    before = contents(target)
    migration = await migrate(source, target)
    assert [key.rpartition("/")[2] for key in migration.differing if "/log/" in key] == [
        f"{number:012d}" for number in (3, 4, 5)
    ]
    assert {key: body for key, body in contents(target).items() if "/log/" in key} == {
        key: body for key, body in before.items() if "/log/" in key
    }


SNAPSHOTS = LogSettings(
    trusted_for=0.0, grace=0.0, compaction=CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=2)
)


async def goes_on(new_service, store, alice, share, name, syncs):
    """Sync to a share so often that older entries are replaced by a snapshot, as a server does."""
    await store_identity(store)
    service = new_service(store, settings=SNAPSHOTS)
    for number in range(syncs):
        await service.sync(alice, share, None, [part(f"{name}{number}")])
        await asyncio.sleep(0.02)  # in which the snapshot is made
    await service.close()


async def parts(new_service, store, alice, share):
    session = json.loads(await new_service(store).agent_session(alice, share))
    return {each["id"] for each in session["parts"]}


@pytest.mark.parametrize(("ours", "theirs"), [(8, 2), (8, 8), (2, 8)], ids=["source", "both", "target"])
async def test_what_the_target_went_on_with_is_not_hidden_behind_a_snapshot(
    source, target, new_service, alice, ours, theirs
):
    share = "00000000"
    await migrate(source, target)
    await goes_on(new_service, target, alice, share, "target", theirs)
    await goes_on(new_service, source, alice, share, "source", ours)
    expected = {"a", "b"} | {f"target{number}" for number in range(theirs)}
    assert (await migrate(source, target)).differing
    assert await parts(new_service, target, alice, share) == expected


async def test_what_the_source_went_on_with_arrives_behind_snapshots(source, target, new_service, alice):
    share = "00000000"
    for _ in range(3):
        await migrate(source, target)
        await goes_on(new_service, source, alice, share, "source", 8)
    assert not (await migrate(source, target)).differing
    assert len(await parts(new_service, target, alice, share)) == 10
