"""Objects that the store inside can neither read nor change unnoticed."""

import pytest

from rpcshare.storage import MemoryStore
from rpcshare.storage.encryption import EncryptedStore, IntegrityError
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing

OLD = EncryptionKey(b"o" * 32, "old")
NEW = EncryptionKey(b"n" * 32, "new")
BODY = b'{"title":"what users wrote"}'


@pytest.fixture
def inner() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(inner: MemoryStore) -> EncryptedStore:
    return EncryptedStore(inner, KeyRing([NEW]))


async def stored(inner: MemoryStore, key: str) -> bytes:
    found = await inner.get(key)
    assert found is not None
    return found.body


async def body_at(store: EncryptedStore, key: str) -> bytes:
    found = await store.get(key)
    assert found is not None
    return found.body


async def test_the_store_inside_holds_nothing_that_can_be_read(
    store: EncryptedStore, inner: MemoryStore
) -> None:
    await store.put("k", BODY)
    assert b"title" not in await stored(inner, "k")


async def test_equal_bodies_are_stored_differently(store: EncryptedStore, inner: MemoryStore) -> None:
    await store.put("a", BODY)
    await store.put("b", BODY)
    assert await stored(inner, "a") != await stored(inner, "b")


async def test_etags_are_those_of_the_store_inside(store: EncryptedStore, inner: MemoryStore) -> None:
    etag = await store.put("k", BODY)
    found = await inner.get("k")
    assert found is not None
    assert found.etag == etag


@pytest.mark.parametrize("size", [2**20, 2**20 + 1])
async def test_large_bodies_come_back_as_they_went(store: EncryptedStore, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await store.put("k", body)
    assert await body_at(store, "k") == body


class TestTampering:
    async def test_with_any_byte_is_detected(self, store: EncryptedStore, inner: MemoryStore) -> None:
        await store.put("k", BODY)
        sealed = await stored(inner, "k")
        for place in range(len(sealed)):
            await inner.put("k", sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :])
            with pytest.raises(IntegrityError, match="the object at k "):
                await store.get("k")

    async def test_by_cutting_it_short_is_detected(self, store: EncryptedStore, inner: MemoryStore) -> None:
        await store.put("k", BODY)
        sealed = await stored(inner, "k")
        for length in range(len(sealed)):
            await inner.put("k", sealed[:length])
            with pytest.raises(IntegrityError, match="the object at k "):
                await store.get("k")

    async def test_by_swapping_two_objects_is_detected_at_both(
        self, store: EncryptedStore, inner: MemoryStore
    ) -> None:
        await store.put("a", b"one")
        await store.put("b", b"two")
        first, second = await stored(inner, "a"), await stored(inner, "b")
        await inner.put("a", second)
        await inner.put("b", first)
        for key in ("a", "b"):
            with pytest.raises(IntegrityError, match=f"the object at {key} has been changed or is another's"):
                await store.get(key)

    async def test_ends_a_scan_at_the_object(self, store: EncryptedStore, inner: MemoryStore) -> None:
        for key in ("a", "b", "c"):
            await store.put(key, BODY)
        await inner.put("b", (await stored(inner, "b"))[:-1])
        scan = store.scan("")
        assert (await anext(scan)).key == "a"
        with pytest.raises(IntegrityError, match="the object at b "):
            await anext(scan)

    async def test_is_reported_without_the_content(self, store: EncryptedStore, inner: MemoryStore) -> None:
        await store.put("k", BODY)
        await inner.put("k", BODY)
        with pytest.raises(IntegrityError) as failure:
            await store.get("k")
        assert "users" not in str(failure.value)


class TestRotation:
    async def test_the_first_key_encrypts_and_all_decrypt(self, inner: MemoryStore) -> None:
        await EncryptedStore(inner, KeyRing([OLD])).put("k", b"old")
        rotated = EncryptedStore(inner, KeyRing([NEW, OLD]))
        await rotated.put("new", b"new")
        assert await body_at(rotated, "k") == b"old"
        assert await body_at(EncryptedStore(inner, KeyRing([NEW])), "new") == b"new"

    async def test_an_object_of_a_key_that_was_dropped_names_the_key(self, inner: MemoryStore) -> None:
        await EncryptedStore(inner, KeyRing([OLD])).put("k", BODY)
        with pytest.raises(IntegrityError, match=r"the object at k .* key that is not listed: 'old'"):
            await EncryptedStore(inner, KeyRing([NEW])).get("k")

    async def test_another_key_under_the_same_id_does_not_decrypt(self, inner: MemoryStore) -> None:
        await EncryptedStore(inner, KeyRing([OLD])).put("k", BODY)
        with pytest.raises(IntegrityError):
            await EncryptedStore(inner, KeyRing([EncryptionKey(b"x" * 32, "old")])).get("k")


class TestPlainObjects:
    async def test_are_refused(self, store: EncryptedStore, inner: MemoryStore) -> None:
        await inner.put("k", BODY)
        with pytest.raises(IntegrityError, match="the object at k is not encrypted"):
            await store.get("k")

    async def test_are_read_where_that_is_allowed(self, inner: MemoryStore) -> None:
        await inner.put("k", BODY)
        assert await body_at(EncryptedStore(inner, KeyRing([NEW]), allow_plain=True), "k") == BODY

    async def test_are_encrypted_when_they_are_written_again(self, inner: MemoryStore) -> None:
        await inner.put("k", BODY)
        store = EncryptedStore(inner, KeyRing([NEW]), allow_plain=True)
        await store.put("k", BODY)
        assert await stored(inner, "k") != BODY
        assert await body_at(store, "k") == BODY
