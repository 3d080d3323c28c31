"""A server that answers every request as it is told, or with whatever bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from support.other_thread import in_other_thread

_TLS_HANDSHAKE = b"\x16"


class Answers:
    """What it says, and what it was asked.

    Attributes:
        url: where it listens.
        requests: the head of each request.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[bytes] = []
        self.bytes = b""

    def say(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer so from now on, without a body."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.bytes = f"HTTP/1.1 {status} Said\r\n{lines}Content-Length: 0\r\n\r\n".encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readexactly(1)
            if head != _TLS_HANDSHAKE:
                head += await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            writer.write(self.bytes)
        writer.close()


@contextmanager
def answering() -> Iterator[Answers]:
    """Run one on the loopback."""
    with in_other_thread(_listening()) as answers:
        yield answers


@asynccontextmanager
async def _listening() -> AsyncIterator[Answers]:
    answers = Answers()
    async with await asyncio.start_server(answers.serve, "127.0.0.1", 0) as listener:
        answers.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield answers
