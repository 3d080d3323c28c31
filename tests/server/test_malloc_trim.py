"""What the server does, while it goes on, to give memory back that it needed for a moment."""

import asyncio
import gc
import itertools
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
    monkeypatch: pytest.MonkeyPatch, looked: list[int], resident: Iterable[int], collections: Iterable[int]
) -> None:
    """Have the server be so large, and have made so many objects, one after another; then stay so."""

    def then_the_same(values: Iterable[int]) -> Iterator[int]:
        last = 0
        for last in values:
            yield last
        yield from itertools.repeat(last)

    sizes, made = then_the_same(resident), then_the_same(collections)
    monkeypatch.setattr(malloc_trim, "_resident", lambda: next(sizes))
    monkeypatch.setattr(malloc_trim, "_young_collections", lambda: next(made))
    with malloc_trim.giving_back():
        async with asyncio.timeout(30):
            while len(looked) < 40:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.001)


async def test_all_objects_are_looked_at_once_after_a_burst(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    await run(monkeypatch, looked, [100 * MiB, 100 * MiB, 300 * MiB], [0])
    assert looked.count(2) == 1


async def test_they_are_looked_at_again_when_a_long_burst_of_one_size_is_over(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    await run(monkeypatch, looked, [100 * MiB, 100 * MiB, 300 * MiB], [*range(40), 40])
    first, last = looked.index(2), len(looked) - 1 - looked[::-1].index(2)
    assert looked.count(2) == 2
    assert first < last


async def test_a_server_that_has_not_grown_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, looked: list[int]
) -> None:
    monkeypatch.setattr(malloc_trim, "_resident", lambda: 100 * MiB)
    with malloc_trim.giving_back():
        await asyncio.sleep(0.1)
    assert looked == []
