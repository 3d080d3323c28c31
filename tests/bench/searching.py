"""Full-text search in a gigabyte of session text, in SQLite: words as often as in a language."""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench.figures import Figure
from bench.session_texts import COMMON, MIDDLE, RARE, texts
from rpcshare.database.engine import Database
from rpcshare.database.location import parse_location
from rpcshare.shares.page import Reach
from rpcshare.shares.search_index import Change, IndexedShare, SearchIndex
from rpcshare.shares.search_query import SearchQuery
from rpcshare.shares.search_texts import SearchableText

NOW = 1_780_000_000_000
STEP = 30_000  # ms between two texts
OF_SHARE, TOGETHER = 200, 40  # texts of a share, shares of a transaction
OWNERS = [*["many"] * 49, "few"]
TOOLS = ["", "", "bash", "read", "edit"]


def indexed_texts(size: int) -> Iterator[SearchableText]:
    """Yield texts of together ``size`` bytes, from the oldest."""
    count = size // 1000
    for number, body in enumerate(texts(size)):
        tool = TOOLS[number % len(TOOLS)]
        role = "user" if number % 10 == 0 else "assistant"
        at = NOW - max(count - number, 0) * STEP
        file = f"/home/me/src/module{number % 97}.py" if tool in ("read", "edit") else ""
        yield SearchableText(f"part:{number}", f"msg_{number}", f"prt_{number}", role, tool, file, at, body)


async def filled(path: Path, size: int) -> Database:
    """Return a database with so many bytes of text."""
    database = await Database.open(parse_location(f"sqlite:///{path}"))
    index, left, number, began = SearchIndex(database), indexed_texts(size), 0, time.perf_counter()
    while True:
        changes = []
        for _ in range(TOGETHER):
            if some := list(islice(left, OF_SHARE)):
                owner = OWNERS[number % len(OWNERS)]
                share = IndexedShare(f"{number:08d}", "g", "e", 1, owner=owner, title="Some session")
                changes.append(Change(share, iter(some)))
                number += 1
        if not changes:
            break
        await index.put_all(changes)
    took = time.perf_counter() - began
    print(
        f"{size / 1e6:.0f} MB of text indexed in {took:.0f} s, of which making it is a part", file=sys.stderr
    )
    return database


def queries(count: int) -> Iterator[tuple[str, str]]:
    """Yield queries as people type them, each with its kind."""
    rng = random.Random(3)
    for _ in range(count):
        words = {"common": COMMON, "middle": MIDDLE, "rare": RARE}
        common, middle, rare = (rng.choice(each) for each in words.values())
        other = rng.choice(MIDDLE)
        yield from (
            ("a common word", common),
            ("a word", middle),
            ("a rare word", rare),
            ("a word nobody wrote", f"{rare}xyzzy"),
            ("two words", f"{middle} {other}"),
            ("a common and a rare word", f"{common} {rare}"),
            ("the beginning of a word, 3 letters", middle[:3]),
            ("the beginning of a word, 2 letters", middle[:2]),
            ("a phrase", f'"{common} {middle}"'),
            ("a phrase of common words", f'"{common} {rng.choice(COMMON)}"'),
            ("a word, without another", f"{middle} -{other}"),
            ("a word of a tool", f"{middle} tool:bash"),
            ("a word of a role, and a time", f"{middle} role:user before:2026-05-01"),
            ("a word of a file", f"{middle} file:module7.py"),
        )


async def asked(index: SearchIndex, owners: tuple[str, ...] | None, count: int) -> dict[str, list[float]]:
    """Return the milliseconds of wall time that queries take, by their kind."""
    found: dict[str, list[float]] = {}
    for kind, query in queries(count):
        began = time.perf_counter()
        await index.search(SearchQuery.parse(query), Reach(owners), NOW)
        found.setdefault(kind, []).append((time.perf_counter() - began) * 1e3)
    return found


async def measured(path: Path, size: int, count: int) -> dict[str, dict[str, list[float]]]:
    """Return the times of all queries: of everybody's texts, of many texts, and of few among these."""
    database = await filled(path, size)
    index = SearchIndex(database)
    found = {}
    for name, owners in {"all": None, "one of 2 %": ("few",)}.items():
        await asked(index, owners, 1)
        found[name] = await asked(index, owners, count)
    await database.close()
    return found


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield the median and the slowest of all queries, and of each kind."""
    size = 20 * 10**6 if quick else 10**9
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "database.sqlite3"
        found = asyncio.run(measured(path, size, 5 if quick else 40))
        large = f"{size / 1e6:,.0f} MB"
        for whose, kinds in found.items():
            times = [each for of_kind in kinds.values() for each in of_kind]
            p99 = statistics.quantiles(times, n=100)[98]
            yield Figure(f"search of {whose} in {large}, p50", "ms", statistics.median(times), None, 50)
            yield Figure(f"search of {whose} in {large}, p99", "ms", p99, None, 300)
        for kind, times in found["all"].items():
            yield Figure(f"search: {kind}, the slowest", "ms", max(times), None, 300)
        yield Figure("the index, for a byte of text", "B", path.stat().st_size / size, None, 3)
