"""A server that listens on a Unix socket: for a proxy on the same machine, or passed on by systemd."""

import asyncio
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.running_server import RPCSHARE, bare_environment

pytestmark = pytest.mark.slow

PUBLIC = "--public-url=https://share.example/base"

# What systemd does that has a socket for a service: sd_listen_fds(3).
_PASS = """
import os, sys
descriptor, *command = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(command[0], command)
"""


class UnixServer:
    """``rpcshare serve`` on a Unix socket; ``said`` is the first line that it printed."""

    def __init__(self, path: Path, data: Path, *options: str, passed: socket.socket | None = None) -> None:
        command = [RPCSHARE, "serve", f"--data-dir={data}", PUBLIC, *options]
        if passed is None:
            command.append(f"--host=unix:{path}")
        else:
            command = [sys.executable, "-c", _PASS, str(passed.fileno()), *command]
        self.path = path
        self.process = subprocess.Popen(
            command,
            env=bare_environment(),
            pass_fds=[] if passed is None else [passed.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        self.token = (data / "admin-token").read_text().strip()

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.path))
        return httpx.Client(transport=transport, base_url="http://share.example", timeout=30)

    def stop(self) -> str:
        """Return what it wrote to standard error."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, log
        return log

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "rpcshare.sock"


@pytest.fixture
def server(path: Path, tmp_path: Path) -> Iterator[UnixServer]:
    server = UnixServer(path, tmp_path / "data", "--access-log")
    yield server
    server.kill()


def refused(*options: str) -> str:
    finished = subprocess.run(
        [RPCSHARE, "serve", *options],
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode in (1, 2)
    assert finished.stderr.count("\n") == 1
    return finished.stderr


def test_it_serves_there_and_leaves_nothing_behind(server: UnixServer, path: Path) -> None:
    assert server.said.startswith(f"rpcshare is listening on unix:{path} (")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with server.client() as client:
        made = client.post(
            "/api/share",
            json={"sessionID": "ses_unix_0001"},
            headers={"Authorization": f"Bearer {server.token}"},
        )
    assert made.json()["url"] == f"https://share.example/base/share/{made.json()['id']}"
    log = server.stop()
    assert "address=127.0.0.1" in log
    assert not path.exists()


async def test_a_websocket_gets_through_it(server: UnixServer) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    writer.write(
        b"GET /rpc HTTP/1.1\r\nHost: share.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % server.token.encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    assert head.startswith(b"HTTP/1.1 101 ")
    writer.close()


def test_a_proxy_there_is_trusted_as_one_of_this_machine(path: Path, tmp_path: Path) -> None:
    options = ["--trusted-proxy=127.0.0.1", "--proxy-subject-header=X-Auth-User"]
    server = UnixServer(path, tmp_path / "data", *options)
    try:
        with server.client() as client:
            headers = {"X-Auth-User": "alice", "X-Forwarded-For": "192.0.2.7"}
            made = client.post("/api/share", json={"sessionID": "ses_unix_0002"}, headers=headers)
        assert made.status_code == 200
        assert "address=192.0.2.7" in server.stop()
    finally:
        server.kill()


def test_workers_share_it(path: Path, tmp_path: Path) -> None:
    server = UnixServer(path, tmp_path / "data", "--workers=2")
    try:
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
        server.stop()
        assert not path.exists()
    finally:
        server.kill()


def test_one_that_systemd_passes_is_served_and_stays(path: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = UnixServer(path, tmp_path / "data", passed=listener)
        try:
            assert server.said.startswith(f"rpcshare is listening on unix:{path} (")
            with server.client() as client:
                assert client.get("/healthz").status_code == 200
            server.stop()
        finally:
            server.kill()
    assert path.exists()


def test_one_that_a_killed_server_left_is_taken(server: UnixServer, path: Path, tmp_path: Path) -> None:
    server.kill()
    assert path.exists()
    second = UnixServer(path, tmp_path / "data")
    try:
        with second.client() as client:
            assert client.get("/healthz").status_code == 200
    finally:
        second.kill()


def test_one_in_use_is_not_taken(server: UnixServer, path: Path, tmp_path: Path) -> None:
    told = refused(f"--host=unix:{path}", PUBLIC, f"--data-dir={tmp_path / 'other'}")
    assert f"cannot listen on unix:{path}: Address already in use" in told
    with server.client() as client:
        assert client.get("/healthz").status_code == 200


def test_a_file_in_its_place_is_not_removed(path: Path, tmp_path: Path) -> None:
    path.write_text("kept")
    assert "no socket" in refused(f"--host=unix:{path}", PUBLIC, f"--data-dir={tmp_path}")
    assert path.read_text() == "kept"


@pytest.mark.parametrize("host", ["unix:", "unix:relative.sock", f"unix:/{'x' * 104}"])
def test_a_path_that_is_none_is_refused(host: str, tmp_path: Path) -> None:
    assert "must be unix: and an absolute path" in refused(f"--host={host}", PUBLIC, f"--data-dir={tmp_path}")


def test_links_need_a_public_url(path: Path, tmp_path: Path) -> None:
    told = refused(f"--host=unix:{path}", f"--data-dir={tmp_path}")
    assert "a Unix socket needs --public-url too" in told
    assert not path.exists()
