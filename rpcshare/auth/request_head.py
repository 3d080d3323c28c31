"""What a request says before its body: all that authentication may look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["ClientCertificate", "RequestHead"]


class ClientCertificate(msgspec.Struct, frozen=True):
    """What counts of the certificate that a TLS client has shown, and TLS has found valid."""

    subject: str
    """The name in it; empty if it has none."""
    expires_at: float
    """In seconds since the epoch: when it, or a CA's between it and one that is trusted, expires."""
    chain: tuple[x509.Certificate, ...] = ()
    """The certificate, and those of the CAs that vouch for it, as TLS has found them valid. Of a TLS session
    that is resumed, the first alone; empty if it can be read by TLS alone."""


class RequestHead(msgspec.Struct, frozen=True):
    """The head of an HTTP request or of a WebSocket handshake, free of any web framework."""

    headers: tuple[tuple[str, str], ...] = ()
    """(lower-case name, value decoded as Latin-1) in the order received; a name may repeat."""
    path: str = "/"
    """The whole path, percent-decoded, with its ``/k/KEY`` prefix if it has one; no query."""
    address: str = ""
    """Where the request came from, as far as proxies that are trusted tell; empty where there is none."""
    is_websocket: bool = False
    method: str = "GET"
    subprotocols: tuple[str, ...] = ()
    """What a WebSocket handshake offers, in its order of preference."""
    peer_certificate: ClientCertificate | None = None
    """Of the client, where TLS ends here and it has shown one."""
    is_from_proxy: bool = False
    """Whether a proxy that is trusted passed the request on."""

    def __repr__(self) -> str:
        """Return a form without headers and path: both may hold a credential."""
        return f"RequestHead(address={self.address!r}, is_websocket={self.is_websocket})"

    def header(self, name: str) -> list[str]:
        """Return every value of the header ``name`` (lower case), in order."""
        return [value for key, value in self.headers if key == name]
