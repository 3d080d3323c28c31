"""A client's WebSocket on trio."""

from __future__ import annotations

from typing import Any

import trio
from websockets.client import ClientProtocol
from websockets.trio.client import ClientConnection, connect

from rpcshare.rpc.event_loop import running_loop
from rpcshare.rpc.websocket import WebSocketTransport

__all__ = ["TrioWebSocket"]


class TrioWebSocket(WebSocketTransport):
    """A connection of ``websockets.trio``, which any task may open and any other close.

    That of the package is a block, with a nursery in it; so a task of its own is in that block.

    Args:
        url: where to.
        options: of :class:`websockets.trio.client.connect`.
    """

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 -- the package's
        self.greeting = b""
        """The first bytes that came from the server: what it speaks."""
        self._connecting = connect(url, create_connection=self._make, **options)  # type: ignore[arg-type]  # as in connecting.py
        # Its own way with redirects takes the headers, and a key in the path, to other hosts.
        self._connecting.process_redirect = _as_it_is  # type: ignore[method-assign]
        self._websocket: ClientConnection
        self._has_begun = trio.Event()
        self._is_over = False
        self._error: Exception | None = None

    async def open(self) -> None:
        """Make the connection.

        Raises:
            OSError, WebSocketException, ImportError, ValueError: there is none.
        """
        task = running_loop().create_task(self._hold())
        try:
            await self._has_begun.wait()
        except trio.Cancelled:
            task.cancel()
            raise
        if isinstance(self._error, trio.BrokenResourceError) and isinstance(self._error.__cause__, OSError):
            raise self._error.__cause__  # of TLS, mostly
        if self._error is not None:
            raise self._error

    @property
    def subprotocol(self) -> str | None:
        """What the server has selected."""
        return self._websocket.subprotocol

    async def close(self, code: int, reason: str) -> None:
        """Shake hands on the end of the connection, unless that has been cut off."""
        if not self._is_over:
            await super().close(code, reason)

    async def _hold(self) -> None:
        try:
            async with self._connecting as self._websocket:
                self._has_begun.set()
                await self._websocket.wait_closed()
        except Exception as exc:  # noqa: BLE001 -- it is raised to who opens
            self._error = exc
        finally:
            self._is_over = True
            self._has_begun.set()

    def _make(
        self,
        nursery: trio.Nursery,
        stream: trio.abc.Stream,
        protocol: ClientProtocol,
        **options: Any,  # noqa: ANN401
    ) -> ClientConnection:
        receive_data = protocol.receive_data

        def receive(data: bytes | bytearray) -> None:
            self.greeting = self.greeting or bytes(data[:4])
            receive_data(data)

        protocol.receive_data = receive  # type: ignore[method-assign]
        return ClientConnection(nursery, stream, protocol, **options)


def _as_it_is(exc: Exception) -> Exception:
    return exc
