"""The S3 servers that tests may use, each bucket's content apart by a prefix for every test.

A real one is named by ``RPCSHARE_TEST_S3_ENDPOINT``, with credentials as AWS's own tools take them
from the environment (``.ci/run`` starts one). The other is moto's, where that is installed.
"""

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import certifi
import msgspec
import pytest
from botocore.exceptions import ClientError

from rpcshare.storage.s3_client import create_client
from rpcshare.storage.s3_location import S3Location

__all__ = ["ENDPOINT_VARIABLE", "S3Server", "moto_server", "real_server"]

ENDPOINT_VARIABLE = "RPCSHARE_TEST_S3_ENDPOINT"

_BUCKET = "rpcshare-tests"
_MOTO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret"}


class S3Server(msgspec.Struct, frozen=True):
    """A running server."""

    endpoint_url: str
    keeps_files: bool
    """Whether objects are files inside, so that no key may be a directory of another. MinIO takes such
    keys and leaves them out of listings."""

    def location(self, **settings: Any) -> S3Location:
        """Return a place in it that nothing has been written to."""
        prefix = f"{uuid.uuid4().hex}/"
        return msgspec.structs.replace(
            S3Location(bucket=_BUCKET, prefix=prefix, endpoint_url=self.endpoint_url), **settings
        )


@contextmanager
def real_server() -> Iterator[S3Server]:
    """Use the server that the environment names, which speaks plain HTTP, or skip the test."""
    endpoint_url = os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint_url:
        pytest.skip(f"{ENDPOINT_VARIABLE} names no S3 server")
    with _quick_clients():
        yield asyncio.run(_prepare(endpoint_url))


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Start moto's server in a thread, or skip the test."""
    moto_server = pytest.importorskip(
        "moto.server", reason="moto[s3], flask and flask-cors are not installed"
    )
    with _quick_clients(), pytest.MonkeyPatch.context() as environment:
        for name, value in _MOTO_CREDENTIALS.items():
            if name not in os.environ:
                environment.setenv(name, value)
        application = moto_server.DomainDispatcherApplication
        environment.setattr(application, "__call__", _one_condition_at_a_time(application.__call__))
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            endpoint_url = f"http://{host}:{port}"
            yield asyncio.run(_prepare(endpoint_url))
        finally:
            server.stop()


def _one_condition_at_a_time(answer: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return how moto is to be called, which looks at a condition and writes in two steps."""
    lock = threading.Lock()

    def call(app: object, environ: dict[str, Any], start_response: object) -> Iterable[bytes]:
        is_conditional = not {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}.isdisjoint(environ)
        with lock if is_conditional else nullcontext():
            return answer(app, environ, start_response)

    return call


@contextmanager
def _quick_clients() -> Iterator[None]:
    """Trust one certificate: to read all that there are, for http too, takes longer than most tests."""
    one_certificate, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    with NamedTemporaryFile("w", suffix=".pem") as file, pytest.MonkeyPatch.context() as environment:
        file.write(one_certificate + end)
        file.flush()
        environment.setenv("AWS_CA_BUNDLE", file.name)
        yield


async def _prepare(endpoint_url: str) -> S3Server:
    """Make the bucket, and find out about the server."""
    async with create_client(S3Location(bucket=_BUCKET, endpoint_url=endpoint_url)) as client:
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):
            await client.create_bucket(Bucket=_BUCKET)
        prefix = uuid.uuid4().hex
        listed = 0
        with suppress(ClientError):
            await client.put_object(Bucket=_BUCKET, Key=prefix)
            await client.put_object(Bucket=_BUCKET, Key=f"{prefix}/nested")
            found = await client.list_objects_v2(Bucket=_BUCKET, Prefix=prefix)
            listed = len(found.get("Contents", ()))
    return S3Server(endpoint_url, keeps_files=listed != 2)
