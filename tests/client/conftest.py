"""Fixtures for tests of clients."""

from collections.abc import Iterator

import pytest

from support.running_server import RunningServer
from support.tcp_proxy import TcpProxy, proxied


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Another server for all tests, which has none of the shares of the first."""
    with RunningServer(tmp_path_factory.mktemp("other") / "data") as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest, server: RunningServer) -> RunningServer:
    """One server for all tests that run on the same kind of loop. It is not to be stopped."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    is_trio = parameters.get("event_loop_kind") == "trio"
    chosen: RunningServer = request.getfixturevalue("other_server") if is_trio else server
    return chosen


@pytest.fixture
def proxy(server: RunningServer) -> Iterator[TcpProxy]:
    """A proxy in front of the server that all tests share."""
    with proxied(server.url) as proxy:
        yield proxy
