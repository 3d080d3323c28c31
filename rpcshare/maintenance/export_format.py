"""Shares as files that other programs can read, too.

=================================  ===================================================================
``sessions/{id}/share.json``       what is known of a share besides its content: a :class:`ShareRecord`
``sessions/{id}/session.json``     the session, if it was ever synced
``sessions/{id}/messages.jsonl``   messages, one a line; likewise ``parts.jsonl``, ``models.jsonl``
``sessions/{id}/diffs.jsonl``      all FileDiffs in the order in which they came
``SHA256SUMS``                     a checksum for each file, as ``sha256sum --check`` reads them
=================================  ===================================================================

The secrets of shares are not in it. Most follow from the server's shared secret, which has to be kept
apart; of a random one there is the hash that the store has.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ShareError
from rpcshare.shares.content import Content
from rpcshare.shares.objects import LogSnapshot, SessionOwner, Visibility
from rpcshare.shares.share_identity import SecretKind, is_session_id, is_share_id
from rpcshare.shares.syncdata import Item, Kind, parse_batch

__all__ = [
    "SUMS",
    "VERSION",
    "BackupError",
    "ShareRecord",
    "check_sums",
    "read_share_files",
    "read_sums",
    "write_share_files",
    "write_sums",
]

VERSION = 1
SUMS = "SHA256SUMS"

_RECORD = "share.json"
_SESSION = "session.json"
_LINES = {
    Kind.MESSAGE: "messages.jsonl",
    Kind.PART: "parts.jsonl",
    Kind.DIFF: "diffs.jsonl",
    Kind.MODEL: "models.jsonl",
}
_SUM = re.compile(r"([0-9a-f]{64})  (sessions/([^/]+)/[a-z]+\.jsonl?)")


class BackupError(Exception):
    """A backup that cannot be used, or not be written. The message names the file."""


class ShareRecord(msgspec.Struct, frozen=True, rename="camel"):
    """What is known of a share besides its content. Times are milliseconds since the epoch."""

    v: int
    id: str
    session_id: str = msgspec.field(name="sessionID")
    owner: str | None
    session: SessionOwner | None
    """Who was the first to share the session, and so knows the secret that follows from it alone; None
    if nobody was who has a name."""
    secret_kind: SecretKind
    secret_hash: str | None
    visibility: Visibility
    created_at: int
    last_updated: int
    sync_count: int
    password_hash: str | None = None
    """Of the share's password, if it has one; see :mod:`rpcshare.auth.passwords`."""
    expires_at: int | None = None

    def __repr__(self) -> str:
        """Leave out the hashes."""
        return f"ShareRecord(id={self.id!r})"


def write_share_files(folder: Path, record: ShareRecord, items: Iterable[Item]) -> dict[str, str]:
    """Write a share into ``folder``; return the checksums by the files' paths in the folder.

    Raises:
        OSError: a file is there already, or cannot be written.
    """
    place = folder / "sessions" / record.id
    place.mkdir(mode=0o700, parents=True)
    bodies = {item.kind: [body for _, body in item.values] for item in items}
    sums = {_RECORD: _write(place / _RECORD, [msgspec.json.encode(record)])}
    if Kind.SESSION in bodies:
        sums[_SESSION] = _write(place / _SESSION, bodies[Kind.SESSION])
    for kind, name in _LINES.items():
        sums[name] = _write(place / name, bodies.get(kind, ()))
    return {f"sessions/{record.id}/{name}": digest for name, digest in sums.items()}


def _write(path: Path, lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 -- a descriptor
        for line in lines:
            file.write(line + b"\n")
            digest.update(line + b"\n")
    return digest.hexdigest()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write the checksums, by which a backup is known to be complete; all else is on disk by then.

    Raises:
        OSError: the file cannot be written.
    """
    os.sync()  # far quicker than one file at a time
    draft = folder / f".{SUMS}"
    _write(draft, [f"{digest}  {path}".encode() for path, digest in sorted(sums.items())])
    draft.rename(folder / SUMS)
    os.sync()


def read_sums(folder: Path) -> dict[str, dict[str, str]]:
    """Return, by share and by name, the checksums of the files of a backup.

    Raises:
        BackupError: it has none.
    """
    try:
        lines = (folder / SUMS).read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise BackupError(f"{folder / SUMS} cannot be read: this is no complete backup") from exc
    sums: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines, start=1):
        found = _SUM.fullmatch(line)
        if found is None or not is_share_id(found[3]):
            raise BackupError(f"{folder / SUMS}, line {number}: is not the checksum of a share's file")
        sums.setdefault(found[3], {})[found[2].rpartition("/")[2]] = found[1]
    return sums


def check_sums(folder: Path, share_id: str, sums: Mapping[str, str]) -> None:
    """Return if the files of a share are what they were when they were written.

    Raises:
        BackupError: a file is missing, or another than it was, or there is one more.
    """
    place = folder / "sessions" / share_id
    required = {_RECORD, *_LINES.values()}
    try:
        names = {path.name for path in place.iterdir()}
        for name in sorted(required | names | sums.keys()):
            if name not in sums:
                raise BackupError(f"{place / name} has no checksum in {SUMS}")
            with (place / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sums[name]:
                    raise BackupError(f"{place / name} is not what it was: its checksum is another")
    except OSError as exc:
        raise BackupError(f"{exc.filename} cannot be read: {exc.strerror}") from exc


def read_share_files(folder: Path, share_id: str) -> tuple[ShareRecord, LogSnapshot]:
    """Return a share from its files, whose checksums are right.

    Raises:
        BackupError: they do not hold what they should.
    """
    place = folder / "sessions" / share_id
    try:
        record = _read_record(place / _RECORD, share_id)
        content = Content()
        if (place / _SESSION).exists():
            content.apply(_item(place / _SESSION, Kind.SESSION, (place / _SESSION).read_bytes(), 1))
        for kind, name in _LINES.items():
            with (place / name).open("rb") as file:
                for number, line in enumerate(file, start=1):
                    content.apply(_item(place / name, kind, line, number))
    except OSError as exc:
        raise BackupError(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    return record, LogSnapshot(record.sync_count, record.last_updated, content.items())


def _read_record(path: Path, share_id: str) -> ShareRecord:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=ShareRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BackupError(f"{path} is not what this version writes: {exc}") from exc
    if record.v != VERSION:
        raise BackupError(f"{path} is of version {record.v}; this program reads {VERSION}")
    if record.id != share_id or not is_session_id(record.session_id):
        raise BackupError(f"{path} is of another share")
    return record


def _item(path: Path, kind: Kind, line: bytes, number: int) -> tuple[Item, ...]:
    try:
        value = jsontext.decode(line)
        data = [value] if kind in (Kind.DIFF, Kind.MODEL) else value
        return parse_batch([{"type": kind.value, "data": data}]).items
    except (jsontext.JSONDecodeError, ShareError) as exc:
        raise BackupError(f"{path}, line {number}: no share can hold this") from exc
