"""From long JSON text to the expression that stands for it, encoded, in time slices on the event loop.

To decode a large document and to encode it anew takes seconds, during which nobody else has the interpreter,
in whichever thread that is done: neither step lets go of its lock. So the text is split where its containers
are, and done in pieces; what it has of values is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from rpcshare import jsontext
from rpcshare.long_work import LongWork
from rpcshare.rpc.codec import JSON, Codec
from rpcshare.rpc.encoding import Encoder
from rpcshare.rpc.errors import RpcError, too_deep

__all__ = ["encode_text"]

# As jsontext.InParts, with what msgspec found within a text.
_Text: TypeAlias = "bytes | msgspec.Raw | Mapping[str, _Text] | Sequence[_Text]"

# Bytes of text that are decoded and encoded in one step.
_PIECE = 32 * 1024

# How many values a text may have that cannot be split.
_MOST_AT_ONCE = 250_000

_MAX_DEPTH = 256

_BLANKS = b" \t\r\n"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


async def encode_text(text: jsontext.InParts, codec: Codec) -> bytes:
    """Return what ``codec`` encodes the expression of the value to that ``text`` stands for.

    Raises:
        EncodeError: it is nested too deeply.
        RpcError: a part of it is too large for one step, and cannot be split.
    """
    pieces: list[bytes] = []
    async with LongWork() as work:
        await _encode(text, 0, codec, pieces, work)
    return b"".join(pieces)


async def _encode(text: _Text, depth: int, codec: Codec, pieces: list[bytes], work: LongWork) -> None:
    """Append to ``pieces`` what the value of ``text``, at ``depth`` in the whole, is encoded to."""
    if depth >= _MAX_DEPTH:
        raise too_deep()
    split = _split(text)
    if isinstance(split, bytes):
        pieces.append(codec.encode(_expression(split, depth)))
    elif isinstance(split, Mapping):
        pieces.append(codec.object_begin(len(split)))
        is_first = True
        for name, value in split.items():
            pieces.append(codec.name(name, is_first=is_first))
            is_first = False
            await _encode(value, depth + 1, codec, pieces, work)
        pieces.append(codec.object_end)
    else:
        pieces.append(codec.array_begin(len(split)))
        is_first = True
        for group in _groups(split):
            if not is_first:
                pieces.append(codec.separator)
            is_first = False
            if isinstance(group, bytes):
                # An array in an expression is within another.
                elements = _expression(group, depth)[0]  # type: ignore[index]  # see above
                pieces.append(codec.encode_elements(elements))
            else:
                await _encode(group[0], depth + 1, codec, pieces, work)
            await work.pause()
        pieces.append(codec.array_end)
    await work.pause()


def _expression(text: bytes, depth: int) -> object:
    # Bytes have no form in JSON text, so that it does not matter how they would be sent.
    encoder = Encoder(None, max_depth=_MAX_DEPTH - depth, raw_bytes=True)
    return encoder.encode(jsontext.decode(text))


def _split(text: _Text) -> bytes | Mapping[str, _Text] | Sequence[_Text]:
    """Return the members or the elements of a container; or its text, if it is to be done in one step.

    Raises:
        RpcError: it is too large for that.
    """
    if not isinstance(text, bytes | msgspec.Raw):
        return text
    size = len(memoryview(text))
    if size > _PIECE:
        first = bytes(memoryview(text)[:64]).lstrip(_BLANKS)[:1]
        try:
            if first == b"{":
                return _members.decode(text)
            if first == b"[":
                return _elements.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # There is half of a surrogate pair in it (see rpcshare.jsontext).
            if JSON.count(bytes(text), _MOST_AT_ONCE) > _MOST_AT_ONCE:
                message = "a part of the result has too many values to be sent at once"
                raise RpcError(message, code="PAYLOAD_TOO_LARGE") from None
    return bytes(text)


def _groups(elements: Sequence[_Text]) -> Iterator[bytes | Sequence[_Text]]:
    """Yield the elements in order: the text of an array of those of one step, or one that is large."""
    gathered: list[bytes | msgspec.Raw] = []
    size = 0
    for element in elements:
        length = len(memoryview(element)) if isinstance(element, bytes | msgspec.Raw) else _PIECE
        if gathered and size + length >= _PIECE:
            yield b"[%b]" % b",".join(gathered)
            gathered, size = [], 0
        if length >= _PIECE:
            yield (element,)
        else:
            gathered.append(element)  # type: ignore[arg-type]  # it is a text, and short
            size += length + 1
    if gathered:
        yield b"[%b]" % b",".join(gathered)
