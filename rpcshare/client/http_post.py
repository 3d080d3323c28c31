"""One HTTP request, by the standard library in a thread."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import anyio
import anyio.to_thread

from rpcshare.version import __version__

__all__ = ["Exchange"]


class Exchange:
    """A POST and its answer, with the proxies of the environment, certificates checked, and no redirects.

    A proxy is that of ``http_proxy`` or ``https_proxy``, by the scheme of the URL; ``no_proxy`` lists hosts
    that need none. One that speaks SOCKS needs the package ``python-socks``.

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
        self._connect: Callable[..., socket.socket] = socket.create_connection
        # Guards what follows, which two threads use.
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_given_up = False

    async def run(self) -> tuple[int, Message, bytes]:
        """Return the status, the headers and the body of the answer.

        Raises:
            OSError: there is no answer, or not the whole of one.
            ImportError: the proxy speaks SOCKS, and ``python-socks`` is not installed.
            ValueError: what the environment names is no proxy.
        """
        try:
            return await anyio.to_thread.run_sync(self._exchange, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            self._give_up()
            raise

    def _exchange(self) -> tuple[int, Message, bytes]:
        proxy = _proxy_for(self._request)
        is_socks = False
        if proxy is not None and proxy.scheme in _SOCKS:
            is_socks = True
            self._connect = functools.partial(_connect_by_socks, proxy)
        # No handler follows redirects, which would take the credential to wherever the answer says.
        opener = urllib.request.OpenerDirector()
        opener.addheaders = [("User-Agent", f"rpcshare/{__version__}")]
        for handler in (
            urllib.request.ProxyHandler({} if is_socks else None),
            _HTTPHandler(self),
            _HTTPSHandler(self, self._ssl_context or ssl.create_default_context()),
        ):
            opener.add_handler(handler)
        try:
            with opener.open(self._request, timeout=self._timeout) as response:
                return response.status, response.headers, response.read()
        except urllib.error.URLError as exc:
            raise exc.reason if isinstance(exc.reason, OSError) else OSError(exc.reason) from None
        except http.client.RemoteDisconnected:
            raise OSError("the server hung up") from None
        except (http.client.HTTPException, ValueError) as exc:
            # Its kind alone: its text may quote what was sent.
            raise OSError(f"no HTTP is spoken there ({type(exc).__name__})") from None

    def connect(self, address: tuple[str, int], timeout: float, *_source: object) -> socket.socket:
        """Return a socket that leads to ``address``, as http.client asks for it."""
        return self._connect(address, timeout)

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


# By the scheme of the proxy's URL: its protocol, and whether it resolves host names.
_SOCKS = {
    "socks5h": ("SOCKS5", True),
    "socks5": ("SOCKS5", False),
    "socks4a": ("SOCKS4", True),
    "socks4": ("SOCKS4", False),
}


def _proxy_for(request: urllib.request.Request) -> SplitResult | None:
    """Return the proxy that the environment names for ``request``.

    Raises:
        ValueError: it is none. The text is not to be shown: it may quote a password.
    """
    if urllib.request.proxy_bypass(request.host):
        return None
    url = urllib.request.getproxies().get(request.type)
    if not url:
        return None
    proxy = urlsplit(url if "://" in url else f"http://{url}")
    if proxy.scheme not in {"http", "https", *_SOCKS} or not proxy.hostname or proxy.port == 0:
        raise ValueError("no proxy")
    return proxy


def _connect_by_socks(proxy: SplitResult, address: tuple[str, int], timeout: float) -> socket.socket:
    from python_socks import ProxyError, ProxyType  # noqa: PLC0415 -- few have it
    from python_socks.sync import Proxy  # noqa: PLC0415

    protocol, resolves = _SOCKS[proxy.scheme]
    user, password = (
        unquote(each) if each is not None else None for each in (proxy.username, proxy.password)
    )
    socks = Proxy(ProxyType[protocol], str(proxy.hostname), proxy.port or 1080, user, password, resolves)
    try:
        return socks.connect(*address, timeout=timeout)
    except ProxyError as exc:
        raise OSError(f"the SOCKS proxy of the environment: {exc}") from None


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
        self._create_connection = exchange.connect  # http.client's own hook for what tunnels

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
