"""Files of a share: all of it in a form for other programs, and what is attached to its parts."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote_to_bytes
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import Response

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.long_work import LongWork
from rpcshare.server.content_coding import compress_parts, wanted_coding
from rpcshare.server.failures import HttpError
from rpcshare.server.file_names import content_disposition, safe_file_name
from rpcshare.server.operation import Handler, Needs, Operation, Parameter
from rpcshare.server.responses import DocumentResponses, has_newest, not_modified_response
from rpcshare.shares.document import Document, Form, Version
from rpcshare.shares.old_versions import Hold
from rpcshare.shares.outline import Transcript
from rpcshare.shares.service import ShareService
from rpcshare.shares.syncdata import PART, text_parts
from rpcshare.transcripts import EXPORTS, ExportFormat, Turn, Turns

__all__ = ["ShareFiles"]

_FORMAT = Parameter(
    name="format",
    place="query",
    schema={"type": "string", "enum": [*ExportFormat]},
    description="`opencode`: what `opencode import FILE` takes; `markdown`; `json`: an AgentSession; "
    "`jsonl`: SyncData, one a line.",
    is_required=True,
)

_FORMS = {ExportFormat.JSON: Form.AGENT_SESSION, ExportFormat.JSONL: Form.SYNC_DATA_LINES}
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,80}/[\w.+-]{1,80}", re.ASCII)
_ANY_BYTES = "application/octet-stream"

# Bytes of files that are on their way to readers, however slow. A file is held once, whoever reads it.
_ROOM = 64 * 2**20
_RETRY_AFTER = 5.0  # seconds

# Whatever is in a file, it runs nothing, even where a browser shows it.
_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"


class ShareFiles:
    """Answers requests for files. All of them are downloads."""

    def __init__(self, service: ShareService, documents: DocumentResponses) -> None:
        self._service = service
        self._documents = documents
        self._contents: WeakValueDictionary[tuple[str, Version, str], _Content] = WeakValueDictionary()

    def operations(self) -> Mapping[str, Operation]:
        """Return what there is to ask for, by what follows a share's own path."""
        return {
            "/export": _exporting(self.export),
            "/parts/{part_id}/content": _downloading(self.part_content),
        }

    async def export(self, request: Request, caller: Caller) -> Response:
        """Return a share as a file.

        Raises:
            ShareError: as a read does; INVALID_ARGUMENT: there is no such format.
        """
        share_id = request.path_params["share_id"]
        wanted = _format(request.query_params.get("format"))
        if (unchanged := await self._unchanged(request, caller, share_id)) is not None:
            return unchanged
        export = EXPORTS[wanted]
        headers = _download_headers(f"{share_id}.{export.extension}")
        if export.pieces is None:
            document = await self._service.document(caller, share_id, _FORMS[wanted])
            return await self._documents.answer(request, document, headers, export.media_type)
        document, transcript = await self._service.document_and_transcript(caller, share_id)
        coding = wanted_coding(request)
        source = _Written(document, export.pieces, _turns(transcript), coding)
        return self._documents.answer_with_parts(source, document.version, headers, export.media_type, coding)

    async def part_content(self, request: Request, caller: Caller) -> Response:
        """Return the bytes of a file that a part holds.

        Raises:
            ShareError: as a read does; RATE_LIMITED: files that others read take all the room there is.
            HttpError: PART_NOT_FOUND: there is no such part, it is no file, or the file is not in the share.
        """
        share_id, part_id = request.path_params["share_id"], request.path_params["part_id"]
        version = await self._service.version(caller, share_id)  # the right to read, before anything else
        part = await self._service.part(caller, share_id, part_id)
        if part is None:
            raise _no_file()
        if has_newest(request, version):
            return not_modified_response(version)
        key = share_id, version, part_id
        content = self._contents.get(key)
        if content is None:
            async with LongWork() as work:
                content = await work.aside(lambda: _file_of(part, part_id))
            held = sum(each.size or 0 for each in self._contents.values())
            if held and held + len(content.body) > _ROOM:
                message = "Too many files are being read: try again"
                raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=_RETRY_AFTER)
            content = self._contents.setdefault(key, content)
        headers = _download_headers(safe_file_name(content.name, "file", content.media_type))
        return self._documents.answer_with_parts(content, version, headers, content.media_type)

    async def _unchanged(self, request: Request, caller: Caller, share_id: str) -> Response | None:
        if "if-none-match" not in request.headers:
            return None
        version = await self._service.version(caller, share_id)
        return not_modified_response(version) if has_newest(request, version) else None


