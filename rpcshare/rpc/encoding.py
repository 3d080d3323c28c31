"""From Python values to expressions of the wire (PROTOCOL.md, "Expressions")."""

from __future__ import annotations

import binascii
import math
from array import array
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from enum import Enum
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from rpcshare.rpc.dates import milliseconds_from_date
from rpcshare.rpc.errors import (
    AggregateError,
    DisposedError,
    EncodeError,
    RpcError,
    ThrownValueError,
    too_deep,
)
from rpcshare.rpc.fetch import URL, Blob, Body, Headers, Request, Response
from rpcshare.rpc.integers import is_safe
from rpcshare.rpc.limits import MAX_DEPTH
from rpcshare.rpc.preencoded import Preencoded
from rpcshare.rpc.streams import ReadableStream, WritableStream
from rpcshare.rpc.stub import Disposable, Promise, Stub
from rpcshare.rpc.target import RpcTarget, is_function
from rpcshare.rpc.values import (
    ArrayBuffer,
    BigInt,
    DataView,
    Date,
    Uint8ClampedArray,
    Undefined,
    bytes_and_container,
    format_bigint,
)

if TYPE_CHECKING:
    from rpcshare.rpc.payload import Payload

__all__ = ["Encoder", "Exporter", "Job"]

Job: TypeAlias = "Callable[[], Coroutine[None, None, None]]"

# In place of the expression for what has none.
_UNSENDABLE: Final = object()


class Exporter(Protocol):
    """What the encoder asks of the session when it meets something that is passed by reference."""

    def export_stub(self, stub: Stub, exported: list[int]) -> list[object]:
        """Return the expression for ``stub``, noting in ``exported`` the export that it made."""
        ...

    def export_target(self, target: object, payload: Payload, exported: list[int]) -> list[object]:
        """Return the expression for a target or a function that is part of ``payload``."""
        ...

    def export_readable(self, stream: ReadableStream) -> tuple[list[object], Job]:
        """Return the expression for ``stream``, and what has to run for its values to follow."""
        ...

    def export_writable(self, stream: WritableStream, exported: list[int]) -> tuple[list[object], Job]:
        """Return the expression for ``stream``, and what has to run for it to get values."""
        ...

    def run(self, job: Job) -> None:
        """Run ``job``, beginning after the message has been sent."""
        ...

    def unexport(self, exported: list[int]) -> None:
        """Take back the exports noted in ``exported``: the message is not sent after all."""
        ...

    def rewrite(self, error: BaseException) -> BaseException | None:
        """Return what is sent in place of ``error``, with its stack if it has one; None: the error itself."""
        ...

    def describe(self, error: BaseException) -> RpcError:
        """Return what the peer may know about ``error``."""
        ...


