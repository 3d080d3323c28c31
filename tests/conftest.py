"""Fixtures for every test."""

from collections.abc import Iterator

import pytest

from running_server import RunningServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests, which keep apart by session id. It is not to be stopped."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as server:
        yield server
