"""What does it cost to keep a long session? Bytes and requests to the store, for bytes that syncs carry.

The recorded session goes on for 5,000 syncs, one a second, as opencode sends them: with new messages and
parts each time around, updated as often, and the diffs of a turn sent again with every batch. All that is
written counts: entries, snapshots, rows for listings. Time is made to pass as quickly as work allows.
"""

import asyncio
import json
import random
import selectors
import string
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.shares import Credentials, ShareService, objects
from rpcshare.storage import MemoryStore, ObjectStore, SqliteStore

RECORDING = Path(__file__).parents[1] / "fixtures" / "opencode-share-traffic.jsonl"
SYNCS = 5000
RATIO = "bytes written for a byte carried (target: at most 1.5)"
ALICE = Caller("alice", frozenset({Scope.CREATE}))


class CountingStore:
    """Passes everything on, and counts what is put, by what it is."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.puts: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        for name in ("get", "delete", "list", "scan", "check", "close"):
            setattr(self, name, getattr(inner, name))

    async def put(self, key: str, body: bytes, **conditions: Any) -> str:
        kind = next((kind for kind in ("log", "snapshot", "index") if kind in key.split("/")), "head")
        self.puts[kind] += 1
        self.bytes[kind] += len(body)
        return await self._inner.put(key, body, **conditions)


class _ImpatientSelector(selectors.DefaultSelector):
    """Returns at once where another would wait for a timer, and counts the time it did not wait."""

    skipped = 0.0  # seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0 if timeout else timeout)
        if timeout and not events:
            self.skipped += timeout
        return events


class _ImpatientLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs ahead while nothing is to be done."""

    def __init__(self) -> None:
        self._impatient = _ImpatientSelector()
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + self._impatient.skipped


def long_session() -> Iterator[list[dict[str, Any]]]:
    """Yield the batches of a session without an end."""
    recorded = [json.loads(line) for line in RECORDING.read_text().splitlines()]
    batches = [request["body"]["data"] for request in recorded if request["path"].endswith("/sync")]
    turn = 0
    while True:
        turn += 1
        letters = random.Random(turn).sample(string.ascii_lowercase, 26)
        cipher = str.maketrans(string.ascii_lowercase, "".join(letters))
        for batch in batches:
            yield [_rewritten(item, turn, cipher) for item in batch]


def _rewritten(value: Any, turn: int, cipher: dict[int, int]) -> Any:
    """Return ``value`` with other ids, and other texts of the same length."""
    if isinstance(value, dict):
        return {name: _rewritten(inner, turn, cipher) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rewritten(inner, turn, cipher) for inner in value]
    if isinstance(value, str) and value.startswith(("msg_", "prt_")):
        return f"{value[:4]}{turn:04d}{value[8:]}"
    # Or a snapshot would compress as no real one does.
    return value.translate(cipher) if isinstance(value, str) and " " in value else value


async def measure(inner: ObjectStore) -> dict[str, float]:
    store = CountingStore(inner)
    credentials = Credentials(UUID(int=0), "https://share.example")
    service = ShareService(store, LocalBroadcaster(), credentials)  # type: ignore[arg-type]  # it has them all
    share = await service.create(ALICE, "ses_long_session")
    carried = 0
    batches = long_session()
    for _ in range(SYNCS):
        batch = next(batches)
        carried += len(json.dumps(batch, separators=(",", ":"), ensure_ascii=False).encode())
        await service.sync(ALICE, share.id, share.secret, batch)
        await asyncio.sleep(1.0)
    held = len(await service.agent_session(ALICE, share.id))
    await service.close()
    await inner.close()
    written = store.bytes
    return {
        "carried, MB": carried / 1e6,
        "held at the end as JSON, MB": held / 1e6,
        "written as entries, MB": written["log"] / 1e6,
        "written as snapshots, MB": written["snapshot"] / 1e6,
        "written as rows, MB": written["index"] / 1e6,
        "snapshots": store.puts["snapshot"],
        "PUTs for a sync": store.puts.total() / SYNCS,
        RATIO: written.total() / carried,
    }


def run() -> dict[str, float]:
    """Return what was counted, for both of the stores that need nothing else to be running."""
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sqlite3"
        for name, opened in (("memory", _memory()), ("sqlite", SqliteStore.open(path))):
            measured |= {f"{name}: {what}": value for what, value in _run(opened).items()}
        with mock.patch.object(objects, "pack", lambda body: body):
            ratio = _run(_memory())[RATIO]
    return measured | {f"the same if nothing could be compressed: {RATIO}": ratio}


def _run(opened: Coroutine[None, None, ObjectStore]) -> dict[str, float]:
    with asyncio.Runner(loop_factory=_ImpatientLoop) as runner:
        return runner.run(measure(runner.run(opened)))


async def _memory() -> MemoryStore:
    return MemoryStore()
