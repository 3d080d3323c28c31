"""MessagePack as an encoding of messages: the same expressions in fewer bytes, and bytes as they are.

Messages hold what JSON has and, in ``["bytes", …]``, ``bin``; nothing else: no extension types, and maps with
string keys only (PROTOCOL.md, "MessagePack").
"""

from __future__ import annotations

import msgpack
import msgspec

from rpcshare.rpc.encoding import Preencoded
from rpcshare.rpc.errors import InvalidTextError, ProtocolError
from rpcshare.rpc.limits import MAX_DEPTH
from rpcshare.rpc.native import mypyc_attr

__all__ = ["MESSAGEPACK", "MessagePackCodec"]

_PLAIN = frozenset({str, int, float, bool, type(None)})


@mypyc_attr(allow_interpreted_subclasses=True)
class MessagePackCodec:
    """One MessagePack value for each message, in binary frames."""

    subprotocol = "rpcshare.msgpack"
    raw_bytes = True
    text = False

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
        encoded = value.encoded.get(self.subprotocol)
        if encoded is None:
            encoded = value.encoded[self.subprotocol] = self.encode(value.expression)
        return msgspec.Raw(encoded)

    def _unsplice(self, value: object) -> object:
        if not isinstance(value, Preencoded):
            raise TypeError(f"a message holds a {type(value).__name__}")
        return value.expression


def _require_plain(value: object, depth: int) -> None:
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
