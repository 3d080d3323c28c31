"""The gateway: what a sandbox asks of a model goes to its provider, with the key, and is counted.

``open`` serves on a Unix socket, to which a port on 127.0.0.1 leads in one sandbox. There are two paths for
each table: ``/NAME/v1/models``, and ``/NAME/v1/chat/completions`` or ``/NAME/v1/messages``. A request is
sent to the provider once: whether it is tried again is for the agent to decide, since each try may be
charged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.exchange import Exchange, GatewayCounts
from rpcshare.gateway.gateway_socket import GatewaySocket
from rpcshare.gateway.http_connection import (
    BodyPool,
    ConnectionLimits,
    HttpAnswer,
    HttpRequest,
)
from rpcshare.gateway.keys import KeyFor, ModelKey, ModelKeys, fault_of_key
from rpcshare.gateway.metering import AnswerMeter, ModelSessions, Usage
from rpcshare.gateway.models import ModelCatalogue, ModelTable, WireKind
from rpcshare.gateway.upstream import SecretScrubber, Upstream, UpstreamAnswer, UpstreamTimeouts
from rpcshare.gateway.wires import GatewayError, Wire, wire_of
from rpcshare.json_values import holds_more_than
from rpcshare.long_work import LongWork

if TYPE_CHECKING:
    from rpcshare.vault.vault import Vault  # which imports SQLAlchemy

__all__ = ["GatewayCounts", "GatewaySocket", "ModelGateway"]

logger = logging.getLogger("rpcshare.gateway")

LOOK_EVERY = 1.5
"""Seconds until what is under way is ended whose key of the vault was revoked."""

_TRUST_WITHOUT_VAULT = 60.0  # seconds
_MAX_ERROR = 64 * 1024  # bytes of the body of a provider's error that are passed on
_MAX_HELD = 128 * 1024 * 1024  # bytes of bodies, of all sockets
_CHARGE_SECONDS = 10.0

# Of a request. The longest sessions have some ten thousand; to decode a million takes seconds.
MAX_VALUES = 100_000
_LONG = 64 * 1024  # bytes, from which on they are counted

_PATH = re.compile(r"/(?P<table>[a-z0-9][a-z0-9_-]{0,31})/v1(?P<path>/[a-z/_]{1,64})")

_STATUSES = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.INVALID_SECRET: 403,
    ErrorCode.SHARE_NOT_FOUND: 404,
    ErrorCode.WORKSPACE_NOT_FOUND: 404,
    ErrorCode.SESSION_NOT_FOUND: 404,
    ErrorCode.SESSION_TERMINATED: 410,
    ErrorCode.SHARE_GONE: 410,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.STORAGE_UNAVAILABLE: 503,
}


class ModelGateway:
    """The gateway of a server, which has a socket for each sandbox."""

    def __init__(
        self,
        catalogue: ModelCatalogue,
        open_vault: Callable[[], Awaitable[Vault]] | None,
        audit: AuditLog,
        *,
        timeouts: UpstreamTimeouts | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        """Serve the models of ``catalogue``.

        Args:
            catalogue: of the settings.
            open_vault: opens the vault, where tables have no key of their own; None: there is none.
            audit: is told of the use of its keys.
            timeouts: of providers.
            limits: of connections from sandboxes.
        """
        self.catalogue = catalogue
        self.keys = ModelKeys(open_vault, audit)
        self.limits = limits or ConnectionLimits()
        self.timeouts = timeouts or UpstreamTimeouts()
        self.counts = GatewayCounts()
        self.pool = BodyPool(_MAX_HELD)
        self._upstream = Upstream(self.timeouts)
        self._sockets: set[GatewaySocket] = set()
        self._under_way: set[Exchange] = set()
        self._charging: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def faults(self) -> list[str]:
        """Return what is wrong with keys of the server's own: a sentence each, which names the table."""
        return [fault for table in self.catalogue.tables if (fault := fault_of_key(table)) is not None]

    async def open(
        self, path: Path, sessions: ModelSessions, *, workspace_id: str = "", workspace_name: str = ""
    ) -> GatewaySocket:
        """Serve one sandbox on a Unix socket.

        Args:
            path: of the socket, in a directory that no one else may enter.
            sessions: what is asked before each request, and told after it.
            workspace_id: of the workspace, which grants of keys may name.
            workspace_name: its name, which grants of the owner's own keys may name, too.

        Raises:
            OSError: it cannot be listened on.
        """
        await self._upstream.open()
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look_again_and_again())
        opened = GatewaySocket(self, path, sessions, KeyFor(workspace_id, workspace_name))
        await opened.listen()
        self._sockets.add(opened)
        return opened

    async def close(self) -> None:
        """End all requests, and wait until what they have used is told."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for each in [*self._sockets]:
            await each.close()
        await asyncio.gather(*self._charging, return_exceptions=True)
        await self._upstream.close()

    def forget(self, socket: GatewaySocket) -> None:
        """Know a socket no more, which has been closed."""
        self._sockets.discard(socket)

    # One request

    async def handle(self, socket: GatewaySocket, request: HttpRequest, answer: HttpAnswer) -> None:
        """Carry out a request of a sandbox."""
        wire = wire_of(WireKind.OPENAI)
        try:
            table, path = self._routed(request.target)
            wire = wire_of(table.kind)
            if path == "/models" and request.method == "GET":
                await _say(answer, 200, wire.listed(table))
                return
            exchange = await self._exchange_of(socket, table, path, request)
            await self._admitted(socket, request.headers, exchange, answer)
        except GatewayError as exc:
            self.counts.refused[exc.reason] += 1
            await self._refuse(wire, answer, exc)
        except (OSError, TimeoutError):
            answer.cut()  # nobody reads it
        except Exception as exc:
            logger.exception("a request of a model has failed: %s", type(exc).__name__)
            await self._refuse(wire, answer, GatewayError(500, "Internal server error", "internal"))

    def refusal(
        self, target: str, status: int, message: str, reason: str
    ) -> tuple[list[tuple[str, str]], bytes]:
        """Return the headers and body for a request that was not read."""
        self.counts.refused[reason] += 1
        with contextlib.suppress(GatewayError):
            table, _ = self._routed(target)
            body = wire_of(table.kind).error(status, message)
            return _headers(body), body
        body = wire_of(WireKind.OPENAI).error(status, message)
        return _headers(body), body

    def _routed(self, target: str) -> tuple[ModelTable, str]:
        """Return the table and the path behind it. A target is compared, and never decoded or resolved."""
        match = _PATH.fullmatch(target.partition("?")[0])
        table = None if match is None else self.catalogue.table(match["table"])
        if match is None or table is None or match["path"] not in ("/models", wire_of(table.kind).path):
            raise GatewayError(404, "there is nothing at this path", "path")
        return table, match["path"]

    async def _exchange_of(
        self, socket: GatewaySocket, table: ModelTable, path: str, request: HttpRequest
    ) -> Exchange:
        """Return what a request asks for. Raises GatewayError."""
        wire = wire_of(table.kind)
        if request.method != "POST" or path != wire.path:
            raise GatewayError(405, f"{request.method[:16]} is not for this path", "method")
        body, request.body = request.body, b""
        if len(body) > _LONG:
            async with LongWork() as work:
                if await holds_more_than(body, MAX_VALUES, work):
                    raise GatewayError(413, f"the request has more than {MAX_VALUES:,} values", "size")
        asked = wire.read(body, asks_for_usage=table.stream_usage)
        model = table.model(asked.model)
        if model is None:
            message = f"model: {table.name} has {', '.join(table.models[:20])}, and no other for this agent"
            raise GatewayError(404, message, "model")
        if socket.under_way >= self.limits.under_way:
            message = f"{self.limits.under_way} requests of this agent are under way"
            raise GatewayError(429, message, "too_many", retry_after=1.0)
        return Exchange(model, asked)

    async def _admitted(
        self, socket: GatewaySocket, headers: Mapping[str, str], exchange: Exchange, answer: HttpAnswer
    ) -> None:
        session_id, model = socket.session_of(headers), exchange.model.name
        socket.under_way += 1
        try:
            caller = await _admit(socket.sessions, session_id, model)
        except BaseException:
            socket.under_way -= 1
            raise
        self.counts.under_way += 1
        self._under_way.add(exchange)
        is_refused = False
        try:
            exchange.key = await _found_key(self.keys, exchange, caller, socket.key_for(session_id))
            await self._exchange(headers, exchange, caller, answer)
        except (GatewayError, ShareError):
            is_refused = True
            raise
        finally:
            self._under_way.discard(exchange)
            self.counts.under_way -= 1
            socket.under_way -= 1
            usage = exchange.usage()
            if not is_refused:
                self.counts.requests[model, exchange.outcome] += 1
            self.counts.count(model, usage)
            # By itself: who has gone away, or ends the gateway, does not keep it from being told.
            charging = asyncio.ensure_future(_charge(socket.sessions, session_id, model, usage))
            self._charging.add(charging)
            charging.add_done_callback(self._charging.discard)

    async def _exchange(
        self, headers: Mapping[str, str], exchange: Exchange, caller: Caller, answer: HttpAnswer
    ) -> None:
        """Ask the provider, and pass on what it answers."""
        table, asked, key = exchange.model.table, exchange.asked, exchange.key
        wire = wire_of(table.kind)
        # A provider goes on with what is no stream, and charges it: what that was is to be known. Of a
        # stream, it may be its end that whoever has gone away did not want to be seen.
        answer.lingers = self.limits.linger if asked.is_stream else None
        sent = wire.headers(table, key.value, headers, is_stream=asked.is_stream)
        take_back = None
        ending = asyncio.timeout(self.timeouts.total)
        try:
            async with ending:
                exchange.ending = ending
                if caller.standing is not None:
                    why = "the credential that began this agent is no longer valid"
                    take_back = caller.standing.on_end(lambda: exchange.end(why))
                exchange.is_sent = True
                async with self._upstream.ask(table.url(wire.path), sent, asked.body) as answered:
                    await self._pass_on(wire, exchange, answered, answer)
        except TimeoutError:
            exchange.ending = None
            if not ending.expired():
                raise
            exchange.outcome = "ended" if exchange.ended_because else "failed"
            why = exchange.ended_because or "the answer takes too long"
            status = 401 if exchange.ended_because else 504
            await self._fail(wire, exchange, answer, GatewayError(status, why, exchange.outcome))
        except GatewayError as exc:
            exchange.ending = None
            exchange.is_free |= exc.reason == "unreachable"
            exchange.outcome = "failed"
            await self._fail(wire, exchange, answer, exc)
        finally:
            exchange.ending = None
            if take_back is not None:
                take_back()

    async def _pass_on(
        self, wire: Wire, exchange: Exchange, answered: UpstreamAnswer, answer: HttpAnswer
    ) -> None:
        scrubber = SecretScrubber(exchange.key.value)
        if 300 <= answered.status < 400 or answered.status < 200:
            exchange.is_free = True
            message = f"the provider answers with {answered.status}, a redirect, which is not followed"
            raise GatewayError(502, message, "provider")
        answered.require_readable()
        headers = answered.headers(scrubber)
        if answered.status >= 400:
            exchange.is_free = True
            exchange.outcome = "error"
            body = scrubber.scrubbed_error(await _whole(answered))
            await answer.begin(answered.status, [*headers, ("content-length", str(len(body)))])
            await answer.say(body)
            await answer.end()
            return
        is_stream = exchange.asked.is_stream and answered.media_type != "application/json"
        meter = exchange.meter = AnswerMeter(wire.kind, is_stream=is_stream)
        headers += [("cache-control", "no-store"), ("x-accel-buffering", "no")]
        await answer.begin(answered.status, headers)
        async with contextlib.aclosing(answered.pieces()) as pieces:
            async for piece in pieces:
                meter.feed(piece)
                await answer.say(scrubber.feed(piece))
        await answer.say(scrubber.end())
        meter.end()
        exchange.outcome = "ok"
        await answer.end()

    async def _fail(self, wire: Wire, exchange: Exchange, answer: HttpAnswer, error: GatewayError) -> None:
        """Say that an answer has failed, in whatever state it is."""
        if not answer.has_begun:
            await self._refuse(wire, answer, error)
        elif exchange.meter is not None and exchange.meter.is_between_events:
            await answer.say(wire.event_of_error(error.status, error.message))
            await answer.end()
        else:
            answer.cut()

    async def _refuse(self, wire: Wire, answer: HttpAnswer, error: GatewayError) -> None:
        if answer.has_begun:
            answer.cut()
            return
        after = [] if error.retry_after is None else [("retry-after", str(max(1, round(error.retry_after))))]
        await _say(answer, error.status, wire.error(error.status, error.message), after)

    # Keys that hold no more

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self._look()
            except Exception as exc:  # noqa: BLE001 -- it is to look again, whatever it was
                logger.warning("whether keys still hold could not be looked at: %s", type(exc).__name__)

    async def _look(self) -> None:
        """End what is under way with a key of the vault that has been revoked, or has expired."""
        by_entry: dict[tuple[object, str], list[Exchange]] = {}
        for each in self._under_way:
            if each.key.entry_id is not None:
                by_entry.setdefault((each.key.owner, each.key.entry_id), []).append(each)
        await asyncio.gather(*map(self._look_at, by_entry.values()))

    async def _look_at(self, them: Sequence[Exchange]) -> None:
        """Look at what is under way with one entry."""
        now = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_EVERY):
                holds = await self.keys.holds(them[0].key)
        except (ShareError, DatabaseError, TimeoutError) as exc:
            logger.warning("the vault cannot be asked whether a key holds: %s", type(exc).__name__)
            holds = all(now - each.seen_at < _TRUST_WITHOUT_VAULT for each in them)
        else:
            for each in them:
                each.seen_at = now
        if not holds:
            for each in them:
                each.end("the key for this model has been revoked, or has expired")


async def _admit(sessions: ModelSessions, session_id: str | None, model: str) -> Caller:
    try:
        return await sessions.admit(session_id, model)
    except ShareError as exc:
        raise _refused(exc, "session") from None


async def _found_key(keys: ModelKeys, exchange: Exchange, caller: Caller, key_for: KeyFor) -> ModelKey:
    try:
        return await keys.find(exchange.model.table, caller, key_for)
    except ShareError as exc:
        raise _refused(exc, "key") from None


def _refused(exc: ShareError, reason: str) -> GatewayError:
    return GatewayError(_STATUSES.get(exc.code, 500), exc.message, reason, retry_after=exc.retry_after)


async def _charge(sessions: ModelSessions, session_id: str | None, model: str, usage: Usage) -> None:
    try:
        async with asyncio.timeout(_CHARGE_SECONDS):
            await sessions.charge(session_id, model, usage)
    except Exception as exc:  # noqa: BLE001 -- whatever it is, the answer has been given
        logger.warning("what a request has used could not be charged: %s", type(exc).__name__)


async def _whole(answered: UpstreamAnswer) -> bytes:
    """Return the body of an error, or its beginning."""
    body = bytearray()
    async with contextlib.aclosing(answered.pieces()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > _MAX_ERROR:
                break
    return bytes(body[:_MAX_ERROR])


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [("content-type", "application/json"), ("content-length", str(len(body)))]


async def _say(answer: HttpAnswer, status: int, body: bytes, more: Sequence[tuple[str, str]] = ()) -> None:
    await answer.begin(status, [*_headers(body), *more])
    await answer.say(body)
    await answer.end()
