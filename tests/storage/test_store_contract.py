"""What every object store does, whatever it is made of."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpcshare.storage import (
    MemoryStore,
    ObjectStore,
    PreconditionFailedError,
    SqliteStore,
    StoredObject,
    s3,
)
from rpcshare.storage.encryption import EncryptedStore
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from support.s3_server import S3Server

S3_PAGE = 50  # keys, for the sake of speed


@pytest.fixture(params=["memory", "encrypted", "sqlite", "moto", "real_s3"])
def kind(request: pytest.FixtureRequest) -> str:
    """What the store is made of."""
    return request.param


@pytest.fixture
def server(request: pytest.FixtureRequest, kind: str) -> S3Server | None:
    return request.getfixturevalue(kind) if kind in ("moto", "real_s3") else None


@pytest.fixture
async def store(
    kind: str, server: S3Server | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    opened: ObjectStore
    if server is not None:
        monkeypatch.setattr(s3, "_KEYS_AT_ONCE", S3_PAGE)
        opened = await s3.S3Store.open(server.location())
    elif kind == "sqlite":
        opened = await SqliteStore.open(tmp_path / "store.db")
    elif kind == "encrypted":
        opened = EncryptedStore(MemoryStore(), KeyRing([EncryptionKey(bytes(32))]))
    else:
        opened = MemoryStore()
    yield opened
    await opened.close()


@pytest.fixture
def more_than_a_page(server: S3Server | None) -> int:
    """So many objects that the store does not list all of them at once."""
    return (500 if server is None else S3_PAGE) + 3


@pytest.fixture
def nested_keys(server: S3Server | None) -> None:
    """Skip the test where no key may be a directory of another, which no key of ours is."""
    if server is not None and server.keeps_files:
        pytest.skip("the S3 server keeps objects as files")


async def fill(store: ObjectStore, *keys: str) -> None:
    await asyncio.gather(*(store.put(key, key.encode()) for key in keys))


async def listed(store: ObjectStore, prefix: str, *, start_after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, start_after=start_after)]


async def scanned(store: ObjectStore, prefix: str, *, start_after: str = "") -> list[str]:
    return [found.key async for found in store.scan(prefix, start_after=start_after)]


class TestGetPutDelete:
    async def test_what_was_put_is_got(self, store: ObjectStore) -> None:
        etag = await store.put("share/a/head", b"body")
        assert await store.get("share/a/head") == StoredObject("share/a/head", b"body", etag)

    async def test_a_key_where_nothing_was_put_has_no_object(self, store: ObjectStore) -> None:
        await store.put("share/a/head", b"body")
        assert await store.get("share/a") is None

    async def test_a_put_replaces_what_is_there(self, store: ObjectStore) -> None:
        await store.put("k", b"old")
        etag = await store.put("k", b"new")
        assert await store.get("k") == StoredObject("k", b"new", etag)

    @pytest.mark.parametrize(
        "body",
        [b"", bytes(range(256)), b"\x00", bytes(range(256)) * 2**15],
        ids=["empty", "every byte", "nul", "8 MiB"],
    )
    async def test_a_body_comes_back_as_it_went(self, store: ObjectStore, body: bytes) -> None:
        await store.put("k", body)
        found = await store.get("k")
        assert found is not None
        assert found.body == body

    async def test_keys_differ_by_case(self, store: ObjectStore) -> None:
        await store.put("k", b"lower")
        await store.put("K", b"upper")
        found = await store.get("k")
        assert found is not None
        assert found.body == b"lower"

    async def test_keys_may_hold_every_printable_character(self, store: ObjectStore) -> None:
        key = "".join(map(chr, range(0x20, 0x7F)))
        await store.put(key, b"")
        assert await listed(store, key[:-1]) == [key]

    async def test_what_was_deleted_is_gone(self, store: ObjectStore) -> None:
        await fill(store, "a", "b", "c")
        await store.delete(["a", "c"])
        assert await listed(store, "") == ["b"]

    async def test_deleting_what_is_not_there_is_no_error(self, store: ObjectStore) -> None:
        await fill(store, "a")
        await store.delete(["nothing", "a", "a"])
        assert await listed(store, "") == []

    async def test_deleting_nothing_deletes_nothing(self, store: ObjectStore) -> None:
        await fill(store, "a")
        await store.delete([])
        assert await listed(store, "") == ["a"]

    async def test_more_than_a_page_of_keys_can_be_deleted_at_once(
        self, store: ObjectStore, more_than_a_page: int
    ) -> None:
        keys = [f"k{n:04}" for n in range(more_than_a_page)]
        await fill(store, *keys)
        await store.delete(keys)
        assert await listed(store, "") == []


class TestEtag:
    async def test_changes_with_the_body(self, store: ObjectStore) -> None:
        assert await store.put("k", b"one") != await store.put("k", b"two")

    async def test_differs_for_another_body_after_a_delete(self, store: ObjectStore) -> None:
        before = await store.put("k", b"one")
        await store.delete(["k"])
        assert await store.put("k", b"two") != before

    async def test_is_the_same_wherever_it_is_told(self, store: ObjectStore) -> None:
        etag = await store.put("k", b"body")
        found = await store.get("k")
        assert found is not None
        assert [found.etag] == [etag]
        assert [info.etag async for info in store.list("k")] == [etag]
        assert [scan.etag async for scan in store.scan("k")] == [etag]


class TestIfAbsent:
    async def test_writes_where_nothing_is(self, store: ObjectStore) -> None:
        etag = await store.put("k", b"body", if_absent=True)
        assert await store.get("k") == StoredObject("k", b"body", etag)

    async def test_refuses_where_something_is_and_leaves_it(self, store: ObjectStore) -> None:
        await store.put("k", b"first")
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"second", if_absent=True)
        found = await store.get("k")
        assert found is not None
        assert found.body == b"first"

    async def test_refuses_an_object_that_is_empty(self, store: ObjectStore) -> None:
        await store.put("k", b"")
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"second", if_absent=True)

    async def test_writes_again_after_a_delete(self, store: ObjectStore) -> None:
        await store.put("k", b"first")
        await store.delete(["k"])
        etag = await store.put("k", b"second", if_absent=True)
        assert await store.get("k") == StoredObject("k", b"second", etag)

    async def test_lets_one_of_many_racing_writers_win(self, store: ObjectStore) -> None:
        outcomes = await asyncio.gather(
            *(store.put("k", b"%d" % n, if_absent=True) for n in range(100)),
            return_exceptions=True,
        )
        (winner,) = (n for n, outcome in enumerate(outcomes) if isinstance(outcome, str))
        losers = [outcome for outcome in outcomes if isinstance(outcome, PreconditionFailedError)]
        assert len(losers) == 99
        found = await store.get("k")
        assert found is not None
        assert found.body == b"%d" % winner


class TestIfMatch:
    async def test_replaces_the_object_that_has_the_etag(self, store: ObjectStore) -> None:
        old = await store.put("k", b"one")
        new = await store.put("k", b"two", if_match=old)
        assert await store.get("k") == StoredObject("k", b"two", new)

    async def test_refuses_an_object_that_has_changed(self, store: ObjectStore) -> None:
        old = await store.put("k", b"one")
        new = await store.put("k", b"two")
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"three", if_match=old)
        assert await store.get("k") == StoredObject("k", b"two", new)

    async def test_refuses_where_nothing_is(self, store: ObjectStore) -> None:
        etag = await store.put("k", b"one")
        await store.delete(["k"])
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"two", if_match=etag)
        assert await store.get("k") is None

    async def test_refuses_the_etag_of_another_object(self, store: ObjectStore) -> None:
        other = await store.put("other", b"one")
        await store.put("k", b"two")
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"three", if_match=other)

    async def test_lets_one_of_many_racing_writers_win(self, store: ObjectStore) -> None:
        etag = await store.put("k", b"start")
        outcomes = await asyncio.gather(
            *(store.put("k", b"%d" % n, if_match=etag) for n in range(100)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, str) for outcome in outcomes) == 1


@pytest.mark.parametrize("keys_of", [listed, scanned], ids=["list", "scan"])
class TestListing:
    @pytest.mark.usefixtures("nested_keys")
    async def test_is_in_the_order_of_bytes(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "b", "a/b", "a", "a-", "B", "a0", "a/", "10", "9")
        assert await keys_of(store, "") == ["10", "9", "B", "a", "a-", "a/", "a/b", "a0", "b"]

    @pytest.mark.usefixtures("nested_keys")
    async def test_has_only_what_is_under_the_prefix(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "share/a/1", "share/a/2", "share/ab/1", "share/a", "share/b/1", "index/a")
        assert await keys_of(store, "share/a/") == ["share/a/1", "share/a/2"]

    async def test_takes_a_prefix_that_is_no_whole_part(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "share/a/1", "share/ab/1", "share/b/1")
        assert await keys_of(store, "share/a") == ["share/a/1", "share/ab/1"]

    @pytest.mark.usefixtures("nested_keys")
    async def test_has_the_object_whose_key_is_the_prefix(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "a", "a/b")
        assert await keys_of(store, "a") == ["a", "a/b"]

    @pytest.mark.parametrize("prefix", ["%", "_", "a%", "*", "[a]", "A"])
    async def test_takes_no_prefix_for_a_pattern(self, store: ObjectStore, keys_of, prefix: str) -> None:
        await fill(store, "a", "ab", "abc")
        assert await keys_of(store, prefix) == []

    async def test_takes_a_prefix_that_ends_with_the_last_character(
        self, store: ObjectStore, keys_of
    ) -> None:
        await fill(store, "a~", "a~~", "b")
        assert await keys_of(store, "a~") == ["a~", "a~~"]

    async def test_of_nothing_is_empty(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "a")
        assert await keys_of(store, "b") == []

    async def test_begins_behind_start_after(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "log/1", "log/2", "log/3", "log/30")
        assert await keys_of(store, "log/", start_after="log/2") == ["log/3", "log/30"]

    async def test_start_after_need_not_exist(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "log/1", "log/3")
        assert await keys_of(store, "log/", start_after="log/2") == ["log/3"]

    async def test_start_after_ahead_of_the_prefix_skips_nothing(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "a/1", "log/1", "log/2")
        assert await keys_of(store, "log/", start_after="a") == ["log/1", "log/2"]

    @pytest.mark.usefixtures("nested_keys")
    async def test_start_after_the_prefix_itself_leaves_it_out(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "log", "log/1")
        assert await keys_of(store, "log", start_after="log") == ["log/1"]

    async def test_start_after_behind_the_prefix_leaves_nothing(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "log/1", "z/1")
        assert await keys_of(store, "log/", start_after="y") == []

    async def test_of_many_objects_has_each_once(
        self, store: ObjectStore, keys_of, more_than_a_page: int
    ) -> None:
        keys = [f"log/{n:04}" for n in range(more_than_a_page)]
        await fill(store, *reversed(keys))
        assert await keys_of(store, "log/") == keys

    async def test_of_many_objects_begins_behind_start_after_and_goes_on_to_the_end(
        self, store: ObjectStore, keys_of, more_than_a_page: int
    ) -> None:
        keys = [f"log/{n:04}" for n in range(more_than_a_page + 10)]
        await fill(store, *keys)
        assert await keys_of(store, "log/", start_after=keys[4]) == keys[5:]

    async def test_has_an_object_once_that_was_deleted_and_written_again(
        self, store: ObjectStore, keys_of
    ) -> None:
        await fill(store, "a", "b")
        await store.delete(["a"])
        await fill(store, "a")
        assert await keys_of(store, "") == ["a", "b"]

    async def test_may_be_abandoned(self, store: ObjectStore, keys_of) -> None:
        await fill(store, "a", "b")
        async for _ in store.list("") if keys_of is listed else store.scan(""):
            break
        await fill(store, "c")
        assert await keys_of(store, "") == ["a", "b", "c"]


async def test_a_listing_tells_the_size_of_each_body(store: ObjectStore, kind: str) -> None:
    await store.put("a", b"")
    await store.put("b", bytes(100_000))
    empty, large = [info.size async for info in store.list("")]
    assert large - empty == 100_000
    assert (empty == 0) == (kind != "encrypted")


async def test_a_scan_brings_each_body(store: ObjectStore) -> None:
    await fill(store, "a", "b")
    assert [(found.key, found.body) async for found in store.scan("")] == [("a", b"a"), ("b", b"b")]


async def test_a_scan_of_large_bodies_has_each_once(store: ObjectStore) -> None:
    bodies = [bytes([n]) * 1_500_000 for n in range(8)]
    for n, body in enumerate(bodies):
        await store.put(f"k{n}", body)
    assert [found.body async for found in store.scan("k")] == bodies


async def test_a_scan_has_all_that_a_concurrent_delete_leaves(
    store: ObjectStore, more_than_a_page: int
) -> None:
    keys = [f"log/{n:04}" for n in range(more_than_a_page)]
    await fill(store, *keys)
    scan = store.scan("log/")
    seen = [(await anext(scan)).key]
    deleted = set(keys[:3] + keys[len(keys) // 3 : len(keys) // 2] + keys[-1:])
    await store.delete(sorted(deleted))
    seen += [found.key async for found in scan]
    assert seen == sorted(seen)
    assert set(keys) - deleted <= set(seen) <= set(keys)


async def test_a_listing_has_all_that_a_concurrent_delete_leaves(
    store: ObjectStore, more_than_a_page: int
) -> None:
    keys = [f"log/{n:04}" for n in range(more_than_a_page)]
    await fill(store, *keys)
    listing = store.list("log/")
    seen = [(await anext(listing)).key]
    deleted = set(keys[:3] + keys[len(keys) // 3 : len(keys) // 2] + keys[-1:])
    await store.delete(sorted(deleted))
    seen += [info.key async for info in listing]
    assert seen == sorted(seen)
    assert set(keys) - deleted <= set(seen) <= set(keys)


async def test_a_store_that_is_open_answers(store: ObjectStore) -> None:
    await store.check()
