"""Services that index their shares, in SQLite and in PostgreSQL."""

import pytest

from rpcshare.database import parse_location
from rpcshare.shares.search import SearchSettings, open_index
from support.postgres_server import *  # noqa: F403 -- fixtures, which pytest finds by their names
from support.service_fixtures import *  # noqa: F403


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Index without delay."""
    monkeypatch.setattr("rpcshare.shares.projection._TICK", 0.01)
    monkeypatch.setattr("rpcshare.shares.pending_items._RESTS_AFTER", 0.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/database.sqlite3"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def location(database_url):
    return parse_location(database_url)


@pytest.fixture
def file_location(tmp_path):
    return parse_location(f"sqlite:///{tmp_path}/file.sqlite3")


@pytest.fixture
def searching(location):
    """Return a function that makes the settings of search, for which all services have one database."""

    def settings(at=None, **options):
        async def opened():
            return await open_index(at or location)

        return SearchSettings(opened, **options)

    return settings


@pytest.fixture
def searched(new_service, searching):
    """Return a service that indexes what it is sent."""
    return new_service(search=searching())
