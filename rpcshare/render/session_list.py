"""The list of sessions as people see it: rows, the form that chooses among them, and hits of a search."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import msgspec

from rpcshare.render import figures
from rpcshare.render.anchors import anchor
from rpcshare.render.lenient_json import Fields
from rpcshare.render.sessions import is_unnamed
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.page import LIVE_FOR, RowPage
from rpcshare.shares.search import Hit

__all__ = ["HitView", "Listing", "RowView", "day_as_time", "view_of_row", "views_of_list"]

_SNIPPET = 240


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list of sessions, and what was asked for."""

    page: RowPage
    address: str
    """Of the list itself, from the page's own."""
    asked: dict[str, str]
    """What the form says, by the names of its fields, and ``before`` for a page before another."""
    start: int
    """The number of the first row, from 1."""
    may_delete: bool
    is_of_all: bool
    """Whether everybody's are listed: then rows have owners."""
    hits: list[Hit] = []
    hits_problem: str = ""
    notice: str = ""
    now: int = 0
    server: str = ""
    """The address that clients share to."""


class RowView(msgspec.Struct, frozen=True):
    """One session."""

    id: str
    title: str
    prompt: str
    directory: str
    project: str
    owner: str
    model: str
    cost: str
    messages: str
    parts: str
    syncs: str
    additions: int
    deletions: int
    updated: str
    updated_iso: str
    ago: str
    badges: list[str]


class HitView(msgspec.Struct, frozen=True):
    """A place in a session that has what was looked for."""

    address: str
    title: str
    snippet: str
    at: str
    at_iso: str


def views_of_list(listing: Listing) -> dict[str, object]:
    """Return what the templates of the list show."""
    page, asked = listing.page, {name: value for name, value in listing.asked.items() if value}
    is_filtered = bool(set(asked) - {"order"})
    first, last = listing.start, listing.start + len(page.rows) - 1
    order = dict(asked)
    if page.by_change:
        del order["order"]
    else:
        order["order"] = "changed"
    return {
        "rows": [view_of_row(row, listing.now) for row in page.rows],
        "count": page.count,
        "is_least": page.is_least,
        "first": first,
        "last": last,
        "asked": listing.asked,
        "query": asked.get("q", ""),
        "own_address": listing.address,
        "is_filtered": is_filtered,
        "by_change": page.by_change,
        "is_complete": page.is_complete,
        "other_order": _address(listing, order),
        "first_page": _address(listing, asked),
        "later_page": _beside(listing, asked, is_later=True),
        "next_page": _beside(listing, asked, is_later=False),
        "is_later": first > 1,
        "may_delete": listing.may_delete,
        "is_of_all": listing.is_of_all,
        "hits": list(_hits(listing.hits)),
        "hits_problem": listing.hits_problem,
        "notice": listing.notice,
        "server": listing.server,
    }


def view_of_row(row: CatalogueRow, now: int) -> RowView:
    """Return a session as one row shows it."""
    index, counted = row.index, row.figures
    texts = Fields(
        {
            "title": index.title,
            "directory": index.directory,
            "prompt": counted.first_prompt,
            "owner": (row.owner or "").rpartition("\x1f")[2],
            "project": row.project,
            "model": counted.model,
        }
    )
    title, prompt = texts.line("title"), texts.line("prompt")
    if not title or (is_unnamed(title) and prompt):
        title, prompt = prompt or title or "Untitled session", ""
    badges = []
    if now - index.last_updated < LIVE_FOR and index.sync_count:
        badges.append("live")
    if row.is_private:
        badges.append("private")
    if row.is_for_organization:
        badges.append("organization")
    if row.has_password:
        badges.append("password")
    if row.expires_at is not None:
        badges.append(f"expires {_ago(row.expires_at - now)}")
    if index.last_refusal is not None:
        badges.append("last sync refused")
    return RowView(
        id=index.id,
        title=title,
        prompt=prompt if prompt != title else "",
        directory=texts.line("directory"),
        project=texts.line("project", limit=80),
        owner=texts.line("owner", limit=80),
        model=texts.line("model", limit=60),
        cost=figures.money(counted.cost),
        messages=figures.plural(index.message_count, "message"),
        parts=figures.plural(index.part_count, "part"),
        syncs=figures.plural(index.sync_count, "sync"),
        additions=counted.additions,
        deletions=counted.deletions,
        updated=figures.moment(index.last_updated),
        updated_iso=figures.iso_time(index.last_updated),
        ago=_ago(index.last_updated - now),
        badges=badges,
    )


def _hits(hits: Iterable[Hit]) -> Iterable[HitView]:
    for hit in hits:
        texts = Fields({"title": hit.title, "snippet": hit.snippet})
        place = f"?{urlencode({'at': anchor(hit.message_id)})}" if hit.message_id else ""
        if hit.part_id:
            place += f"#p-{anchor(hit.part_id)}"
        yield HitView(
            f"share/{hit.share_id}{place}",
            texts.line("title") or "Untitled session",
            texts.line("snippet", limit=_SNIPPET),
            figures.moment(hit.time),
            figures.iso_time(hit.time),
        )


def _beside(listing: Listing, asked: dict[str, str], *, is_later: bool) -> str:
    """Return the address of the page before or behind; empty if there is none."""
    page = listing.page
    # A page that was come to from behind has one behind it.
    is_backwards = listing.asked.get("before") == "1"
    has_more = (
        page.has_more if is_later == is_backwards else (listing.start > 1 if is_later else is_backwards)
    )
    if not has_more or not page.rows:
        return ""
    row = page.rows[0] if is_later else page.rows[-1]
    start = listing.start + len(page.rows)
    more = {"cursor": page.cursor_of(row), "from": str(start)}
    if is_later:
        more |= {"from": str(listing.start), "before": "1"}
    return _address(listing, {**asked, **more})


def _address(listing: Listing, asked: dict[str, str]) -> str:
    kept = {name: value for name, value in asked.items() if value}
    return f"{listing.address}?{urlencode(kept)}" if kept else listing.address


def _ago(milliseconds: int) -> str:
    """Return how long ago something was, or in how long it will be."""
    seconds = abs(milliseconds) // 1000
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            told = figures.plural(seconds // size, name)
            return f"in {told}" if milliseconds > 0 else f"{told} ago"
    return "in less than a minute" if milliseconds > 0 else "just now"


def day_as_time(day: str, *, is_end: bool = False) -> int | None:
    """Return when a day such as ``2026-11-28`` begins, or ends, in UTC; None if it is none."""
    try:
        moment = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        return int((moment + timedelta(days=is_end)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
