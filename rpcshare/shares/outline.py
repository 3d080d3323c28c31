"""The order of a share's messages and parts, and the newest diff of each file, for whoever draws it.

Kept up to date sync by sync, so that a page of a session with 20,000 parts costs what it shows. No more of
a body is decoded than the one field that says where it belongs.
"""

from collections.abc import Callable, Iterable
from itertools import chain

import msgspec

from rpcshare import jsontext
from rpcshare.long_work import LongWork
from rpcshare.shares.batch_validation import Value
from rpcshare.shares.refusals import Refusal
from rpcshare.shares.syncdata import Item, Kind

__all__ = ["Entry", "FileEntry", "Outline", "PartEntry", "Transcript"]


_STEP = 256  # values between two pauses
_ITEM_OVERHEAD = 350  # bytes of memory for each message, part and diff


class PartEntry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One version of a part."""

    id: str
    body: bytes
    """Its JSON."""
    since: int
    """The sync that made it, if the outline was there by then; see :attr:`Transcript.known_since`."""

    def __repr__(self) -> str:
        """Leave out what users wrote."""
        return f"{type(self).__name__}({self.id!r})"


class Entry(msgspec.Struct, frozen=True, eq=False, dict=True):
    """One version of a message with its parts. What is derived from it may be kept in its ``__dict__``."""

    id: str
    body: bytes | None
    """Its JSON; None where only parts of it are known so far."""
    parts: tuple[PartEntry, ...]
    body_since: int
    """The sync that made the message itself, as for its parts."""
    since: int
    """The newest sync that changed it or one of its parts."""

    def until(self, part_id: str) -> "Entry":
        """Return it without the part of this id, and those behind it."""
        ids = [part.id for part in self.parts]
        end = ids.index(part_id) if part_id in ids else len(ids)
        return msgspec.structs.replace(self, parts=self.parts[:end])

    def __repr__(self) -> str:
        """Leave out what users wrote."""
        return f"{type(self).__name__}({self.id!r}, <{len(self.parts)} parts>)"


class FileEntry(msgspec.Struct, frozen=True, eq=False, dict=True):
    """The newest FileDiff of a file. What is derived from it may be kept in its ``__dict__``."""

    body: bytes
    since: int
    """The sync that brought it, as for a part."""


class Relative(msgspec.Struct, frozen=True):
    """A share of a sub-agent's session, and what that has cost."""

    session_id: str
    share_id: str
    cost: float = 0.0
    """Dollars."""
    input: int = 0
    output: int = 0
    """Tokens, those of reasoning included."""
    cached: int = 0


class Transcript(msgspec.Struct, frozen=True, eq=False, dict=True):
    """A share as it is read from top to bottom, after ``sync_count`` syncs. It does not change."""

    share_id: str
    session_id: str
    generation: str
    is_public: bool
    """Whether whoever has the link may read it."""
    created_at: int
    """Milliseconds since the epoch."""
    last_updated: int
    """Milliseconds since the epoch."""
    sync_count: int
    known_since: int
    """From which sync on it is known what each changed: what is older says that it came with this one."""
    session: bytes
    entries: tuple[Entry, ...]
    """Messages by when they were made; behind them those of which only parts are known."""
    files: tuple[FileEntry, ...]
    """In the order in which the files were first seen."""
    models: tuple[bytes, ...]
    reverted_since: int = 0
    """The newest sync that took something back or restored it."""
    children: tuple[Relative, ...] = ()
    """Of its sub-agents, those that the reader may read."""
    parent: str | None = None
    """The share of the session that started it, if the reader may read that."""
    last_refusal: Refusal | None = None
    """Of a sync, if none has been taken since."""

    def __repr__(self) -> str:
        """Leave out what users wrote."""
        return f"{type(self).__name__}({self.share_id!r}, sync_count={self.sync_count})"


class _Belonging(msgspec.Struct, gc=False):
    message: str = msgspec.field(name="messageID", default="")


class _Made(msgspec.Struct, gc=False):
    created: float = 0.0


class _OfTime(msgspec.Struct, gc=False):
    time: _Made = msgspec.field(default_factory=_Made)


class _OfFile(msgspec.Struct, gc=False):
    file: str = ""


_belonging = msgspec.json.Decoder(_Belonging).decode
_of_time = msgspec.json.Decoder(_OfTime).decode
_of_file = msgspec.json.Decoder(_OfFile).decode


