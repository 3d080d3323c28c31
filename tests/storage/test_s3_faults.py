"""S3 that answers wrongly, late, by half or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from rpcshare.storage import PreconditionFailedError, StoreError
from rpcshare.storage.s3 import S3Store
from rpcshare.storage.s3_location import S3Location
from support.s3_fault_proxy import Fault, FaultProxy, answer
from support.s3_server import S3Server

TIMEOUT = 1.0  # where a fault lasts
ATTEMPT_TIMEOUT = 0.5  # where an attempt is not answered, which others must have time for


@pytest.fixture
async def proxy(s3: S3Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(s3.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def location(s3: S3Server, proxy: FaultProxy) -> S3Location:
    return s3.location(endpoint_url=proxy.url)


@pytest.fixture
async def store(location: S3Location) -> AsyncIterator[S3Store]:
    opened = await S3Store.open(location)
    yield opened
    await opened.close()


@pytest.fixture
async def brisk(location: S3Location) -> AsyncIterator[S3Store]:
    """A store in the same place, for requests that are not answered."""
    opened = await S3Store.open(msgspec.structs.replace(location, attempt_timeout=ATTEMPT_TIMEOUT))
    yield opened
    await opened.close()


@pytest.fixture
async def impatient(location: S3Location) -> AsyncIterator[S3Store]:
    """A store in the same place, for faults that last."""
    opened = await S3Store.open(msgspec.structs.replace(location, timeout=TIMEOUT))
    yield opened
    await opened.close()


@pytest.fixture
async def other(s3: S3Server, location: S3Location) -> AsyncIterator[S3Store]:
    """Another server's store in the same place, which has no proxy in between."""
    opened = await S3Store.open(
        S3Location(bucket=location.bucket, prefix=location.prefix, endpoint_url=s3.endpoint_url)
    )
    yield opened
    await opened.close()


async def keys_in(store: S3Store) -> list[str]:
    return [info.key async for info in store.list("")]


async def every_call(store: S3Store) -> dict[str, object]:
    """Make each call, side by side; return what it returned or raised."""
    calls = {
        "get": store.get("k"),
        "put": store.put("new", b"body"),
        "delete": store.delete(["old"]),
        "list": keys_in(store),
        "check": store.check(),
    }
    return dict(zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True))


def name(fault: Fault) -> str:
    return fault.name.lower()


@pytest.mark.parametrize("fault", Fault, ids=name)
async def test_a_passing_fault_is_not_noticed(
    brisk: S3Store, proxy: FaultProxy, other: S3Store, fault: Fault
) -> None:
    for key in ("k", "old"):
        await other.put(key, key.encode() * 1000)
    proxy.delay = 0.05
    proxy.inject(fault, times=5)
    outcomes = await every_call(brisk)
    assert [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)] == []
    assert await keys_in(other) == ["k", "new"]


async def test_a_page_of_somebody_else_is_not_taken_for_an_empty_listing(
    store: S3Store, proxy: FaultProxy
) -> None:
    await store.put("k", b"body")
    proxy.inject(answer(200, b"text/html", b"<html><body>Please log in</body></html>"), times=1)
    assert await keys_in(store) == ["k"]


LASTING = [each for each in Fault if each not in (Fault.DELAY, Fault.TRICKLE, Fault.TRUNCATE, Fault.NONSENSE)]


async def test_a_lasting_fault_is_a_store_error_in_time(s3: S3Server) -> None:
    found = {}
    async with AsyncExitStack() as resources:

        async def call(fault: Fault, store: S3Store) -> None:
            async with asyncio.timeout(TIMEOUT + 30):  # on a busy machine
                outcomes = await every_call(store)
            found[fault] = {type(outcome) for outcome in outcomes.values()}

        calls = []
        for fault in LASTING:
            proxy = await resources.enter_async_context(FaultProxy(s3.endpoint_url))
            location = s3.location(endpoint_url=proxy.url, timeout=TIMEOUT, attempt_timeout=ATTEMPT_TIMEOUT)
            store = await S3Store.open(location)
            resources.push_async_callback(store.close)
            proxy.inject(fault)
            calls.append(call(fault, store))
        await asyncio.gather(*calls)  # which take their time
    assert found == {fault: {StoreError} for fault in LASTING}


async def test_an_error_names_operation_and_cause(impatient: S3Store, proxy: FaultProxy) -> None:
    proxy.inject(Fault.SLOW_DOWN)
    with pytest.raises(StoreError, match=r"s3://.*: put share/a/head failed: SlowDown \(HTTP 503\)"):
        await impatient.put("share/a/head", b"")


