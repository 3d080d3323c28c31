"""Finding out whether a store refuses a write whose condition does not hold."""

import asyncio
import re
from collections.abc import Callable
from functools import partial

import pytest

from rpcshare.storage import (
    MemoryStore,
    PreconditionFailedError,
    StoredObject,
    StoreError,
    UnconditionalWritesError,
    UselessConditionsError,
    check_conditional_writes,
)
from rpcshare.storage.encryption import EncryptedStore
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.storage.s3 import S3Store
from support.s3_fault_proxy import FaultProxy, answer, without
from support.s3_server import S3Server


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


# Stores that speak S3, and what has been seen of them


def with_weak_etags(proxy: FaultProxy) -> None:
    proxy.edit_answer = partial(re.compile(rb'(\r\netag: )"', re.IGNORECASE).sub, rb'\1W/"')


def comparing_weakly(proxy: FaultProxy) -> None:
    """Weak ETags that match, as of a proxy that weakens what comes and restores what goes."""
    with_weak_etags(proxy)
    proxy.edit_request = partial(re.compile(rb'(\r\nif-match: )W/"', re.IGNORECASE).sub, rb'\1"')


def never_matching(proxy: FaultProxy) -> None:
    proxy.edit_request = partial(re.compile(rb'(\r\nif-match: )"', re.IGNORECASE).sub, rb'\1"x')


def dropping(header: bytes) -> Callable[[FaultProxy], None]:
    def misbehave(proxy: FaultProxy) -> None:
        proxy.edit_request = lambda head: without(head, header)

    return misbehave


def giving_one_etag(proxy: FaultProxy) -> None:
    proxy.edit_answer = partial(re.compile(rb'(\r\netag: )"[^"]*"', re.IGNORECASE).sub, rb'\1"1"')
    proxy.edit_request = lambda head: without(head, b"if-match") if b'If-Match: "1"' in head else head


def never_free(proxy: FaultProxy) -> None:
    refused = answer(412, b"application/xml", b"<Error><Code>PreconditionFailed</Code></Error>")
    proxy.inject(refused, method="PUT")


@pytest.mark.parametrize(
    ("misbehave", "error", "words"),
    [
        (with_weak_etags, UselessConditionsError, "weak ETags .* compression"),
        (comparing_weakly, UselessConditionsError, "weak ETags"),
        (never_matching, UselessConditionsError, "refuses If-Match with the ETag that it has just given"),
        (never_free, UselessConditionsError, "refuses If-None-Match"),
        (dropping(b"if-match"), UnconditionalWritesError, "ignores If-Match"),
        (dropping(b"if-none-match"), UnconditionalWritesError, "ignores If-None-Match"),
        (giving_one_etag, UnconditionalWritesError, "the same ETag"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
async def test_s3_whose_conditions_are_of_no_use_is_told_of(
    moto: S3Server, misbehave: Callable[[FaultProxy], None], error: type[StoreError], words: str
) -> None:
    async with FaultProxy(moto.endpoint_url) as proxy:
        misbehave(proxy)
        store = await S3Store.open(moto.location(endpoint_url=proxy.url))
        try:
            with pytest.raises(error, match=words):
                await check_conditional_writes(store)
        finally:
            proxy.edit_request = proxy.edit_answer = lambda whole: whole
            proxy.heal()
        assert await contents(store) == []
        await store.close()


class StaleStore(MemoryStore):
    """Compares with what was there before the last write, as behind a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.former: dict[str, str] = {}

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        found = await self.get(key)
        if found is not None and if_match is not None and if_match == self.former.get(key):
            if_match = found.etag
        etag = await super().put(key, body, if_absent=if_absent, if_match=if_match)
        if found is not None:
            self.former[key] = found.etag
        return etag


class MakingStore(MemoryStore):
    """Takes ``If-Match`` for true where there is nothing."""

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        if await self.get(key) is None:
            if_match = None
        return await super().put(key, body, if_absent=if_absent, if_match=if_match)


class LookingStore(MemoryStore):
    """Looks whether there is an object, and writes a moment later."""

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        if if_absent and await self.get(key) is not None:
            raise PreconditionFailedError
        await asyncio.sleep(0)
        return await super().put(key, body, if_match=if_match)


class ForgetfulStore(MemoryStore):
    """Gives an object an ETag when it is read that nothing has."""

    async def get(self, key: str) -> StoredObject | None:
        found = await super().get(key)
        return None if found is None else StoredObject(key, found.body, f"{found.etag}-gzip")


@pytest.mark.parametrize(
    ("store", "error", "words"),
    [
        (StaleStore(), UnconditionalWritesError, "ignores If-Match"),
        (MakingStore(), UnconditionalWritesError, "for a key that holds nothing"),
        (LookingStore(), UnconditionalWritesError, "where writes meet"),
        (ForgetfulStore(), UselessConditionsError, "another ETag when it is read"),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_a_store_that_honours_some_conditions_is_told_of(
    store: MemoryStore, error: type[StoreError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await check_conditional_writes(store)
    assert await contents(store) == []
