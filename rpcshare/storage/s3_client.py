"""The client that speaks S3: one for the life of a store, with its pool of connections."""

import asyncio
import base64
import functools
import hashlib
import io
import logging
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader
from botocore.utils import determine_content_length

from rpcshare.storage.s3_direct import DirectRequests
from rpcshare.storage.s3_failures import check_not_redirected
from rpcshare.storage.s3_location import S3Location

if TYPE_CHECKING:
    from aiobotocore.credentials import AioCredentials
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import PutObjectRequestTypeDef

__all__ = ["Client", "open_client"]

EXPECT_FROM = 2**20  # bytes; smaller bodies are sent faster than an answer comes
_CONTINUE_WITHIN = 1.0  # seconds: RFC 9110 section 10.1.1 has clients wait for no indefinite period
_EXPECTATION_FAILED = 417

_CONNECT_TIMEOUT = 3.0  # seconds

# At debug they log the headers of requests and the bodies of answers; at info nothing of use.
_TELLING_LOGGERS = ("aiobotocore", "botocore")

_MOST_ALLOWED_FOR = 2**30  # bytes: more may be announced than ever comes


class Client:
    """A client with the credentials that it shows, entered as long as it is in use."""

    def __init__(
        self,
        location: S3Location,
        client: "S3Client",
        credentials: "AioCredentials | None",
        resources: AsyncExitStack,
    ) -> None:
        """For :func:`open_client`."""
        self.s3 = client
        self._credentials = credentials
        self._resources = resources
        self._uses = 0
        self._is_retired = False
        self._direct: DirectRequests | None = None
        if credentials is not None:
            tls = _session_of(client).tls
            self._direct = DirectRequests(client, credentials, tls, _connect_timeout(location))
            resources.callback(self._direct.close)

    async def secrets(self) -> tuple[str, ...]:
        """Return what must not be told of the credentials."""
        if self._credentials is None:
            return ()
        try:
            kept = await self._credentials.get_frozen_credentials()
        except Exception:  # noqa: BLE001 -- whatever a source of credentials raises, it has given none
            return ()
        return tuple(each for each in (kept.token, kept.secret_key, kept.access_key) if each)

    async def __aenter__(self) -> Self:
        """Use it. Once it is retired, the last use closes it."""
        self._uses += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._uses -= 1
        if self._is_retired and not self._uses:
            await self._resources.aclose()

    async def put(self, bucket: str, key: str, body: bytes, conditions: Mapping[str, str]) -> str:
        """Write ``body`` at ``key`` if ``conditions``, headers by their names, hold; return the etag.

        Raises:
            ClientError: the store refused, or failed.
            KeyError: its answer names no etag.
            BotoCoreError, OSError: there is no answer.
        """
        direct = self._direct if len(body) < EXPECT_FROM else None
        if direct is not None:
            etag = await direct.put(bucket, key, body, conditions)
            if etag is not None:
                return etag
        request: PutObjectRequestTypeDef = {
            "Bucket": bucket,
            "Key": key,
            # S3 is asked to agree to a large file before it is sent.
            "Body": io.BytesIO(body),
        }
        if "If-None-Match" in conditions:
            request["IfNoneMatch"] = conditions["If-None-Match"]
        if "If-Match" in conditions:
            request["IfMatch"] = conditions["If-Match"]
        answer = await self.s3.put_object(**request)
        if direct is not None:
            direct.was_refused("PutObject")
        return answer["ETag"]

    async def get(self, bucket: str, key: str, allow_for: Callable[[int], None]) -> tuple[bytes, str]:
        """Return the object at ``key``, and its etag; ``allow_for`` is given its size, as far as it is known.

        Raises:
            ClientError: there is none, or the store refused, or failed.
            KeyError: its answer names no etag, or no length.
            BotoCoreError, OSError, aiohttp.ClientError: there is no answer, or half of one.
        """
        if self._direct is not None:
            found = await self._direct.get(bucket, key, allow_for)
            if found is not None:
                return found
        answer = await self.s3.get_object(Bucket=bucket, Key=key)
        allow_for(min(answer["ContentLength"], _MOST_ALLOWED_FOR))
        async with answer["Body"] as stream:
            body = await stream.read()
        if self._direct is not None:
            self._direct.was_refused("GetObject")
        return body, answer["ETag"]

    async def retire(self) -> None:
        """Close it, at once or behind the last use."""
        self._is_retired = True
        if not self._uses:
            await self._resources.aclose()


