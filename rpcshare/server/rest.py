"""The HTTP API over shares: what a stock opencode, curl and scripts without RPC use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.auth.handshake import Authenticator
from rpcshare.auth.origin import OriginPolicy
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.failures import error_response
from rpcshare.server.request import read_body, request_head
from rpcshare.shares.service import ShareService

__all__ = ["RestApi"]

# Arrays and objects in one body. To decode a megabyte of text costs little, but three of "[],[],…" are a
# million objects, and whoever sends them has not been asked for a secret yet. A session of 20,000 parts has
# 100,000.
MAX_CONTAINERS = 1_000_000

Handler = Callable[[Request, Caller], Awaitable[object]]


class RestApi:
    """The routes, each of which is one operation of the service."""

    def __init__(
        self,
        service: ShareService,
        authenticator: Authenticator,
        origins: OriginPolicy,
        max_body: int,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._origins = origins
        self._max_body = max_body

    def routes(self) -> list[Route]:
        """Return the routes under ``/api``; ``/api/shares`` is opencode's other name for ``/api/share``."""
        routes = [
            Route("/api/sessions", self._endpoint(self._list_all), methods=["GET"]),
            Route("/api/my-sessions", self._endpoint(self._list_own), methods=["GET"]),
        ]
        for base in ("/api/share", "/api/shares"):
            share = base + "/{share_id}"
            routes += [
                Route(base, self._endpoint(self._create), methods=["POST"]),
                # One route for all, or a refusal of another method would not name them all.
                Route(share, self._endpoint(self._read_or_change), methods=["GET", "DELETE", "PATCH"]),
                Route(share + "/sync", self._endpoint(self._sync), methods=["POST"]),
                Route(share + "/data", self._endpoint(self._data), methods=["GET"]),
                Route(share + "/view-token", self._endpoint(self._create_view_token), methods=["POST"]),
                Route(share + "/unlock", self._endpoint(self._unlock), methods=["POST"]),
                Route(share + "/metadata", self._endpoint(self._metadata), methods=["GET"]),
            ]
        return routes

    def _endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Return ``handler`` as Starlette calls it: with a caller, and with failures as answers."""

        async def endpoint(request: Request) -> Response:
            try:
                head = request_head(request)
                self._origins.check(head)
                caller = await self._authenticator.caller(head)
                answer = await handler(request, caller)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                return error_response(exc)
            body = answer if isinstance(answer, bytes) else jsontext.encode(answer)
            # Shares change while they are looked at, and some are private.
            return Response(body, headers={"Cache-Control": "no-cache"}, media_type="application/json")

        return endpoint

    async def _create(self, request: Request, caller: Caller) -> object:
        body = await self._body(request)
        options = {name: body[name] for name in ("visibility", "expiresIn", "password") if name in body}
        created = await self._service.create(caller, _text(body, "sessionID"), body.get("data"), options)
        return {"id": created.id, "url": created.url, "secret": created.secret}

    async def _sync(self, request: Request, caller: Caller) -> object:
        body = await self._body(request)
        count = await self._service.sync(
            caller, request.path_params["share_id"], _secret(body), body.get("data")
        )
        return {"success": True, "syncCount": count}

    async def _delete(self, request: Request, caller: Caller) -> object:
        body = await self._body(request, optional=True)
        await self._service.delete(caller, request.path_params["share_id"], _secret(body))
        return {"success": True}

    async def _update(self, request: Request, caller: Caller) -> object:
        body = await self._body(request)
        # Any other member is refused: misspelt and ignored, it would leave a share open.
        options = {name: value for name, value in body.items() if name != "secret"}
        share_id = request.path_params["share_id"]
        return msgspec.to_builtins(await self._service.update(caller, share_id, _secret(body), options))

    async def _create_view_token(self, request: Request, caller: Caller) -> object:
        body = await self._body(request, optional=True)
        token = await self._service.create_view_token(
            caller, request.path_params["share_id"], _secret(body), body.get("expiresIn")
        )
        return msgspec.to_builtins(token)

    async def _unlock(self, request: Request, caller: Caller) -> object:
        body = await self._body(request)
        token = await self._service.unlock(caller, request.path_params["share_id"], body.get("password"))
        return msgspec.to_builtins(token)

    async def _read_or_change(self, request: Request, caller: Caller) -> object:
        handlers = {"DELETE": self._delete, "PATCH": self._update}
        return await handlers.get(request.method, self._read)(request, caller)

    async def _read(self, request: Request, caller: Caller) -> object:
        return await self._service.agent_session(caller, request.path_params["share_id"])

    async def _data(self, request: Request, caller: Caller) -> object:
        return await self._service.sync_data(caller, request.path_params["share_id"])

    async def _metadata(self, request: Request, caller: Caller) -> object:
        index = await self._service.metadata(caller, request.path_params["share_id"])
        return msgspec.to_builtins(index)

    async def _list_all(self, request: Request, caller: Caller) -> object:
        page = await self._service.list_all(caller, **_paging(request))
        return msgspec.to_builtins(page)

    async def _list_own(self, request: Request, caller: Caller) -> object:
        page = await self._service.list_own(caller, **_paging(request))
        return msgspec.to_builtins(page)

    async def _body(self, request: Request, *, optional: bool = False) -> dict[str, object]:
        """Return the JSON object that a request carries.

        Raises:
            ShareError: it is too large, or is none.
        """
        data = await read_body(request, self._max_body)
        if not data and optional:
            return {}
        if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
            raise ShareError(
                ErrorCode.PAYLOAD_TOO_LARGE, f"the body holds more than {MAX_CONTAINERS:,} arrays and objects"
            )
        try:
            body = jsontext.decode(data)
        except jsontext.JSONDecodeError as exc:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"the body is not JSON: {exc}") from None
        if not isinstance(body, dict):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "the body is not a JSON object")
        return body


def _text(body: dict[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, f"{name}: expected a string")
    return value


def _secret(body: dict[str, object]) -> str | None:
    return None if body.get("secret") is None else _text(body, "secret")


def _paging(request: Request) -> dict[str, object]:
    query = request.query_params
    limit = query.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "limit: expected a whole number")
    return {
        "cursor": query.get("cursor") or None,
        "limit": None if limit is None else int(limit),
        "query": query.get("q") or None,
    }
