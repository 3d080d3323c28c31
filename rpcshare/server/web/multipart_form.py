"""Forms with files: ``multipart/form-data`` (RFC 7578)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.request import read_body

__all__ = ["MultipartForm", "SentFile", "read_multipart"]

_MAX_FIELDS = 10


class SentFile(NamedTuple):
    """A file that a form has sent."""

    name: str
    media_type: str
    """As the browser says: it may be anything."""
    content: bytes


class MultipartForm(NamedTuple):
    """The fields of a form, and its files."""

    fields: dict[str, str]
    files: list[SentFile]


async def read_multipart(request: Request, *, most_bytes: int, most_files: int) -> MultipartForm:
    """Return a form of at most ``most_bytes`` in all.

    Raises:
        ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not a form with files")
    body = await read_body(request, most_bytes)  # which bounds it, however it is encoded
    # Browsers send an empty file for a field in which none is chosen.
    parser = MultiPartParser(
        request.headers,
        _once(body),
        max_files=most_files + 1,
        max_fields=_MAX_FIELDS,
        max_part_size=most_bytes,
    )
    parser.spool_max_size = most_bytes  # nothing of it goes to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError, ValueError):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "the form cannot be read") from None
    fields: dict[str, str] = {}
    files: list[SentFile] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            if value.filename or content:
                files.append(SentFile(value.filename or "", value.content_type or "", content))
        else:
            fields[name] = value
    await form.close()
    if len(files) > most_files:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"files: at most {most_files}")
    return MultipartForm(fields, files)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
