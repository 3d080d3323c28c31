"""The RPC endpoint: from the handshake of a WebSocket to a running session."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from rpcshare.auth.caller import Caller
from rpcshare.auth.handshake import Authenticator, select_subprotocol
from rpcshare.auth.origin import OriginPolicy
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import JSON, Connection, Limits, TransportClosedError
from rpcshare.rpc.websocket import close_reason
from rpcshare.server.failures import error_response, to_rpc_error
from rpcshare.server.request import request_head
from rpcshare.server.share_rpc import ShareRpc
from rpcshare.shares.service import ShareService

__all__ = ["RpcEndpoint"]


# How long a call may go on, in seconds, after its connection has ended or the server began to stop. A stop
# takes at most 10 s in all.
CALL_GRACE = 5.0


class ASGITransport:
    """A WebSocket of an ASGI server, accepted already."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._closed: str | None = None

    async def receive(self) -> bytes | str:
        """Return the next message, whichever kind it is."""
        if self._closed is not None:
            raise TransportClosedError(self._closed)
        message = await self._receive()
        if message["type"] == "websocket.receive":
            text: str | None = message.get("text")
            return message["bytes"] if text is None else text
        self._closed = f"{message.get('code', 1005)} {message.get('reason') or ''}".strip()
        raise TransportClosedError(self._closed)

    async def send(self, frame: bytes, *, text: bool) -> None:
        """Send one message."""
        if self._closed is not None:
            raise TransportClosedError(self._closed)
        try:
            if text:
                await self._send({"type": "websocket.send", "text": frame.decode()})
            else:
                await self._send({"type": "websocket.send", "bytes": frame})
        except Exception as exc:
            # How a server tells of a peer that is gone differs; none of them can send after it.
            self._closed = "the peer is gone"
            raise TransportClosedError(self._closed) from exc

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket, unless the peer has."""
        if self._closed is None:
            self._closed = f"{code} {reason}"
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": close_reason(reason)})
            except Exception as exc:  # noqa: BLE001 -- as in send(); closing what is gone is done
                del exc


class RpcEndpoint:
    """Runs a session for each WebSocket whose handshake it accepts."""

    def __init__(
        self,
        service: ShareService,
        authenticator: Authenticator,
        origins: OriginPolicy,
        limits: Limits,
        *,
        anonymous: bool,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._origins = origins
        self._limits = limits
        self._anonymous = anonymous
        self._connections: set[Connection] = set()
        self._draining = False

    def __len__(self) -> int:
        """How many sessions there are."""
        return len(self._connections)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one WebSocket, from its handshake to its end."""
        websocket = WebSocket(scope, receive, send)
        head = request_head(websocket)
        try:
            self._origins.check(head)
            caller = await self._authenticator.caller(head)
            self._require_credential(caller)
        except Exception as exc:  # noqa: BLE001 -- told in one place, whatever it is
            await websocket.receive()  # the handshake, which is answered in its place
            await websocket.send_denial_response(error_response(exc))
            return
        await websocket.accept(select_subprotocol(head.subprotocols))
        connection = Connection(
            ASGITransport(receive, send),
            ShareRpc(self._service, self._authenticator, caller),
            codec=JSON,
            limits=self._limits,
            describe_error=to_rpc_error,
            throttle=True,
            call_grace=CALL_GRACE,
        )
        self._connections.add(connection)
        try:
            if not self._draining:
                await connection.run()
        finally:
            self._connections.discard(connection)

    def _require_credential(self, caller: Caller) -> None:
        """Refuse who has shown no credential, unless anybody may make shares here."""
        if caller.subject is None and not self._anonymous:
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: no credential was given")

    async def drain(self) -> None:
        """Take no more calls, let those under way finish, and end every session."""
        self._draining = True
        await asyncio.gather(*(connection.drain() for connection in self._connections))
