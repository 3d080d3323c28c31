"""JSON text, in and out, for everything in the package that reads or writes it.

msgspec does the work. It refuses one thing that JavaScript produces every day: a string with half of
a surrogate pair, which is what remains of an emoji after ``text.slice(0, n)``. Such text is valid
JSON (RFC 8259 section 8.2), and a server that promises to keep every field must keep it, so
both directions fall back to the standard library for it, and for it alone.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

__all__ = [
    "LONG",
    "InParts",
    "JSONDecodeError",
    "JSONText",
    "decode",
    "decoder_of_long",
    "decoder_of_short",
    "encode",
    "indented",
]

InParts: TypeAlias = "bytes | Mapping[str, InParts] | Sequence[InParts]"
"""The JSON text of a value; or an object or an array of texts, which are nowhere joined to one."""

_encode = msgspec.json.Encoder().encode

_SHORT: Final = 1024

LONG: Final = 16 * 1024
"""In characters: from here on a text is decoded by :data:`decoder_of_long`."""

decoder_of_short = msgspec.json.Decoder()
decoder_of_long = msgspec.json.Decoder(float_hook=float)
"""Takes a little more time for most numbers; the other one, a hundred times as much for such as ``1e300``."""


class JSONText:
    """The JSON text of one value that nobody has decoded.

    It is there for one taker. Whoever has only passed it on does not keep it in memory then.
    """

    __slots__ = ("_text", "is_counted", "size")

    def __init__(self, text: bytes | memoryview, *, is_counted: bool = False) -> None:
        """Hold ``text``.

        Args:
            text: in UTF-8.
            is_counted: whether it is known to hold no more values than may be decoded in one go.
        """
        self._text: bytes | memoryview = text
        self.size = len(text)
        self.is_counted = is_counted

    @property
    def is_null(self) -> bool:
        """Whether it stands for null."""
        return self.size < _SHORT and bytes(self._text).strip() == b"null"

    def take(self) -> bytes | memoryview:
        """Return the text, and forget it."""
        text, self._text = self._text, b""
        return text

    def __repr__(self) -> str:
        """Leave out the text, which is what users wrote."""
        return f"{type(self).__name__}(<{self.size} bytes>)"


class JSONDecodeError(ValueError):
    """Text that is not JSON, or is nested too deeply to be read."""


def encode(value: object) -> bytes:
    """Return ``value`` as compact JSON in UTF-8.

    Raises:
        TypeError: ``value`` holds something that JSON has no form for.
        RecursionError: ``value`` is nested too deeply, or holds itself.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # \uXXXX escapes carry a lone surrogate through UTF-8, which has no form for it. msgspec.Raw
        # has no business here: whoever splices encoded text has it encoded by this function.
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(text: bytes | str) -> Any:  # noqa: ANN401 -- JSON is whatever the peer sent
    """Return the value that the JSON document ``text`` stands for.

    Raises:
        JSONDecodeError: ``text`` is not JSON; the message says where.
    """
    try:
        return (decoder_of_short if len(text) < LONG else decoder_of_long).decode(text)
    except RecursionError as exc:
        raise JSONDecodeError("nested too deeply") from exc
    except (msgspec.DecodeError, UnicodeError) as exc:
        try:
            # Not of bytes: the library would take them for UTF-16 if they look like it, and for text where
            # they are no UTF-8 but surrogates. Who has looked through them before saw something else.
            characters = text if isinstance(text, str) else str(text, "utf-8-sig")
            value = json.loads(characters, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise JSONDecodeError(str(exc)) from exc
        return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def indented(value: object) -> str:
    """Return ``value`` as JSON for people to read, over several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)
