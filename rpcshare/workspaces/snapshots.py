"""A copy of a workspace's files as one compressed archive, before the workspace is removed."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import zstandard

__all__ = ["snapshot"]

_LEVEL = 6


def snapshot(files: Path, folder: Path, name: str) -> Path:
    """Write ``files`` to ``folder`` as ``NAME.tar.zst``, and return its path; blocks.

    Links are kept as links. Devices, sockets and pipes are left out. Nothing may write there meanwhile.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, draft = folder / f"{name}.tar.zst", folder / f".{name}.tar.zst"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            compressor = zstandard.ZstdCompressor(level=_LEVEL)
            with (
                compressor.stream_writer(file, closefd=False) as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                archive.add(files, arcname=".", filter=_kept)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
