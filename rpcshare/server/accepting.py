"""Accepting connections, as long as there are file descriptors to spare.

The event loops have this too, but out of descriptors asyncio's spins and fills the log, and uvloop's resets
each connection without a word. Here the last descriptors are kept for the store and for files, and what
connects waits in the kernel's backlog until some are free.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from rpcshare.structured_log import structlog

__all__ = ["Acceptor", "client_address", "raise_descriptor_limit", "unmapped"]

logger = structlog.get_logger("rpcshare.server")

RESERVE = 16
"""Descriptors that no connection is given: the store, its files and outgoing connections need some."""

PAUSE = 1.0
"""For how many seconds nothing is accepted when there are no others."""

TELL_EVERY = 60.0
"""How often, in seconds, the log says so at most."""

# Connections taken at once: with several workers on a socket, each is to get some.
_BATCH = 32

_DESCRIPTORS = Path("/dev/fd")  # lists those that are open


class Acceptor:
    """Accepts connections on listening sockets."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make_protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
        *,
        handshake_timeout: float | None = None,
        shutdown_timeout: float | None = None,
    ) -> None:
        """Begin to accept. The sockets stay the caller's to close.

        Args:
            listeners: the sockets.
            make_protocol: called for each connection.
            tls: for connections that are to speak TLS.
            handshake_timeout: how long, in seconds, its handshake may take.
            shutdown_timeout: how long its end may.
        """
        self._loop = asyncio.get_running_loop()
        self._listeners = tuple(listeners)
        self._make_protocol = make_protocol
        self._tls = tls
        self._timeouts: dict[str, float | None] = (
            {}
            if tls is None
            else {"ssl_handshake_timeout": handshake_timeout, "ssl_shutdown_timeout": shutdown_timeout}
        )
        # Connections whose protocol is being made, which with TLS takes a handshake.
        self._beginning: set[asyncio.Task[None]] = set()
        self._allowance = 0  # how many connections may be accepted before descriptors are counted again
        self._pausing: asyncio.TimerHandle | None = None
        self._told_at = -TELL_EVERY
        self.pauses = 0
        """How often nothing was accepted for a while, for want of descriptors."""
        for listener in self._listeners:
            listener.setblocking(False)
        self._listen()

    def __len__(self) -> int:
        """How many connections have been accepted and do not have a protocol yet."""
        return len(self._beginning)

    def take_waiting(self) -> None:
        """Accept what has connected by now and waits: closing the socket would cut it off."""
        if self._pausing is None:
            for listener in self._listeners:
                while self._accept(listener):
                    pass

    def stop(self) -> None:
        """Accept nothing more."""
        if self._pausing is None:
            self._unlisten()
        else:
            self._pausing.cancel()
        self._listeners = ()

    def _listen(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept_some, listener)

    def _unlisten(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def _accept_some(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            if self._pausing is not None or not self._accept(listener):
                return

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a connection; return whether there was one."""
        if self._allowance < 1:
            self._allowance = _spare_descriptors() - RESERVE
            if self._allowance < 1:
                self._pause("too many files and connections are open")
                return False
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:
            return True
        except OSError as exc:
            self._pause(exc.strerror or str(exc))
            return False
        self._allowance -= 1
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        return True

    async def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls, **self._timeouts
            )
        except (OSError, TimeoutError):  # a handshake that failed; the peer has been told
            connection.close()

    def _pause(self, reason: str) -> None:
        """Accept nothing for a while."""
        self._unlisten()
        self.pauses += 1
        self._pausing = self._loop.call_later(PAUSE, self._resume)
        now = self._loop.time()
        if now - self._told_at >= TELL_EVERY:
            self._told_at = now
            logger.error(
                "connections wait to be accepted",
                reason=reason,
                descriptor_limit=_descriptor_limit(),
                remedy="raise the limit (LimitNOFILE=, ulimit -Hn), or lower --max-connections",
            )

    def _resume(self) -> None:
        self._pausing = None
        self._allowance = 0
        self._listen()


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may: the usual 1,024 are too few connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    # Where the hard limit is not a number (macOS), the kernel still has one.
    for wanted in (hard, 2**20, 65_536, 10_240):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
    logger.warning("the limit on open files could not be raised", descriptor_limit=soft)


def client_address(transport: asyncio.BaseTransport, peer: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return the address of the client of a connection; that of loopback for a client of a Unix socket.

    It is on this machine, and limits, logs and ``--trusted-proxy`` need an address.

    Args:
        transport: the connection.
        peer: what uvicorn takes for the address.
    """
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.family == socket.AF_UNIX:
        return "127.0.0.1", 0
    return unmapped(peer)


def unmapped(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return an address with the IPv4 address that a socket for both families has as ``::ffff:1.2.3.4``."""
    if address is None or not address[0].startswith("::ffff:") or "." not in address[0]:
        return address
    return address[0].removeprefix("::ffff:"), address[1]


def _descriptor_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**30 if limit == resource.RLIM_INFINITY else limit


def _spare_descriptors() -> int:
    """Return how many more descriptors this process may have."""
    try:
        return _descriptor_limit() - sum(1 for _ in _DESCRIPTORS.iterdir())
    except OSError as exc:
        # The listing needs a descriptor itself.
        return 0 if exc.errno in (errno.EMFILE, errno.ENFILE) else RESERVE + _BATCH
