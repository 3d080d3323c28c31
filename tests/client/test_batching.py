"""``rpcshare.batch`` over real HTTP: what it sends, when, and how it fails."""

import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import rpcshare
from rpcshare import ConnectFailedError, ErrorCode, SessionClosedError, ShareError
from rpcshare.rpc import Date
from support.running_server import RunningServer
from support.waiting import eventually, gathered, limited

pytestmark = pytest.mark.on_trio_too

TOKEN = "never-in-an-error"
WHOAMI_ANSWER = b'["resolve",1,{"subject":"admin"}]'


class Answering(ThreadingHTTPServer):
    """Gives the same answer to every request, and keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = WHOAMI_ANSWER
        # Cleared to have it say nothing.
        self.answers = threading.Event()
        self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def use_tls(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """A client that refuses the certificate hangs up, as it should."""


class _Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        self.server.answers.wait()
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        pass


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


class TestWithAShareServer:
    async def test_a_share_is_made_and_filled_in_one_request(self, server: RunningServer) -> None:
        items = [{"type": "message", "data": {"id": "msg_1"}}]
        async with rpcshare.batch(server.url, token=server.token) as api:
            share = api.createShare("ses_py_batch_0000001")
            synced = api.syncShare(share.id, share.secret, items)
            created, result = await gathered([share, synced])
        assert created["id"] == "_0000001"
        assert result == {"success": True, "syncCount": 1}

    async def test_what_nobody_awaits_is_sent_at_the_end(self, server: RunningServer) -> None:
        async with rpcshare.batch(server.url, token=server.token) as api:
            api.createShare("ses_py_batch_0000002")
        async with rpcshare.batch(server.url, token=server.token) as api:
            assert (await api.getShareMetadata("_0000002"))["syncCount"] == 0

    async def test_a_failed_call_fails_alone(self, server: RunningServer) -> None:
        async with rpcshare.batch(server.url, token=server.token) as api:
            missing, who = await gathered([api.getShare("nowhere0"), api.whoami()])
        assert (missing.code, str(missing)) == ("SHARE_NOT_FOUND", "Share not found")
        assert who["subject"] == "admin"

    async def test_bytes_and_dates_pass(self, server: RunningServer) -> None:
        value = {"when": Date(5), "bytes": b"\x00\xff", "nested": [[1]]}
        async with rpcshare.batch(server.url, token=server.token) as api:
            probed = await api.probeValue(value)
        assert probed["bytes"] == [0, 255]

    @pytest.mark.parametrize("awaited", [True, False])
    async def test_a_bad_token_is_refused(self, server: RunningServer, awaited: bool) -> None:
        async def ask() -> None:
            async with rpcshare.batch(server.url, token=TOKEN) as api:
                promise = api.whoami()
                if awaited:
                    await promise

        with pytest.raises(ShareError) as refused:
            await ask()
        assert refused.value.code is ErrorCode.UNAUTHORIZED
        assert TOKEN not in str(refused.value)

    async def test_a_refusal_that_was_caught_is_not_raised_again(self, server: RunningServer) -> None:
        async with rpcshare.batch(server.url, token=TOKEN) as api:
            with pytest.raises(ShareError):
                await api.whoami()

    async def test_a_refusal_of_a_large_batch_is_understood(self, server: RunningServer) -> None:
        with pytest.raises(ShareError):
            async with rpcshare.batch(server.url, token=TOKEN) as api:
                await api.echo("x" * 5_000_000)


class TestTheRequest:
    async def test_there_is_one_with_the_credential_in_its_header(self, answering: Answering) -> None:
        async with rpcshare.batch(answering.url, token=TOKEN, headers={"X-Trace": "7"}) as api:
            assert await api.whoami() == {"subject": "admin"}
        ((path, headers, body),) = answering.requests
        assert path == "/rpc"
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["X-Trace"] == "7"
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert headers["User-Agent"] == f"rpcshare/{rpcshare.__version__}"
        assert body == b'["push",["pipeline",0,["whoami"],[]]]\n["pull",1]'

    async def test_there_is_none_if_nothing_is_said(self, answering: Answering) -> None:
        async with rpcshare.batch(answering.url, token=TOKEN):
            pass
        assert answering.requests == []

    async def test_there_is_none_if_the_block_raises_first(self, answering: Answering) -> None:
        async def ask() -> None:
            async with rpcshare.batch(answering.url, token=TOKEN) as api:
                api.whoami()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await ask()
        assert answering.requests == []

    async def test_a_call_after_it_fails_and_says_why(self, answering: Answering) -> None:
        async with rpcshare.batch(answering.url, token=TOKEN) as api:
            await api.whoami()
            with pytest.raises(SessionClosedError, match="the batch has been sent"):
                await api.whoami()
        assert len(answering.requests) == 1

    async def test_a_batch_is_used_once(self, answering: Answering) -> None:
        batch = rpcshare.batch(answering.url, token=TOKEN)
        async with batch as api:
            await api.whoami()
        with pytest.raises(RuntimeError, match="sent once"):
            async with batch:
                pass

    @pytest.mark.parametrize(
        ("given", "path"),
        [
            ("", "/rpc"),
            ("/", "/rpc"),
            ("/rpc/share", "/rpc/share"),
            ("/k/KEY", "/k/KEY/rpc"),
            ("/own", "/own"),
        ],
    )
    async def test_its_path_is_the_endpoints(self, answering: Answering, given: str, path: str) -> None:
        async with rpcshare.batch(answering.url + given) as api:
            await api.whoami()
        assert answering.requests[0][0] == path

    async def test_the_scheme_of_a_websocket_will_do(self, answering: Answering) -> None:
        async with rpcshare.batch(answering.url.replace("http", "ws")) as api:
            assert await api.whoami() == {"subject": "admin"}

    @pytest.mark.parametrize("url", ["share.example", "ftp://share.example", "http://"])
    def test_what_is_no_url_of_a_server_is_refused_at_once(self, url: str) -> None:
        with pytest.raises(ValueError, match="begins with"):
            rpcshare.batch(url)

    @pytest.mark.parametrize("token", ["", "two words", "line\nfeed", "größe", "\x7f"])
    def test_what_is_no_token_is_refused_without_being_quoted(self, token: str) -> None:
        with pytest.raises(ValueError, match="a token is made of") as refused:
            rpcshare.batch("http://share.example", token=token)
        assert not token or token not in str(refused.value)

    async def test_it_goes_through_the_proxy_of_the_environment(
        self, answering: Answering, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", answering.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with rpcshare.batch("http://share.example/rpc") as api:
            assert await api.whoami() == {"subject": "admin"}
        assert answering.requests[0][0] == "http://share.example/rpc"


class TestFailing:
    async def failure(self, url: str, **options: Any) -> Exception:
        with pytest.raises((ShareError, ConnectFailedError, SessionClosedError)) as failed:
            async with rpcshare.batch(url, token=TOKEN, **options) as api:
                await api.whoami()
        assert TOKEN not in str(failed.value)
        return failed.value

    async def test_a_403_is_forbidden(self, answering: Answering) -> None:
        answering.status = 403
        failed = await self.failure(answering.url)
        assert isinstance(failed, ShareError)
        assert failed.code is ErrorCode.FORBIDDEN

    @pytest.mark.parametrize("status", [204, 404, 413, 500, 503])
    async def test_another_status_is_named(self, answering: Answering, status: int) -> None:
        answering.status, answering.body = status, b""
        failed = await self.failure(answering.url)
        assert isinstance(failed, ConnectFailedError)
        assert str(failed) == f"{answering.url} answered {status} to the batch"

    async def test_a_redirect_is_not_followed(self, answering: Answering) -> None:
        answering.status, answering.headers = 307, {"Location": f"{answering.url}/elsewhere"}
        failed = await self.failure(answering.url)
        assert str(failed) == f"{answering.url} answered 307 to the batch"
        assert len(answering.requests) == 1

    async def test_an_answer_that_is_no_batch_fails_the_calls(self, answering: Answering) -> None:
        answering.body = b"<p>Sign in</p>"
        assert isinstance(await self.failure(answering.url), SessionClosedError)

    async def test_at_the_end_too_if_nobody_awaited(self, answering: Answering) -> None:
        answering.body = b"<p>Sign in</p>"
        with pytest.raises(SessionClosedError):
            async with rpcshare.batch(answering.url) as api:
                api.whoami()

    async def test_nobody_listening_is_told_with_the_place_and_not_the_path(self) -> None:
        failed = await self.failure("http://127.0.0.1:1/k/secret-key/rpc")
        assert isinstance(failed, ConnectFailedError)
        assert str(failed).startswith("cannot connect to http://127.0.0.1:1: ")

    async def test_a_server_that_hangs_up_is_told(self, answering: Answering) -> None:
        answering.RequestHandlerClass = _HangingUp
        assert str(await self.failure(answering.url)).endswith("the server hung up")

    async def test_a_server_that_speaks_something_else_is_told(self, answering: Answering) -> None:
        answering.RequestHandlerClass = _Greeting
        assert "no HTTP is spoken there" in str(await self.failure(answering.url))

    async def test_a_server_that_says_nothing_is_given_up(self, answering: Answering) -> None:
        answering.answers.clear()
        failed = await self.failure(answering.url, timeout=0.2)
        assert str(failed) == f"{answering.url} did not answer within 0.2 s"

    async def test_leaving_does_not_wait_for_the_answer(self, answering: Answering) -> None:
        answering.answers.clear()
        with pytest.raises(TimeoutError):
            async with limited(0.2), rpcshare.batch(answering.url) as api:
                await api.whoami()
        # The worker thread that had waited for the answer is done as well.
        threads = anyio.to_thread.current_default_thread_limiter()
        await eventually(lambda: threads.borrowed_tokens == 0)

    async def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, answering: Answering, certificate: Path
    ) -> None:
        answering.use_tls(certificate)
        failed = await self.failure(answering.url.replace("http", "https"))
        assert "CERTIFICATE_VERIFY_FAILED" in str(failed)
        assert answering.requests == []

    async def test_one_that_somebody_vouches_for_is_taken(
        self, answering: Answering, certificate: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answering.use_tls(certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with rpcshare.batch(answering.url.replace("http", "https")) as api:
            assert await api.whoami() == {"subject": "admin"}


class _HangingUp(BaseHTTPRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()


class _Greeting(BaseHTTPRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 mail.example ready\r\n")
