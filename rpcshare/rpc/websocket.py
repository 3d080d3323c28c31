"""WebSocket as a transport: one text or binary message a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection as WebSocket
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from rpcshare.rpc.frames import FrameReader, close_reason, frames_of
from rpcshare.rpc.transport import Receiver, TransportClosedError

if TYPE_CHECKING:
    from websockets.trio.connection import Connection as TrioWebSocket

__all__ = ["DirectWebSocket", "WebSocketTransport"]

_END_OF_HEAD = b"\r\n\r\n"


class WebSocketTransport:
    """A connection of the ``websockets`` package, of either side, on asyncio or trio."""

    def __init__(self, websocket: WebSocket | TrioWebSocket) -> None:
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
        close = self._websocket.close if isinstance(self._websocket, WebSocket) else self._websocket.aclose
        await close(code, close_reason(reason))


class DirectWebSocket(ClientConnection):
    """A client's connection that tells of its messages where they arrive: a DirectTransport.

    It has none of the methods that receive or send one message.

    Args:
        protocol: as ``websockets`` made it, without extensions.
        max_size: bytes of a frame, for ``protocol`` has its bound under different names.
        options: of :class:`websockets.asyncio.client.ClientConnection`.
    """

    def __init__(self, protocol: ClientProtocol, *, max_size: int | None, **options: Any) -> None:  # noqa: ANN401
        super().__init__(protocol, **options)
        self._max_size = max_size
        self.greeting = b""
        """The first bytes that came from the server: what it speaks."""
        # None if the first frames came together with the end of the handshake: then ``protocol`` reads all.
        self._frames: FrameReader | None = None
        self._receiver: Receiver | None = None
        self._takes_text_as_bytes = False
        # What has arrived of a message in several frames, and whether that is text.
        self._parts: list[bytes] = []
        self._is_text = False
        # Messages that nobody has been told of.
        self._arrived: list[tuple[bool, bytes]] = []

    # What the network brings.

    def data_received(self, data: bytes) -> None:
        """Process what has arrived; messages that came together are told together."""
        if self.protocol.state is State.CONNECTING:
            self.greeting = self.greeting or data[:4]
            super().data_received(data)
            if not self._is_connecting() and data.endswith(_END_OF_HEAD) and data.count(_END_OF_HEAD) == 1:
                self._frames = FrameReader(masked=False, max_size=self._max_size)
        elif self._frames is None:
            super().data_received(data)
        elif self.protocol.state is State.OPEN:
            taken = 0 if self._receiver is None else self._take_messages(self._receiver, self._frames, data)
            if taken:
                # As nearly always, and then there is nothing else.
                if taken < len(data):
                    self.data_received(data[taken:])
                return
            self._read_frames(self._frames, data)
        else:
            super().data_received(self._frames.take_rest() + data)
        self._tell_arrived()

    def _take_messages(self, receiver: Receiver, reader: FrameReader, data: bytes) -> int:
        whole: list[bytes | str] = []
        taken = reader.take_messages(data, whole, text=self._takes_text_as_bytes)
        if whole:
            receiver.frames_received(whole)
        return taken

    def _read_frames(self, reader: FrameReader, data: bytes) -> None:
        for part in reader.read(data):
            if isinstance(part, tuple):
                self._arrived.append(part)
            else:
                super().data_received(part)
                if self._is_ending():
                    break

    def _is_connecting(self) -> bool:
        return self.protocol.state is State.CONNECTING

    def _is_ending(self) -> bool:
        return self.protocol.state is not State.OPEN

    def process_event(self, event: Event) -> None:
        """Process one that ``protocol`` has read."""
        if not isinstance(event, Frame) or event.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            super().process_event(event)
            return
        if event.opcode is not Opcode.CONT:
            self._is_text = event.opcode is Opcode.TEXT
        self._parts.append(bytes(event.data))
        if event.fin:
            self._arrived.append((self._is_text, b"".join(self._parts)))
            self._parts = []

    def _tell_arrived(self) -> None:
        if self._receiver is not None and self._arrived:
            arrived, self._arrived = self._arrived, []
            self._receiver.frames_received([self._message(*message) for message in arrived])

    def _message(self, is_text: bool, data: bytes) -> bytes | str:
        return str(data, "utf-8", "surrogateescape") if is_text and not self._takes_text_as_bytes else data

    def resume_writing(self) -> None:
        """Hear that most of what was written has left."""
        super().resume_writing()
        if self._receiver is not None:
            self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that it is over."""
        super().connection_lost(exc)
        if self._receiver is not None:
            self._receiver.transport_lost(_closed(self.close_exc))

    # What a session asks (rpcshare.rpc.transport.DirectTransport).

    def attach(self, receiver: Receiver, *, text: bool) -> None:
        """Tell ``receiver`` of all that happens from now on; ``text``: of text as the bytes that it is."""
        self._receiver = receiver
        self._takes_text_as_bytes = text
        self._tell_arrived()
        if self.protocol.state is State.CLOSED:
            receiver.transport_lost(_closed(self.close_exc))

    def write(self, frames: Sequence[bytes], *, text: bool) -> int:
        """Send frames together; return how many bytes wait to leave."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return 0  # whoever sends has been told, or will be
        self.transport.write(frames_of(frames, text=text, masked=True))
        return self.transport.get_write_buffer_size() if self.paused else 0

    def pause(self) -> None:
        """Read no more for now."""
        self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self.transport.resume_reading()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Shake hands on the end of the connection."""
        await super().close(code, close_reason(reason))


def _closed(error: ConnectionClosed) -> TransportClosedError:
    if error.rcvd is None:
        return TransportClosedError(str(error))
    return TransportClosedError(str(error), code=error.rcvd.code, reason=error.rcvd.reason)
