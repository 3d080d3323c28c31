"""The lists of shares, and the search in what they hold: rows, and never whole sessions."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypedDict

import msgspec
from starlette.requests import Request

from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode
from rpcshare.server import schemas
from rpcshare.server.operation import Handler, Needs, Operation, Parameter
from rpcshare.server.query_parameters import whole_number
from rpcshare.shares.page import CURSOR_PATTERN
from rpcshare.shares.search import SearchPage
from rpcshare.shares.search_query import MAX_QUERY
from rpcshare.shares.service import ShareService

__all__ = ["Listings"]

# Groups have no names in the patterns of JSON Schema.
_CURSOR = re.sub(r"\?P<\w+>", "", CURSOR_PATTERN)

_PAGING = (
    Parameter(
        name="cursor",
        place="query",
        schema={"type": "string", "pattern": f"^({_CURSOR})?$"},
        description="The `cursor` of the page before.",
    ),
    Parameter(
        name="limit",
        place="query",
        schema={"type": "integer", "minimum": 1, "maximum": 200},
        description="How many; 50 unless said.",
    ),
    Parameter(
        name="q",
        place="query",
        schema={"type": "string"},
        description="What a title, directory, id or session ID must contain.",
    ),
)

_SEARCHING = (
    Parameter(
        name="q",
        place="query",
        schema={"type": "string", "maxLength": MAX_QUERY},
        description='Words, `"phrases"`, `-not`, `tool:bash`, `file:app.ts`, `role:user`, '
        "`before:2026-11-28`, `after:2026-11-01`; at least one word.",
    ),
    Parameter(
        name="cursor",
        place="query",
        schema={"type": "string", "pattern": "^([1-9][0-9]{0,3})?$"},
        description="The `cursor` of the page before.",
    ),
    Parameter(
        name="limit",
        place="query",
        schema={"type": "integer", "minimum": 1, "maximum": 100},
        description="How many; 20 unless said.",
    ),
)


AgentsAmong = Callable[[Caller, list[str]], Awaitable[Mapping[str, object]]]
"""Returns which sessions of a list are agents, and what a row says of them."""


class Listings:
    """Answers requests for lists."""

    def __init__(self, service: ShareService, agents_among: AgentsAmong | None = None) -> None:
        self._service = service
        self._agents_among = agents_among

    def operations(self) -> Mapping[str, Operation]:
        """Return what there is to ask for, by path."""
        return {
            "/api/sessions": _listing(
                "Shares, newest first: all for an admin, the caller's own for others", self._list_sessions
            ),
            "/api/my-sessions": _listing("The caller's shares", self._list_own),
            "/api/search": _searching(self._search),
        }

    async def _list_sessions(self, request: Request, caller: Caller) -> object:
        page = await self._service.list_sessions(caller, **_paging(request))
        told = msgspec.to_builtins(page)
        if self._agents_among is not None:
            rows = told["sessions"]
            agents = await self._agents_among(caller, [row["sessionID"] for row in rows])
            told["sessions"] = [
                {**row, "agent": agents[row["sessionID"]]} if row["sessionID"] in agents else row
                for row in rows
            ]
        return told

    async def _list_own(self, request: Request, caller: Caller) -> object:
        page = await self._service.list_own(caller, **_paging(request))
        return msgspec.to_builtins(page)

    async def _search(self, request: Request, caller: Caller) -> object:
        query, limit = request.query_params, request.query_params.get("limit")
        page = await self._service.search(
            caller,
            query.get("q", ""),
            cursor=query.get("cursor") or None,
            limit=None if limit is None else whole_number(limit, "limit"),
        )
        return msgspec.to_builtins(page)


def _listing(summary: str, handler: Handler) -> Operation:
    return Operation(
        summary=summary,
        handler=handler,
        needs=Needs.CREDENTIAL,
        parameters=_PAGING,
        answer=schemas.Page,
        codes=(ErrorCode.INVALID_ARGUMENT,),
        has_etag=True,
    )


def _searching(handler: Handler) -> Operation:
    return Operation(
        summary="Where words are, in the shares that the caller may list",
        handler=handler,
        needs=Needs.CREDENTIAL,
        parameters=_SEARCHING,
        answer=SearchPage,
        codes=(ErrorCode.INVALID_ARGUMENT,),
        has_etag=True,
    )


class _Paging(TypedDict):
    cursor: object
    limit: object
    query: object


def _paging(request: Request) -> _Paging:
    query = request.query_params
    limit = query.get("limit")
    return {
        "cursor": query.get("cursor") or None,
        "limit": None if limit is None else whole_number(limit, "limit"),
        "query": query.get("q") or None,
    }
