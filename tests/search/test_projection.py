"""The index behind the store: whatever happens to either, syncs go on, and the index becomes whole."""

import asyncio
import shutil
import sqlite3
import stat
import tracemalloc
from contextlib import closing
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from finding import found, indexed, message, shared, text

from rpcshare.database import (
    DatabaseError,
    InvalidValueError,
    NewerSchemaError,
    check_not_newer,
    parse_location,
)
from rpcshare.database.engine import Database
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.projection import Projection
from rpcshare.shares.reindexing import index_anew, out_of_date
from rpcshare.shares.search import SearchSettings, open_index
from rpcshare.shares.search_index import IndexedShare, SearchIndex
from rpcshare.shares.search_texts import SearchableText
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.syncdata import Item, Kind
from rpcshare.storage import MemoryStore
from support.share_stores import contents


async def test_what_was_shared_without_a_database_is_indexed_at_the_first_start(
    new_service, searching, alice
):
    older = new_service()
    await older.create(alice, "ses_00000001", [message("msg_1"), text("prt_1", "needle")])
    service = new_service(search=searching())
    await indexed(service)
    assert await found(service, alice, "needle") == ["prt_1"]


async def test_a_search_says_that_not_all_is_indexed_yet(new_service, searching, alice, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.share_listing._PATIENCE", 0.0)
    may_begin, compare = asyncio.Event(), Projection._compare

    async def compare_later(projection):
        await may_begin.wait()
        await compare(projection)

    monkeypatch.setattr(Projection, "_compare", compare_later)
    service = new_service(search=searching())
    assert (await service.search(alice, "needle")).indexing
    may_begin.set()
    await indexed(service)
    assert not (await service.search(alice, "needle")).indexing


async def test_what_was_synced_as_a_server_was_killed_is_indexed_by_the_next(new_service, searching, alice):
    first = new_service(search=searching())
    made = await shared(first, alice, message("msg_1"), text("prt_1", "needle"))
    first._shares.listing._projection._worker.cancel()  # it dies here
    await first.sync(alice, made.id, None, [text("prt_2", "needle")])
    first._shares.listing._projection._pending.clear()
    second = new_service(search=searching())
    await indexed(second)
    assert set(await found(second, alice, "needle")) == {"prt_1", "prt_2"}


async def test_what_one_node_writes_another_with_the_same_database_finds(new_service, searching, alice):
    first = new_service(search=searching(), shared_store=True)
    second = new_service(search=searching(), shared_store=True)
    await indexed(second)
    made = await shared(first, alice, message("msg_1"), text("prt_1", "needle"))
    assert await found(second, alice, "needle") == ["prt_1"]
    await second.delete(alice, made.id, None)
    assert await found(first, alice, "needle") == []


async def test_two_nodes_that_write_one_share_index_all_of_it(new_service, searching, alice):
    nodes = [new_service(search=searching(), shared_store=True) for _ in range(2)]
    made = await shared(nodes[0], alice, message("msg_1"))
    for number in range(20):
        await nodes[number % 2].sync(alice, made.id, None, [text(f"prt_{number:02}", "needle")])
    for node in nodes:
        await indexed(node)
    hits = await found(nodes[0], alice, "needle", limit=100)
    assert sorted(hits) == [f"prt_{number:02}" for number in range(20)]


async def test_a_node_with_an_index_of_its_own_finds_what_others_wrote(
    new_service, searching, tmp_path, alice
):
    first = new_service(search=searching())
    other = parse_location(f"sqlite:///{tmp_path}/other.sqlite3")
    second = new_service(search=searching(other, compare_every=0.05))
    await indexed(second)
    await shared(first, alice, message("msg_1"), text("prt_1", "needle"))
    while not await found(second, alice, "needle"):  # noqa: ASYNC110 -- nobody tells
        await asyncio.sleep(0.05)


async def test_syncs_go_on_while_the_database_is_away_and_are_found_afterwards(
    new_service, searching, alice, caplog, monkeypatch
):
    monkeypatch.setattr("rpcshare.shares.projection._RETRY_AT_FIRST", 0.02)
    is_away = True
    settings = searching()

    async def opened():
        if is_away:
            raise DatabaseError("the database x: connection refused")
        return await settings.opened()

    service = new_service(search=SearchSettings(opened))
    await service.create(alice, "ses_00000001", [message("msg_1"), text("prt_1", "needle")])
    await asyncio.sleep(0.2)
    warnings = [record.message for record in caplog.records if "connection refused" in record.message]
    assert len(warnings) == 1
    is_away = False
    await indexed(service)
    assert await found(service, alice, "needle") == ["prt_1"]
    assert "Search is up to date again" in caplog.text


async def test_a_share_that_cannot_be_read_keeps_no_other_from_being_found(
    new_service, searching, store, alice, caplog
):
    older = new_service()
    for number in (1, 2):
        await older.create(alice, f"ses_0000000{number}", [message("msg_1"), text(f"prt_{number}", "needle")])
    (key, *_) = (key for key in contents(store) if key.startswith("share/00000001/") and "/log/" in key)
    await store.put(key, b"{")
    service = new_service(search=searching())
    await indexed(service)
    assert await found(service, alice, "needle") == ["prt_2"]
    assert "Share 00000001 is not indexed" in caplog.text


async def test_a_database_of_yesterday_is_brought_up_to_date(new_service, searching, file_location, alice):
    first = new_service(search=searching(file_location))
    gone = await shared(first, alice, message("msg_1"), text("prt_1", "needle"))
    kept = await shared(first, alice, message("msg_1"), text("prt_2", "needle"), session_id="ses_00000002")
    await first.close()
    copy = file_location.path.with_suffix(".yesterday")
    shutil.copy(file_location.path, copy)
    second = new_service(search=searching(file_location))
    await second.delete(alice, gone.id, None)
    await second.sync(alice, kept.id, None, [text("prt_2", "haystack"), text("prt_3", "needle")])
    await indexed(second)
    await second.close()
    for suffix in ("-wal", "-shm"):
        file_location.path.with_name(file_location.path.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, file_location.path)
    third = new_service(search=searching(file_location))
    assert "prt_1" not in await found(third, alice, "needle")  # not for a moment
    await indexed(third)
    assert await found(third, alice, "needle") == ["prt_3"]


async def test_a_database_that_is_removed_while_the_server_runs_is_made_anew(
    new_service, searching, file_location, alice
):
    service = new_service(search=searching(file_location))
    made = await shared(service, alice, message("msg_1"), text("prt_1", "needle"))
    for path in file_location.path.parent.glob("file.sqlite3*"):
        path.unlink()
    await service.sync(alice, made.id, None, [text("prt_2", "needle")])
    await indexed(service)
    assert set(await found(service, alice, "needle")) == {"prt_1", "prt_2"}
    assert file_location.path.exists()


async def test_a_store_of_yesterday_takes_its_shares_back_to_where_they_were(
    new_service, searching, store, alice
):
    first = new_service(search=searching())
    kept = await shared(first, alice, message("msg_1"), text("prt_1", "needle"))
    yesterday = contents(store)
    await first.sync(alice, kept.id, None, [text("prt_1", "haystack"), text("prt_2", "haystack")])
    await shared(first, alice, message("msg_1"), text("prt_3", "haystack"), session_id="ses_00000002")
    await first.close()
    await store.delete([key for key in contents(store) if key not in yesterday])
    second = new_service(search=searching())
    await indexed(second)
    page = await second.list_own(alice)
    assert [(each.id, each.sync_count) for each in page.sessions] == [(kept.id, 1)]
    assert page.count == 1
    assert await found(second, alice, "needle") == ["prt_1"]
    assert await found(second, alice, "haystack") == []


async def test_a_lease_of_a_clock_that_was_ahead_keeps_nobody_from_the_work(location):
    index = await open_index(location)
    now, minute, day = 1_700_000_000_000, 60_000, 86_400_000
    assert await index.lease("work", "one", now + day, now + day + minute)
    assert await index.lease("work", "other", now, now + minute)
    assert not await index.lease("work", "third", now + 1, now + 1 + minute)
    await index.database.close()


async def test_work_that_nobody_waits_for_is_ended_and_undone(file_location):
    database = await Database.open(file_location)
    has_begun, may_go_on = Event(), Event()

    def work(connection):
        connection.exec_driver_sql("INSERT INTO progress VALUES ('x', 'y')")
        has_begun.set()
        may_go_on.wait()
        database.made(connection, str)

    writing = asyncio.create_task(database.write(work))
    await asyncio.to_thread(has_begun.wait)
    writing.cancel()
    await asyncio.wait([writing])
    may_go_on.set()
    rows = "SELECT count(*) FROM progress"
    assert await database.write(lambda connection: connection.exec_driver_sql(rows).scalar()) == 0
    await database.close()


async def test_a_share_that_is_gone_from_the_store_is_not_found(new_service, searching, store, alice):
    service = new_service(search=searching())
    made = await shared(service, alice, message("msg_1"), text("prt_1", "needle"))
    await service._shares.open_shares.close()
    await store.delete([key for key in contents(store) if key.startswith(f"share/{made.id}/")])
    assert await found(service, alice, "needle") == []


async def test_reindex_makes_all_of_it_again_and_resumes(new_service, searching, location, store, alice):
    service = new_service(search=searching())
    for number in range(3):
        await service.create(
            alice, f"ses_0000000{number}", [message("msg_1"), text(f"prt_{number}", "needle")]
        )
    await indexed(service)
    index = await open_index(location)
    for number in range(3):
        await index.forget(f"0000000{number}")
    assert [each async for each in out_of_date(store, index)] == ["00000000", "00000001", "00000002"]
    seen = 0

    def die_at_the_second() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await index_anew(store, index, die_at_the_second)
    assert await index_anew(store, index) == (3, [])
    assert [each async for each in out_of_date(store, index)] == []
    await index.database.close()
    assert set(await found(service, alice, "needle")) == {"prt_0", "prt_1", "prt_2"}


@pytest.fixture
def written(monkeypatch) -> list[list[str]]:
    """The shares of each transaction that has been written, or tried."""
    seen: list[list[str]] = []
    put_all = SearchIndex.put_all

    async def noting(index, changes):
        changes = list(changes)
        seen.append([change.share.id for change in changes])
        return await put_all(index, changes)

    monkeypatch.setattr(SearchIndex, "put_all", noting)
    return seen


async def several(service, caller, word: str) -> list[str]:
    """Make five shares, or sync them, with a part each."""
    ids = []
    for number in range(5):
        session = f"ses_{number:08}"
        made = await service.create(caller, session, [message("msg_1"), text(f"prt_{number}", word)])
        ids.append(made.id)
    return ids


async def test_shares_that_change_at_one_time_are_written_in_one_transaction(
    new_service, searching, alice, written
):
    service = new_service(search=searching())
    await several(service, alice, "older")
    await indexed(service)
    written.clear()
    ids = await several(service, alice, "needle")
    await indexed(service)
    assert sorted(await found(service, alice, "needle")) == [f"prt_{number}" for number in range(5)]
    assert await found(service, alice, "older") == []
    assert sorted(ids) in [sorted(each) for each in written]


async def test_a_transaction_has_no_more_than_so_many_items(
    new_service, searching, alice, written, monkeypatch
):
    monkeypatch.setattr("rpcshare.shares.projection._WRITTEN_AT_ONCE", 5)
    service = new_service(search=searching())
    await several(service, alice, "older")
    await indexed(service)
    written.clear()
    await several(service, alice, "needle")
    await indexed(service)
    assert max(map(len, written)) == 2  # of a message and a part each
    assert len(await found(service, alice, "needle")) == 5


async def test_one_share_that_the_database_cannot_hold_keeps_no_other_of_its_transaction_from_being_found(
    new_service, searching, alice, written, monkeypatch, caplog
):
    service = new_service(search=searching())
    ids = await several(service, alice, "older")
    await indexed(service)
    put_all = SearchIndex.put_all  # of the fixture

    async def put_others(index, changes):
        changes = list(changes)
        done = await put_all(index, changes)
        if ids[2] in [change.share.id for change in changes]:
            raise InvalidValueError("the database: no such value")
        return done

    monkeypatch.setattr(SearchIndex, "put_all", put_others)
    await several(service, alice, "needle")
    await indexed(service)
    assert {"prt_0", "prt_1", "prt_3", "prt_4"} <= set(await found(service, alice, "needle"))
    told = [record.message for record in caplog.records if "is not indexed" in record.message]
    assert told == [f"Share {ids[2]} is not indexed: the database: no such value"]


async def test_what_was_being_written_as_the_database_went_away_is_indexed_afterwards(
    new_service, searching, alice, monkeypatch
):
    monkeypatch.setattr("rpcshare.shares.projection._RETRY_AT_FIRST", 0.02)
    service = new_service(search=searching())
    await several(service, alice, "older")
    await indexed(service)
    put_all, failures = SearchIndex.put_all, 3

    async def failing(index, changes):
        nonlocal failures
        if failures:
            failures -= 1
            raise DatabaseError("the database: gone")
        return await put_all(index, changes)

    monkeypatch.setattr(SearchIndex, "put_all", failing)
    await several(service, alice, "needle")
    await indexed(service)
    assert failures == 0
    assert len(await found(service, alice, "needle")) == 5
    assert await found(service, alice, "older") == []


async def test_a_part_that_changes_all_the_time_is_indexed_all_the_same(
    new_service, searching, alice, monkeypatch
):
    monkeypatch.setattr("rpcshare.shares.pending_items._RESTS_AFTER", 60.0)
    monkeypatch.setattr("rpcshare.shares.pending_items._WAITS_AT_MOST", 0.3)
    service = new_service(search=searching())
    made = await service.create(alice, "ses_00000001", [message("msg_1")])
    written = 0
    async with asyncio.timeout(20):
        while not await found(service, alice, "needle"):
            written += 1
            await service.sync(alice, made.id, None, [text("prt_1", f"needle {written}")])
    assert written > 1


async def test_a_sync_of_very_many_items_is_not_remembered_item_by_item():
    async def never_opened():
        raise DatabaseError("it is not needed")

    projection = Projection(MemoryStore(), lambda: 0, never_opened)
    many = Item(Kind.PART, tuple((b'"%d"' % number, b"{}") for number in range(100_000)))
    tracemalloc.start()
    try:
        projection.changed(SimpleNamespace(share_id="00000001", entry=1), [many], by_this_node=True)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await projection.close()
    assert most < 2**20


async def test_many_servers_that_start_at_once_make_the_schema_once(location):
    indexes = await asyncio.gather(*(open_index(location) for _ in range(6)))
    for index in indexes:
        assert await index.is_empty()
        await index.database.close()


async def test_a_new_database_has_at_once_what_all_migrations_make(file_location, tmp_path):
    await (await Database.open(file_location)).close()
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from rpcshare.database.schema_version import PROJECTION

    migrated = tmp_path / "migrated.sqlite3"
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(PROJECTION.migrations))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
    assert _content(file_location.path) == _content(migrated)


