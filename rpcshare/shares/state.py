"""What a share holds: its items, merged. This is the only place that merges.

Bodies stay the JSON bytes that :mod:`~rpcshare.shares.syncdata` made, so that a document is a join of
bytes, and a size is a sum of lengths.
"""

import re
from array import array
from collections.abc import Iterable, Iterator

import msgspec

from rpcshare import jsontext
from rpcshare.shares.outline import Outline
from rpcshare.shares.syncdata import Item, Kind, joined, json_pieces

__all__ = ["Content", "SessionIndex", "ShareState", "listing_text"]

_ITEM_OVERHEAD = 200  # bytes of memory beside an item's own: two objects and their place in a dict
_INDEX_TEXT_LIMIT = 4096  # characters of a title in a listing


class SessionIndex(msgspec.Struct, frozen=True, rename="camel"):
    """What a listing tells of a share. Times are milliseconds since the epoch."""

    id: str
    session_id: str = msgspec.field(name="sessionID")
    title: str
    directory: str
    message_count: int
    part_count: int
    diff_count: int
    model_count: int
    last_updated: int
    sync_count: int
    created_at: int

    def __repr__(self) -> str:
        """Leave out what users wrote."""
        return f"{type(self).__name__}(id={self.id!r}, sync_count={self.sync_count})"


class DiffList:
    """FileDiffs in the order in which they came, with the body of equal ones kept once.

    opencode sends all diffs of a turn again with every batch, so nearly all of them are repeats.
    """

    def __init__(self) -> None:
        self.distinct: list[bytes] = []
        self.numbers: dict[bytes, int] = {}  # the place of each body in distinct
        self._order = array("I")  # of every diff that came, its place in distinct

    def append(self, body: bytes) -> int:
        """Add a diff, and return by how many bytes that made the list larger."""
        number = self.numbers.setdefault(body, len(self.distinct))
        self._order.append(number)
        if number < len(self.distinct):
            return self._order.itemsize
        self.distinct.append(body)
        return self._order.itemsize + len(body)

    def growth(self, body: bytes) -> int:
        """Return what :meth:`append` would return."""
        return self._order.itemsize + (0 if body in self.numbers else len(body))

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[bytes]:
        return map(self.distinct.__getitem__, self._order)


