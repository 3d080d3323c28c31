"""WebSocket frames, as nearly all of them are: one message each, whole.

``websockets`` has the protocol: the handshake, fragments, pings, the end, and what is wrong with a frame. It
makes an object of each frame, which costs more than the message in it does. So a connection that is open
takes whole messages straight from its data, and leaves every other frame to ``websockets``, in order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

__all__ = ["FrameReader", "close_reason", "frames_of"]

# RFC 6455 section 5.2: the first byte of a frame that is a whole message of text, or of bytes.
TEXT: Final = 0x81
BINARY: Final = 0x82

_FINAL: Final = 0x80
_OPCODE: Final = 0x0F
_CONTINUATION: Final = 0
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_OF_16_BITS: Final = 126
_LENGTH_OF_64_BITS: Final = 127

_LONG: Final = 16 * 1024
_SMALL: Final = 1024

# RFC 6455 section 5.5: a control frame carries 125 bytes, two of which are the close code.
MAX_REASON_BYTES: Final = 123

_apply_mask: Final[Callable[[bytes | memoryview, bytes], bytes]] = apply_mask


class FrameReader:
    """Finds the frames in what arrives; to be asked from the first byte behind the handshake on.

    Args:
        masked: whether the peer masks, as clients have to.
        max_size: bytes of a frame that is waited for; one that says it is longer is not this reader's.
    """

    __slots__ = ("_head", "_held", "_held_size", "_is_within_message", "_masked", "_max_size", "_wanted")

    def __init__(self, *, masked: bool, max_size: int | None) -> None:
        self._masked = masked
        self._max_size = max_size
        # What has arrived of a frame, and how many bytes are needed to say more of it. Of a long message the
        # head is apart, and the rest is unmasked as it arrives, not when the client waits for its answer.
        self._head = b""
        self._held: list[bytes | bytearray] = []
        self._held_size = 0
        self._wanted = 0
        # Whether frames of a message have arrived, and not the last.
        self._is_within_message = False

    @property
    def held_size(self) -> int:
        """How many bytes of a frame have arrived that is not whole."""
        return self._held_size

    def limit(self, max_size: int) -> None:
        """Wait for no frame of more than ``max_size`` bytes from now on."""
        self._max_size = max_size

    def take_messages(self, data: bytes, into: list[bytes | str], *, text: bool) -> int:
        """Put the messages that ``data`` begins with into a list; return how many bytes they took.

        It stops at the first that :meth:`read` has to see, as it does at what is not whole. Nearly all data
        has nothing else, and a generator with a tuple for each message costs as much as the rest of this.

        Args:
            data: what has arrived.
            into: gets the messages.
            text: whether messages of text are wanted, as bytes; else ``read`` has to see these.
        """
        if self._held_size or self._is_within_message:
            return 0
        masked = self._masked
        head = 6 if masked else 2
        at, end = 0, len(data)
        while at + head <= end:
            first, second = data[at], data[at + 1]
            if not (first == BINARY or (text and first == TEXT)) or (second >= _MASKED) != masked:
                break
            start = at + head
            length = second & _LENGTH
            if length >= _LENGTH_OF_16_BITS:
                if length == _LENGTH_OF_64_BITS or start + 2 > end:
                    break
                start += 2
                length = (data[at + 2] << 8) | data[at + 3]
                if length >= _LONG or (self._max_size is not None and length > self._max_size):
                    break
            stop = start + length
            if stop > end:
                break
            message = data[start:stop]
            into.append(_apply_mask(message, data[start - 4 : start]) if masked else message)
            at = stop
        return at

    def read(self, data: bytes) -> Iterator[tuple[bool, bytes] | bytes]:  # noqa: C901, PLR0912 -- on the path of each frame
        """Yield each message, and whether it is text; and, as bytes, frames that are for others to read."""
        at = 0
        if self._head:
            at = self._unmask_more(data)
            if self._held_size < self._wanted:
                return
            yield self._head[0] == TEXT, self._take_held()
        elif self._held:
            self._hold_more(data)
            if self._held_size < self._wanted:
                return
            data = self._take_held()
        end = len(data)
        while at < end:
            start = at + 6 if self._masked else at + 2
            if start > end:
                self._hold(data[at:], start - at)
                return
            first, second = data[at], data[at + 1]
            length = second & _LENGTH
            if length >= _LENGTH_OF_16_BITS:
                extension = 2 if length == _LENGTH_OF_16_BITS else 8
                start += extension
                if start > end:
                    self._hold(data[at:], start - at)
                    return
                length = int.from_bytes(data[at + 2 : at + 2 + extension], "big")
                if self._max_size is not None and length > self._max_size:
                    yield data[at:]
                    return
            stop = start + length
            is_whole = first in (TEXT, BINARY) and not self._is_within_message
            is_whole = is_whole and (second >= _MASKED) == self._masked
            if stop > end:
                is_long = is_whole and self._masked and length >= _LONG
                self._hold(data[at:start] if is_long else data[at:], stop - at)
                if is_long:
                    self._head, self._held = data[at:start], []
                    self._unmask_more(data[start:])
                return
            if is_whole:
                if not self._masked:
                    yield first == TEXT, data[start:stop]
                else:
                    # A slice of bytes is a copy, and quicker than a view as long as it is short.
                    masked = data[start:stop] if length < _LONG else memoryview(data)[start:stop]
                    yield first == TEXT, _apply_mask(masked, data[start - 4 : start])
            else:
                if (opcode := first & _OPCODE) == _CONTINUATION:
                    self._is_within_message = first < _FINAL
                elif first < _FINAL and opcode <= BINARY & _OPCODE:
                    self._is_within_message = True
                yield data[at:stop]
            at = stop

    def take_rest(self) -> bytes:
        """Return what has arrived of a frame, and forget it."""
        head, rest = self._head, self._take_held()
        return head + _apply_mask(rest, head[-4:]) if head else rest

    def _take_held(self) -> bytes:
        rest = b"".join(self._held)
        self._head = b""
        self._held = []
        self._held_size = 0
        return rest

    def _unmask_more(self, data: bytes) -> int:
        """Take the next part of a long message; return how many bytes of ``data`` belong to it."""
        taken = min(len(data), self._wanted - self._held_size)
        mask = self._head[-4:]
        turn = (self._held_size - len(self._head)) % 4
        if taken:
            part = data if taken == len(data) else memoryview(data)[:taken]
            self._hold_more(_apply_mask(part, mask[turn:] + mask[:turn]))
        return taken

    def _hold(self, begun: bytes, wanted: int) -> None:
        self._held = [begun]
        self._held_size = len(begun)
        self._wanted = wanted

    def _hold_more(self, data: bytes) -> None:
        self._held_size += len(data)
        if len(data) >= _SMALL or not self._held:
            self._held.append(data)
            return
        # An object for each of many small pieces would take more memory than the bytes in it.
        last = self._held[-1]
        if isinstance(last, bytearray):
            last += data
        else:
            self._held.append(bytearray(data))


def frames_of(messages: Sequence[bytes], *, text: bool, masked: bool) -> bytes:
    """Return the frames of ``messages``, one behind the other."""
    first = TEXT if text else BINARY
    bit = _MASKED if masked else 0
    parts: list[bytes] = []
    masks = os.urandom(4 * len(messages)) if masked else b""
    for index, message in enumerate(messages):
        length = len(message)
        if length < _LENGTH_OF_16_BITS:
            parts.append(bytes((first, bit | length)))
        elif length < 1 << 16:
            parts.append(struct.pack("!BBH", first, bit | _LENGTH_OF_16_BITS, length))
        else:
            parts.append(struct.pack("!BBQ", first, bit | _LENGTH_OF_64_BITS, length))
        if masked:
            mask = masks[4 * index : 4 * index + 4]
            parts.append(mask)
            parts.append(_apply_mask(message, mask))
        else:
            parts.append(message)
    return b"".join(parts)


def close_reason(text: str) -> str:
    """Return as much of ``text`` as a close frame has room for, cut between characters."""
    return text.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
