"""A provider of models whose answers a test writes byte by byte, and that notes what it was asked."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Asked", "ScriptedProvider", "chunk", "event", "json_answer", "stream"]

Script = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """A request that has arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ScriptedProvider:
    """It answers each request by the next script; by the last one, if there is no other."""

    scripts: list[Script] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    left: int = 0
    """Requests whose client has gone away before the end of the answer."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answers(self, *scripts: Script) -> None:
        self.scripts = [*scripts]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ScriptedProvider"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in [*self._tasks]:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            self.left += 1
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return False
        line, *fields = head.strip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        answering = asyncio.ensure_future(script(asked, writer))
        watching = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self.left += 1
            answering.cancel()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await answering
        return False


def event(value: object, name: str | None = None) -> bytes:
    """Return a server-sent event."""
    prefix = b"" if name is None else f"event: {name}\n".encode()
    return prefix + b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chunk(content: str | None = None, **more: Any) -> bytes:
    """Return a chunk of a chat completion."""
    delta = {} if content is None else {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    value = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "large"}
    return event({**value, "choices": [choice], **more})


def stream(pieces: Sequence[bytes], *, pause: float = 0.0, end: bool = True, headers: str = "") -> Script:
    """Answer with an event stream, each piece in a write of its own.

    Args:
        pieces: of the body.
        pause: between two, in seconds.
        end: whether the end of the body is said, or the connection cut.
        headers: more lines of the head.
    """

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        types = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{types}{headers}\r\n".encode())
        for piece in pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            await asyncio.sleep(pause)
        if end:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        else:
            writer.transport.abort()

    return script


def json_answer(
    value: object, status: int = 200, headers: str = "", media_type: str = "application/json"
) -> Script:
    """Answer with JSON."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        fields = f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n{headers}"
        writer.write(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode() + body)
        await writer.drain()

    return script
