"""A share as its log leaves it: what it holds, how it came to be, and the documents that are made of it."""

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from rpcshare import jsontext
from rpcshare.long_work import LongWork
from rpcshare.shares.batch_validation import Value
from rpcshare.shares.content import Content
from rpcshare.shares.outline import Outline
from rpcshare.shares.refusals import Refusal
from rpcshare.shares.reverts import Removed
from rpcshare.shares.syncdata import Item, Kind, bodies_size, joined, json_pieces

__all__ = ["Content", "SessionIndex", "ShareState", "WholeShare", "listing_text"]

_OUTLINED_AT_ONCE = 1000  # values of a sync that an outline takes in as it is applied
_SEARCHED_AT_ONCE = 256  # parts between two pauses
_INDEX_TEXT_LIMIT = 4096  # characters of a title in a listing


class SessionIndex(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
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
    last_refusal: Refusal | None = None
    """Of a sync, if none has been taken since."""

    def __repr__(self) -> str:
        """Leave out what users wrote."""
        return f"{type(self).__name__}(id={self.id!r}, sync_count={self.sync_count})"


class ShareState:
    """A share as its log leaves it: content, and how and when it came to be."""

    def __init__(self, share_id: str, session_id: str, created_at: int) -> None:
        self.share_id = share_id
        self.session_id = session_id
        self.created_at = created_at  # ms
        self.last_updated = created_at  # ms
        self.sync_count = 0
        self.reverted_since = 0
        """The last sync that took something back, or restored it, as far as is known."""
        self.content = Content()
        self._outline: Outline | None = None  # made when somebody asks for it
        self._outlining = asyncio.Lock()  # of whoever works on it in time slices
        self._unlined: deque[tuple[tuple[Item, ...], int]] = deque()  # syncs that it has yet to take in
        self._unlined_count = 0  # their values
        self._titled: tuple[bytes, str, str] | None = None  # of the session that titles() read last

    def apply(self, items: tuple[Item, ...], at: int) -> None:
        """Merge the items of one sync, made ``at`` milliseconds since the epoch."""
        before = self.content.reverts.changes
        self.content.apply(items)
        self.sync_count += 1
        if self.content.reverts.changes != before:
            self.reverted_since = self.sync_count
        if self._outline is not None:
            self._keep_outline(self._outline, items)
        # Of two nodes that write at once, one may have taken the time before it read what the other wrote.
        self.last_updated = max(self.last_updated, at)

    def _keep_outline(self, outline: Outline, items: tuple[Item, ...]) -> None:
        """Have the outline take in the newest sync: now, or when somebody asks for it."""
        count = sum(len(item.values) for item in items)
        if not self._unlined and count <= _OUTLINED_AT_ONCE:
            outline.apply(items, self.sync_count)
            return
        self._unlined.append((items, self.sync_count))
        self._unlined_count += count
        if self._unlined_count > _OUTLINED_AT_ONCE + self.content.count:
            # To make it anew takes less, and keeps no value that has been replaced.
            self._outline = None
            self._forget_unlined()

    def _forget_unlined(self) -> None:
        self._unlined = deque()
        self._unlined_count = 0

    def restore(
        self, items: Iterable[Item], sync_count: int, last_updated: int, removed: Removed | None = None
    ) -> None:
        """Take the state that :meth:`items` of another instance has described, and what it held removed."""
        self.content = Content()
        self.content.apply(items)
        self.content.reverts.restore(removed or Removed(), self.content.session)
        self._outline = None
        self._forget_unlined()
        self.sync_count = sync_count
        self.last_updated = last_updated

    @property
    def footprint(self) -> int:
        """About how many bytes of memory this takes."""
        return self.content.footprint + (self._outline.footprint if self._outline is not None else 0)

    @property
    def outline(self) -> Outline:
        """The order of what the share holds, without pauses: for who has no event loop to hold up."""
        outline = self._outline or self._begin_outline()
        while self._unlined:
            outline.apply(*self._unlined.popleft())
        self._unlined_count = 0
        return outline

    async def outlined(self) -> Outline:
        """Return :attr:`outline`, as it is when this returns: made in time slices, then kept up to date."""
        async with self._outlining:
            while True:
                outline = self._outline or self._begin_outline()
                if not self._unlined and outline.is_drawn_up:
                    return outline
                async with LongWork() as work:
                    # In each pause syncs may be applied, or the outline given up.
                    while outline is self._outline and self._unlined:
                        unlined = self._unlined
                        await outline.apply_in_slices(*unlined[0], work)
                        unlined.popleft()
                    if outline is self._outline:
                        self._unlined_count = 0
                        await outline.draw_up(work)

    def _begin_outline(self) -> Outline:
        outline = self._outline = Outline((), self.sync_count)
        self._unlined = deque([(self.content.items(), self.sync_count)])
        return outline

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

    async def part(self, part_id: str) -> bytes | None:
        """Return the part of an id, or the one that has an attachment of it, as JSON; else None."""
        key = jsontext.encode(part_id)
        parts = self.content.parts
        if (found := parts.get(key)) is not None:
            return found[1]
        bodies = [body for _, body in parts.values()]
        async with LongWork() as work:
            for start in range(0, len(bodies), _SEARCHED_AT_ONCE):
                for body in bodies[start : start + _SEARCHED_AT_ONCE]:
                    # No more is decoded than what may be it.
                    if b'"attachments"' in body and key in body and _has_attachment(body, part_id):
                        return body
                await work.pause()
        return None

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
        return b"".join(self.whole().pieces())

    def whole(self) -> "WholeShare":
        """Return all that the share holds, as it is now: references, and no copy of any body."""
        content = self.content
        metadata = {
            "createdAt": self.created_at,
            "lastUpdated": self.last_updated,
            "syncCount": self.sync_count,
            "sessionID": self.session_id,
        }
        return WholeShare(
            self.session,
            {
                "messages": tuple(content.messages.values()),
                "parts": tuple(content.parts.values()),
                "diffs": content.diffs.values(),
                "models": tuple(content.models.values()),
            },
            jsontext.encode(metadata),
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


def _has_attachment(body: bytes, part_id: str) -> bool:
    part = jsontext.decode(body)
    state = part.get("state") if isinstance(part, dict) else None
    held = state.get("attachments") if isinstance(state, dict) else None
    attachments = held if isinstance(held, list) else ()
    return any(isinstance(each, dict) and each.get("id") == part_id for each in attachments)


class WholeShare(NamedTuple):
    """An AgentSession in pieces of JSON text."""

    session: bytes
    lists: Mapping[str, tuple[Value, ...]]
    """By the names of members, in their order."""
    metadata: bytes

    def items(self) -> tuple[Item, ...]:
        """Return what has keys, as items."""
        kinds = {"messages": Kind.MESSAGE, "parts": Kind.PART, "models": Kind.MODEL}
        return tuple(Item(kind, self.lists[name]) for name, kind in kinds.items())

    @property
    def size(self) -> int:
        """How many bytes the text has."""
        empty = self._replace(lists=dict.fromkeys(self.lists, ()))
        around = sum(map(len, empty.pieces()))
        return around + sum(bodies_size(each) + max(0, len(each) - 1) for each in self.lists.values())

    def in_parts(self) -> jsontext.InParts:
        """Return the texts by the names of members."""
        lists = {name: [body for _, body in values] for name, values in self.lists.items()}
        return {"session": self.session, **lists, "metadata": self.metadata}

    def pieces(self) -> Iterator[bytes]:
        """Yield the pieces of the text."""
        yield b'{"session":'
        yield self.session
        closing = b""
        for name, values in self.lists.items():
            yield b'%b,"%b":[' % (closing, name.encode())
            yield from joined(body for _, body in values)
            closing = b"]"
        yield closing + b',"metadata":'
        yield self.metadata
        yield b"}"


def listing_text(value: object) -> str:
    """Return a string fit for a listing: no half of a surrogate pair in it, and of bounded length."""
    if not isinstance(value, str):
        return ""
    return re.sub("[\ud800-\udfff]", "\ufffd", value[:_INDEX_TEXT_LIMIT])
