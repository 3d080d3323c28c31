"""What the SQLite store promises beyond the contract: durability, group commit, sharing a file."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from rpcshare.storage import PreconditionFailedError, SqliteStore, StoreError
from rpcshare.storage.bulk_insert import MOST_AT_ONCE
from support.narrowing import not_none


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path, busy_timeout=0.2)
    yield opened
    await opened.close()


async def keys_in(store: SqliteStore) -> list[str]:
    return [info.key async for info in store.list("")]


async def start(*writes) -> list[asyncio.Task]:
    """Queue writes in order, without waiting for any."""
    tasks = [asyncio.ensure_future(write) for write in writes]
    await asyncio.sleep(0)  # each task runs up to where it waits
    return tasks


async def on_writer(store: SqliteStore, statement: str):
    """Execute a statement on the connection that writes; return its first value, if any."""
    row = await store._writer.run(lambda connection: connection.execute(statement).fetchone())
    return row and row[0]


@asynccontextmanager
async def transaction_under_way(store: SqliteStore) -> AsyncIterator[None]:
    """Keep the writer inside a transaction, so that what is started meanwhile shares the next."""
    entered, leave = threading.Event(), threading.Event()

    def occupy(_connection: sqlite3.Connection) -> None:
        entered.set()
        leave.wait(10)

    occupied = asyncio.ensure_future(store._writer.run(occupy))
    assert await asyncio.to_thread(entered.wait, 10)
    try:
        yield
    finally:
        leave.set()
        await occupied


class TestGroupCommit:
    async def test_writes_that_wait_share_one_commit(self, store: SqliteStore) -> None:
        before = store.commits
        async with transaction_under_way(store):
            writes = await start(*(store.put(f"k{n}", b"body") for n in range(500)))
        await asyncio.gather(*writes)
        assert store.commits - before == 2  # the one under way, and one for all the rest

    async def test_writes_of_one_transaction_see_each_other(self, store: SqliteStore) -> None:
        async with transaction_under_way(store):
            first, second, deletion, third = await start(
                store.put("k", b"first", if_absent=True),
                store.put("k", b"second", if_absent=True),
                store.delete(["k"]),
                store.put("k", b"third", if_absent=True),
            )
        with pytest.raises(PreconditionFailedError):
            await second
        assert await first != await third
        await deletion
        assert (found := await store.get("k")) is not None
        assert found.body == b"third"

    async def test_a_failed_precondition_leaves_its_neighbours_alone(self, store: SqliteStore) -> None:
        await store.put("taken", b"")
        async with transaction_under_way(store):
            before, refused, after = await start(
                store.put("before", b""),
                store.put("taken", b"", if_absent=True),
                store.put("after", b""),
            )
        with pytest.raises(PreconditionFailedError):
            await refused
        await asyncio.gather(before, after)
        assert await keys_in(store) == ["after", "before", "taken"]

    @pytest.mark.parametrize("number", [1, 2, MOST_AT_ONCE, MOST_AT_ONCE + 1])
    async def test_new_objects_written_together_have_the_etags_that_readers_see(
        self, store: SqliteStore, number: int
    ) -> None:
        await store.put("before", b"")
        async with transaction_under_way(store):
            writes = await start(*(store.put(f"k{n}", b"%d" % n, if_absent=True) for n in range(number)))
        etags = await asyncio.gather(*writes)
        found = [await store.get(f"k{n}") for n in range(number)]
        assert [(each.body, each.etag) for each in found if each] == [
            (b"%d" % n, etag) for n, etag in enumerate(etags)
        ]

    async def test_one_that_is_not_new_leaves_new_objects_beside_it_alone(self, store: SqliteStore) -> None:
        await store.put("taken", b"first")
        async with transaction_under_way(store):
            before, refused, after, again = await start(
                store.put("before", b"", if_absent=True),
                store.put("taken", b"second", if_absent=True),
                store.put("after", b"", if_absent=True),
                store.put("after", b"again", if_absent=True),
            )
        outcomes = await asyncio.gather(before, refused, after, again, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            str,
            PreconditionFailedError,
            str,
            PreconditionFailedError,
        ]
        assert (found := await store.get("taken")) is not None
        assert found.body == b"first"
        assert await keys_in(store) == ["after", "before", "taken"]

    async def test_a_new_object_too_large_for_sqlite_leaves_others_alone(self, store: SqliteStore) -> None:
        store._writer._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000)
        async with transaction_under_way(store):
            refused, kept = await start(
                store.put("large", bytes(2_000), if_absent=True), store.put("small", b"", if_absent=True)
            )
        with pytest.raises(StoreError, match="too big"):
            await refused
        await kept
        assert await keys_in(store) == ["small"]

    async def test_a_body_too_large_for_sqlite_leaves_its_neighbours_alone(self, store: SqliteStore) -> None:
        store._writer._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000)
        async with transaction_under_way(store):
            refused, kept = await start(store.put("large", bytes(2_000)), store.put("small", b""))
        with pytest.raises(StoreError, match="too big"):
            await refused
        await kept
        assert await keys_in(store) == ["small"]

    async def test_a_failed_commit_fails_all_of_its_writes_and_keeps_none(self, store: SqliteStore) -> None:
        def refuse_commit(action: int, operation: str | None, *_: object) -> int:
            refused = action == sqlite3.SQLITE_TRANSACTION and operation == "COMMIT"
            return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

        await store.put("before", b"")
        async with transaction_under_way(store):
            writes = await start(
                store._writer.run(lambda connection: connection.set_authorizer(refuse_commit)),
                store.put("a", b""),
                store.put("before", b"", if_absent=True),
            )
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        store._writer._connection.set_authorizer(None)

        assert [type(outcome) for outcome in outcomes] == [StoreError] * 3
        await store.put("after", b"")
        assert await keys_in(store) == ["after", "before"]

    async def test_a_cancelled_caller_disturbs_nobody(self, store: SqliteStore) -> None:
        async with transaction_under_way(store):
            gone, refused_and_gone, stays = await start(
                store.put("gone", b""),
                store.put("gone", b"", if_absent=True),
                store.put("stays", b""),
            )
            gone.cancel()
            refused_and_gone.cancel()
            await asyncio.sleep(0)
        await stays
        assert gone.cancelled()
        assert "stays" in await keys_in(store)

    async def test_a_read_does_not_wait_for_a_transaction(self, store: SqliteStore) -> None:
        await store.put("k", b"old")
        async with transaction_under_way(store):
            (write,) = await start(store.put("k", b"new"))
            found = await store.get("k")
            assert not write.done()
        assert found is not None
        assert found.body == b"old"
        await write


class TestDurability:
    async def test_every_commit_is_synced_to_the_disk(self, store: SqliteStore) -> None:
        full = 2
        assert await on_writer(store, "PRAGMA journal_mode") == "wal"
        assert await on_writer(store, "PRAGMA synchronous") == full

    async def test_a_write_that_returned_is_committed(self, store: SqliteStore, path: Path) -> None:
        await store.put("k", b"body")
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT key, body FROM objects").fetchall() == [("k", b"body")]

    async def test_a_reopened_store_has_what_was_written(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        etag = await store.put("k", bytes(range(256)))
        await store.close()

        store = await SqliteStore.open(path)
        assert await store.get("k") == ("k", bytes(range(256)), etag)
        await store.close()

    async def test_an_etag_does_not_come_back_after_reopening(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        etag = await store.put("k", b"one")
        await store.delete(["k"])
        await store.close()

        store = await SqliteStore.open(path)
        assert await store.put("k", b"two") != etag
        await store.close()

    async def test_a_killed_process_loses_nothing_that_it_was_told_is_written(
        self, path: Path, pytestconfig: pytest.Config
    ) -> None:
        writer = subprocess.Popen(  # noqa: ASYNC220 -- there is nothing else for the loop to do
            [sys.executable, "-c", WRITE_UNTIL_KILLED, str(path)],
            cwd=pytestconfig.rootpath,
            stdout=subprocess.PIPE,
            text=True,
        )
        with writer:
            told = [not_none(writer.stdout).readline().strip() for _ in range(300)]
            writer.kill()
            told += not_none(writer.stdout).read().split("\n")[:-1]  # behind the last newline: half a line

        store = await SqliteStore.open(path)
        assert set(told) <= set(await keys_in(store))
        for key in told:
            found = await store.get(key)
            assert found is not None
            assert found.body == key.encode() * 200
        await store.close()


WRITE_UNTIL_KILLED = """
import asyncio, itertools, sys
from pathlib import Path
from rpcshare.storage import SqliteStore

