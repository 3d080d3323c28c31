"""A server that speaks TLS, and callers who show it certificates, good and bad."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

import rpcshare
from rpcshare.client import ConnectFailedError
from support.authorities import Authority, client_context, now
from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # real servers, several of them at a time

URI = x509.UniformResourceIdentifier("urn:machine:build-1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def revoked(authority: Authority) -> x509.Certificate:
    return authority.issue("revoked")


def tls_options(authority: Authority, revocation_list: Path) -> list[str]:
    pem = authority.issue_to_server()
    return [
        f"--tls-cert={pem}",
        f"--tls-key={pem}",
        f"--client-ca={authority.path}",
        f"--client-crl={revocation_list}",
        "--client-cert-scope=create,read",
    ]


@pytest.fixture(scope="module")
def tls_server(
    authority: Authority, revoked: x509.Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    path = authority.directory / "crl.pem"
    path.write_bytes(authority.revocation_list([revoked]))
    with RunningServer(tmp_path_factory.mktemp("tls") / "data", *tls_options(authority, path)) as server:
        yield server


@pytest.fixture(scope="module")
def machine(authority: Authority) -> ssl.SSLContext:
    return client_context(authority, authority.pem(authority.issue("build-1", URI)))


@pytest.fixture
def nobody(authority: Authority) -> ssl.SSLContext:
    return client_context(authority)


async def get(url: str, context: ssl.SSLContext) -> httpx.Response:
    async with httpx.AsyncClient(verify=context) as client:
        return await client.get(url)


def test_it_says_https(tls_server: RunningServer) -> None:
    assert tls_server.url.startswith("https://127.0.0.1:")


async def test_a_certificate_is_who_is_asking_over_rpc(
    tls_server: RunningServer, machine: ssl.SSLContext
) -> None:
    async with rpcshare.ShareClient(tls_server.url, ssl_context=machine) as client:
        me = await client.whoami()
        share = await client.create_share("ses_certificate_over_rpc_1")
    assert (me.subject, set(me.scopes)) == ("urn:machine:build-1", {"create", "read"})
    assert share.url.startswith(f"{tls_server.url}/share/")


async def test_a_certificate_is_who_is_asking_in_a_batch(
    tls_server: RunningServer, machine: ssl.SSLContext
) -> None:
    async with rpcshare.batch(tls_server.url, ssl_context=machine) as api:
        assert (await api.whoami())["subject"] == "urn:machine:build-1"


def test_a_certificate_is_who_is_asking_for_a_plain_script(
    tls_server: RunningServer, machine: ssl.SSLContext
) -> None:
    with rpcshare.connect_blocking(tls_server.url, ssl_context=machine) as client:
        assert client.whoami().subject == "urn:machine:build-1"


async def test_a_certificate_is_who_is_asking_again_and_again_on_a_connection_that_heals(
    tls_server: RunningServer, machine: ssl.SSLContext
) -> None:
    async with rpcshare.ShareClient(tls_server.url, ssl_context=machine, reconnect=True) as client:
        assert (await client.whoami()).subject == "urn:machine:build-1"


def test_a_certificate_is_who_is_asking_over_http(tls_server: RunningServer, machine: ssl.SSLContext) -> None:
    with httpx.Client(base_url=tls_server.url, verify=machine) as client:
        created = client.post("/api/share", json={"sessionID": "ses_certificate_over_http_1"})
        listed = client.get("/api/my-sessions?q=over_http")
        own = client.get("/api/sessions?q=over_http")
    assert created.status_code == 200
    assert listed.json()["count"] == own.json()["count"] == 1


def test_a_page_of_somebody_else_cannot_use_the_certificate_of_a_browser(
    tls_server: RunningServer, machine: ssl.SSLContext
) -> None:
    answer = httpx.post(
        f"{tls_server.url}/api/share",
        verify=machine,
        headers={"Origin": "https://evil.example"},
        json={"sessionID": "ses_certificate_and_origin"},
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_that_is_resumed_is_still_the_certificate_s(
    tls_server: RunningServer, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = client_context(authority, authority.pem(authority.issue("resumes")))
    context.minimum_version = context.maximum_version = version
    session: ssl.SSLSession | None = None
    for is_resumed in (False, True):
        with (
            socket.create_connection(("127.0.0.1", tls_server.port)) as beneath,
            context.wrap_socket(beneath, server_hostname="localhost", session=session) as secured,
        ):
            secured.sendall(b"GET /api/my-sessions HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status = secured.recv(65536).split(b"\r\n")[0]
            session = secured.session
            assert (secured.session_reused, status) == (is_resumed, b"HTTP/1.1 200 OK")


def test_a_token_takes_the_place_of_a_certificate(tls_server: RunningServer, machine: ssl.SSLContext) -> None:
    headers = {"Authorization": f"Bearer {tls_server.token}"}
    assert httpx.get(f"{tls_server.url}/api/sessions", verify=machine, headers=headers).status_code == 200


def test_a_bad_token_is_refused_whatever_certificate_there_is(
    tls_server: RunningServer, machine: ssl.SSLContext
) -> None:
    headers = {"Authorization": "Bearer wrong"}
    assert httpx.get(f"{tls_server.url}/api/my-sessions", verify=machine, headers=headers).status_code == 401


async def test_without_a_certificate_a_credential_is_needed(
    tls_server: RunningServer, nobody: ssl.SSLContext
) -> None:
    assert (await get(f"{tls_server.url}/healthz", nobody)).status_code == 200
    assert (await get(f"{tls_server.url}/api/my-sessions", nobody)).status_code == 401
    with pytest.raises(rpcshare.ShareError, match="Unauthorized"):
        async with rpcshare.connect(tls_server.url, ssl_context=nobody):
            pass
    async with rpcshare.ShareClient(tls_server.url, token=tls_server.token, ssl_context=nobody) as client:
        assert (await client.whoami()).subject == "admin"


async def test_a_certificate_of_another_ca_ends_the_handshake(
    tls_server: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    # Of the same name: only the signature tells.
    other = Authority(tmp_path / "other")
    context = client_context(authority, other.pem(other.issue("build-1", URI)))
    with pytest.raises(ConnectFailedError):
        async with rpcshare.connect(tls_server.url, ssl_context=context):
            pass
    with pytest.raises(httpx.TransportError):
        await get(f"{tls_server.url}/healthz", context)


async def test_an_expired_certificate_ends_the_handshake(
    tls_server: RunningServer, authority: Authority
) -> None:
    certificate = authority.issue("late", expires=now() - dt.timedelta(minutes=1))
    context = client_context(authority, authority.pem(certificate))
    with pytest.raises(ConnectFailedError):
        async with rpcshare.connect(tls_server.url, ssl_context=context):
            pass


async def test_a_certificate_for_servers_ends_the_handshake(
    tls_server: RunningServer, authority: Authority
) -> None:
    context = client_context(authority, authority.issue_to_server())
    with pytest.raises(ConnectFailedError):
        async with rpcshare.connect(tls_server.url, ssl_context=context):
            pass


async def test_a_revoked_certificate_is_refused(
    tls_server: RunningServer, authority: Authority, revoked: x509.Certificate
) -> None:
    context = client_context(authority, authority.pem(revoked))
    with pytest.raises(rpcshare.ShareError, match="Unauthorized"):
        async with rpcshare.connect(tls_server.url, ssl_context=context):
            pass
    answer = await get(f"{tls_server.url}/api/my-sessions", context)
    assert answer.status_code == 401
    assert answer.json()["error"] == "Unauthorized: the client certificate has been revoked"


async def test_a_certificate_that_is_revoked_loses_its_connections(
    authority: Authority, tmp_path: Path
) -> None:
    certificates = [authority.issue(name) for name in ("stays", "goes")]
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.revocation_list())
    stays, goes = (client_context(authority, authority.pem(certificate)) for certificate in certificates)
    with RunningServer(tmp_path / "data", *tls_options(authority, path)) as server:
        async with (
            rpcshare.connect(server.url, ssl_context=stays) as staying,
            rpcshare.connect(server.url, ssl_context=goes) as going,
        ):
            broken = asyncio.Event()
            going.on_broken(lambda _reason: broken.set())
            await going.whoami()
            path.write_bytes(authority.revocation_list([certificates[1]]))
            async with asyncio.timeout(5):
                await broken.wait()
            assert (await staying.whoami())["subject"] == "stays"
        assert (await get(f"{server.url}/api/my-sessions", goes)).status_code == 401


async def test_a_connection_ends_when_its_certificate_expires(
    tls_server: RunningServer, authority: Authority
) -> None:
    certificate = authority.issue("soon", expires=now() + dt.timedelta(seconds=3))
    context = client_context(authority, authority.pem(certificate))
    async with rpcshare.connect(tls_server.url, ssl_context=context) as api:
        broken = asyncio.Event()
        api.on_broken(lambda _reason: broken.set())
        await api.whoami()
        async with asyncio.timeout(8):
            await broken.wait()


def test_tls_before_1_2_is_not_spoken(tls_server: RunningServer, nobody: ssl.SSLContext) -> None:
    nobody.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        nobody.minimum_version = nobody.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{tls_server.url}/healthz", verify=nobody)


def test_failed_handshakes_are_not_logged_as_errors(
    tls_server: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    before = tls_server.log.read_text()
    with pytest.raises(httpx.TransportError):
        httpx.get(
            f"{tls_server.url}/healthz",
            verify=client_context(authority, other.pem(other.issue("build-1"))),
        )
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{tls_server.url.replace('https', 'http')}/healthz")
    assert httpx.get(f"{tls_server.url}/healthz", verify=client_context(authority)).status_code == 200
    assert tls_server.log.read_text() == before


async def test_a_stop_does_not_wait_for_connections_that_do_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.revocation_list())
    context = client_context(authority)
    with RunningServer(tmp_path / "data", *tls_options(authority, path)) as server:
        address = ("localhost", server.port)
        # One that never begins the handshake, and one that never agrees that the connection is over.
        with (
            socket.create_connection(address),
            socket.create_connection(address) as beneath,
            context.wrap_socket(beneath, server_hostname="localhost"),
        ):
            async with rpcshare.connect(server.url, token=server.token, ssl_context=context) as api:
                await api.whoami()
                assert await asyncio.to_thread(server.stop) == 0


async def test_a_certificate_that_is_renewed_is_shown_to_whoever_connects_next(
    authority: Authority, tmp_path: Path
) -> None:
    shown = tmp_path / "shown.pem"
    first, second = (authority.issue_to_server().read_bytes() for _ in range(2))
    shown.write_bytes(first)
    with RunningServer(tmp_path / "data", f"--tls-cert={shown}", f"--tls-key={shown}") as server:
        assert await certificate_of(server) in first.decode()
        shown.write_bytes(second)
        async with asyncio.timeout(15):
            while await certificate_of(server) not in second.decode():
                pass


async def certificate_of(server: RunningServer) -> str:
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))


def test_an_ssl_context_is_for_urls_that_speak_tls(nobody: ssl.SSLContext) -> None:
    for make in (rpcshare.connect, rpcshare.batch):
        with pytest.raises(ValueError, match="https://"):
            make("http://127.0.0.1:1", ssl_context=nobody)
