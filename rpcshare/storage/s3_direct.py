"""Objects read from S3 and written there without botocore's client, as it would.

botocore and aiohttp take some 600 µs of CPU for a request, because they find out each time what is the same
each time: the endpoint, its region, how the bucket is addressed, what the parameters may be. So botocore is
asked once to describe a request, which is not sent. What is sent on that model takes 60 µs.

Whatever is not plain is left to botocore: other signatures than the usual one, more headers, a proxy. As
long as no request on a model has succeeded, a refusal may be due to the model: the request was not carried
out, and botocore makes it again. So it is with a redirection.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.utils import get_environ_proxies

from rpcshare.storage.http_connections import HTTPConnections, NotHTTPError, OnBody, Response
from rpcshare.storage.s3_failures import check_not_redirected
from rpcshare.storage.s3_signature import Keys, Signer

if TYPE_CHECKING:
    from aiobotocore.credentials import AioCredentials
    from types_aiobotocore_s3 import S3Client

__all__ = ["DirectRequests", "describe"]

logger = logging.getLogger(__name__)

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

_LARGEST_ANSWER = 2**20  # bytes: to what writes, which says little, or why not

_PORTS = {"http": 80, "https": 443}

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


class _Target:
    """Where requests on a model go, and what they begin with."""

    def __init__(self, model: Model, connections: HTTPConnections) -> None:
        self.connections = connections
        self._model = model
        self._host, self._path = _split(model.url)
        self._signer = Signer(model.service, model.region)
        self._fixed = _lines({"accept": "*/*", "accept-encoding": "identity", **model.headers})

    def request(self, method: str, key: str, body: bytes, conditions: Mapping[str, str], keys: Keys) -> bytes:
        """Return a whole request, signed with ``keys``. The names of ``conditions`` are in lower case."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._path + quote(key, safe="/~")
        headers = self._signer.sign(method, path, {"host": self._host, **conditions}, body, keys, now)
        length = f"Content-Length: {len(body)}\r\n" if method == "PUT" else ""
        head = f"{method} {path} HTTP/1.1\r\n{_lines(headers)}{self._fixed}{length}\r\n"
        return head.encode("ascii") + body

    def signs_as_botocore(self, keys: Keys) -> bool:
        """Whether botocore would sign in the same way, whatever its settings and versions."""
        conditions, body = {"if-none-match": "*"}, b"body"
        request = AWSRequest("PUT", self._model.url + _MARK, conditions, body)
        request.context = dict(self._model.context)
        S3SigV4Auth(ReadOnlyCredentials(*keys), self._model.service, self._model.region).add_auth(request)
        theirs = {name.lower(): str(value) for name, value in request.headers.items()}
        now = theirs.get("x-amz-date", "")
        ours = self._signer.sign(
            "PUT", self._path + _MARK, {"host": self._host, **conditions}, body, keys, now
        )
        return {**theirs, "host": self._host} == ours


def _lines(headers: Mapping[str, str]) -> str:
    # The case should not matter. This is how other clients have it, in case that it does.
    return "".join([f"{name.title()}: {value}\r\n" for name, value in headers.items()])


def _split(url: str) -> tuple[str, str]:
    """Return what a request says of the host of a URL, and the path."""
    parts = urlsplit(url)
    host, port = _address(url)
    host = f"[{host}]" if ":" in host else host
    return host if port == _PORTS[parts.scheme] else f"{host}:{port}", parts.path


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


class _Modelled:
    """The requests of one operation."""

    def __init__(self, operation: Operation) -> None:
        self.operation: Operation = operation
        self.target: _Target | None = None
        # Whether one on this model has succeeded; and how often one was refused, and botocore's own was not.
        self.is_proven = False
        self.refusals = 0


