"""What tells one store from another."""

import asyncio

import pytest

from rpcshare.storage import IDENTITY_KEY, MemoryStore, StoreError, store_identity


async def test_it_stays_the_same() -> None:
    store = MemoryStore()
    assert await store_identity(store) == await store_identity(store)


async def test_nodes_that_make_it_at_the_same_time_agree() -> None:
    store = MemoryStore()
    made = await asyncio.gather(*(store_identity(store) for _ in range(5)))
    assert len({identity.secret for identity in made}) == 1


async def test_each_store_has_its_own() -> None:
    one, other = [await store_identity(MemoryStore()) for _ in range(2)]
    assert one.id != other.id
    assert one.secret != other.secret


async def test_it_does_not_show_its_secret() -> None:
    identity = await store_identity(MemoryStore())
    assert repr(identity.secret)[2:10] not in repr(identity)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"v":2,"id":"a","secret":""}'])
async def test_one_that_cannot_be_read_is_an_error(body: bytes) -> None:
    store = MemoryStore()
    await store.put(IDENTITY_KEY, body)
    with pytest.raises(StoreError, match=IDENTITY_KEY):
        await store_identity(store)
