"""The handshake of a WebSocket with the events of a share (``/ws/{share_id}``) or an agent, and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from rpcshare.auth.authenticator import SUBPROTOCOLS, Authenticator, select_subprotocol
from rpcshare.auth.caller import Caller
from rpcshare.auth.origin import OriginPolicy
from rpcshare.errors import ErrorCode
from rpcshare.server.event_streams import MAX_CHATTER, EventSocket, EventStreams, deliver_messages
from rpcshare.server.failures import error_response, upgrade_required
from rpcshare.server.operation import ApiSocket, Needs, Operation
from rpcshare.server.query_parameters import FROM_SYNC_COUNT, from_sync_count
from rpcshare.server.request import request_head
from rpcshare.server.websocket_protocol import DIRECT
from rpcshare.shares.event_source import EventSource
from rpcshare.shares.service import ShareService

__all__ = ["EVENTS_OF_A_SHARE", "EventSocketEndpoint", "share_events"]

_JSON = SUBPROTOCOLS[0]


EVENTS_OF_A_SHARE = Operation(
    summary="The events of a share, one JSON text message each",
    needs=Needs.LINK,
    parameters=(FROM_SYNC_COUNT,),
    codes=(ErrorCode.INVALID_ARGUMENT,),
)


def share_events(service: ShareService) -> Callable[[WebSocket, Caller], Awaitable[EventSource]]:
    """Return what subscribes to the share that a handshake names."""

    async def subscribe(websocket: WebSocket, caller: Caller) -> EventSource:
        count = from_sync_count(websocket.query_params.get("fromSyncCount"))
        return await service.subscribe(caller, websocket.path_params["share_id"], count)

    return subscribe


class EventSocketEndpoint:
    """Sends events, of a share or of an agent, over each WebSocket whose handshake it accepts."""

    def __init__(
        self,
        subscribe: Callable[[WebSocket, Caller], Awaitable[EventSource]],
        authenticator: Authenticator,
        origins: OriginPolicy,
        event_streams: EventStreams,
    ) -> None:
        self._subscribe = subscribe
        self._authenticator = authenticator
        self._origins = origins
        self._event_streams = event_streams

    def routes(self, path: str, operation: Operation) -> list[BaseRoute]:
        """Return what answers handshakes, and what answers requests that are none."""
        return [ApiSocket(path, self, operation), Route(path, _no_handshake, include_in_schema=False)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one WebSocket, from its handshake to its end."""
        websocket = WebSocket(scope, receive, send)
        head = request_head(websocket)
        async with contextlib.AsyncExitStack() as stack:
            try:
                self._origins.check(head)
                caller = await self._authenticator.caller(head)
                stack.enter_context(self._event_streams.connections.hold(caller))
                subscription = await self._subscribe(websocket, caller)
                await stack.enter_async_context(subscription)
            except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
                await websocket.receive()  # the handshake, which is answered in its place
                await websocket.send_denial_response(error_response(exc))
                return
            # Whoever has the link is here: what they send must not fill the memory before it is counted.
            transport = scope["extensions"][DIRECT]
            transport.limit_messages(2 * MAX_CHATTER)
            await websocket.accept(select_subprotocol(head.subprotocols, (_JSON,)))
            deliver = partial(deliver_messages, send=send, transport=transport)
            await EventSocket(self._event_streams, caller, subscription, deliver).run(receive, send)


async def _no_handshake(_request: Request) -> Response:
    return upgrade_required("This is the address of a WebSocket")
