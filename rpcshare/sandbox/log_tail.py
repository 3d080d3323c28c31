"""The output of a sandbox: its end in memory, and the rest in a file if it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from io import FileIO
from pathlib import Path

__all__ = ["LogTail"]

_KEPT = 64 * 1024
_LARGEST_FILE = 16 * 2**20


class LogTail:
    """Keeps the last 64 KiB."""

    def __init__(self, file: Path | None = None) -> None:
        """Keep the end, and write to ``file`` up to 16 MiB."""
        self._end = b""
        self._room = _LARGEST_FILE
        self._file: int | None = None
        if file is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(file, flags, 0o600)

    def write(self, data: bytes) -> None:
        """Take what was printed."""
        self._end = (self._end + data)[-_KEPT:]
        if self._file is not None and self._room > 0:
            with contextlib.suppress(OSError):  # a full disk is no reason to stop
                os.write(self._file, data[: self._room])
            self._room -= len(data)

    async def follow(self, pipe: FileIO) -> None:
        """Take what is printed into a pipe until nobody has its other end open. Closes ``pipe``."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while data := await reader.read(65_536):
                self.write(data)
        finally:
            transport.close()

    def last(self, lines: int) -> str:
        """Return the last lines; of what is not UTF-8, and of control characters, signs stand for them."""
        text = self._end.decode(errors="replace")
        shown = "".join(
            each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text
        )
        return "\n".join(shown.rstrip("\n").split("\n")[-lines:])

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
