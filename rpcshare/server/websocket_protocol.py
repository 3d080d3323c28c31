"""uvicorn's WebSocket protocol, with frames for whoever can take them without ASGI's events.

Handshake, routing and authentication are ASGI's. After them an RPC session would pay for each frame with
an event, a queue, a switch of tasks and a system call to pause reading; so an application may take the
connection over: ``scope["extensions"]["rpcshare.direct"]`` is its
:class:`~rpcshare.rpc.transport.DirectTransport`, to be attached to after ``websocket.accept``. Then it may
return, and all that the request took is let go of; the connection goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol

from rpcshare.rpc.frames import FrameReader, close_reason, frames_of
from rpcshare.rpc.transport import Receiver, TransportClosedError
from rpcshare.rpc.waiting import Signal
from rpcshare.server.accepting import client_address
from rpcshare.server.slow_clients import waiting_on
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from asyncio import BaseTransport

    from uvicorn._types import ASGISendEvent
    from websockets.typing import BytesLike

__all__ = ["DIRECT", "WebSocketProtocol"]

DIRECT = "rpcshare.direct"
"""The name of the extension."""

logger = structlog.get_logger("rpcshare.server")

# The headers, beside Sec-WebSocket-*, that a handshake is decided by.
_HANDSHAKE = frozenset({b"connection", b"upgrade", b"origin"})

# For how long, in seconds, what waits to be sent may hold up the end of a connection whose peer answers no
# pings.
CLOSE_TIMEOUT = 1.0

MAX_AFTER_CLOSE: Final = 2**20
"""Bytes in which the peer's own close is looked for once this side has closed; more is dropped unread."""

MAX_FRAMES: Final = 1000
"""Fragments and control frames that are read in one go. One costs some 15 µs, and 256 KiB have 43,000."""

PONG_INTERVAL: Final = 1.0
"""Seconds between two pongs to a client that does not take what is sent (RFC 6455, section 5.5.3)."""


class _Writable:
    """As an ``asyncio.Event`` that is set, without the memory that one takes while nobody waits for it."""

    __slots__ = ("_signal",)

    def __init__(self) -> None:
        self._signal = Signal(is_set=True)

    def is_set(self) -> bool:
        return self._signal.is_set

    def set(self) -> None:
        self._signal.set()

    def clear(self) -> None:
        self._signal.clear()

    async def wait(self) -> None:
        await self._signal.wait()


class _Handshake(ServerProtocol):
    """A handshake in which subprotocols are the application's business.

    One that is no token in the sense of HTTP, such as base64 with padding, would be refused here as a bad
    request, and not there as a bad credential.
    """

    def process_subprotocol(self, headers: Headers) -> None:
        """Select none: the application does."""

    def parse(self) -> Generator[None]:
        """Parse frames from the first byte on: the head has been parsed as that of any other request."""
        yield from Protocol.parse(self)


