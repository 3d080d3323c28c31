"""Finding out whether a store refuses a write whose condition does not hold."""

import pytest
from s3_server import S3Server

from rpcshare.storage import MemoryStore, UnconditionalWritesError, check_conditional_writes
from rpcshare.storage.encryption import EncryptedStore
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.storage.s3 import S3Store


class CarelessStore(MemoryStore):
    """Ignores one of the conditions, as stores do that do not know its header."""

    def __init__(self, *, ignored: str) -> None:
        super().__init__()
        self.ignored = ignored

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        if self.ignored == "If-None-Match":
            if_absent = False
        else:
            if_match = None
        return await super().put(key, body, if_absent=if_absent, if_match=if_match)


async def contents(store: MemoryStore | S3Store) -> list[str]:
    return [info.key async for info in store.list("")]


async def test_a_store_that_does_passes_and_is_left_as_it_was() -> None:
    store = MemoryStore()
    await store.put("k", b"")
    await check_conditional_writes(store)
    assert await contents(store) == ["k"]


async def test_s3_passes(s3: S3Server) -> None:
    store = await S3Store.open(s3.location())
    await check_conditional_writes(store)
    assert await contents(store) == []
    await store.close()


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
async def test_a_store_that_does_not_is_told_of_with_what_follows(header: str) -> None:
    store = CarelessStore(ignored=header)
    with pytest.raises(UnconditionalWritesError, match=f"ignores {header}, .* single server"):
        await check_conditional_writes(store)
    assert await contents(store) == []


async def test_encryption_makes_no_difference() -> None:
    keys = KeyRing([EncryptionKey(bytes(32))])
    await check_conditional_writes(EncryptedStore(MemoryStore(), keys))
    with pytest.raises(UnconditionalWritesError):
        await check_conditional_writes(EncryptedStore(CarelessStore(ignored="If-Match"), keys))
