"""What a page shows of messages: the pieces of each, which are drawn first, and how they are put together."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from rpcshare.render.anchors import anchor
from rpcshare.render.mentions import mentions_of
from rpcshare.render.messages import MessageView, anchor_of, facts_of, is_over, turn_of, view_of_message
from rpcshare.render.pagination import Run
from rpcshare.render.part_groups import PartGroup, groups_of, with_neighbours
from rpcshare.render.pieces import PartPiece, Piece
from rpcshare.render.relatives import session_of_parts
from rpcshare.render.revert import taken_back
from rpcshare.render.sessions import directory_of
from rpcshare.shares.outline import Entry, PartEntry, Transcript

__all__ = ["DrawGroup", "ShownMessage", "child_address", "content_address", "pieces_of", "views_of"]

DrawGroup = Callable[[PartGroup, str, list[Markup]], Markup]
"""Draws a group, given the anchor of its first part and its parts as HTML."""


class ShownMessage(NamedTuple):
    """A message, or a run of its parts, with the pieces in it."""

    place: int
    """Of the message."""
    entry: Entry
    pieces: list[PartPiece]
    first: int
    is_end: bool
    is_over: bool
    groups: list[PartGroup]

    @classmethod
    def of_run(cls, transcript: Transcript, run: Run, *, is_quiet: bool) -> Self:
        """Return what a page shows of a message, in a share that is quiet or not."""
        ended = _is_over(transcript, run.index, run.entry, is_quiet=is_quiet)
        parts = [(place, run.entry.parts[place]) for place in range(run.first, run.last)]
        groups = _groups(transcript, run.index, run.entry, parts)
        pieces = _part_pieces(transcript, run.entry, parts, groups, is_ended=ended)
        return cls(run.index, run.entry, pieces, run.first, run.last >= len(run.entry.parts), ended, groups)

    @classmethod
    def of_changed(cls, transcript: Transcript, index: int, entry: Entry, since: int) -> Self:
        """Return what has changed in a message since a sync, and what is in a group with that."""
        changed = [place for place, part in enumerate(entry.parts) if part.since > since]
        parts = [(place, entry.parts[place]) for place in with_neighbours(entry.parts, changed)]
        groups = _groups(transcript, index, entry, parts)
        told = {place for group in groups for place in range(group.first, group.last)}
        parts = [(place, part) for place, part in parts if place in told or part.since > since]
        ended = _is_over(transcript, index, entry, is_quiet=False)
        pieces = _part_pieces(transcript, entry, parts, groups, is_ended=ended)
        return cls(index, entry, pieces, 0, is_end=True, is_over=ended, groups=groups)

    def view(self, transcript: Transcript, drawn: Mapping[Piece, Markup], group: DrawGroup) -> MessageView:
        """Return how it is shown, given its pieces as HTML and what draws a group of them."""
        return view_of_message(
            self.entry,
            list(self._grouped(drawn, group)),
            first=self.first,
            is_end=self.is_end,
            after=anchor_of(transcript.entries[self.place - 1]) if self.place else "",
            turn=turn_of(transcript.entries, self.place) if self.is_end else None,
            is_ended=self.is_over,
            kept=_kept(transcript, self.place, self.entry),
        )

    def _grouped(self, drawn: Mapping[Piece, Markup], group: DrawGroup) -> Iterator[tuple[int, Markup]]:
        waiting = {piece.index: piece for piece in self.pieces}
        for each in self.groups:
            members = [waiting.pop(place) for place in range(each.first, each.last) if place in waiting]
            if members:
                html = group(each, members[0].anchor, [drawn[piece] for piece in members])
                drawn = {**drawn, members[0]: html}
                waiting[each.first] = members[0]
        for place in sorted(waiting):
            yield place, drawn[waiting[place]]


def _is_over(transcript: Transcript, place: int, entry: Entry, *, is_quiet: bool) -> bool:
    return is_over(entry, is_last=place == len(transcript.entries) - 1, is_quiet=is_quiet)


def _groups(
    transcript: Transcript, index: int, entry: Entry, parts: list[tuple[int, PartEntry]]
) -> list[PartGroup]:
    kept, directory = _kept(transcript, index, entry), directory_of(transcript)
    mentions = mentions_of(entry) if facts_of(entry).role == "user" else {}
    parts = [each for each in parts if mentions.get(each[0], ()) is not None]
    if kept is None:
        return groups_of(parts, directory)
    halves = ([each for each in parts if each[0] < kept], [each for each in parts if each[0] >= kept])
    return [group for half in halves for group in groups_of(half, directory)]


def _kept(transcript: Transcript, place: int, entry: Entry) -> int | None:
    """Return how many parts were not taken back; None where the message is whole."""
    back = taken_back(transcript)
    return back.kept_parts(place, entry) if back and back.entry <= place < back.until else None


def views_of(
    transcript: Transcript, shown: list[ShownMessage], drawn: Mapping[Piece, Markup], group: DrawGroup
) -> list[MessageView]:
    """Return how messages are shown, without those that are gone for good."""
    back = taken_back(transcript)
    left = [each for each in shown if back is None or not back.removes(each.place, each.entry)]
    views = [each.view(transcript, drawn, group) for each in left]
    if back is not None and back.is_gone:
        views = [msgspec.structs.replace(view, taken_back=[]) for view in views]
    return views


def _part_pieces(
    transcript: Transcript,
    entry: Entry,
    parts: list[tuple[int, PartEntry]],
    groups: list[PartGroup],
    *,
    is_ended: bool,
) -> list[PartPiece]:
    grouped = {place for group in groups for place in range(group.first, group.last)}
    role, directory, share_id = facts_of(entry).role, directory_of(transcript), transcript.share_id
    mentions = mentions_of(entry) if role == "user" else {}
    return [
        PartPiece(
            part.body,
            place,
            role,
            directory,
            index,
            f"{share_id}/part/{place}",
            is_over=is_ended,
            content=content_address(share_id, part.id, ".."),
            contexts=mentions.get(index) or (),
            child=child_address(transcript, entry, part, ""),
            is_in_group=index in grouped,
        )
        for index, part in parts
        for place in (anchor(part.id),)
        if mentions.get(index, ()) is not None
    ]


def child_address(transcript: Transcript, entry: Entry, part: PartEntry, root: str) -> str:
    """Return where the session is that a part started, from a page below whose root shares are."""
    if not transcript.children:
        return ""
    session_id = session_of_parts(entry).get(part.id)
    return next((root + each.share_id for each in transcript.children if each.session_id == session_id), "")


def content_address(share_id: str, part_id: str, root: str) -> str:
    """Return where the bytes of a part's file are to be had, from a page whose root is there."""
    return f"{root}/api/share/{share_id}/parts/{quote(part_id.encode('utf-8', 'replace'), safe='')}/content"


def pieces_of(shown: list[ShownMessage]) -> list[Piece]:
    """Return the pieces that have to be drawn for messages."""
    return [piece for each in shown for piece in each.pieces]
