"""Where a redirect takes a client and its credential: to TLS on the same host, and nowhere else."""

from collections.abc import Iterator

import pytest
from answering import Answers, answering

import rpcshare
from rpcshare.client import ConnectFailedError
from rpcshare.client.redirects import redirected
from support.authorities import Authority
from support.running_server import RunningServer

pytestmark = pytest.mark.on_trio_too

TOKEN = "a-token-that-nobody-else-may-see"


@pytest.fixture
def plain() -> Iterator[Answers]:
    """A server without TLS."""
    with answering() as answers:
        yield answers


@pytest.fixture
def other() -> Iterator[Answers]:
    """Another one."""
    with answering() as answers:
        yield answers


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with TLS, whose CA is in the file ``ca.pem`` beside its data."""
    path = tmp_path_factory.mktemp("secure")
    authority = Authority(path / "ca")
    shown = authority.issue_to_server()
    (path / "ca.pem").write_bytes(authority.path.read_bytes())
    with RunningServer(path / "data", f"--tls-cert={shown}", f"--tls-key={shown}") as server:
        yield server


@pytest.fixture
def _trusted(secure: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.data_dir.with_name("ca.pem")))


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("reconnect", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_connection_follows_from_http_to_https_of_the_same_host(
    plain: Answers, secure: RunningServer, status: int, reconnect: bool
) -> None:
    plain.say(status, {"Location": f"{secure.url}/rpc"})
    async with rpcshare.connect(plain.url, token=secure.token, reconnect=reconnect) as api:
        assert (await api.whoami())["subject"] == "admin"


@pytest.mark.usefixtures("_trusted")
async def test_a_batch_follows_from_http_to_https_of_the_same_host(
    plain: Answers, secure: RunningServer
) -> None:
    plain.say(301, {"Location": f"{secure.url}/rpc"})
    async with rpcshare.batch(plain.url, token=secure.token) as api:
        assert (await api.whoami())["subject"] == "admin"


@pytest.mark.usefixtures("_trusted")
async def test_a_redirect_to_tls_is_warned_of_once(
    plain: Answers, secure: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    plain.say(301, {"Location": f"{secure.url}/rpc"})
    for _ in range(2):
        async with rpcshare.connect(plain.url, token=secure.token):
            pass
    (line,) = [record.getMessage() for record in caplog.records if "redirects" in record.getMessage()]
    assert line.endswith("use https://, so that no credential goes unencrypted")


@pytest.mark.parametrize("how", [rpcshare.connect, rpcshare.batch])
@pytest.mark.parametrize("headers", [{}, {"x-opencode-share-key": TOKEN}])
async def test_no_credential_goes_to_another_server(
    plain: Answers, other: Answers, how, headers: dict[str, str]
) -> None:
    plain.say(307, {"Location": f"{other.url}/k/{TOKEN}/rpc"})
    with pytest.raises(ConnectFailedError) as caught:
        async with how(plain.url, token=TOKEN, headers=headers) as api:
            await api.whoami()
    assert other.url in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert other.requests == []
    assert caught.value.is_permanent


@pytest.mark.parametrize("how", [rpcshare.connect, rpcshare.batch])
async def test_a_redirect_that_goes_round_is_given_up(plain: Answers, how) -> None:
    plain.say(302, {"Location": "/rpc"})
    with pytest.raises(ConnectFailedError, match=r"redirects again and again|answered 302"):
        async with how(plain.url, token=TOKEN) as api:
            await api.whoami()
    assert len(plain.requests) <= 5


@pytest.mark.parametrize(
    ("asked", "location", "leads_to"),
    [
        ("http://share.example/rpc", "https://share.example/rpc", "https://share.example/rpc"),
        ("http://share.example:80/rpc", "https://SHARE.example/rpc", "https://SHARE.example/rpc"),
        ("ws://share.example/k/key/rpc", "https://share.example/k/key/rpc", "wss://share.example/k/key/rpc"),
        (
            "ws://u:p@share.example/rpc",
            "https://x:y@share.example:8443/rpc",
            "wss://u:p@share.example:8443/rpc",
        ),
        ("ws://share.example/rpc", "//share.example/elsewhere", None),
        ("wss://share.example/rpc", "/elsewhere?a=b", None),
        ("http://share.example/rpc", "/elsewhere", None),
        ("http://share.example/rpc", "", None),
        ("http://share.example/rpc", None, None),
    ],
)
def test_where_a_redirect_leads(asked: str, location: str | None, leads_to: str | None) -> None:
    assert redirected(asked, 301, location) == leads_to


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("http://share.example/rpc", "https://share.example.evil/rpc"),
        ("http://share.example/rpc", "https://share.example@evil/rpc"),
        ("http://share.example/rpc", "http://evil/rpc"),
        ("http://share.example/rpc", "http://share.example:8080/rpc"),
        ("https://share.example/rpc", "http://share.example/rpc"),
        ("wss://share.example/rpc", "https://share.example:8443/rpc"),
        ("http://share.example/rpc", "ftp://share.example/rpc"),
        ("http://share.example/rpc", "https://[::1/rpc"),
        ("http://share.example/rpc", "https://share.example:port/rpc"),
        ("http://share.example/rpc", "javascript:alert(1)"),
    ],
)
def test_a_redirect_elsewhere_is_named_and_not_followed(asked: str, location: str) -> None:
    with pytest.raises(ConnectFailedError) as caught:
        redirected(asked, 301, location, within_origin=True)
    assert caught.value.is_permanent


def test_a_handshake_may_be_sent_to_another_path_of_the_server() -> None:
    assert redirected("wss://a.example/rpc", 308, "/rpc/", within_origin=True) == "wss://a.example/rpc/"
