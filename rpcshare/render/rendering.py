"""The pages themselves: views into templates."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec
from markupsafe import Markup

from rpcshare.auth.api_keys import ApiKey
from rpcshare.auth.audit import RecordedEvent
from rpcshare.auth.caller import CallerUser, Role
from rpcshare.auth.users import BrowserSession, Identity, User
from rpcshare.render.anchors import anchor
from rpcshare.render.api_keys import view_of_key
from rpcshare.render.assets import Assets
from rpcshare.render.changed_files import changed_files
from rpcshare.render.messages import (
    anchor_of,
    facts_of,
    prompt_of,
)
from rpcshare.render.pagination import Chunk, Place, chunk_of, place_of
from rpcshare.render.pieces import Cause, CodePiece, Draft, FilePiece, PartPiece, Piece
from rpcshare.render.session_list import Listing, view_of_row, views_of_list
from rpcshare.render.session_search import MAX_QUERY, search_session
from rpcshare.render.sessions import FILES_PER_PAGE, Prompt, directory_of, prompts_of, view_of_session
from rpcshare.render.shown_messages import (
    ShownMessage,
    child_address,
    content_address,
    pieces_of,
    views_of,
)
from rpcshare.render.taking_along import Way
from rpcshare.render.users import (
    view_of_browser,
    view_of_event,
    view_of_identity,
    view_of_member,
    views_of_limits,
)
from rpcshare.shares.catalogue_row import CatalogueRow
from rpcshare.shares.outline import Entry, PartEntry, Transcript

if TYPE_CHECKING:
    from jinja2 import Environment
from rpcshare.render.vault import view_of_entry
from rpcshare.shares.usage import Measured
from rpcshare.vault.entry import VaultEntry

__all__ = ["Frame", "Pages", "Update"]

_QUIET = 180_000  # ms; opencode syncs every change at once
_MAX_UPDATE = 150  # parts; whoever has missed more loads what it shows anew

# Parts of a message before one that a link leads to: on the page, unless they are many.
_PARTS_SHOWN = 12
_PARTS_BEFORE = 3

_OMITTED: Final = {
    Cause.TIME: "drawing it takes too long",
    Cause.MEMORY: "drawing it takes too much memory",
    Cause.SIZE: "it is too large",
    Cause.ERROR: "drawing it fails",
    Cause.PAGE: "drawing the whole page takes too long",
}


class Frame(msgspec.Struct, frozen=True):
    """What is around every page."""

    root: str
    """From the page's own address to the root of the site, such as ``../``: nothing else is known of how the
    browser reached it, and so links lead nowhere else."""
    title: str
    description: str = ""
    canonical: str = ""
    is_public: bool = False
    """Whether search engines may list it."""
    subject: str = ""
    """Who has signed in."""
    home: str = "sessions"
    is_user: bool = False
    """Whether it is a user, who has a profile and an organization."""
    has_keys: bool = False
    """Whether there is a link to the page of API keys."""
    has_vault: bool = False
    """Whether there is one to that of the vault."""
    has_workspaces: bool = False
    """Whether there are those to workspaces."""
    has_agents: bool = False
    """Whether there are those to agents."""


class Update(msgspec.Struct, frozen=True, rename="camel"):
    """What has changed on a page since some sync, as HTML; each element replaces the one of its id."""

    sync_count: int
    messages: str = ""
    summary: str = ""
    prompts: str = ""
    tabs: str = ""
    is_reset: bool = False
    """There is too much to tell: what is shown is to be loaded anew."""


class Pages:
    """Drafts pages and renders them. What users wrote at length is in pieces, which others draw."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Draw pages as they look at the time that ``now`` says, in seconds since the epoch."""
        self._now = now
        self.assets = Assets()

    @cached_property
    def _environment(self) -> "Environment":
        # A server draws no page while it starts, and jinja2 takes long to import.
        from rpcshare.render.templating import page_templates  # noqa: PLC0415

        return page_templates(assets=self.assets)

    def compile_templates(self) -> None:
        """Compile all templates, in a quarter of a second; otherwise, each is compiled on first use."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    # A share

    def is_quiet(self, transcript: Transcript) -> bool:
        """Whether a share has had no sync for so long that nothing in it can be at work."""
        return self._now() * 1000 - transcript.last_updated > _QUIET

    def share(
        self,
        frame: Frame,
        transcript: Transcript,
        *,
        at: str,
        until: str,
        is_end: bool,
        panel: Draft[Markup] | None = None,
    ) -> Draft[str] | None:
        """Return the page of a share.

        Args:
            frame: what is around it; its title and description are filled in.
            transcript: the share.
            at: the cursor at which to begin, or empty.
            until: the cursor before which to end, or empty.
            is_end: whether to show the end of the session.
            panel: what is below its messages; None: nothing.

        Returns:
            None if a cursor is nowhere in the share.
        """
        chunk = self._chunk(transcript, at=at, until=until, is_end=is_end)
        if chunk is None:
            return None
        session = view_of_session(transcript)
        prompts, more = prompts_of(transcript)
        quiet = self.is_quiet(transcript)
        shown = [ShownMessage.of_run(transcript, run, is_quiet=quiet) for run in chunk.runs]

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._render(
                "share.html",
                frame=msgspec.structs.replace(frame, title=session.title, description=session.description),
                session=session,
                way=Way.of(frame.canonical, transcript),
                share_id=transcript.share_id,
                sync_count=transcript.sync_count,
                last_updated=transcript.last_updated,
                refusal=transcript.last_refusal,
                prompts=prompts,
                more_prompts=more,
                chunk=chunk,
                views=views_of(transcript, shown, drawn, self._macro("messages", "group")),
                panel=None if panel is None else panel.render(drawn),
            )

        # What is to be answered is drawn first: a page has only so much time.
        return Draft([*(panel.pieces if panel is not None else ()), *pieces_of(shown)], render)

    def chunk(self, transcript: Transcript, *, at: str, until: str, is_end: bool) -> Draft[str] | None:
        """Return the messages of such a page alone."""
        chunk = self._chunk(transcript, at=at, until=until, is_end=is_end)
        if chunk is None:
            return None
        quiet = self.is_quiet(transcript)
        shown = [ShownMessage.of_run(transcript, run, is_quiet=quiet) for run in chunk.runs]

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._render(
                "chunk.html",
                chunk=chunk,
                views=views_of(transcript, shown, drawn, self._macro("messages", "group")),
            )

        return Draft(pieces_of(shown), render)

    def part(self, frame: Frame, transcript: Transcript, part_anchor: str) -> Draft[str] | None:
        """Return the page of one part, of which all is shown; None if there is none."""
        found = _find_part(transcript, part_anchor)
        if found is None:
            return None
        entry, index, part = found
        session = view_of_session(transcript)
        role = facts_of(entry).role
        place = anchor(part.id)
        address = content_address(transcript.share_id, part.id, "../../..")
        piece = PartPiece(
            part.body,
            place,
            role,
            directory_of(transcript),
            index,
            "",
            is_whole=True,
            content=address,
            child=child_address(transcript, entry, part, "../../"),
        )

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._render(
                "part.html",
                frame=msgspec.structs.replace(frame, title=session.title, description=session.description),
                part=drawn[piece],
                role=role if role in ("user", "assistant") else "other",
                back=f"../../{transcript.share_id}?at={anchor_of(entry)}#p-{place}",
            )

        return Draft([piece], render)

    def changes(
        self, frame: Frame, transcript: Transcript, *, is_split: bool, file: int | None, start: int = 1
    ) -> Draft[str] | None:
        """Return the page of what the session's files have become.

        Args:
            frame: as for :meth:`share`.
            transcript: the share.
            is_split: whether old and new stand side by side.
            file: the number of the one file of which all is asked for, from 1.
            start: the number of the first file, where some are asked for.

        Returns:
            None if there is no such file.
        """
        session = view_of_session(transcript, math.inf)
        first, number = (start, FILES_PER_PAGE) if file is None else (file, 1)
        files = changed_files(transcript)
        if not 1 <= first <= max(1, len(files)):
            return None
        directory = directory_of(transcript)
        is_whole = file is not None
        pieces: list[Piece] = [
            FilePiece(each.body(), directory, place, is_split, is_whole)
            for place, each in enumerate(files[first - 1 : first - 1 + number], first)
        ]

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._render(
                "changes.html",
                frame=msgspec.structs.replace(frame, title=session.title, description=session.description),
                session=session,
                way=Way.of(frame.canonical, transcript),
                share_id=transcript.share_id,
                sync_count=transcript.sync_count,
                last_updated=transcript.last_updated,
                files=[drawn[piece] for piece in pieces],
                count=len(files),
                additions=sum(each.additions for each in files),
                deletions=sum(each.deletions for each in files),
                more_files=0 if is_whole else len(files) - (first - 1) - len(pieces),
                offset=first - 1,
                next_start=first + len(pieces),
                is_split=is_split,
                is_whole=is_whole,
            )

        return Draft(pieces, render)

    def search(
        self, frame: Frame, transcript: Transcript, query: str, *, after: str, is_fragment: bool
    ) -> Draft[str]:
        """Return where the words of ``query`` are in a session, from the cursor ``after`` on.

        What is found is looked for when this is called.
        """
        start = (place_of(transcript, after) if after else None) or Place(0)
        found = search_session(transcript, query, start)
        session = view_of_session(transcript)

        def render(_: Mapping[Piece, Markup]) -> str:
            return self._render(
                "found.html" if is_fragment else "search.html",
                frame=msgspec.structs.replace(frame, title=session.title, description=session.description),
                session=session,
                way=Way.of(frame.canonical, transcript),
                share_id=transcript.share_id,
                query=query.strip(),
                max_query=MAX_QUERY,
                found=found,
                is_later=start != Place(0),
            )

        return Draft([], render)

    def place_of_part(self, transcript: Transcript, part_anchor: str) -> str:
        """Return the cursor at which to begin a page that shows a part; empty if there is no such part."""
        found = _find_part(transcript, part_anchor)
        if found is None:
            return ""
        entry, index, _ = found
        first = max(0, index - _PARTS_BEFORE) if index > _PARTS_SHOWN else 0
        return f"{anchor_of(entry)}.{first}" if first else anchor_of(entry)

    def update(self, transcript: Transcript, since: int) -> Draft[Update]:
        """Return what has changed since sync number ``since``, or how much did in files if that is all."""
        if since == transcript.sync_count:
            return self._counted(transcript)
        reset = Draft[Update]([], lambda _: Update(transcript.sync_count, is_reset=True))
        if since < max(transcript.known_since, transcript.reverted_since) or since > transcript.sync_count:
            return reset
        changed = [(index, entry) for index, entry in enumerate(transcript.entries) if entry.since > since]
        if sum(part.since > since for _, entry in changed for part in entry.parts) > _MAX_UPDATE:
            return reset
        session = view_of_session(transcript, math.inf)
        shown = [ShownMessage.of_changed(transcript, index, entry, since) for index, entry in changed]
        prompts = [
            Prompt(anchor_of(entry), text) for _, entry in changed if (text := prompt_of(entry)) is not None
        ]

        def render(drawn: Mapping[Piece, Markup]) -> Update:
            views = views_of(transcript, shown, drawn, self._macro("messages", "group"))
            return Update(
                transcript.sync_count,
                messages=str(self._macro("messages", "messages")(views)),
                summary=str(self._macro("messages", "summary")(session)),
                prompts=str(self._macro("messages", "prompts")(prompts)),
                tabs=str(self._macro("messages", "tabs")(session, transcript.share_id, "session")),
            )

        return Draft(pieces_of(shown), render)

    def _counted(self, transcript: Transcript) -> Draft[Update]:
        session = view_of_session(transcript, math.inf)
        tabs = str(self._macro("messages", "tabs")(session, transcript.share_id, "session"))
        return Draft([], lambda _: Update(transcript.sync_count, tabs=tabs))

    def omitted(self, piece: Piece, cause: Cause) -> Markup:
        """Return what stands in the place of a piece that cannot be drawn at all."""
        why = f"Not shown: {_OMITTED[cause]}. It is in the session's data."
        if isinstance(piece, PartPiece):
            return self._macro("omitted", "part")(piece.anchor, piece.index, why)
        if isinstance(piece, CodePiece):
            return self._macro("omitted", "code")(f"Not shown: {_OMITTED[cause]}.")
        return self._macro("omitted", "file")(piece.number, why)

    def _chunk(self, transcript: Transcript, *, at: str, until: str, is_end: bool) -> Chunk | None:
        start = place_of(transcript, at) if at else None
        end = place_of(transcript, until) if until else None
        if (at and start is None) or (until and end is None):
            return None
        if is_end:
            return chunk_of(transcript, end=Place(len(transcript.entries)))
        return chunk_of(transcript, start, end)

    # The list of sessions

    def sessions(self, frame: Frame, listing: Listing) -> str:
        """Return the list of sessions as a page."""
        return self._render("sessions.html", frame=frame, **views_of_list(listing))

    def session_list(self, frame: Frame, listing: Listing) -> str:
        """Return the list alone."""
        return self._render("list.html", frame=frame, **views_of_list(listing))

    def delete(self, frame: Frame, row: CatalogueRow) -> str:
        """Return the page that asks whether to delete a share."""
        return self._render("delete.html", frame=frame, row=view_of_row(row, round(self._now() * 1000)))

    def keys(self, frame: Frame, keys: list[ApiKey], *, made: str = "", problem: str = "") -> str:
        """Return the page of API keys; ``made`` is the text of one that has just been made."""
        now = round(self._now() * 1000)
        views = [view_of_key(key, now) for key in keys]
        return self._render("api_keys.html", frame=frame, keys=views, made=made, problem=problem)

    def vault(
        self,
        frame: Frame,
        entries: list[VaultEntry],
        *,
        organization: str | None = None,
        problem: str = "",
        notice: str = "",
    ) -> str:
        """Return the page of the vault; ``organization`` is the one that is in the caller's hands."""
        now = round(self._now() * 1000)
        manages = organization is not None
        views = [view_of_entry(each, now, manages_organization=manages) for each in entries]
        return self._render(
            "vault.html",
            frame=frame,
            entries=views,
            manages_organization=manages,
            organization=organization or "",
            problem=problem,
            notice=notice,
        )

    # Users

    def profile(
        self,
        frame: Frame,
        user: CallerUser,
        identities: list[Identity],
        sessions: list[BrowserSession],
        *,
        usage: tuple[Measured, Measured] | None = None,
        own_session: str = "",
        notice: str = "",
    ) -> str:
        """Return the page of a user's own, whose present session is ``own_session``.

        ``usage`` is what the user has, and what the organization does; None: it is not known.
        """
        return self._render(
            "profile.html",
            frame=frame,
            user=user,
            identities=list(map(view_of_identity, identities)),
            limits=None if usage is None else views_of_limits(usage[0]),
            organization_limits=None if usage is None else views_of_limits(usage[1]),
            sessions=[view_of_browser(each, is_own=each.id == own_session) for each in sessions],
            notice=notice,
        )

    def organization(
        self,
        frame: Frame,
        user: CallerUser,
        members: list[User],
        *,
        roles: tuple[Role, ...] = (),
        cursor: str | None = None,
        query: str = "",
        notice: str = "",
        usage: Measured | None = None,
        keys: list[ApiKey] | None = None,
        names: Mapping[str, str] | None = None,
        events: list[RecordedEvent] | None = None,
    ) -> str:
        """Return the page of an organization; with ``roles`` to give, those forms that change members.

        ``usage`` is what it has. Its admins see the ``keys`` of members, whose ``names`` are by id, and the
        newest ``events``; None: nothing of it is shown.
        """
        now = round(self._now() * 1000)
        named = names or {}
        return self._render(
            "organization.html",
            frame=frame,
            user=user,
            members=[view_of_member(each, user, roles) for each in members],
            roles=[role.value for role in roles],
            cursor=cursor,
            query=query,
            notice=notice,
            limits=None if usage is None else views_of_limits(usage),
            keys=None
            if keys is None
            else [(view_of_key(each, now), named.get(each.user or "", each.user or "")) for each in keys],
            events=None if events is None else [view_of_event(each, named) for each in events],
        )

    def organization_audit(
        self, frame: Frame, events: list[RecordedEvent], names: Mapping[str, str], *, cursor: str | None
    ) -> str:
        """Return a page of what was done in an organization, by users whose ``names`` are by id."""
        views = [view_of_event(each, names) for each in events]
        return self._render("organization_audit.html", frame=frame, events=views, cursor=cursor)

    # All others

    def notice(
        self,
        frame: Frame,
        *lines: str,
        code: int = 0,
        problem: str = "",
        has_sign_in: bool = False,
        next_address: str = "",
        unlock_address: str = "",
        links: tuple[tuple[str, str], ...] = (),
        providers: Sequence[tuple[str, str]] = (),
    ) -> str:
        """Return a page that says something and, perhaps, asks for a token or a password.

        Args:
            frame: what is around it, with its title.
            lines: what it says.
            code: the HTTP status to be shown; 0 for none.
            problem: what was wrong with what was entered.
            has_sign_in: whether it asks for a token.
            next_address: where to go on from there, from the root of the site.
            unlock_address: where a password is sent to, from the root; empty to ask for none.
            links: (text, address from the root) of what else there is.
            providers: (name, address from the root) of each with whom users sign in.
        """
        return self._render(
            "message_page.html",
            frame=frame,
            lines=lines,
            code=code,
            problem=problem,
            has_sign_in=has_sign_in,
            next_address=next_address,
            unlock_address=unlock_address,
            links=links,
            providers=providers,
        )

    def render(self, template: str, **values: object) -> str:
        """Return a template with ``values`` in it, for pages whose views are made elsewhere."""
        return self._render(template, **values)

    def _render(self, template: str, **values: object) -> str:
        return self._environment.get_template(template).render(**values)

    def _macro(self, template: str, name: str) -> Callable[..., Markup]:
        module = self._environment.get_template(f"{template}.html").module  # which is kept
        macro: Callable[..., Markup] = getattr(module, name)
        return macro


def _find_part(transcript: Transcript, part_anchor: str) -> tuple[Entry, int, PartEntry] | None:
    for entry in transcript.entries:
        for index, part in enumerate(entry.parts):
            if part.id == part_anchor or (part_anchor.startswith("-") and anchor(part.id) == part_anchor):
                return entry, index, part
    return None
