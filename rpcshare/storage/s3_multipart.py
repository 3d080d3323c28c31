"""Large bodies, written in parts that are sent side by side and become one object at the end."""

import asyncio
import io
import logging
from typing import TYPE_CHECKING

from rpcshare.storage.s3_client import Client
from rpcshare.storage.s3_requests import RefusedError, S3Requests, TimeLimit
from rpcshare.storage.store import StoreError

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

__all__ = ["PART_SIZE", "put_in_parts"]

logger = logging.getLogger(__name__)

PART_SIZE = 8 * 2**20  # bytes; S3 takes 5 MiB to 5 GiB, and 10,000 parts
_AT_ONCE = 4


async def put_in_parts(requests: S3Requests, key: str, body: bytes) -> str:
    """Write ``body`` at ``key``, which is that in the bucket, and return its etag.

    Readers see the old object until all parts are there, and the new one then. If it fails or is
    cancelled, the parts are removed; a rule of the bucket should remove those that a crash leaves.

    Raises:
        StoreError: as :meth:`S3Requests.send` does.
    """
    upload = _Upload(requests, key, body)
    await upload.begin()
    try:
        return await upload.finish(await upload.send_parts())
    except BaseException:
        # Not in the way of a caller that has given up: it need not wait for this.
        requests.in_background(upload.abort())
        raise


class _Upload:
    """One multipart upload of S3."""

    def __init__(self, requests: S3Requests, key: str, body: bytes) -> None:
        self._requests = requests
        self._bucket = requests.location.bucket
        self._key = key
        self._body = memoryview(body)
        self._id = ""
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def begin(self) -> None:
        async def create(client: Client, _limit: TimeLimit) -> str:
            answer = await client.s3.create_multipart_upload(Bucket=self._bucket, Key=self._key)
            return answer["UploadId"]

        self._id = await self._requests.send(f"put {self._key}", create)

    async def send_parts(self) -> "list[CompletedPartTypeDef]":
        count = -(-len(self._body) // PART_SIZE)
        try:
            async with asyncio.TaskGroup() as group:
                sent = [group.create_task(self._send_part(number)) for number in range(1, count + 1)]
        except ExceptionGroup as failures:  # one is enough to give up, and to tell of
            raise failures.exceptions[0] from None
        return [task.result() for task in sent]

    async def _send_part(self, number: int) -> "CompletedPartTypeDef":
        part = self._body[(number - 1) * PART_SIZE : number * PART_SIZE]

        async def upload(client: Client, _limit: TimeLimit) -> str:
            answer = await client.s3.upload_part(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._id,
                PartNumber=number,
                Body=io.BytesIO(part),
            )
            return answer["ETag"]

        async with self._slots:
            etag = await self._requests.send(f"put {self._key} (part {number})", upload, size=len(part))
        return {"PartNumber": number, "ETag": etag}

    async def finish(self, parts: "list[CompletedPartTypeDef]") -> str:
        async def complete(client: Client, _limit: TimeLimit) -> str:
            answer = await client.s3.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._id,
                MultipartUpload={"Parts": parts},
            )
            return answer["ETag"]

        return await self._requests.send(f"put {self._key}", complete, size=len(self._body))

    async def abort(self) -> None:
        async def abort(client: Client, _limit: TimeLimit) -> None:
            await client.s3.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._id)

        try:
            await self._requests.send(f"abort put {self._key}", abort)
        except StoreError as exc:
            if isinstance(exc, RefusedError) and exc.failure.code == "NoSuchUpload":
                return
            logger.warning("Parts of an upload stay in the bucket: %s", exc)
