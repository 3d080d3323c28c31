"""Connections to SQLite that make few cursors, for each leaves a weak reference behind."""

import gc
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rpcshare.sqlite_connection import SqliteConnection


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", factory=SqliteConnection)) as opened:
        opened.execute("CREATE TABLE numbers (n INTEGER)")
        opened.executemany("INSERT INTO numbers VALUES (?)", [(1,), (2,), (3,)])
        yield opened


def dead_references() -> int:
    return sum(1 for each in gc.get_objects() if type(each) is weakref.ref and each() is None)


def test_statements_leave_no_dead_references_behind(connection: sqlite3.Connection) -> None:
    before = dead_references()
    for _ in range(100):
        connection.execute("SELECT n FROM numbers").fetchall()
        with closing(connection.cursor()) as cursor:
            cursor.execute("SELECT n FROM numbers").fetchone()
    assert dead_references() < before + 5


def test_cursors_that_are_open_at_one_time_are_two(connection: sqlite3.Connection) -> None:
    with closing(connection.cursor()) as first, closing(connection.cursor()) as second:
        first.execute("SELECT n FROM numbers ORDER BY n")
        second.execute("SELECT n FROM numbers ORDER BY n DESC")
        assert [first.fetchone(), second.fetchone(), first.fetchone()] == [(1,), (3,), (2,)]


def test_a_closed_cursor_is_used_again_as_if_new(connection: sqlite3.Connection) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT n FROM numbers ORDER BY n").fetchone()
    with closing(connection.cursor()) as again:
        assert again is cursor
        assert again.fetchall() == []
        assert again.execute("SELECT max(n) FROM numbers").fetchall() == [(3,)]


def test_a_closed_cursor_ends_its_read(connection: sqlite3.Connection) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT n FROM numbers").fetchone()
    connection.execute("DROP TABLE numbers")  # refused while a statement reads it


def test_closing_lets_go_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers.db"
    with closing(sqlite3.connect(path, factory=SqliteConnection)) as opened:
        opened.execute("PRAGMA journal_mode = WAL").fetchone()
        opened.execute("CREATE TABLE numbers (n INTEGER)")
    assert [file.name for file in tmp_path.iterdir()] == ["numbers.db"]
