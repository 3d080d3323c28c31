"""What the S3 store promises beyond the contract: large bodies, parallel reads, clear refusals."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from rpcshare.storage import StoreError, open_store
from rpcshare.storage.s3 import S3Store
from rpcshare.storage.s3_client import create_client
from rpcshare.storage.s3_location import S3Location
from support.s3_fault_proxy import Fault, FaultProxy
from support.s3_server import S3Server

MIB = 2**20


@asynccontextmanager
async def opened(location: S3Location) -> AsyncIterator[S3Store]:
    store = await S3Store.open(location)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def proxy(s3: S3Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(s3.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def location(s3: S3Server, proxy: FaultProxy) -> S3Location:
    return s3.location(endpoint_url=proxy.url)


@pytest.fixture
async def store(location: S3Location, proxy: FaultProxy) -> AsyncIterator[S3Store]:
    async with opened(location) as store:
        proxy.methods()
        yield store


async def uploads_left(location: S3Location) -> list[str]:
    async with create_client(location) as client:
        listing = await client.list_multipart_uploads(Bucket=location.bucket)
    return [each["Key"] for each in listing.get("Uploads", ()) if each["Key"].startswith(location.prefix)]


class TestOpening:
    async def test_a_url_names_bucket_prefix_and_endpoint(self, s3: S3Server, location: S3Location) -> None:
        store = await open_store(
            f"s3://{location.bucket}/{location.prefix}?endpoint_url={s3.endpoint_url}&path_style=true"
        )
        await store.put("share/a/head", b"body")
        async with create_client(location) as client:
            found = await client.list_objects_v2(Bucket=location.bucket, Prefix=location.prefix)
        assert [each["Key"] for each in found["Contents"]] == [f"{location.prefix}share/a/head"]
        await store.close()

    async def test_prefixes_of_one_bucket_are_stores_apart(self, location: S3Location) -> None:
        longer = msgspec.structs.replace(location, prefix=location.prefix[:-1] + "-2/")
        async with opened(location) as store, opened(longer) as other:
            await other.put("k", b"")
            assert [info async for info in store.list("")] == []

    async def test_a_bucket_that_is_not_there_is_a_store_error(self, location: S3Location) -> None:
        with pytest.raises(StoreError, match="s3://no-such-bucket: check failed: NoSuchBucket"):
            await S3Store.open(msgspec.structs.replace(location, bucket="no-such-bucket", prefix=""))

    async def test_a_server_that_is_not_there_is_a_store_error(self, location: S3Location) -> None:
        nowhere = msgspec.structs.replace(location, endpoint_url="http://127.0.0.1:1", timeout=0.3)
        with pytest.raises(StoreError, match="cannot connect"):
            await S3Store.open(nowhere)

    async def test_without_credentials_it_says_how_to_give_them(
        self, location: S3Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in os.environ:
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        with pytest.raises(StoreError, match="set AWS_ACCESS_KEY_ID"):
            await S3Store.open(location)

    async def test_wrong_credentials_are_a_store_error_that_does_not_repeat_them(
        self, real_s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        with pytest.raises(StoreError, match="SignatureDoesNotMatch") as failure:
            await S3Store.open(real_s3.location())
        assert "hunter2" not in str(failure.value)


class TestLargeBodies:
    body = os.urandom(MIB) * 17

    async def test_are_written_in_parts_and_read_as_one(self, store: S3Store, proxy: FaultProxy) -> None:
        etag = await store.put("k", self.body)
        assert proxy.methods() == ["POST", "PUT", "PUT", "PUT", "POST"]
        found = await store.get("k")
        assert found is not None
        assert found.body == self.body
        assert found.etag == etag

    async def test_are_written_whole_under_a_condition(self, store: S3Store, proxy: FaultProxy) -> None:
        etag = await store.put("k", self.body, if_absent=True)
        await store.put("k", self.body, if_match=etag)
        assert proxy.methods() == ["PUT", "PUT"]

    async def test_leave_the_old_object_and_no_parts_when_a_part_fails(
        self, location: S3Location, proxy: FaultProxy
    ) -> None:
        async with opened(location) as store:
            await store.put("k", b"old")
        async with opened(msgspec.structs.replace(location, timeout=0.5)) as store:
            proxy.inject(Fault.RESET, method="PUT")
            with pytest.raises(StoreError, match=r"put .*k \(part \d\) failed"):
                await store.put("k", self.body)
            proxy.heal()
        assert await uploads_left(location) == []
        async with opened(location) as store:
            found = await store.get("k")
        assert found is not None
        assert found.body == b"old"

    async def test_leave_no_parts_when_their_writer_gives_up(
        self, location: S3Location, proxy: FaultProxy
    ) -> None:
        async with opened(location) as store:
            proxy.inject(Fault.HANG, method="PUT")
            write = asyncio.create_task(store.put("k", self.body))
            while proxy.under_way < 3:  # noqa: ASYNC110 -- the proxy is not to know of this test
                await asyncio.sleep(0.01)
            write.cancel()
            await asyncio.wait([write])
        assert await uploads_left(location) == []


class TestScan:
    async def test_fetches_objects_side_by_side_and_no_more_than_so_many(
        self, store: S3Store, proxy: FaultProxy
    ) -> None:
        keys = [f"k{n:02}" for n in range(20)]
        await asyncio.gather(*(store.put(key, b"") for key in keys))
        proxy.most_under_way = 0
        proxy.delay = 0.25
        proxy.inject(Fault.DELAY)
        assert [found.key async for found in store.scan("k")] == keys
        assert proxy.most_under_way == 16

    async def test_holds_large_objects_one_or_two_at_a_time(self, store: S3Store, proxy: FaultProxy) -> None:
        for n in range(4):
            await store.put(f"k{n}", bytes(6 * MIB))
        proxy.most_under_way = 0
        proxy.delay = 0.2
        proxy.inject(Fault.DELAY)
        assert len([found async for found in store.scan("k")]) == 4
        assert proxy.most_under_way == 2

    async def test_leaves_out_what_is_deleted_meanwhile(self, store: S3Store) -> None:
        keys = [f"k{n:02}" for n in range(40)]
        await asyncio.gather(*(store.put(key, b"") for key in keys))
        scan = store.scan("k")
        assert (await anext(scan)).key == "k00"
        await store.delete(keys[30:])
        assert [found.key async for found in scan] == keys[1:30]

    async def test_that_is_abandoned_gives_up_what_it_fetches(
        self, store: S3Store, proxy: FaultProxy
    ) -> None:
        await asyncio.gather(*(store.put(f"k{n:02}", b"") for n in range(40)))
        scan = store.scan("k")
        await anext(scan)
        proxy.inject(Fault.HANG)
        await anext(scan)
        async with asyncio.timeout(1):
            assert isinstance(scan, AsyncGenerator)
            await scan.aclose()
            await store.close()


class TestConnections:
    async def test_no_more_requests_are_under_way_than_connections(
        self, location: S3Location, proxy: FaultProxy
    ) -> None:
        async with opened(msgspec.structs.replace(location, connections=3)) as store:
            proxy.delay = 0.05
            proxy.inject(Fault.DELAY)
            await asyncio.gather(*(store.put(f"k{n}", b"") for n in range(9)))
        assert proxy.most_under_way == 3

    async def test_waiting_for_a_connection_is_no_failed_attempt(
        self, location: S3Location, proxy: FaultProxy
    ) -> None:
        slow = msgspec.structs.replace(location, connections=1, attempt_timeout=1.0)
        async with opened(slow) as store:
            proxy.methods()
            proxy.delay = 0.4
            proxy.inject(Fault.DELAY)
            await asyncio.gather(*(store.put(f"k{n}", b"") for n in range(3)))
        assert proxy.methods() == ["PUT"] * 3

    async def test_closing_finishes_the_writes_under_way(
        self, location: S3Location, proxy: FaultProxy
    ) -> None:
        store = await S3Store.open(location)
        proxy.inject(Fault.DELAY)
        write = asyncio.create_task(store.put("k", b"body"))
        await asyncio.sleep(0)
        await store.close()
        assert write.done()
        proxy.heal()
        etag = await write
        async with opened(location) as again:
            assert await again.get("k") == ("k", b"body", etag)
