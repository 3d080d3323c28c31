"""Fixtures for tests of stores."""

import os
from collections.abc import Iterator

import pytest

from support.s3_server import ENDPOINT_VARIABLE, S3Server, moto_server, real_server


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """The S3 server that moto plays."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def real_s3() -> Iterator[S3Server]:
    """The S3 server that the environment names."""
    with real_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3(request: pytest.FixtureRequest) -> S3Server:
    """The real one where there is one, else moto's."""
    server: S3Server = request.getfixturevalue("real_s3" if os.environ.get(ENDPOINT_VARIABLE) else "moto")
    return server
