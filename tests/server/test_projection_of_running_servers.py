"""The projection of servers that run: two with one bucket and PostgreSQL; files that are replaced; kills."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import rpcshare
from support.postgres_server import *  # noqa: F403 -- fixtures
from support.running_server import RPCSHARE, RunningServer, bare_environment
from support.s3_server import ENDPOINT_VARIABLE, moto_server, real_server

pytestmark = pytest.mark.slow  # real servers


@pytest.fixture
def bucket_url() -> Iterator[str]:
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as s3:
        location = s3.location()
        yield f"s3://{location.bucket}/{location.prefix}?endpoint_url={location.endpoint_url}&region=us-east-1"


def items(number: int) -> list[dict[str, object]]:
    message = {"id": "msg_1", "role": "user", "time": {"created": 1_700_000_000_000}}
    part = {"id": f"prt_{number}", "messageID": "msg_1", "type": "text", "text": f"a needle {number}"}
    session = {"id": f"ses_{number:08}", "title": f"Session {number}"}
    return [
        {"type": "session", "data": session},
        {"type": "message", "data": message},
        {"type": "part", "data": part},
    ]


def share(server: RunningServer, numbers: range) -> None:
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        for number in numbers:
            client.create_share(f"ses_{number:08}", items(number))


def asked(server: RunningServer, path: str, **parameters: object) -> dict[str, list[dict[str, str]]]:
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = httpx.get(f"{server.url}{path}", params=parameters, headers=headers, timeout=30)  # type: ignore[arg-type]
    found: dict[str, list[dict[str, str]]] = answer.raise_for_status().json()
    return found


def listed(server: RunningServer) -> set[str]:
    return {row["id"] for row in asked(server, "/api/sessions", limit=200)["sessions"]}


def hits(server: RunningServer) -> set[str]:
    found: set[str] = set()
    cursor: object = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = asked(server, "/api/search", q="needle", limit=100, **more)
        found |= {hit["partID"] for hit in answer["hits"]}
        cursor = answer["cursor"]
        if cursor is None:
            return found


def seconds_until(is_so: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + 60
        time.sleep(0.05)
    return time.monotonic() - began


def parts(numbers: range) -> set[str]:
    return {f"prt_{number}" for number in numbers}


def unindexed(server: RunningServer) -> object:
    """Return of how many shares the doctor says that search knows another state."""
    command = [RPCSHARE, "doctor", "--json", f"--data-dir={server.data_dir}"]
    told = subprocess.run(command, check=False, capture_output=True, text=True, env=bare_environment())
    return json.loads(told.stdout)["unindexed"]


def test_what_is_shared_on_one_of_two_servers_is_soon_listed_and_found_by_the_other(
    tmp_path: Path, bucket_url: str, postgres_url: str
) -> None:
    environment = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    options = (f"--store={bucket_url}", f"--database={postgres_url}")
    with (
        RunningServer(tmp_path / "one", *options, env=environment) as one,
        RunningServer(tmp_path / "two", *options, env=environment) as two,
    ):
        share(one, range(1))
        seconds_until(lambda: hits(two) == parts(range(1)))
        waits = []
        for number in range(1, 6):
            share(one, range(number, number + 1))
            waits.append(seconds_until(lambda number=number: f"{number:08}" in listed(two)))  # type: ignore[misc]
        # A second, on a machine that does nothing else.
        assert sorted(waits)[2] < 5
        seconds_until(lambda: hits(two) == parts(range(6)))
        with rpcshare.connect_blocking(one.url, token=one.token) as client:
            client.delete_share("00000003")
        assert "prt_3" not in hits(two)
        seconds_until(lambda: "00000003" not in listed(two))


def test_a_database_of_yesterday_put_in_place_while_a_server_runs_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    with RunningServer(tmp_path / "data") as server:
        share(server, range(5))
        seconds_until(lambda: hits(server) == parts(range(5)))
        server.stop()
        yesterday = tmp_path / "yesterday.sqlite3"
        shutil.copy(server.data_dir / "database.sqlite3", yesterday)
        server.restart()
        share(server, range(5, 10))
        seconds_until(lambda: hits(server) == parts(range(10)))
        for path in server.data_dir.glob("database.sqlite3*"):
            path.unlink()
        yesterday.rename(server.data_dir / "database.sqlite3")
        share(server, range(10, 12))
        seconds_until(lambda: hits(server) == parts(range(12)) and len(listed(server)) == 12)
        assert "Traceback" not in server.log.read_text()


def test_a_reindex_that_is_killed_again_and_again_beside_a_server_loses_nothing(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        share(server, range(60))
        seconds_until(lambda: hits(server) == parts(range(60)))
        command = [RPCSHARE, "reindex", f"--data-dir={server.data_dir}"]
        count = 60
        for delay in (0.3, 0.6, 0.9, 1.2, 1.5):
            process = subprocess.Popen(
                command, env=bare_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            share(server, range(count, count + 2))  # which waits for nothing of it
            count += 2
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
        told = subprocess.run(command, check=False, capture_output=True, text=True, env=bare_environment())
        assert told.returncode == 0, told.stderr
        seconds_until(lambda: hits(server) == parts(range(count)) and len(listed(server)) == count)
        seconds_until(lambda: unindexed(server) == 0)
        with closing(sqlite3.connect(server.data_dir / "database.sqlite3")) as database:
            merged = database.execute("SELECT v FROM text_index_config WHERE k = 'automerge'").fetchall()
            assert merged == [(4,)]
            for table in ("text_index", "catalogue_words", "catalogue_pairs"):
                database.execute(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
