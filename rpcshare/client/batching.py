"""Many calls in one HTTP request."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType

import anyio

from rpcshare.client.connect_failures import ConnectFailedError, failure_of, refusal_of
from rpcshare.client.connecting import CLIENT_LIMITS, authorization, endpoint, require_tls
from rpcshare.client.http_post import Exchange
from rpcshare.client.redirects import MOST_REDIRECTS, place_of, redirected
from rpcshare.rpc import Connection, Stub
from rpcshare.rpc.batch import BatchClientTransport
from rpcshare.rpc.event_loop import Task, running_loop
from rpcshare.rpc.waiting import finished

__all__ = ["Batch", "batch"]


class Batch:
    """What :func:`batch` returns: enter it for the stub."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        headers: Mapping[str, str] | None,
        timeout: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.url = endpoint(url, {"http": "http", "https": "https", "ws": "http", "wss": "https"})
        self._headers = {
            "Content-Type": "text/plain; charset=utf-8",
            **(headers or {}),
            **authorization(token),
        }
        self._timeout = timeout
        self._ssl_context = ssl_context
        require_tls(self.url, ssl_context)
        self._transport = BatchClientTransport(self._post)
        self._connection: Connection | None = None
        self._running: Task | None = None
        # Why there is no answer, if there is none.
        self._failure: Exception | None = None

    async def __aenter__(self) -> Stub:
        if self._connection is not None:
            raise RuntimeError("a batch is sent once; make another with rpcshare.batch()")
        self._connection = Connection(self._transport, limits=CLIENT_LIMITS)
        self._running = running_loop().create_task(self._connection.run())
        return self._connection.remote_main

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is None or self._running is None:
            return
        was_sent = self._transport.is_sent
        try:
            # What nobody waits for is sent all the same, and nobody but this can tell if that fails.
            if exc_type is None and await self._transport.complete():
                await finished(self._running)
                self._running.result()
                failure = self._failure or self._connection.session.closed
                if failure is not None and not (was_sent or self._transport.is_answered):
                    raise failure
        finally:
            with anyio.CancelScope(shield=True):
                await self._connection.close()
                await finished(self._running)

    async def _post(self, body: bytes) -> bytes:
        """Return the answer to ``body``.

        Raises:
            ShareError, ConnectFailedError: there is none.
        """
        try:
            return await self._exchanged(body)
        except Exception as exc:
            self._failure = exc
            raise

    async def _exchanged(self, body: bytes) -> bytes:
        try:
            with anyio.fail_after(self._timeout):
                for _ in range(MOST_REDIRECTS):
                    exchange = Exchange(self.url, self._headers, body, self._timeout, self._ssl_context)
                    status, headers, answer = await exchange.run()
                    if status == HTTPStatus.OK:
                        return answer
                    # Who redirects to TLS has not carried the batch out, so it is sent once more.
                    url = redirected(self.url, status, headers.get("Location"))
                    if url is None:
                        raise refusal_of(
                            status,
                            place_of(self.url),
                            "the batch",
                            retry_after=headers.get("Retry-After", ""),
                        )
                    self.url = url
        except TimeoutError:
            raise ConnectFailedError(
                f"{place_of(self.url)} did not answer within {self._timeout:g} s"
            ) from None
        except ConnectFailedError:
            raise
        except (OSError, ImportError, ValueError) as exc:
            # What says more than the error may hold a proxy's password.
            raise failure_of(exc, place_of(self.url)) from (exc if isinstance(exc, OSError) else None)
        raise ConnectFailedError(f"{place_of(self.url)} redirects again and again", is_permanent=True)


def batch(
    url: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    ssl_context: ssl.SSLContext | None = None,
) -> Batch:
    """Make several calls in one HTTP request; enter the result for a stub of the server's main target.

    Calls are gathered until a result is awaited, and sent together. So they may build on each other's
    results, but only by pipelining::

        async with rpcshare.batch("https://share.example", token=token) as api:
            info = api.createShare(session_id)
            synced = api.syncShare(info.id, info.secret, items)
            print(await asyncio.gather(info, synced))

    What has not been sent when the block ends is sent then. No call can be made once the batch has been sent,
    the server cannot call back, and stubs in results are of no use: what takes more than a question and an
    answer takes :func:`~rpcshare.client.connecting.connect`.

    Args:
        url: of the server: ``http`` or ``https``. Without a path, ``/rpc`` is meant. A redirect is followed
            from http to https on the same host.
        token: sent as ``Authorization: Bearer``.
        headers: more headers for the request.
        timeout: in seconds, for the whole of the request and its answer.
        ssl_context: which CAs are trusted, and the client certificate to be shown, for ``https``.

    Raises (where a result is awaited, or at the end of the block if none was):
        ShareError: ``UNAUTHORIZED`` or ``FORBIDDEN``: the server refused the batch.
        ConnectFailedError: there is no answer for any other reason.
        SessionClosedError: the call came too late to be in the batch, or the server did not answer it.
    """
    return Batch(url, token=token, headers=headers, timeout=timeout, ssl_context=ssl_context)
