"""Any sequence of operations has the outcomes that it has on a dict."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpcshare.storage import MemoryStore, ObjectStore, PreconditionFailedError, SqliteStore

# Few, so that operations meet, and prefixes of each other.
KEYS = st.sampled_from(["a", "a-", "a/", "a/a", "a/b", "a~", "ab", "b"])
BODIES = st.binary(max_size=20)
PUT = st.tuples(st.just("put"), KEYS, BODIES)
PUT_IF_ABSENT = st.tuples(st.just("put if absent"), KEYS, BODIES)
# The number picks one of the etags that have been seen, current or not.
PUT_IF_MATCH = st.tuples(st.just("put if match"), KEYS, BODIES, st.integers(0, 20))
DELETE = st.tuples(st.just("delete"), st.lists(KEYS, max_size=3))
OPERATIONS = st.lists(st.one_of(PUT, PUT_IF_ABSENT, PUT_IF_MATCH, DELETE), max_size=30)
LISTING = st.tuples(st.text("ab/~", max_size=2), st.text("ab/~", max_size=3))


class Model:
    """An object store as its documentation says, without a thought for speed."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.etags = ["never given"]

    async def apply(self, operation: tuple, store: ObjectStore) -> None:
        match operation:
            case ("put", key, body):
                self.written(key, body, await store.put(key, body))
            case ("put if absent", key, body):
                allowed = key not in self.objects
                await self.write(allowed, key, body, store.put(key, body, if_absent=True))
            case ("put if match", key, body, number):
                etag = self.etags[number % len(self.etags)]
                allowed = key in self.objects and self.objects[key][1] == etag
                await self.write(allowed, key, body, store.put(key, body, if_match=etag))
            case ("delete", keys):
                await store.delete(keys)
                for key in keys:
                    self.objects.pop(key, None)

    async def write(self, allowed: bool, key: str, body: bytes, put) -> None:
        if allowed:
            self.written(key, body, await put)
        else:
            with pytest.raises(PreconditionFailedError):
                await put

    def written(self, key: str, body: bytes, etag: str) -> None:
        assert etag not in self.etags  # more than every store promises, but these two do
        self.etags.append(etag)
        self.objects[key] = (body, etag)

    def under(self, prefix: str, start_after: str) -> list[tuple[str, bytes, str]]:
        return [
            (key, *self.objects[key])
            for key in sorted(self.objects)
            if key.startswith(prefix) and key > start_after
        ]


async def run(store: ObjectStore, operations: list[tuple], listings: list[tuple[str, str]]) -> None:
    model = Model()
    for operation in operations:
        await model.apply(operation, store)
    for prefix, start_after in [("", ""), *listings]:
        expected = model.under(prefix, start_after)
        scan = store.scan(prefix, start_after=start_after)
        assert [tuple(found) async for found in scan] == expected
        listing = store.list(prefix, start_after=start_after)
        assert [tuple(info) async for info in listing] == [
            (key, etag, len(body)) for key, body, etag in expected
        ]
        for key, body, etag in expected:
            assert await store.get(key) == (key, body, etag)


@given(OPERATIONS, st.lists(LISTING, max_size=5))
@settings(max_examples=200, deadline=None)
def test_memory(operations: list[tuple], listings: list[tuple[str, str]]) -> None:
    asyncio.run(run(MemoryStore(), operations, listings))


@given(OPERATIONS, st.lists(LISTING, max_size=5))
@settings(max_examples=50, deadline=None)
def test_sqlite(operations: list[tuple], listings: list[tuple[str, str]]) -> None:
    async def run_on_a_new_file() -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = await SqliteStore.open(Path(directory) / "store.db")
            try:
                await run(store, operations, listings)
            finally:
                await store.close()

    asyncio.run(run_on_a_new_file())
