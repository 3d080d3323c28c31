"""Search over HTTP, RPC and from the command line, on a running server."""

import json
import sqlite3
import subprocess
import threading
import time
from contextlib import closing

import httpx
import pytest

import rpcshare
from support.postgres_server import *  # noqa: F403 -- fixtures
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow  # a server of its own

SHARE = "12345678"
ITEMS = [
    {"type": "session", "data": {"id": "ses_12345678", "title": "On needles"}},
    {"type": "message", "data": {"id": "msg_1", "role": "user", "time": {"created": 1_700_000_000_000}}},
    {"type": "part", "data": {"id": "prt_1", "messageID": "msg_1", "type": "text", "text": "a needle here"}},
]


def search(server, query, **parameters):
    headers = {"Authorization": f"Bearer {server.token}"}
    return httpx.get(f"{server.url}/api/search", params={"q": query, **parameters}, headers=headers)


def hits_of(server, query, count=1):
    """Return the hits as soon as there are so many."""
    until = time.monotonic() + 60
    while True:
        answer = search(server, query)
        assert answer.status_code == 200, answer.text
        if len(answer.json()["hits"]) >= count or time.monotonic() > until:
            return answer.json()["hits"]
        time.sleep(0.1)


def command(*arguments, **options):
    return subprocess.run(
        [RPCSHARE, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env=bare_environment(),
        **options,
    )


@pytest.fixture
def server(tmp_path):
    with RunningServer(tmp_path / "data") as server:
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            client.create_share("ses_12345678", ITEMS)
        yield server


def test_a_word_is_found_over_http_rpc_and_from_the_command_line(server):
    (hit,) = hits_of(server, "here")
    expected = {
        "shareID": SHARE,
        "title": "On needles",
        "messageID": "msg_1",
        "partID": "prt_1",
        "snippet": "a needle here",
        "time": 1_700_000_000_000,
    }
    assert hit == expected
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        (found,) = client.search_shares("here").hits
    assert (found.share_id, found.message_id, found.part_id) == (SHARE, "msg_1", "prt_1")
    told = command("search", "here", "--json", "--url", server.url, "--token", server.token)
    assert told.stderr == ""
    (printed,) = json.loads(told.stdout)
    assert printed == {**expected, "url": f"{server.url}/share/{SHARE}?at=msg_1#p-prt_1"}


def test_a_search_that_makes_no_sense_is_refused(server):
    for parameters in ({"q": ""}, {"q": "x" * 1001}, {"q": "x", "limit": "0"}, {"q": "x", "cursor": "x"}):
        answer = search(server, parameters.pop("q"), **parameters)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert httpx.get(f"{server.url}/api/search?q=x").status_code == 401


@pytest.mark.slow
def test_reindex_finds_again_what_the_database_has_lost_while_the_server_runs(server):
    hits_of(server, "here")
    while "indexing" in search(server, "here").json():
        time.sleep(0.1)
    with closing(sqlite3.connect(server.data_dir / "database.sqlite3", timeout=30)) as database:
        for table in ("shares", "texts", "text_index"):
            database.execute(f"DELETE FROM {table}")
        database.commit()
    assert search(server, "here").json()["hits"] == []
    told = command("reindex", "--data-dir", server.data_dir)
    assert (told.returncode, told.stdout) == (0, "shares indexed: 1\n")
    assert len(search(server, "here").json()["hits"]) == 1
    assert "yet to take in" not in command("doctor", "--data-dir", server.data_dir).stdout


@pytest.mark.slow
def test_doctor_tells_what_search_has_yet_to_take_in(server):
    hits_of(server, "here")
    server.kill()  # which would mend it
    with closing(sqlite3.connect(server.data_dir / "database.sqlite3", timeout=30)) as database:
        for table in ("shares", "texts", "text_index"):
            database.execute(f"DELETE FROM {table}")
        database.commit()
    told = command("doctor", "--data-dir", server.data_dir)
    assert "shares that search has yet to take in: 1 (see 'rpcshare reindex')" in told.stdout


@pytest.mark.slow
def test_a_server_killed_at_any_time_finds_all_that_it_acknowledged(server):
    for number in range(2, 6):
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            text = {"id": f"prt_{number}", "messageID": "msg_1", "type": "text", "text": "a needle here"}
            client.sync_share(SHARE, None, [{"type": "part", "data": text}])
        time.sleep(0.2 * (number - 2))
        server.kill()
        server.restart()
    assert {hit["partID"] for hit in hits_of(server, "here", 5)} == {f"prt_{n}" for n in range(1, 6)}


@pytest.mark.slow
def test_workers_index_what_each_of_them_is_sent_once(tmp_path):
    with RunningServer(tmp_path / "data", "--workers=2") as server:
        for number in range(8):
            with rpcshare.connect_blocking(server.url, token=server.token) as client:
                client.create_share(f"ses_0000000{number}", ITEMS)
        assert len(hits_of(server, "here", 8)) == 8


@pytest.mark.slow
def test_two_servers_with_one_postgresql_find_what_either_is_sent(tmp_path, postgres_url):
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    options = (f"--store={store}", f"--database={postgres_url}")
    with RunningServer(tmp_path / "one", *options) as one, RunningServer(tmp_path / "two", *options) as two:
        with rpcshare.connect_blocking(one.url, token=one.token) as client:
            made = client.create_share("ses_12345678", ITEMS)
        assert len(hits_of(two, "here")) == 1
        with rpcshare.connect_blocking(one.url, token=one.token) as client:
            client.delete_share(made.id)
        assert search(two, "here").json()["hits"] == []


@pytest.mark.slow
def test_postgresql_may_be_restarted_while_a_server_runs(tmp_path, postgres_server, postgres_url):
    with RunningServer(tmp_path / "data", f"--database={postgres_url}") as server:
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            made = client.create_share("ses_12345678", ITEMS)
        hits_of(server, "here")
        postgres_server.stop()
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            text = {"id": "prt_2", "messageID": "msg_1", "type": "text", "text": "a needle there"}
            client.sync_share(made.id, None, [{"type": "part", "data": text}])
        answer = search(server, "here")
        assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
        until = time.monotonic() + 60
        while "Search does not hear" not in server.log.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        postgres_server.start()
        until = time.monotonic() + 60
        while search(server, "there").status_code != 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert len(hits_of(server, "there")) == 1
        assert server.log.read_text().count("Search does not hear of what is shared") == 1


class Syncing:
    """A client that adds parts to a share of its own, and notes which of them were acknowledged."""

    def __init__(self, server, number):
        self.acknowledged = {f"prt_{number}_0"}
        self._number = number
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            self.share_id = client.create_share(f"ses_{number:08}", self._part(0)).id
        self._url = f"{server.url}/api/share/{self.share_id}/sync"
        self._headers = {"Authorization": f"Bearer {server.token}"}
        self._is_over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _part(self, sync):
        part_id = f"prt_{self._number}_{sync}"
        message = {"id": "msg_1", "role": "user", "time": {"created": 1_700_000_000_000}}
        part = {"id": part_id, "messageID": "msg_1", "type": "text", "text": f"a needle {sync}"}
        return [{"type": "message", "data": message}, {"type": "part", "data": part}]

    def _run(self):
        with httpx.Client(headers=self._headers, timeout=30) as client:
            for sync in range(1, 240):
                answer = client.post(self._url, json={"secret": None, "data": self._part(sync)})
                assert answer.status_code == 200, answer.text
                self.acknowledged.add(f"prt_{self._number}_{sync}")
                if self._is_over.wait(0.1):
                    return

    def end(self):
        self._is_over.set()
        self.thread.join()


def all_hits(server, query):
    """Return the ids of the parts that are found, on all pages."""
    found: set[str] = set()
    cursor = None
    while True:
        answer = search(server, query, limit=100, **({"cursor": cursor} if cursor else {}))
        if answer.status_code != 200:
            return found
        found |= {hit["partID"] for hit in answer.json()["hits"]}
        cursor = answer.json()["cursor"]
        if cursor is None:
            return found


@pytest.mark.slow
def test_while_postgresql_is_restarted_under_load_syncs_go_on_and_all_are_found_afterwards(
    tmp_path, postgres_server, postgres_url
):
    with RunningServer(tmp_path / "data", f"--database={postgres_url}") as server:
        clients = [Syncing(server, number) for number in range(4)]
        try:
            hits_of(server, "needle")
            postgres_server.stop()
            before = [len(client.acknowledged) for client in clients]
            wait_until(lambda: "Search does not hear of what is shared" in server.log.read_text())
            wait_until(
                lambda: all(len(c.acknowledged) >= n + 3 for c, n in zip(clients, before, strict=True))
            )
            assert search(server, "needle").status_code == 503
            postgres_server.start()
            wait_until(lambda: search(server, "needle").status_code == 200)
            back = [len(client.acknowledged) for client in clients]
            wait_until(lambda: all(len(c.acknowledged) > n for c, n in zip(clients, back, strict=True)))
        finally:
            for client in clients:
                client.end()
        wanted = set().union(*(client.acknowledged for client in clients))
        wait_until(lambda: all_hits(server, "needle") == wanted)
        headers = {"Authorization": f"Bearer {server.token}"}
        rows = httpx.get(f"{server.url}/api/sessions", headers=headers).json()["sessions"]
        counts = {client.share_id: len(client.acknowledged) for client in clients}
        assert {row["id"]: row["partCount"] for row in rows} == counts


def wait_until(is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
def test_a_database_that_cannot_be_used_stops_the_start_with_one_line(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "database.sqlite3").write_bytes(b"no database" * 1000)
    for option, message in (
        ("--database=mysql://x", "--database: must be sqlite:///PATH or postgresql://"),
        (
            "--database=postgresql://x@127.0.0.1:1/x",
            "the database postgresql://127.0.0.1/x: Connection refused",
        ),
        ("--log-level=info", "file is not a database. It can be made again: remove it"),
    ):
        told = command("serve", "--port=0", f"--data-dir={tmp_path / 'data'}", option, timeout=60)
        assert told.returncode in (1, 2)
        assert message in told.stderr
        assert "Traceback" not in told.stderr
