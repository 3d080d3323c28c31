"""Which connections a server accepts: on which sockets, until which limit, and until when while it stops."""

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from rpcshare.config import ConfigError, Settings, load_settings
from rpcshare.server.accepting import unmapped
from rpcshare.server.listening import listen
from support.running_server import RPCSHARE, RunningServer, bare_environment
from support.several_workers import until

pytestmark = pytest.mark.slow  # real servers, several of them at a time

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def answer(connection: socket.socket) -> bytes:
    """Return an answer to what asks for a small one: its head and its body."""
    received = b""
    while not received.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            break
        received += part
    return received


def connect(server: RunningServer) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), 30)
    connection.settimeout(30)
    return connection


def limited(soft: int, hard: int) -> type[RunningServer]:
    """Return a server that begins with these limits on descriptors."""
    limits = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$0" "$@"'

    class Limited(RunningServer):
        command = ("sh", "-c", limits, RPCSHARE)

    return Limited


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """The environment of a server with one event loop or the other."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        return {}
    hidden = tmp_path / "without-uvloop"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(hidden)}


# --- descriptors ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_soft_limit_on_descriptors_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    with limited(128, 1000)(tmp_path / "data") as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    assert re.search(r"Max open files +1000 +1000 ", limits)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_without_descriptors_connections_wait_and_all_else_goes_on(
    tmp_path: Path, loop: Mapping[str, str], workers: int
) -> None:
    hard = 96
    options = [f"--workers={workers}"] if workers > 1 else []
    with (
        limited(hard, hard)(tmp_path / "data", *options, env=loop) as server,
        contextlib.ExitStack() as open_,
    ):
        first = open_.enter_context(connect(server))
        first.sendall(HEALTHZ)
        assert b" 200 OK" in answer(first)
        for _ in range(workers * hard):
            open_.enter_context(connect(server)).sendall(b"GET /healthz HTTP/1.1\r\nHost")
        until(lambda: "connections wait to be accepted" in server.log.read_text(), "the log says so")
        # What is accepted already is served, and the store can open its files.
        for path in (b"/readyz", b"/api/sessions"):
            head = b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
            first.sendall(head % (path, server.token.encode()))
            assert b" 200 OK" in answer(first)
        open_.close()
        with httpx.Client(timeout=30) as client:
            assert client.get(f"{server.url}/healthz").status_code == 200
            metrics = client.get(f"{server.url}/metrics").text
        assert server.stop() == 0
        told = server.log.read_text().count("connections wait to be accepted")
    pauses = re.search(r"^rpcshare_accept_pauses_total (\d+)", metrics, re.MULTILINE)
    assert pauses is not None
    assert int(pauses[1]) >= 1
    assert 1 <= told <= workers


# --- addresses -----------------------------------------------------------------------------------


@pytest.fixture
def dual(tmp_path: Path) -> Iterator[RunningServer]:
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs sockets for IPv4 and IPv6")
    options = ["--host=::", "--trusted-proxy=127.0.0.1", "--proxy-subject-header=X-User"]
    with RunningServer(tmp_path / "data", *options) as server:
        yield server


def test_any_address_of_ipv6_is_any_of_ipv4_too(dual: RunningServer) -> None:
    assert dual.url == f"http://[::]:{dual.port}"
    for address in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{address}:{dual.port}/healthz").status_code == 200


def test_any_address_is_any_of_ipv4_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *arguments: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return made(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with capture_logs() as logged, listen(Settings(host="::", port=0)) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    assert [(each["event"], each["log_level"]) for each in logged] == [
        ("only IPv4 is listened on: this system has no IPv6", "warning")
    ]


def test_a_caller_by_ipv4_is_one_on_such_a_socket(dual: RunningServer) -> None:
    named = httpx.get(f"http://127.0.0.1:{dual.port}/api/my-sessions", headers={"X-User": "alice"})
    assert named.status_code == 200
    with socket.create_connection(("127.0.0.1", dual.port)) as client:
        client.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.makefile("rb").read()
    assert "address=127.0.0.1" in dual.log.read_text()


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (("::ffff:192.0.2.1", 1), ("192.0.2.1", 1)),
        (("::1", 1), ("::1", 1)),
        (("192.0.2.1", 1), ("192.0.2.1", 1)),
        (None, None),
    ],
)
def test_an_address_of_ipv4_is_written_in_one_way(address, plain) -> None:
    assert unmapped(address) == plain


# --- a service manager's sockets -----------------------------------------------------------------

_PASS = """
import os, sys
descriptor, *command = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="http", LISTEN_PID=str(os.getpid()))
os.execv(command[0], command)
"""


def started_on(listener: socket.socket, data_dir: Path, *options: str) -> subprocess.Popen[str]:
    """Start a server as systemd does that has a socket for it."""
    command = [sys.executable, "-c", _PASS, str(listener.fileno()), RPCSHARE, "serve"]
    return subprocess.Popen(
        [*command, "--port=1", f"--data-dir={data_dir}", *options],
        env=bare_environment(),
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_restart_on_a_passed_socket_refuses_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for _ in range(2):
            # Nobody accepts yet, or any more.
            with socket.create_connection(("127.0.0.1", port), 30) as client:
                client.sendall(HEALTHZ)
                process = started_on(listener, tmp_path / "data", "--workers=2")
                assert process.stdout is not None
                try:
                    assert process.stdout.readline().startswith(
                        f"rpcshare is listening on http://127.0.0.1:{port} ("
                    )
                    assert b" 200 OK" in answer(client)
                finally:
                    process.terminate()
                    _, log = process.communicate(timeout=30)
            assert process.returncode == 0, log


def test_a_passed_socket_that_does_not_listen_is_refused_with_the_reason(tmp_path: Path) -> None:
    with socket.socket() as idle:
        process = started_on(idle, tmp_path / "data")
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "LISTEN_FDS: descriptor 3 does not listen" in said
    assert "Traceback" not in said


# --- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_stops_answers_on_open_connections_for_the_last_time(
    tmp_path: Path, workers: int
) -> None:
    options = [f"--workers={workers}"] if workers > 1 else []
    with RunningServer(tmp_path / "data", *options) as server, contextlib.ExitStack() as open_:
        used, fresh = open_.enter_context(connect(server)), open_.enter_context(connect(server))
        used.sendall(HEALTHZ)
        assert b"connection: close" not in answer(used)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: _is_refused(server.port), "no new connections are accepted")
        for connection in (used, fresh):
            connection.sendall(HEALTHZ)
            last = answer(connection)
            assert last.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nconnection: close\r\n" in last
            assert connection.recv(1) == b""
        assert server.stop() == 0


def test_who_has_connected_before_a_stop_is_answered(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        with connect(server) as client:
            client.sendall(HEALTHZ)
            server.process.terminate()
            os.kill(server.process.pid, signal.SIGCONT)
            assert answer(client).startswith(b"HTTP/1.1 200 OK\r\n")
        assert server.stop() == 0


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 30).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was in the queue of a socket that was being closed
        return False
    return False


# --- idle connections ----------------------------------------------------------------------------


def test_an_idle_connection_is_kept_for_as_long_as_is_set(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--keep-alive=1") as server, connect(server) as client:
        client.sendall(HEALTHZ)
        assert b" 200 OK" in answer(client)
        assert client.recv(1) == b""  # its end, not a timeout


def test_an_idle_connection_is_kept_for_longer_than_a_proxy_keeps_it() -> None:
    assert load_settings().keep_alive == 75


@pytest.mark.parametrize(("written", "seconds"), [("2m", 120), ("90", 90), (" 90 ", 90), (0.5, 0.5)])
def test_how_long_is_a_duration_or_a_number_of_seconds(written: object, seconds: float) -> None:
    assert load_settings({"keep_alive": written}).keep_alive == seconds


@pytest.mark.parametrize("written", ["0", "-1", "1x", "", 0])
def test_any_other_is_refused(written: object) -> None:
    with pytest.raises(ConfigError, match=r"^--keep-alive: "):
        load_settings({"keep_alive": written})
