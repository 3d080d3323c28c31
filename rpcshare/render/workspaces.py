"""Workspaces and their files as pages show them: whatever is in a file stands on a page as text."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec
from markupsafe import Markup, escape

from rpcshare.render import figures
from rpcshare.render.lenient_json import Fields
from rpcshare.render.pieces import CodePiece, Draft, Piece
from rpcshare.render.rendering import Frame, Pages
from rpcshare.render.safe_text import plain
from rpcshare.workspaces.file_search import FileMatch
from rpcshare.workspaces.files import FileContent, FileEntry, Found, Listing, Matches
from rpcshare.workspaces.workspace import Workspace, WorkspaceState

__all__ = ["ENTRIES_PER_PAGE", "FormProblem", "WorkspaceRendering", "form_problem", "shown_owner"]

ENTRIES_PER_PAGE: Final = 500
"""Of a directory: a page with all 5,000 that are listed would take a phone seconds."""

_LARGEST_PICTURE = 2 * 2**20  # bytes
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})  # which hold no script
_LONGEST_PATH = 1000

_STATES = {WorkspaceState.CREATING: "being cloned", WorkspaceState.REMOVING: "being removed"}


class FormProblem(msgspec.Struct, frozen=True):
    """What is wrong with a form."""

    message: str
    field: str = ""
    """The field that it is about; empty: none."""


def form_problem(message: str, fields: Mapping[str, str]) -> FormProblem:
    """Return where a message ``NAME: WHY`` belongs; ``fields`` has the field for the beginning of a name."""
    name, colon, why = message.partition(": ")
    if colon:
        for prefix, field in fields.items():
            if name == prefix or name.startswith(f"{prefix}."):
                return FormProblem(why[:1].upper() + why[1:], field)
    return FormProblem(message)


class WorkspaceView(msgspec.Struct, frozen=True):
    """A workspace in the list, and on its page."""

    id: str
    name: str
    state: str
    """Empty: it is ready."""
    repository: str
    ref: str
    owner: str
    created: str
    changed: str
    disk_used: str
    memory: str
    cpu: str
    disk: str
    timeout: str
    hosts: str
    mounts: list[tuple[str, str]]
    """(name, id) of each other workspace that is seen in it."""


class EntryView(msgspec.Struct, frozen=True):
    """A file or directory in a listing."""

    name: str
    kind: str
    address: str
    """From the page of files; empty: it is not to be opened."""
    size: str
    changed: str


class MatchView(msgspec.Struct, frozen=True):
    """A line that was found."""

    path: str
    line: int
    address: str
    text: Markup


class WorkspaceRendering:
    """Draws the pages of workspaces."""

    def __init__(self, pages: Pages) -> None:
        """Draw them as ``pages`` does the others."""
        self._pages = pages

    def list(
        self,
        frame: Frame,
        workspaces: Sequence[Workspace],
        *,
        values: Mapping[str, str],
        keys: Sequence[tuple[str, str]] | None,
        problem: FormProblem | None = None,
        notice: str = "",
        shows_owners: bool = False,
        can_start: bool = False,
    ) -> str:
        """Return the list, with a form to make one.

        Args:
            frame: what is around it.
            workspaces: that the caller may use.
            values: of the form's fields.
            keys: (value, text) of each key of the vault; None: there is no vault.
            problem: what was wrong with the form.
            notice: what was done.
            shows_owners: whether they are of several.
            can_start: whether agents can be started.
        """
        return self._pages.render(
            "workspaces.html",
            frame=frame,
            workspaces=[view_of_workspace(each) for each in workspaces],
            values=values,
            keys=keys,
            problem=problem,
            notice=notice,
            shows_owners=shows_owners,
            can_start=can_start,
        )

    def making(self, frame: Frame, name: str, repository: str) -> str:
        """Return the page that is shown while a repository is cloned."""
        return self._pages.render(
            "workspace_making.html", frame=frame, name=name, repository=_line(repository)
        )

    def workspace(
        self,
        frame: Frame,
        workspace: Workspace,
        *,
        values: Mapping[str, str] | None = None,
        problem: FormProblem | None = None,
        notice: str = "",
        can_start: bool = False,
    ) -> str:
        """Return the page of one, with forms to change and to remove it."""
        view = view_of_workspace(workspace)
        resources = workspace.resources
        held = {
            "name": workspace.name,
            "hosts": "\n".join(workspace.hosts),
            "memory": _exact(resources.memory),
            "cpu": f"{resources.cpu:g}",
            "disk": _exact(resources.disk),
            "timeout": "" if resources.timeout is None else f"{resources.timeout:g}",
        }
        return self._pages.render(
            "workspace.html",
            frame=frame,
            workspace=view,
            values=values or held,
            is_edited=values is not None,
            problem=problem,
            notice=notice,
            can_start=can_start,
        )

    def directory(
        self, frame: Frame, workspace: Workspace, path: str, listing: Listing, *, start: int
    ) -> str:
        """Return what is in a directory, from its entry number ``start`` on."""
        entries = listing.entries[start - 1 : start - 1 + ENTRIES_PER_PAGE]
        following = start + len(entries)
        total = len(listing.entries)
        return self._pages.render(
            "files.html",
            **self._around(frame, workspace, path),
            form="directory",
            entries=[_entry(each) for each in entries],
            count=f"{total:,}{'+' if listing.truncated else ''}",
            total=total,
            truncated=listing.truncated,
            start=start,
            next_start=following if following <= total else 0,
            previous_start=max(1, start - ENTRIES_PER_PAGE) if start > 1 else 0,
        )

    def file(self, frame: Frame, workspace: Workspace, path: str, file: FileContent) -> Draft[str]:
        """Return a file: its text, a picture, or what it is."""
        content = file.content
        piece = None
        picture = ""
        if isinstance(content, str):
            piece = CodePiece(content.encode(), path.rpartition("/")[2][-80:], is_numbered=True)
        elif file.mime_type in _PICTURES and file.size <= _LARGEST_PICTURE:
            picture = f"data:{file.mime_type};base64,{base64.b64encode(content).decode()}"

        def render(drawn: Mapping[Piece, Markup]) -> str:
            return self._pages.render(
                "files.html",
                **self._around(frame, workspace, path),
                form="file",
                text=None if piece is None else drawn[piece],
                picture=picture,
                size=figures.size(file.size),
                changed=figures.moment(file.last_modified),
                changed_iso=figures.iso_time(file.last_modified),
                media_type=file.mime_type,
            )

        return Draft([] if piece is None else [piece], render)

    def found(
        self,
        frame: Frame,
        workspace: Workspace,
        query: str,
        *,
        matches: Matches | None = None,
        found: Found | None = None,
        problem: str = "",
    ) -> str:
        """Return lines or files that were found."""
        files: dict[str, list[MatchView]] = {}
        for each in matches.matches if matches is not None else ():
            files.setdefault(_line(each.path, _LONGEST_PATH), []).append(_match(each))
        paths = [(_line(path, _LONGEST_PATH), _address(path)) for path in (found.paths if found else ())]
        return self._pages.render(
            "files.html",
            **self._around(frame, workspace, "", query=query, by_name=found is not None),
            form="found",
            files=files,
            paths=paths,
            truncated=any(each is not None and each.truncated for each in (matches, found)),
            problem=problem,
        )

    def _around(
        self, frame: Frame, workspace: Workspace, path: str, *, query: str = "", by_name: bool = False
    ) -> dict[str, object]:
        parts = [part for part in path.split("/") if part]
        crumbs = [
            (_line(part, 255), _address("/".join(parts[: place + 1]))) for place, part in enumerate(parts)
        ]
        return {
            "frame": frame,
            "workspace": view_of_workspace(workspace),
            "crumbs": crumbs,
            "path": _line(path, _LONGEST_PATH),
            "address": _address(path),
            "raw_path": path,
            "query": query,
            "by_name": by_name,
        }


def view_of_workspace(workspace: Workspace) -> WorkspaceView:
    """Return what is shown of a workspace."""
    source, resources = workspace.source, workspace.resources
    return WorkspaceView(
        workspace.id,
        workspace.name,
        _STATES.get(workspace.state, ""),
        "" if source is None else _line(source.git),
        "" if source is None else _line(source.ref or ""),
        shown_owner(workspace.owner),
        figures.moment(workspace.created_at),
        figures.moment(workspace.updated_at),
        figures.size(workspace.disk_used),
        figures.size(resources.memory),
        f"{resources.cpu:g}",
        figures.size(resources.disk),
        "none" if resources.timeout is None else f"{resources.timeout:g} s",
        ", ".join(workspace.hosts),
        [(each.name, each.workspace) for each in workspace.mounts],
    )


def shown_owner(owner: str) -> str:
    """Return the name of an owner, without where it comes from."""
    return _line(owner.rpartition("\x1f")[2])


def _entry(entry: FileEntry) -> EntryView:
    is_opened = entry.type in ("file", "directory")
    return EntryView(
        _line(entry.name, 255) + ("/" if entry.type == "directory" else ""),
        entry.type,
        _address(entry.path) if is_opened else "",
        figures.size(entry.size) if entry.type == "file" else "",
        figures.moment(entry.last_modified),
    )


def _match(match: FileMatch) -> MatchView:
    before, within, after = (
        escape(plain(text))
        for text in (
            match.text[: match.start],
            match.text[match.start : match.end],
            match.text[match.end :],
        )
    )
    text = before + Markup("<mark>{}</mark>").format(within) + after
    return MatchView(_line(match.path, _LONGEST_PATH), match.line, _address(match.path), text)


def _exact(number: int) -> str:
    """Return a size as a form has it, which means the same number when it is sent."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)


def _address(path: str) -> str:
    return f"path={quote(path, safe='/')}"


def _line(text: str, limit: int = 300) -> str:
    """Return a name as it is shown: all of it that is no control, in one line."""
    return Fields({"text": text}).line("text", limit=limit)
