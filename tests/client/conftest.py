"""Fixtures for tests of clients."""

from collections.abc import AsyncIterator

import pytest
from tcp_proxy import TcpProxy

from running_server import RunningServer


@pytest.fixture
async def proxy(server: RunningServer) -> AsyncIterator[TcpProxy]:
    """A proxy in front of the server that all tests share."""
    async with TcpProxy(server.url) as proxy:
        yield proxy