class Encoder:
    """Turns one value into an expression, which stays what it is if the value is changed afterwards."""

    __slots__ = (
        "_exported",
        "_exporter",
        "_found",
        "_jobs",
        "_max_depth",
        "_most",
        "_payload",
        "_raw_bytes",
        "size",
        "values",
    )

    def __init__(
        self,
        exporter: Exporter | None,
        *,
        max_depth: int,
        raw_bytes: bool,
        payload: Payload | None = None,
        max_values: int = 0,
    ) -> None:
        self._exporter = exporter
        # How many values there are in the expression, how many there may be (0: any number), and the bytes of
        # what is encoded already.
        self.values = 1
        self._most = max_values
        self.size = 0
        self._max_depth = min(max_depth or MAX_DEPTH, MAX_DEPTH)
        self._raw_bytes = raw_bytes
        self._payload = payload
        # Most values have nothing for the next three, so that there are lists only once there is something in
        # them. The numbers of the exports that the expression introduces, one for each time:
        self._exported: list[int] | None = None
        self._found: list[Disposable] | None = None
        # What keeps the streams in the expression going.
        self._jobs: list[Job] | None = None

    def encode(self, value: object) -> object:
        """Return the expression for ``value``.

        Raises:
            EncodeError: part of the value has no form on the wire. What was exported is taken back.
        """
        try:
            expression = self._encode(value, 0)
        except RecursionError:
            self._take_back()
            raise too_deep() from None
        except Exception:
            self._take_back()
            raise
        for job in self._jobs or ():
            self._exporter.run(job)  # type: ignore[union-attr]  # it made the job
        return expression

    def encode_arguments(self, arguments: object) -> list[object]:
        """Return the expressions for a sequence of arguments, as a call carries them.

        Raises:
            EncodeError: as :meth:`encode`.
        """
        escaped: list[list[object]] = self.encode(arguments)  # type: ignore[assignment]  # it is a sequence
        if self._payload is not None:
            self._payload.is_taken = True
        return escaped[0]

    def encode_payload(self) -> object:
        """Return the expression for the value of the payload, which now knows the stubs in it.

        Raises:
            EncodeError: as :meth:`encode`.
        """
        payload = self._payload
        assert payload is not None  # noqa: S101 -- the session made this encoder for one
        expression = self.encode(payload.value)
        if payload.stubs is None and not payload.lent:
            payload.stubs = self._found or []
        return expression

    def exported(self) -> list[int]:
        """Return the numbers of the exports that the expression introduces, one for each time."""
        if self._exported is None:
            self._exported = []
        return self._exported

    def _begin(self, job: Job) -> None:
        if self._jobs is None:
            self._jobs = []
        self._jobs.append(job)

    @property
    def introduced(self) -> Sequence[int]:
        """The same, if there are any; for who does not add to them."""
        return self._exported or ()

    def _take_back(self) -> None:
        if self._exporter is not None:
            self._exporter.unexport(self.exported())

    def _encode(self, value: object, depth: int) -> object:
        if depth >= self._max_depth:
            raise too_deep()
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is dict:
            return self._object(cast("dict[object, object]", value), depth)
        if kind is list:
            return self._array(cast("list[object]", value), depth)
        encode = _ENCODERS.get(kind)
        if encode is None:
            encode = _encoder_for(value)
            if encode is None:
                raise EncodeError(f"a value of type {kind.__name__} cannot be sent")
        return encode(self, value, depth)

    def _object(self, value: dict[object, object], depth: int) -> object:
        depth += 1
        self._count(1 + len(value))
        copied = dict(value)
        is_shallow = depth < self._max_depth
        for key, item in value.items():
            if type(key) is not str:
                key = self._key(key)  # noqa: PLW2901 -- or the error that says why not
            kind = type(item)
            if kind is str or kind is bool or item is None:
                continue
            if kind is int and is_shallow and is_safe(cast("int", item)):
                continue
            encoded = self._encode(item, depth)
            if encoded is not item:
                copied[key] = encoded
        return copied

    def _count(self, values: int) -> None:
        self.values += values
        if self._most and self.values > self._most:
            raise EncodeError(f"limit exceeded: values of a message (at most {self._most:,})")

    @staticmethod
    def _key(key: object) -> str:
        if isinstance(key, str):
            return key
        raise EncodeError(f"a key of type {type(key).__name__} cannot be sent; keys are strings")

    def _array(self, value: list[object] | tuple[object, ...], depth: int) -> object:
        depth += 1
        self._count(1 + len(value))
        encoded = list(value)
        is_shallow = depth < self._max_depth
        for index, item in enumerate(encoded):
            kind = type(item)
            # What needs no call, for the kinds that are most frequent.
            if not is_shallow or not (
                kind is str or (kind is int and is_safe(cast("int", item))) or kind is bool or item is None
            ):
                encoded[index] = self._encode(item, depth)
        # An array stands for an expression, so one that is meant literally is wrapped in another.
        return [encoded]

    def _integer(self, value: int, _depth: int) -> object:
        if is_safe(value):
            return value
        return ["bigint", format_bigint(value)]

    def _bigint(self, value: int, _depth: int) -> object:
        return ["bigint", format_bigint(value)]

    def _number(self, value: float, _depth: int) -> object:
        if math.isfinite(value):
            return value
        if math.isnan(value):
            return ["nan"]
        return ["inf"] if value > 0 else ["-inf"]

    def _undefined(self, _value: object, _depth: int) -> object:
        return ["undefined"]

    def _bytes(self, value: bytes | bytearray | memoryview, _depth: int) -> object:
        return ["bytes", self._data(bytes(value))]

    def _container(self, value: bytes | array[int] | array[float], _depth: int) -> object:
        try:
            data, name = bytes_and_container(value)
        except ValueError as exc:
            raise EncodeError(f"{exc} cannot be sent") from None
        expression: list[object] = ["bytes", self._data(data)]
        return expression if name == "Uint8Array" else [*expression, name]

    def _data(self, data: bytes) -> object:
        if self._raw_bytes:
            return data
        return binascii.b2a_base64(data, newline=False).decode("ascii").rstrip("=")

    def _blob(self, value: Blob, depth: int) -> object:
        return ["blob", value.type, self._readable(ReadableStream(value.chunks()), depth)]

    def _url(self, value: URL, _depth: int) -> object:
        return ["url", str.__str__(value)]

    def _headers(self, value: Headers, _depth: int) -> object:
        return ["headers", [list(pair) for pair in value.pairs()]]

    def _request(self, value: Request, depth: int) -> object:
        described = value.described()
        if value.body is not None:
            described["body"] = self._body(value.body, depth + 1)
            if isinstance(value.body, ReadableStream):
                # JavaScript makes no such request without: the body is sent whole before the answer is read.
                described["duplex"] = "half"
        return ["request", str.__str__(value.url), self._with_options(described, value.options, depth + 1)]

    def _response(self, value: Response, depth: int) -> object:
        body = None if value.body is None else self._body(value.body, depth + 1)
        return ["response", body, self._with_options(value.described(), value.options, depth + 1)]

    def _body(self, body: Body, depth: int) -> object:
        return self._encode(bytes(body) if isinstance(body, bytes) else body, depth)

    def _with_options(
        self, described: dict[str, object], options: Mapping[Any, object], depth: int
    ) -> dict[str, object]:
        for name, value in options.items():
            described[self._key(name)] = self._plain(value, depth + 1)
        return described

    def _plain(self, value: object, depth: int) -> object:
        """Return a copy of ``value``, which has to be JSON as it is."""
        if depth >= self._max_depth:
            raise too_deep()
        if (
            value is None
            or type(value) in (str, bool, int)
            or (type(value) is float and math.isfinite(value))
        ):
            return value
        if isinstance(value, dict):
            return {self._key(name): self._plain(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item, depth + 1) for item in value]
        raise EncodeError(f"an option of type {type(value).__name__} cannot be sent")

    def _datetime(self, value: datetime, _depth: int) -> object:
        try:
            return ["date", milliseconds_from_date(value)]
        except (OverflowError, ValueError, OSError):
            raise EncodeError("a naive datetime out of the local clock's range cannot be sent") from None

    def _date(self, value: Date, _depth: int) -> object:
        return ["date", value.milliseconds]

    def _error(self, value: BaseException, depth: int) -> object:
        rewritten = None if self._exporter is None else self._exporter.rewrite(value)
        error = self._described(rewritten or value, depth)
        if isinstance(error, ThrownValueError):
            thrown = self._encode_if_possible(error.value, depth)
            return ["error", "Error", error.message] if thrown is _UNSENDABLE else thrown
        stack = rewritten.stack if isinstance(rewritten, RpcError) else None
        more = dict(error.properties)
        if isinstance(error.__cause__, RpcError):
            # Any other cause is nobody's business but this side's.
            more.setdefault("cause", error.__cause__)
        if isinstance(error, AggregateError):
            more["errors"] = error.exceptions
        properties: dict[str, object] = {}
        for name, item in more.items():
            encoded = self._encode_if_possible(item, depth + 1)
            if encoded is not _UNSENDABLE:
                properties[name] = encoded
        if properties:
            return ["error", error.name, error.message, stack, properties]
        return (
            ["error", error.name, error.message]
            if stack is None
            else ["error", error.name, error.message, stack]
        )

    def _encode_if_possible(self, value: object, depth: int) -> object:
        """Return the expression for part of an error, which has to arrive even if the part cannot be sent."""
        exported, jobs = self.exported(), self._jobs or []
        made, begun = len(exported), len(jobs)
        try:
            return self._encode(value, depth)
        except (EncodeError, DisposedError, RecursionError):
            if self._exporter is not None:
                self._exporter.unexport(exported[made:])
            del exported[made:]
            if self._jobs is not None:
                del self._jobs[begun:]
            return _UNSENDABLE

    def _described(self, error: BaseException, depth: int) -> RpcError:
        """Return what the peer may know about ``error``."""
        if depth >= self._max_depth:
            raise too_deep()
        if isinstance(error, RpcError):
            return error
        if isinstance(error, BaseExceptionGroup):
            inner = [self._described(each, depth + 1) for each in error.exceptions]
            # What the group itself says is meant for the peer if all that is in it is.
            internal = error.split(RpcError)[1] is not None
            return AggregateError("several errors occurred" if internal else error.message, inner)
        if self._exporter is None:
            return RpcError(str(error), name=type(error).__name__)
        return self._exporter.describe(error)

    def _stub(self, value: Stub, _depth: int) -> object:
        if self._exporter is None or self._payload is None:
            raise EncodeError("a stub cannot be sent outside a call or a result")
        if self._found is None:
            self._found = []
        self._found.append(value)
        return self._exporter.export_stub(value, self.exported())

    def _target(self, value: object, _depth: int) -> object:
        if self._exporter is None or self._payload is None:
            raise EncodeError("a target or a function cannot be sent outside a call or a result")
        return self._exporter.export_target(value, self._payload, self.exported())

    def _readable(self, value: ReadableStream, _depth: int) -> object:
        expression, job = self._for_streams().export_readable(value)
        self._begin(job)
        return expression

    def _generator(self, value: AsyncGenerator[object, None], depth: int) -> object:
        return self._readable(ReadableStream(value), depth)

    def _writable(self, value: WritableStream, _depth: int) -> object:
        expression, job = self._for_streams().export_writable(value, self.exported())
        self._begin(job)
        return expression

    def _for_streams(self) -> Exporter:
        if self._exporter is None or self._payload is None:
            raise EncodeError("a stream cannot be sent outside a call or a result")
        return self._exporter

    def _preencoded(self, value: Preencoded, _depth: int) -> object:
        self.size += value.size
        return value


