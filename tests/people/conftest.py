import pytest

from rpcshare.auth.people import People
from rpcshare.database.engine import Database
from support.records_fixtures import *  # noqa: F403 -- fixtures, which pytest finds by their names


@pytest.fixture
def people(records: Database) -> People:
    return People(records)
