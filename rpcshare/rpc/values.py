"""Python forms of JavaScript values that Python has no form for.

===============  ==========================================================
On the wire      In Python
===============  ==========================================================
null, true, "a"  ``None``, ``bool``, ``str``
1, 1.5, 1e20     ``int`` or ``float``; beyond ±(2**53 - 1) always ``float``
an object        ``dict`` with ``str`` keys
an array         ``list`` (a ``tuple`` is sent as one)
undefined        :data:`UNDEFINED`
inf, -inf, nan   ``float``
bigint           :class:`BigInt`; an ``int`` beyond ±(2**53 - 1) is sent as one
date             an aware ``datetime``, or :class:`Date` where that cannot hold it
bytes            ``bytes``; of JavaScript's other containers, :class:`ArrayBuffer`,
                 :class:`DataView`, :class:`Uint8ClampedArray` or ``array.array``
blob             :class:`~rpcshare.rpc.fetch.Blob`
url              :class:`~rpcshare.rpc.fetch.URL`
headers          :class:`~rpcshare.rpc.fetch.Headers`
request          :class:`~rpcshare.rpc.fetch.Request`
response         :class:`~rpcshare.rpc.fetch.Response`
error            :class:`~rpcshare.rpc.errors.RpcError`, for several in one
                 :class:`~rpcshare.rpc.errors.AggregateError`
readable         :class:`~rpcshare.rpc.streams.ReadableStream`
writable         :class:`~rpcshare.rpc.streams.WritableStream`
export, import   :class:`~rpcshare.rpc.stub.Stub`
===============  ==========================================================
"""

from __future__ import annotations

import math
import sys
from array import array
from enum import Enum
from typing import Final

import msgspec

from rpcshare.rpc.integers import float_from_integer, is_safe

__all__ = [
    "UNDEFINED",
    "ArrayBuffer",
    "BigInt",
    "DataView",
    "Date",
    "Uint8ClampedArray",
    "Undefined",
    "bytes_and_container",
    "container_of_bytes",
    "format_bigint",
    "parse_bigint",
]


class Undefined(Enum):
    """The type of :data:`UNDEFINED`."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined.UNDEFINED
"""JavaScript's ``undefined``: what a function returns that returns nothing. False in a condition."""


class BigInt(int):
    """An integer that is a ``bigint`` on the wire whatever its size."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}n"


class _ByteContainer(bytes):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({bytes(self)!r})"


class ArrayBuffer(_ByteContainer):
    """Bytes that are an ``ArrayBuffer`` in JavaScript."""

    __slots__ = ()


class DataView(_ByteContainer):
    """Bytes that are a ``DataView`` in JavaScript."""

    __slots__ = ()


class Uint8ClampedArray(_ByteContainer):
    """Bytes that are a ``Uint8ClampedArray`` in JavaScript."""

    __slots__ = ()


class Date(msgspec.Struct, frozen=True):
    """A JavaScript Date that ``datetime`` cannot hold: out of its years, or invalid."""

    milliseconds: float | None
    """Since the epoch; None for an invalid date."""


# JavaScript's typed arrays: the kind of number, by the typecodes of array.array, and bytes of each.
_SIGNED, _UNSIGNED, _FLOATS = "bhiql", "BHIQL", "fd"
_ELEMENTS: Final = {
    "Int8Array": (_SIGNED, 1),
    "Uint8Array": (_UNSIGNED, 1),
    "Int16Array": (_SIGNED, 2),
    "Uint16Array": (_UNSIGNED, 2),
    "Int32Array": (_SIGNED, 4),
    "Uint32Array": (_UNSIGNED, 4),
    "BigInt64Array": (_SIGNED, 8),
    "BigUint64Array": (_UNSIGNED, 8),
    "Float32Array": (_FLOATS, 4),
    "Float64Array": (_FLOATS, 8),
}
# How many bytes a typecode stands for is the machine's business.
_NAMES: Final = {
    code: name for name, (codes, size) in _ELEMENTS.items() for code in codes if array(code).itemsize == size
}
_TYPECODES: Final = {name: code for code, name in reversed(_NAMES.items()) if name != "Uint8Array"}
_CONTAINERS: Final = {kind.__name__: kind for kind in (ArrayBuffer, DataView, Uint8ClampedArray)}


def container_of_bytes(name: str, data: bytes) -> bytes | array[int] | array[float]:
    """Return ``data``, as the wire has it, in the form of JavaScript's container ``name``.

    Raises:
        ValueError: there is no such container, or it has no such length.
    """
    if name == "Uint8Array":
        return data
    if (kind := _CONTAINERS.get(name)) is not None:
        return kind(data)
    if (typecode := _TYPECODES.get(name)) is None:
        raise ValueError("no container of this name")
    numbers: array[int] | array[float] = array(typecode)
    numbers.frombytes(data)
    _order_bytes(numbers)
    return numbers


def bytes_and_container(value: bytes | array[int] | array[float]) -> tuple[bytes, str]:
    """Return the bytes of ``value`` as the wire has them, and the name of the container that they are in.

    Raises:
        ValueError: JavaScript has no such array.
    """
    if not isinstance(value, array):
        return bytes(value), type(value).__name__
    if value.typecode not in _NAMES:
        raise ValueError("an array of characters")
    if sys.byteorder == "big":
        value = value[:]
        _order_bytes(value)
    return value.tobytes(), _NAMES[value.typecode]


def _order_bytes(numbers: array[int] | array[float]) -> None:
    """Turn the machine's order of bytes into that of the wire, or back."""
    if sys.byteorder == "big":
        numbers.byteswap()


def as_numbers(expression: object) -> object:
    """Return a copy of a peer's ``expression`` with its numbers in forms that every encoding has."""
    if isinstance(expression, list):
        return [as_numbers(item) for item in expression]
    if isinstance(expression, dict):
        return {name: as_numbers(item) for name, item in expression.items()}
    if type(expression) is int and not is_safe(expression):
        expression = float_from_integer(expression)
    if type(expression) is float and not math.isfinite(expression):
        return ["nan"] if math.isnan(expression) else ["inf" if expression > 0 else "-inf"]
    return expression


# int() and str() refuse decimal forms of over 4,300 digits unless the whole process turns that bound
# off. A session has a bound of its own, so long numbers go through in pieces below Python's.
_PIECE = 4_000
_BOUND = 10**_PIECE  # to compute it takes longer than to format most numbers


def parse_bigint(digits: str) -> BigInt:
    """Return the integer with this decimal form.

    Raises:
        ValueError: ``digits`` is not an optional ``-`` and ASCII digits.
    """
    magnitude = digits.removeprefix("-")
    if not (magnitude.isascii() and magnitude.isdecimal()):
        raise ValueError("not a decimal integer")
    value = 0
    for start in range(0, len(magnitude), _PIECE):
        piece = magnitude[start : start + _PIECE]
        value = value * 10 ** len(piece) + int(piece)
    return BigInt(-value if digits[0] == "-" else value)


def format_bigint(value: int) -> str:
    """Return the decimal form of ``value``, however long."""
    rest = abs(value)
    pieces: list[str] = []
    while rest >= _BOUND:
        rest, piece = divmod(rest, _BOUND)
        pieces.append(f"{piece:0{_PIECE}d}")
    pieces.append(str(rest))
    return ("-" if value < 0 else "") + "".join(reversed(pieces))
