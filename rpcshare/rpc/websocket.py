"""WebSocket as a transport: one text or binary message a frame."""

from __future__ import annotations

from websockets.asyncio.connection import Connection as WebSocket
from websockets.exceptions import ConnectionClosed

from rpcshare.rpc.transport import TransportClosedError

__all__ = ["WebSocketTransport", "close_reason"]

# RFC 6455 section 5.5: a control frame carries 125 bytes, two of which are the close code.
MAX_REASON_BYTES = 123


def close_reason(text: str) -> str:
    """Return as much of ``text`` as a close frame has room for, cut between characters."""
    return text.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


class WebSocketTransport:
    """A connection of the ``websockets`` package, of either side."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> bytes | str:
        """Return the next message, as bytes whichever kind it is."""
        try:
            return await self._websocket.recv(decode=False)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def send(self, frame: bytes, *, text: bool) -> None:
        """Send one message."""
        try:
            await self._websocket.send(frame, text=text)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def close(self, code: int, reason: str) -> None:
        """Shake hands on the end of the connection."""
        await self._websocket.close(code, close_reason(reason))


def _closed(error: ConnectionClosed) -> TransportClosedError:
    return TransportClosedError(str(error), code=error.rcvd.code if error.rcvd is not None else None)
