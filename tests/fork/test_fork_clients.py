"""What becomes of sessions that a fork of opencode shares, by its own client and by ours: a table.

A client that sends nothing again leaves gaps, on the fork's own worker as here. Each cell says what the
worker would have; ours has all of it everywhere.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import httpx
import pytest

from rpcshare.storage import open_store
from support.forks import CLIENTS_OF_FORKS, MISSING, Fork, ForkError, is_available, project
from support.npm_packages import CLIENTS, run_in
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not is_available(), reason=MISSING),
    pytest.mark.timeout(600),
]

SHARED_SECRET = UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
WAIT = 20.0  # seconds for what should come
SENT_BY = 4.0  # seconds in which what is sent at all has been


class Place:
    """Where one scenario takes place: a session, a server, and a database that outlives processes."""

    def __init__(self, root: Path, directory: Path, client: str, server: RunningServer) -> None:
        self._root = root
        self._database = directory / f"{uuid4().hex}.db"
        self.client = client
        self.server = server
        self.directory = directory
        self.session = f"ses_{uuid4().hex}"

    def fork(self, *, key: str | None = None, **env: str) -> Fork:
        return Fork(self._root, self.client, self._database, self.server.url, key or self.server.token, **env)

    def share(self, share_id: str) -> dict[str, Any] | None:
        answer = httpx.get(
            f"{self.server.url}/api/share/{share_id}",
            headers={"Authorization": f"Bearer {self.server.token}"},
            timeout=200,
        )
        return answer.json() if answer.status_code == 200 else None

    def difference(self, fork: Fork, share_id: str) -> str:
        """Return what a share lacks, or "equal"."""
        expected, found = fork.held(self.session), self.share(share_id)
        if found is None:
            return "no share"
        lacks = []
        for name in ("messages", "parts", "diffs"):
            keys = [json.dumps(item, sort_keys=True) for item in found[name]]
            if len(keys) > len(expected[name]):
                lacks.append(f"{len(keys) - len(expected[name])} {name} twice")
            missing = sum(json.dumps(item, sort_keys=True) not in keys for item in expected[name])
            if missing:
                lacks.append(f"{missing} {name}")
        if found["session"] != expected["session"]:
            lacks.append("session")
        return "lacks " + ", ".join(lacks) if lacks else "equal"

    def settled(self, fork: Fork, share_id: str, *, within: float = WAIT) -> str:
        """Return what a share lacks after some time; sooner, if that is nothing."""
        end = time.monotonic() + within
        while (lacks := self.difference(fork, share_id)) != "equal" and time.monotonic() < end:
            time.sleep(0.1)
        return lacks


def create_with_snapshot(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 9)
        made = fork.create(place.session)
        assert made["id"] == place.session[-8:]
        return place.settled(fork, made["id"])


def live_queue(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 3)
        made = fork.create(place.session)
        for n in range(3, 9):
            fork.say(place.session, n)
        fork.edit(place.session, "a.py")
        return place.settled(fork, made["id"])


def remove(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 3)
        made = fork.create(place.session)
        fork.remove(place.session)
        return "gone" if place.share(made["id"]) is None and fork.row(place.session) is None else "there"


def new_process(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 3)
        made = fork.create(place.session)
        place.settled(fork, made["id"])
        fork.exit()
    with place.fork() as fork:
        fork.say(place.session, 3)
        return place.settled(fork, made["id"])


def disabled(place: Place) -> str:
    with place.fork(OPENCODE_DISABLE_SHARE="1") as fork:
        fork.there(place.session, 3)
        made = fork.create(place.session)
        fork.say(place.session, 3)
        fork.remove(place.session)
        assert made == {"id": "", "url": "", "secret": ""}
        return "nothing sent" if place.share(place.session[-8:]) is None else "sent"


def lost_row(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 3)
        made = fork.create(place.session)
        fork.loseRow(place.session)
        assert fork.create(place.session) == made
        assert fork.row(place.session) == made
        fork.say(place.session, 3)
        return place.settled(fork, made["id"])


def server_down(place: Place) -> str:
    with RunningServer(place.directory / f"{place.session}-server") as server:
        place.server = server
        with place.fork() as fork:
            fork.there(place.session, 3)
            made = fork.create(place.session)
            place.settled(fork, made["id"])
            server.kill()
            fork.say(place.session, 3)
            time.sleep(1.5)  # what its own client gathers for a second is sent, and lost
            server.restart()
            fork.say(place.session, 4)
            return place.settled(fork, made["id"], within=WAIT if place.client == "ours" else SENT_BY)


def wrong_key(place: Place) -> str:
    with place.fork(key="rsk_wrong") as fork:
        fork.there(place.session, 3)
        with pytest.raises(ForkError) as caught:
            fork.create(place.session)
        assert fork.row(place.session) is None
        assert "[object Object]" not in str(caught.value)
        assert "rsk_wrong" not in fork.log
        return "refused, and says why" if "Unauthorized" in str(caught.value) else "refused"


def exit_at_once(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 3)
        made = fork.create(place.session)
        fork.say(place.session, 3)
        fork.exit()
    with place.fork() as fork:
        return place.difference(fork, made["id"])


def kill_and_create(place: Place) -> str:
    with place.fork() as fork:
        fork.there(place.session, 7)
        made = fork.create(place.session)
        place.settled(fork, made["id"])
        fork.say(place.session, 7)
        fork.say(place.session, 8)
        fork.kill()
    with place.fork() as fork:
        assert fork.create(place.session) == made
        return place.settled(fork, made["id"], within=SENT_BY)


def large_snapshot(place: Place) -> str:
    # Its own client sends all of it in one message.
    options = () if place.client == "ours" else ("--max-message-size=64MiB",)
    with RunningServer(place.directory / f"{place.session}-server", *options) as server:
        place.server = server
        with place.fork() as fork:
            fork.there(place.session, 20, "x" * 2**20)
            made = fork.create(place.session)
            return place.settled(fork, made["id"])


def migrated_share(place: Place) -> str:
    """The bucket of the worker, import-bucket, and the client as it was."""
    secret = str(uuid5(SHARED_SECRET, place.session))
    share_id = place.session[-8:]
    data = place.directory / f"{place.session}-server"
    bucket = f"sqlite:///{place.directory / place.session}.bucket"
    with Fork(place._root, place.client, place._database, "http://127.0.0.1:9", "key") as fork:
        fork.there(place.session, 3)
        held = fork.held(place.session)
    asyncio.run(put_as_worker(bucket, place.session, secret, held))
    command = [RPCSHARE, "import-bucket", "--from", bucket, "--data-dir", str(data)]
    subprocess.run(command, env=bare_environment(), check=True, capture_output=True, timeout=200)
    with RunningServer(data, f"--shared-secret={SHARED_SECRET}") as server:
        place.server = server
        with place.fork() as fork:
            fork.putRow(
                place.session,
                {"id": share_id, "secret": secret, "url": f"https://worker.example/share/{share_id}"},
            )
            fork.say(place.session, 3)
            assert place.settled(fork, share_id) == "equal"
            made = fork.create(place.session)
            assert (made["id"], made["secret"]) == (share_id, secret)
            fork.say(place.session, 4)
            return place.settled(fork, share_id)


async def put_as_worker(bucket: str, session_id: str, secret: str, held: dict[str, Any]) -> None:
    """Put a share into a bucket as the worker left it."""
    share_id = session_id[-8:]
    times = {"createdAt": 1_700_000_000_000, "lastUpdated": 1_700_000_001_000, "syncCount": 4}
    share = {**held, "models": [], "metadata": {**times, "secret": secret, "sessionID": session_id}}
    counts = {f"{name[:-1]}Count": len(share[name]) for name in ("messages", "parts", "diffs", "models")}
    row = {"id": share_id, "sessionID": session_id, "title": "A session", "directory": "/src", **counts}
    store = await open_store(bucket)
    try:
        await store.put(f"share/{share_id}", json.dumps(share).encode())
        await store.put(f"index/{share_id}", json.dumps({**row, **times}).encode())
    finally:
        await store.close()


Scenario = Callable[[Place], str]

# What the fork's own worker has in the end, by client.
SCENARIOS: dict[Scenario, tuple[str, str, str]] = {
    create_with_snapshot: ("equal", "equal", "equal"),
    live_queue: ("equal", "equal", "equal"),
    remove: ("gone", "gone", "gone"),
    new_process: ("equal", "equal", "equal"),
    disabled: ("nothing sent", "nothing sent", "nothing sent"),
    lost_row: ("equal", "equal", "equal"),
    server_down: ("lacks 1 messages, 1 parts", "lacks 2 messages, 2 parts", "equal"),
    wrong_key: ("refused", "refused", "refused, and says why"),
    exit_at_once: ("lacks 1 messages, 1 parts", "lacks 1 messages, 1 parts", "equal"),
    kill_and_create: ("equal", "equal", "equal"),
    large_snapshot: ("equal", "equal", "equal"),
    migrated_share: ("equal", "equal", "equal"),
}


@pytest.fixture(scope="module")
def fork_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("fork") / "project")


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, dict[str, str]]]:
    """What was found, by scenario and client; it is printed in the end (`pytest -s`)."""
    cells: dict[str, dict[str, str]] = {}
    yield cells
    width = max((len(name) for name in cells), default=0)
    print(f"\n{'':{width}}  " + "  ".join(f"{client:28}" for client in CLIENTS_OF_FORKS))
    for name, found in cells.items():
        print(f"{name:{width}}  " + "  ".join(f"{found.get(client, ''):28}" for client in CLIENTS_OF_FORKS))


@pytest.mark.rare
@pytest.mark.parametrize("client", CLIENTS_OF_FORKS)
def test_every_cell_of_the_table(
    client: str,
    fork_project: Path,
    table: dict[str, dict[str, str]],
    server: RunningServer,
    tmp_path: Path,
) -> None:
    places = {scenario: Place(fork_project, tmp_path, client, server) for scenario in SCENARIOS}
    with ThreadPoolExecutor(3) as pool:
        running = {scenario: pool.submit(scenario, place) for scenario, place in places.items()}
        found = {scenario.__name__: future.result() for scenario, future in running.items()}
    for name, cell in found.items():
        table.setdefault(name, {})[client] = cell
    column = CLIENTS_OF_FORKS.index(client)
    assert found == {scenario.__name__: cells[column] for scenario, cells in SCENARIOS.items()}


@pytest.mark.slow
def test_the_wiring_has_opencodes_types(fork_project: Path) -> None:
    run_in(fork_project, CLIENTS / "node_modules" / ".bin" / "tsc", "-p", ".")
