"""MessagePack as an encoding of messages: the same expressions in fewer bytes, and bytes as they are.

Messages hold what JSON has and, in ``["bytes", …]``, ``bin``; nothing else: no extension types, and maps with
string keys only (PROTOCOL.md, "MessagePack").
"""

from __future__ import annotations

import msgpack
import msgspec

from rpcshare.rpc.errors import InvalidTextError, ProtocolError
from rpcshare.rpc.limits import MAX_DEPTH
from rpcshare.rpc.mypyc_compat import mypyc_attr
from rpcshare.rpc.preencoded import Preencoded

__all__ = ["MESSAGEPACK", "MessagePackCodec"]

_PLAIN = frozenset({str, int, float, bool, type(None)})


@mypyc_attr(allow_interpreted_subclasses=True)
class MessagePackCodec:
    """One MessagePack value for each message, in binary frames."""

    subprotocol = "rpcshare.msgpack"
    raw_bytes = True
    text = False
    separator = b""
    array_end = b""
    object_end = b""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._splice).encode
        self._decode = msgspec.msgpack.Decoder().decode

    def encode(self, message: object) -> bytes:
        """Return ``message`` in MessagePack."""
        try:
            return self._encode(message)
        except UnicodeEncodeError:
            # Half a surrogate pair (see rpcshare.jsontext), in the three bytes that UTF-8 would take.
            packed: bytes = msgpack.packb(message, default=self._unsplice, unicode_errors="surrogatepass")
            return packed

    def decode(self, frame: bytes | str) -> object:
        """Return the message in a binary frame.

        Raises:
            ProtocolError: the frame is not MessagePack, or holds what a message may not.
        """
        if isinstance(frame, str):
            try:
                frame.encode()
            except UnicodeEncodeError:
                raise InvalidTextError from None
            raise ProtocolError("a message in MessagePack comes in a binary frame")
        try:
            message = self._decode_text(frame)
            _require_plain(message, 0)
        except RecursionError:
            raise _too_deep() from None
        return message

    def count(self, frame: bytes | str, most: int) -> int:
        """Return how many values there are in a binary frame, or any number above ``most``."""
        size = len(frame)
        if size <= most or isinstance(frame, str):
            return size  # or fewer: each has a byte at least
        return _count(frame, most)

    def array_begin(self, length: int) -> bytes:
        """Return the heads of an array of one and, in it, of one of ``length``."""
        return b"\x91" + _head(length, 0x90, 0xDC)

    def object_begin(self, length: int) -> bytes:
        """Return the head of a map."""
        return _head(length, 0x80, 0xDE)

    def name(self, name: str, *, is_first: bool) -> bytes:  # noqa: ARG002 -- nothing is in between
        """Return the key of a map."""
        return self.encode(name)

    def encode_elements(self, elements: list[object]) -> bytes:
        """Return elements of an array one after another."""
        return self.encode(elements)[len(_head(len(elements), 0x90, 0xDC)) :]

    def _decode_text(self, frame: bytes) -> object:
        """Decode a frame whose strings are UTF-8, or would be but for half of a surrogate pair."""
        try:
            return self._decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError) as refused:
            try:
                return msgpack.unpackb(frame, unicode_errors="surrogatepass")
            except (ValueError, msgpack.UnpackException):
                raise ProtocolError(f"a message is not MessagePack: {refused}") from None

    def _splice(self, value: object) -> object:
        if not isinstance(value, Preencoded):
            raise NotImplementedError
        return msgspec.Raw(value.encode(self.subprotocol, self.encode))

    def _unsplice(self, value: object) -> object:
        if not isinstance(value, Preencoded):
            raise TypeError(f"a message holds a {type(value).__name__}")
        return value.expression


# By the first byte of a value: how many bytes follow, and for those with a length, how many bytes that has.
_SKIPPED = {
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
    **{0xD4 + power: 1 + 2**power for power in range(5)},
}
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_ITEMS = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_EXTENSIONS = (0xC7, 0xC8, 0xC9)


def _head(length: int, short: int, long: int) -> bytes:
    """Return a head, given that of an empty array or map, and that of one with a length of 16 bits."""
    if length < 16:
        return bytes((short | length,))
    if length < 1 << 16:
        return bytes((long,)) + length.to_bytes(2, "big")
    return bytes((long + 1,)) + length.to_bytes(4, "big")


def _count(frame: bytes, most: int) -> int:
    """Return how many values there are in ``frame``, as far as it can be read, or a little above ``most``."""
    count = 0
    at, end = 0, len(frame)
    while at < end and count <= most:
        first = frame[at]
        at += 1
        count += 1
        if first < 0x80 or first >= 0xE0:
            continue
        if first < 0xA0:
            count += 1  # what it has is counted when it comes
        elif first < 0xC0:
            at += first & 0x1F
        elif first in _SKIPPED:
            at += _SKIPPED[first]
        elif first in _LENGTHS:
            width = _LENGTHS[first]
            at += width + int.from_bytes(frame[at : at + width], "big") + (first in _EXTENSIONS)
        elif first in _ITEMS:
            count += 1
            at += _ITEMS[first]
    return count


def _require_plain(value: object, depth: int) -> None:  # noqa: C901 -- on the path of each value
    """Refuse what MessagePack has and messages have not.

    Raises:
        ProtocolError: there is some of it in ``value``.
    """
    if depth > MAX_DEPTH:
        raise _too_deep()
    if type(value) is list:
        for item in value:
            if type(item) not in _PLAIN:
                if type(item) is not bytes:
                    _require_plain(item, depth + 1)
                elif value[0] != "bytes":
                    raise _bare_bytes()
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise ProtocolError("a message in MessagePack has a map with a key that is no string")
            if type(item) not in _PLAIN:
                _require_plain(item, depth + 1)
    elif type(value) is bytes:
        raise _bare_bytes()
    elif type(value) not in _PLAIN:
        raise ProtocolError("a message in MessagePack has an extension type")


def _too_deep() -> ProtocolError:
    return ProtocolError("a message is nested too deeply")


def _bare_bytes() -> ProtocolError:
    return ProtocolError("a message in MessagePack has bytes that are not in ['bytes', …]")


MESSAGEPACK = MessagePackCodec()
