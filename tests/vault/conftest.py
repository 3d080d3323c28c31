from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.vault.vault import Vault
from support.postgres_server import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

OLD, NEW = EncryptionKey(bytes(32), "old"), EncryptionKey(bytes(range(32)), "new")


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([OLD])


@pytest.fixture
def next_ring() -> KeyRing:
    """The ring after a new key was put in front."""
    return KeyRing([NEW, OLD])


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.sqlite3"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def records(records_url: str) -> AsyncIterator[Database]:
    database = await Database.open(parse_location(records_url), schema=RECORDS)
    yield database
    await database.close()


@pytest.fixture
def vault(records: Database, ring: KeyRing) -> Vault:
    return Vault(records, ring)
