"""The OpenAPI document, made from the routes and what is declared beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.routing import BaseRoute

from rpcshare.errors import ErrorCode
from rpcshare.server import schemas
from rpcshare.server.failures import STATUS
from rpcshare.server.operation import ApiRoute, ApiSocket, Needs, Operation
from rpcshare.version import __version__

__all__ = ["openapi_document"]

_REFERENCE = "#/components/schemas/{name}"
_ANY_CREDENTIAL: list[dict[str, list[str]]] = [{"bearer": []}, {"shareKey": []}, {"apiKey": []}]
_SECURITY = {Needs.NOTHING: [], Needs.LINK: [{}, *_ANY_CREDENTIAL], Needs.CREDENTIAL: _ANY_CREDENTIAL}

# What any request may be answered that shows a credential, and any that reaches the store.
_CALLER_CODES = (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.RATE_LIMITED)
_SERVER_CODES = (ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.INTERNAL)

_SHARE_ID = {
    "name": "share_id",
    "in": "path",
    "required": True,
    "description": "A share's id, as in its link.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,288}$"},
}
_PART_ID = {
    "name": "part_id",
    "in": "path",
    "required": True,
    "description": "A part's id, or that of an attachment of a tool's answer.",
    "schema": {"type": "string", "minLength": 1},
}


def _in_path(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


_PATH_PARAMETERS = {
    "share_id": _SHARE_ID,
    "part_id": _PART_ID,
    "entry_id": _in_path("entry_id", "The id of an entry of the vault."),
    "workspace_id": _in_path("workspace_id", "The id of a workspace."),
    "session_id": _in_path("session_id", "The id of an agent, `ses_…`."),
    "message_id": _in_path("message_id", "The id of a message, as it was returned."),
    "approval_id": _in_path("approval_id", "The id of an approval or a question."),
    "path": _in_path("path", "A path beneath the workspace, with its slashes."),
}
_ETAG = {"ETag": {"description": "Which version this is.", "schema": {"type": "string"}}}


def openapi_document(routes: Sequence[BaseRoute], base_url: str) -> dict[str, Any]:
    """Return the document of ``routes``, of which those count that say what they do."""
    operations = [
        (route, method, operation)
        for route in routes
        if isinstance(route, ApiRoute)
        for method, operation in route.operations.items()
    ]
    types = [
        kind
        for _, _, each in operations
        for kind in (each.body, each.answer, each.events)
        if kind is not None
    ]
    _, components = msgspec.json.schema_components([*types, schemas.Error], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route, method, operation in operations:
        paths.setdefault(route.path_format, {})[method.lower()] = _described(route, method, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rpcshare",
            "version": __version__,
            "summary": "Shares of coding-agent sessions, live",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base_url}],
        "paths": paths,
        # OpenAPI has no word for these.
        "x-websockets": {
            route.path_format: _socket(route) for route in routes if isinstance(route, ApiSocket)
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of any kind."},
                "shareKey": {"type": "apiKey", "in": "header", "name": "x-opencode-share-key"},
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "A stored key, as `ApiKey KEY`.",
                },
            },
        },
    }


def _socket(route: ApiSocket) -> dict[str, Any]:
    operation = route.operation
    refusals = _responses(operation, has_share_id=_has_share_id(route))
    return {
        "summary": operation.summary,
        "security": _SECURITY[operation.needs],
        "parameters": _parameters(route, operation),
        "responses": {"101": {"description": "The handshake is accepted."}, **refusals},
    }


def _has_share_id(route: ApiRoute | ApiSocket) -> bool:
    return "{share_id}" in route.path_format


def _parameters(route: ApiRoute | ApiSocket, operation: Operation) -> list[dict[str, Any]]:
    in_path = [_PATH_PARAMETERS[name] for name in re.findall(r"{(\w+)}", route.path_format)]
    others = [
        {"name": each.name, "in": each.place, "schema": each.schema, "description": each.description}
        | ({"required": True} if each.is_required else {})
        for each in operation.parameters
    ]
    return [*in_path, *others]


def _described(route: ApiRoute, method: str, operation: Operation) -> dict[str, Any]:
    name = route.path_format.strip("/").translate(str.maketrans("/", "-", "{}")) or "root"
    described: dict[str, Any] = {
        "operationId": f"{method.lower()}-{name}",
        "summary": operation.summary,
        "security": _SECURITY[operation.needs],
        "responses": _responses(operation, has_share_id=_has_share_id(route)),
    }
    if parameters := _parameters(route, operation):
        described["parameters"] = parameters
    if operation.body is not None:
        media_type = "text/plain" if operation.body is str else "application/json"
        content = {media_type: {"schema": _schema(operation.body)}}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    return described


def _responses(operation: Operation, *, has_share_id: bool) -> dict[str, Any]:  # noqa: C901 -- one branch for each part of the document
    responses: dict[str, Any] = {}
    if operation.answer is not None:
        responses["200"] = {
            "description": "Here it is." if operation.body is None else "Done.",
            "content": {operation.media_type: {"schema": _schema(operation.answer)}},
        }
    for status, description in operation.answers.items():
        responses[str(status)] = {"description": description}
        if status == HTTPStatus.OK:
            schema = {"type": "string"} if operation.events is None else _server_sent(operation.events)
            kinds = (operation.media_type, *operation.other_media_types)
            # What is in a file is not described.
            is_file = bool(operation.other_media_types) or operation.media_type == "*/*"
            responses["200"]["content"] = {kind: {} if is_file else {"schema": schema} for kind in kinds}
        elif status >= HTTPStatus.BAD_REQUEST:
            responses[str(status)] |= {"content": _error()["content"]}
    if operation.has_etag:
        responses["200"]["headers"] = _ETAG
        responses["304"] = {"description": "The version that the client has is the newest.", "headers": _ETAG}
    codes = [*operation.codes]
    if operation.needs is not Needs.NOTHING:
        codes += [*_CALLER_CODES, *_SERVER_CODES]
    if operation.body is not None:
        codes += [ErrorCode.INVALID_ARGUMENT, ErrorCode.PAYLOAD_TOO_LARGE]
        responses["415"] = _error("UNSUPPORTED_MEDIA_TYPE")
    if has_share_id:
        codes += [ErrorCode.SHARE_NOT_FOUND, ErrorCode.SHARE_GONE]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    for status, told in by_status.items():
        responses[str(int(status))] = _error(*told)
    return dict(sorted(responses.items()))


def _server_sent(kind: object) -> dict[str, Any]:
    """Return what one event is, as its lines make it."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _schema(kind)}
    number = {
        "type": "string",
        "description": "The event's `syncCount` or, of an agent, its `cursor`; a share's `deleted` has none.",
    }
    return {"type": "object", "properties": {"id": number, "data": data}, "required": ["data"]}


def _error(*codes: str) -> dict[str, Any]:
    return {
        "description": " or ".join(codes),
        "content": {"application/json": {"schema": _schema(schemas.Error)}},
    }


def _schema(kind: object) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    return schema
