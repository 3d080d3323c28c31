"""The objects of a share in the store: their keys, and their bodies as bytes.

==========================================  ==========================================================
``share/{id}/head``                         who it belongs to, and which generation is the live one
``share/{id}/{generation}/log/{n}``         entry n of its log: a group of syncs, or the tombstone
``share/{id}/{generation}/snapshot/{n}``    all that entries 1…n make
``index/{id}/{generation}``                 what listings of former versions told of it
``session/{sessionID}``                     whose secret it is that follows from the session alone
``expiry/{time}/{id}``                      that a share is due then: :mod:`~rpcshare.shares.expiry`
==========================================  ==========================================================

``share/{id}``, ``index/{id}`` and ``older/{id}`` are of an older layout: see
:mod:`~rpcshare.shares.legacy_layout`.

Bodies are JSON, compressed with zstd where that helps. Fields that a reader does not know are
ignored; a body of a version that it does not know is refused.
"""

import io
import secrets
import threading
from collections.abc import Sequence
from enum import StrEnum
from typing import Self, TypeVar

import msgspec
import zstandard

from rpcshare.shares.entry_text import VERSION, LoggedSync, Piece, Text, encode_entry, write_items
from rpcshare.shares.reverts import Removed
from rpcshare.shares.share_identity import SecretKind
from rpcshare.shares.state import SessionIndex
from rpcshare.shares.stored_items import StoredItem, restored
from rpcshare.shares.syncdata import Item
from rpcshare.storage import StoreError

__all__ = [
    "VERSION",
    "Head",
    "IndexRow",
    "LogEntry",
    "LogSnapshot",
    "LoggedSync",
    "SessionOwner",
    "UnknownVersionError",
    "Visibility",
    "encode_entry",
    "pack",
    "unpack",
    "unpacked_size",
]

T = TypeVar("T")

INDEX_PREFIX = "index/"
ASIDE_PREFIX = "older/"
EXPIRY_PREFIX = "expiry/"
CHANGES_KEPT = 16
"""How many ids of changes a head has at most."""
OLDER = ""
"""Stands for a generation in the older layout, which had none."""

_COMPRESS_FROM = 1024  # bytes; below, zstd's frame eats most of what it saves
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL = 3


def head_key(share_id: str) -> str:
    """Return the key of a share's head. It comes behind those of all its generations."""
    return f"share/{share_id}/head"


def log_prefix(share_id: str, generation: str) -> str:
    """Return what the keys of a generation's log entries begin with."""
    return f"share/{share_id}/{generation}/log/"


def snapshot_prefix(share_id: str, generation: str) -> str:
    """Return what the keys of a generation's snapshots begin with. They come behind the log's."""
    return f"share/{share_id}/{generation}/snapshot/"


def index_key(share_id: str, generation: str) -> str:
    """Return the key of a share's row in listings.

    Each generation has its own, so that removing an old one late cannot hit the new one.
    """
    return f"{INDEX_PREFIX}{share_id}/{generation}" if generation else f"{INDEX_PREFIX}{share_id}"


def older_key(share_id: str) -> str:
    """Return the key of a share in the older layout."""
    return f"share/{share_id}"


def aside_key(share_id: str) -> str:
    """Return the key of a share in the older layout that is being upgraded, or of what that left over."""
    return f"{ASIDE_PREFIX}{share_id}"


def session_key(session_id: str) -> str:
    """Return the key of the object that says who was the first to share a session."""
    return f"session/{session_id}"


def expiry_key(share_id: str, expires_at: int) -> str:
    """Return the key of the object by which a share is found when its time is over."""
    return f"{EXPIRY_PREFIX}{expires_at:015d}/{share_id}"


def numbered(prefix: str, number: int) -> str:
    """Return the key of entry or snapshot ``number``: zero-padded, for listings to be in order."""
    return f"{prefix}{number:012d}"


def number_of(key: str) -> int:
    """Return the number at the end of a key.

    Raises:
        StoreError: there is none, so something else has put it there.
    """
    number = key.rpartition("/")[2]
    if not (number.isascii() and number.isdecimal()):
        raise StoreError(f"{key} is no entry and no snapshot: whatever has put it there, remove it")
    return int(number)


class UnknownVersionError(StoreError):
    """An object is well, but of a version that this server does not read."""


class Visibility(StrEnum):
    """Who may read a share without being its owner."""

    LINK = "link"
    """Whoever has the link, and the password if there is one."""
    PRIVATE = "private"
    """Nobody without a right of their own, or a view token."""
    ORGANIZATION = "organization"
    """The users of the owner's organization; others as if it were private."""


