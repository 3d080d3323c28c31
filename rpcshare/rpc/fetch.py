"""JavaScript's Blob, URL, Headers, Request and Response, as far as the wire shows them.

Each is checked when it is made, by the rules by which JavaScript would refuse it, so that what can be made
here can be made by the peer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final, Self, TypeAlias

import msgspec

from rpcshare.rpc.errors import LimitExceededError, RpcError
from rpcshare.rpc.streams import ReadableStream
from rpcshare.rpc.stub import Shared

__all__ = ["URL", "Blob", "Body", "Headers", "Request", "Response"]

Body: TypeAlias = "str | bytes | ReadableStream | None"

# What one message carries of a blob: as much as Node.js reads of one at once.
BLOB_CHUNK: Final = 64 * 1024


class Blob(msgspec.Struct, frozen=True):
    """Bytes with a media type, sent as a stream however many they are, and whole when they are delivered."""

    data: bytes
    type: str = ""
    """In lower case; empty if none is known, or if it has characters beyond ASCII."""

    def __post_init__(self) -> None:
        plain = self.type.isascii() and self.type.isprintable()
        msgspec.structs.force_setattr(self, "type", self.type.lower() if plain else "")

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, in pieces that make messages of a reasonable size."""
        for start in range(0, len(self.data), BLOB_CHUNK):
            yield self.data[start : start + BLOB_CHUNK]

    def __repr__(self) -> str:
        return f"<Blob {self.type!r} of {len(self.data)} bytes>"


class URL(str):
    """An absolute URL, as text. It is not normalised here, which JavaScript does when it arrives there.

    Raises:
        ValueError: it is not absolute, or nothing that JavaScript would take for a URL.
    """

    __slots__ = ()

    def __new__(cls, href: str) -> Self:
        """Check ``href``, and return it as a URL."""
        match = _ABSOLUTE.fullmatch(href)
        if match is None:
            raise ValueError("not an absolute URL")
        if match["scheme"].lower() in _SCHEMES_WITH_HOST:
            server = _SERVER.fullmatch(_authority(href))
            if server is None or int(server["port"] or 0) > 65535:
                raise ValueError("a URL without a host, or with a port that there is not")
        return super().__new__(cls, href)

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"


_ABSOLUTE: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?:[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?"
)
_SCHEMES_WITH_HOST: Final = frozenset({"http", "https", "ws", "wss", "ftp"})
_SERVER: Final = re.compile(r"(?:.*@)?(?:\[[0-9A-Fa-f:.]+\]|[^@:\[\] ]+)(?::(?P<port>[0-9]{0,5}))?")


