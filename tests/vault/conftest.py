import pytest

from rpcshare.database.engine import Database
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.vault.vault import Vault
from support.records_fixtures import *  # noqa: F403 -- fixtures, which pytest finds by their names

OLD, NEW = EncryptionKey(bytes(32), "old"), EncryptionKey(bytes(range(32)), "new")


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([OLD])


@pytest.fixture
def next_ring() -> KeyRing:
    """The ring after a new key was put in front."""
    return KeyRing([NEW, OLD])


@pytest.fixture
def vault(records: Database, ring: KeyRing) -> Vault:
    return Vault(records, ring)
