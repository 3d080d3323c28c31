"""A server of several workers: its start and its end, and workers that die."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import rpcshare
from support.running_server import RPCSHARE, RunningServer, bare_environment
from support.several_workers import only_one_accepts, until, worker_pids

pytestmark = pytest.mark.slow  # real servers, several of them at a time


@pytest.fixture
def two(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", "--workers=2") as server:
        yield server


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RPCSHARE, "serve", "--port=0", *options],
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


# --- the start --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 3])
def test_as_many_serve_on_one_port_as_were_asked_for(tmp_path: Path, workers: int) -> None:
    with RunningServer(tmp_path / "data", f"--workers={workers}") as server:
        assert len(worker_pids(server)) == workers
        for number in range(workers):
            with only_one_accepts(server, number):
                assert httpx.get(f"{server.url}/readyz").json() == {"status": "ok"}


def test_one_worker_is_the_process_that_was_started(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--workers=1") as server:
        assert worker_pids(server) == []
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_it_says_once_that_it_is_ready(tmp_path: Path) -> None:
    command = [RPCSHARE, "serve", "--port=0", f"--data-dir={tmp_path / 'data'}", "--workers=3"]
    with subprocess.Popen(command, env=bare_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        process.terminate()
        rest = process.stdout.read()
    assert lines[0].startswith("rpcshare is listening on http://127.0.0.1:")
    assert rest == ""
    assert process.returncode == 0


@pytest.mark.parametrize("workers", ["0", "-1", "1000", "two"])
def test_a_number_of_workers_that_cannot_be_is_a_usage_error(tmp_path: Path, workers: str) -> None:
    finished = run_serve(f"--workers={workers}", f"--data-dir={tmp_path}")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "--workers: must be" in finished.stderr
    assert workers in finished.stderr


def test_a_store_in_memory_cannot_be_shared(tmp_path: Path) -> None:
    finished = run_serve("--workers=2", "--store=memory://", f"--data-dir={tmp_path}")
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "--workers: a store in memory is one process's own" in finished.stderr


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--store=ftp://x"], 2, "--store"),
        (["--broadcast=carrier-pigeon://x"], 2, "--broadcast"),
        (["--tls-cert=/nowhere/c.pem", "--tls-key=/nowhere/k.pem"], 1, "/nowhere/c.pem"),
        (["--jwt-key=/nowhere/k.pem", "--jwt-issuer=i", "--jwt-audience=a"], 2, "/nowhere/k.pem"),
        (["--signing-key=/nowhere/key"], 1, "there is no signing key /nowhere/key"),
    ],
)
def test_what_keeps_workers_from_starting_is_said_in_one_line(
    tmp_path: Path, options: list[str], status: int, said: str
) -> None:
    finished = run_serve("--workers=3", f"--data-dir={tmp_path}", *options)
    assert finished.returncode == status
    assert finished.stderr.count("\n") == 1
    assert said in finished.stderr
    assert finished.stdout == ""


def test_a_port_in_use_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = run_serve("--workers=2", f"--port={port}", f"--data-dir={tmp_path}")
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in finished.stderr


def test_a_store_that_is_no_database_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_text("this is no database, whatever its name says" * 100)
    finished = run_serve("--workers=2", f"--data-dir={tmp_path}")
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert "store.sqlite3" in finished.stderr


# --- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_of_them_with_status_0(two: RunningServer, number: signal.Signals) -> None:
    pids = worker_pids(two)
    two.process.send_signal(number)
    assert two.process.wait(12) == 0
    assert not [pid for pid in pids if is_alive(pid)]


def test_ctrl_c_on_a_terminal_reaches_all_and_ends_them_once(tmp_path: Path) -> None:
    command = [RPCSHARE, "serve", "--port=0", f"--data-dir={tmp_path / 'data'}", "--workers=2"]
    with subprocess.Popen(
        command,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=12)
    assert process.returncode == 0
    assert errors.count("stopped") == 1


@pytest.mark.parametrize("number", [0, 1])
async def test_calls_under_way_return_before_the_end(two: RunningServer, number: int) -> None:
    with only_one_accepts(two, number):
        connection = rpcshare.connect(two.url, token=two.token)
        api = await connection.__aenter__()
        await api.whoami()
    share = await api.createShare("ses_drained_00000001")
    part = {"type": "part", "data": {"id": "prt_1"}}
    syncs = [api.syncShare(share["id"], share["secret"], [part]) for _ in range(50)]
    await syncs[0]
    two.process.terminate()
    for sync in syncs:
        try:
            await sync
        except rpcshare.SessionClosedError:
            break  # it had not arrived
    assert two.process.wait(12) == 0
    await connection.__aexit__(None, None, None)


def test_workers_end_with_the_process_that_started_them(two: RunningServer) -> None:
    pids = worker_pids(two)
    two.kill()
    until(lambda: not any(is_alive(pid) for pid in pids), "the end of all workers")


# --- workers that die -------------------------------------------------------------------------------


def test_a_worker_that_dies_is_started_again_and_that_is_logged(two: RunningServer) -> None:
    killed, other = worker_pids(two)
    os.kill(killed, signal.SIGKILL)
    until(lambda: "a worker serves again" in two.log.read_text(), "word of the new worker")
    pids = worker_pids(two)
    assert len(pids) == 2
    assert other in pids
    assert killed not in pids
    log = two.log.read_text()
    assert log.count("a worker ended, and is started again") == 1
    assert "SIGKILL" in log
    for number in range(2):
        with only_one_accepts(two, number):
            assert httpx.get(f"{two.url}/readyz").status_code == 200


def test_a_worker_that_is_told_to_end_is_started_again(two: RunningServer) -> None:
    told, _ = worker_pids(two)
    os.kill(told, signal.SIGTERM)
    until(lambda: "a worker serves again" in two.log.read_text(), "word of the new worker")
    assert two.stop() == 0


def test_while_a_worker_is_away_the_others_serve(two: RunningServer) -> None:
    stop = threading.Event()
    statuses: set[int] = set()

    def ask() -> None:
        while not stop.is_set():
            statuses.add(httpx.get(f"{two.url}/healthz").status_code)

    asking = threading.Thread(target=ask)
    os.kill(worker_pids(two)[0], signal.SIGKILL)
    asking.start()
    until(lambda: "a worker serves again" in two.log.read_text(), "word of the new worker")
    stop.set()
    asking.join()
    assert statuses == {200}


@pytest.mark.slow
def test_one_that_cannot_start_again_is_tried_with_pauses_that_grow(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with RunningServer(tmp_path / "first") as first:
        first.stop()
    key.write_text((tmp_path / "first" / "signing-key").read_text())
    with RunningServer(tmp_path / "data", "--workers=2", f"--signing-key={key}") as server:
        content = key.read_text()
        key.unlink()
        os.kill(worker_pids(server)[0], signal.SIGKILL)
        until(lambda: server.log.read_text().count("there is no signing key") >= 2, "two attempts")
        log = server.log.read_text()
        assert log.index("after=0.1") < log.index("after=0.2") < log.index("after=0.4")
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        key.write_text(content)
        until(lambda: "a worker serves again" in server.log.read_text(), "word of the new worker")
        assert "Traceback" not in server.log.read_text()
        assert server.stop() == 0


def test_one_process_imports_nothing_of_what_several_need() -> None:
    code = (
        "import sys, rpcshare.server.run; "
        "print([m for m in ('workers', 'worker', 'summed_metrics') if f'rpcshare.server.{m}' in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
