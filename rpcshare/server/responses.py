"""Answers in JSON: which version they are of, whether the client has that, and in what coding they leave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from hashlib import blake2b
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rpcshare.server.compressed_documents import Compressed, CompressedDocuments
from rpcshare.server.content_coding import CODINGS, compress, wanted_coding
from rpcshare.shares.document import Document, Version
from rpcshare.shares.old_versions import Hold
from rpcshare.structured_log import structlog

__all__ = [
    "DocumentResponses",
    "PartsSource",
    "has_newest",
    "json_response",
    "not_modified_response",
    "read_response",
]

logger = structlog.get_logger("rpcshare.server")

# Up to this, in bytes, an answer is made and sent as a whole.
_WHOLE = 256 * 1024

# Below this, in bytes, compression gains nothing; above that it is kept off the event loop.
_COMPRESSED_FROM = 1024
_IN_THREAD_FROM = 64 * 1024

# Shares change while they are looked at, and some are not for everybody.
_READ_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Encoding, Authorization, Cookie, X-Opencode-Share-Key",
}

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')


def json_response(body: bytes) -> Response:
    """Return the answer to a request that has changed something. It may hold a secret."""
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")


class DocumentResponses:
    """Answers with shares. A large one leaves in parts, each when the client has taken most of the last.

    So a client that is slow holds one part and what the share is made of, which is there for all. In a coding
    a document is made once for all who read it, as long as there is memory for that; then it leaves as it is.
    """

    def __init__(self) -> None:
        self._compressed = CompressedDocuments()
        # One, so that the memory that writing takes is taken once; it starts with the first export.
        self._writing = ThreadPoolExecutor(1, "rpcshare-writing")

    async def answer(
        self,
        request: Request,
        document: Document,
        own_headers: Mapping[str, str] = {},
        media_type: str = "application/json",
    ) -> Response:
        """Return a share."""
        version = document.version
        tag, more_headers = _tag(version), {**_last_modified(version), **own_headers}
        if document.size <= _WHOLE:
            return await _answer(request, document.body, tag, more_headers, media_type)
        headers = {**_READ_HEADERS, **more_headers}
        coding = wanted_coding(request)
        compressed = None
        if coding is not None:
            compressed = await self._compressed.get(document, coding, is_made=request.method != "HEAD")
        if compressed is not None:
            headers["Content-Encoding"] = compressed.coding
            tag = _coded(tag, compressed.coding)
        source = compressed or document
        headers |= {"ETag": f'"{tag}"', "Content-Length": str(source.size)}
        return _PartsResponse(source, headers, media_type)

    def answer_with_parts(
        self,
        source: PartsSource,
        version: Version,
        own_headers: Mapping[str, str],
        media_type: str,
        coding: str | None = None,
    ) -> Response:
        """Return what is made of a version of a share.

        Args:
            source: makes it.
            version: of which share.
            own_headers: to send.
            media_type: of what is made.
            coding: in which its parts are.
        """
        headers = {**_READ_HEADERS, **_last_modified(version), **own_headers}
        tag = _tag(version)
        if coding is not None:
            headers["Content-Encoding"] = coding
            tag = _coded(tag, coding)
        headers["ETag"] = f'"{tag}"'
        if source.size is not None:
            headers["Content-Length"] = str(source.size)
        return _PartsResponse(source, headers, media_type, self._writing if source.is_slow else None)


class PartsSource(Protocol):
    """What makes an answer part by part."""

    size: int | None
    """In bytes; None if nobody knows before."""
    is_slow: bool
    """Whether a part may take longer than the event loop can wait."""

    def parts(self) -> Iterator[bytes]:
        """Yield the parts."""

    def hold(self, let_go: Callable[[], object]) -> Hold | None:
        """Count what it is made of as held, as :meth:`Document.hold` does."""


class _PartsResponse(Response):
    def __init__(
        self,
        source: Document | Compressed | PartsSource,
        headers: Mapping[str, str],
        media_type: str,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._source = source
        self._thread = thread
        self.media_type = media_type
        self.status_code = 200
        self.background = None
        # Before there is a body: Starlette would tell its length.
        self.init_headers(headers)
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all parts."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD" or await self._send_parts(receive, send):
            await send({"type": "http.response.body", "body": b""})

    async def _send_parts(self, receive: Receive, send: Send) -> bool:
        """Send all parts but the last, which is empty; return whether the client is there to the end."""
        gone = asyncio.create_task(_until_gone(receive))
        hold = None if isinstance(self._source, Compressed) else self._source.hold(gone.cancel)
        sending = asyncio.create_task(self._send_each(send))
        try:
            await asyncio.wait([gone, sending], return_when=asyncio.FIRST_COMPLETED)
            if gone.cancelled():
                logger.warning("a client that is slow is cut off: too much is held that is out of date")
            elif not gone.done():
                await sending
                return True
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)
            if hold is not None:
                hold.end()
        return False

    async def _send_each(self, send: Send) -> None:
        parts = iter(self._source.parts())
        while (part := await self._next(parts)) is not None:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)  # a client that takes all at once is not the only one

    async def _next(self, parts: Iterator[bytes]) -> bytes | None:
        if self._thread is None:
            return next(parts, None)
        return await asyncio.get_running_loop().run_in_executor(self._thread, next, parts, None)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_response(request: Request, body: bytes) -> Response:
    """Return what has no version of its own, such as a page of a listing: its content stands for that."""
    tag = blake2b(body, digest_size=16).hexdigest()
    if _knows(request, tag):
        return _unchanged(tag, {})
    return await _answer(request, body, tag, {})


def has_newest(request: Request, version: Version) -> bool:
    """Whether the client says that it has this version."""
    return _knows(request, _tag(version))


def not_modified_response(version: Version) -> Response:
    """Return the answer to a client that has the newest version."""
    return _unchanged(_tag(version), _last_modified(version))


async def _answer(
    request: Request,
    body: bytes,
    tag: str,
    more_headers: Mapping[str, str],
    media_type: str = "application/json",
) -> Response:
    headers = {**_READ_HEADERS, **more_headers}
    coding = wanted_coding(request) if len(body) >= _COMPRESSED_FROM else None
    if coding is not None:
        if len(body) < _IN_THREAD_FROM:
            body = compress(body, coding)
        else:
            body = await asyncio.to_thread(compress, body, coding)
        headers["Content-Encoding"] = coding
        tag = _coded(tag, coding)
    headers["ETag"] = f'"{tag}"'
    return Response(body, headers=headers, media_type=media_type)


def _coded(tag: str, coding: str) -> str:
    return f"{tag}-{coding}"  # other bytes, so another tag (RFC 9110, section 8.8.3.3)


def _unchanged(tag: str, more_headers: dict[str, str]) -> Response:
    return Response(status_code=304, headers={**_READ_HEADERS, **more_headers, "ETag": f'"{tag}"'})


def _tag(version: Version) -> str:
    return f"{version.generation}-{version.sync_count}"


def _last_modified(version: Version) -> dict[str, str]:
    return {"Last-Modified": formatdate(version.last_updated / 1000, usegmt=True)}


def _knows(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names a tag, in whatever coding that was."""
    value = ", ".join(request.headers.getlist("if-none-match"))
    return value.strip() == "*" or tag in _without_codings(_TAG.findall(value))


def _without_codings(tags: Iterable[str]) -> set[str]:
    return {
        tag.removesuffix(suffix) for tag in tags for suffix in ("", *(f"-{coding}" for coding in CODINGS))
    }
