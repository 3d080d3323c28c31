"""What the server does, while it goes on, to give memory back that it needed for a moment."""

import asyncio
import gc
import itertools
import sys
from collections.abc import Iterable, Iterator

import pytest

from rpcshare.server import malloc_trim

MiB = 2**20


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Up to which generation the collector has looked, each time, with pauses of no length."""
    looks: list[int] = []
    monkeypatch.setattr(malloc_trim, "_EVERY", 0.001)
    monkeypatch.setattr(malloc_trim, "_SELDOM", 0.001)
    monkeypatch.setattr(gc, "collect", looks.append)
    return looks


async def run(
    monkeypatch: pytest.MonkeyPatch, looked: list[int], resident: Iterable[int], blocks: Iterable[int]
) -> None:
    """Have the server take so many bytes and blocks of memory, one after another; then stay so."""

    def then_the_same(values: Iterable[int]) -> Iterator[int]:
        last = 0
        for last in values:
            yield last
        yield from itertools.repeat(last)

    sizes, allocated = then_the_same(resident), then_the_same(blocks)
    monkeypatch.setattr(malloc_trim, "_resident", lambda: next(sizes))
    monkeypatch.setattr(sys, "getallocatedblocks", lambda: next(allocated))
    with malloc_trim.giving_back():
        async with asyncio.timeout(30):
            while len(looked) < 40:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.001)


async def test_all_objects_are_looked_at_once_after_a_burst(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    await run(monkeypatch, looked, [100 * MiB, 100 * MiB, 300 * MiB], [0])
    assert looked.count(2) == 1


async def test_they_are_looked_at_again_when_many_were_freed_though_the_server_looks_as_large(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    await run(monkeypatch, looked, [100 * MiB, 100 * MiB, 300 * MiB], [*[1_000_000] * 30, 100_000])
    assert looked.count(2) == 2


async def test_they_are_not_looked_at_while_more_come(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    growing = [100 * MiB, *(300 * MiB + each * 10 * MiB for each in range(200))]
    await run(monkeypatch, looked, growing, [0])
    assert looked.count(2) == 0


async def test_a_server_that_has_not_grown_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    monkeypatch.setattr(malloc_trim, "_resident", lambda: 100 * MiB)
    with malloc_trim.giving_back():
        await asyncio.sleep(0.1)
    assert looked == []
