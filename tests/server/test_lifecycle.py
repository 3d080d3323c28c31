"""Starting and stopping the server, as an operator sees it."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import rpcshare
from rpcshare.compiled import core
from support.running_server import READY, RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RPCSHARE, "serve", *options],
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_it_says_where_it_listens_and_where_the_token_is_but_not_the_token(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [RPCSHARE, "serve", "--port=0", f"--data-dir={tmp_path / 'data'}"],
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.terminate()
    rest, errors = process.communicate(timeout=15)
    token_file = tmp_path / "data" / "admin-token"
    assert lines[0].startswith("rpcshare is listening on http://127.0.0.1:")
    assert lines[0].endswith(f" ({core()})\n")
    assert str(token_file) in lines[1]
    assert f'/k/{{file:{token_file}}}"' in lines[2]
    assert token_file.read_text().strip() not in "".join(lines) + rest + errors
    assert process.returncode == 0


def test_it_says_where_it_listens_behind_a_public_url_too(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [RPCSHARE, "serve", "--port=0", "--public-url=https://share.example", f"--data-dir={tmp_path}"],
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    ready = READY.match(lines[0])
    assert ready is not None
    url = ready[1]
    answer = httpx.get(f"{url}/healthz")
    process.terminate()
    process.communicate(timeout=15)
    assert answer.status_code == 200
    assert lines[1].split() == ["public", "URL:", "https://share.example"]
    assert '"https://share.example/k/' in lines[3]


def test_health_and_readiness_answer_while_it_runs(server: RunningServer) -> None:
    for path in ("/healthz", "/readyz"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_port_in_use_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = run_serve(f"--port={port}", f"--data-dir={tmp_path}")
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in finished.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--port=70000"], "--port"),
        (["--store=ftp://x"], "--store"),
        (["--broadcast=carrier-pigeon://x"], "--broadcast"),
        (["--public-url=ftp://x"], "--public-url"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it_and_status_2(
    tmp_path: Path, options: list[str], named: str
) -> None:
    finished = run_serve("--port=0", f"--data-dir={tmp_path}", *options)
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert named in finished.stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_data_dir_is_one_line_and_status_1(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0)
    finished = run_serve("--port=0", f"--data-dir={data_dir}")
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1


def test_a_store_that_is_no_database_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").write_text("this is no database, whatever its name says" * 100)
    finished = run_serve("--port=0", f"--data-dir={tmp_path}")
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert "store.sqlite3" in finished.stderr


async def test_sigterm_lets_calls_under_way_return(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        async with rpcshare.connect(server.url, token=server.token) as api:
            share = await api.createShare("ses_sigterm_00000001")
            part = {"type": "part", "data": {"id": "prt_1", "text": "x" * 1000}}
            syncs = [
                asyncio.ensure_future(api.syncShare(share["id"], share["secret"], [part])) for _ in range(200)
            ]
            await asyncio.sleep(0.02)
            server.process.terminate()
            outcomes = await asyncio.gather(*syncs, return_exceptions=True)
            status = await asyncio.to_thread(server.process.wait, 10)
        acked = [outcome["syncCount"] for outcome in outcomes if isinstance(outcome, dict)]
        assert status == 0
        assert acked
        assert all(isinstance(o, dict | rpcshare.SessionClosedError) for o in outcomes)
        server.restart()
        async with rpcshare.ShareClient(server.url, token=server.token) as client:
            assert (await client.get_share_metadata(share["id"])).sync_count >= max(acked)


async def test_sigterm_ends_it_at_once_when_connections_are_idle(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        async with rpcshare.connect(server.url, token=server.token) as api:
            await api.whoami()
            began = time.monotonic()
            status = await asyncio.to_thread(server.stop)
            assert status == 0
            assert time.monotonic() - began < 10
            with pytest.raises(rpcshare.SessionClosedError):
                await api.whoami()


def test_it_is_importable_without_what_only_the_server_needs() -> None:
    code = "import sys, rpcshare; print([m for m in ('starlette','uvicorn','click') if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
