"""Objects read from S3 and written there on the model of one request, in place of a new description for each.

botocore takes some 600 µs of CPU for a request, of which the signature and the HTTP client are a third. The
rest finds out each time what is the same each time: the endpoint, its region, how the bucket is addressed,
what the parameters may be. So botocore is asked once to describe a request, which is not sent. What is sent
on that model is signed by botocore's own signer, and goes through the same pool of connections.

Whatever is not plain is left to botocore. As long as no request on a model has succeeded, a refusal may be
due to the model: the request was not carried out, and botocore makes it again. So it is with a redirection.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.exceptions import ClientError
from botocore.parsers import create_parser

if TYPE_CHECKING:
    from aiobotocore.credentials import AioCredentials
    from types_aiobotocore_s3 import S3Client

__all__ = ["DirectRequests", "describe"]

_SIGNED_AS = "s3v4"
# The key of what is described, and of nothing else.
_MARK = "rpcshare-describes-a-request"

# What botocore says of itself; and of an attempt, which a store need not hear, and what the HTTP client sets.
# A request with any other header is one that this module cannot make.
_TOLD = frozenset({"user-agent"})
_LEFT_OUT = frozenset({"amz-sdk-invocation-id", "amz-sdk-request", "content-length", "expect"})

# Of what botocore notes of a request; the parameters hold the body.
_OF_ONE_REQUEST = frozenset({"input_params", "retries", "s3_redirect"})

# HTTP statuses of answers that no other request would have got: 409 is a conflict of two conditional writes.
_OF_THE_STATE = frozenset({409, 412, 429})

# Of requests on a model, where botocore's own then succeeded: from then on it makes all of them.
_MOST_REFUSALS = 5

Operation = Literal["GetObject", "PutObject"]


class Model(msgspec.Struct, frozen=True):
    """What all requests of one operation on a bucket have in common."""

    url: str
    """What comes before the key."""
    region: str
    service: str
    headers: dict[str, str]
    context: dict[str, Any]
    """By which botocore's signer decides how to sign."""


class _DescribedError(Exception):
    """Raised in the place of sending the request."""

    def __init__(self, model: Model | None) -> None:
        super().__init__()
        self.model = model


async def describe(client: "S3Client", operation: Operation, bucket: str) -> Model | None:
    """Return how ``client`` does ``operation`` in ``bucket``; None if in a way that is not known here.

    Nothing is sent, except that botocore may fetch credentials.

    Raises:
        BotoCoreError: as for any request: there is something in the way of settings.
    """
    # They stay, since others may ask meanwhile. Again is no error.
    client.meta.events.register(f"before-sign.s3.{operation}", _describe, unique_id=f"{_MARK}-{operation}")
    client.meta.events.register(
        f"before-send.s3.{operation}", _do_not_send, unique_id=f"{_MARK}-{operation}-2"
    )
    try:
        if operation == "GetObject":
            await client.get_object(Bucket=bucket, Key=_MARK)
        else:
            await client.put_object(Bucket=bucket, Key=_MARK, Body=b"")
    except _DescribedError as described:
        return described.model
    return None


def _describe(
    request: AWSRequest, signing_name: str, region_name: str, signature_version: object, **_more: object
) -> None:
    url = request.url or ""
    if not url.endswith(f"/{_MARK}"):
        return  # another request, which is sent
    signing = request.context.get("signing", {})
    headers = {name.lower(): value for name, value in request.headers.items()}
    is_known = (
        signature_version == _SIGNED_AS
        and not signing.keys() - {"region", "signing_name", "disableDoubleEncoding"}
        and not headers.keys() - _TOLD - _LEFT_OUT
        and "?" not in url
    )
    if not is_known:
        raise _DescribedError(None)
    raise _DescribedError(
        Model(
            url.removesuffix(_MARK),
            signing.get("region") or region_name,
            signing.get("signing_name") or signing_name,
            {name: _text(value) for name, value in headers.items() if name in _TOLD},
            {name: value for name, value in request.context.items() if name not in _OF_ONE_REQUEST},
        )
    )


