"""The HTTP API of ``opencode serve`` 1.x, over a Unix socket.

Seen with 1.18.33. A session is made by ``/api/session``, which takes an ID, and all else by the paths that
the TUI uses.
An unknown path answers 200 with a page, so that what is not JSON is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx
import msgspec

from rpcshare.agents.agent import Attachment
from rpcshare.agents.opencode.events import LOST, OpencodeEvent, read_event, sync_event
from rpcshare.json_values import holds_more_than
from rpcshare.long_work import LongWork

__all__ = ["Opencode", "OpencodeError"]

JSONObject: TypeAlias = dict[str, Any]

_TIMEOUT = httpx.Timeout(30.0, read=60.0)
_SILENCE = 35.0
"""Seconds without anything on the stream of events, whose heartbeat comes every 10."""
_PAUSE = 0.2
"""Seconds between two streams of events."""
_NEVER = 2**53 - 1
_LARGEST_ANSWER = 64 * 2**20
_LARGEST_EVENT = 32 * 2**20
_MOST_VALUES = 1_000_000
"""Of the JSON of one answer or event: of an empty list a decoder makes twenty times its text."""
_COUNTED = 64 * 1024
"""Bytes up to which JSON is not worth counting."""


class OpencodeError(Exception):
    """opencode has refused something, or does not answer.

    Attributes:
        status: of HTTP; None: there is no answer.
        message: what it says, without what the request had in it.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    @property
    def is_busy(self) -> bool:
        """Whether the session is at work."""
        return self.status == httpx.codes.CONFLICT


