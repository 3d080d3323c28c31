"""Delivers what owners are to be told: signed, within bounds, and never to a private address unless allowed.

The form is that of Standard Webhooks (https://www.standardwebhooks.com), for which there are libraries.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

from rpcshare.agents.agents import Agents
from rpcshare.agents.webhooks import ATTEMPTS, Notice, Webhooks
from rpcshare.database import DatabaseError
from rpcshare.errors import ShareError
from rpcshare.retry_delay import retry_delay
from rpcshare.sandbox.egress_proxy import EgressPolicy, EgressRefusedError, Resolve, allowed_addresses

if TYPE_CHECKING:
    import httpcore

__all__ = ["WebhookDelivery", "signature"]

logger = logging.getLogger("rpcshare.agents")

_AT_ONCE = 8
_LOOKS = 10.0  # seconds between two looks at what is due
_SECONDS = 10.0  # of one delivery
_MAX_ANSWER = 64 * 1024  # bytes
_FIRST_DELAY, _LONGEST_DELAY = 10.0, 3600.0  # seconds between attempts: 10, 20, 40 … 2,560


class WebhookDelivery:
    """One node's part in it."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[Agents]],
        policy: EgressPolicy,
        *,
        resolve: Resolve | None = None,
        first_delay: float = _FIRST_DELAY,
    ) -> None:
        """Deliver what the agents that ``opened`` returns have to tell.

        Args:
            opened: returns the agents.
            policy: which hosts may be told, and which of them may be private.
            resolve: looks up names; None: the system's resolver.
            first_delay: seconds before the second attempt at most.
        """
        self._opened = opened
        self._policy = policy
        self._resolve = resolve
        self._first_delay = first_delay
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Deliver in the background from now on."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._changed.set()

    async def close(self) -> None:
        """Stop; what is not delivered will be by another node, or after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        stop_listening = None
        try:
            while True:
                self._changed.clear()
                try:
                    agents = await self._opened()
                    if stop_listening is None:
                        stop_listening = agents.news.listen(lambda _agent: self.wake())
                    while await self.deliver_due(Webhooks(agents.database)):
                        pass
                except (DatabaseError, ShareError) as exc:
                    logger.warning("webhooks cannot be delivered: %s", exc)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOKS):
                        await self._changed.wait()
        finally:
            if stop_listening is not None:
                stop_listening()

    async def deliver_due(self, webhooks: Webhooks) -> bool:
        """Deliver what is due, at most eight notices; return whether there may be more."""
        notices = await webhooks.claim(_AT_ONCE)
        await asyncio.gather(*(self._deliver(webhooks, notice) for notice in notices))
        return len(notices) == _AT_ONCE

    async def _deliver(self, webhooks: Webhooks, notice: Notice) -> None:
        problem = await self._post(notice)
        again_in = None
        if problem is not None:
            if notice.attempts + 1 < ATTEMPTS:
                again_in = retry_delay(notice.attempts + 1, first=self._first_delay, longest=_LONGEST_DELAY)
            else:
                logger.warning("a webhook was not delivered, and will not be: %s", problem)
        await webhooks.settle(notice, problem, again_in)

    async def _post(self, notice: Notice) -> str | None:
        """Return why a delivery failed; None: it did not."""
        import httpcore  # noqa: PLC0415 -- few servers tell anybody

        body = notice.body.encode()
        at = int(time.time())
        headers: dict[bytes | str, bytes | str] = {
            "content-type": "application/json",
            "user-agent": "rpcshare",
            "webhook-id": notice.id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(notice.webhook.secret, notice.id, at, body),
        }
        try:
            async with asyncio.timeout(_SECONDS):
                backend = _backend_class()(self._policy, self._resolve)
                pool = httpcore.AsyncConnectionPool(
                    ssl_context=_tls_context(), network_backend=backend, http2=False
                )
                async with (
                    pool,
                    pool.stream("POST", notice.webhook.url, headers=headers, content=body) as answer,
                ):
                    size = 0
                    async for piece in answer.aiter_stream():
                        size += len(piece)
                        if size > _MAX_ANSWER:
                            break
                    return None if 200 <= answer.status < 300 else f"it answered {answer.status}"
        except TimeoutError:
            return f"it did not answer within {_SECONDS:.0f} s"
        except EgressRefusedError as exc:
            return exc.message
        except httpcore.ConnectError as exc:
            return "its certificate is not valid" if "CERTIFICATE" in str(exc) else "it cannot be reached"
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as exc:
            return f"it cannot be reached ({type(exc).__name__})"


def signature(secret: str, notice_id: str, at: int, body: bytes) -> str:
    """Return what proves that a delivery is this server's: ``v1,`` and base64 of HMAC-SHA256.

    It is of ``ID.TIMESTAMP.BODY``, with the bytes behind ``whsec_`` as the key.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{notice_id}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


@cache
def _backend_class() -> Callable[[EgressPolicy, Resolve | None], httpcore.AsyncNetworkBackend]:
    import httpcore  # noqa: PLC0415 -- as above

    class Backend(httpcore.AsyncNetworkBackend):
        """Connects to what a name resolves to now, if all of that is allowed."""

        def __init__(self, policy: EgressPolicy, resolve: Resolve | None) -> None:
            self._policy = policy
            self._resolve = resolve
            self._inner = httpcore.AnyIOBackend()

        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's
            local_address: str | None = None,
            socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
        ) -> httpcore.AsyncNetworkStream:
            addresses = await allowed_addresses(self._policy, host.lower(), port, self._resolve)
            failed: Exception = OSError("it has no address")
            for address in addresses:
                try:
                    return await self._inner.connect_tcp(
                        str(address), port, timeout, local_address, socket_options
                    )
                except (OSError, httpcore.NetworkError, httpcore.TimeoutException) as exc:
                    failed = exc
            raise failed

    return Backend
