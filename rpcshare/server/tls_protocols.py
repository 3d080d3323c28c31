"""uvicorn's protocols, telling the application of the certificate that a TLS client has shown.

In the form of the ASGI TLS extension (https://asgi.readthedocs.io/en/latest/specs/tls.html), which
uvicorn does not implement. It knows of no certificate of the server and no cipher suite here.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.websocket_protocol import WebSocketProtocol

__all__ = ["TlsHttpProtocol", "TlsWebSocketProtocol"]

_DER = 2  # OpenSSL's name for the encoding, in Python's _ssl


class _TellsCertificate(asyncio.Protocol):
    """What both protocols do: call an application of their own for each connection."""

    app: ASGIApp

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection, whose handshake is over."""
        super().connection_made(transport)
        self.app = _telling_certificate(self.app, transport)


class TlsHttpProtocol(_TellsCertificate, HttpProtocol):
    """HTTP/1.1; it hands a connection over to :class:`TlsWebSocketProtocol` when that is asked for."""


class TlsWebSocketProtocol(_TellsCertificate, WebSocketProtocol):
    """WebSocket."""


def _telling_certificate(app: ASGIApp, transport: asyncio.BaseTransport) -> ASGIApp:
    chain = _chain_shown(cast("ssl.SSLObject", transport.get_extra_info("ssl_object")))
    tls = {"server_cert": None, "client_cert_chain": chain, "tls_version": None, "cipher_suite": None}

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {**scope.get("extensions", {}), "tls": tls}}, receive, send)

    return telling


def _chain_shown(connection: ssl.SSLObject) -> tuple[str, ...]:
    """Return the client's certificate and the CAs by which it was found valid, in PEM."""
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        return ()
    chain: list[bytes]
    if sys.version_info >= (3, 13):
        chain = connection.get_verified_chain()
    else:  # the same, before it was given a public name
        found = connection._sslobj.get_verified_chain() or ()  # type: ignore[attr-defined]  # noqa: SLF001
        chain = [each.public_bytes(_DER) for each in found]
    # A session that is resumed has the certificate alone.
    return tuple(map(ssl.DER_cert_to_PEM_cert, chain or [certificate]))