async def write(store, name):
    for n in itertools.count():
        key = f"{name}/{n:06}"
        await store.put(key, key.encode() * 200)
        print(key, flush=True)

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await asyncio.gather(*(write(store, name) for name in "abcdefgh"))

asyncio.run(main())
"""


class TestFullDisk:
    async def test_a_write_that_does_not_fit_fails(self, store: SqliteStore, path: Path) -> None:
        await limit_growth(store)
        with pytest.raises(StoreError, match=rf"{path}: .*full"):
            await store.put("large", bytes(2**20))

    async def test_what_was_there_can_still_be_read(self, store: SqliteStore) -> None:
        etag = await store.put("k", b"body")
        await limit_growth(store)
        with pytest.raises(StoreError):
            await store.put("k", bytes(2**20))
        assert await store.get("k") == ("k", b"body", etag)

    async def test_writes_work_again_once_there_is_room(self, store: SqliteStore) -> None:
        await limit_growth(store)
        with pytest.raises(StoreError):
            await store.put("large", bytes(2**20))
        await on_writer(store, "PRAGMA max_page_count = 100000")
        await store.put("large", bytes(2**20))
        assert await keys_in(store) == ["large"]

    async def test_a_delete_makes_room(self, store: SqliteStore) -> None:
        await store.put("old", bytes(2**20))
        await limit_growth(store)
        await store.delete(["old"])
        await store.put("new", bytes(2**20))
        assert await keys_in(store) == ["new"]


async def limit_growth(store: SqliteStore) -> None:
    pages = await on_writer(store, "PRAGMA page_count")
    await on_writer(store, f"PRAGMA max_page_count = {pages + 4}")


class TestScan:
    async def test_holds_no_view_of_the_store_between_pages(self, store: SqliteStore, path: Path) -> None:
        for n in range(4):
            await store.put(f"k{n}", bytes(3 * 2**20))
        scan = store.scan("k")
        await anext(scan)
        with closing(sqlite3.connect(path)) as other:
            # Someone who still reads the log would keep it from being emptied.
            busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
        assert isinstance(scan, AsyncGenerator)
        await scan.aclose()

    async def test_reads_many_objects_page_by_page(self, store: SqliteStore) -> None:
        await asyncio.gather(*(store.put(f"k{n}", b"") for n in range(1_200)))
        statements: list[str] = []
        for reader in store._readers:
            reader.set_trace_callback(statements.append)
        assert len([found async for found in store.scan("k")]) == 1_200
        assert len(statements) >= 3

    async def test_reads_a_prefix_through_the_index(self, store: SqliteStore, path: Path) -> None:
        statements: list[str] = []
        for reader in store._readers:
            reader.set_trace_callback(statements.append)
        assert [found async for found in store.scan("a/")] == []
        assert [info async for info in store.list("a/")] == []
        with closing(sqlite3.connect(path)) as other:
            plans = [other.execute(f"EXPLAIN QUERY PLAN {s}").fetchall() for s in statements]
        assert len(plans) == 2
        for plan in plans:
            assert [row[3].split(" USING ")[1] for row in plan] == [
                "INDEX sqlite_autoindex_objects_1 (key>? AND key<?)"
            ]


class TestClosing:
    async def test_finishes_what_is_queued(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        writes = await start(*(store.put(f"k{n}", b"") for n in range(50)))
        await store.close()
        await asyncio.gather(*writes)

        store = await SqliteStore.open(path)
        assert len(await keys_in(store)) == 50
        await store.close()

    async def test_finishes_the_reads_under_way(self, store: SqliteStore) -> None:
        await store.put("k", bytes(2**20))
        reads = await start(*(store.get("k") for _ in range(20)))
        await store.close()
        for read in reads:
            assert (found := await read) is not None
            assert len(found.body) == 2**20

    def test_is_possible_after_the_loop_has_ended_under_a_write(self, path: Path) -> None:
        leave = threading.Event()

        async def leave_a_write_behind() -> SqliteStore:
            store = await SqliteStore.open(path)
            await start(store._writer.run(lambda _: leave.wait(10)), store.put("k", b"body"))
            return store

        store = asyncio.run(leave_a_write_behind())
        leave.set()
        store._close_connections()
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT key FROM objects").fetchall() == [("k",)]

    async def test_leaves_one_file(self, store: SqliteStore, path: Path) -> None:
        await store.put("k", b"body")
        await store.close()
        assert await asyncio.to_thread(os.listdir, path.parent) == [path.name]

    async def test_copies_the_log_while_another_process_has_the_file_open(
        self, store: SqliteStore, path: Path
    ) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute("SELECT * FROM objects").fetchall()
            await store.put("k", b"what is to be copied")
            await store.close()
            assert b"what is to be copied" in await asyncio.to_thread(path.read_bytes)


class TestTwoStoresOnOneFile:
    @pytest.fixture
    async def other(self, store: SqliteStore, path: Path) -> AsyncIterator[SqliteStore]:
        opened = await SqliteStore.open(path)
        yield opened
        await opened.close()

    async def test_one_of_many_racing_writers_wins(self, store: SqliteStore, other: SqliteStore) -> None:
        outcomes = await asyncio.gather(
            *(s.put("k", b"", if_absent=True) for _ in range(50) for s in (store, other)),
            return_exceptions=True,
        )
        refusals = [outcome for outcome in outcomes if isinstance(outcome, PreconditionFailedError)]
        assert len(refusals) == 99

    async def test_both_write_at_once_and_nothing_is_lost(
        self, store: SqliteStore, other: SqliteStore
    ) -> None:
        async def write(to: SqliteStore, name: str) -> None:
            for n in range(20):
                await to.put(f"{name}/{n}", b"body")

        await asyncio.gather(*(write(s, f"{i}") for i, s in enumerate([store, other] * 3)))
        assert len(await keys_in(store)) == len(await keys_in(other)) == 120

    async def test_each_sees_at_once_what_the_other_wrote(
        self, store: SqliteStore, other: SqliteStore
    ) -> None:
        etag = await store.put("k", b"body")
        assert await other.get("k") == ("k", b"body", etag)

    async def test_their_etags_are_distinct(self, store: SqliteStore, other: SqliteStore) -> None:
        writes = (s.put("k", b"body") for _ in range(50) for s in (store, other))
        assert len(set(await asyncio.gather(*writes))) == 100

    async def test_a_write_fails_while_another_process_keeps_the_lock(
        self, store: SqliteStore, path: Path
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await store.put("k", b"refused")
            with pytest.raises(StoreError, match="locked"):
                await store.check()
            holder.execute("ROLLBACK")
        await store.put("k", b"written")
        await store.check()
