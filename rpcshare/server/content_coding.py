"""Compressed bodies, both ways (RFC 9110, sections 8.4 and 12.5.3)."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

import zstandard
from starlette.requests import Request

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.body_limits import hold_decoded, release_held
from rpcshare.server.failures import HttpError
from rpcshare.server.request import body_chunks, read_body

__all__ = [
    "CODINGS",
    "coding_of",
    "compress",
    "compress_parts",
    "decoded_chunks",
    "decoded_length",
    "decompress",
    "read_decoded_body",
    "wanted_coding",
]

CODINGS = ("zstd", "gzip")
"""Those that are spoken here, the better one first."""

_ALIASES = {"x-gzip": "gzip"}
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 5
_PART = 2**20  # bytes that are decoded at a time
_PIECE, _SMALLEST_PIECE = 64 * 1024, 64  # bytes of which that is done
_SHORT = 64 * 1024  # bytes: what is not longer, before and after, is decompressed on the event loop
_WINDOW = 8 * 2**20  # bytes: what RFC 9659 has a decoder of zstd take, and no more


def wanted_coding(request: Request) -> str | None:
    """Return the coding that the client prefers by its ``Accept-Encoding``; None: no coding.

    Source: RFC 9110, section 12.5.3. A request may name codings in more than one line.
    """
    accept = ", ".join(request.headers.getlist("accept-encoding"))
    if not accept:
        return None
    likes: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, _, parameters = part.partition(";")
        name = name.strip()
        likes[_ALIASES.get(name, name)] = _quality(parameters)
    rest = likes.get("*", 0.0)
    best = max(CODINGS, key=lambda coding: likes.get(coding, rest))  # of equals the first
    like = likes.get(best, rest)
    return best if like > 0 and like >= likes.get("identity", 0.0) else None


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0  # what cannot be read is not asked for


def compress(body: bytes, coding: str) -> bytes:
    """Return ``body`` in one of :data:`CODINGS`."""
    if coding == "zstd":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)


def compress_parts(parts: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """Yield what ``parts`` make together, in one of :data:`CODINGS`, in parts again."""
    zstd, gzipped = zstandard.ZstdCompressor(level=_ZSTD_LEVEL), 16 + zlib.MAX_WBITS
    encoder = zstd.compressobj() if coding == "zstd" else zlib.compressobj(_GZIP_LEVEL, wbits=gzipped)
    for part in parts:
        if made := encoder.compress(part):
            yield made
    yield encoder.flush()


def coding_of(request: Request) -> str:
    """Return in what the body of a request is: one of :data:`CODINGS`, or ``identity``.

    Raises:
        HttpError: UNSUPPORTED_MEDIA_TYPE, for another coding, and for more than one.
    """
    named = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    coding = _ALIASES.get(named, named) or "identity"
    if coding != "identity" and coding not in CODINGS:
        message = f"Content-Encoding: expected one of {', '.join(CODINGS)}, identity"
        raise HttpError(415, "UNSUPPORTED_MEDIA_TYPE", message, {"Accept-Encoding": ", ".join(CODINGS)})
    return coding


def decoded_length(body: bytes, coding: str, bound: int) -> int:
    """Return how long the body is that came as ``coding``. Only a part of it is in memory at a time.

    Raises:
        ShareError: PAYLOAD_TOO_LARGE, for more than ``bound`` bytes, if that is not 0; INVALID_ARGUMENT, for
            a body that is not what it says it is.
    """
    length = 0
    for part in _decoding(body, coding):
        length += len(part)
        _check_length(length, bound)
    return length


def decompress(body: bytes, coding: str, bound: int) -> bytes:
    """Return what a body stands for that came as ``coding``.

    Args:
        body: as it came.
        coding: of :data:`CODINGS`.
        bound: the greatest length of what is returned, 0 for any. Not much more than that is ever made.

    Raises:
        ShareError: as :func:`decoded_length` does.
    """
    decoded = bytearray()
    for part in _decoding(body, coding):
        decoded += part
        _check_length(len(decoded), bound)
    return bytes(decoded)


async def read_decoded_body(
    request: Request, bound: int, before_decoding: Callable[[], Awaitable[None]] | None = None
) -> bytes:
    """Return what the body of a request stands for: at most ``bound`` bytes, before and after; 0 for any.

    Args:
        request: whose body it is.
        bound: of the length.
        before_decoding: raises what makes it needless to decode a compressed body.

    Raises:
        ShareError, HttpError: as :func:`~rpcshare.server.request.read_body`, :func:`coding_of` and
            :func:`decompress` do. ShareError: RATE_LIMITED, if too much is in memory of that network.
    """
    coding = coding_of(request)
    body = await read_body(request, bound)
    if not body or coding == "identity":
        return body
    if before_decoding is not None:
        await before_decoding()
    decoded = _decompress_short(body, coding)
    if decoded is not None:
        hold_decoded(request.scope, len(decoded))
        _check_length(len(decoded), bound)
        return decoded
    # What it takes is known, and counted, before it is taken.
    hold_decoded(request.scope, await asyncio.to_thread(decoded_length, body, coding, bound))
    return await asyncio.to_thread(decompress, body, coding, bound)


async def decoded_chunks(
    request: Request, coding: str, bound: int, at_once: int
) -> AsyncGenerator[bytes, None]:
    """Yield what the body of a request stands for, as it comes: at most ``bound`` bytes; 0 for any number.

    Of gzip no more than ``at_once`` bytes are decoded at a time; of zstd, what a few blocks hold.
    What is yielded is counted as held in memory (:func:`~rpcshare.server.body_limits.hold_decoded`) instead
    of what came.

    Raises:
        ShareError: as :func:`~rpcshare.server.request.body_chunks` and :func:`decompress` do. RATE_LIMITED,
            if too much is in memory of that network.
    """
    decoder = _decoder(coding, min(at_once, _PART))
    length = 0
    async for chunk in body_chunks(request, bound):
        parts = decoder.feed(chunk)
        start = length
        while True:
            is_short = len(chunk) <= _SHORT and length - start <= _SHORT
            part = next(parts, None) if is_short else await asyncio.to_thread(next, parts, None)
            if part is None:
                break
            length += len(part)
            _check_length(length, bound)
            hold_decoded(request.scope, len(part))
            yield part
        release_held(request.scope, len(chunk))
    for part in decoder.finish():
        length += len(part)
        _check_length(length, bound)
        hold_decoded(request.scope, len(part))
        yield part


def _decompress_short(body: bytes, coding: str) -> bytes | None:
    """Return what a body stands for, if that is short enough for the event loop."""
    if len(body) > _SHORT:
        return None
    decoded = bytearray()
    for part in _decoding(body, coding):
        decoded += part
        if len(decoded) > _SHORT:
            return None
    return bytes(decoded)


def _decoding(body: bytes, coding: str) -> Iterator[bytes]:
    decoder = _decoder(coding)
    yield from decoder.feed(body)
    yield from decoder.finish()


def _decoder(coding: str, at_once: int = _PART) -> _Decoder:
    return _ZstdDecoder() if coding == "zstd" else _GzipDecoder(at_once)


class _Decoder(ABC):
    """Decodes a body as it comes, in parts that are not much longer than ``_PART``."""

    _coding: str

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the body stand for.

        Raises:
            ShareError: INVALID_ARGUMENT: it is not what it says it is.
        """
        try:
            yield from self._decode(chunk)
        except (zstandard.ZstdError, zlib.error, EOFError) as exc:
            raise self._fault() from exc

    def finish(self) -> Iterator[bytes]:
        """Yield what is left, at the end of the body.

        Raises:
            ShareError: INVALID_ARGUMENT: it is not complete.
        """
        try:
            yield from self._rest()
        except (zstandard.ZstdError, zlib.error) as exc:
            raise self._fault() from exc
        if not self._is_complete():
            raise self._fault()

    def _fault(self) -> ShareError:
        return ShareError(ErrorCode.INVALID_ARGUMENT, f"the body is not {self._coding}, or not all of it")

    @abstractmethod
    def _decode(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what ``chunk`` stands for; raise EOFError if it follows the end."""

    def _rest(self) -> Iterator[bytes]:
        yield from ()

    @abstractmethod
    def _is_complete(self) -> bool:
        """Whether the body has come to its end, and nothing behind it."""


class _GzipDecoder(_Decoder):
    _coding = "gzip"

    def __init__(self, at_once: int) -> None:
        self._decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._at_once = at_once

    def _decode(self, chunk: bytes) -> Iterator[bytes]:
        for start in range(0, len(chunk), _PIECE):
            piece = chunk[start : start + _PIECE]
            if self._decoder.eof:
                raise EOFError
            while piece:
                yield self._decoder.decompress(piece, self._at_once)
                piece = self._decoder.unconsumed_tail

    def _rest(self) -> Iterator[bytes]:
        # What the decoder holds back while its input is used up.
        while not self._decoder.eof and (part := self._decoder.decompress(b"", self._at_once)):
            yield part

    def _is_complete(self) -> bool:
        return self._decoder.eof and not self._decoder.unused_data


class _ZstdDecoder(_Decoder):
    # One block of 128 KiB takes 4 bytes at least (RFC 8878, section 3.1.1.2): pieces are so small that no
    # more than a part comes of one.
    _coding = "zstd"

    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._step = _SMALLEST_PIECE

    def _decode(self, chunk: bytes) -> Iterator[bytes]:
        start = 0
        while start < len(chunk):
            if self._decoder.eof:
                raise EOFError
            step = self._step
            part = self._decoder.decompress(chunk[start : start + step])
            start += step
            # As long as little comes of them, they may be larger.
            self._step = min(2 * step, _PIECE) if len(part) <= 8 * step else _SMALLEST_PIECE
            if part:
                yield part

    def _is_complete(self) -> bool:
        return self._decoder.eof and not self._decoder.unused_data


def _check_length(length: int, bound: int) -> None:
    if bound and length > bound:
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than {bound:,} bytes")
