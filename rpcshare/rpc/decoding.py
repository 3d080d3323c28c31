"""From expressions of the wire to Python values (PROTOCOL.md, "Expressions")."""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, cast

from rpcshare.rpc.dates import date_from_milliseconds
from rpcshare.rpc.errors import AggregateError, LimitExceededError, ProtocolError, RpcError
from rpcshare.rpc.fetch import URL, Body, Headers, Request, Response, header_pairs
from rpcshare.rpc.integers import float_from_integer, is_safe
from rpcshare.rpc.memory_budget import ERROR_VALUES, HEADER_VALUES
from rpcshare.rpc.payload import STUB_VALUES, Container, Payload
from rpcshare.rpc.streams import ReadableStream, stream_from_pipe, stream_to
from rpcshare.rpc.stub import Disposable, Promise, Stub
from rpcshare.rpc.values import (
    UNDEFINED,
    BigInt,
    Undefined,
    container_of_bytes,
    parse_bigint,
)

if TYPE_CHECKING:
    from rpcshare.rpc.limits import Limits
    from rpcshare.rpc.pipe import Pipe
    from rpcshare.rpc.reference import Budget, Owner, Path, Reference
    from rpcshare.rpc.session import Session

__all__ = ["Decoder", "Importer"]


class Importer(Protocol):
    """What the decoder asks of the session when it meets a reference."""

    @property
    def limits(self) -> Limits:
        """How much the peer may ask."""
        ...

    @property
    def max_depth(self) -> int:
        """How deep values may be nested."""
        ...

    def take_size(self) -> int:
        """Return the bytes of the message that nothing has been charged with yet, which now is."""
        ...

    def import_stub(self, import_id: int) -> Reference:
        """Return a new hold on the peer's export ``import_id``."""
        ...

    def import_promise(self, import_id: int) -> Reference:
        """Return a hold on the peer's new promise ``import_id``."""
        ...

    def exported(self, export_id: int) -> Reference:
        """Return the export ``export_id``, with no new hold on it. Raises ProtocolError if there is none."""
        ...

    def map_budget(self) -> Budget:
        """Return how much the application of a mapper function may take."""
        ...

    def take_pipe(self, export_id: int) -> Pipe:
        """Return the pipe ``export_id`` to read from. Raises ProtocolError if it is none, or is read."""
        ...

    def collect_blob(self, export_id: int, content_type: str) -> Reference:
        """Return a hold on the blob that the pipe ``export_id`` brings. Raises as :meth:`take_pipe`."""
        ...


