"""Ours beside servers of npm's capnweb on Node, Bun and workerd, in turn.

The same work in the same run. The load is npm's client on Node for all of them. CPU is the server's alone, as
the operating system counts it. The peer in each row is the runtime that was fastest at it.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure
from bench.peers import Load, Peer, Start, ours, runtimes

Measure = Callable[[Peer, Load], float]
_numbers = count()

# Calls to a server before anything is measured: a compiler that learns from what runs has learned by then.
WARM_UP = 20_000


def fresh(prefix: str) -> str:
    """Return a session ID that has not been used, nor has the end of it."""
    return f"ses_{prefix}{next(_numbers):08d}"


def calls(number: int) -> Measure:
    """CPU of one of ``number`` calls, 64 of them under way at a time."""

    def measure(peer: Peer, load: Load) -> float:
        before = peer.cpu()
        load("calls", number, 64)
        return (peer.cpu() - before) / number * 1e6

    return measure


def round_trip(number: int, percentile: int) -> Measure:
    """The time that one call takes after another, at a percentile."""

    def measure(_peer: Peer, load: Load) -> float:
        times = sorted(load("roundTrips", number))
        return float(times[len(times) * percentile // 100]) * 1e3

    return measure


def event(subscribers: int, syncs: int) -> Measure:
    """CPU of delivering one event of 1 kB to one of so many subscribers, the sync's own included."""

    def measure(peer: Peer, _load: Load) -> float:
        # Subscribers of its own, that are gone afterwards.
        with Load(peer) as load:
            load("subscribe", fresh("events"), subscribers, min(subscribers, 100))
            load("publish", 5)
            before = peer.cpu()
            delivered = load("publish", syncs)
            return (peer.cpu() - before) / float(delivered) * 1e6

    return measure


def sync_into(parts: int, syncs: int) -> Measure:
    """The time of a sync of one part into a share of so many."""

    def measure(peer: Peer, _load: Load) -> float:
        with Load(peer) as load:
            session = fresh("sync")
            load("create", session, parts)
            return statistics.median(load("syncs", session, syncs)) * 1e3

    return measure


def create(parts: int) -> Measure:
    """The time of a create with so many parts in one message."""

    def measure(_peer: Peer, load: Load) -> float:
        return float(load("create", fresh("create"), parts))

    return measure


def many_shares(syncs: int) -> Measure:
    """The time of one sync when 64 shares are synced at once."""

    def measure(_peer: Peer, load: Load) -> float:
        return float(load("manyShares", fresh("many"), 64, syncs)) / (64 * syncs) * 1e3

    return measure


def create_peak(parts: int) -> Measure:
    """The most memory that a new server has had, once it has made a share of so many parts."""

    def measure(peer: Peer, load: Load) -> float:
        load("create", fresh("peak"), parts)
        return peer.memory("VmHWM") / 1e6

    return measure


def idle(connections: int) -> Measure:
    """Memory of a connection that has made one call, and does nothing."""

    def measure(peer: Peer, load: Load) -> float:
        load("idle", 50)  # what the process has not given back, others will use first
        before = peer.memory()
        load("idle", connections)
        return (peer.memory() - before) / connections / 1000

    return measure


class Bench(NamedTuple):
    name: str
    unit: str
    target: float
    measure: Measure
    rounds: int
    is_of_new: bool = False
    """Whether each round is of a server that has done nothing before."""


def benches(*, quick: bool) -> list[Bench]:
    """Return what is measured, in order."""
    rounds = 2 if quick else 5
    few = 1 if quick else 3
    return [
        Bench("server CPU per call, 64 in flight", "µs", 0.7, calls(4000 if quick else 20_000), rounds),
        Bench("round trip of one call, p50", "µs", 1.0, round_trip(1000 if quick else 5000, 50), rounds),
        Bench("round trip of one call, p99", "µs", 1.0, round_trip(1000 if quick else 5000, 99), rounds),
        Bench("CPU per event, 100 subscribers", "µs", 0.3, event(100, 20 if quick else 100), few),
        Bench("CPU per event, 1,000 subscribers", "µs", 0.3, event(1000, 3 if quick else 15), few),
        Bench("one-part sync into 20,000 parts", "µs", 0.015, sync_into(20_000, 10 if quick else 60), few),
        Bench("create with 20,000 parts", "ms", 0.8, create(20_000), few),
        Bench("peak memory of that create", "MB", 0.8, create_peak(20_000), few, is_of_new=True),
        Bench("one sync, 64 shares at once", "µs", 0.3, many_shares(10 if quick else 60), rounds),
        Bench("memory per idle connection", "kB", 20 / 17, idle(250), few, is_of_new=True),
    ]


def run(*, quick: bool, only: str = "") -> Iterator[Figure]:
    """Yield the medians, as they are known."""
    chosen = [bench for bench in benches(quick=quick) if only in bench.name]
    if not chosen:
        return
    starts: dict[str, Start] = {"ours": ours, **runtimes()}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        sides = [stack.enter_context(start(folder)) for start in starts.values()]
        for side in sides:
            with Load(side) as load:
                load("calls", WARM_UP // 4 if quick else WARM_UP, 64)
        for bench in chosen:
            if bench.is_of_new:
                results = [
                    [_of_new(start, folder, bench.measure) for start in starts.values()]
                    for _ in range(bench.rounds)
                ]
            else:
                results = _in_turn(sides, bench)
            medians = [statistics.median(values) for values in zip(*results, strict=True)]
            mine, *theirs = medians
            peers = dict(zip(list(starts)[1:], theirs, strict=True))
            yield Figure(bench.name, bench.unit, mine, min(theirs), bench.target, peers)


def _in_turn(sides: list[Peer], bench: Bench) -> list[list[float]]:
    """Return what was measured of each, round by round."""
    with ExitStack() as stack:
        loads = [(side, stack.enter_context(Load(side))) for side in sides]
        for _, load in loads:
            load("calls", 1000, 64)  # so is the client, which is a new one
        return [[bench.measure(side, load) for side, load in loads] for _ in range(bench.rounds)]


def _of_new(start: Start, folder: Path, measure: Measure) -> float:
    with start(folder) as side, Load(side) as load:
        return measure(side, load)
