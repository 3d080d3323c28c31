"""The pages of workspaces: making, changing and removing them, and looking into their files."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.render.pieces import Draft
from rpcshare.render.workspaces import WorkspaceRendering, form_problem
from rpcshare.server.failures import STATUS, explain
from rpcshare.server.file_names import content_disposition, safe_file_name
from rpcshare.server.request import READS
from rpcshare.server.web.forms import check_own_form, read_fields
from rpcshare.server.web.responses import HEADERS, html_answer, redirect
from rpcshare.workspaces.caller_workspaces import CallerWorkspaces
from rpcshare.workspaces.workspace import Workspace

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite
    from rpcshare.vault.caller_vault import CallerVault

__all__ = ["WorkspacePages"]

_AT_ONCE = 1.5
"""Seconds in which most workspaces are made; of those that take longer there is a page."""

_KEPT = 200  # that are being made, or have been
_MAX_FORM = 64 * 1024  # bytes
_MAX_FIELDS = 20
_LONGEST_QUERY = 200  # characters
_RESOURCES = ("memory", "cpu", "disk", "timeout")
_FIELDS = ("name", "git", "ref", "key", "hosts", *_RESOURCES)

# The field that is wrong, by the beginning of what a message says.
_OF_MESSAGES = {
    "name": "name",
    "source.ref": "ref",
    "source.key": "key",
    "source": "git",
    "hosts": "hosts",
    **{f"resources.{name}": name for name in _RESOURCES},
}
_OF_FORMS = frozenset(
    {
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.INTEGRATION_AUTH_FAILED,
        ErrorCode.SYNC_FAILED,
    }
)
"""Failures that are told on the form, with what was entered."""

_NOTICES = {"made": "The workspace is made.", "saved": "It is saved.", "removed": "The workspace is removed."}

# Whatever is in a file, it runs nothing, even where a browser shows it.
_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"


class WorkspacePages:
    """Workspaces in the hands of a caller, as :class:`CallerWorkspaces` has them."""

    def __init__(
        self,
        site: PageSite,
        workspaces_of: Callable[[Caller], CallerWorkspaces],
        vault_of: Callable[[Caller], CallerVault] | None,
    ) -> None:
        """Show as pages of ``site`` what ``workspaces_of`` returns; ``vault_of`` has the keys of git."""
        self._site = site
        self._workspaces_of = workspaces_of
        self._vault_of = vault_of
        self._drawn = WorkspaceRendering(site.pages)
        self._made: OrderedDict[str, _Making] = OrderedDict()

    def routes(self) -> list[Route]:
        """Return the routes of these pages."""
        page = self._site.page
        return [
            Route("/workspaces", page(self.show), methods=["GET", "POST"]),
            Route("/workspaces/making/{making}", page(self.making), methods=["GET"]),
            Route("/workspaces/{workspace_id}", page(self.workspace), methods=["GET", "POST"]),
            Route("/workspaces/{workspace_id}/remove", page(self.remove), methods=["POST"]),
            Route("/workspaces/{workspace_id}/files", page(self.files), methods=["GET"]),
            Route("/workspaces/{workspace_id}/download", page(self.download), methods=["GET"]),
        ]

    async def close(self) -> None:
        """End what is being cloned: nothing of it is left."""
        tasks = [each.task for each in self._made.values() if not each.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def show(self, request: Request, caller: Caller) -> Response:
        """Return the list, with a form to make a workspace; or make it."""
        if request.method in READS:
            notice = _NOTICES.get(request.query_params.get("notice", ""), "")
            return await self._list(request, caller, {}, notice=notice)
        check_own_form(request, self._site.origins)
        form = await _read(request)
        given = _given(form)
        making = _Making(
            caller.owner or "", form, asyncio.create_task(self._workspaces_of(caller).create(given))
        )
        await asyncio.wait({making.task}, timeout=_AT_ONCE)
        if making.task.done():
            return await self._outcome(request, caller, making, "workspaces/")
        token = secrets.token_urlsafe(9)
        self._made[token] = making
        self._forget()
        return redirect(f"workspaces/making/{token}")

    async def making(self, request: Request, caller: Caller) -> Response:
        """Return whether a workspace is being cloned still, or what has become of it."""
        making = self._made.get(request.path_params["making"])
        workspaces = await self._workspaces_of(caller).list()  # which looks at the caller's right
        if making is None or making.owner != caller.owner:
            # Another process of this server may be making it: the list has it, for as long as it is there.
            return redirect("../../workspaces")
        if making.task.done():
            return await self._outcome(request, caller, making, "../")
        frame = self._site.frame(request, caller, f"{making.form['name']} is being made")
        named = next((each for each in workspaces if each.name == making.form["name"]), None)
        name = making.form["name"] if named is None else named.name
        draw = partial(self._drawn.making, frame, name, making.form["git"])
        return html_answer(request, await self._site.draw(request, draw))

    async def workspace(self, request: Request, caller: Caller) -> Response:
        """Return the page of a workspace; or change it."""
        workspaces, workspace_id = self._workspaces_of(caller), request.path_params["workspace_id"]
        if request.method in READS:
            notice = _NOTICES.get(request.query_params.get("notice", ""), "")
            return await self._workspace(request, caller, await workspaces.info(workspace_id), notice=notice)
        check_own_form(request, self._site.origins)
        form = await _read(request)
        workspace = await workspaces.get(workspace_id)
        changes = {
            "name": form["name"],
            "hosts": form["hosts"].split(),
            "resources": {name: form[name] for name in _RESOURCES if form[name]},
        }
        try:
            await workspaces.update(workspace_id, changes)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            return await self._workspace(request, caller, workspace, form=form, error=exc)
        return redirect(f"{workspace_id}?notice=saved")

    async def remove(self, request: Request, caller: Caller) -> Response:
        """Remove a workspace, perhaps after keeping its files."""
        check_own_form(request, self._site.origins)
        form = dict(await read_fields(request))
        workspaces, workspace_id = self._workspaces_of(caller), request.path_params["workspace_id"]
        try:
            await workspaces.remove(workspace_id, keep_snapshot=bool(form.get("snapshot")))
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            workspace = await workspaces.get(workspace_id)
            return await self._workspace(request, caller, workspace, error=exc)
        return redirect("../../workspaces?notice=removed")

    async def files(self, request: Request, caller: Caller) -> Response:
        """Return a directory or a file (``path``), or what is found in files (``q``)."""
        workspaces, workspace_id = self._workspaces_of(caller), request.path_params["workspace_id"]
        workspace = await workspaces.get(workspace_id)
        files, query = workspaces.files(workspace_id), request.query_params
        frame = self._site.frame(request, caller, "Files")
        if wanted := query.get("q", "")[:_LONGEST_QUERY].strip():
            draw, status = await self._search(request, caller, workspace, wanted)
            return html_answer(request, await self._site.draw(request, draw), status)
        path = query.get("path", "")
        try:
            listing = await files.list(path)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT or not path.strip("/"):
                raise
            file = await files.read(path)  # whose failure says what is wrong if it is no file either
            drafted: Callable[[], Draft[str]] = partial(self._drawn.file, frame, workspace, path, file)
            html, _ = await self._site.draw_share(request, workspace_id, drafted)
            return html_answer(request, html)
        start = query.get("start", "")
        first = int(start) if start.isascii() and start.isdecimal() and len(start) < 7 else 1
        shown = first if 1 <= first <= len(listing.entries) else 1
        draw = partial(self._drawn.directory, frame, workspace, path, listing, start=shown)
        return html_answer(request, await self._site.draw(request, draw))

    async def download(self, request: Request, caller: Caller) -> Response:
        """Return the bytes of a file, as a download that no browser runs anything of."""
        path = request.query_params.get("path", "")
        files = self._workspaces_of(caller).files(request.path_params["workspace_id"])
        file = await files.read(path)
        content = file.content.encode() if isinstance(file.content, str) else file.content
        headers = {
            **HEADERS,
            "Content-Disposition": content_disposition(safe_file_name(path, "file")),
            "Content-Security-Policy": _SANDBOX,
            "Cache-Control": "no-store",
        }
        return Response(content, headers=headers, media_type="application/octet-stream")

    async def _search(
        self, request: Request, caller: Caller, workspace: Workspace, wanted: str
    ) -> tuple[Callable[[], str], int]:
        files = self._workspaces_of(caller).files(workspace.id)
        frame = self._site.frame(request, caller, "Search files")
        try:
            if request.query_params.get("by") == "name":
                found = await files.find(wanted)
                return partial(self._drawn.found, frame, workspace, wanted, found=found), 200
            matches = await files.search(wanted)
            return partial(self._drawn.found, frame, workspace, wanted, matches=matches), 200
        except ShareError as exc:
            if exc.code not in (ErrorCode.INVALID_ARGUMENT, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED):
                raise
            message = f"It could not be searched: {exc.message.removeprefix('Forbidden: ')}."
            return partial(self._drawn.found, frame, workspace, wanted, problem=message), STATUS[exc.code]

    async def _list(
        self,
        request: Request,
        caller: Caller,
        values: Mapping[str, str],
        *,
        error: ShareError | None = None,
        notice: str = "",
    ) -> Response:
        workspaces = await self._workspaces_of(caller).list()
        keys = await self._git_keys(caller)
        frame = self._site.frame(request, caller, "Workspaces")
        draw = partial(
            self._drawn.list,
            frame,
            workspaces,
            values=values,
            keys=keys,
            problem=None if error is None else form_problem(error.message, _OF_MESSAGES),
            notice=notice,
            shows_owners=caller.has(Scope.ADMIN) or len({each.owner for each in workspaces}) > 1,
            can_start=self._site.agents_of is not None,
        )
        status = 200 if error is None else int(STATUS[error.code])
        return html_answer(request, await self._site.draw(request, draw), status)

    async def _workspace(
        self,
        request: Request,
        caller: Caller,
        workspace: Workspace,
        *,
        form: Mapping[str, str] | None = None,
        error: ShareError | None = None,
        notice: str = "",
    ) -> Response:
        draw = partial(
            self._drawn.workspace,
            self._site.frame(request, caller, workspace.name),
            workspace,
            values=form,
            problem=None if error is None else form_problem(error.message, _OF_MESSAGES),
            notice=notice,
            can_start=self._site.agents_of is not None,
        )
        html = await self._site.draw(request, draw)
        return html_answer(request, html, 200 if error is None else int(STATUS[error.code]))

    async def _outcome(self, request: Request, caller: Caller, making: _Making, root: str) -> Response:
        """Return what became of a workspace: its page, or the form with what was wrong."""
        try:
            made = making.task.result()
        except asyncio.CancelledError:
            error = ShareError(ErrorCode.STORAGE_UNAVAILABLE, "the server is being stopped", retry_after=5)
            raise error from None
        except Exception as exc:
            told = explain(exc)
            if told.code not in _OF_FORMS:
                raise
            return await self._list(request, caller, making.form, error=told)
        return redirect(f"{root}{made.id}?notice=made")

    async def _git_keys(self, caller: Caller) -> list[tuple[str, str]] | None:
        """Return the keys that a form offers, as (value, text); None: there is no vault."""
        if self._vault_of is None:
            return None
        names: list[str] = []
        with contextlib.suppress(ShareError):  # the form is good for more than this
            names = sorted(
                {each.name for each in await self._vault_of(caller).list() if each.service == "git"}
            )
        return [("", "The one for the host, if there is one"), *((name, name) for name in names)]

    def _forget(self) -> None:
        """Let go of the oldest of what is through."""
        for token in [token for token, each in self._made.items() if each.task.done()]:
            if len(self._made) <= _KEPT:
                break
            del self._made[token]


class _Making:
    """A workspace that is being made for somebody who looks at pages."""

    def __init__(self, owner: str, form: Mapping[str, str], task: asyncio.Task[Workspace]) -> None:
        self.owner = owner
        self.form = form
        self.task = task


async def _read(request: Request) -> dict[str, str]:
    found = dict(await read_fields(request, most_bytes=_MAX_FORM, most_fields=_MAX_FIELDS))
    return {name: found.get(name, "").strip() for name in _FIELDS}


def _given(form: Mapping[str, str]) -> dict[str, object]:
    source = {name: form[name] for name in ("git", "ref", "key") if form[name]}
    if source and "git" not in source:
        source["git"] = ""
    given: dict[str, object] = {"name": form["name"], "hosts": form["hosts"].split()}
    if source:
        given["source"] = source
    resources = {name: form[name] for name in _RESOURCES if form[name]}
    if resources:
        given["resources"] = resources
    return given
