"""A store that is closed refuses every call, instead of waiting or answering wrongly."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rpcshare.storage import MemoryStore, ObjectStore, SqliteStore, StoreError
from rpcshare.storage.encryption import EncryptedStore
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.storage.s3 import S3Store
from support.s3_server import S3Server


async def first_of_list(store: ObjectStore) -> None:
    await anext(aiter(store.list("")))


async def first_of_scan(store: ObjectStore) -> None:
    await anext(aiter(store.scan("")))


CALLS: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("k", b""),
    "delete": lambda store: store.delete(["k"]),
    "list": first_of_list,
    "scan": first_of_scan,
    "check": lambda store: store.check(),
}


@pytest.fixture(params=["memory", "sqlite", "s3", "encrypted"])
async def closed_store(request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path) -> ObjectStore:
    store: ObjectStore = MemoryStore()
    if request.param == "sqlite":
        store = await SqliteStore.open(tmp_path / "store.db")
    elif request.param == "s3":
        store = await S3Store.open(s3.location())
    elif request.param == "encrypted":
        store = EncryptedStore(store, KeyRing([EncryptionKey(bytes(32))]))
    await store.put("k", b"body")
    await store.close()
    return store


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_every_call_is_refused(closed_store: ObjectStore, call) -> None:
    with pytest.raises(StoreError, match="closed"):
        await call(closed_store)


async def test_closing_again_is_no_error(closed_store: ObjectStore) -> None:
    await closed_store.close()
