"""One method of one path: what does it, and what the OpenAPI document says of it, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute

from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode

__all__ = ["ApiRoute", "ApiSocket", "Handler", "Needs", "Operation", "Parameter"]

Handler = Callable[[Request, Caller], Awaitable[object]]


class Needs(Enum):
    """What a caller has to show."""

    NOTHING = "nothing"
    """A credential is not even looked at."""
    LINK = "link"
    """The link is enough for most shares; a credential may be needed for the others."""
    CREDENTIAL = "credential"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter in the query or in a header; those in the path are known from it."""

    name: str
    place: str
    """``query`` or ``header``."""
    schema: dict[str, Any]
    description: str
    is_required: bool = False


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of a path."""

    summary: str
    handler: Handler | None = None
    """None where the route's own endpoint does it."""
    needs: Needs = Needs.NOTHING
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    """The type of the JSON that is sent; ``str`` for text; None for no body."""
    body_required: bool = True
    answer: Any = None
    """The type of the JSON that is answered; None for what ``answers`` says."""
    answers: Mapping[int, str] = {}
    """Other statuses than 200 and those of errors, or what an answer is that is not JSON."""
    media_type: str = "application/json"
    """Of the answer."""
    other_media_types: tuple[str, ...] = ()
    """Of the answer as well."""
    events: Any = None
    """The types that Server-Sent Events have, where the answer is made of those."""
    codes: tuple[ErrorCode, ...] = ()
    """Errors beside those that any request may meet."""
    has_etag: bool = False
    """Whether it answers 304 to whoever has the newest version."""


class ApiRoute(Route):
    """A path and all that can be done there: one route, or a refusal would not name all methods."""

    def __init__(
        self, path: str, endpoint: Callable[..., object], operations: Mapping[str, Operation]
    ) -> None:
        super().__init__(path, endpoint, methods=list(operations))
        self.operations = operations


class ApiSocket(WebSocketRoute):
    """A path at which there is a WebSocket."""

    def __init__(self, path: str, endpoint: Callable[..., object], operation: Operation) -> None:
        super().__init__(path, endpoint)
        self.operation = operation
