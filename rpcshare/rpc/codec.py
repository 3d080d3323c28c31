"""The encodings in which messages travel: what a transport carries, and what a session sees."""

from __future__ import annotations

import json
from typing import Protocol

import msgspec

from rpcshare import jsontext
from rpcshare.rpc.errors import InvalidTextError, ProtocolError
from rpcshare.rpc.mypyc_compat import mypyc_attr
from rpcshare.rpc.preencoded import JSON_SUBPROTOCOL, Preencoded

__all__ = ["JSON", "Codec", "JSONCodec"]


# All that does not tell where a value begins, or a string.
_NEUTRAL = bytes(set(range(256)) - set(b'",[{'))


class Codec(Protocol):
    """Turns messages into frames and back."""

    subprotocol: str
    """The WebSocket subprotocol that stands for it."""

    raw_bytes: bool
    """Whether it carries bytes as they are, not as base64."""

    text: bool
    """Whether its frames are text."""

    def encode(self, message: object) -> bytes:
        """Return the frame for a message of a session."""
        ...

    def decode(self, frame: bytes | str) -> object:
        """Return the message in a frame.

        Raises:
            ProtocolError: there is none in it.
        """
        ...

    def count(self, frame: bytes | str, most: int) -> int:
        """Return how many values decoding would make, or any number above ``most`` if they are more.

        An array or an object is one, and so is each value in it.
        """
        ...

    # The encoded form of a large value, in pieces.

    separator: bytes
    """Between elements of an array."""

    array_end: bytes
    object_end: bytes

    def array_begin(self, length: int) -> bytes:
        """Return what the expression of an array of so many elements begins with."""
        ...

    def object_begin(self, length: int) -> bytes:
        """Return what an object of so many members begins with."""
        ...

    def name(self, name: str, *, is_first: bool) -> bytes:
        """Return what a member of an object begins with."""
        ...

    def encode_elements(self, elements: list[object]) -> bytes:
        """Return elements of an array that are next to each other, of which there is one at least."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True)
class JSONCodec:
    """One JSON text for each message, as npm capnweb sends them."""

    subprotocol = JSON_SUBPROTOCOL
    raw_bytes = False
    text = True
    separator = b","
    array_end = b"]]"
    object_end = b"}"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=self._splice).encode
        self._decode = jsontext.decoder_of_short.decode
        self._decode_long = jsontext.decoder_of_long.decode

    def encode(self, message: object) -> bytes:
        """Return ``message`` as JSON in UTF-8."""
        try:
            return self._encode(message)
        except UnicodeEncodeError:
            # Half a surrogate pair: see rpcshare.jsontext.
            text = json.dumps(message, separators=(",", ":"), default=self._unsplice)
            return text.encode("ascii")

    def decode(self, frame: bytes | str) -> object:
        """Return the message in a JSON text."""
        try:
            return self._decode(frame) if len(frame) < jsontext.LONG else self._decode_long(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decode_odd(frame)

    def count(self, frame: bytes | str, most: int) -> int:
        """Return how many values there are in a JSON text, or any number above ``most``."""
        text = frame if isinstance(frame, bytes) else frame.encode("utf-8", "replace")
        count = text.count(b",") + text.count(b"[") + text.count(b"{") + 1
        if count <= most:
            return count  # or fewer, since strings have such characters too
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEUTRAL)
        strings = text.count(b'"') // 2
        if strings // 2 > most:
            return strings // 2  # each is a value, or the name of one
        # Two quotes next to each other change nothing about where others are: within a string, or not.
        outside = b"".join(text.replace(b'""', b"").split(b'"')[::2])
        return outside.count(b",") + outside.count(b"[") + outside.count(b"{") + 1

    def array_begin(self, length: int) -> bytes:  # noqa: ARG002 -- for those who need it
        """Return the brackets that the expression of an array begins with."""
        return b"[["

    def object_begin(self, length: int) -> bytes:  # noqa: ARG002 -- likewise
        """Return the brace that an object begins with."""
        return b"{"

    def name(self, name: str, *, is_first: bool) -> bytes:
        """Return the name of a member and what is around it."""
        return (b"" if is_first else b",") + self.encode(name) + b":"

    def encode_elements(self, elements: list[object]) -> bytes:
        """Return elements of an array with commas between them."""
        return self.encode(elements)[1:-1]

    def _decode_odd(self, frame: bytes | str) -> object:
        try:
            return jsontext.decode(frame if isinstance(frame, str) else frame.decode())
        except UnicodeDecodeError:
            raise InvalidTextError from None
        except jsontext.JSONDecodeError as exc:
            raise ProtocolError(f"a message is not JSON: {exc}") from None

    def _splice(self, value: object) -> object:
        if not isinstance(value, Preencoded):
            raise NotImplementedError
        return msgspec.Raw(value.encode(self.subprotocol, self.encode))

    def _unsplice(self, value: object) -> object:
        if not isinstance(value, Preencoded):
            raise TypeError(f"a message holds a {type(value).__name__}")
        return value.expression


JSON = JSONCodec()
