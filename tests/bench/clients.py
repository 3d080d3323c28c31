"""Our client beside npm's, on the same server of ours, in turn."""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.peers import NODE_CLIENT, PYTHON_CLIENT, Load, ours


def run(*, quick: bool) -> Iterator[Figure]:
    """Yield the medians: of the time and of the client's CPU for one of 64 calls that are under way."""
    number, rounds = (4000, 2) if quick else (20_000, 5)
    times: dict[str, list[float]] = {"ours": [], "npm": []}
    cpu: dict[str, list[float]] = {"ours": [], "npm": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        ours(Path(folder)) as server,
        Load(server, PYTHON_CLIENT) as own,
        Load(server, NODE_CLIENT) as npm,
    ):
        clients = {"ours": own, "npm": npm}
        for load in clients.values():
            load("calls", 2000, 64)
        for _ in range(rounds):
            for name, load in clients.items():
                before = load.cpu()
                times[name].append(load("calls", number, 64) * 1e3 / number)
                cpu[name].append((load.cpu() - before) / number * 1e6)
    rows = (("client: time per call, 64 in flight", times, 0.9), ("client: CPU per call", cpu, 0.8))
    for what, of, target in rows:
        mine, theirs = (statistics.median(of[name]) for name in clients)
        yield Figure(what, "µs", mine, theirs, target)
