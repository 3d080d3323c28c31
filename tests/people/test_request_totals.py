"""Requests that several servers of one database count together."""

import asyncio

import pytest
from sqlalchemy import func, select

from rpcshare.auth import request_totals
from rpcshare.auth.rate_limits import RateLimit
from rpcshare.auth.request_totals import RequestTotals
from rpcshare.database import DatabaseError
from rpcshare.database.engine import Database
from rpcshare.database.records import request_counts


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Node:
    def __init__(self, database: Database, clock: Clock) -> None:
        self.counted = RateLimit(10**9, clock)
        self.totals = RequestTotals(database, self.counted, clock=clock)
        self.counted.on_count = self.totals.note


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nodes(records: Database, clock: Clock) -> list[Node]:
    return [Node(records, clock) for _ in range(3)]


async def test_what_others_have_counted_counts(nodes: list[Node]) -> None:
    for number, node in enumerate(nodes):
        for _ in range(number + 1):
            node.counted.count("user:a")
    nodes[1].counted.count("user:b")
    for _ in range(2):
        for node in nodes:
            node.counted.count("user:a")
            await node.totals.add_up()
    assert [node.counted.number("user:a") for node in nodes] == [10, 11, 12]  # each heard of those before
    assert [node.counted.number("user:b") for node in nodes] == [0, 1, 0]


async def test_nothing_is_counted_twice_however_often_it_is_added_up(nodes: list[Node]) -> None:
    for _ in range(5):
        nodes[0].counted.count("user:a")
        await nodes[0].totals.add_up()
        await nodes[0].totals.add_up()
    assert nodes[0].counted.number("user:a") == 5
    nodes[1].counted.count("user:a")
    await asyncio.gather(*(node.totals.add_up() for node in nodes))
    assert nodes[1].counted.number("user:a") == 6


async def test_a_minute_ends_and_old_ones_are_removed(
    nodes: list[Node], clock: Clock, records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_totals, "_TRIM_EVERY", 1)
    for _ in range(6):
        nodes[0].counted.count("user:a")
        await nodes[0].totals.add_up()
        clock.now += 60
    nodes[1].counted.count("user:a")
    await nodes[1].totals.add_up()
    assert nodes[1].counted.number("user:a") == 1
    rows = select(func.count()).select_from(request_counts)
    assert await records.read(lambda connection: connection.execute(rows).scalar()) == 3


async def test_while_the_database_fails_each_counts_and_tells_it_later(
    nodes: list[Node], records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_work: object) -> None:
        raise DatabaseError("gone")

    for _ in range(4):
        nodes[0].counted.count("user:a")
    with monkeypatch.context() as broken:
        broken.setattr(records, "write", fails)
        with pytest.raises(DatabaseError):
            await nodes[0].totals.add_up()
    assert nodes[0].counted.number("user:a") == 4
    await nodes[0].totals.add_up()
    nodes[1].counted.count("user:a")
    await nodes[1].totals.add_up()
    assert nodes[1].counted.number("user:a") == 5
