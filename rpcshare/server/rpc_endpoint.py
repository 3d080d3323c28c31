"""The RPC endpoint: from the handshake of a WebSocket, or the head of a POST, to a running session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.authenticator import Authenticator, select_subprotocol
from rpcshare.auth.caller import Caller
from rpcshare.auth.current_request import current_request
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.rate_limits import ConnectionLimit, network_of
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import JSON, Codec, Connection, ConnectionLostError, Limits, RpcError
from rpcshare.rpc.batch import BatchServerTransport
from rpcshare.rpc.callback_connection import CallbackConnection
from rpcshare.rpc.event_loop import running_loop
from rpcshare.rpc.memory_budget import Pool
from rpcshare.rpc.messagepack import MESSAGEPACK
from rpcshare.rpc.read_coalescing import ReadCoalescing
from rpcshare.server.content_coding import read_decoded_body
from rpcshare.server.failures import error_response, to_rpc_error, upgrade_required
from rpcshare.server.metrics import Metrics
from rpcshare.server.operation import ApiRoute, ApiSocket, Needs, Operation
from rpcshare.server.request import request_head
from rpcshare.server.request_log import AccessLog
from rpcshare.server.return_delay import with_return_delay
from rpcshare.server.share_rpc import ShareRpc
from rpcshare.server.traced_calls import Around, counted, limited, traced
from rpcshare.server.websocket_protocol import DIRECT
from rpcshare.shares.service import ShareService
from rpcshare.tracing import Tracing
from rpcshare.vault.caller_vault import CallerVault

if TYPE_CHECKING:
    from rpcshare.agents.caller_agents import CallerAgents
    from rpcshare.server.web.user_sign_in import SignedIn
    from rpcshare.workspaces.caller_workspaces import CallerWorkspaces

__all__ = ["RpcEndpoint"]


# How long a call may go on, in seconds, after its connection has ended or the server began to stop. A stop
# takes at most 10 s in all.
CALL_GRACE = 5.0

# How long the calls of a batch may take, in seconds: its client waits for all of them.
BATCH_GRACE = 30.0

# A batch may be as long as so many messages of the greatest length.
MESSAGES_IN_A_BATCH = 4

# A WebSocket's close code (RFC 6455, section 7.4.1).
POLICY_VIOLATION = 1008

CODECS: dict[str, Codec] = {codec.subprotocol: codec for codec in (JSON, MESSAGEPACK)}


class BatchAnswer:
    """The body of an answer to ``POST``, which leaves in parts as it is made."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False

    async def write(self, part: bytes) -> None:
        """Send a part; returns when the client has taken most of what there is."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        """Send what completes the answer."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})


