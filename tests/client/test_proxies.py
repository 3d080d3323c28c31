"""Proxies that the environment names: HTTP and SOCKS ones are used, and what cannot be used is said."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

import rpcshare
from rpcshare.client import ConnectFailedError
from support.other_thread import in_other_thread
from support.running_server import RunningServer, bare_environment

pytestmark = pytest.mark.on_trio_too

NAMES = ("http_proxy", "https_proxy", "socks_proxy", "ws_proxy", "wss_proxy", "all_proxy", "no_proxy")
SOCKS_SCHEMES = ("socks5", "socks5h", "socks4", "socks4a")
PASSWORD = "a-proxy-s-password"

# What somebody finds who has not installed it.
WITHOUT_PYTHON_SOCKS = "import sys; sys.modules['python_socks'] = None; "


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Proxy:
    """A proxy that speaks SOCKS 4, 4a and 5, and CONNECT and plain requests of HTTP.

    Attributes:
        address: host and port.
        used: how many connections went through it.
    """

    def __init__(self) -> None:
        self.address = ""
        self.used = 0
        self.status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"\x05":
            await reader.readexactly((await reader.readexactly(1))[0])
            writer.write(b"\x05\x00")
            kind = (await reader.readexactly(4))[3]
            host = await reader.readexactly((await reader.readexactly(1))[0] if kind == 3 else 4)
            port = int.from_bytes(await reader.readexactly(2))
            writer.write(b"\x05\x00\x00\x01" + bytes(6))
        elif first == b"\x04":
            head = await reader.readexactly(7)
            port, host = int.from_bytes(head[1:3]), head[3:]
            await reader.readuntil(b"\0")
            if host[:3] == bytes(3):  # 4a
                host = (await reader.readuntil(b"\0"))[:-1]
            writer.write(b"\x00\x5a" + bytes(6))
        else:
            line = (first + await reader.readuntil(b"\r\n\r\n")).split()
            if line[0] != b"CONNECT" or self.status != 200:
                writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % self.status)
                writer.close()
                return
            port = int(line[1].rpartition(b":")[2])
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        self.used += 1
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(self._copy(reader, there[1]), self._copy(there[0], writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            pass
        writer.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with in_other_thread(_listening()) as proxy:
        yield proxy


@asynccontextmanager
async def _listening() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as listener:
        proxy.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield proxy


@pytest.mark.parametrize("scheme", SOCKS_SCHEMES)
@pytest.mark.parametrize(("how", "name"), [("connect", "https_proxy"), ("batch", "http_proxy")])
async def test_a_socks_proxy_is_used(
    server: RunningServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, how: str, name: str, scheme: str
) -> None:
    pytest.importorskip("python_socks", reason="python-socks is not installed")
    monkeypatch.setenv(name, f"{scheme}://{proxy.address}")
    async with getattr(rpcshare, how)(server.url, token=server.token) as api:
        assert (await api.whoami())["subject"] == "admin"
    assert proxy.used == 1


async def test_an_http_proxy_carries_a_connection(
    server: RunningServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    async with rpcshare.connect(server.url, token=server.token) as api:
        assert (await api.whoami())["subject"] == "admin"
    assert proxy.used == 1


@pytest.mark.parametrize("how", ["connect", "batch"])
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_no_proxy_is_used_for_a_host_that_needs_none(
    server: RunningServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, how: str, scheme: str
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"{scheme}://{proxy.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with getattr(rpcshare, how)(server.url, token=server.token) as api:
        await api.whoami()
    assert proxy.used == 0


@pytest.mark.parametrize(
    ("how", "name"), [("connect", "https_proxy"), ("connect", "socks_proxy"), ("batch", "http_proxy")]
)
def test_without_its_package_a_socks_proxy_is_an_error_that_says_what_to_install(how: str, name: str) -> None:
    code = f"""{WITHOUT_PYTHON_SOCKS}
import asyncio, rpcshare
async def main():
    try:
        async with rpcshare.{how}("http://127.0.0.1:1", token="t") as api:
            await api.whoami()
    except rpcshare.ConnectFailedError as exc:
        print(exc.is_permanent, exc)
asyncio.run(main())
"""
    said = _run(["-c", code], **{name: f"socks5h://me:{PASSWORD}@127.0.0.1:1080"})
    assert said.stdout.startswith("True cannot connect to ")
    assert "pip install 'rpcshare[socks]'" in said.stdout
    assert PASSWORD not in said.stdout + said.stderr


def test_the_command_line_says_what_to_install() -> None:
    code = (
        f"{WITHOUT_PYTHON_SOCKS} from rpcshare.cli import main; main(['ls', '--url', 'http://127.0.0.1:1'])"
    )
    said = _run(["-c", code], https_proxy="socks5h://127.0.0.1:1080")
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.endswith("needs the package python-socks: pip install 'rpcshare[socks]'")


@pytest.mark.parametrize("how", ["connect", "batch"])
@pytest.mark.parametrize(
    "url",
    [
        f"gopher://me:{PASSWORD}@127.0.0.1:1",
        f"socks9://me:{PASSWORD}@127.0.0.1:1",
        f"http://me:{PASSWORD}@127.0.0.1:port",
        f"http://me:{PASSWORD}@",
    ],
)
async def test_what_is_no_proxy_is_said_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, how: str, url: str
) -> None:
    monkeypatch.setenv("http_proxy", url)
    with pytest.raises(ConnectFailedError, match="proxy") as caught:
        async with getattr(rpcshare, how)("http://127.0.0.1:1", token="t") as api:
            await api.whoami()
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(("status", "is_permanent"), [(407, True), (403, True), (502, False), (503, False)])
async def test_a_proxy_that_refuses_is_named(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, status: int, is_permanent: bool
) -> None:
    proxy.status = status
    monkeypatch.setenv("http_proxy", f"http://me:{PASSWORD}@{proxy.address}")
    with pytest.raises(ConnectFailedError, match=f"the proxy of the environment answered {status}") as caught:
        await rpcshare.connect("http://127.0.0.1:1", token="t").__aenter__()
    assert caught.value.is_permanent is is_permanent
    assert PASSWORD not in str(caught.value)


def _run(arguments: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in bare_environment().items() if name.lower() not in NAMES}
    return subprocess.run(
        [sys.executable, *arguments], env={**bare, **env}, capture_output=True, text=True, check=False
    )
