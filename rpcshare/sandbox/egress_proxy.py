"""The only way out of a sandbox: an HTTP proxy on a Unix socket, with a list of hosts that are allowed.

It takes CONNECT, and plain HTTP in absolute form. A host is named, never an address. The proxy resolves the
name itself, refuses it unless every address is one of the public internet, and connects to what it has
resolved: a name that resolves differently a moment later leads nowhere else. Hosts of a private network are
reached only if the operator has named them; link-local addresses, where clouds have their metadata, never.

What the sandbox sends within a connection is not looked at: whoever is allowed a host is allowed all of it.

Source: RFC 9110 sections 7.6 and 9.3.6 (CONNECT, hop-by-hop fields), RFC 9112 section 3.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, cast

__all__ = [
    "EgressPolicy",
    "EgressProxy",
    "EgressRefusal",
    "EgressRefusedError",
    "EgressTraffic",
    "Resolve",
    "allowed_addresses",
]

logger = logging.getLogger("rpcshare.sandbox")

_LONGEST_HEAD = 32 * 1024
_HEAD_SECONDS = 20.0
_CONNECT_SECONDS = 15.0
_IDLE_SECONDS = 600.0
_PIECE = 64 * 1024
_MAX_CONNECTIONS = 128
_WEB_PORTS = frozenset({80, 443})

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_RULE = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}(:[0-9]{{1,5}})?")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)")  # of a last label: an address in one of its spellings
_METHOD = re.compile(rb"[A-Z]{1,32}")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}:[^\r\n\0]*")
_HOP_BY_HOP = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"proxy-authenticate", b"te"}
    | {b"upgrade", b"host"}
)

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, for a port; raises OSError if it has none."""


class EgressRefusal(StrEnum):
    """Why a connection was refused."""

    ADDRESS = "address"
    """An address was named, and not a host."""
    HOST = "host"
    """It is not on the list."""
    PORT = "port"
    PRIVATE = "private"
    """The host's address is not one of the public internet."""
    MALFORMED = "malformed"
    TOO_MANY = "too_many"
    """There were too many connections at once."""


