"""The page of the vault: what a caller keeps there, with forms to store, replace and revoke."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.caller import Caller
from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.web.forms import check_own_form, read_form
from rpcshare.server.web.responses import html_answer, redirect

if TYPE_CHECKING:
    from rpcshare.server.web.site import PageSite
    from rpcshare.vault.caller_vault import CallerVault

__all__ = ["VaultPages"]

_NOTICES = {"stored": "The key is stored.", "replaced": "The value is replaced.", "revoked": "It is revoked."}


class VaultPages:
    """The entries of a caller. No page has a value: they are read over RPC and HTTP alone."""

    def __init__(self, site: PageSite, vault_of: Callable[[Caller], CallerVault]) -> None:
        """Show as pages of ``site`` what ``vault_of`` returns for a caller."""
        self._site = site
        self._vault_of = vault_of

    async def show(self, request: Request, caller: Caller) -> Response:
        """Return the list, with a form to store something; or store it."""
        if request.method != "POST":
            return await self._page(request, caller)
        check_own_form(request, self._site.origins)
        form = await read_form(request)
        given: dict[str, object] = {name: form.get(name, "") for name in ("service", "name", "value")}
        given["owner"] = "organization" if form.get("organization") else "user"
        try:
            _require_lines(form.get("value", ""))
            if form.get("expires"):
                given["expiresAt"] = _end(form["expires"])
            await self._vault_of(caller).store(given)
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            return await self._page(request, caller, problem=exc.message)
        return redirect("vault?notice=stored")

    async def rotate(self, request: Request, caller: Caller) -> Response:
        """Put another value in the place of one."""
        check_own_form(request, self._site.origins)
        form = await read_form(request)
        _require_lines(form.get("value", ""))
        await self._vault_of(caller).rotate(request.path_params["entry_id"], form.get("value"))
        return redirect("../../vault?notice=replaced")

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """Remove an entry."""
        check_own_form(request, self._site.origins)
        await self._vault_of(caller).revoke(request.path_params["entry_id"])
        return redirect("../../vault?notice=revoked")

    async def _page(self, request: Request, caller: Caller, *, problem: str = "") -> Response:
        entries = await self._vault_of(caller).list()
        frame = self._site.frame(request, caller, "Vault")
        user = caller.user
        organization = user.organization if user is not None and user.manages_organization else None
        notice = _NOTICES.get(request.query_params.get("notice", ""), "") if not problem else ""
        html = await self._site.draw(
            request,
            lambda: self._site.pages.vault(
                frame, entries, organization=organization, problem=problem, notice=notice
            ),
        )
        return html_answer(request, html, 400 if problem else 200)


def _require_lines(value: str) -> None:
    """Refuse a key of several lines whose ends the browser has left out: it would be kept, and be none."""
    if value.startswith("-----BEGIN ") and "\n" not in value:
        message = "value: a key of several lines is stored by `rpcshare vault set`: a field of a page has one"
        raise ShareError(ErrorCode.INVALID_ARGUMENT, message)


def _end(expires: str) -> int:
    try:
        return int((time.time() + parse_duration(expires)) * 1000)
    except ValueError as exc:
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"expires: {exc}") from None