async def test_neither_errors_nor_logs_tell_of_credentials_and_bodies(
    store: S3Store, impatient: S3Store, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await store.put("k", b"what users wrote")
    await store.get("k")
    told = caplog.text
    for fault in (Fault.ERROR_500, Fault.RESET):
        proxy.inject(fault, times=1)
    proxy.inject(Fault.HANG)
    with pytest.raises(StoreError) as failure:
        await impatient.put("k", b"what users wrote")
    told += repr(failure.value) + caplog.text
    assert "put k" in told
    for hidden in ("what users wrote", "Signature", "AWS4-HMAC"):
        assert hidden not in told


async def test_five_seconds_after_requests_hung_all_calls_have_succeeded(
    store: S3Store, proxy: FaultProxy
) -> None:
    await store.put("k", b"body")
    proxy.inject(Fault.HANG)
    calls = asyncio.create_task(every_call(store))
    await asyncio.sleep(0.3)
    proxy.heal()
    async with asyncio.timeout(5):
        outcomes = await calls
    assert [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)] == []


class TestLostAnswers:
    async def test_a_write_if_absent_finds_its_own_object(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.inject(Fault.LOSE_ANSWER, times=1, method="PUT")
        etag = await store.put("k", b"body", if_absent=True)
        assert await store.get("k") == ("k", b"body", etag)

    async def test_a_write_if_match_finds_its_own_object(self, store: S3Store, proxy: FaultProxy) -> None:
        old = await store.put("k", b"old")
        proxy.inject(Fault.LOSE_ANSWER, times=1, method="PUT")
        etag = await store.put("k", b"new", if_match=old)
        assert await store.get("k") == ("k", b"new", etag)

    async def test_no_attempt_is_made_that_the_store_does_not_know_of(
        self, store: S3Store, proxy: FaultProxy
    ) -> None:
        """On a connection used before, aiohttp would repeat the request by itself."""
        await store.put("before", b"")
        proxy.methods()
        proxy.inject(Fault.LOSE_ANSWER, times=1, method="PUT")
        await store.put("k", b"body", if_absent=True)
        assert proxy.methods() == ["PUT", "PUT", "GET"]

    async def test_several_in_a_row_make_no_difference(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.inject(Fault.LOSE_ANSWER, times=3)
        etag = await store.put("k", b"body", if_absent=True)
        assert await store.get("k") == ("k", b"body", etag)

    async def test_a_write_that_may_have_been_replaced_is_a_store_error(
        self, store: S3Store, proxy: FaultProxy, other: S3Store
    ) -> None:
        await other.put("k", b"theirs")
        proxy.inject(Fault.ERROR_500, times=1, method="PUT")
        with pytest.raises(StoreError, match="may have been written"):
            await store.put("k", b"ours", if_absent=True)

    async def test_a_write_that_was_refused_lost_its_race(
        self, store: S3Store, proxy: FaultProxy, other: S3Store
    ) -> None:
        await other.put("k", b"theirs")
        proxy.inject(Fault.SLOW_DOWN, times=1, method="PUT")
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"ours", if_absent=True)

    async def test_an_equal_body_of_another_is_not_taken_for_ones_own(
        self, store: S3Store, proxy: FaultProxy, other: S3Store
    ) -> None:
        await other.put("k", b"body")
        proxy.inject(Fault.CONFLICT, times=1, method="PUT")
        with pytest.raises(PreconditionFailedError):
            await store.put("k", b"body", if_absent=True)


class TestDeletion:
    def refusal(self, code: str) -> bytes:
        body = f"<DeleteResult><Error><Key>k</Key><Code>{code}</Code></Error></DeleteResult>"
        return answer(200, b"application/xml", body.encode())

    async def test_what_was_not_deleted_for_now_is_tried_again(
        self, store: S3Store, proxy: FaultProxy, other: S3Store
    ) -> None:
        await store.put("k", b"")
        proxy.inject(self.refusal("InternalError"), times=1)
        await store.delete(["k"])
        assert await keys_in(other) == []

    async def test_what_may_not_be_deleted_is_a_store_error(self, store: S3Store, proxy: FaultProxy) -> None:
        proxy.inject(self.refusal("AccessDenied"), times=1)
        with pytest.raises(StoreError, match="AccessDenied"):
            await store.delete(["k"])


PAGE = (
    b"<ListBucketResult><IsTruncated>true</IsTruncated>%s"
    b"<Contents><Key>%s</Key><ETag>&quot;1&quot;</ETag><Size>1</Size></Contents></ListBucketResult>"
)
TOKEN = b"<NextContinuationToken>again</NextContinuationToken>"


@pytest.mark.parametrize(
    ("token", "why"), [(TOKEN, "is not in order"), (b"", "does not go on")], ids=["the same page", "no token"]
)
async def test_a_listing_that_begins_anew_is_an_error_and_not_endless(
    store: S3Store, location: S3Location, proxy: FaultProxy, token: bytes, why: str
) -> None:
    page = PAGE % (token, f"{location.prefix}k".encode())
    proxy.inject(answer(200, b"application/xml", page), method="GET")
    with pytest.raises(StoreError, match=why):
        await keys_in(store)


async def test_a_listing_of_empty_pages_is_an_error_and_not_endless(
    store: S3Store, proxy: FaultProxy
) -> None:
    page = b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>" % TOKEN
    proxy.inject(answer(200, b"application/xml", page), method="GET")
    with pytest.raises(StoreError, match="does not go on"):
        await keys_in(store)