class EgressRefusedError(Exception):
    """A connection is refused; ``message`` says why."""

    def __init__(self, reason: EgressRefusal, message: str, host: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.host = host


class EgressPolicy:
    """Which hosts may be connected to."""

    def __init__(self, allowed: Sequence[str] = (), private: Sequence[str] = ()) -> None:
        """Take lists of ``HOST``, ``*.HOST`` for all beneath it, and either with ``:PORT`` behind.

        Without a port, 80 and 443 are meant. ``*`` alone is every host.

        Args:
            allowed: hosts that may be connected to.
            private: of those, the ones that may be on a private network, or on this machine.

        Raises:
            ValueError: one is not of that form.
        """
        self._allowed = [_rule(each) for each in (*allowed, *private)]
        self._private = [_rule(each) for each in private]

    def allows(self, host: str, port: int) -> bool:
        """Whether ``host``, in lower case, may be connected to on ``port``."""
        return _matches(self._allowed, host, port)

    def knows_host(self, host: str) -> bool:
        """Whether it may be connected to on some port."""
        return any(_is_beneath(name, host) for name, _ in self._allowed)

    def allows_private(self, host: str, port: int) -> bool:
        """Whether it may have an address of a private network."""
        return _matches(self._private, host, port)


@dataclass
class EgressTraffic:
    """What has gone through a proxy."""

    connections: int = 0
    refused: int = 0
    sent: int = 0
    """Bytes from the sandbox."""
    received: int = 0


class EgressProxy:
    """The proxy of one sandbox."""

    def __init__(
        self,
        path: Path,
        policy: EgressPolicy,
        *,
        on_refused: Callable[[EgressRefusal, str], None] = lambda _reason, _host: None,
        resolve: Resolve | None = None,
    ) -> None:
        """Make the proxy, which listens once it is opened.

        Args:
            path: of the Unix socket, in a directory that no one else may enter.
            policy: which hosts are allowed. It may be replaced while connections are open.
            on_refused: is called with the reason, and with the host and port as far as they are known.
            resolve: looks up names; None: the system's resolver.
        """
        self.path = path
        self.policy = policy
        self.traffic = EgressTraffic()
        self._on_refused = on_refused
        self._resolve = resolve or _resolve
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._server = await asyncio.start_unix_server(self._on_connection, self.path, limit=_LONGEST_HEAD)
        # Who is inside is another user; the directory keeps others out.
        os.chmod(self.path, 0o666)  # noqa: PTH101, S103 -- a Path follows links

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.path.unlink()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except EgressRefusedError as exc:
            self._refuse(exc, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except asyncio.CancelledError:
            if not task.cancelling():
                raise
        finally:
            self._connections.discard(task)
            writer.close()

    def _refuse(self, refused: EgressRefusedError, writer: asyncio.StreamWriter) -> None:
        self.traffic.refused += 1
        self._on_refused(refused.reason, refused.host)
        _answer(writer, "403 Forbidden", f"rpcshare: {refused.message}\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await _read_head(reader)
        if len(self._connections) > _MAX_CONNECTIONS:
            raise EgressRefusedError(EgressRefusal.TOO_MANY, "there are too many connections")
        method, target, fields = _parsed(head)
        if method == b"CONNECT":
            host, port = _authority(target, None)
            first = b""
        else:
            host, port, path = _absolute(target)
            first = _request(method, path, host, port, fields)
        try:
            addresses = await allowed_addresses(self.policy, host, port, self._resolve)
            far_reader, far_writer = await _connect(addresses, port)
        except (OSError, TimeoutError):
            _answer(writer, "502 Bad Gateway", f"rpcshare: {host} cannot be reached\n")
            return
        self.traffic.connections += 1
        try:
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                self.traffic.sent += len(first)
                far_writer.write(first)
            await self._relay(reader, writer, far_reader, far_writer)
        finally:
            far_writer.close()

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        last = asyncio.get_running_loop().time

        seen = last()

        async def pump(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, count: Callable[[int], None]
        ) -> None:
            nonlocal seen
            while data := await source.read(_PIECE):
                seen = last()
                count(len(data))
                target.write(data)
                await target.drain()
            with contextlib.suppress(OSError):
                target.write_eof()

        def count_sent(size: int) -> None:
            self.traffic.sent += size

        def count_received(size: int) -> None:
            self.traffic.received += size

        pumps = [
            asyncio.ensure_future(pump(reader, far_writer, count_sent)),
            asyncio.ensure_future(pump(far_reader, writer, count_received)),
        ]
        try:
            while (left := _IDLE_SECONDS - (last() - seen)) > 0:
                done, pending = await asyncio.wait(pumps, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
                if not pending or any(each.exception() for each in done):
                    break
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def allowed_addresses(
    policy: EgressPolicy, host: str, port: int, resolve: Resolve | None = None
) -> list[Address]:
    """Return what ``host``, in lower case, resolves to now. Whoever connects, connects to these alone.

    Raises:
        EgressRefusedError: it may not be connected to.
        OSError: it has no address.
    """
    shown = f"{host}:{port}"
    if not policy.allows(host, port):
        if policy.knows_host(host):
            raise EgressRefusedError(EgressRefusal.PORT, f"{host} is allowed, but not on port {port}", shown)
        raise EgressRefusedError(EgressRefusal.HOST, f"{host} is not a host that is allowed", shown)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            found = [ipaddress.ip_address(each) for each in await (resolve or _resolve)(host, port)]
    except (OSError, UnicodeError) as exc:
        raise OSError(f"{host} has no address") from exc
    is_private_allowed = policy.allows_private(host, port)
    for address in found:
        if not _is_public(address) and not (is_private_allowed and _is_private(address)):
            message = f"{host} has an address that is not of the public internet"
            raise EgressRefusedError(EgressRefusal.PRIVATE, message, shown)
    if not found:
        raise OSError(f"{host} has no address")
    return found


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise EgressRefusedError(EgressRefusal.MALFORMED, "the head of the request is too long") from None


def _parsed(head: bytes) -> tuple[bytes, bytes, list[bytes]]:
    line, *fields = head[:-4].split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not _METHOD.fullmatch(parts[0]) or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise EgressRefusedError(EgressRefusal.MALFORMED, "this is a proxy for HTTP")
    if not all(map(_FIELD.fullmatch, fields)):
        raise EgressRefusedError(EgressRefusal.MALFORMED, "a field of the head is malformed")
    return parts[0], parts[1], fields


def _authority(text: bytes, default: int | None) -> tuple[str, int]:
    """Return the host and port that a request names."""
    decoded = text.decode("ascii", "replace").lower()
    host, separator, digits = decoded.rpartition(":")
    if not separator or (decoded.startswith("[") and decoded.endswith("]")):
        host, digits = decoded, ""
    is_number = digits.isdecimal() and len(digits) <= 5
    port = int(digits) if is_number else default if not digits else None
    shown = decoded[:260]
    if port is None or not 0 < port < 65_536:
        raise EgressRefusedError(EgressRefusal.MALFORMED, "expected HOST:PORT", shown)
    host = host.removesuffix(".")
    if host.startswith("[") or ":" in host or _NUMERIC.fullmatch(host.rpartition(".")[2]):
        raise EgressRefusedError(EgressRefusal.ADDRESS, "name the host, not its address", shown)
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise EgressRefusedError(EgressRefusal.MALFORMED, "that is no name of a host", shown)
    return host, port


def _absolute(target: bytes) -> tuple[str, int, bytes]:
    if not target.lower().startswith(b"http://"):
        message = "expected the whole URL, beginning with http://; for https use CONNECT"
        raise EgressRefusedError(EgressRefusal.MALFORMED, message)
    authority, slash, path = target[7:].partition(b"/")
    authority, question, query = authority.partition(b"?")
    if b"@" in authority:
        raise EgressRefusedError(EgressRefusal.MALFORMED, "a URL with a user is not taken")
    host, port = _authority(authority, 80)
    return host, port, b"/" + (question + query + slash + path if question else path)


def _request(method: bytes, path: bytes, host: str, port: int, fields: list[bytes]) -> bytes:
    """Return the head for the server itself. Its connection ends with the answer."""
    named = {
        name.strip().lower()
        for field in fields
        if field.lower().startswith(b"connection:")
        for name in field.partition(b":")[2].split(b",")
    }
    # What tells how long the body is stays, or the server would take it for another request.
    dropped = _HOP_BY_HOP | (named - {b"transfer-encoding", b"content-length"})
    kept = [field for field in fields if field.partition(b":")[0].lower() not in dropped]
    authority = host if port == 80 else f"{host}:{port}"
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: " + authority.encode(), *kept, b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _connect(
    addresses: Sequence[Address], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of these that answers; their names are asked for no more."""
    failure: Exception = OSError("no address")
    for address in addresses[:4]:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await asyncio.open_connection(str(address), port, flags=socket.AI_NUMERICHOST)
        except (OSError, TimeoutError) as exc:
            failure = exc
    raise failure


def _answer(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = text.encode()
    fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
    head = f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n"
    with contextlib.suppress(OSError):
        writer.write(head.encode() + body)


async def _resolve(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    # The dot keeps the system's search list out: "metadata" is no "metadata.some.cloud".
    found = await loop.getaddrinfo(f"{host}." if "." in host else host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    found = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if found:
        return found
    if address in _NAT64 or int(address) >> 32 == 0:  # the latter: IPv4-compatible, such as ::127.0.0.1
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _is_public(address: Address) -> bool:
    inner = _embedded(address)
    # The outer one of an address that stands for another is "global" or not for reasons of its own.
    return inner.is_global and not inner.is_multicast and not inner.is_reserved and not inner.is_unspecified


def _is_private(address: Address) -> bool:
    """Whether it is of a private network, or this machine: never where clouds have their metadata."""
    inner = _embedded(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner in _METADATA_IPV6:
        return False
    return inner.is_private


_METADATA_IPV6 = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")})


def _rule(text: str) -> tuple[str, int | None]:
    rule = text.strip().lower()
    if rule == "*":
        return "*", None
    if not _RULE.fullmatch(rule):
        raise ValueError("must be HOST, *.HOST or either with :PORT")
    host, separator, port = rule.partition(":")
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        raise ValueError("must name hosts, not addresses")
    if separator and not 0 < int(port) < 65_536:
        raise ValueError("must have a port from 1 to 65535")
    return host, int(port) if separator else None


def _is_beneath(rule: str, host: str) -> bool:
    return rule in ("*", host) or (rule.startswith("*.") and host.endswith(rule[1:]) and host != rule[2:])


def _matches(rules: Sequence[tuple[str, int | None]], host: str, port: int) -> bool:
    return any(
        _is_beneath(rule, host) and (port in _WEB_PORTS if allowed is None else port == allowed)
        for rule, allowed in rules
    )
