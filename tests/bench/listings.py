"""Pages of listings, with few shares and with very many: rows made directly in the database."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
from sqlalchemy import Connection

from bench.figures import Figure
from rpcshare.database.engine import Database
from rpcshare.database.location import parse_location
from rpcshare.server.run import WARM_UP_AFTER
from rpcshare.shares.catalogue import Catalogue, row_values
from rpcshare.shares.catalogue_row import CatalogueRow, Figures
from rpcshare.shares.page import Filters, Query, Reach
from rpcshare.shares.reindexing import COMPLETE
from rpcshare.shares.search_index import SearchIndex
from rpcshare.shares.state import SessionIndex
from support.running_server import RunningServer

NOW = 1_780_000_000_000
MINUTE = 60_000
OWNERS = [f"owner{number}" for number in range(4)]
PROJECTS = [f"project{number}" for number in range(5)]
NOUNS = [
    "parser",
    "cache",
    "socket",
    "stream",
    "button",
    "query",
    "index",
    "token",
    "module",
    "layout",
    "worker",
    "session",
    "report",
]
VERBS = ["Fix", "Add", "Rename", "Remove", "Test", "Explain", "Speed-up", "Move", "Document", "Review"]
AT_ONCE = 10_000


def row(number: int, rng: random.Random) -> CatalogueRow:
    """Return the row of a share of some minute of the last year or two."""
    created = NOW - number * MINUTE
    title = f"{rng.choice(VERBS)} the {rng.choice(NOUNS)} of {rng.choice(NOUNS)} {number % 997}"
    directory = f"/home/me/{rng.choice(PROJECTS)}"
    counts = (rng.randrange(40), rng.randrange(400), rng.randrange(9), 1)
    changed = created + rng.randrange(60) * MINUTE if number else NOW
    index = SessionIndex(f"{number:08d}", f"ses_{number:08d}", title, directory, *counts, changed, 9, created)
    figures = Figures("large", rng.random(), 10_000, 3, 40, 20, "Please do it")
    owner = rng.choice(OWNERS)
    return CatalogueRow(index, "g", owner, is_private=rng.random() < 0.05, figures=figures)


def _add(listed: Catalogue, rows: list[CatalogueRow], connection: Connection) -> None:
    listed.add_in(connection, [row_values(each, is_new=True) for each in rows])


async def filled(path: Path, count: int) -> Database:
    """Return a database with ``count`` rows."""
    database, rng = await Database.open(parse_location(f"sqlite:///{path}")), random.Random(count)
    listed = Catalogue(database)
    # From the oldest, as they come.
    for start in range(count, 0, -AT_ONCE):
        numbers = range(start - 1, max(start - AT_ONCE, 0) - 1, -1)
        await database.write(partial(_add, listed, [row(number, rng) for number in numbers]))
    index = SearchIndex(database)
    await index.catalogue.count_anew()
    await index.note_progress(COMPLETE, "yes")
    return database


def queries(count: int) -> dict[str, Query]:
    """Return a query for each kind of page."""
    middle = (-(NOW - count // 2 * MINUTE), "")
    everything = Query(Reach(None), None, 30, "")
    own = Query(Reach((OWNERS[3],)), None, 30, "")
    filters = {
        "a project": Filters(project=PROJECTS[3]),
        "private": Filters(is_private=True),
        "live": Filters(is_live=True),
        "since and until": Filters(since=NOW - count * 3 // 4 * MINUTE, until=NOW - count // 4 * MINUTE),
    }
    return {
        "all": everything,
        "from the middle": Query(Reach(None), middle, 30, ""),
        "last changed first": Query(Reach(None), None, 30, "", by_change=True),
        "one's own": own,
        "one's own, last changed first": Query(own.reach, None, 30, "", by_change=True),
        **{name: Query(Reach(None), None, 30, "", filters=each) for name, each in filters.items()},
        "one's own in a project": Query(own.reach, None, 30, "", filters=filters["a project"]),
        "a text in many titles": Query(Reach(None), None, 30, "fix the parser"),
        "a text in none": Query(Reach(None), None, 30, "zebra crossing"),
        "one's own with a text": Query(own.reach, None, 30, "fix the parser"),
        "a rare text of frequent letters": Query(Reach(None), None, 30, "fix the parser of layout 996"),
        "a text that no title has of words that all have": Query(Reach(None), None, 30, "the of the"),
    }


class Times(NamedTuple):
    """Of pages of one kind, in milliseconds."""

    wall: list[float]
    loop: list[float]

    @property
    def p50(self) -> float:
        return statistics.median(self.wall)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.wall, n=100)[98]


async def timed(listed: Catalogue, query: Query, pages: int) -> Times:
    times = Times([], [])
    for _ in range(pages):
        began, loop = time.perf_counter(), time.thread_time()
        await listed.page(query, NOW, {})
        times.wall.append((time.perf_counter() - began) * 1e3)
        times.loop.append((time.thread_time() - loop) * 1e3)
    return times


async def measured(folder: Path, sizes: list[int], pages: int) -> dict[int, dict[str, Times]]:
    """Return the times of each kind of page, by how many rows there are; sizes are measured in turn."""
    found: dict[int, dict[str, Times]] = {size: {} for size in sizes}
    databases = {}
    for size in sizes:
        databases[size] = await filled(folder / str(size) / "database.sqlite3", size)
    for name in queries(1):
        for size, database in databases.items():
            await timed(Catalogue(database), queries(size)[name], 5)
            found[size][name] = await timed(Catalogue(database), queries(size)[name], pages)
    for database in databases.values():
        await database.close()
    return found


def first_page(data_dir: Path, *, after: float = 0.0) -> tuple[float, float]:
    """Return how long the first page takes ``after`` seconds, and the memory of the server after many."""
    with (
        RunningServer(data_dir) as server,
        httpx.Client(headers={"Authorization": f"Bearer {server.token}"}) as client,
    ):
        time.sleep(after)
        client.get(f"{server.url}/healthz")
        began = time.perf_counter()
        answer = client.get(f"{server.url}/api/sessions?limit=30", timeout=60)
        took = (time.perf_counter() - began) * 1e3
        assert len(answer.raise_for_status().json()["sessions"]) == 30
        for text in ("parser", "fix", "zebra", "project3"):
            for _ in range(20):
                client.get(f"{server.url}/api/sessions?limit=30&q={text}", timeout=60).raise_for_status()
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return took, memory / 1024


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield what the issue of listings is: growth, the slowest page, and what a start takes."""
    sizes = [1000, 30_000] if quick else [1000, 100_000, 1_000_000]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = asyncio.run(measured(folder, sizes, 30 if quick else 200))
        most = sizes[-1]
        for kind, times in found[most].items():
            medians = [found[size][kind].p50 for size in sizes]
            yield Figure(f"page, {kind}: {most:,} to {sizes[0]:,}", "ms", times.p50, min(medians), 3.0)
        for kind, times in found[most].items():
            yield Figure(f"page, {kind}: {most:,}, p99", "ms", times.p99, None, 20)
        loop = statistics.median(each for times in found[most].values() for each in times.loop)
        yield Figure(f"page of {most:,}: event loop, in 10 µs", "", loop * 100, None, 100)
        starts = {size: [first_page(folder / str(size)) for _ in range(3)] for size in (sizes[0], most)}
        rested = [first_page(folder / str(most), after=WARM_UP_AFTER + 2.0)[0] for _ in range(3)]
        first = statistics.median(took for took, _ in starts[most])
        yield Figure(f"first page at once after a start, of {most:,}", "ms", first, None, 100)
        yield Figure(
            f"first page of a server at rest, of {most:,}", "ms", statistics.median(rested), None, 100
        )
        few, many = (min(memory for _, memory in starts[size]) for size in (sizes[0], most))
        yield Figure(f"memory, {most:,} more than {sizes[0]:,}", "MB", max(many - few, 0.0), None, 20)