class Content:
    """Items merged: the session replaced, the others by key in first-seen order, diffs appended."""

    def __init__(self) -> None:
        self.session: bytes | None = None
        self.messages: dict[bytes, bytes] = {}
        self.parts: dict[bytes, bytes] = {}
        self.models: dict[bytes, bytes] = {}
        self.diffs = DiffList()
        self.size = 0
        """Bytes of what is held, with a repeated diff counted as the number that stands for it."""
        self._by_key = {
            Kind.MESSAGE: self.messages,
            Kind.PART: self.parts,
            Kind.MODEL: self.models,
        }

    def apply(self, items: Iterable[Item]) -> None:
        """Merge ``items`` into what is here, at a cost that depends on them alone."""
        for item in items:
            if item.kind is Kind.SESSION:
                for _, body in item.values:
                    self.size += len(body) - len(self.session or b"")
                    self.session = body
            elif item.kind is Kind.DIFF:
                for _, body in item.values:
                    self.size += self.diffs.append(body)
            else:
                held = self._by_key[item.kind]
                if not held:  # as with all that a large share begins with
                    held.update(item.values)
                    has_all = len(held) == len(item.values)
                    self.size += item.size if has_all else sum(len(key) + len(held[key]) for key in held)
                    continue
                for key, body in item.values:
                    self.size += _grown(held, key, body)
                    held[key] = body

    def growth(self, items: Iterable[Item]) -> int:
        """Return by how many bytes :meth:`apply` can make this larger, shrinking not counted."""
        growth = 0
        for item in items:
            if item.kind is Kind.SESSION:
                growth += max(0, item.size - len(self.session or b""))
            elif item.kind is Kind.DIFF:
                growth += sum(self.diffs.growth(body) for _, body in item.values)
            else:
                held = self._by_key[item.kind]
                if not held:
                    growth += item.size
                    continue
                for key, body in item.values:
                    growth += max(0, _grown(held, key, body))
        return growth

    def items(self) -> tuple[Item, ...]:
        """Return what is here as items that make the same of an empty content."""
        in_order = (
            (Kind.SESSION, () if self.session is None else ((b"", self.session),)),
            (Kind.MESSAGE, tuple(self.messages.items())),
            (Kind.PART, tuple(self.parts.items())),
            (Kind.DIFF, tuple((b"", body) for body in self.diffs)),
            (Kind.MODEL, tuple(self.models.items())),
        )
        return tuple(Item(kind, values) for kind, values in in_order if values)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory this takes."""
        held = len(self.messages) + len(self.parts) + len(self.models) + len(self.diffs.distinct)
        return self.size + _ITEM_OVERHEAD * held


def _grown(held: dict[bytes, bytes], key: bytes, body: bytes) -> int:
    return len(body) - len(held[key]) if key in held else len(key) + len(body)


class ShareState:
    """A share as its log leaves it: content, and how and when it came to be."""

    def __init__(self, share_id: str, session_id: str, created_at: int) -> None:
        self.share_id = share_id
        self.session_id = session_id
        self.created_at = created_at  # ms
        self.last_updated = created_at  # ms
        self.sync_count = 0
        self.content = Content()
        self._outline: Outline | None = None  # made when somebody asks for it
        self._titled: tuple[bytes, str, str] | None = None  # of the session that titles() read last

    def apply(self, items: Iterable[Item], at: int) -> None:
        """Merge the items of one sync, made ``at`` milliseconds since the epoch."""
        self.content.apply(items)
        self.sync_count += 1
        if self._outline is not None:
            self._outline.apply(items, self.sync_count)
        self.last_updated = at

    def restore(self, items: Iterable[Item], sync_count: int, last_updated: int) -> None:
        """Take the state that :meth:`items` of another instance has described."""
        self.content = Content()
        self.content.apply(items)
        self._outline = None
        self.sync_count = sync_count
        self.last_updated = last_updated

    @property
    def footprint(self) -> int:
        """About how many bytes of memory this takes."""
        return self.content.footprint + (self._outline.footprint if self._outline is not None else 0)

    @property
    def outline(self) -> Outline:
        """The order of what the share holds: made once, and from then on kept up to date."""
        if self._outline is None:
            self._outline = Outline(self.content.items(), self.sync_count)
        return self._outline

    @property
    def session(self) -> bytes:
        """The session, or what stands for it until one comes, as JSON."""
        if self.content.session is not None:
            return self.content.session
        return jsontext.encode(
            {
                "id": self.session_id,
                "slug": self.session_id,
                "projectID": "",
                "directory": "",
                "title": "",
                "version": "1",
                "time": {"created": self.created_at, "updated": self.created_at},
            }
        )

    def items(self) -> tuple[Item, ...]:
        """Return the share as a list of SyncData, in their normal form: always with a session."""
        items = self.content.items()
        if self.content.session is None:
            return (Item(Kind.SESSION, ((b"", self.session),)), *items)
        return items

    def sync_data(self) -> bytes:
        """Return the share as the JSON text of a list of SyncData."""
        return b"".join(json_pieces(self.items()))

    def agent_session(self) -> bytes:
        """Return the share as the JSON text of an AgentSession."""
        content = self.content
        metadata = {
            "createdAt": self.created_at,
            "lastUpdated": self.last_updated,
            "syncCount": self.sync_count,
            "sessionID": self.session_id,
        }
        return b"".join(
            (
                b'{"session":',
                self.session,
                b',"messages":[',
                *joined(content.messages.values()),
                b'],"parts":[',
                *joined(content.parts.values()),
                b'],"diffs":[',
                *joined(content.diffs),
                b'],"models":[',
                *joined(content.models.values()),
                b'],"metadata":',
                jsontext.encode(metadata),
                b"}",
            )
        )

    def index(self) -> SessionIndex:
        """Return what a listing tells of the share."""
        title, directory = self._titles()
        return SessionIndex(
            id=self.share_id,
            session_id=self.session_id,
            title=title,
            directory=directory,
            message_count=len(self.content.messages),
            part_count=len(self.content.parts),
            diff_count=len(self.content.diffs),
            model_count=len(self.content.models),
            last_updated=self.last_updated,
            sync_count=self.sync_count,
            created_at=self.created_at,
        )

    def _titles(self) -> tuple[str, str]:
        body = self.content.session
        if body is None:
            return "", ""
        if self._titled is None or self._titled[0] is not body:
            session = jsontext.decode(body)
            self._titled = (body, listing_text(session.get("title")), listing_text(session.get("directory")))
        return self._titled[1:]


def listing_text(value: object) -> str:
    """Return a string fit for a listing: no half of a surrogate pair in it, and of bounded length."""
    if not isinstance(value, str):
        return ""
    return re.sub("[\ud800-\udfff]", "\ufffd", value[:_INDEX_TEXT_LIMIT])
