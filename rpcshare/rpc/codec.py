"""The encodings in which messages travel: what a transport carries, and what a session sees."""

from __future__ import annotations

import json
from typing import Protocol

import msgspec

from rpcshare import jsontext
from rpcshare.rpc.encoding import Preencoded
from rpcshare.rpc.errors import InvalidTextError, ProtocolError
from rpcshare.rpc.native import mypyc_attr

__all__ = ["JSON", "Codec", "JSONCodec"]


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


@mypyc_attr(allow_interpreted_subclasses=True)
class JSONCodec:
    """One JSON text for each message, as npm capnweb sends them."""

    subprotocol = "rpcshare.json"
    raw_bytes = False
    text = True

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=self._splice).encode
        self._decode = msgspec.json.Decoder().decode

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
            return self._decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decode_odd(frame)

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
        encoded = value.encoded.get(self.subprotocol)
        if encoded is None:
            encoded = value.encoded[self.subprotocol] = self.encode(value.expression)
        return msgspec.Raw(encoded)

    def _unsplice(self, value: object) -> object:
        if not isinstance(value, Preencoded):
            raise TypeError(f"a message holds a {type(value).__name__}")
        return value.expression


JSON = JSONCodec()
