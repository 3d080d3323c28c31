"""One HTTP request, by the standard library in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from rpcshare.version import __version__

__all__ = ["Exchange"]


class Exchange:
    """A POST and its answer, with the proxies of the environment, certificates checked, and no redirects.

    Args:
        url: where to.
        headers: of the request, beside those that HTTP needs.
        body: of the request.
        timeout: in seconds, for each step of the exchange that waits for the network.
        ssl_context: for https; None: the system's CAs are trusted, and no certificate is shown.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._request = urllib.request.Request(  # noqa: S310 -- there are handlers for http and https alone
            url, body, dict(headers), method="POST"
        )
        self._timeout = timeout
        self._ssl_context = ssl_context
        # Guards what follows, which two threads use.
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_given_up = False

    async def run(self) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises:
            OSError: there is no answer, or not the whole of one.
        """
        try:
            return await asyncio.to_thread(self._exchange)
        except asyncio.CancelledError:
            self._give_up()
            raise

    def _exchange(self) -> tuple[int, bytes]:
        # No handler follows redirects, which would take the credential to wherever the answer says.
        opener = urllib.request.OpenerDirector()
        opener.addheaders = [("User-Agent", f"rpcshare/{__version__}")]
        for handler in (
            urllib.request.ProxyHandler(),
            _HTTPHandler(self),
            _HTTPSHandler(self, self._ssl_context or ssl.create_default_context()),
        ):
            opener.add_handler(handler)
        try:
            with opener.open(self._request, timeout=self._timeout) as response:
                return response.status, response.read()
        except urllib.error.URLError as exc:
            raise exc.reason if isinstance(exc.reason, OSError) else OSError(exc.reason) from None
        except http.client.RemoteDisconnected:
            raise OSError("the server hung up") from None
        except (http.client.HTTPException, ValueError) as exc:
            # Its kind alone: its text may quote what was sent.
            raise OSError(f"no HTTP is spoken there ({type(exc).__name__})") from None

    def connected(self, to: socket.socket) -> None:
        """Take note of the socket that the exchange goes over."""
        with self._lock:
            self._socket = to
            if self._is_given_up:
                self._shut_down()

    def _give_up(self) -> None:
        """Have the thread return: what it waits for fails."""
        with self._lock:
            self._is_given_up = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is not connected any longer
                self._socket.shutdown(socket.SHUT_RDWR)


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._connection = functools.partial(_Connection, exchange)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, exchange: Exchange, context: ssl.SSLContext) -> None:
        super().__init__()
        self._connection = functools.partial(_SecureConnection, exchange, context=context)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _Connection(http.client.HTTPConnection):
    """A connection whose exchange knows its socket."""

    def __init__(self, exchange: Exchange, *args: Any, **options: Any) -> None:  # noqa: ANN401 -- the base's
        super().__init__(*args, **options)
        self._exchange = exchange

    def connect(self) -> None:
        super().connect()
        self._exchange.connected(self.sock)

    def send(self, data: Any) -> None:  # noqa: ANN401 -- the base's
        if self.sock is None:
            self.connect()
        # Who refuses a request need not read it to its end, and what is of interest is the answer.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().send(data)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""