class RpcEndpoint:
    """Runs a session for each WebSocket whose handshake it accepts, and for each batch that is posted."""

    def __init__(
        self,
        service: ShareService,
        authenticator: Authenticator,
        origins: OriginPolicy,
        limits: Limits,
        connections: ConnectionLimit,
        audit: AuditLog,
        *,
        anonymous: bool,
        metrics: Metrics,
        pool: Pool | None = None,
        keys: ApiKeys | None = None,
        vault_of: Callable[[Caller], CallerVault] | None = None,
        workspaces_of: Callable[[Caller], CallerWorkspaces] | None = None,
        agents_of: Callable[[Caller], CallerAgents] | None = None,
        access_log: AccessLog | None = None,
        tracing: Tracing | None = None,
        signed_in: SignedIn | None = None,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._origins = origins
        self._limits = limits
        self._open = connections
        self._audit = audit
        self._anonymous = anonymous
        self._keys = keys
        self._signed_in = signed_in
        self._vault_of = vault_of
        self._workspaces_of = workspaces_of
        self._agents_of = agents_of
        self._access_log = access_log
        self._tracing = tracing
        self._metrics = metrics
        self._pool = pool
        self._coalescing: ReadCoalescing | None = None  # of the event loop, once it runs
        # Sessions by what they run over.
        self._connections: set[CallbackConnection] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._batches: set[Connection] = set()
        self._draining = False

    def __len__(self) -> int:
        """How many sessions there are."""
        return len(self._connections) + len(self._batches)

    def routes(self, path: str) -> list[BaseRoute]:
        """Return what answers handshakes, and what answers batches."""
        session = Operation(
            summary='A Cap\'n Web session whose main target is ShareRpc (PROTOCOL.md, "Transport")',
            needs=Needs.CREDENTIAL,
        )
        batch = Operation(
            summary='An HTTP batch of Cap\'n Web messages, one a line (PROTOCOL.md, "HTTP batch")',
            needs=Needs.CREDENTIAL,
            body=str,
            body_required=False,
            media_type="text/plain",
            answers={200: "The messages that answer it, one a line."},
        )
        return [
            ApiSocket(path, self, session),
            ApiRoute(path, self, {"POST": batch}),
            Route(path, _no_session, methods=["GET"], include_in_schema=False),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one WebSocket, from its handshake to its end, or one batch."""
        if scope["type"] == "websocket":
            await self._handle_websocket(WebSocket(scope, receive, send))
        else:
            await self._handle_batch(Request(scope, receive), send)

    async def _handle_websocket(self, websocket: WebSocket) -> None:
        """Answer a handshake. The session that begins with it goes on by itself, without the request."""
        head = request_head(websocket)
        with contextlib.ExitStack() as held:
            try:
                caller = await self._admit(head)
                with self._audit.refusals(Action.CONNECT, caller):
                    held.enter_context(self._open.hold(caller))
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                await websocket.receive()  # the handshake, which is answered in its place
                await websocket.send_denial_response(error_response(exc))
                return
            subprotocol = select_subprotocol(head.subprotocols)
            await websocket.accept(subprotocol)
            if self._draining:
                return
            codec = CODECS[subprotocol or JSON.subprotocol]
            if self._coalescing is None:
                self._coalescing = ReadCoalescing(running_loop())
            connection = CallbackConnection(
                websocket.scope["extensions"][DIRECT],
                self._main(caller, codec),
                codec=codec,
                limits=self._limits,
                describe_error=_describing_errors(),
                throttle=True,
                call_grace=CALL_GRACE,
                pool=self._pool,
                pool_owner=_owner_of(caller),
                coalescing=self._coalescing,
            )
            connection.around_call = self._around_calls()
            told = self._session_told(connection, caller)
            self._connections.add(connection)
            connection.attach()
            running = asyncio.create_task(self._run(connection, caller, held.pop_all(), told))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _run(
        self,
        connection: CallbackConnection,
        caller: Caller,
        held: contextlib.ExitStack[bool | None],
        told: contextlib.AbstractContextManager[None],
    ) -> None:
        """Run the session of a WebSocket to its end."""
        current_request.set(None)  # in the context of this task alone: the request has been answered
        try:
            with told, held, _ended_with(caller, connection):
                await connection.run()
        finally:
            self._connections.discard(connection)

    async def _handle_batch(self, request: Request, send: Send) -> None:
        with contextlib.ExitStack() as held:
            try:
                caller = await self._admit(request_head(request))
                held.enter_context(self._open.hold(caller))
                body = await read_decoded_body(request, MESSAGES_IN_A_BATCH * self._limits.message_bytes)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                await error_response(exc)(request.scope, request.receive, send)
                return
            await self._run_batch(caller, body, request.receive, send)

    async def _run_batch(self, caller: Caller, body: bytes, receive: Receive, send: Send) -> None:
        answer = BatchAnswer(send)
        batch = Connection(
            BatchServerTransport(body, answer.write),
            self._main(caller, JSON),
            codec=JSON,
            limits=self._limits,
            describe_error=_describing_errors(),
            throttle=True,
            call_grace=BATCH_GRACE,
            pool=self._pool,
            pool_owner=_owner_of(caller),
        )
        batch.around_call = self._around_calls()
        self._batches.add(batch)
        watching = asyncio.create_task(_end_with_client(batch, receive))
        try:
            await batch.run()
        finally:
            watching.cancel()
            self._batches.discard(batch)
        await answer.end()

    def _around_calls(self) -> Around:
        """Return what calls of a session are run by; the tracing belongs to the request that opens it."""
        around = limited(self._metrics.around_call, self._authenticator.count_request)
        return around if self._tracing is None else traced(around, self._tracing, self._tracing.here())

    def _session_told(
        self, connection: CallbackConnection, caller: Caller
    ) -> contextlib.AbstractContextManager[None]:
        """Return the context in which a session is in the access log, if there is one."""
        request, around = current_request.get(), connection.around_call
        if self._access_log is None or request is None or around is None:
            return contextlib.nullcontext()
        connection.around_call, count = counted(around)
        return _told(self._access_log, request.id, caller, count)

    async def _admit(self, head: RequestHead) -> Caller:
        """Return the caller of a request.

        Raises:
            ShareError: it may have no session here; why comes first of the reasons that there are.
        """
        self._origins.check(head)
        caller = await self._authenticator.caller(head)
        with self._audit.refusals(Action.CONNECT, caller):
            self._require_credential(caller)
        return caller

    def _main(self, caller: Caller, codec: Codec) -> ShareRpc:
        """Return what the caller finds as its remote main."""
        return ShareRpc(
            self._service,
            self._authenticator,
            caller,
            keys=self._keys,
            signed_in=self._signed_in,
            vault_of=self._vault_of,
            workspaces_of=self._workspaces_of,
            agents_of=self._agents_of,
            codec=codec,
        )

    def _require_credential(self, caller: Caller) -> None:
        """Refuse who has shown no credential, unless anybody may make shares here."""
        if caller.is_anonymous and not self._anonymous:
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: no credential was given")

    async def drain(self) -> None:
        """Take no more calls, let those under way and all those of a batch finish, and end every session."""
        self._draining = True
        clients = len(self._connections)
        await asyncio.gather(
            *(
                connection.drain(reason=with_return_delay("the server is being stopped", clients))
                for connection in self._connections
            ),
            *(batch.finish(CALL_GRACE) for batch in self._batches),
        )


async def _no_session(_request: Request) -> Response:
    return upgrade_required("This is the address of a WebSocket, and of batches, which are sent with POST")


async def _end_with_client(batch: Connection, receive: Receive) -> None:
    """End ``batch`` when its client goes away: nobody is left to be answered, or to pay for what it holds."""
    while (await receive())["type"] != "http.disconnect":
        pass
    batch.session.close(ConnectionLostError("the client of a batch has gone"))
    await batch.finish(CALL_GRACE)


def _describing_errors() -> Callable[[BaseException], RpcError]:
    """Return what makes errors of a session, which names the current request where it logs one."""
    request = current_request.get()
    return to_rpc_error if request is None else partial(to_rpc_error, request_id=request.id)


@contextlib.contextmanager
def _told(log: AccessLog, request_id: str, caller: Caller, calls: Callable[[], int]) -> Iterator[None]:
    log.session_opened(request_id, caller)
    began_at = perf_counter()
    try:
        yield
    finally:
        log.session_closed(request_id, caller, calls=calls(), seconds=perf_counter() - began_at)


def _owner_of(caller: Caller) -> str:
    """Return who pays for what a session holds. View tokens have no subject, and anybody can get many."""
    return caller.subject or network_of(caller.address)


@contextlib.contextmanager
def _ended_with(caller: Caller, connection: CallbackConnection) -> Iterator[None]:
    """Close ``connection`` when the credential that opened it holds no more."""
    if caller.standing is None:
        yield
        return
    closing: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()
    take_back = caller.standing.on_end(
        lambda: closing.append(loop.create_task(connection.close(POLICY_VIOLATION)))
    )
    try:
        yield
    finally:
        take_back()
