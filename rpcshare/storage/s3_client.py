"""The client that speaks S3: one for the life of a store, with its pool of connections."""

import functools
import logging
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.loaders import Loader, create_loader

from rpcshare.storage.s3_location import S3Location

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

__all__ = ["create_client"]

_CONNECT_TIMEOUT = 3.0  # seconds

# At debug they log the headers of requests and the bodies of answers; at info nothing of use.
_TELLING_LOGGERS = ("aiobotocore", "botocore")


def create_client(location: S3Location) -> "AbstractAsyncContextManager[S3Client]":
    """Return the client for ``location``, to be entered.

    It makes one attempt at each request: how many there are is for the caller to know, who must tell
    a write that was refused from one that was repeated.
    """
    for name in _TELLING_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    session = AioSession()
    session.register_component("data_loader", _loader())
    return session.create_client(
        "s3",
        endpoint_url=location.endpoint_url,
        region_name=location.region or session.get_config_variable("region") or _ANY_REGION,
        config=AioConfig(
            http_session_cls=_SingleAttemptSession,
            retries={"total_max_attempts": 1},
            connect_timeout=min(_CONNECT_TIMEOUT, location.attempt_timeout),
            read_timeout=location.attempt_timeout,
            max_pool_connections=location.connections,
            s3={"addressing_style": _ADDRESSING_STYLES[location.path_style]},
            # Stores other than AWS may not know the checksums that are AWS's default since 2025.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


# Signatures need one. Other stores take this; AWS answers with the right one, if it is another.
_ANY_REGION = "us-east-1"
_ADDRESSING_STYLES = {None: "auto", True: "path", False: "virtual"}


class _SingleAttemptSession(AIOHTTPSession):
    """aiobotocore's HTTP session, without aiohttp's own second attempt.

    When a connection that was used before is lost, aiohttp repeats a PUT unasked. If the first was
    carried out, the second is refused for a condition that the first one ended.
    """

    # There is no public way to do this. A test notices if it does nothing any more.
    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession
        session = await super()._get_session(proxy_url)  # type: ignore[misc]  # not in the stubs
        session._retry_connection = False  # noqa: SLF001 -- see above
        return session


@functools.cache
def _loader() -> Loader:
    """Return botocore's loader of service descriptions; S3's takes 50 ms to parse."""
    return create_loader()