def _authority(href: str) -> str:
    # urllib.parse would do, but keeps what it has parsed in a cache, and this may come from anybody.
    match = re.match(r"[^:]+://([^/?#\\]*)", href)
    return match[1] if match else ""


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[^\x00\r\n\u0100-\U0010ffff]*")
_REASON: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Headers(Mapping[str, str]):
    """HTTP headers: names without regard to case, in order, each with one or several values.

    ``headers["accept"]`` has all the values of a name, separated by commas; :meth:`get_list` has them one by
    one. It does not change.

    Args:
        init: other headers, a mapping, or pairs of a name and a value.

    Raises:
        ValueError: a name or a value is one that HTTP does not have.
    """

    __slots__ = ("_pairs",)

    def __init__(self, init: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        if isinstance(init, Headers):
            self._pairs: tuple[tuple[str, str], ...] = init._pairs  # noqa: SLF001 -- another of this class
            return
        pairs = init.items() if isinstance(init, Mapping) else init
        self._pairs = tuple((_name(name), _header_value(value)) for name, value in pairs)

    def pairs(self) -> list[tuple[str, str]]:
        """Return each name, in lower case, with each of its values, in order."""
        return list(self._pairs)

    def get_list(self, name: str) -> list[str]:
        """Return the values of a name, in order."""
        name = name.lower()
        return [value for other, value in self._pairs if other == name]

    def __getitem__(self, name: str) -> str:
        values = self.get_list(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in dict(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        # Values may be credentials.
        return f"<Headers {', '.join(self) or 'none'}>"


def _name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError("not a name of an HTTP header")
    return name.lower()


def _header_value(value: str) -> str:
    value = value.strip(" \t\r\n")
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("not a value of an HTTP header")
    return value


class _Message(Shared):
    """What a request and a response have in common."""

    __slots__ = ("body", "headers", "options")

    # Members of the wire's description that are not options, and those that cannot be sent.
    KNOWN: ClassVar[frozenset[str]]
    REFUSED: ClassVar[str]

    def __init__(
        self,
        body: Body,
        headers: Mapping[str, str] | Iterable[tuple[str, str]],
        options: Mapping[str, object] | None,
    ) -> None:
        super().__init__()
        if not isinstance(body, str | bytes | ReadableStream | None):
            raise TypeError("a body is text, bytes, a ReadableStream, or None")
        self.body: Body = body
        self.headers = Headers(headers)
        self.options: dict[str, object] = dict(options or {})
        if self.REFUSED in self.options:
            raise ValueError(f"{self.REFUSED} cannot be sent")
        for name in self.KNOWN & self.options.keys():
            raise ValueError(f"{name} is not an option")

    async def read(self, max_bytes: int | None = None) -> bytes:
        """Return the whole body; that of a stream can be read once.

        Raises:
            LimitExceededError: it has more than ``max_bytes``.
            Exception: what broke the stream off.
        """
        if not isinstance(self.body, ReadableStream):
            data = self.body.encode() if isinstance(self.body, str) else self.body or b""
            _check_size(len(data), max_bytes)
            return data
        read = bytearray()
        try:
            async for chunk in self.body:
                read += _bytes(chunk)
                _check_size(len(read), max_bytes)
        except RpcError as exc:
            await self.body.cancel(exc)
            raise
        return bytes(read)

    def let_go(self) -> None:
        """Let go of a body that is a stream."""
        if isinstance(self.body, ReadableStream):
            self.body.dispose()

    def _described(self, start: Mapping[str, object]) -> dict[str, object]:
        described = dict(start)
        if self.headers:
            described["headers"] = [list(pair) for pair in self.headers.pairs()]
        return described

    @classmethod
    def _options_of(cls, described: Mapping[str, object]) -> dict[str, object]:
        return {name: value for name, value in described.items() if name not in cls.KNOWN}


def _bytes(chunk: object) -> bytes:
    if not isinstance(chunk, bytes):
        raise RpcError("a body is a stream of bytes", name="TypeError")
    return chunk


def _check_size(size: int, bound: int | None) -> None:
    if bound is not None and size > bound:
        raise LimitExceededError("bytes of a body", bound)


class Request(_Message):
    """A request of the Fetch standard.

    Args:
        url: absolute, without credentials.
        method: of HTTP; GET and HEAD have no body.
        headers: as for :class:`Headers`.
        body: a stream can be sent or read once.
        options: further members of JavaScript's ``RequestInit``, such as ``redirect``: plain JSON.

    Raises:
        ValueError: JavaScript would not make such a request.
    """

    __slots__ = ("method", "url")

    KNOWN = frozenset({"method", "headers", "body", "duplex"})
    REFUSED = "signal"

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: Body = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(body, headers, options)
        self.url = URL(url)
        if "@" in _authority(self.url):
            raise ValueError("a request's URL has no credentials")
        self.method = _method(method)
        if body is not None and self.method in ("GET", "HEAD"):
            raise ValueError(f"{self.method} has no body")

    def described(self) -> dict[str, object]:
        """Return the request as the wire has it, but for its URL and its body."""
        return self._described({} if self.method == "GET" else {"method": self.method})

    @classmethod
    def from_description(cls, url: str, described: Mapping[str, object], body: Body) -> Request:
        """Return the request that the wire describes so.

        Raises:
            ValueError, TypeError: it describes none.
        """
        return cls(
            url,
            method=_text(described, "method", "GET"),
            headers=_pairs(described),
            body=body,
            options=cls._options_of(described),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # its options can be changed

    def _key(self) -> tuple[object, ...]:
        return (self.url, self.method, self.headers, self.body, self.options)

    def __repr__(self) -> str:
        # A URL, too, may hold what is secret.
        return f"<Request {self.method}>"


class Response(_Message):
    """A response of the Fetch standard.

    Args:
        body: a stream can be sent or read once.
        status: from 200 to 599; 204, 205 and 304 have no body.
        status_text: the reason phrase.
        headers: as for :class:`Headers`.
        options: further members of JavaScript's ``ResponseInit``: plain JSON.

    Raises:
        ValueError: JavaScript would not make such a response.
    """

    __slots__ = ("status", "status_text")

    KNOWN = frozenset({"status", "statusText", "headers"})
    REFUSED = "webSocket"

    def __init__(
        self,
        body: Body = None,
        *,
        status: int = 200,
        status_text: str = "",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        options: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(body, headers, options)
        if not 200 <= status <= 599:
            raise ValueError("a status is from 200 to 599")
        if body is not None and status in (204, 205, 304):
            raise ValueError(f"{status} has no body")
        if not _REASON.fullmatch(status_text):
            raise ValueError("not a reason phrase of HTTP")
        self.status = status
        self.status_text = status_text

    def described(self) -> dict[str, object]:
        """Return the response as the wire has it, but for its body."""
        start: dict[str, object] = {}
        if self.status != 200:
            start["status"] = self.status
        if self.status_text:
            start["statusText"] = self.status_text
        return self._described(start)

    @classmethod
    def from_description(cls, body: Body, described: Mapping[str, object]) -> Response:
        """Return the response that the wire describes so.

        Raises:
            ValueError, TypeError: it describes none.
        """
        status = described.get("status", 200)
        if type(status) is not int:
            raise TypeError("a status is a whole number")
        return cls(
            body,
            status=status,
            status_text=_text(described, "statusText", ""),
            headers=_pairs(described),
            options=cls._options_of(described),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Response) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]  # its options can be changed

    def _key(self) -> tuple[object, ...]:
        return (self.status, self.status_text, self.headers, self.body, self.options)

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


_NORMALIZED_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
_FORBIDDEN_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})


def _method(method: str) -> str:
    if not _TOKEN.fullmatch(method):
        raise ValueError("not a method of HTTP")
    upper = method.upper()
    if upper in _FORBIDDEN_METHODS:
        raise ValueError(f"a request cannot be {upper}")
    return upper if upper in _NORMALIZED_METHODS else method


def _text(described: Mapping[str, object], name: str, default: str) -> str:
    value = described.get(name, default)
    if not isinstance(value, str):
        raise TypeError(f"{name} is text")
    return value


def _pairs(described: Mapping[str, object]) -> list[tuple[str, str]]:
    return header_pairs(described.get("headers") or [])


def header_pairs(value: object) -> list[tuple[str, str]]:
    """Return the pairs of a name and a value that ``value`` is a list of, as the wire has headers.

    Raises:
        TypeError: it is something else.
    """
    pairs: list[tuple[str, str]] = []
    if not isinstance(value, list):
        raise TypeError("headers are a list of pairs")
    for pair in value:
        match pair:
            case [str(name), str(text)]:
                pairs.append((name, text))
            case _:
                raise TypeError("headers are a list of pairs of text")
    return pairs