class Opencode:
    """One running ``opencode serve``. Methods raise OpencodeError."""

    def __init__(self, socket: Path, password: str) -> None:
        """Speak to what listens behind ``socket``."""
        transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=64))
        self._http = httpx.AsyncClient(
            transport=transport,
            base_url="http://opencode",
            auth=("opencode", password),
            timeout=_TIMEOUT,
            headers={"Accept-Encoding": "identity"},
        )
        self._providers: list[JSONObject] | None = None  # which do not change while it runs

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def version(self, *, within: float = 5.0) -> str:
        """Return the version of what answers, if it is well."""
        health = await self._call("GET", "/global/health", within=within)
        if not isinstance(health, dict) or health.get("healthy") is not True:
            raise OpencodeError("it says that it is not well")
        return str(health.get("version", ""))

    # Sessions

    async def make_session(
        self, session_id: str, *, title: str, permission: Sequence[JSONObject] = ()
    ) -> None:
        """Make a session of this ID; one that is there stays as it is, but for its title and its rules."""
        await self._call("POST", "/api/session", {"id": session_id})
        changes: JSONObject = {"title": title} if title else {}
        if permission:
            changes["permission"] = list(permission)
        if changes:
            await self._call("PATCH", f"/session/{session_id}", changes)

    async def session(self, session_id: str) -> JSONObject | None:
        """Return a session; None: there is none."""
        try:
            return _object(await self._call("GET", f"/session/{session_id}"))
        except OpencodeError as exc:
            if exc.status == httpx.codes.NOT_FOUND:
                return None
            raise

    async def messages(self, session_id: str) -> list[JSONObject]:
        """Return the messages of a session, ``{info, parts}``, the oldest first."""
        return _objects(await self._call("GET", f"/session/{session_id}/message"))

    async def busy_sessions(self) -> set[str]:
        """Return the sessions that are at work."""
        found = _object(await self._call("GET", "/session/status"))
        return {each for each, status in found.items() if _object(status).get("type") != "idle"}

    async def prompt(
        self,
        session_id: str,
        message_id: str,
        part_ids: Sequence[str],
        text: str,
        *,
        attachments: Sequence[Attachment] = (),
        model: str,
        agent: str = "",
    ) -> None:
        """Give a session a message; return once opencode has it. The same IDs again change nothing."""
        parts: list[JSONObject] = [{"id": part_ids[0], "type": "text", "text": text}]
        for part_id, each in zip(part_ids[1:], attachments, strict=True):
            file = {"id": part_id, "type": "file", "mime": each.mime_type, "url": each.url}
            parts.append(file | ({"filename": each.filename} if each.filename else {}))
        provider, _, name = model.partition("/")
        body: JSONObject = {
            "messageID": message_id,
            "model": {"providerID": provider, "modelID": name},
            "parts": parts,
        }
        await self._call(
            "POST", f"/session/{session_id}/prompt_async", body | ({"agent": agent} if agent else {})
        )

    async def command(
        self, session_id: str, message_id: str, name: str, arguments: str, *, model: str, agent: str = ""
    ) -> None:
        """Have a session run a command; returns when its turn has ended."""
        body: JSONObject = {
            "messageID": message_id,
            "command": name,
            "arguments": arguments,
            "model": model,
        }
        body |= {"agent": agent} if agent else {}
        await self._call("POST", f"/session/{session_id}/command", body, within=None)

    async def command_names(self) -> set[str]:
        """Return the names of the commands that there are."""
        return {str(each.get("name")) for each in _objects(await self._call("GET", "/command"))}

    async def agent_names(self) -> set[str]:
        """Return the names of the agents that there are and that somebody may choose."""
        found = _objects(await self._call("GET", "/agent"))
        return {str(each.get("name")) for each in found if not each.get("hidden")}

    async def abort(self, session_id: str) -> None:
        """End the turn under way. What was sent meanwhile is never answered."""
        await self._call("POST", f"/session/{session_id}/abort")

    async def fork(self, session_id: str, message_id: str | None) -> JSONObject:
        """Return a new session with what there is before a message, or all."""
        body = {} if message_id is None else {"messageID": message_id}
        return _object(await self._call("POST", f"/session/{session_id}/fork", body))

    async def revert(self, session_id: str, message_id: str) -> JSONObject:
        """Take a message back, and all behind it."""
        return _object(await self._call("POST", f"/session/{session_id}/revert", {"messageID": message_id}))

    async def unrevert(self, session_id: str) -> JSONObject:
        """Restore what was taken back."""
        return _object(await self._call("POST", f"/session/{session_id}/unrevert"))

    async def diff(self) -> list[JSONObject]:
        """Return what has changed in the workspace since its last commit."""
        return _objects(await self._call("GET", "/vcs/diff?mode=git"))

    async def todo(self, session_id: str) -> list[JSONObject]:
        """Return the list of to-dos of a session."""
        return _objects(await self._call("GET", f"/session/{session_id}/todo"))

    async def change_part(self, session_id: str, part: JSONObject) -> None:
        """Put a part of a message in the place of the one that has its ID."""
        path = f"/session/{session_id}/message/{part['messageID']}/part/{part['id']}"
        await self._call("PATCH", path, part)

    async def model(self, name: str) -> JSONObject | None:
        """Return what opencode knows of a model ``PROVIDER/ID``; None: nothing."""
        provider, _, model_id = name.partition("/")
        if self._providers is None:
            found = _object(await self._call("GET", "/config/providers"))
            self._providers = _objects(found.get("providers"))
        for each in self._providers:
            model = _object(each.get("models")).get(model_id)
            if each.get("id") == provider and isinstance(model, dict):
                return model
        return None

    # What it asks

    async def reply(self, request_id: str, reply: str, note: str | None) -> None:
        """Answer an approval by ``once``, ``always`` or ``reject``."""
        body = {"reply": reply} | ({} if note is None else {"message": note})
        await self._call("POST", f"/permission/{request_id}/reply", body)

    async def answer(self, request_id: str, answers: Sequence[Sequence[str]]) -> None:
        """Answer questions, each by labels."""
        await self._call("POST", f"/question/{request_id}/reply", {"answers": answers})

    async def reject_question(self, request_id: str) -> None:
        """Leave questions unanswered."""
        await self._call("POST", f"/question/{request_id}/reject")

    async def pending(self) -> list[OpencodeEvent]:
        """Return what waits for an answer, as the events that told of it."""
        found: list[OpencodeEvent] = []
        for path, kind in (("/permission", "permission.asked"), ("/question", "question.asked")):
            asked = _objects(await self._call("GET", path))
            found += [OpencodeEvent(kind, str(each.get("sessionID", "")), each) for each in asked]
        return found

    # What it tells

    async def history(self, known: Mapping[str, int]) -> list[OpencodeEvent]:
        """Return the sync events of sessions behind the numbers that are known of them; -1: all."""
        # Of a session that is not named, all is told. There may be many.
        numbers = dict.fromkeys((str(each.get("id")) for each in await self.sessions()), _NEVER)
        numbers |= {session_id: max(number, 0) for session_id, number in known.items()}
        found = _objects(await self._call("POST", "/sync/history", numbers))
        return [event for each in found if (event := sync_event(each)) is not None]

    async def sessions(self) -> list[JSONObject]:
        """Return all sessions, of sub-agents too."""
        return _objects(await self._call("GET", "/session?limit=100000"))

    async def events(self) -> AsyncIterator[OpencodeEvent]:
        """Yield what it tells, for as long as it answers; a LOST comes first, and where the stream was cut.

        Raises:
            OpencodeError: it does not answer any more.
        """
        while True:
            try:
                async with self._http.stream(
                    "GET", "/global/event", timeout=httpx.Timeout(30.0, read=_SILENCE)
                ) as answer:
                    if answer.status_code != httpx.codes.OK:
                        raise OpencodeError("it does not tell of events", answer.status_code)
                    yield OpencodeEvent(LOST, "", {})
                    async for line in _lines(answer):
                        if line.startswith(b"data:"):
                            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                                await _check_values(line)
                                event = read_event(line[5:])
                                if event is not None:
                                    yield msgspec.structs.replace(event, size=len(line))
                await asyncio.sleep(_PAUSE)  # it has ended it, and may do so again at once
            except httpx.TransportError as exc:
                await asyncio.sleep(_PAUSE)
                try:
                    await self.version()
                except OpencodeError:
                    raise OpencodeError(f"its events have ended: {type(exc).__name__}") from exc

    async def _call(
        self, method: str, path: str, body: object = None, *, within: float | None = 60.0
    ) -> object:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(within),
                self._http.stream(method, path, content=content, headers=headers, timeout=within) as answer,
            ):
                text = await _bounded(answer)
        except (httpx.HTTPError, TimeoutError, OSError) as exc:
            raise OpencodeError(f"it does not answer {method} {_shape(path)}: {type(exc).__name__}") from exc
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise OpencodeError(_why(text) or f"it answers {answer.status_code}", answer.status_code)
        if answer.status_code == httpx.codes.NO_CONTENT or not text:
            return None
        if "json" not in answer.headers.get("content-type", ""):
            raise OpencodeError(f"it does not know {method} {_shape(path)}", answer.status_code)
        await _check_values(text)
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            raise OpencodeError(f"its answer to {method} {_shape(path)} is no JSON") from exc