_ENCODERS: Final[dict[type, Callable[..., object]]] = {
    dict: Encoder._object,
    list: Encoder._array,
    tuple: Encoder._array,
    int: Encoder._integer,
    float: Encoder._number,
    BigInt: Encoder._bigint,
    Undefined: Encoder._undefined,
    bytes: Encoder._bytes,
    bytearray: Encoder._bytes,
    memoryview: Encoder._bytes,
    ArrayBuffer: Encoder._container,
    DataView: Encoder._container,
    Uint8ClampedArray: Encoder._container,
    array: Encoder._container,
    Blob: Encoder._blob,
    URL: Encoder._url,
    Headers: Encoder._headers,
    Request: Encoder._request,
    Response: Encoder._response,
    datetime: Encoder._datetime,
    Date: Encoder._date,
    Stub: Encoder._stub,
    Promise: Encoder._stub,
    RpcError: Encoder._error,
    ThrownValueError: Encoder._error,
    AggregateError: Encoder._error,
    Preencoded: Encoder._preencoded,
    ReadableStream: Encoder._readable,
    WritableStream: Encoder._writable,
    AsyncGeneratorType: Encoder._generator,
}


def _encoder_for(value: object) -> Callable[..., object] | None:  # noqa: PLR0911 -- one return for each kind
    """Return how to encode a value whose exact type is not in the table."""
    if isinstance(value, RpcTarget) or is_function(value):
        return Encoder._target
    if isinstance(value, BaseException):
        return Encoder._error
    if isinstance(value, Enum):
        return lambda encoder, member, depth: encoder._encode(member.value, depth)
    for kind in (URL, ArrayBuffer, DataView, Uint8ClampedArray, array, Blob, Headers, Request, Response):
        if isinstance(value, kind):
            return _ENCODERS[kind]
    for base in (str, bool, int, float, dict, list, tuple, bytes, datetime):
        if isinstance(value, base):
            if base is str:
                return lambda _encoder, text, _depth: str.__str__(text)
            if base in (int, float):
                # The codecs know numbers by their exact type.
                return lambda encoder, number, depth: _ENCODERS[base](encoder, base(number), depth)
            return _ENCODERS[base]
    return None
