"""uvicorn's server, started and stopped by whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import uvicorn

__all__ = ["HttpServer"]

# How long, in seconds, the end of TLS may take, which comes after all that waits to be sent: longer than
# anybody is slow. asyncio's half a minute would cut a large answer off, and no error would tell its client.
# Who takes nothing, or does not answer the end, is the protocols' business, in any state of a connection.
_TLS_END = 24 * 3600.0


class HttpServer(uvicorn.Server):
    """uvicorn, without its own handling of signals: a stop here begins with the calls under way."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections on ``sockets``, which listen already."""
        config = self.config
        protocol = partial(
            cast("Callable[..., asyncio.Protocol]", config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers = [
            await asyncio.get_running_loop().create_server(
                protocol,
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_shutdown_timeout=None if config.ssl is None else _TLS_END,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self.has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