class Head(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Says that a share exists, and what is known of it besides its log.

    Of one that is deleted the place is left, and whose it was: nobody else gets its id.
    """

    v: int
    generation: str
    """Random, hexadecimal: so its keys come before the head's. Never used twice."""
    session_id: str = msgspec.field(name="sessionID", default="")
    owner: str | None = None
    secret_kind: SecretKind = SecretKind.SESSION
    secret_hash: str | None = None
    created_at: int = 0
    visibility: Visibility = Visibility.LINK
    password_hash: str | None = None
    """As :mod:`rpcshare.auth.passwords` makes it; None: no password is needed."""
    expires_at: int | None = None
    """When the share ends, in milliseconds since the epoch; None: never."""
    epoch: int = 0
    """How often visibility and password have changed: a view token is of one epoch."""
    revision: int = 0
    """How often any of the settings has changed."""
    changes: tuple[str, ...] = ()
    """Random ids of the latest changes of the settings, the newest last. They show whether one copy of a
    share has the changes of another."""
    deleted: bool = False
    """Only the place of a share is left: what was under this generation is gone. The head itself
    stays, because removing it could hit the head of a share made anew by another node."""
    expired: bool = False
    """It is gone because its time was over."""

    def __repr__(self) -> str:
        """Leave out the hashes."""
        return f"Head(generation={self.generation!r}, deleted={self.deleted})"

    def has_expired(self, now: int) -> bool:
        """Whether its time is over, or was when it was removed."""
        return self.expired or (self.expires_at is not None and now >= self.expires_at)

    def revised(self) -> Self:
        """Return it as after one more change of the settings, which the caller has made."""
        changes = (*self.changes, secrets.token_hex(4))[-CHANGES_KEPT:]
        return msgspec.structs.replace(self, revision=self.revision + 1, changes=changes)


class SessionOwner(msgspec.Struct, frozen=True):
    """Who was the first to share a session, and so knows the secret that follows from it alone.

    Stays when the share is deleted: that caller still knows the secret, so it must not open the share
    of another.
    """

    v: int
    owner: str | None
    """None: somebody who has no name here, as of a share in the older layout."""


class _StoredSync(msgspec.Struct):
    at: int
    items: list[StoredItem]
    label: str = ""


class _StoredEntry(msgspec.Struct, omit_defaults=True):
    v: int
    id: str
    syncs: list[_StoredSync] = []
    deleted: bool = False


class _StoredSnapshot(msgspec.Struct, rename="camel"):
    v: int
    sync_count: int
    last_updated: int
    items: list[StoredItem]
    removed: Removed = Removed()


class LogEntry:
    """An entry of a log, as it was read."""

    def __init__(self, stored: _StoredEntry, size: int) -> None:
        self.id = stored.id  # unique: how a writer recognises its own
        self.is_tombstone = stored.deleted
        self.size = size  # bytes, not compressed
        self.etag: str | None = None  # that it has in the store, if it was read from there
        self._syncs = stored.syncs

    def syncs(self, distinct: Sequence[bytes]) -> list[LoggedSync]:
        """Return what it holds.

        Args:
            distinct: the distinct diffs of the share, with all entries before this one applied.

        Raises:
            StoreError: the entry does not fit the share.
        """
        new: list[bytes] = []
        return [LoggedSync(sync.at, restored(sync.items, distinct, new), sync.label) for sync in self._syncs]


class LogSnapshot(msgspec.Struct, frozen=True):
    """A share as it was after some entry."""

    sync_count: int
    last_updated: int
    items: tuple[Item, ...]
    removed: Removed = Removed()


class IndexRow(msgspec.Struct, frozen=True, rename="camel"):
    """A share's row in listings, and whose it is."""

    v: int
    generation: str
    owner: str | None
    index: SessionIndex
    expires_at: int | None = None
    revision: int = 0
    """Of the head that this was taken from."""

    @classmethod
    def of(cls, head: Head, index: SessionIndex) -> Self:
        """Return the row of a share."""
        return cls(VERSION, head.generation, head.owner, index, head.expires_at, head.revision)

    def merged_with(self, other: Self) -> Self:
        """Return the newest of both, which are rows of one share: nodes learn of its news in any order."""
        index = self if self.index.sync_count >= other.index.sync_count else other
        settings = self if self.revision >= other.revision else other
        return msgspec.structs.replace(index, expires_at=settings.expires_at, revision=settings.revision)


def encode_head(head: Head) -> bytes:
    """Return the body of a head."""
    return msgspec.json.encode(head)


def decode_head(body: bytes) -> Head:
    """Return the head in ``body``; raise StoreError if there is none."""
    return _decode(_head_decoder, body, "head")


def encode_session_owner(owner: SessionOwner) -> bytes:
    """Return the body of a session's object."""
    return msgspec.json.encode(owner)


def decode_session_owner(body: bytes) -> SessionOwner:
    """Return what the body of a session's object says; raise StoreError if it says nothing."""
    return _decode(_session_owner_decoder, body, "session object")


def encode_tombstone(entry_id: str) -> bytes:
    """Return the body of the entry that ends a log."""
    return msgspec.json.encode(_StoredEntry(VERSION, entry_id, deleted=True))


def decode_entry(packed: bytes) -> LogEntry:
    """Return the entry in a packed body; raise StoreError if there is none."""
    body = unpack(packed)
    del packed  # it may be all that holds a large one
    return LogEntry(_decode(_entry_decoder, body, "log entry"), len(body))


def encode_snapshot(snapshot: LogSnapshot) -> Text:
    """Return the body of a snapshot."""
    fields = (VERSION, snapshot.sync_count, snapshot.last_updated)
    pieces: list[Piece] = [b'{"v":%d,"syncCount":%d,"lastUpdated":%d,"items":' % fields]
    write_items(pieces, snapshot.items, {}, {})
    if snapshot.removed:
        pieces.append(b',"removed":' + msgspec.json.encode(snapshot.removed))
    pieces.append(b"}")
    return Text(pieces)


def decode_snapshot(packed: bytes) -> LogSnapshot:
    """Return the snapshot in a packed body; raise StoreError if there is none."""
    body = unpack(packed)
    del packed  # it may be all that holds a large one
    stored = _decode(_snapshot_decoder, body, "snapshot")
    items = restored(stored.items, (), [])
    return LogSnapshot(stored.sync_count, stored.last_updated, items, stored.removed)


def encode_index(row: IndexRow) -> bytes:
    """Return the body of an index object, packed."""
    return pack(msgspec.json.encode(row))


def decode_index(packed: bytes) -> IndexRow:
    """Return the row in a packed body; raise StoreError if there is none."""
    return _decode(_index_decoder, unpack(packed), "index object")


_session_owner_decoder = msgspec.json.Decoder(SessionOwner)
_head_decoder = msgspec.json.Decoder(Head)
_entry_decoder = msgspec.json.Decoder(_StoredEntry)
_snapshot_decoder = msgspec.json.Decoder(_StoredSnapshot)
_index_decoder = msgspec.json.Decoder(IndexRow)


class _Version(msgspec.Struct):
    v: int


_version_decoder = msgspec.json.Decoder(_Version)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    try:
        version = _version_decoder.decode(body).v
        if version == VERSION:
            return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreError(f"the store holds a {what} that cannot be read") from exc
    raise UnknownVersionError(f"the store holds a {what} of version {version}; this server reads {VERSION}")


class _Zstd(threading.local):
    """Compressors, one a thread: making one takes as long as compressing a small body."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def pack(body: bytes | Text) -> bytes:
    """Return ``body`` compressed if that makes it smaller, else as it is."""
    size = len(body)
    if size < _COMPRESS_FROM:
        return bytes(body)
    if isinstance(body, bytes):
        packed = _zstd.compressor.compress(body)
    else:
        compress = _zstd.compressor.compressobj(size)
        with io.BytesIO() as made:  # whose value is no copy of it
            made.writelines(map(compress.compress, body.parts()))
            made.write(compress.flush())
            packed = made.getvalue()
    return packed if len(packed) < size else bytes(body)


def unpacked_size(packed: bytes) -> int:
    """Return how many bytes :func:`unpack` would return."""
    if not packed.startswith(_ZSTD_MAGIC):
        return len(packed)
    try:
        size = zstandard.frame_content_size(packed)
    except zstandard.ZstdError:  # which is told when it is unpacked
        return len(packed)
    return size if size >= 0 else len(packed)


def unpack(packed: bytes) -> bytes:
    """Return the body that :func:`pack` was given; raise StoreError if ``packed`` is damaged."""
    if not packed.startswith(_ZSTD_MAGIC):
        return packed
    try:
        return _zstd.decompressor.decompress(packed)
    except zstandard.ZstdError as exc:
        raise StoreError("the store holds an object that cannot be decompressed") from exc
