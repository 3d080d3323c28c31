"""Requests that a proxy passes on: where they came from, and from whom, as far as it may be believed."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.subject_sources import Source
from rpcshare.auth.subjects import fault_of_subject
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["ProxySubjectVerifier", "TrustedProxies"]

# Prefixes; a shorter one is that of a network in which there is more than proxies, most likely.
_WIDE = {4: 24, 6: 64}

# What Apache httpd writes for a variable that is not set. It would be a name like any other.
_NOBODY = "(null)"


class TrustedProxies:
    """The networks in which proxies are that may be believed.

    Args:
        networks: where they are; a proxy by itself is a network of one address.
        hops: how many proxies a request passes, one after the other, if not all have an address of their own
            here. None: any number; then whoever else is in a network can choose his address.
    """

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network], hops: int | None = None) -> None:
        self._networks = tuple(networks)
        self._hops = hops

    @property
    def wide(self) -> list[IPv4Network | IPv6Network]:
        """Those networks in which there is more than proxies, most likely: wider than /24, or /64 in IPv6."""
        return [each for each in self._networks if each.prefixlen < _WIDE[each.version]]

    def __contains__(self, address: str) -> bool:
        """Whether what comes straight from ``address`` comes from a trusted proxy."""
        parsed = _parse(address)
        return parsed is not None and self._trusts(parsed)

    def origin_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address where a request came from.

        Each proxy adds, at the right, the address that it was asked from. So the first from the right that
        is no trusted proxy's is the one that a trusted proxy has seen; what stands left of it, anybody
        may have written. An address in a network of proxies may be a client's, too: no more of them are taken
        for proxies than there are hops.

        Args:
            peer: the address at the other end of the connection; empty where there is none.
            forwarded: the values of ``X-Forwarded-For``, in order.
        """
        if peer not in self:
            return peer
        origin = peer
        left = math.inf if self._hops is None else self._hops - 1
        for hop in reversed(",".join(forwarded).split(",")):
            address = _parse(_without_port(hop.strip()))
            if address is None:
                return origin
            origin = str(address)
            if not self._is_named(address):
                left -= 1
                if left < 0 or not self._trusts(address):
                    return origin
        return origin

    def _is_named(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the settings name a proxy by just this address."""
        return any(network.num_addresses == 1 and address in network for network in self._networks)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


class ProxySubjectVerifier:
    """Knows the caller whom a trusted proxy names in a header.

    Args:
        header: its name.
        scopes: of every caller who is named so.
    """

    def __init__(self, header: str, scopes: AbstractSet[Scope]) -> None:
        self._header = header.lower()
        self._scopes = frozenset(scopes)

    async def verify(self, head: RequestHead) -> Caller | None:
        """Return whom the proxy names, or None if it names nobody or is not to be believed.

        Raises:
            ShareError: UNAUTHORIZED, for more than one name, or for what is none.
        """
        if not head.is_from_proxy:
            return None
        values = [value.strip() for value in head.header(self._header)]
        if not any(values):
            return None
        # One that the client has sent may stand beside the proxy's, as a header or behind a comma.
        if len(values) > 1 or "," in values[0]:
            raise self._refusal("has more than one value")
        name = _as_text(values[0])
        if name == _NOBODY:
            return None
        fault = fault_of_subject(name, self._scopes)
        if fault is not None:
            raise self._refusal(fault)
        return Caller(name, self._scopes, source=Source.PROXY)

    def _refusal(self, fault: str) -> ShareError:
        return ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized: the proxy's header {self._header} {fault}")


def _as_text(value: str) -> str:
    """Return a header's value, decoded as Latin-1, as UTF-8, which it is meant to be; empty if it is not."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return ""


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    # What a socket for both families calls an address of the older one.
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _without_port(hop: str) -> str:
    """Return the address of ``1.2.3.4:5678`` or ``[2001:db8::1]:5678``, forms that some proxies write."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    address, colon, port = hop.partition(":")
    return address if colon and "." in address and port.isdecimal() else hop