def _exporting(handler: Handler) -> Operation:
    return Operation(
        summary="A share as a file",
        handler=handler,
        needs=Needs.LINK,
        parameters=(_FORMAT,),
        answers={200: "The file, as a download. Its media type is that of the format."},
        media_type="application/json",
        other_media_types=("text/markdown", "application/x-ndjson"),
        codes=(ErrorCode.INVALID_ARGUMENT,),
        has_etag=True,
    )


def _downloading(handler: Handler) -> Operation:
    return Operation(
        summary="The bytes of a file that a part, or an attachment of a tool's answer, holds",
        handler=handler,
        needs=Needs.LINK,
        answers={200: "The file, as a download, by its media type."},
        media_type="*/*",
        has_etag=True,
    )


def _format(name: str | None) -> ExportFormat:
    try:
        return ExportFormat(name or "")
    except ValueError:
        message = f"format: must be one of {', '.join(ExportFormat)}"
        raise ShareError(ErrorCode.INVALID_ARGUMENT, message) from None


def _download_headers(name: str) -> dict[str, str]:
    return {"Content-Disposition": content_disposition(name), "Content-Security-Policy": _SANDBOX}


def _turns(transcript: Transcript) -> Turns:
    return Turns(
        transcript.session,
        (Turn(entry.body, [part.body for part in entry.parts]) for entry in transcript.entries),
        [file.body for file in transcript.files],
    )


class _Written:
    """An export, written as it leaves: nobody knows its size before."""

    is_slow = True

    def __init__(
        self,
        document: Document,
        write: Callable[[Turns], Iterator[bytes]],
        turns: Turns,
        coding: str | None,
    ) -> None:
        self.size: int | None = None
        self._document = document
        self._write = write
        self._turns = turns
        self._coding = coding

    def parts(self) -> Iterator[bytes]:
        """Yield it in parts, in the coding."""
        parts = text_parts(self._write(self._turns))
        return parts if self._coding is None else compress_parts(parts, self._coding)

    def hold(self, let_go: Callable[[], object]) -> Hold | None:
        """Count as held what it is written of."""
        return self._document.hold(let_go)


class _Content:
    """A file."""

    is_slow = False

    def __init__(self, media_type: str, body: bytes, name: str) -> None:
        self.media_type = media_type
        self.body = body
        self.name = name
        self.size: int | None = len(body)

    def parts(self) -> Iterator[bytes]:
        """Yield its bytes in parts."""
        return (self.body[start : start + PART] for start in range(0, len(self.body), PART))

    def hold(self, _let_go: Callable[[], object]) -> Hold | None:
        """Hold nothing of the share."""
        return None


def _file_of(body: bytes, part_id: str) -> _Content:
    """Return the file in a part, or in an attachment of it.

    Raises:
        HttpError: PART_NOT_FOUND.
    """
    part = jsontext.decode(body)
    attachments = _attachments(part)
    for each in (part, *attachments):
        if each.get("id") == part_id:
            part = each
            break
    url, name = part.get("url"), part.get("filename")
    if part.get("type") != "file" or not isinstance(url, str):
        ids = [told for each in attachments if (told := each.get("id")) and _is_plain(told)]
        more = f"; its attachments are {', '.join(map(str, ids))}" if ids else ""
        raise _no_file(f"this part is no file{more}")
    told, content = _decoded_url(url)
    mime = part.get("mime")
    media_type = mime if isinstance(mime, str) and _MEDIA_TYPE.fullmatch(mime) else told
    return _Content(media_type, content, name if isinstance(name, str) else "")


def _no_file(why: str = "") -> HttpError:
    return HttpError(404, "PART_NOT_FOUND", "Part not found" + (f": {why}" if why else ""))


def _attachments(part: object) -> list[dict[str, object]]:
    state = part.get("state") if isinstance(part, dict) else None
    held = state.get("attachments") if isinstance(state, dict) else None
    return [each for each in held if isinstance(each, dict)] if isinstance(held, list) else []


def _is_plain(part_id: object) -> bool:
    # An id is what somebody wrote: only what looks like one is told.
    return isinstance(part_id, str) and re.fullmatch(r"[\w-]{1,80}", part_id, re.ASCII) is not None


def _decoded_url(url: str) -> tuple[str, bytes]:
    """Return the media type and the bytes that a data: URL holds (RFC 2397).

    Raises:
        HttpError: PART_NOT_FOUND: it is another URL, or holds no base64.
    """
    head, comma, data = url.partition(",")
    scheme, _, told = head.partition(":")
    if scheme.lower() != "data" or not comma:
        raise _no_file("the file is not in the share, only a link to where it was")
    media_type, *parameters = told.split(";")
    content = unquote_to_bytes(data)
    if parameters and parameters[-1].strip().lower() == "base64":
        packed = b"".join(content.split()).rstrip(b"=")
        try:
            content = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise _no_file("the file is no base64") from None
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else _ANY_BYTES, content
