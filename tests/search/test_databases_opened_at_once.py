"""Several databases of one process, opened at the same moment."""

import asyncio

from sqlalchemy import inspect

from rpcshare.database import parse_location
from rpcshare.database.engine import Database
from rpcshare.database.records import metadata
from rpcshare.database.schema_version import RECORDS


async def test_each_is_migrated_as_if_alone(tmp_path):
    """What Alembic runs is found by module-level names, of one database for all threads."""

    async def tables(number: int) -> set[str]:
        location = parse_location(f"sqlite:///{tmp_path}/{number}.sqlite3")
        database = await Database.open(location, schema=RECORDS)
        found = await database.read(lambda connection: set(inspect(connection).get_table_names()))
        await database.close()
        return found

    for found in await asyncio.gather(*map(tables, range(6))):
        assert found == {*metadata.tables, "alembic_version"}