def _content(path):
    """Return the statements that make a database, and how its indexes of words are set up."""
    with closing(sqlite3.connect(path)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        set_up = [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in ("text_index_config", "catalogue_words_config", "alembic_version")
        ]
    return {name: " ".join(sql.split()) for name, sql in made}, set_up


async def test_a_newer_schema_is_refused_with_a_sentence(location):
    index = await open_index(location)
    newer = "UPDATE alembic_version SET version_num = '9999'"
    await index.database.write(lambda connection: connection.exec_driver_sql(newer))
    await index.database.close()
    with pytest.raises(NewerSchemaError, match=r"schema 9999 of a newer rpcshare.*Update this server"):
        await open_index(location)
    if location.path is not None:
        with pytest.raises(NewerSchemaError, match="schema 9999 of a newer rpcshare"):
            check_not_newer(location)


def test_a_file_that_is_no_database_is_refused_with_a_sentence(file_location):
    file_location.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseError, match=r"file is not a database\. It can be made again"):
        check_not_newer(file_location)


async def test_a_file_that_breaks_off_is_refused_with_what_to_do(file_location):
    index = await open_index(file_location)
    await index.database.close()
    file_location.path.write_bytes(file_location.path.read_bytes()[:8192])
    with pytest.raises(DatabaseError, match=r"disk image is malformed\. It can be made again: remove it"):
        await open_index(file_location)


