"""Values that are encoded once and sent many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rpcshare.rpc.values import UNDEFINED

__all__ = ["JSON_SUBPROTOCOL", "Preencoded"]

JSON_SUBPROTOCOL: Final = "rpcshare.json"
"""By which the JSON of a value is kept."""


class Preencoded:
    """A value with the one expression that stands for it, encoded once and sent many times.

    The session sends the expression as it is. A codec keeps the bytes that it encodes it to in
    ``encoded``, so that sending it to the next peer copies them.
    """

    __slots__ = ("_count", "_expression", "_load", "encoded", "size")

    def __init__(
        self,
        value: object = None,
        *,
        load: Callable[[], object] | None = None,
        size: int = 0,
        count: Callable[[int], int] | None = None,
    ) -> None:
        """Encode ``value`` now, or what ``load`` returns when it is sent first; that is not kept.

        Args:
            value: what is sent.
            load: returns the value, which nobody changes; the peer may refer to parts of it.
            size: about how many bytes it has on the wire.
            count: given a number, returns how many values ``load`` would make, or any number above that.
        """
        self._count = count
        self._load = load
        self._expression = None if load is not None else _expression_of(value)
        self.size = size
        self.encoded: dict[str, bytes] = {}

    @property
    def expression(self) -> object:
        """What the value is on the wire."""
        return self._expression if self._load is None else _expression_of(self._load())

    @property
    def value(self) -> object:
        """The value, as far as the peer may refer to parts of it."""
        return UNDEFINED if self._load is None else self._load()

    def count(self, most: int) -> int:
        """Return how many values there are in :attr:`value`, or any number above ``most``; 0: not known."""
        return 0 if self._count is None else self._count(most)

    def encode(self, codec: str, encode: Callable[[object], bytes]) -> bytes:
        """Return its form in the encoding ``codec``, made by ``encode`` if it has not been before."""
        encoded = self.encoded.get(codec)
        if encoded is None:
            encoded = self.encoded[codec] = encode(self.expression)
            self.size = len(encoded)
        return encoded


def _expression_of(value: object) -> object:
    from rpcshare.rpc.encoding import Encoder  # noqa: PLC0415 -- which has to know this class

    # Raw bytes and base64 differ between the encodings of the wire, so such a value has no one form.
    return Encoder(None, max_depth=256, raw_bytes=True).encode(value)
