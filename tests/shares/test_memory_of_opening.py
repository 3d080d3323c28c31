"""What opening a share takes of memory: never what is stored, decoded, and the share itself at once."""

import base64
import os
import tracemalloc
from pathlib import Path

import pytest

from rpcshare.shares import objects
from rpcshare.shares.journal import Journal
from rpcshare.shares.objects import Head, LoggedSync, LogSnapshot
from rpcshare.shares.replay import replay
from rpcshare.shares.rollback import HighWaterMarks, RollbackCheckedStore
from rpcshare.shares.syncdata import Item, Kind
from rpcshare.storage.observed import ObservedStore
from rpcshare.storage.sqlite import SqliteStore

PART = 2**20  # bytes of base64, which take three quarters of that compressed
PARTS = 12


def whole_session() -> tuple[Item, ...]:
    texts = [base64.b64encode(os.urandom(PART * 3 // 4)) for _ in range(PARTS)]
    values = [(b'"p%d"' % n, b'{"id":"p%d","text":"%b"}' % (n, text)) for n, text in enumerate(texts)]
    return (Item(Kind.PART, tuple(values)),)


@pytest.mark.parametrize("form", ["log", "snapshot"])
async def test_opening_a_share_holds_it_at_most_twice(form: str, tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    inner = ObservedStore(await SqliteStore.open(path))
    store = RollbackCheckedStore(inner, HighWaterMarks.open(tmp_path / "marks.sqlite3"))
    journal = Journal(store, "share", "abcd")
    if form == "log":
        text = objects.encode_entry("id", [LoggedSync(1, whole_session())], {})
        await journal.append(1, objects.pack(text))
        del text
    else:
        await journal.write_snapshot(1, LogSnapshot(1, 1, whole_session()))
    tracemalloc.start()
    try:
        found = await replay(journal, Head(1, "abcd"), None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await store.close()
    size = found.state.content.size
    assert size > PART * PARTS
    # With what is stored held as well, it would be 2.75 times as much.
    assert peak < 2.4 * size
