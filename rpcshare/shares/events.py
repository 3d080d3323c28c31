"""What happens to a share, as its viewers are told (PROTOCOL.md, "Events")."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Self

import msgspec

from rpcshare import jsontext
from rpcshare.errors import ShareError
from rpcshare.shares.syncdata import Item, json_elements, json_pieces, text_parts

__all__ = ["Deleted", "Event", "Refused", "Snapshot", "Sync"]


_WHOLE = 256 * 1024  # bytes of items whose text is made once, for all


class Event(msgspec.Struct, frozen=True, dict=True, weakref=True):
    """One event, shared by all subscribers: each form of it is made at most once."""

    type: ClassVar[str]
    share_id: str

    @cached_property
    def json(self) -> bytes:
        """The event as JSON text."""
        return jsontext.encode({"type": self.type, "shareID": self.share_id})

    @property
    def event_id(self) -> bytes:
        """By what a reader of Server-Sent Events resumes behind it; empty: it is nowhere to resume from."""
        return b""

    @property
    def is_large(self) -> bool:
        """Whether the text is too long to be held as a whole."""
        return False

    def text_parts(self) -> Iterator[bytes]:
        """Yield the text in parts."""
        return iter((self.json,))

    def text_in_parts(self) -> jsontext.InParts:
        """Return the text, or, if that is long, the texts of what it consists of."""
        return self.json

    @cached_property
    def value(self) -> dict[str, Any]:
        """The event as a JSON decoder makes it. Not to be changed: others hold it too."""
        value: dict[str, Any] = jsontext.decode(self.json)
        return value


class _ItemsEvent(Event, frozen=True, dict=True, weakref=True):
    sync_count: int
    items: tuple[Item, ...]

    @property
    def event_id(self) -> bytes:
        """By what a reader of Server-Sent Events resumes behind it."""
        return b"%d" % self.sync_count

    def with_items(self, items: tuple[Item, ...]) -> Self:
        """Return the same event with newer values."""
        return msgspec.structs.replace(self, items=items)

    @property
    def size(self) -> int:
        """Bytes that the items take."""
        size = 0
        for item in self.items:
            size += item.size
        return size

    @cached_property
    def json(self) -> bytes:
        """The event as JSON text."""
        return b"".join(self._pieces())

    @property
    def is_large(self) -> bool:
        """Whether the text is too long to be held as a whole for each of those who are slow to read it."""
        return self.size > _WHOLE

    def text_parts(self) -> Iterator[bytes]:
        """Yield the text in parts of about 64 KiB, those of a large event made as they are asked for."""
        return text_parts(self._pieces() if self.is_large else (self.json,))

    def text_in_parts(self) -> jsontext.InParts:
        """Return the text, or, if that is long, the texts of what it consists of."""
        if not self.is_large:
            return self.json
        return {
            "type": jsontext.encode(self.type),
            "shareID": jsontext.encode(self.share_id),
            "syncCount": jsontext.encode(self.sync_count),
            "data": list(json_elements(self.items)),
        }

    @property
    def opening(self) -> bytes:
        """The text up to the items."""
        fields = (self.type.encode(), self.share_id.encode(), self.sync_count)
        return b'{"type":"%b","shareID":"%b","syncCount":%d,"data":' % fields

    def _pieces(self) -> Iterator[bytes]:
        yield self.opening
        yield from json_pieces(self.items)
        yield b"}"


class Snapshot(_ItemsEvent, frozen=True, dict=True, weakref=True):
    """All that the share holds after ``sync_count`` syncs. Replaces what came before."""

    type = "snapshot"


class Sync(_ItemsEvent, frozen=True, dict=True, weakref=True):
    """What changed since the event before, up to and with sync number ``sync_count``."""

    type = "sync"


class Deleted(Event, frozen=True, dict=True, weakref=True):
    """The share is gone. The last event."""

    type = "deleted"


class Refused(Event, frozen=True, dict=True, weakref=True):
    """The subscriber may not read the share any longer. Its last event, and nobody else's."""

    type = "error"
    code: str
    message: str

    @classmethod
    def because(cls, error: ShareError, share_id: str) -> Self:
        """Return what ``error``, with which a subscription has ended, means to its subscriber."""
        return cls(share_id, error.code.value, error.message)

    @cached_property
    def json(self) -> bytes:
        """The event as JSON text."""
        told = {"type": self.type, "shareID": self.share_id, "code": self.code, "message": self.message}
        return jsontext.encode(told)
