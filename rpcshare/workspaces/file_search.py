"""Searching a workspace with ripgrep, in a sandbox of its own: what it is led to by a link is not there."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import msgspec

from rpcshare.errors import ErrorCode, ShareError

__all__ = ["FileMatch", "Searching"]

_SECONDS = 20.0
_AT_ONCE = 4
_LONGEST_QUERY = 1000
_LONGEST_GLOB = 200
_MAX_GLOBS = 32
_MAX_LIMIT = 2000
_LONGEST_LINE = 500  # characters that are shown
_LARGEST_FILE = "8M"
_MAX_OUTPUT = 64 * 2**20


class FileMatch(msgspec.Struct, frozen=True):
    """A line that was found."""

    path: str
    line: int
    """From 1."""
    text: str
    """The line, or its first 500 characters."""
    start: int
    """Where in ``text`` it begins, in characters."""
    end: int


class _Text(msgspec.Struct):
    text: str | None = None
    encoded: str | None = msgspec.field(default=None, name="bytes")
    """In Base64: of what is not UTF-8."""

    @property
    def raw(self) -> bytes:
        return base64.b64decode(self.encoded or "") if self.text is None else self.text.encode()


class _Part(msgspec.Struct):
    start: int
    end: int


class _Data(msgspec.Struct):
    path: _Text
    lines: _Text
    line_number: int | None = None
    submatches: list[_Part] = []


class _Line(msgspec.Struct):
    type: str
    data: msgspec.Raw


class Searching:
    """Runs ripgrep, at most four at once."""

    def __init__(self, confined: list[str], ripgrep: str) -> None:
        """Made by :meth:`find`."""
        self._confined = confined
        self._ripgrep = ripgrep
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    @classmethod
    def find(cls) -> Searching | None:
        """Return what searches here; None where ripgrep or bubblewrap is not on PATH, or does not run."""
        ripgrep, bubblewrap = shutil.which("rg"), shutil.which("bwrap")
        if ripgrep is None or bubblewrap is None:
            return None
        ripgrep = os.path.realpath(ripgrep)
        confined = [bubblewrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
        confined += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
        # The files are another user's, where the server is root.
        confined += ["--unshare-user"] if os.geteuid() != 0 else ["--cap-add", "CAP_DAC_OVERRIDE"]
        confined += ["--ro-bind", "/usr", "/usr"]
        for name in ("bin", "lib", "lib64"):
            path = Path("/") / name
            if path.is_symlink():
                confined += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                confined += ["--ro-bind", str(path), str(path)]
        if not ripgrep.startswith("/usr/"):
            confined += ["--ro-bind", ripgrep, "/rg"]
            ripgrep = "/rg"
        try:
            subprocess.run(  # noqa: S603 -- programs of the operator
                [*confined, "--", ripgrep, "--version"], check=True, capture_output=True, timeout=_SECONDS
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return cls(confined, ripgrep)

    def search(
        self, root: Path, query: str, globs: tuple[str, ...], limit: int, *, regexp: bool = False
    ) -> tuple[list[FileMatch], bool]:
        """Return at most ``limit`` lines that were found beneath ``root``, and whether there are more.

        Raises:
            ShareError: INVALID_ARGUMENT, RATE_LIMITED.
        """
        _check(query, globs, limit)
        if not self._slots.acquire(timeout=_SECONDS):
            message = "too many searches at once"
            raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=5)
        try:
            return self._run(root, query, globs, limit, regexp=regexp)
        finally:
            self._slots.release()

    def _run(
        self, root: Path, query: str, globs: tuple[str, ...], limit: int, *, regexp: bool
    ) -> tuple[list[FileMatch], bool]:
        command = [*self._confined, "--ro-bind", str(root), "/workspace", "--chdir", "/workspace", "--"]
        command += [self._ripgrep, "--json", "--no-config", "--no-follow", "--hidden", "--smart-case"]
        command += ["--threads=2", f"--max-filesize={_LARGEST_FILE}", "--no-messages"]
        command += [] if regexp else ["--fixed-strings"]
        command += [f"--glob={glob}" for glob in globs]
        command += ["--glob=!.git", f"--regexp={query}", "./"]
        with subprocess.Popen(  # noqa: S603 -- no shell: each argument is one
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            try:
                found, is_more = _read(process, limit)
            finally:
                timer.cancel()
                process.kill()
            errors = b"" if process.stderr is None else process.stderr.read(10_000)
        said = errors.decode(errors="replace").strip().splitlines()
        if not found and process.returncode == 2 and said:  # it is silent of files that it cannot read
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"query: {said[-1]}")
        return found, is_more


def _read(process: subprocess.Popen[bytes], limit: int) -> tuple[list[FileMatch], bool]:
    found: list[FileMatch] = []
    size = 0
    if process.stdout is None:
        return found, False
    while line := process.stdout.readline(_MAX_OUTPUT):
        size += len(line)
        if size > _MAX_OUTPUT:
            return found, True
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            told = msgspec.json.decode(line, type=_Line)
            if told.type == "match":
                if len(found) >= limit:
                    return found, True
                found.append(_match(msgspec.json.decode(told.data, type=_Data)))
    process.wait()
    return found, process.returncode not in (0, 1, 2)


def _match(data: _Data) -> FileMatch:
    line = data.lines.raw.rstrip(b"\r\n")
    first = data.submatches[0] if data.submatches else _Part(0, 0)
    start = len(line[: first.start].decode(errors="replace"))
    length = len(line[first.start : first.end].decode(errors="replace"))
    text = line.decode(errors="replace")
    # A long line is shown around what was found.
    cut = max(0, start - _LONGEST_LINE // 4) if start + length > _LONGEST_LINE else 0
    text = text[cut : cut + _LONGEST_LINE]
    path = data.path.raw.decode(errors="replace").removeprefix("./")
    return FileMatch(path, data.line_number or 0, text, start - cut, min(start - cut + length, len(text)))


def _check(query: str, globs: tuple[str, ...], limit: int) -> None:
    if not 0 < len(query) <= _LONGEST_QUERY or "\0" in query:
        raise _wrong(f"query: 1 to {_LONGEST_QUERY:,} characters")
    if len(globs) > _MAX_GLOBS or any(not 0 < len(glob) <= _LONGEST_GLOB or "\0" in glob for glob in globs):
        raise _wrong(f"glob: at most {_MAX_GLOBS}, each of 1 to {_LONGEST_GLOB} characters")
    try:
        "".join((query, *globs)).encode()
    except UnicodeEncodeError:
        raise _wrong("query: half of a surrogate pair is in it") from None
    if not 1 <= limit <= _MAX_LIMIT:
        raise _wrong(f"limit: 1 to {_MAX_LIMIT:,}")


def _wrong(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
