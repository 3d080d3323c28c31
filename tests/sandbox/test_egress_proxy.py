"""The egress proxy: what it lets through, what it refuses, and what it tells of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rpcshare.sandbox.egress_proxy import EgressPolicy, EgressProxy

NAMES: dict[str, list[str]] = {}


class World:
    """A proxy, and a server that answers each connection with what it was sent."""

    def __init__(self, proxy: EgressProxy, port: int, refusals: list[tuple[str, str]]) -> None:
        self.proxy, self.port, self.refusals = proxy, port, refusals
        self.asked: list[str] = []

    async def ask(self, head: str, more: bytes = b"") -> bytes:
        reader, writer = await asyncio.open_unix_connection(self.proxy.path)
        writer.write(head.encode() + more)
        with contextlib.suppress(OSError):
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return answer


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    refusals: list[tuple[str, str]] = []
    asked: list[str] = []

    async def echo(reader, writer):
        data = await reader.read(100_000)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + data)
        writer.close()

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        addresses = {"server.test": ["127.0.0.1"], "mapped.test": ["::ffff:169.254.169.254"]}
        addresses |= {
            "nat64.test": ["64:ff9b::a9fe:a9fe"],
            "sixtofour.test": ["2002:7f00:1::"],
            "many.test": ["1.1.1.1", "10.0.0.1"],
        }
        addresses |= {
            "compatible.test": ["::127.0.0.1"],
            "zero.test": ["0.0.0.0"],
            "lan.test": ["10.1.2.3"],
            "cgnat.test": ["100.64.0.1"],
        }
        addresses |= {
            "unique.test": ["fd00:ec2::254"],
            "multi.test": ["224.0.0.1"],
            "six.test": ["::1"],
            "link.test": ["169.254.1.1"],
        }
        if host not in addresses:
            raise OSError("not known")
        return addresses[host]

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    policy = EgressPolicy(
        ["*.test", "plain.example"], [f"server.test:{port}", "link.test", "unique.test", "mapped.test"]
    )
    proxy = EgressProxy(
        tmp_path / "egress",
        policy,
        on_refused=lambda why, host: refusals.append((why.value, host)),
        resolve=resolve,
    )
    await proxy.open()
    made = World(proxy, port, refusals)
    made.asked = asked
    yield made
    await proxy.close()
    server.close()
    await server.wait_closed()


async def test_a_tunnel_goes_to_a_host_that_is_allowed(world):
    answer = await world.ask(f"CONNECT server.test:{world.port} HTTP/1.1\r\n\r\n", b"hello")
    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert answer.endswith(b"hello")
    traffic = world.proxy.traffic
    assert (traffic.connections, traffic.refused, traffic.sent) == (1, 0, 5)
    assert traffic.received == len(b"HTTP/1.1 200 OK\r\n\r\nhello")


async def test_plain_http_names_the_host_that_is_connected_to(world):
    fields = "Host: other.test\r\nProxy-Authorization: x\r\nA: 1\r\nConnection: A\r\n\r\n"
    head = f"GET http://Server.Test:{world.port}/a?b HTTP/1.1\r\n{fields}"
    answer = await world.ask(head)
    request = answer.partition(b"\r\n\r\n")[2].decode()
    lines = request.split("\r\n")
    assert lines[:2] == ["GET /a?b HTTP/1.1", f"Host: server.test:{world.port}"]
    assert "other.test" not in request
    assert "Proxy-Authorization" not in request
    assert "A: 1" not in request
    assert "Connection: close" in request


async def test_the_length_of_a_body_cannot_be_hidden_by_a_field(world):
    fields = "Content-Length: 3\r\nConnection: content-length\r\n\r\nabc"
    head = f"POST http://server.test:{world.port}/ HTTP/1.1\r\n{fields}"
    assert b"Content-Length: 3" in await world.ask(head)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("127.0.0.1:443", "address"),
        ("[::1]:443", "address"),
        ("2130706433:443", "address"),
        ("0x7f000001:443", "address"),
        ("127.1:443", "address"),
        ("1.2.3.4.:443", "address"),
        ("other.example:443", "host"),
        ("test:443", "host"),
        ("xtest:443", "host"),
        ("plain.example.evil:443", "host"),
        ("sub.plain.example:443", "host"),
        ("plain.example:22", "port"),
        ("a.test:25", "port"),
        ("six.test:443", "private"),
        ("link.test:443", "private"),
        ("mapped.test:443", "private"),
        ("nat64.test:443", "private"),
        ("sixtofour.test:443", "private"),
        ("compatible.test:443", "private"),
        ("zero.test:443", "private"),
        ("lan.test:443", "private"),
        ("cgnat.test:443", "private"),
        ("unique.test:443", "private"),
        ("multi.test:443", "private"),
        ("many.test:443", "private"),
        ("a.test", "malformed"),
        ("a.test:0", "malformed"),
        ("a.test:65536", "malformed"),
        ("a.test:4x", "malformed"),
        ("a/b.test:443", "malformed"),
        ("a..test:443", "malformed"),
        ("\u00e4.test:443", "malformed"),
        ("a.test%00.b:443", "malformed"),
        ("user@a.test:443", "malformed"),
    ],
)
async def test_what_may_not_be_connected_to_is_refused_and_told(world, target, reason):
    answer = await world.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 "), answer
    assert [why for why, _ in world.refusals] == [reason]
    assert world.proxy.traffic.refused == 1


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET https://a.test/ HTTP/1.1\r\n\r\n",
        "GET http://u:p@a.test/ HTTP/1.1\r\n\r\n",
        "GET http://a.test/ HTTP/2\r\n\r\n",
        "get http://a.test/ HTTP/1.1\r\n\r\n",
        "GET http://a.test/ x HTTP/1.1\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nA b\r\n\r\n",
        "CONNECT a.test:443 HTTP/1.1\r\nA: b\nEvil: c\r\n\r\n",
        "\x16\x03\x01\x02\x00\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\nA: " + "x" * 70_000 + "\r\n\r\n",
    ],
)
async def test_what_is_malformed_is_refused(world, head):
    assert (await world.ask(head)).startswith(b"HTTP/1.1 403 ")
    assert [why for why, _ in world.refusals] == ["malformed"]


async def test_a_name_is_resolved_once_and_what_it_resolved_to_is_connected_to(world):
    await world.ask(f"CONNECT server.test:{world.port} HTTP/1.1\r\n\r\n", b"x")
    assert world.asked == ["server.test"]


async def test_a_host_that_does_not_answer_is_no_refusal(world):
    answer = await world.ask("CONNECT unknown.test:443 HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"unknown.test cannot be reached" in answer
    assert world.refusals == []


async def test_a_policy_may_change_under_way(world):
    world.proxy.policy = EgressPolicy([])
    answer = await world.ask(f"CONNECT server.test:{world.port} HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")


async def test_too_many_connections_at_once_are_refused(world):
    held = [await asyncio.open_unix_connection(world.proxy.path) for _ in range(128)]
    await asyncio.sleep(0.05)
    assert b"too many" in await world.ask(f"CONNECT server.test:{world.port} HTTP/1.1\r\n\r\n")
    for _, writer in held:
        writer.close()


@pytest.mark.parametrize(
    "rule", ["", "a b", "*", "*.*", "http://a", "a:0", "a:65536", "1.2.3.4", "a.*", "-a", "a/b"]
)
def test_a_list_names_hosts(rule):
    if rule == "*":
        assert EgressPolicy([rule]).allows("anything.example", 443)
        return
    with pytest.raises(ValueError, match="must"):
        EgressPolicy([rule])


def test_a_rule_for_all_beneath_a_host_is_not_for_the_host_itself():
    policy = EgressPolicy(["*.example.com", "own.example:8443"])
    assert policy.allows("a.b.example.com", 443)
    assert not policy.allows("example.com", 443)
    assert not policy.allows("notexample.com", 443)
    assert policy.allows("own.example", 8443)
    assert not policy.allows("own.example", 443)