def _do_not_send(request: AWSPreparedRequest, **_more: object) -> None:
    if str(request.url).endswith(f"/{_MARK}"):
        raise _DescribedError(None)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii")


class _Modelled:
    """The requests of one operation."""

    def __init__(self, operation: Operation) -> None:
        self.operation: Operation = operation
        self.model: Model | None = None
        # Whether one on this model has succeeded; and how often one was refused, and botocore's own was not.
        self.is_proven = False
        self.refusals = 0


class DirectRequests:
    """Makes the requests of ``client`` that its methods are for, if it can."""

    def __init__(self, client: "S3Client", credentials: "AioCredentials") -> None:
        """Sign with ``credentials``, which are those of ``client``."""
        self._client = client
        self._credentials = credentials
        self._puts = _Modelled("PutObject")
        self._gets = _Modelled("GetObject")

    async def put(self, bucket: str, key: str, body: bytes, conditions: Mapping[str, str]) -> str | None:
        """Write ``body`` at ``key``, and return its etag; None: botocore is to make the request.

        Args:
            bucket: always the same one.
            key: of the object.
            body: to be written.
            conditions: ``If-Match`` or ``If-None-Match``, by that name.

        Raises:
            ClientError: the store refused, and would refuse botocore's request too; or it failed.
            KeyError: the store's answer names no etag.
            BotoCoreError, ResponseParserError: there is no answer, or none of S3.
        """
        answer = await self._send(self._puts, "PUT", bucket, key, body, conditions)
        return None if answer is None else str(answer.headers["ETag"])

    async def get(self, bucket: str, key: str, allow_for: Callable[[int], None]) -> tuple[bytes, str] | None:
        """Return the object at ``key`` with its etag; None: botocore is to make the request.

        Args:
            bucket: always the same one.
            key: of the object.
            allow_for: called with the size of the object before that is read.

        Raises:
            ClientError: as :meth:`put`; there is no such object, among others.
            KeyError: the store's answer names no etag, or no length.
            BotoCoreError, ResponseParserError: there is no answer, or none of S3.
            ClientError: of aiohttp: the answer was cut short.
        """
        answer = await self._send(self._gets, "GET", bucket, key, b"", {})
        if answer is None:
            return None
        try:
            allow_for(int(answer.headers["Content-Length"]))
            return await answer.content, str(answer.headers["ETag"])
        finally:
            answer.raw.release()

    def was_refused(self, operation: Operation) -> None:
        """Take note that botocore's own request succeeded, where the one on its model was left to it."""
        (self._puts if operation == "PutObject" else self._gets).refusals += 1

    async def _send(
        self,
        modelled: _Modelled,
        method: str,
        bucket: str,
        key: str,
        body: bytes,
        conditions: Mapping[str, str],
    ) -> Any | None:  # noqa: ANN401 -- what the stubs say of it is not so
        """Return the answer (an AioAWSResponse), a success whose body is still to be read; None as above."""
        if modelled.refusals >= _MOST_REFUSALS:
            return None
        model = modelled.model
        if model is None:
            model = modelled.model = await describe(self._client, modelled.operation, bucket)
            if model is None:
                modelled.refusals = _MOST_REFUSALS
                return None
        headers = {**model.headers, **conditions}
        request = AWSRequest(method, model.url + quote(key, safe="/~"), headers, body, stream_output=True)
        request.context = dict(model.context)
        kept = await self._credentials.get_frozen_credentials()
        S3SigV4Auth(kept, model.service, model.region).add_auth(request)
        # There is no public way to the pool of a client.
        session = self._client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
        answer: Any = await session.send(request.prepare())
        status: int = answer.status_code
        if status < 300:
            modelled.is_proven = True
            return answer
        body = await answer.content
        if status < 400 or (status < 500 and not modelled.is_proven and status not in _OF_THE_STATE):
            # Perhaps the bucket is in another region, which botocore finds out now and tells the next time.
            modelled.model = None
            modelled.is_proven = False
            return None
        said = {"body": body, "headers": answer.headers, "status_code": status}
        shape: Any = self._client.meta.service_model.operation_model(modelled.operation).output_shape
        raise ClientError(create_parser("rest-xml").parse(said, shape), modelled.operation)
