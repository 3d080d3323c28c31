"""A server that is killed as it writes its database, at one statement or another, and what the next finds.

Shares are unharmed, and the projection becomes whole by itself: the doctor compares it with the store.
"""

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import rpcshare
from rpcshare.database import parse_location
from rpcshare.shares.reindexing import out_of_date
from rpcshare.shares.search import open_index
from rpcshare.storage import SqliteStore
from support.postgres_server import *  # noqa: F403 -- fixtures
from support.running_server import RunningServer

pytestmark = pytest.mark.rare

STEPS = {"sqlite": (1, 5, 8, 13), "postgresql": (4, 9)}
PATIENCE = 60.0  # seconds
DEATH_TIMEOUT = 15.0


class MortalServer(RunningServer):
    command = (sys.executable, str(Path(__file__).with_name("mortal_projection.py")))


def part(number: int, text: str) -> dict[str, Any]:
    data = {"id": f"prt_{number}", "messageID": "msg_1", "type": "text", "text": text}
    return {"type": "part", "data": data}


def message() -> dict[str, Any]:
    return {
        "type": "message",
        "data": {"id": "msg_1", "role": "user", "time": {"created": 1_700_000_000_000}},
    }


class Load:
    """What a client does until the server dies, and what is acknowledged."""

    def __init__(self) -> None:
        self.words: dict[str, set[str]] = {}
        """The parts that a search for a word has to find, by the word."""
        self.deleted: set[str] = set()

    async def until_it_dies(self, server: RunningServer, number: int, begin: Path) -> None:
        """Make a share, replace and add texts, and delete another one, again and again."""
        headers = {"Authorization": f"Bearer {server.token}"}
        async with (
            rpcshare.ShareClient(server.url, token=server.token) as client,
            httpx.AsyncClient(headers=headers, timeout=PATIENCE) as reader,
        ):
            with suppress(rpcshare.SessionClosedError, httpx.TransportError):
                await reader.get(f"{server.url}/api/sessions")  # opens the database
                await asyncio.to_thread(begin.touch)
                began = time.monotonic()
                for turn in range(10**6):
                    assert time.monotonic() < began + DEATH_TIMEOUT, "it does not die"
                    word = f"needle{number}x{turn}"
                    made = await client.create_share(f"ses_{number:04}{turn:04}", [message(), part(1, "old")])
                    await client.sync_share(made.id, made.secret, [part(1, word), part(2, word)])
                    self.words[word] = {f"{made.id} prt_1", f"{made.id} prt_2"}
                    if turn % 2:
                        self.words.pop(word)
                        await client.delete_share(made.id, made.secret)
                        self.deleted.add(made.id)
                    await asyncio.sleep(0.3)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_the_projection_is_whole_whichever_statement_a_server_was_killed_at(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    data, load = tmp_path / "data", Load()
    url = f"sqlite:///{data}/database.sqlite3"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_url")
    for number in STEPS[kind]:
        begin = tmp_path / f"begin-{number}"
        env = {"DIE_AT": str(number), "BEGIN": str(begin)}
        server = await asyncio.to_thread(MortalServer, data, f"--database={url}", env=env)
        try:
            await load.until_it_dies(server, number, begin)
        finally:
            server.kill()
    with await asyncio.to_thread(RunningServer, data, f"--database={url}") as survivor:
        await whole(survivor, load)
        survivor.stop()
    store = await SqliteStore.open(data / "store.sqlite3")
    index = await open_index(parse_location(url))
    assert [each async for each in out_of_date(store, index)] == []
    await index.database.close()
    await store.close()


async def whole(server: RunningServer, load: Load) -> None:
    """Wait until all that was acknowledged is found, and nothing that was deleted; nobody tells it to."""
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE) as reader:
        until = time.monotonic() + PATIENCE
        for word, parts in load.words.items():
            while await found(reader, server, word) != parts:
                assert time.monotonic() < until, f"{word} is not found"
                await asyncio.sleep(0.1)
        listed = (await reader.get(f"{server.url}/api/sessions?limit=200")).json()
        rows = {row["id"]: row for row in listed["sessions"]}
        assert listed["count"] == len(rows)
        assert not rows.keys() & load.deleted
        for share_id, row in rows.items():
            assert (await reader.get(f"{server.url}/api/share/{share_id}/metadata")).json() == row


async def found(reader: httpx.AsyncClient, server: RunningServer, word: str) -> set[str]:
    """Return the shares and parts that have a word."""
    hits = (await reader.get(f"{server.url}/api/search?q={word}")).json()["hits"]
    return {f"{hit['shareID']} {hit['partID']}" for hit in hits}
