"""Certificates of a server that has several workers."""

import os
import shutil
import signal
import socket
import ssl
from pathlib import Path

import pytest

from support.authorities import Authority, client_context
from support.running_server import RunningServer
from support.several_workers import only_one_accepts, until, worker_pids

pytestmark = pytest.mark.slow  # real servers, several of them at a time


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pem(authority: Authority) -> Path:
    """The certificate and the key that the server is started with."""
    return authority.issue_to_server().rename(authority.directory / "server.pem")


@pytest.fixture
def two(pem: Path, tmp_path: Path):
    options = ("--workers=2", f"--tls-cert={pem}", f"--tls-key={pem}")
    with RunningServer(tmp_path / "data", *options) as server:
        yield server


class Visit:
    """One connection to one of the workers."""

    def __init__(
        self,
        server: RunningServer,
        number: int,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
    ) -> None:
        with (
            only_one_accepts(server, number),
            socket.create_connection(("127.0.0.1", server.port)) as beneath,
            context.wrap_socket(beneath, server_hostname="localhost", session=session) as secured,
        ):
            secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secured.recv(65536).startswith(b"HTTP/1.1 200 OK")
            self.session = secured.session
            self.is_resumed = secured.session_reused
            self.certificate = secured.getpeercert(binary_form=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_begun_with_one_is_resumed_by_the_other(
    two: RunningServer, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version
    first = Visit(two, 0, context)
    assert not first.is_resumed
    assert Visit(two, 1, context, first.session).is_resumed


def test_all_show_a_certificate_that_was_renewed_and_so_does_one_that_is_started_again(
    two: RunningServer, authority: Authority, pem: Path
) -> None:
    context = client_context(authority)
    old = Visit(two, 0, context).certificate
    shutil.move(authority.issue_to_server(), pem)
    until(lambda: two.log.read_text().count("the server shows another certificate") == 2, "word of both")
    new = {Visit(two, number, context).certificate for number in range(2)}
    assert len(new) == 1
    assert old not in new
    os.kill(worker_pids(two)[0], signal.SIGKILL)
    until(lambda: "a worker serves again" in two.log.read_text(), "word of the new worker")
    assert {Visit(two, number, context).certificate for number in range(2)} == new
