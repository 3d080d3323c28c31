"""Compressed bodies, both ways (RFC 9110, sections 8.4 and 12.5.3)."""

from __future__ import annotations

import asyncio
import gzip
import io
import zlib

import zstandard
from starlette.requests import Request

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.failures import HttpError
from rpcshare.server.request import read_body

__all__ = ["CODINGS", "choose_coding", "compress", "decompress", "read_decoded_body"]

CODINGS = ("zstd", "gzip")
"""Those that are spoken here, the better one first."""

_ALIASES = {"x-gzip": "gzip"}
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 5
_PART = 2**20  # bytes
_IN_THREAD_FROM = 64 * 1024  # bytes: what is shorter is decompressed on the event loop
_WINDOW = 8 * 2**20  # bytes: what RFC 9659 has a decoder of zstd take, and no more


def choose_coding(accept: str | None) -> str | None:
    """Return the coding that a client with this ``Accept-Encoding`` likes best; None: as it is."""
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


def decompress(body: bytes, coding: str, bound: int) -> bytes:
    """Return what a body that came with ``Content-Encoding: coding`` stands for.

    Args:
        body: as it came.
        coding: of :data:`CODINGS` or ``identity``.
        bound: the greatest length of what is returned, 0 for any. No more than that is ever made.

    Raises:
        HttpError: UNSUPPORTED_MEDIA_TYPE, for another coding, and for more than one.
        ShareError: PAYLOAD_TOO_LARGE; INVALID_ARGUMENT, for a body that is not what it says it is.
    """
    coding = coding.strip().lower()
    coding = _ALIASES.get(coding, coding)
    if coding in ("", "identity"):
        return body
    if coding not in CODINGS:
        message = f"Content-Encoding: expected one of {', '.join(CODINGS)}, identity"
        raise HttpError(415, "UNSUPPORTED_MEDIA_TYPE", message, {"Accept-Encoding": ", ".join(CODINGS)})
    try:
        return (_unzstd if coding == "zstd" else _gunzip)(body, bound)
    except (zstandard.ZstdError, zlib.error, EOFError) as exc:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"the body is not {coding}, or not all of it") from exc


async def read_decoded_body(request: Request, bound: int) -> bytes:
    """Return what the body of a request stands for: at most ``bound`` bytes, before and after; 0 for any.

    Raises:
        ShareError, HttpError: as :func:`~rpcshare.server.request.read_body` and :func:`decompress` do.
    """
    body = await read_body(request, bound)
    coding = ", ".join(request.headers.getlist("content-encoding"))
    if not body or not coding:
        return body
    if len(body) < _IN_THREAD_FROM:
        return decompress(body, coding, bound)
    return await asyncio.to_thread(decompress, body, coding, bound)


def _gunzip(body: bytes, bound: int) -> bytes:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    decoded = decoder.decompress(body, bound + 1 if bound else 0)
    _check_length(len(decoded), bound)
    if not decoder.eof or decoder.unused_data:
        raise EOFError
    return decoded


def _unzstd(body: bytes, bound: int) -> bytes:
    # What can be bounded does not tell whether a frame was whole, and the other way round.
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    length = 0
    with decoder.stream_reader(io.BytesIO(body)) as reader:
        while part := reader.read(_PART):
            length += len(part)
            _check_length(length, bound)
    whole = decoder.decompressobj()
    decoded = whole.decompress(body)
    if not whole.eof or whole.unused_data:
        raise EOFError
    return decoded


def _check_length(length: int, bound: int) -> None:
    if bound and length > bound:
        raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, f"the body is larger than {bound:,} bytes")
