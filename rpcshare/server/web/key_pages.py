"""The page on which an admin makes, rotates and revokes API keys, and a user the own ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.keys_rpc import check_key
from rpcshare.server.web.forms import check_own_form, read_form
from rpcshare.server.web.responses import html_answer, redirect
from rpcshare.shares.access import may_manage_key, may_manage_keys
from rpcshare.shares.failures import storage_unavailable
from rpcshare.storage import StoreError

if TYPE_CHECKING:
    from rpcshare.auth.api_keys import ApiKeys
    from rpcshare.server.web.site import PageSite

__all__ = ["KeyPages"]


# A sealed key in its cookie begins with this, so that it stands for no session.
_MADE = "made "
_SHOWN_WITHIN = 300  # seconds


class KeyPages:
    """The keys of this server, for admins.

    A form that makes a key is answered by a redirection, so that loading the page again makes no other key.
    The key's text goes to that page in a sealed cookie, which the page takes away: it is shown once.
    """

    def __init__(self, site: PageSite, keys: ApiKeys) -> None:
        """Show ``keys`` as pages of ``site``."""
        self._site = site
        self._keys = keys

    async def show(self, request: Request, caller: Caller) -> Response:
        """Return the list of keys, with a form to make one; or make it."""
        if request.method == "POST":
            return await self._make(request, caller)
        return await self._list(request, caller)

    async def rotate(self, request: Request, caller: Caller) -> Response:
        """Put another key in the place of one."""
        self._require(request, caller, Action.KEY_ROTATE)
        key_id = request.path_params["key_id"]
        try:
            await check_key(self._keys, caller, key_id, hands_it_out=True)
            made = await self._keys.rotate(key_id)
        except StoreError as exc:
            raise storage_unavailable(exc) from exc
        self._site.service.audit.done(Action.KEY_ROTATE, caller, key=key_id, newKey=made.kept.id)
        return await self._made(request, caller, made.key, "../../keys")

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """End a key."""
        self._require(request, caller, Action.KEY_REVOKE)
        key_id = request.path_params["key_id"]
        try:
            await check_key(self._keys, caller, key_id)
            await self._keys.revoke(key_id)
        except StoreError as exc:
            raise storage_unavailable(exc) from exc
        self._site.service.audit.done(Action.KEY_REVOKE, caller, key=key_id)
        return redirect("../../keys")

    async def _make(self, request: Request, caller: Caller) -> Response:
        self._require(request, caller, Action.KEY_CREATE)
        form = await read_form(request)
        scopes = [scope.value for scope in Scope if form.get(scope.value)]
        try:
            made = await self._keys.create(
                form.get("name", "").strip(), scopes, form.get("expires") or None, user=caller.user
            )
        except StoreError as exc:
            raise storage_unavailable(exc) from exc
        except ShareError as exc:
            if exc.code is not ErrorCode.INVALID_ARGUMENT:
                raise
            return await self._page(request, caller, problem=str(exc))
        self._site.service.audit.done(Action.KEY_CREATE, caller, key=made.kept.id)
        return await self._made(request, caller, made.key, "keys")

    async def _made(self, request: Request, caller: Caller, key: str, page: str) -> Response:
        if self._site.seal is None:
            return await self._page(request, caller, made=key)
        answer = redirect(page)
        cookies = self._site.cookies
        answer.set_cookie(
            cookies.made_key,
            self._site.seal.seal(_MADE + key),
            max_age=_SHOWN_WITHIN,
            path=cookies.path(),
            secure=cookies.is_secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _list(self, request: Request, caller: Caller) -> Response:
        """Return the list, with the key that has just been made."""
        cookies, seal = self._site.cookies, self._site.seal
        sealed = request.cookies.get(cookies.made_key)
        if sealed is None or seal is None:
            return await self._page(request, caller)
        made = seal.open(sealed, _SHOWN_WITHIN) or ""
        answer = await self._page(request, caller, made=made.removeprefix(_MADE) if made[:5] == _MADE else "")
        answer.delete_cookie(
            cookies.made_key,
            path=cookies.path(),
            secure=cookies.is_secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _page(self, request: Request, caller: Caller, *, made: str = "", problem: str = "") -> Response:
        with self._site.service.audit.refusals(Action.KEYS_LIST, caller):
            may_manage_keys(caller)
        try:
            keys = await self._keys.list()
        except StoreError as exc:
            raise storage_unavailable(exc) from exc
        frame = self._site.frame(request, caller, "API keys")
        managed = [key for key in keys if may_manage_key(caller, key.user, key.organization)]
        keys = sorted(managed, key=lambda key: key.created_at, reverse=True)
        html = await self._site.draw(
            request, lambda: self._site.pages.keys(frame, keys, made=made, problem=problem)
        )
        return html_answer(request, html, 400 if problem else 200)

    def _require(self, request: Request, caller: Caller, action: Action) -> None:
        check_own_form(request, self._site.origins)
        with self._site.service.audit.refusals(action, caller):
            may_manage_keys(caller)
