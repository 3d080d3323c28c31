"""uvicorn's server, started and stopped by whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import uvicorn
from uvicorn.server import ServerState

from rpcshare.server.accepting import Acceptor
from rpcshare.server.http_protocol import HEAD_TIMEOUT

__all__ = ["HttpServer"]

LAST_REQUESTS = 2.0
"""For how long, in seconds, a server that stops answers what still arrives on open connections.

A proxy may have sent it before it can know that the server stops, and does not send a POST again."""

# How long, in seconds, the end of TLS may take, which comes after all that waits to be sent: longer than
# anybody is slow. asyncio's half a minute would cut a large answer off, and no error would tell its client.
# Who takes nothing, or does not answer the end, is the protocols' business, in any state of a connection.
_TLS_END = 24 * 3600.0


class DrainableState(ServerState):
    """What uvicorn's protocols share, and whether the server stops."""

    is_draining = False


class HttpServer(uvicorn.Server):
    """uvicorn, without its own handling of signals: a stop here begins with the calls under way."""

    server_state: DrainableState

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = DrainableState()
        self.has_started = asyncio.Event()
        self.servers = []  # uvicorn's; the acceptor is in their place
        self.acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections on ``sockets``, which listen already."""
        config = self.config
        protocol = partial(
            cast("Callable[..., asyncio.Protocol]", config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.acceptor = Acceptor(
            sockets or (),
            protocol,
            config.ssl,
            handshake_timeout=HEAD_TIMEOUT,
            shutdown_timeout=_TLS_END,
        )
        self.started = True
        self.has_started.set()

    @property
    def pauses(self) -> int:
        """How often connections had to wait to be accepted, for want of descriptors."""
        return 0 if self.acceptor is None else self.acceptor.pauses

    def stop_accepting(self, *, takes_waiting: bool) -> None:
        """Accept no more connections, and say with each answer that it is the last on its connection.

        Args:
            takes_waiting: whether what has connected, and nobody else will accept, is accepted still.
        """
        if self.acceptor is not None:
            if takes_waiting:
                self.acceptor.take_waiting()
            self.acceptor.stop()
        self.server_state.is_draining = True

    async def answer_the_last(self) -> None:
        """Wait until all connections have ended, or those that are idle have been so for long enough."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LAST_REQUESTS
        # uvicorn tells nobody when a connection ends.
        while (self.server_state.connections or self.acceptor) and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all connections."""
        if self.acceptor is not None:
            self.acceptor.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
