"""Fixtures of a database of records: in a file, and in PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from support.postgres_server import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url", "records", "records_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.sqlite3"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def records(records_url: str) -> AsyncIterator[Database]:
    """An open database of records."""
    database = await Database.open(parse_location(records_url), schema=RECORDS)
    yield database
    await database.close()
