"""Syncs that are longer than a message may be: opencode sends the whole of a session in one request.

What comes behind the length of a message is taken only of a caller who may write the share, and goes into a
temporary file, encrypted by a key that is in memory alone. From there it is read element by element.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from starlette.requests import Request

from rpcshare.auth.rate_limits import network_of
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.body_limits import BodyLimits, release_held
from rpcshare.server.content_coding import coding_of, decoded_chunks
from rpcshare.server.json_body import JsonBody, json_body, read_json_body
from rpcshare.server.request import body_chunks
from rpcshare.shares.data_scanner import DataScanner, Element
from rpcshare.shares.failures import temporary_file_failed
from rpcshare.shares.parsing import DataReader

__all__ = ["LargeSyncs", "RefusedSyncError"]

_PIECE = 2**20  # bytes that are written, or read, at a time
_AT_ONCE = 2  # times the longest body, of one network

MayWrite = Callable[[str | None], Awaitable[object]]
"""Raises why a caller who shows a secret, or None, may not write the share."""


class RefusedSyncError(ShareError):
    """A sync is refused that came of who may write the share."""

    def __init__(self, error: ShareError) -> None:
        super().__init__(error.code, error.message, reason=error.reason, retry_after=error.retry_after)


class LargeSyncs:
    """Reads the bodies of syncs, whatever their length, in bounded memory."""

    def __init__(
        self, directory: Path, *, max_message: int, max_size: int, max_items: int, workers: int = 1
    ) -> None:
        """Read bodies.

        Args:
            directory: for temporary files, which nobody else can open.
            max_message: bytes of a body that is held in memory, and of one item of it; 0: any number.
            max_size: bytes of any body; 0: any number. Of one network twice as many are held at a time, and
                twice that of all.
            max_items: elements of the data; 0: any number.
            workers: processes that share what may be held.
        """
        self._directory = directory
        self._max_message = max_message
        self._max_size = max_size
        self._max_items = max_items
        self._held = BodyLimits(max(_AT_ONCE * max_size // workers, max_size))

    @asynccontextmanager
    async def body(
        self, request: Request, exists: Callable[[], Awaitable[None]], may_write: MayWrite
    ) -> AsyncIterator[JsonBody]:
        """Yield the body of a sync. Its ``data`` may be a :class:`~rpcshare.shares.parsing.DataReader`.

        Args:
            request: whose body it is.
            exists: raises, if there is no such share.
            may_write: is asked before more of a body is taken than a message may have.

        Raises:
            ShareError: as :func:`~rpcshare.server.json_body.read_json_body` does, and what ``may_write``
                does. RATE_LIMITED: too many are being taken. STORAGE_UNAVAILABLE: the file failed.
        """
        most = self._max_message
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdecimal() else 0
        is_short = 0 < announced <= most
        coding = coding_of(request)
        if not most or 0 < self._max_size <= most or (is_short and coding == "identity"):
            yield await read_json_body(request, most, before_decoding=exists)
            return
        head = bytearray()
        if coding == "identity":
            chunks = body_chunks(request, self._max_size)
        else:
            await exists()  # before anything is decoded
            chunks = decoded_chunks(request, coding, self._max_size, most)
        is_too_long = 0 < self._max_size < announced  # of which the secret is enough to know
        async for chunk in chunks:
            head += chunk
            if len(head) > (min(_PIECE, most) if is_too_long else most):
                break
        else:
            yield await json_body(bytes(head))
            return
        await exists()
        scanner = DataScanner(max_items=self._max_items, max_value=most, cuts=False)
        try:
            await asyncio.to_thread(scanner.feed, bytes(head))
        except ShareError as exc:
            await self._check(may_write, scanner)
            raise RefusedSyncError(exc) from exc
        await self._check(may_write, scanner)
        async with AsyncExitStack() as stack:
            try:
                self._check_length(announced)
                spooling = self._spooled(request, head, chunks, scanner)
                file = await stack.enter_async_context(spooling)
                members = scanner.finish()
            except ShareError as exc:
                raise RefusedSyncError(exc) from exc
            if "data" in members:
                reader = _FileReader(file, DataScanner(max_items=self._max_items, max_value=most, cuts=True))
                members = {**members, "data": reader}
            yield JsonBody(members)

    @asynccontextmanager
    async def _spooled(
        self, request: Request, head: bytearray, chunks: AsyncIterator[bytes], scanner: DataScanner
    ) -> AsyncIterator[_EncryptedFile]:
        """Write what has come, and what is to come, to a file; let the scanner see all but ``head``."""
        network = network_of(request.client.host if request.client is not None else "")
        taken = 0
        file = await asyncio.to_thread(_EncryptedFile, self._directory)
        try:
            pending, is_scanned = head, True
            while pending:
                taken += len(pending)
                self._held.hold(network, len(pending))
                if not is_scanned:
                    await asyncio.to_thread(scanner.feed, bytes(pending))
                await asyncio.to_thread(file.write, bytes(pending))
                release_held(request.scope, len(pending))
                pending, is_scanned = bytearray(), False
                async for chunk in chunks:
                    pending += chunk
                    if len(pending) >= min(_PIECE, self._max_message):
                        break
            yield file
        finally:
            self._held.release(network, taken)
            await asyncio.shield(asyncio.to_thread(file.close))

    def _check_length(self, length: int) -> None:
        if 0 < self._max_size < length:
            message = f"the body is larger than {self._max_size:,} bytes"
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)

    async def _check(self, may_write: MayWrite, scanner: DataScanner) -> None:
        secret = scanner.secret
        try:
            await may_write(secret)
        except ShareError as exc:
            if secret is not None or exc.code is not ErrorCode.FORBIDDEN:
                raise
            # Its secret may follow, and be right.
            message = f"the body is larger than {self._max_message:,} bytes, and no secret is before its data"
            raise ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message) from None


class _EncryptedFile:
    """A temporary file without a name, which is written once and then read. Every method blocks."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()  # whoever gives up closes it while a thread reads
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415 -- few

        algorithm = algorithms.AES256(secrets.token_bytes(32))
        self._cipher = Cipher(algorithm, modes.CTR(bytes(16)))  # of a key that has but one use
        self._coder = self._cipher.encryptor()
        self.size = 0
        with _failing():
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 -- see close

    def write(self, piece: bytes) -> None:
        """Write the next piece."""
        rest = memoryview(self._coder.update(piece))
        with self._lock, _failing():
            while rest:
                rest = rest[self._file.write(rest) :]
        self.size += len(piece)

    def rewind(self) -> None:
        """Read from the start, from now on."""
        self._coder = self._cipher.decryptor()
        with self._lock, _failing():
            self._file.seek(0)

    def read(self) -> bytes:
        """Return the next piece; nothing at the end."""
        with self._lock, _failing():
            piece = self._file.read(_PIECE)
        return self._coder.update(piece)

    def close(self) -> None:
        """Remove it."""
        with self._lock:
            self._file.close()


class _FileReader(DataReader):
    """The data of a body in a file."""

    def __init__(self, file: _EncryptedFile, scanner: DataScanner) -> None:
        self._file = file
        self._scanner = scanner
        self._is_begun = False

    @property
    def size(self) -> int:
        return self._file.size

    def read(self) -> list[Element] | None:
        if not self._is_begun:
            self._is_begun = True
            self._file.rewind()
        while piece := self._file.read():
            if found := self._scanner.feed(piece):
                return found
        return None


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as exc:  # a ValueError: it has been closed
        raise temporary_file_failed(exc) from exc
