"""The file of records is moved, replaced, broken or full under who uses it, and comes back."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection

from people.signing import who
from rpcshare.auth.people import People
from rpcshare.database import DatabaseError, parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from support.running_server import RunningServer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite3"


@pytest.fixture
async def database(file: Path) -> AsyncIterator[Database]:
    opened = await Database.open(parse_location(f"sqlite:///{file}"), schema=RECORDS)
    yield opened
    await opened.close()


def moved_away(file: Path) -> Path:
    """Move the database away, with its log: what is acknowledged is in either."""
    elsewhere = file.with_name("elsewhere")
    elsewhere.mkdir()
    for each in file.parent.glob(f"{file.name}*"):
        each.rename(elsewhere / each.name)
    return elsewhere


def put_back(file: Path, elsewhere: Path) -> None:
    for each in elsewhere.iterdir():
        each.rename(file.with_name(each.name))


async def test_nothing_is_written_to_or_read_from_a_file_that_was_moved(
    database: Database, file: Path
) -> None:
    people = People(database)
    user = await people.sign_in(who())
    elsewhere = moved_away(file)
    for asking in (people.find(user.id), people.sign_in(who(subject="bob"))):
        with pytest.raises(DatabaseError, match="its file is gone"):
            await asking
    put_back(file, elsewhere)
    assert await people.find(user.id) == user
    assert (await people.page(None))[0] == [user]  # nobody but who was acknowledged
    await people.sign_in(who(subject="bob"))


async def test_a_write_that_is_under_way_when_the_file_is_moved_is_refused(
    database: Database, file: Path
) -> None:
    people = People(database)
    with pytest.raises(DatabaseError, match="moved or removed"):
        await database.write(lambda _connection: moved_away(file))
    put_back(file, file.with_name("elsewhere"))
    assert (await people.page(None))[0] == []


async def test_a_log_that_was_removed_is_told_of_before_the_next_write_counts(
    database: Database, file: Path
) -> None:
    people = People(database)
    await people.sign_in(who())
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")
    file.with_name(f"{file.name}-wal").unlink()
    with pytest.raises(DatabaseError, match="moved or removed"):
        await people.sign_in(who(subject="bob"))
    await people.sign_in(who(subject="carol"))
    again = await Database.open(parse_location(f"sqlite:///{file}"), schema=RECORDS)
    assert "carol" in {
        each.subject
        for user in (await People(again).page(None))[0]
        for each in await People(again).identities_of(user.id)
    }
    await again.close()


async def test_a_backup_in_place_of_the_file_is_used_from_then_on(database: Database, file: Path) -> None:
    people = People(database)
    user = await people.sign_in(who())
    backup = file.with_name("backup")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    await people.sign_in(who(subject="bob"))
    shutil.rmtree(moved_away(file))
    backup.rename(file)
    assert (await people.page(None))[0] == [user]
    await people.sign_in(who(subject="carol"))


@pytest.mark.parametrize("content", [b"", b"not a database, but some text that is long enough" * 100])
async def test_another_file_in_its_place_is_refused_and_no_empty_one_made_of_it(
    database: Database, file: Path, content: bytes
) -> None:
    people = People(database)
    user = await people.sign_in(who())
    elsewhere = moved_away(file)
    await asyncio.to_thread(file.write_bytes, content)
    for _ in range(2):
        with pytest.raises(DatabaseError):
            await people.find(user.id)
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    put_back(file, elsewhere)
    assert await people.find(user.id) == user


async def test_a_full_disk_leaves_nothing_half_done(database: Database) -> None:
    people = People(database)
    user = await people.sign_in(who())

    def fill(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await database.write(fill)

    async def sign_many_in() -> None:
        for number in range(1000):
            await people.sign_in(who(subject=f"{number}", organization="", name="x" * 200))

    with pytest.raises(DatabaseError, match="full"):
        await sign_many_in()
    users, _ = await people.page(None, limit=200)
    assert all([await people.identities_of(each.id) for each in users])
    await database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1073741823"))
    assert await people.find(user.id) == user
    await people.sign_in(who(subject="last"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data") as server:
        yield server


@pytest.mark.slow
def test_a_server_says_so_and_goes_on_with_the_rest_until_the_file_is_back(served: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {served.token}"}
    client = httpx.Client(base_url=served.url, headers=headers, timeout=30)

    def store(name: str) -> httpx.Response:
        return client.post("/api/keys", json={"service": "openai", "name": name, "value": "v"})

    assert store("first").status_code == 200
    assert client.get("/readyz").status_code == 200
    elsewhere = moved_away(served.data_dir / "records.sqlite3")
    for answer in (store("second"), client.get("/api/keys")):
        assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) > 0
        assert os.fspath(served.data_dir) not in answer.text
    unready = client.get("/readyz")
    assert (unready.status_code, unready.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert "users and of the vault" in unready.json()["error"]
    assert client.get("/healthz").status_code == 200
    assert client.post("/api/share", json={"sessionID": "ses_goes_on"}).status_code == 200
    put_back(served.data_dir / "records.sqlite3", elsewhere)
    assert store("third").status_code == 200
    assert [each["name"] for each in client.get("/api/keys").json()] == ["first", "third"]
    assert client.get("/readyz").status_code == 200
    client.close()
    assert "users and the vault are unavailable" in served.log.read_text()