def test_the_known_revisions_are_the_scripts():
    from alembic.script import ScriptDirectory

    from rpcshare.database.schema_version import PROJECTION, RECORDS

    for schema in (PROJECTION, RECORDS):
        scripts = ScriptDirectory(str(schema.migrations))
        found = tuple(reversed([script.revision for script in scripts.walk_revisions()]))
        assert found == schema.revisions


async def test_the_migrated_schema_is_that_of_the_tables(location):
    from sqlalchemy import inspect

    from rpcshare.database.tables import metadata, text_index

    def columns_of(connection, name: str) -> set[str]:
        return {each["name"] for each in inspect(connection).get_columns(name)}

    database = await Database.open(location)
    for table in metadata.sorted_tables:
        if table is not text_index:
            columns = await database.read(partial(columns_of, name=table.name))
            assert columns == set(table.columns.keys())
    await database.close()


async def test_a_locked_database_is_waited_for(new_service, searching, file_location, alice):
    service = new_service(search=searching(file_location))
    made = await shared(service, alice, message("msg_1"))
    with closing(sqlite3.connect(file_location.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await service.sync(alice, made.id, None, [text("prt_1", "needle")])  # which does not wait
        await asyncio.sleep(0.1)
        other.execute("COMMIT")
    await indexed(service)
    assert await found(service, alice, "needle") == ["prt_1"]


@pytest.mark.parametrize("url", ["sqlite://", "mysql://x/y", "postgresql://host", "x", "sqlite:/x"])
def test_a_url_that_names_no_database_is_refused(url):
    with pytest.raises(ValueError, match="must be sqlite:///PATH or postgresql://"):
        parse_location(url)


def test_what_is_shown_of_a_database_has_no_password():
    location = parse_location("postgresql://me:secret@host/db?sslmode=require")
    assert "secret" not in f"{location!r} {location.shown}"
    assert location.url == "postgresql+asyncpg://me:secret@host/db?ssl=require"


async def test_servers_that_make_the_file_at_the_same_moment_wait_for_each_other(tmp_path):
    for attempt in range(10):
        place = parse_location(f"sqlite:///{tmp_path}/{attempt}/new.sqlite3")
        databases = await asyncio.gather(*(Database.open(place) for _ in range(6)))
        for database in databases:
            await database.close()


async def test_very_many_texts_of_one_moment_are_indexed(new_service, searching, alice, monkeypatch):
    monkeypatch.setattr("rpcshare.shares.search_index.RANDOM_BITS", 4)  # room for 16 in each millisecond
    service = new_service(search=searching())
    for number in range(3):
        parts = [text(f"prt_{number}_{part}", f"needle {part}") for part in range(300)]
        await service.create(alice, f"ses_0000000{number}", [message("msg_1"), *parts])
    await indexed(service)
    for number in range(3):
        assert len(await found(service, alice, f'"needle {number * 100}"')) == 3


async def test_the_file_is_for_its_owner_alone(file_location):
    path = file_location.path
    path.touch(mode=0o644)
    path.chmod(0o644)  # as an older version left it
    database = await Database.open(file_location)

    def modes_while_it_is_written(_connection):
        return {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.glob(f"{path.name}*")}

    modes = await database.write(modes_while_it_is_written)
    await database.close()
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}


async def test_warming_up_leaves_nothing_behind(database_url):
    """It writes a share that there cannot be, to have the statements compiled, and undoes that."""
    index = await open_index(parse_location(database_url))
    await index.warm_up()

    def count(connection):
        tables = ("shares", "texts", "text_index", "catalogue", "catalogue_counts")
        return [connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() for table in tables]

    counts = await index.database.read(count)
    await index.database.close()
    assert counts == [0] * 5


async def test_warming_up_has_the_statements_of_writes_compiled(tmp_path):
    """What the first write compiled would stay, wherever in memory it was made."""
    index = await open_index(parse_location(f"sqlite:///{tmp_path}/database.sqlite3"))
    await index.warm_up()
    compiled: Any = index.database._engine._compiled_cache  # type: ignore[union-attr]  # SQLite's engine
    before = set(compiled)
    row = CatalogueRow(SessionIndex("abcdefgh", "ses", "Title", "/", 1, 1, 0, 0, 1, 1, 1), "g", "alice")
    words = SearchableText("part:x", "msg_1", "prt_1", "user", "", "", 1, "some words")
    share = IndexedShare("abcdefgh", "g", "etag", 1, owner="alice")
    assert await index.put(share, iter([words]), row=row)
    later = msgspec.structs.replace(share, entry=2)
    assert await index.put(later, iter([words]), changed=["part:x"], since=1, row=row)
    assert await index.put(msgspec.structs.replace(later, is_deleted=True), iter(()), expected=later)
    added = set(compiled) - before
    await index.database.close()
    assert added == set()