async def open_client(location: S3Location) -> Client:
    """Return a client for ``location``, with the credentials that AWS's usual chain has now.

    It makes one attempt at each request: how many there are is for the caller to know, who must tell
    a write that was refused from one that was repeated.

    Raises:
        BotoCoreError: there is something in the way of credentials or settings.
    """
    for name in _TELLING_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    session = AioSession()
    session.register_component("data_loader", _loader())
    resources = AsyncExitStack()
    client = await resources.enter_async_context(create_client(location, session))
    return Client(location, client, await session.get_credentials(), resources)


def create_client(
    location: S3Location, session: AioSession | None = None
) -> "AbstractAsyncContextManager[S3Client]":
    """Return the client of aiobotocore for ``location``, to be entered."""
    if session is None:
        session = AioSession()
        session.register_component("data_loader", _loader())
    # Not every store knows the checksum that botocore sends in the place of this (RFC 1864).
    session.register("before-call.s3.DeleteObjects", _add_content_md5)
    return session.create_client(
        "s3",
        endpoint_url=location.endpoint_url,
        region_name=location.region or session.get_config_variable("region") or _ANY_REGION,
        config=AioConfig(
            http_session_cls=_Session,
            retries={"total_max_attempts": 1},
            connect_timeout=_connect_timeout(location),
            read_timeout=location.attempt_timeout,
            max_pool_connections=location.connections,
            s3={"addressing_style": _ADDRESSING_STYLES[location.path_style]},
            # Stores other than AWS may not know the checksums that are AWS's default since 2025.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _connect_timeout(location: S3Location) -> float:
    return min(_CONNECT_TIMEOUT, location.attempt_timeout)


def _add_content_md5(params: dict[str, Any], **_more: object) -> None:
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


# Signatures need one. Other stores take this; AWS answers with the right one, if it is another.
_ANY_REGION = "us-east-1"
_ADDRESSING_STYLES = {None: "auto", True: "path", False: "virtual"}


class _Session(AIOHTTPSession):
    """aiobotocore's HTTP session, which makes one attempt, and waits for no leave to send a small body.

    It follows no redirection: aiohttp would send what is in a share to wherever the answer says, in plain
    text too.

    When a connection that was used before is lost, aiohttp repeats a PUT unasked. If the first was
    carried out, the second is refused for a condition that the first one ended.
    """

    # There is no public way to do this. A test notices if it does nothing any more.
    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession
        session = await super()._get_session(proxy_url)  # type: ignore[misc]  # not in the stubs
        session._retry_connection = False  # noqa: SLF001 -- see above
        session._request_class = _Request  # noqa: SLF001 -- likewise
        if not isinstance(session.request, functools.partial):
            request = functools.partial(session.request, allow_redirects=False)
            session.request = request  # type: ignore[method-assign]  # aiobotocore has no option
        return session

    async def send(self, request: Any) -> Any:  # noqa: ANN401 -- what the stubs say is not so
        if "Expect" in request.headers and _size(request.body) < EXPECT_FROM:
            del request.headers["Expect"]
        response = await super().send(request)
        if response.status_code == _EXPECTATION_FAILED and "Expect" in request.headers:
            # Section 15.5.18: to be repeated without.
            del request.headers["Expect"]
            request.reset_stream()
            response = await super().send(request)
        check_not_redirected(response.status_code, response.headers)
        return response

    async def tls(self) -> ssl.SSLContext:
        """Return how certificates are checked: by AWS's settings, as all of this session's are."""
        context: ssl.SSLContext
        context, _ = await asyncio.to_thread(self._build_ssl_contexts, None)  # type: ignore[attr-defined]
        return context


def _session_of(client: "S3Client") -> _Session:
    # There is no public way to it.
    session: _Session = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    return session


class _Request(aiohttp.ClientRequest):
    """aiohttp's request, which does not wait for ever for an answer of 100."""

    def update_expect_continue(self, expect: bool = False) -> None:
        super().update_expect_continue(expect)
        if self._continue is not None:
            self.loop.call_later(_CONTINUE_WITHIN, _go_on, self._continue)


def _go_on(allowed: asyncio.Future[bool]) -> None:
    if not allowed.done():
        allowed.set_result(True)


def _size(body: Any) -> int:  # noqa: ANN401 -- what botocore makes of a body
    if body is None:
        return 0
    if isinstance(body, bytes | bytearray):
        return len(body)
    return determine_content_length(body) or 0


@functools.cache
def _loader() -> Loader:
    """Return botocore's loader of service descriptions; S3's takes 50 ms to parse."""
    return create_loader()