class Outline:
    """Messages with their parts, and files, by what the items of a share say of themselves."""

    def __init__(self, items: Iterable[Item], sync_count: int) -> None:
        """Begin with the ``items`` that a share holds after ``sync_count`` syncs."""
        self.known_since = sync_count
        # Body, the sync that brought it, and when the message was made (milliseconds since the epoch; 0: it
        # does not say).
        self._messages: dict[str, tuple[bytes, int, float]] = {}
        self._parts: dict[str, PartEntry] = {}
        self._parts_of: dict[str, dict[str, None]] = {}  # part ids by message id, whether there or not
        self._message_of: dict[str, str] = {}  # by part id
        self._entries: dict[str, Entry] = {}  # those that are as the share is now
        self._in_order: tuple[Entry, ...] | None = ()  # None: to be made
        self._files: dict[str | bytes, FileEntry] = {}  # by name; by body where there is none
        self._file_of: dict[bytes, str | bytes] = {}  # which file each body that came is of
        self.apply(items, sync_count)

    def apply(self, items: Iterable[Item], sync_count: int) -> None:
        """Take in the items of sync number ``sync_count``, in the order of the syncs."""
        for item in items:
            apply = self._apply_of(item.kind)
            if apply is not None:
                for value in item.values:
                    apply(value, sync_count)

    async def apply_in_slices(self, items: Iterable[Item], sync_count: int, work: LongWork) -> None:
        """Do what :meth:`apply` does, with pauses."""
        for item in items:
            apply = self._apply_of(item.kind)
            if apply is not None:
                for start in range(0, len(item.values), _STEP):
                    for value in item.values[start : start + _STEP]:
                        apply(value, sync_count)
                    await work.pause()

    def _apply_of(self, kind: Kind) -> Callable[[Value, int], None] | None:
        match kind:
            case Kind.MESSAGE:
                return self._apply_message
            case Kind.PART:
                return self._apply_part
            case Kind.DIFF:
                return self._apply_diff
            case _:
                return None

    @property
    def is_drawn_up(self) -> bool:
        """Whether :attr:`entries` are as they were when somebody last looked, and cost nothing."""
        return self._in_order is not None

    async def draw_up(self, work: LongWork) -> None:
        """Make :attr:`entries`, with pauses, unless it changes meanwhile."""
        wanted = [each for each in chain(self._messages, self._parts_of) if each not in self._entries]
        for start in range(0, len(wanted), _STEP):
            for message_id in wanted[start : start + _STEP]:
                self._entry(message_id)
            await work.pause()
        if all(each in self._entries for each in wanted):
            _ = self.entries

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Messages in order; one that has not changed is the same object as before."""
        if self._in_order is None:
            known = map(self._entry, self._as_said())
            waiting = (self._entry(each) for each in self._parts_of if each not in self._messages)
            self._in_order = (*known, *waiting)
        return self._in_order

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The newest diff of each file; one that has not changed is the same object as before."""
        return tuple(self._files.values())

    @property
    def footprint(self) -> int:
        """About how many bytes of memory this takes, beside the bodies, which it shares."""
        return _ITEM_OVERHEAD * (len(self._messages) + len(self._parts) + len(self._file_of))

    def _as_said(self) -> list[str]:
        """Return the ids of messages by when they were made: a client may send the newest first.

        One that does not say when stays behind the one that came before it.
        """
        latest = 0.0
        times: list[tuple[float, str]] = []
        for message_id, (_, _, created) in self._messages.items():
            latest = created or latest
            times.append((latest, message_id))
        times.sort(key=lambda each: each[0])
        return [message_id for _, message_id in times]

    def _entry(self, message_id: str) -> Entry:
        entry = self._entries.get(message_id)
        if entry is None:
            parts = tuple(map(self._parts.__getitem__, self._parts_of.get(message_id, ())))
            body, body_since, _ = self._messages.get(message_id, (None, 0, 0.0))
            since = max(body_since, max((part.since for part in parts), default=0))
            entry = Entry(message_id, body, parts, body_since, since)
            self._entries[message_id] = entry
        return entry

    def _apply_message(self, value: Value, sync_count: int) -> None:
        key, body = value
        message_id = _text(key)
        self._messages[message_id] = body, sync_count, _created(body)
        self._changed(message_id)

    def _apply_part(self, value: Value, sync_count: int) -> None:
        key, body = value
        part_id = _text(key)
        part = PartEntry(part_id, body, sync_count)
        try:
            message_id = _belonging(part.body).message
        except (msgspec.DecodeError, UnicodeDecodeError):
            message_id = _field(part.body, "messageID")
        before = self._message_of.get(part_id)
        if before is not None and before != message_id:
            self._changed(before)
            siblings = self._parts_of[before]
            del siblings[part_id]
            if not siblings:
                del self._parts_of[before]
        self._parts[part_id] = part
        self._message_of[part_id] = message_id
        self._parts_of.setdefault(message_id, {})[part_id] = None
        self._changed(message_id)

    def _apply_diff(self, value: Value, sync_count: int) -> None:
        body = value[1]
        file = self._file_of.get(body)
        if file is None:
            try:
                file = _of_file(body).file
            except (msgspec.DecodeError, UnicodeDecodeError):
                file = _field(body, "file")
            file = self._file_of[body] = file or body
        held = self._files.get(file)
        if held is None or held.body != body:
            self._files[file] = FileEntry(body, sync_count)

    def _changed(self, message_id: str) -> None:
        self._entries.pop(message_id, None)
        self._in_order = None


def _text(key: bytes) -> str:
    if b"\\" not in key:
        return key[1:-1].decode()
    text: str = jsontext.decode(key)
    return text


def _created(body: bytes) -> float:
    try:
        return _of_time(body).time.created
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0.0


def _field(body: bytes, name: str) -> str:
    """Return a string at the top of a body that is not as usual; empty where there is none."""
    whole = jsontext.decode(body)
    value = whole.get(name) if isinstance(whole, dict) else None
    return value if isinstance(value, str) else ""