class DirectRequests:
    """Makes the requests of ``client`` that its methods are for, if it can."""

    def __init__(
        self,
        client: "S3Client",
        credentials: "AioCredentials",
        tls: Callable[[], Awaitable[ssl.SSLContext]],
        connect_timeout: float,
    ) -> None:
        """For the store of ``client``.

        Args:
            client: describes requests.
            credentials: those of ``client``.
            tls: returns how ``client`` checks certificates.
            connect_timeout: seconds.
        """
        self._client = client
        self._credentials = credentials
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._describing = asyncio.Lock()
        self._connections: dict[tuple[str, int], HTTPConnections] = {}
        self._puts = _Modelled("PutObject")
        self._gets = _Modelled("GetObject")

    def close(self) -> None:
        """Close all connections that are not in use; the others after their response."""
        for connections in self._connections.values():
            connections.close()

    async def put(self, bucket: str, key: str, body: bytes, conditions: Mapping[str, str]) -> str | None:
        """Write ``body`` at ``key``, and return its etag; None: botocore is to make the request.

        Args:
            bucket: always the same one.
            key: of the object.
            body: to be written.
            conditions: ``If-Match`` or ``If-None-Match``, by that name.

        Raises:
            ClientError: the store refused, and would refuse botocore's request too; or it failed.
            RedirectedError: the store is somewhere else.
            KeyError: the store's answer names no etag.
            BotoCoreError, ResponseParserError, OSError: there is no answer, or none of S3.
        """
        if not all(map(_is_plain, conditions.values())):
            return None
        lowered = {name.lower(): value for name, value in conditions.items()}
        answer = await self._send(self._puts, "PUT", bucket, key, body, lowered)
        return None if answer is None else answer.headers["etag"]

    async def get(self, bucket: str, key: str, allow_for: Callable[[int], None]) -> tuple[bytes, str] | None:
        """Return the object at ``key`` with its etag; None: botocore is to make the request.

        Args:
            bucket: always the same one.
            key: of the object.
            allow_for: called with the bytes of the object as they arrive.

        Raises:
            ClientError: as :meth:`put`; there is no such object, among others.
            RedirectedError: the store is somewhere else.
            KeyError: the store's answer names no etag, or no length.
            BotoCoreError, ResponseParserError, OSError: there is no answer, or none of S3, or half of one.
        """
        # As they arrive: what a store announces, it may never send.
        answer = await self._send(self._gets, "GET", bucket, key, b"", {}, allow_for)
        if answer is None:
            return None
        _ = answer.headers["content-length"]  # without it, there is no telling whether it is whole
        return answer.body, answer.headers["etag"]

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
        on_body: OnBody | None = None,
    ) -> Response | None:
        """Return the answer, if it is one of success; None as above."""
        if modelled.refusals >= _MOST_REFUSALS:
            return None
        kept = await self._credentials.get_frozen_credentials()
        if not (kept.access_key and kept.secret_key):
            return None
        keys = Keys(kept.access_key, kept.secret_key, kept.token)
        target = modelled.target
        if target is None:
            async with self._describing:  # which many need at once, and one finds out for all
                if modelled.refusals >= _MOST_REFUSALS:
                    return None
                target = modelled.target
                if target is None:
                    target = modelled.target = await self._target(modelled.operation, bucket, keys)
            if target is None:
                modelled.refusals = _MOST_REFUSALS
                return None
        request = target.request(method, key, body, conditions, keys)
        try:
            largest = None if method == "GET" else _LARGEST_ANSWER
            answer = await target.connections.exchange(request, on_body, largest=largest)
        except NotHTTPError as exc:
            logger.warning("Requests to S3 are made by botocore from now on, which takes more CPU: %s", exc)
            # aiohttp forgives a store more than the letter allows.
            modelled.refusals = _MOST_REFUSALS
            raise
        status = answer.status
        if status < 300:
            modelled.is_proven = True
            return answer
        check_not_redirected(status, answer.headers)
        if status < 400 or (status < 500 and not modelled.is_proven and status not in _OF_THE_STATE):
            # Perhaps the bucket is in another region, which botocore finds out now and tells the next time.
            modelled.target = None
            modelled.is_proven = False
            return None
        said = {"body": answer.body, "headers": answer.headers, "status_code": status}
        shape: Any = self._client.meta.service_model.operation_model(modelled.operation).output_shape
        raise ClientError(create_parser("rest-xml").parse(said, shape), modelled.operation)

    async def _target(self, operation: Operation, bucket: str, keys: Keys) -> _Target | None:
        """Return where ``operation`` goes; None if in a way that is not known here."""
        model = await describe(self._client, operation, bucket)
        if model is None:
            return None
        scheme = urlsplit(model.url).scheme
        if scheme not in _PORTS or scheme in get_environ_proxies(model.url):
            return None
        host, port = address = _address(model.url)
        if address not in self._connections:
            tls = await self._tls() if scheme == "https" else None
            self._connections[address] = HTTPConnections(
                host, port, tls, connect_timeout=self._connect_timeout
            )
        target = _Target(model, self._connections[address])
        return target if target.signs_as_botocore(keys) else None


def _is_plain(value: str) -> bool:
    """Whether a value is sent and signed as it is: there are etags that are no tokens."""
    return value.isascii() and value.isprintable() and " ".join(value.split()) == value
