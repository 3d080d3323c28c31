"""Objects in a bucket of S3, or of a store that speaks its protocol."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Self

from botocore.exceptions import ClientError

from rpcshare.storage.s3_client import Client
from rpcshare.storage.s3_failures import Failure
from rpcshare.storage.s3_location import S3Location
from rpcshare.storage.s3_multipart import put_in_parts
from rpcshare.storage.s3_requests import RefusedError, S3Requests, TimeLimit
from rpcshare.storage.store import ObjectInfo, PreconditionFailedError, StoredObject, StoreError

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import (
        ListObjectsV2OutputTypeDef,
        ListObjectsV2RequestTypeDef,
        ObjectIdentifierTypeDef,
    )

__all__ = ["S3Store"]

logger = logging.getLogger(__name__)

_IN_PARTS_FROM = 16 * 2**20  # bytes
_KEYS_AT_ONCE = 1000  # what S3 lists in one answer, and deletes at one request
_DELETED_SIDE_BY_SIDE = 16  # where each takes a request
_CHECK_TIMEOUT = 5.0  # seconds

# What a scan fetches before it is asked for.
_OBJECTS_AHEAD = 16
_BYTES_AHEAD = 16 * 2**20  # unless one object is larger


class S3Store:
    """An :class:`~rpcshare.storage.ObjectStore` in a bucket, which servers may share.

    A request that fails is attempted again until the time of its operation is over: see
    :class:`~rpcshare.storage.s3_location.S3Location`. Writers exclude each other only if the store
    honours ``If-None-Match`` and ``If-Match``: see
    :func:`~rpcshare.storage.check_conditional_writes`.
    """

    def __init__(self, location: S3Location, requests: S3Requests) -> None:
        """For :meth:`open`, which makes what this takes."""
        self._location = location
        self._bucket = location.bucket
        self._prefix = location.prefix
        self._requests = requests
        self._takes_deletions_together = True

    @classmethod
    async def open(cls, location: S3Location) -> Self:
        """Open the store at ``location``, whose bucket must be there.

        Raises:
            StoreError: it does not answer, has no such bucket, or does not let us in.
        """
        store = cls(location, await S3Requests.open(location))
        try:
            await store.check()
        except BaseException:
            await store.close()
            raise
        return store

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none."""
        return await self._get(key)

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write ``body`` at ``key`` if the conditions hold, and return its etag.

        Raises:
            PreconditionFailedError: they do not hold, and it was not this call that ended them.
            StoreError: also if an answer was lost, and what is there now does not show whether
                ``body`` has been there.
        """
        if if_absent:
            if if_match is not None:
                raise PreconditionFailedError(f"nothing at {key} and an etag: no object is both")
        elif if_match is None and len(body) > _IN_PARTS_FROM:
            # Not so with a condition: one request takes up to 5 GiB and succeeds or not. When parts are
            # put together a conflict means to send them all again, and some servers ignore conditions.
            return _bare(await put_in_parts(self._requests, self._prefix + key, body))
        return await self._put(key, body, if_absent=if_absent, if_match=if_match)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), _KEYS_AT_ONCE):
            await self._delete(distinct[start : start + _KEYS_AT_ONCE])

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        request: ListObjectsV2RequestTypeDef = {
            "Bucket": self._bucket,
            "Prefix": self._prefix + prefix,
            "MaxKeys": _KEYS_AT_ONCE,
        }
        if start_after:
            request["StartAfter"] = self._prefix + start_after
        last = ""
        while True:
            page = await self._list_page(f"list {prefix}", request)
            for found in page.get("Contents", ()):
                key = found["Key"]
                if key <= last:  # a store that begins anew would be listed for ever
                    raise StoreError(f"{self._location}: list {prefix}: the listing is not in order")
                last = key
                yield ObjectInfo(key.removeprefix(self._prefix), _bare(found["ETag"]), found["Size"])
            if not page["IsTruncated"]:
                return
            token = page.get("NextContinuationToken", "")
            if token in ("", request.get("ContinuationToken")):
                raise StoreError(f"{self._location}: list {prefix}: the listing does not go on")
            request["ContinuationToken"] = token

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order.

        Some are fetched ahead, side by side. What is deleted between the listing and its turn is
        left out.
        """
        ahead: deque[tuple[int, asyncio.Task[StoredObject | None]]] = deque()
        size = 0  # of all in ahead, in bytes
        try:
            async for info in self.list(prefix, start_after=start_after):
                while ahead and (len(ahead) == _OBJECTS_AHEAD or size + info.size > _BYTES_AHEAD):
                    if (found := await ahead[0][1]) is not None:
                        yield found
                    size -= ahead.popleft()[0]
                ahead.append((info.size, asyncio.create_task(self.get(info.key))))
                size += info.size
            while ahead:
                if (found := await ahead[0][1]) is not None:
                    yield found
                ahead.popleft()
        finally:
            fetches = [fetch for _, fetch in ahead]
            for fetch in fetches:
                fetch.cancel()
            await asyncio.gather(*fetches, return_exceptions=True)

    async def check(self) -> None:
        """Return if the bucket can be listed now; raise :class:`StoreError` after 5 s if not."""
        request: ListObjectsV2RequestTypeDef = {
            "Bucket": self._bucket,
            "Prefix": self._prefix,
            "MaxKeys": 1,
        }
        await self._list_page("check", request, within=min(_CHECK_TIMEOUT, self._location.timeout))

    async def close(self) -> None:
        """Finish the requests under way, and close all connections."""
        await self._requests.close()

    async def _get(self, key: str, within: float | None = None) -> StoredObject | None:
        async def read(client: Client, limit: TimeLimit) -> StoredObject:
            body, etag = await client.get(self._bucket, self._prefix + key, limit.allow_for)
            return StoredObject(key, body, _bare(etag))

        try:
            return await self._requests.send(f"get {key}", read, within=within)
        except RefusedError as refusal:
            if refusal.failure.code == "NoSuchKey":
                return None
            raise

    async def _put(self, key: str, body: bytes, *, if_absent: bool, if_match: str | None) -> str:
        async def write(client: Client, _limit: TimeLimit) -> str:
            conditions: dict[str, str] = {}
            if if_absent:
                conditions["If-None-Match"] = "*"
            if if_match is not None:
                conditions["If-Match"] = if_match if if_match.startswith(_WEAK) else f'"{if_match}"'
            return _bare(await client.put(self._bucket, self._prefix + key, body, conditions))

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._requests.seconds_for(len(body))
        try:
            return await self._requests.send(f"put {key}", write, size=len(body))
        except RefusedError as refusal:
            if not _is_precondition(refusal.failure, if_match):
                raise
            if not refusal.is_in_doubt:
                what = f"there is an object at {key}" if if_absent else f"the object at {key} has changed"
                raise PreconditionFailedError(what) from None
        # An attempt got no answer, and the next found another state: perhaps that which the first made.
        found = await self._get(key, within=max(deadline - loop.time(), 0.001))
        if found is None or found.body != body:
            raise StoreError(f"{self._location}: put {key}: an answer was lost; it may have been written")
        return found.etag

    async def _delete(self, keys: Sequence[str]) -> None:
        if self._takes_deletions_together:
            try:
                await self._delete_together(keys)
            except RefusedError as refusal:
                if not refusal.failure.is_about_form:
                    raise
                logger.warning("Objects are deleted one by one from now on: %s", refusal)
                self._takes_deletions_together = False
            else:
                return
        for start in range(0, len(keys), _DELETED_SIDE_BY_SIDE):
            try:
                async with asyncio.TaskGroup() as group:
                    for key in keys[start : start + _DELETED_SIDE_BY_SIDE]:
                        group.create_task(self._delete_one(key))
            except ExceptionGroup as failures:  # one is enough to give up, and to tell of
                raise failures.exceptions[0] from None

    async def _delete_together(self, keys: Sequence[str]) -> None:
        async def remove(client: Client, _limit: TimeLimit) -> None:
            objects: Sequence[ObjectIdentifierTypeDef] = [{"Key": self._prefix + key} for key in keys]
            answer = await client.s3.delete_objects(
                Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
            )
            for error in answer.get("Errors", ()):  # within an answer of success
                code, message = error.get("Code", ""), error.get("Message", "")
                raise ClientError({"Error": {"Code": code, "Message": message}}, "DeleteObjects")

        await self._requests.send(f"delete of {len(keys)} objects", remove)

    async def _delete_one(self, key: str) -> None:
        async def remove(client: Client, _limit: TimeLimit) -> None:
            await client.s3.delete_object(Bucket=self._bucket, Key=self._prefix + key)

        try:
            await self._requests.send(f"delete {key}", remove)
        except RefusedError as refusal:
            if refusal.failure.code != "NoSuchKey":  # which S3 itself never says here
                raise

    async def _list_page(
        self, what: str, request: "ListObjectsV2RequestTypeDef", *, within: float | None = None
    ) -> "ListObjectsV2OutputTypeDef":
        async def read(client: Client, _limit: TimeLimit) -> "ListObjectsV2OutputTypeDef":
            page = await client.s3.list_objects_v2(**request)
            _ = page["IsTruncated"]  # other XML than a listing must not be taken for an empty one
            return page

        return await self._requests.send(what, read, within=within)


def _is_precondition(failure: Failure, if_match: str | None) -> bool:
    # S3 tells of an object that is gone in this way.
    is_gone = if_match is not None and failure.code == "NoSuchKey"
    return is_gone or failure.status == _PRECONDITION_FAILED


_PRECONDITION_FAILED = 412  # RFC 9110 section 15.5.13


def _bare(etag: str) -> str:
    """Return an etag without its quotes, which not every store gives everywhere; a weak one as it is."""
    return etag if etag.startswith(_WEAK) else etag.strip('"')


_WEAK = "W/"  # RFC 9110 section 8.8.3
