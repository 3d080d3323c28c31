"""uvicorn's protocols, telling the application of the certificate that a TLS client has shown.

In the form of the ASGI TLS extension (https://asgi.readthedocs.io/en/latest/specs/tls.html), which
uvicorn does not implement. It knows of no certificate of the server and no cipher suite here.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from rpcshare.server.http_protocol import HttpProtocol
from rpcshare.server.websocket_protocol import WebSocketProtocol

__all__ = ["TlsHttpProtocol", "TlsWebSocketProtocol"]


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
    connection = cast("ssl.SSLObject", transport.get_extra_info("ssl_object"))
    certificate = connection.getpeercert(binary_form=True)
    chain = () if certificate is None else (ssl.DER_cert_to_PEM_cert(certificate),)
    tls = {"server_cert": None, "client_cert_chain": chain, "tls_version": None, "cipher_suite": None}

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {**scope.get("extensions", {}), "tls": tls}}, receive, send)

    return telling
