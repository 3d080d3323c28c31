"""How the server grows: with idle subscribers, parts of a share, workers, nodes, and a store that is far."""

import asyncio
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

import rpcshare
from bench.figures import Figure
from bench.peers import NODE, Load, Peer, ours

TICK = 0.01  # seconds: how exactly the system counts CPU
STORE_DELAY = 30  # ms that each request to the far store takes


def part(number: int, size: int = 400) -> dict[str, object]:
    words = random.Random(number)
    text = " ".join(f"word{words.randrange(1000)}" for _ in range(size // 8))
    data = {"id": f"prt_{number:08d}", "messageID": f"msg_{number // 10:06d}", "type": "text", "text": text}
    return {"type": "part", "data": data}


def message(number: int) -> dict[str, object]:
    role = "assistant" if number % 2 else "user"
    return {"type": "message", "data": {"id": f"msg_{number:06d}", "role": role}}


# Pages.


async def _made(peer: Peer, shares: int, parts: int) -> list[rpcshare.ShareCredentials]:
    async with rpcshare.ShareClient(peer.url, token=peer.token) as client:
        made = []
        for number in range(shares):
            share = await client.create_share(f"ses_pages_{number:08d}")
            items = [*map(message, range(parts // 10)), *map(part, range(parts))]
            await client.sync_share(share.id, share.secret, items)
            made.append(share)
        return made


def pages(*, quick: bool) -> Iterator[Figure]:
    """CPU of the page of a share of 2,000 parts: after a sync, and asked for again with what is cached."""
    shares, parts = (5, 2000) if quick else (20, 2000)
    with tempfile.TemporaryDirectory() as name, ours(Path(name)) as peer:
        made = asyncio.run(_made(peer, shares + 1, parts))
        time.sleep(5)  # templates are compiled, and what the syncs left to do is done
        with httpx.Client() as client:
            client.get(made.pop().url, timeout=60).raise_for_status()
            times = []
            for rounds in (1, 10):
                before = peer.cpu_of_all()
                for _ in range(rounds):
                    for share in made:
                        answer = client.get(share.url, timeout=60).raise_for_status()
                        assert "word" in answer.text
                times.append((peer.cpu_of_all() - before) / (rounds * shares) * 1e3)
    first, following = times
    yield Figure(f"page of a share of {parts:,} parts: CPU of the first", "ms", first, None, 50)
    yield Figure(f"page of a share of {parts:,} parts: CPU of the next", "ms", following, None, 5)


# Subscribers that are idle.


def idle_subscribers(*, quick: bool) -> Iterator[Figure]:
    """Memory of a subscribed connection, and how long one sync takes to reach all of them."""
    count = 1000 if quick else 10_000
    with tempfile.TemporaryDirectory() as name, ours(Path(name), "--max-connections=0") as peer:
        share = asyncio.run(_made(peer, 1, 10))[0]
        with _subscribers(peer, share.id, 200):
            pass  # what the process has not given back, others will use first
        before = peer.memory()
        with _subscribers(peer, share.id, count) as crowd:
            each = (peer.memory() - before) / count / 1000
            assert crowd.stdout is not None
            took = []
            for number in range(5):
                began = time.time()
                asyncio.run(_sync(peer, share, number))
                took.append(json.loads(crowd.stdout.readline())[1] - began)
    yield Figure(f"memory of one of {count:,} idle subscribers", "kB", each, None, 20)
    yield Figure(
        f"one sync until {count:,} subscribers have it", "ms", statistics.median(took) * 1e3, None, 1000
    )


@contextmanager
def _subscribers(peer: Peer, share_id: str, count: int) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        str(Path(__file__).with_name("subscribers.py")),
        peer.url,
        peer.token,
        share_id,
    ]
    process = subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the subscribers could not be made")
        yield process
    finally:
        process.kill()
        process.communicate()


async def _sync(peer: Peer, share: rpcshare.ShareCredentials, number: int) -> None:
    async with rpcshare.ShareClient(peer.url, token=peer.token) as client:
        await client.sync_share(share.id, share.secret, [part(number)])


# Workers.


def workers(*, quick: bool) -> Iterator[Figure]:
    """CPU of a sync with two workers and with one; what several cores do together, where there are some."""
    syncs, rounds = (20, 2) if quick else (60, 5)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        sides = [stack.enter_context(ours(folder, *each)) for each in ((), ("--workers=2",))]
        # Two clients: with one connection each, both workers have something to do.
        loads = [[stack.enter_context(Load(side)) for _ in range(2)] for side in sides]
        found: list[list[float]] = [[], []]
        for turn in range(rounds + 1):
            for side, clients, times in zip(sides, loads, found, strict=True):
                before = side.cpu_of_all()
                for number, load in enumerate(clients):
                    load("manyShares", f"ses_workers{turn}_{number}", 32, syncs)
                if turn:
                    times.append((side.cpu_of_all() - before) / (2 * 32 * syncs) * 1e6)
    one, two = map(statistics.median, found)
    yield Figure("CPU of a sync, 2 workers to 1", "µs", two, one, 1.1)


def throughput(*, quick: bool) -> Iterator[Figure]:
    """Calls a second of as many workers as half of the cores, against one; where there are 4 cores."""
    cores = os.cpu_count() or 1
    if cores < 4:
        print(
            f"throughput of several workers: not measured, this machine has {cores} cores of 4",
            file=sys.stderr,
        )
        return
    count = cores // 2
    number = 5000 if quick else 20_000
    rates = []
    with tempfile.TemporaryDirectory() as name:
        for used in (1, count):
            with ours(Path(name), f"--workers={used}") as side, ExitStack() as stack:
                loads = [stack.enter_context(Load(side)) for _ in range(2 * count)]
                for load in loads:
                    load("calls", 500, 16)
                began = time.perf_counter()
                for load in loads:
                    load.begin("calls", number, 16)
                for load in loads:
                    load.end()
                rates.append(len(loads) * number / (time.perf_counter() - began))
    # Less is better: what each worker does alone, to its share of what they do together.
    yield Figure(
        f"a worker alone to one of {count}: calls a second", "/s", rates[0], rates[1] / count, 1 / 0.85
    )


# A store that is 30 ms away.


@contextmanager
def far_store(delay: int = STORE_DELAY) -> Iterator[dict[str, str]]:
    """Run an S3 server that takes so long for each request; yield the environment of its users."""
    command = ["node", "bench_s3.mjs", str(delay)]
    process = subprocess.Popen(command, cwd=NODE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        yield {
            "RPCSHARE_STORE": f"s3://bench/shares?endpoint_url=http://127.0.0.1:{port}&path_style=true&connections=100",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench-secret",
            "AWS_REGION": "us-east-1",
            # What nodes have in common.
            "RPCSHARE_SHARED_SECRET": "00000000-0000-4000-8000-000000000001",
        }
    finally:
        process.kill()
        process.communicate()


async def _syncs(peer: Peer, shares: list[rpcshare.ShareCredentials], seconds: float) -> list[list[float]]:
    """Sync each share all the time, one sync after another; return the seconds of each, by share."""
    async with rpcshare.ShareClient(peer.url, token=peer.token) as client:

        async def one(share: rpcshare.ShareCredentials) -> list[float]:
            times: list[float] = []
            ends = time.perf_counter() + seconds
            while (began := time.perf_counter()) < ends:
                await client.sync_share(share.id, share.secret, [part(len(times) % 50)])
                times.append(time.perf_counter() - began)
            return times

        return await asyncio.gather(*map(one, shares))


def far(*, quick: bool) -> Iterator[Figure]:
    """Syncs a second into 64 shares whose store is far, and how long an acknowledgement takes."""
    seconds = 3.0 if quick else 10.0
    with tempfile.TemporaryDirectory() as name, far_store() as env, ours(Path(name), env=env) as peer:
        shares = asyncio.run(_made(peer, 64, 10))
        asyncio.run(_syncs(peer, shares, 2.0))
        before = peer.cpu()
        times = [each for share in asyncio.run(_syncs(peer, shares, seconds)) for each in share]
        cpu = (peer.cpu() - before) / len(times) * 1e6
    rate = len(times) / seconds
    yield Figure(
        f"64 shares, {STORE_DELAY} ms a request: time between syncs", "ms", 1e3 / rate, None, 1e3 / (64 * 25)
    )
    yield Figure(
        "the same: p50 of an acknowledgement", "ms", statistics.median(times) * 1e3, STORE_DELAY, 1.3
    )
    yield Figure("the same: server CPU of a sync", "µs", cpu, None, 600)


def two_nodes(*, quick: bool) -> Iterator[Figure]:
    """Two nodes that both write one share, with messages between them and without."""
    yield from _two_nodes("2 nodes with messages", quick=quick, has_messages=True)
    yield from _two_nodes("2 nodes without messages", quick=quick, has_messages=False)


@contextmanager
def _messages(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Redis server; yield the environment of its users."""
    command = shutil.which("redis-server") or shutil.which("valkey-server")
    if command is None:
        raise FileNotFoundError("neither redis-server nor valkey-server is installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    process = subprocess.Popen([command, *options], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        yield {"RPCSHARE_BROADCAST": f"redis://127.0.0.1:{port}/0"}
    finally:
        process.kill()
        process.wait()


def _two_nodes(what: str, *, quick: bool, has_messages: bool) -> Iterator[Figure]:
    """Two nodes against one: time of a sync, and who waits longest."""
    seconds, callers = (3.0, 8) if quick else (10.0, 8)
    with tempfile.TemporaryDirectory() as name, far_store() as store, ExitStack() as stack:
        folder = Path(name)
        env = dict(store)
        if has_messages:
            try:
                env.update(stack.enter_context(_messages(folder)))
            except FileNotFoundError as exc:
                print(f"{what}: not measured, {exc}", file=sys.stderr)
                return
        nodes = [stack.enter_context(ours(folder, env=env)) for _ in range(2)]
        share = asyncio.run(_made(nodes[0], 1, 10))[0]
        asyncio.run(_syncs(nodes[1], [share], 1.0))

        async def both(which: list[Peer]) -> list[list[float]]:
            return [
                [each for caller in found for each in caller]
                for found in await asyncio.gather(
                    *(_syncs(node, [share] * callers, seconds) for node in which)
                )
            ]

        alone = asyncio.run(both(nodes[:1]))[0]
        together = asyncio.run(both(nodes))
    every = [each for node in together for each in node]
    yield Figure(
        f"one share: time between syncs, {what} to 1",
        "ms",
        1e3 * seconds / len(every),
        1e3 * seconds / len(alone),
        1 / 1.5,
    )
    longest = max(every) * 1e3
    yield Figure(
        f"one share, {what}: longest wait to the median", "ms", longest, statistics.median(every) * 1e3, 10
    )
    less = max(len(node) for node in together) / min(len(node) for node in together)
    yield Figure(f"one share, {what}: syncs of one to those of the other", "", less, None, 2)


PARTS = (pages, idle_subscribers, workers, throughput, far, two_nodes)


def run(*, quick: bool, only: str = "") -> Iterator[Figure]:
    """Yield all of it, or what has ``only`` in the name of its function."""
    for measure in PARTS:
        if only in ("", "scale") or only == measure.__name__:
            yield from measure(quick=quick)
