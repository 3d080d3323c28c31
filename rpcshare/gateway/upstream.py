"""Asking a provider: once, for a bounded time. An answer is read no faster than it is passed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from rpcshare.gateway.wires import GatewayError

if TYPE_CHECKING:
    import httpx

__all__ = ["SecretScrubber", "Upstream", "UpstreamAnswer", "UpstreamTimeouts"]

logger = logging.getLogger("rpcshare.gateway")

_PIECE = 64 * 1024
_INFLATED = ("gzip", "deflate")
_WORD = re.compile(rb"[A-Za-z0-9_*-]+")
_REDACTED = b"[redacted]"

# Of an answer; nothing else of it reaches a sandbox.
_PASSED_ON = re.compile(
    r"content-type|retry-after(-ms)?|x-should-retry|(x-)?request-id|(x|anthropic)-ratelimit-[a-z-]{1,60}"
)


@dataclass(frozen=True)
class UpstreamTimeouts:
    """How long a provider may take, in seconds."""

    connect: float = 15.0
    send: float = 60.0
    """For a piece of the request to be taken."""
    begin: float = 600.0
    """For the answer to begin: one that is no stream begins when all of it is thought of."""
    idle: float = 300.0
    """Between two pieces of it."""
    total: float = 3600.0


class UpstreamAnswer:
    """What a provider answers."""

    def __init__(self, response: httpx.Response, timeouts: UpstreamTimeouts) -> None:
        self._response = response
        self._timeouts = timeouts
        self.status = response.status_code

    @property
    def media_type(self) -> str:
        """The type of its body, in lower case, without parameters."""
        given: str = self._response.headers.get("content-type", "")
        return given.partition(";")[0].strip().lower()

    @property
    def _coding(self) -> str:
        given: str = self._response.headers.get("content-encoding", "")
        return given.strip().lower()

    def require_readable(self) -> None:
        """Return if the body can be read. Raises GatewayError."""
        if self._coding not in ("", "identity", *_INFLATED):
            message = "the provider compresses its answer, though it was asked not to"
            raise GatewayError(502, message, "provider")

    def headers(self, scrubber: SecretScrubber) -> list[tuple[str, str]]:
        """Return those headers that may reach a sandbox."""
        passed = []
        for name, value in self._response.headers.items():
            if _PASSED_ON.fullmatch(name) and value.isascii() and value.isprintable() and len(value) < 1024:
                passed.append((name, scrubber.scrubbed(value.encode()).decode()))
        return passed

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives, in pieces of some 64 KiB at most.

        Raises:
            GatewayError: it ends too soon, or nothing arrives for too long.
        """
        inflating = zlib.decompressobj(zlib.MAX_WBITS | 32) if self._coding in _INFLATED else None
        received = self._response.aiter_raw()
        async with contextlib.aclosing(received):  # type: ignore[type-var]  # it is a generator
            while (data := await self._next(received)) is not None:
                if inflating is None:
                    yield data
                    continue
                for piece in _inflated(inflating, data):
                    yield piece

    async def _next(self, received: AsyncIterator[bytes]) -> bytes | None:
        import httpx  # noqa: PLC0415 -- it is there by now

        try:
            async with asyncio.timeout(self._timeouts.idle):
                return await anext(received)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            raise GatewayError(
                504, "the provider has stopped in the middle of its answer", "timeout"
            ) from None
        except httpx.HTTPError as exc:
            logger.warning("an answer of a provider has ended too soon: %s", type(exc).__name__)
            raise GatewayError(502, "the provider's answer has ended too soon", "provider") from None


class Upstream:
    """The connections to providers, of all sandboxes."""

    def __init__(self, timeouts: UpstreamTimeouts) -> None:
        self._timeouts = timeouts
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Be ready to connect."""
        # It takes a while to import, which a server without agents need not wait for, and nobody here.
        httpx = await asyncio.to_thread(import_module, "httpx")
        if self._client is None:
            timeouts = self._timeouts
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(None, connect=timeouts.connect, write=timeouts.send),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
                follow_redirects=False,
            )

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @contextlib.asynccontextmanager
    async def ask(self, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[UpstreamAnswer]:
        """Send a request, once, and yield the answer when its head is there.

        Raises:
            GatewayError: there is none. Its reason is ``unreachable`` if nothing was sent.
        """
        import httpx  # noqa: PLC0415 -- it is there by now

        if self._client is None:
            raise GatewayError(503, "the server is being stopped", "stopping")
        # In pieces: as one, it would be copied whole by each layer beneath.
        sent = {**headers, "content-length": str(len(body))}
        request = self._client.build_request("POST", url, headers=sent, content=_sliced(body))
        try:
            async with asyncio.timeout(self._timeouts.begin):
                response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as exc:
            logger.warning("a provider cannot be reached: %s", type(exc).__name__)
            raise GatewayError(502, "the provider cannot be reached", "unreachable") from None
        except (TimeoutError, httpx.TimeoutException):
            raise GatewayError(504, "the provider does not answer", "timeout") from None
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            logger.warning("a provider has given no answer: %s", type(exc).__name__)
            raise GatewayError(502, "the provider has closed the connection", "provider") from None
        try:
            yield UpstreamAnswer(response, self._timeouts)
        finally:
            await response.aclose()


class SecretScrubber:
    """Takes a key out of what a provider says, though it be cut between two pieces.

    No more is held back than what may be the beginning of the key: at the end of an event, that is nothing.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on."""
        data = self.scrubbed(self._held + data)
        keep = self._beginning_at_end(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def end(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held

    def scrubbed(self, data: bytes) -> bytes:
        """Return ``data`` without the key."""
        return data.replace(self._secret, _REDACTED) if self._secret else data

    def scrubbed_error(self, data: bytes) -> bytes:
        """Return the body of an error without the key, nor what a provider shows of one (``sk-ab***yz``)."""
        # By words: a pattern of what stands around the stars takes time by the square of the text.
        return _WORD.sub(lambda word: _REDACTED if b"***" in word[0] else word[0], self.scrubbed(data))

    def _beginning_at_end(self, data: bytes) -> int:
        """Return how many bytes at the end of ``data`` may be the beginning of the key."""
        tail = data[max(0, len(data) - len(self._secret) + 1) :]
        at = tail.find(self._secret[:1])
        while at != -1 and not self._secret.startswith(tail[at:]):
            at = tail.find(self._secret[:1], at + 1)
        return 0 if at == -1 else len(tail) - at


async def _sliced(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


def _inflated(inflating: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """Yield what ``data`` is, uncompressed, a bounded piece at a time."""
    while True:
        try:
            piece = inflating.decompress(data, _PIECE)
        except zlib.error:
            raise GatewayError(502, "the provider's answer is compressed, and broken", "provider") from None
        if not piece:
            return
        yield piece
        data = inflating.unconsumed_tail