class Decoder:
    """Turns one expression into a payload. The expression is used up: containers become the value."""

    __slots__ = ("_importer", "_max_depth", "_owner", "_payload", "_session", "_values")

    def __init__(self, owner: Owner, importer: Importer, session: Session | None = None) -> None:
        """Have ``importer`` asked; ``session`` is the same, if it is one."""
        self._owner = owner
        self._importer = importer
        # Compiled code calls what it knows without Python's calls.
        self._session = session
        self._max_depth = importer.max_depth if session is None else session.max_depth
        # What is being decoded; its stubs and promises are noted as they are found.
        self._payload: Payload | None = None
        # How many there are in what has been decoded.
        self._values = 1

    def decode(self, expression: object, depth: int = 0) -> Payload:
        """Return the payload that ``expression`` stands for; its calls have been made.

        Raises:
            ProtocolError: the expression is malformed. Stubs in it have been disposed of.
        """
        payload = self._payload = Payload(self._owner, None, stubs=[], private=True)
        try:
            payload.value = self._value(expression, depth, payload, "value")
            payload.account_for(self._values, self._take_size())
        except Exception:
            payload.dispose()
            raise
        return payload

    def arguments(self, expressions: list[object], depth: int) -> Payload:
        """Return the payload of the arguments of a call.

        Raises:
            ProtocolError: as :meth:`decode`.
        """
        payload = self._payload = Payload(self._owner, expressions, stubs=[], private=True)
        try:
            self._array(expressions, depth)
            payload.account_for(self._values, self._take_size())
        except Exception:
            payload.dispose()
            raise
        return payload

    def _take_size(self) -> int:
        return self._importer.take_size() if self._session is None else self._session.take_size()

    def reference(self, expression: object, depth: int = 0) -> Reference | None:
        """Return a hold on what ``expression`` refers to, or None if it is another expression.

        Raises:
            ProtocolError: the expression is malformed.
        """
        if isinstance(expression, list) and expression:
            tag = expression[0]
            if isinstance(tag, str) and (tag == "pipeline" or tag == "import"):  # noqa: PLR1714 -- of str alone
                return self._imported(expression, depth, self)
        return None

    def _value(
        self,
        value: object,
        depth: int,
        container: Container,
        key: str | int,
    ) -> object:
        if type(value) is dict:
            return self._object(value, depth)
        if type(value) is list:
            return self._expression(value, depth, container, key)
        if type(value) is int and not is_safe(value):
            return float_from_integer(value)
        return value

    def _object(self, value: dict[str, object], depth: int) -> dict[str, object]:
        self._check_depth(depth)
        self._values += 1 + len(value)
        for key, item in value.items():
            kind = type(item)
            if kind is dict:
                self._object(item, depth + 1)  # type: ignore[arg-type]  # its kind says so
            elif kind is list:
                value[key] = self._expression(item, depth + 1, value, key)  # type: ignore[arg-type]  # likewise
            elif kind is int and not is_safe(cast("int", item)):
                value[key] = float_from_integer(cast("int", item))
        return value

    def _array(self, value: list[object], depth: int) -> list[object]:
        self._check_depth(depth)
        self._values += 1 + len(value)
        for index, item in enumerate(value):
            kind = type(item)
            if kind is dict:
                self._object(item, depth + 1)  # type: ignore[arg-type]  # its kind says so
            elif kind is list:
                value[index] = self._expression(item, depth + 1, value, index)  # type: ignore[arg-type]  # likewise
            elif kind is int and not is_safe(cast("int", item)):
                value[index] = float_from_integer(cast("int", item))
        return value

    def _check_depth(self, depth: int) -> None:
        if depth >= self._max_depth:
            raise LimitExceededError("nesting depth", self._max_depth)

    def _expression(
        self,
        value: list[object],
        depth: int,
        container: Container,
        key: str | int,
    ) -> object:
        if len(value) == 1 and type(value[0]) is list:
            return self._array(value[0], depth)
        self._check_depth(depth)
        tag = value[0] if value else None
        if not isinstance(tag, str):
            raise _malformed(value)
        # The most frequent ones without Python's calls.
        if tag == "date":
            decoded = self._date(value, depth)
        elif tag == "bytes":
            decoded = self._bytes(value, depth)
        else:
            decode = _DECODERS.get(tag)
            if decode is None:
                raise _malformed(value)
            decoded = decode(self, value, depth)
        self._values += 1
        if type(decoded) not in _PLAIN and isinstance(decoded, Disposable):
            payload = self._payload
            assert payload is not None  # noqa: S101 -- whoever decodes has made it
            payload.note(decoded)
            self._values += STUB_VALUES
            if isinstance(decoded, Promise):
                payload.promises.append((container, key, decoded))
        return decoded

    def _undefined(self, value: list[object], _depth: int) -> object:
        if len(value) != 1:
            raise _malformed(value)
        return UNDEFINED

    def _infinity(self, _value: list[object], _depth: int) -> object:
        return math.inf

    def _minus_infinity(self, _value: list[object], _depth: int) -> object:
        return -math.inf

    def _nan(self, _value: list[object], _depth: int) -> object:
        return math.nan

    def _bigint(self, value: list[object], _depth: int) -> object:
        digits = value[1] if len(value) == 2 else None
        if not isinstance(digits, str):
            raise _malformed(value)
        bound = self._importer.limits.bigint_digits
        if bound and len(digits) - digits.startswith("-") > bound:
            raise LimitExceededError("digits of a bigint", bound)
        try:
            return parse_bigint(digits)
        except ValueError:
            raise _malformed(value) from None

    def _date(self, value: list[object], _depth: int) -> object:
        time = value[1] if len(value) == 2 else UNDEFINED
        if time is not None and type(time) not in (int, float):
            raise _malformed(value)
        return date_from_milliseconds(time)  # type: ignore[arg-type]  # just checked

    def _bytes(self, value: list[object], _depth: int) -> object:
        data = value[1] if len(value) in (2, 3) else None
        container = value[2] if len(value) == 3 else "Uint8Array"
        if not isinstance(container, str):
            raise _malformed(value)
        try:
            if isinstance(data, str):
                # JavaScript's encoders leave the padding out.
                data = _from_base64(data + "=" * (-len(data) % 4), strict_mode=True)
            elif not isinstance(data, bytes):
                raise _malformed(value)
            self._values += 1
            return data if container == "Uint8Array" else container_of_bytes(container, data)
        except (binascii.Error, ValueError):
            raise _malformed(value) from None

    def _blob(self, value: list[object], _depth: int) -> object:
        if len(value) != 3 or type(value[1]) is not str:
            raise _malformed(value)
        content = value[2]
        if type(content) is not list or content[:1] != ["readable"]:
            raise _malformed(value)
        return Promise(self._importer.collect_blob(_entry_id(content), value[1]))

    def _url(self, value: list[object], _depth: int) -> object:
        if len(value) != 2 or type(value[1]) is not str:
            raise _malformed(value)
        try:
            return URL(value[1])
        except ValueError:
            raise _malformed(value) from None

    def _headers(self, value: list[object], _depth: int) -> object:
        if len(value) != 2:
            raise _malformed(value)
        try:
            pairs = header_pairs(value[1])
            self._values += HEADER_VALUES * len(pairs)
            return Headers(pairs)
        except (TypeError, ValueError):
            raise _malformed(value) from None

    def _request(self, value: list[object], depth: int) -> object:
        if len(value) != 3 or type(value[1]) is not str or type(value[2]) is not dict:
            raise _malformed(value)
        url, described = value[1], value[2]
        body = described.pop("body", None)
        return self._message(
            value, depth, described, body, lambda body: Request.from_description(url, described, body)
        )

    def _response(self, value: list[object], depth: int) -> object:
        if len(value) != 3 or type(value[2]) is not dict:
            raise _malformed(value)
        described = value[2]
        return self._message(
            value, depth, described, value[1], lambda body: Response.from_description(body, described)
        )

    def _message(
        self,
        value: list[object],
        depth: int,
        described: dict[str, object],
        body_expression: object,
        make: Callable[[Body], object],
    ) -> object:
        """Return what ``make`` makes of the body, having checked that the rest of it is plain JSON."""
        self._require_plain(described, depth + 1, value)
        body = self._body(body_expression, depth + 1, value)
        try:
            return make(body)
        except (TypeError, ValueError):
            if isinstance(body, ReadableStream):
                body.dispose()
            raise _malformed(value) from None

    def _body(self, expression: object, depth: int, value: list[object]) -> Body:
        if expression is None or isinstance(expression, str):
            return expression
        tag = expression[0] if type(expression) is list and expression else None
        if tag == "readable":
            return self._readable(expression, depth)  # type: ignore[arg-type]  # a list, as its tag says
        body = self._bytes(expression, depth) if tag == "bytes" else None  # type: ignore[arg-type]  # likewise
        if type(body) is not bytes:
            raise _malformed(value)
        return body

    def _require_plain(self, part: object, depth: int, value: list[object]) -> None:
        """Refuse what is no JSON, or is nested too deeply; it is no expression, and stays as it is."""
        if isinstance(part, dict | list):
            self._check_depth(depth)
            self._values += HEADER_VALUES * len(part)  # headers, mostly
            for item in part.values() if isinstance(part, dict) else part:
                self._require_plain(item, depth + 1, value)
        elif isinstance(part, bytes):
            raise _malformed(value)

    def _error(self, value: list[object], depth: int) -> object:
        if len(value) < 3 or type(value[1]) is not str or type(value[2]) is not str:
            raise _malformed(value)
        properties: dict[str, object] = {}
        if len(value) > 4:
            if not isinstance(value[4], dict):
                raise _malformed(value)
            properties = self._object(value[4], depth + 1)
        self._values += ERROR_VALUES
        error = self._aggregate(value, properties) or RpcError(value[2], name=value[1])
        if len(value) > 3 and isinstance(value[3], str):
            error.stack = value[3]
        # JavaScript takes anything for a cause; what is none in Python remains a property.
        if isinstance(properties.get("cause"), RpcError):
            error.__cause__ = properties.pop("cause")  # type: ignore[assignment]  # it is an error
        # The very same dict: promises in it have their places noted.
        error.properties = properties
        return error

    def _aggregate(self, value: list[object], properties: dict[str, object]) -> RpcError | None:
        errors = properties.get("errors")
        if value[1] != "AggregateError" or type(errors) is not list or not errors:
            return None
        if not all(isinstance(error, RpcError) for error in errors):
            return None
        del properties["errors"]
        return AggregateError(value[2], errors)  # type: ignore[arg-type]  # just checked

    def _export(self, value: list[object], _depth: int) -> object:
        return Stub(self._importer.import_stub(_entry_id(value)))

    def _promise(self, value: list[object], _depth: int) -> object:
        return Promise(self._importer.import_promise(_entry_id(value)))

    def _readable(self, value: list[object], _depth: int) -> ReadableStream:
        return stream_from_pipe(self._importer.take_pipe(_entry_id(value)))

    def _writable(self, value: list[object], _depth: int) -> object:
        return stream_to(Stub(self._importer.import_stub(_entry_id(value))))

    def _import(self, value: list[object], depth: int) -> object:
        return Stub(self._imported(value, depth))

    def _remap(self, value: list[object], _depth: int) -> object:
        if len(value) != 5 or type(value[1]) is not int:
            raise _malformed(value)
        captures, instructions = value[3], value[4]
        if type(captures) is not list or type(instructions) is not list or not instructions:
            raise _malformed(value)
        reference, path = self._importer.exported(value[1]), _path(value[2])
        captured: list[Reference] = []
        try:
            for capture in captures:
                captured.append(self._captured(capture))  # noqa: PERF401 -- those before an error are released
        except ProtocolError:
            for made in captured:
                made.release()
            raise
        return Promise(reference.map(path, captured, instructions, self._importer.map_budget()))

    def _captured(self, value: object) -> Reference:
        """Return a hold on what a mapper function refers to from outside."""
        if type(value) is list and len(value) == 2 and type(value[1]) is int:
            if value[0] == "import":
                return self._importer.exported(value[1]).retain()
            if value[0] == "export":
                return self._importer.import_stub(value[1])
        raise ProtocolError("malformed expression: a capture is ['import', n] or ['export', n]")

    def _pipeline(self, value: list[object], depth: int) -> object:
        return Promise(self._imported(value, depth))

    def _imported(self, value: list[object], depth: int, decoder: Decoder | None = None) -> Reference:
        """Return a hold on what an ``import`` or ``pipeline`` expression refers to, calling it if asked.

        The arguments are a payload of their own: the call owns them, not the message around it. So they
        have a decoder of their own, too: ``decoder``, if there is one that nothing else needs.
        """
        if not 2 <= len(value) <= 4 or type(value[1]) is not int:
            raise _malformed(value)
        session = self._session
        if session is None:
            reference = self._importer.exported(value[1])
        else:
            reference = session.exports.reference(value[1])
        path = _path(value[2]) if len(value) > 2 else ()
        if len(value) < 4:
            return reference.get(path)
        if type(value[3]) is not list:
            raise _malformed(value)
        if decoder is None:
            decoder = Decoder(self._owner, self._importer, session)
        return reference.call(path, decoder.arguments(value[3], depth))