async def _check_values(text: bytes) -> None:
    if len(text) > _COUNTED:
        async with LongWork() as work:
            if await holds_more_than(text, _MOST_VALUES, work):
                raise OpencodeError(f"its answer has more than {_MOST_VALUES:,} values")


def _raw(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Return the pieces of an answer as they come: a few bytes of what is compressed may hold gigabytes."""
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise OpencodeError("its answer is compressed, which it was not asked for")
    return answer.aiter_raw()


async def _bounded(answer: httpx.Response) -> bytes:
    pieces, size = [], 0
    async for piece in _raw(answer):
        size += len(piece)
        if size > _LARGEST_ANSWER:
            raise OpencodeError(f"its answer has more than {_LARGEST_ANSWER:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield lines; httpx's own would split them at characters that are within JSON, too."""
    rest = bytearray()
    async for piece in _raw(answer):
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            rest += piece[start:end]
            yield bytes(rest)
            rest.clear()
            start = end + 1
        rest += piece[start:]
        if len(rest) > _LARGEST_EVENT:
            raise OpencodeError(f"an event of its has more than {_LARGEST_EVENT:,} bytes")


def _why(text: bytes) -> str:
    """Return what an error says, in whichever of opencode's forms."""
    with contextlib.suppress(msgspec.DecodeError):
        found = msgspec.json.decode(text)
        if isinstance(found, dict):
            data = found.get("data")
            for each in (data if isinstance(data, dict) else {}, found):
                if isinstance(message := each.get("message"), str):
                    return message[:500]
            if isinstance(name := found.get("name") or found.get("_tag"), str):
                return name[:100]
    return ""


def _shape(path: str) -> str:
    """Return a path without the IDs in it."""
    return "/".join("…" if "_" in each and len(each) > 20 else each for each in path.split("/"))


def _object(value: object) -> JSONObject:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[JSONObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