# What uvicorn's class has in each object. A dictionary of so many names takes 1.6 kB, and is not shared;
# slots take a quarter of that. A name that uvicorn has no more takes eight bytes.
_OF_UVICORN = (
    "app",
    "app_state",
    "asgi_version",
    "client",
    "close_sent",
    "close_timeout",
    "close_timer",
    "config",
    "conn",
    "connections",
    "curr_msg_data_type",
    "default_headers",
    "disconnected",
    "frames",
    "handshake_complete",
    "handshake_initiated",
    "initial_response",
    "last_ping_rtt",
    "logger",
    "loop",
    "pending_ping_payload",
    "ping_interval",
    "ping_sent_at",
    "ping_timeout",
    "ping_timer",
    "pong_timer",
    "queue",
    "read_paused",
    "request",
    "response",
    "root_path",
    "scheme",
    "scope",
    "server",
    "tasks",
    "transport",
    "writable",
)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket of the server."""

    __slots__ = (
        *_OF_UVICORN,
        "_ahead_of_ping",
        "_arrived",
        "_early",
        "_fragments",
        "_frames",
        "_is_text",
        "_late_pong",
        "_ponged_at",
        "_received_after_close",
        "_receiver",
        "_takes_text_as_bytes",
        "_told_held",
        "_unread_data",
        "_unread_frames",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- whatever uvicorn passes
        super().__init__(*args, **kwargs)
        self.writable = _Writable()  # type: ignore[assignment]  # as the event that it replaces
        # Made anew, of this module's class.
        self.conn = _Handshake(extensions=[], max_size=self.config.ws_max_size, logger=self.conn.logger)
        self._frames = FrameReader(masked=True, max_size=self.config.ws_max_size)
        self._receiver: Receiver | None = None
        # What waited for the peer when it was last asked whether it is there.
        self._ahead_of_ping = (0, 0)
        self._takes_text_as_bytes = False
        # The message whose frames are arriving. One buffer: an object for each fragment would take more
        # memory than the bytes in it, and a fragment may be empty.
        self._fragments = bytearray()
        # How many bytes of a message that is not whole the receiver knows of.
        self._told_held = 0
        # What has arrived and is not read yet: frames, and the bytes behind them.
        self._unread_frames: Iterator[tuple[bool, bytes] | bytes] | None = None
        self._unread_data = bytearray()
        # A pong that waits until the client takes what is sent, and when the last one was sent.
        self._late_pong = b""
        self._ponged_at = -PONG_INTERVAL
        # Whether the message whose frames are arriving is text.
        self._is_text = False
        # Messages of the data that is being processed.
        self._arrived: list[bytes | str] = []
        # What has arrived before the handshake was answered.
        self._early = bytearray()
        # Bytes; from MAX_AFTER_CLOSE on, nothing is looked at.
        self._received_after_close = 0

    def handshake_received(self, target: bytes, headers: list[tuple[bytes, bytes]], early: bytes) -> None:
        """Begin with a handshake that has been parsed, and the bytes ``early`` that have come behind it."""
        self._early += early
        said = [
            (name.decode("ascii"), value.decode("ascii", "backslashreplace"))
            for name, value in headers
            if name in _HANDSHAKE or name.startswith(b"sec-websocket-")
        ]
        self.handle_connect(Request(target.decode("ascii"), Headers(said)))
        if self.close_sent:
            logger.warning(
                "refused a WebSocket handshake",
                address=self.client[0] if self.client else "",
                status=self.response.status_code,
                reason=_fault(self.conn.handshake_exc),
            )
        else:
            self.scope["headers"] = headers

    def connection_made(self, transport: BaseTransport) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        self.client = client_address(transport, self.client)

    async def run_asgi(self) -> None:
        """Run the application. A connection that it has handed over outlives what that took."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application")
            self.send_500_response()
        else:
            if self._receiver is not None:
                del self.scope, self.request, self.response
                return
            if not self.handshake_complete:
                self.logger.error("ASGI callable returned without completing handshake.")
                self.send_500_response()
        if self.close_timer is None:
            self.transport.close()
            if not self.disconnected:
                self._bound_close()

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake."""
        super().handle_connect(event)
        if not self.close_sent:
            extensions: dict[str, object] = self.scope["extensions"]  # type: ignore[assignment]  # uvicorn's
            extensions[DIRECT] = self
        else:
            self._bound_close()

    def limit_messages(self, size: int) -> None:
        """Take no message of more than ``size`` bytes from now on: 1009 ends the connection."""
        self.conn.max_message_size = size
        self._frames.limit(size)

    async def send_text_in_parts(self, parts: Iterable[bytes]) -> None:
        """Send one text message as fragments (RFC 6455, section 5.4), each when most of the last has left.

        So much of it is in memory as one part has, and pings and their answers go out between two parts.

        Raises:
            ClientDisconnected: the peer is gone, or closes.
        """
        is_first = True
        for part in chain(parts, (None,)):
            await self.writable.wait()
            # Others that can be served are not held up by a peer that takes all at once.
            await asyncio.sleep(0)
            if self.conn.state is not State.OPEN or self.transport.is_closing():
                raise ClientDisconnected
            is_last = part is None
            if is_first:
                self.conn.send_text(part or b"", fin=is_last)
            else:
                self.conn.send_continuation(part or b"", fin=is_last)
            is_first = False
            self.transport.write(b"".join(self.conn.data_to_send()))

    # What the network brings.

    def data_received(self, data: bytes) -> None:
        """Process what has arrived; messages that came together are told together."""
        if self._unread_frames is not None:
            self._unread_data += data
            self.transport.pause_reading()
        elif self.conn.state is State.OPEN:
            receiver = self._receiver
            if receiver is not None:
                arrived = self._arrived
                taken = self._frames.take_messages(data, arrived, text=self._takes_text_as_bytes)
                if taken == len(data):  # as nearly always
                    self._arrived = []
                    receiver.frames_received(arrived)
                    if self._told_held:
                        self._tell()  # that nothing is held any longer
                    return
                data = data[taken:]
            self._process(self._frames.read(data))
        elif self.conn.state is State.CONNECTING:
            self._early += data
            self.pause()
        else:
            self._look_for_close(data)

    def _process(self, parts: Iterator[tuple[bool, bytes] | bytes]) -> None:
        """Process frames; of those that are no whole messages only so many that others are not held up."""
        frames = 0
        for part in parts:
            if isinstance(part, bytes):
                super().data_received(part)
                if self._is_ending():
                    break
                frames += 1
                if frames == MAX_FRAMES:
                    self._unread_frames = parts
                    self.transport.pause_reading()
                    self.loop.call_soon(self._process_unread)
                    break
                continue
            self._is_text, message = part
            if self._receiver is None:
                self._queue_message(message)
            elif self._takes_text_as_bytes and type(message) is bytes:
                self._arrived.append(message)  # as nearly always
            else:
                self._arrived.append(self._message(message))
        self._tell()

    def _process_unread(self) -> None:
        parts, self._unread_frames = self._unread_frames, None
        data, self._unread_data = bytes(self._unread_data), bytearray()
        if parts is None or self.transport.is_closing():
            return
        if not self.read_paused:
            self.transport.resume_reading()
        if self.conn.state is not State.OPEN:
            frames = b"".join(part for part in parts if isinstance(part, bytes))
            self._look_for_close(frames + self._frames.take_rest() + data)
            return
        self._process(chain(parts, self._frames.read(data)) if data else parts)

    def _look_for_close(self, data: bytes) -> None:
        """Process what arrives once this side has closed."""
        self._received_after_close += len(data)
        if self._received_after_close <= MAX_AFTER_CLOSE:
            super().data_received(self._frames.take_rest() + data)
        self._tell()

    def _tell(self) -> None:
        """Tell the receiver what has arrived: messages, and how much there is of the next."""
        if self._arrived:
            self._tell_arrived()
        held = self._frames.held_size + len(self._fragments)
        if held != self._told_held and self._receiver is not None:
            self._told_held = held
            self._receiver.holding(held)

    def _is_ending(self) -> bool:
        return self.conn.state is not State.OPEN

    def _queue_message(self, data: bytes) -> None:
        """Have ASGI told of a whole message."""
        if self._is_text:
            self.handle_text(Frame(Opcode.TEXT, data))
        else:
            self.handle_bytes(Frame(Opcode.BINARY, data))

    def handle_events(self) -> None:  # noqa: C901 -- on the path of each frame
        """Process frames that are no whole messages; of a connection that has been taken over, here."""
        if self._receiver is None:
            super().handle_events()
            return
        arrived = self._arrived
        for event in self.conn.events_received():
            if type(event) is not Frame:
                continue
            opcode = event.opcode
            if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                self._is_text = opcode is Opcode.TEXT
                if event.fin:
                    arrived.append(self._message(event.data))
                else:
                    self._fragments += event.data
            elif opcode is Opcode.CONT:
                self._fragments += event.data
                if event.fin:
                    arrived.append(self._message(self._take_fragments()))
            elif opcode is Opcode.PING:
                self.handle_ping()
            elif opcode is Opcode.PONG:
                self.handle_pong(event)
            elif opcode is Opcode.CLOSE:
                self._tell_arrived()
                self.handle_close(event)

    def handle_text(self, event: Frame) -> None:
        """Begin a message, for ASGI."""
        self._is_text = event.opcode is Opcode.TEXT
        if not event.fin:
            self._fragments += event.data
        elif self._is_text:
            super().handle_text(event)
        else:
            super().handle_bytes(event)

    handle_bytes = handle_text

    def handle_cont(self, event: Frame) -> None:
        """Go on with it, or end it."""
        self._fragments += event.data
        if event.fin:
            self._queue_message(self._take_fragments())

    def _take_fragments(self) -> bytes:
        message, self._fragments = bytes(self._fragments), bytearray()
        return message

    def handle_ping(self) -> None:
        """Answer a ping. To a client that does not take what is sent, the newest answer is enough."""
        pongs = self.conn.data_to_send()
        if self.writable.is_set() or self.loop.time() - self._ponged_at >= PONG_INTERVAL:
            self._ponged_at = self.loop.time()
            self._late_pong = b""
            self.transport.write(b"".join(pongs))
        elif pongs:
            self._late_pong = pongs[-1]

    def _message(self, data: BytesLike) -> bytes | str:
        """Return a message as the receiver wants it."""
        if self._is_text and not self._takes_text_as_bytes:
            return str(data, "utf-8", "surrogateescape")
        return data if type(data) is bytes else bytes(data)

    def _tell_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        if self._receiver is not None and arrived:
            self._receiver.frames_received(arrived)

    def resume_writing(self) -> None:
        """Hear that most of what was written has left."""
        super().resume_writing()
        if self._late_pong:
            late, self._late_pong = self._late_pong, b""
            if self.conn.state is State.OPEN and not self.transport.is_closing():
                self.transport.write(late)
        if self._receiver is not None:
            self._receiver.writable()

    async def send(self, message: ASGISendEvent) -> None:
        """Do what the application asks for."""
        is_handshake = self.conn.state is State.CONNECTING
        await super().send(message)
        if self.close_sent:
            self._bound_close()
        elif is_handshake and self.conn.state is State.OPEN:
            self.resume()
            if self._early:
                early, self._early = bytes(self._early), bytearray()
                self.data_received(early)

    def handle_close(self, event: Frame) -> None:
        """Answer a peer that closes, or hear its answer."""
        super().handle_close(event)
        if self.transport.is_closing():
            self._bound_close()

    def handle_parser_exception(self) -> None:
        """Close a connection whose peer does not keep to the protocol."""
        super().handle_parser_exception()
        self._bound_close()

    def eof_received(self) -> None:
        """Hear that the peer sends no more: asyncio closes the connection then."""
        self._bound_close()

    def _bound_close(self) -> None:
        """Have a connection that is being closed end, even if its peer neither answers nor takes anything.

        The timer is uvicorn's: with one it does not close twice, and asyncio does not abort what has been
        closed twice.
        """
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        if self._frames.held_size > MAX_AFTER_CLOSE:
            # The message that is still arriving is of no use, and the peer's own close is behind it.
            self._frames.take_rest()
            self._received_after_close = MAX_AFTER_CLOSE

    def send_keepalive_ping(self) -> None:
        """Ask whether the peer is there; it hears so behind all that waits for it."""
        self._ahead_of_ping = waiting_on(self.transport)
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """End a connection whose peer is gone, and what waits for the peer with it."""
        before, waiting = self._ahead_of_ping, waiting_on(self.transport)
        if any(before) and waiting != before and not self.transport.is_closing():
            # What was ahead of the ping leaves, if slowly, so the peer is there.
            self._ahead_of_ping = waiting
            assert self.ping_timeout is not None  # noqa: S101 -- it has just passed
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    # What the application asks (rpcshare.rpc.transport.DirectTransport).

    def attach(self, receiver: Receiver, *, text: bool) -> None:
        """Tell ``receiver`` of all that happens from now on; ``text``: of text as the bytes that it is."""
        self._receiver = receiver
        self._takes_text_as_bytes = text
        early: list[bytes | str] = []
        lost: TransportClosedError | None = None
        while not self.queue.empty():
            message: Any = self.queue.get_nowait()
            if message["type"] == "websocket.receive":
                said = message.get("text")
                early.append(message["bytes"] if said is None else said)
            else:
                lost = _lost(message)
        self.queue = _Told(receiver)  # type: ignore[assignment]  # nobody takes anything out of it any more
        self.resume()
        if early:
            receiver.frames_received(early)
        if lost is not None:
            receiver.transport_lost(lost)

    def write(self, frames: Sequence[bytes], *, text: bool) -> int:
        """Send frames together; return how many bytes wait to leave."""
        if self.conn.state is not State.OPEN or self.transport.is_closing():
            return 0  # whoever sends has been told, or will be
        self.transport.write(frames_of(frames, text=text, masked=False))
        return 0 if self.writable.is_set() else self.transport.get_write_buffer_size()

    def pause(self) -> None:
        """Read no more for now."""
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.read_paused:
            self.read_paused = False
            if self._unread_frames is None:
                self.transport.resume_reading()

    async def close(self, code: int, reason: str) -> None:
        """End the connection; nothing to do if the peer has."""
        with suppress(ClientDisconnected):
            if not self.close_sent:
                await self.send({"type": "websocket.close", "code": code, "reason": close_reason(reason)})


class _Told:
    """Stands in for the queue of events of a connection that has been taken over: its end is told."""

    __slots__ = ("_receiver",)

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def put_nowait(self, event: Any) -> None:  # noqa: ANN401 -- an ASGI event
        """Tell of the end."""
        if event["type"] == "websocket.disconnect":
            self._receiver.transport_lost(_lost(event))


def _lost(message: Any) -> TransportClosedError:  # noqa: ANN401 -- an ASGI event
    code = message.get("code", 1005)
    return TransportClosedError(f"{code} {message.get('reason') or ''}".strip())


def _fault(exc: Exception | None) -> str:
    """Return why a handshake is refused, without what it said."""
    if isinstance(exc, InvalidHeader):
        return f"its header {exc.name} is missing or invalid"
    return type(exc).__name__
