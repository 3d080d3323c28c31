"""Small objects written to S3 with botocore's description of one request, in place of a new one for each.

botocore takes some 600 µs of CPU for a request, of which the signature and the HTTP client are a third. The
rest finds out each time what is the same each time: the endpoint, its region, how the bucket is addressed,
what the parameters may be. So botocore is asked once to describe a request, which is not sent. What is sent
on that model is signed by botocore's own signer, and goes through the same pool of connections.

Whatever is not plain is left to botocore. As long as no request on a model has succeeded, a refusal may be
due to the model: the request was not carried out, and botocore makes it again. So it is with a redirection.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.parsers import create_parser

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

__all__ = ["PutModel", "describe_put", "put_like"]

_OPERATION = "PutObject"
_SIGNED_AS = "s3v4"
# As the key of what is described, and of nothing else.
_MARK = "rpcshare-describes-a-put"

# What botocore says of itself; and of an attempt, which a store need not hear, and what the HTTP client sets.
# A request with any other header is one that this module cannot make.
_TOLD = frozenset({"user-agent"})
_LEFT_OUT = frozenset({"amz-sdk-invocation-id", "amz-sdk-request", "content-length", "expect"})

# Of what botocore notes of a request; the parameters hold the body.
_OF_ONE_REQUEST = frozenset({"input_params", "retries", "s3_redirect"})

# HTTP statuses of answers that no other request would have got: 409 is a conflict of two conditional writes.
_OF_THE_STATE = frozenset({409, 412, 429})


class PutModel(msgspec.Struct, frozen=True):
    """What all requests that write an object have in common."""

    url: str
    """What comes before the key."""
    region: str
    service: str
    headers: dict[str, str]
    context: dict[str, Any]
    """By which botocore's signer decides how to sign."""


class _DescribedError(Exception):
    """Raised in the place of sending the request."""

    def __init__(self, model: PutModel | None) -> None:
        super().__init__()
        self.model = model


async def describe_put(client: "S3Client", bucket: str) -> PutModel | None:
    """Return how ``client`` would write to ``bucket``; None if it does so in a way that is not known here.

    Nothing is sent, except that botocore may fetch credentials.

    Raises:
        BotoCoreError: as for any request: there is something in the way of settings.
    """
    # They stay, since others may ask meanwhile. Again is no error.
    client.meta.events.register(f"before-sign.s3.{_OPERATION}", _describe, unique_id=f"{_MARK}-1")
    client.meta.events.register(f"before-send.s3.{_OPERATION}", _do_not_send, unique_id=f"{_MARK}-2")
    try:
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
        PutModel(
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


async def put_like(
    model: PutModel,
    client: "S3Client",
    credentials: ReadOnlyCredentials,
    key: str,
    body: bytes,
    conditions: Mapping[str, str],
    *,
    is_proven: bool,
) -> str | None:
    """Write ``body`` at ``key``, and return its etag; None: the store refused, and botocore is to ask again.

    Args:
        model: of ``client``.
        client: whose connections are used.
        credentials: to sign with.
        key: of the object.
        body: to be written.
        conditions: ``If-Match`` or ``If-None-Match``, by that name.
        is_proven: whether a request on this model has succeeded.

    Raises:
        ClientError: the store refused, and would refuse botocore's request too; or it failed.
        KeyError: the store's answer names no etag.
        BotoCoreError, ResponseParserError: there is no answer, or none of S3.
    """
    headers = {**model.headers, **conditions}
    request = AWSRequest("PUT", model.url + quote(key, safe="/~"), headers, body)
    request.context = dict(model.context)
    S3SigV4Auth(credentials, model.service, model.region).add_auth(request)
    # There is no public way to the pool of a client.
    session = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    answer = await session.send(request.prepare())
    status: int = answer.status_code
    if status < 300:
        return str(answer.headers["ETag"])
    if status < 400 or (status < 500 and not is_proven and status not in _OF_THE_STATE):
        return None
    said = {"body": await answer.content, "headers": answer.headers, "status_code": status}
    shape: Any = client.meta.service_model.operation_model(_OPERATION).output_shape
    raise ClientError(create_parser("rest-xml").parse(said, shape), _OPERATION)
