"""The HTTP API over shares: what a stock opencode, curl and scripts without RPC use."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rpcshare import jsontext
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller
from rpcshare.auth.origin import OriginPolicy
from rpcshare.errors import ErrorCode, Reason, ShareError
from rpcshare.server import schemas
from rpcshare.server.content_coding import coding_of
from rpcshare.server.event_streams import EventStream, EventStreams, deliver_server_sent
from rpcshare.server.failures import error_response
from rpcshare.server.json_body import JsonBody, read_json_body
from rpcshare.server.large_syncs import LargeSyncs, RefusedSyncError
from rpcshare.server.listings import Listings
from rpcshare.server.operation import ApiRoute, Handler, Needs, Operation, Parameter
from rpcshare.server.query_parameters import FROM_SYNC_COUNT, from_sync_count
from rpcshare.server.request import READS, admit, request_head
from rpcshare.server.responses import (
    DocumentResponses,
    has_newest,
    json_response,
    not_modified_response,
    read_response,
)
from rpcshare.server.share_files import ShareFiles
from rpcshare.server.vault_api import VaultApi
from rpcshare.shares.access_settings import AccessSettings, ViewToken
from rpcshare.shares.document import Form
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import is_share_id
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.server.agents_api import AgentsApi
    from rpcshare.server.workspaces_api import WorkspacesApi  # of servers that run agents

__all__ = ["RestApi"]

logger = structlog.get_logger("rpcshare.server")

_MAX_SETTINGS = 64 * 1024  # bytes of a body without data

_LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    place="header",
    schema=FROM_SYNC_COUNT.schema,
    description="The same, as browsers send it when they come back; counts before `fromSyncCount`.",
)

_IMPORT_AS_FILE = (
    "opencode imports it as a file, which `rpcshare pull URL --format opencode` writes, and a GET of "
    "/k/KEY/api/share/ID/export?format=opencode"
)

# Beside a token, what helps is the password of the share (RFC 7617): browsers and curl can ask for it.
_PASSWORD_CHALLENGE = 'Bearer, Basic realm="password of the share", charset="UTF-8"'  # noqa: S105 -- none is in it


class RestApi:
    """The routes, each of which is one operation of the service."""

    def __init__(
        self,
        service: ShareService,
        authenticator: Authenticator,
        origins: OriginPolicy,
        max_body: int,
        event_streams: EventStreams,
        large_syncs: LargeSyncs,
        vault: VaultApi | None = None,
        workspaces: WorkspacesApi | None = None,
        agents: AgentsApi | None = None,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._origins = origins
        self._max_body = max_body
        self._event_streams = event_streams
        self._large_syncs = large_syncs
        self._documents = DocumentResponses()
        self._files = ShareFiles(service, self._documents)
        self._listings = Listings(service, None if agents is None else agents.described_sessions)
        self._others = [each for each in (vault, workspaces, agents) if each is not None]

    def routes(self) -> list[ApiRoute]:
        """Return the routes under ``/api``; ``/api/shares`` is opencode's other name for ``/api/share``."""
        paths = {path: {"GET": each} for path, each in self._listings.operations().items()}
        for other in self._others:
            for path, operations in other.operations().items():
                paths.setdefault(path, {}).update(operations)
        routes = [self._route(path, **operations) for path, operations in paths.items()]
        for base in ("/api/share", "/api/shares"):
            share = base + "/{share_id}"
            routes += [
                self._route(
                    base,
                    POST=_writing(
                        "Make a share, or get the credentials of one's own again",
                        self._create,
                        schemas.CreateBody,
                        schemas.Created,
                        needs=Needs.CREDENTIAL,
                    ),
                ),
                self._route(
                    share,
                    GET=_reading("All of a share", self._agent_session, schemas.AgentSession),
                    PATCH=_writing(
                        "Change who may read a share, and until when",
                        self._update,
                        schemas.UpdateBody,
                        AccessSettings,
                    ),
                    DELETE=_writing(
                        "Take a share down",
                        self._delete,
                        schemas.DeleteBody,
                        schemas.Success,
                        body_required=False,
                    ),
                ),
                self._route(
                    share + "/sync",
                    POST=_writing("Add a batch to a share", self._sync, schemas.SyncBody, schemas.Synced),
                ),
                self._route(
                    share + "/view-token",
                    POST=_writing(
                        "Make a token that reads a share, whatever its visibility",
                        self._create_view_token,
                        schemas.ViewTokenBody,
                        ViewToken,
                        body_required=False,
                    ),
                ),
                self._route(
                    share + "/unlock",
                    POST=_writing(
                        "Get such a token for the password of a share",
                        self._unlock,
                        schemas.UnlockBody,
                        ViewToken,
                    ),
                ),
                self._route(
                    share + "/data",
                    GET=_reading("A share as SyncData", self._sync_data, list[schemas.SyncData]),
                ),
                self._route(
                    share + "/metadata",
                    GET=_reading("What a listing tells of a share", self._metadata, schemas.SessionIndex),
                ),
                *(self._route(share + path, GET=each) for path, each in self._files.operations().items()),
                self._route(share + "/events", GET=_streaming(self._events)),
            ]
        return routes

    def _route(self, path: str, **operations: Operation) -> ApiRoute:
        return ApiRoute(path, self._endpoint(operations), operations)

    def _endpoint(self, operations: Mapping[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
        """Return handlers as Starlette calls them: with a caller, and with failures as answers."""

        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            handler = operations[method].handler
            caller: Caller | None = None
            try:
                caller = await admit(
                    request_head(request), request.method, self._authenticator, self._origins
                )
                answer = await handler(request, caller) if handler is not None else None
                if isinstance(answer, Response):
                    return answer
                body = jsontext.encode(answer)
                return await read_response(request, body) if method in READS else json_response(body)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                if method == "POST" and caller is not None:
                    _log_loss(request, caller, exc)
                answer = error_response(exc)
                if method == "GET" and _is_for_want_of_a_password(exc):
                    answer.headers["WWW-Authenticate"] = _PASSWORD_CHALLENGE
                return answer

        return endpoint

    # Writes

    async def _create(self, request: Request, caller: Caller) -> object:
        coding_of(request)  # which is told whoever asks
        await self._service.check_create(caller)  # before a byte of the body is decoded
        body = await self._body(request)
        body.check_spelling("visibility", "expiresIn", "password")
        options = body.members("visibility", "expiresIn", "password", "secret")
        created = await self._service.create(caller, body.text("sessionID"), body.take("data"), options)
        return {"id": created.id, "url": created.url, "secret": created.secret}

    async def _sync(self, request: Request, caller: Caller) -> object:
        share_id = request.path_params["share_id"]
        # The secret is in the body, so that there is the share comes first.
        exists = partial(self._service.check_exists, share_id)
        may_write = partial(self._service.check_write, caller, share_id)
        async with contextlib.AsyncExitStack() as stack:
            try:
                taking = self._large_syncs.body(request, exists, may_write)
                body = await stack.enter_async_context(taking)
            except ShareError as exc:
                is_known = isinstance(exc, RefusedSyncError)
                # Bodies that there is no room for take it up until they are answered, at once.
                if is_known or exc.code is not ErrorCode.RATE_LIMITED:
                    await self._service.record_refusal(caller, share_id, exc, may_write=is_known)
                raise
            # Who may not write is refused before the data are decoded.
            count = await self._service.sync(caller, share_id, body.secret, body.take("data"))
            return {"success": True, "syncCount": count}

    async def _delete(self, request: Request, caller: Caller) -> object:
        body = await self._settings(request)
        await self._service.delete(caller, request.path_params["share_id"], body.secret)
        return {"success": True}

    async def _update(self, request: Request, caller: Caller) -> object:
        body = await self._settings(request, optional=False)
        # Any other member is refused: misspelt and ignored, it would leave a share open.
        options = body.all_but("secret")
        share_id = request.path_params["share_id"]
        return msgspec.to_builtins(await self._service.update(caller, share_id, body.secret, options))

    async def _create_view_token(self, request: Request, caller: Caller) -> object:
        body = await self._settings(request)
        body.check_spelling("expiresIn")
        token = await self._service.create_view_token(
            caller, request.path_params["share_id"], body.secret, body.get("expiresIn")
        )
        return msgspec.to_builtins(token)

    async def _unlock(self, request: Request, caller: Caller) -> object:
        body = await self._settings(request, optional=False)
        token = await self._service.unlock(caller, request.path_params["share_id"], body.get("password"))
        return msgspec.to_builtins(token)

    async def _body(self, request: Request) -> JsonBody:
        return await read_json_body(request, self._max_body)

    async def _settings(self, request: Request, *, optional: bool = True) -> JsonBody:
        """Return a body that has a secret or a password in it, and settings, but no data."""
        bound = min(self._max_body, _MAX_SETTINGS) if self._max_body else _MAX_SETTINGS
        return await read_json_body(request, bound, optional=optional)

    # Reads

    async def _agent_session(self, request: Request, caller: Caller) -> object:
        return await self._document(request, caller, Form.AGENT_SESSION)

    async def _sync_data(self, request: Request, caller: Caller) -> object:
        try:
            return await self._document(request, caller, Form.SYNC_DATA)
        except ShareError as exc:
            if (
                exc.code not in (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN)
                or "authorization" in request.headers
            ):
                raise
            # It is what `opencode import URL` asks for, without a credential.
            raise ShareError(exc.code, f"{exc.message}; {_IMPORT_AS_FILE}", reason=exc.reason) from None

    async def _metadata(self, request: Request, caller: Caller) -> object:
        share_id = request.path_params["share_id"]
        if await self._service.last_refusal(caller, share_id) is None:
            return await self._document(request, caller, Form.METADATA)
        return msgspec.to_builtins(await self._service.metadata(caller, share_id))

    async def _document(self, request: Request, caller: Caller, form: Form) -> Response:
        share_id = request.path_params["share_id"]
        if "if-none-match" in request.headers:
            version = await self._service.version(caller, share_id)
            if has_newest(request, version):
                return not_modified_response(version)
        return await self._documents.answer(request, await self._service.document(caller, share_id, form))

    async def _events(self, request: Request, caller: Caller) -> Response:
        count = from_sync_count(request.query_params.get("fromSyncCount"))
        # A browser that comes back asks for the address that it was given at first, with this beside it.
        last = from_sync_count(request.headers.get("last-event-id") or None, "Last-Event-ID")
        count = count if last is None else last
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._event_streams.connections.hold(caller))
            subscription = await self._service.subscribe(caller, request.path_params["share_id"], count)
            held = stack.pop_all()
            return EventStream(self._event_streams, caller, subscription, held, deliver=deliver_server_sent)


def _log_loss(request: Request, caller: Caller, error: Exception) -> None:
    """Log that what somebody sent is too large: a stock opencode neither tells that nor sends it again."""
    if caller.subject is None or not isinstance(error, ShareError):
        return
    is_of_shares = getattr(request.scope.get("route"), "path", "").startswith("/api/share")
    if error.code is ErrorCode.PAYLOAD_TOO_LARGE and is_of_shares:
        share = request.path_params.get("share_id", "")
        logger.warning(
            "what was sent for a share is too large, so the share lacks it",
            share=share if is_share_id(share) else "",
            subject=caller.subject,
            why=error.message,
        )


def _reading(summary: str, handler: Handler, answer: object) -> Operation:
    return Operation(summary=summary, handler=handler, needs=Needs.LINK, answer=answer, has_etag=True)


def _writing(
    summary: str,
    handler: Handler,
    body: object,
    answer: object,
    *,
    needs: Needs = Needs.LINK,
    body_required: bool = True,
) -> Operation:
    return Operation(
        summary=summary, handler=handler, needs=needs, body=body, body_required=body_required, answer=answer
    )


def _streaming(handler: Handler) -> Operation:
    return Operation(
        summary="A share, and what happens to it from now on, as Server-Sent Events",
        handler=handler,
        needs=Needs.LINK,
        parameters=(FROM_SYNC_COUNT, _LAST_EVENT_ID),
        answers={200: "One event after the other, until the share is deleted."},
        media_type="text/event-stream",
        events=schemas.Event,
        codes=(ErrorCode.INVALID_ARGUMENT, ErrorCode.RATE_LIMITED),
    )


def _is_for_want_of_a_password(error: Exception) -> bool:
    return (
        isinstance(error, ShareError)
        and error.code is ErrorCode.UNAUTHORIZED
        and error.reason is Reason.PASSWORD_NEEDED
    )