_DECODERS: Final[dict[str, Callable[[Decoder, list[object], int], object]]] = {
    "undefined": Decoder._undefined,
    "inf": Decoder._infinity,
    "-inf": Decoder._minus_infinity,
    "nan": Decoder._nan,
    "bigint": Decoder._bigint,
    "blob": Decoder._blob,
    "url": Decoder._url,
    "headers": Decoder._headers,
    "request": Decoder._request,
    "response": Decoder._response,
    "error": Decoder._error,
    "export": Decoder._export,
    "promise": Decoder._promise,
    "import": Decoder._import,
    "remap": Decoder._remap,
    "readable": Decoder._readable,
    "writable": Decoder._writable,
    "pipeline": Decoder._pipeline,
}


def _entry_id(value: list[object]) -> int:
    if len(value) != 2 or type(value[1]) is not int:
        raise _malformed(value)
    return value[1]


# Of what most expressions stand for, and is no stub.
_PLAIN: Final = frozenset({datetime, bytes, Undefined, float, BigInt, RpcError})

_from_base64: Final = binascii.a2b_base64

_NO_PATH: Final = "malformed expression: a property path is a list of names"


def _path(value: object) -> Path:
    if type(value) is not list:
        raise ProtocolError(_NO_PATH)
    for name in value:
        if not _is_name(name):
            raise ProtocolError(_NO_PATH)
    return tuple(value)


def _is_name(value: object) -> bool:
    # Names may be passed on to a peer whose encoding has no longer integers.
    return type(value) is str or (type(value) is int and is_safe(value))


def _malformed(value: list[object]) -> ProtocolError:
    # Only the kind is named: what else the peer sent may be private, and errors get logged.
    tag = value[0] if value else None
    shown = tag[:32] if isinstance(tag, str) else type(tag).__name__
    return ProtocolError(f"malformed or unknown expression: {shown!r}")
