"""Requests to S3, each attempted until it is answered or its time is over."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Self, TypeVar

from rpcshare.retry_delay import retry_delay
from rpcshare.storage.s3_client import Client, open_client
from rpcshare.storage.s3_failures import REQUEST_ERRORS, Failure, failure_of
from rpcshare.storage.s3_location import S3Location
from rpcshare.storage.store import StoreError

__all__ = ["RefusedError", "S3Requests", "TimeLimit"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RENEW_EVERY = 1.0  # seconds, at most, that credentials are read anew

_SLOWEST = 2 * 2**20  # bytes a second: what a body may take longer than an empty one


class RefusedError(StoreError):
    """The store answered that it will not do what was asked.

    Attributes:
        failure: what it answered.
        is_in_doubt: whether an attempt before that answer may have been carried out.
    """

    def __init__(self, message: str, failure: Failure, *, is_in_doubt: bool) -> None:
        super().__init__(message, reason=failure.reason)
        self.failure = failure
        self.is_in_doubt = is_in_doubt


class TimeLimit:
    """Until when a request must have been answered. Grows with the size of what is transferred."""

    def __init__(self, seconds: float) -> None:
        """Begin now, for ``seconds``."""
        self._time = asyncio.get_running_loop().time
        self.ends_at = self._time() + seconds  # for all attempts together
        self.attempts = 0  # that have begun
        self.attempt: asyncio.Timeout | None = None  # the last of them

    @property
    def is_over(self) -> bool:
        """Whether there is no more time."""
        return self._time() >= self.ends_at

    def allow_for(self, size: int) -> None:
        """Give more time for ``size`` bytes."""
        seconds = size / _SLOWEST
        self.ends_at += seconds
        timeout = self.attempt
        if timeout is not None and (when := timeout.when()) is not None and not timeout.expired():
            timeout.reschedule(when + seconds)


class S3Requests:
    """Sends the requests of one store: so many at once, and each as often as it takes."""

    def __init__(self, location: S3Location, client: Client) -> None:
        """For :meth:`open`, which makes what this takes."""
        self.location = location
        self._client = client
        self._renewing = asyncio.Lock()
        self._renewed_at = float("-inf")  # on the event loop's clock
        self._slots = asyncio.Semaphore(location.connections)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_background: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @classmethod
    async def open(cls, location: S3Location) -> Self:
        """Make a client for ``location``. Nothing is sent yet.

        Raises:
            StoreError: AWS's settings, or its sources of credentials, cannot be read.
        """
        try:
            return cls(location, await open_client(location))
        except REQUEST_ERRORS as exc:
            raise StoreError(f"{location}: {failure_of(exc).reason}") from exc

    async def send(
        self,
        what: str,
        request: Callable[[Client, TimeLimit], Awaitable[T]],
        *,
        size: int = 0,
        within: float | None = None,
    ) -> T:
        """Return what ``request`` returns, from its first attempt that succeeds.

        Args:
            what: the operation, for errors.
            request: makes one attempt. What it does may be done twice.
            size: of the body that it sends, in bytes.
            within: seconds that all attempts may take, if not as many as the location says.

        Raises:
            RefusedError: the store refused, and would do so again.
            StoreError: no attempt succeeded in time, or the store is closed.
        """
        if self._is_closed:
            raise StoreError(f"{self.location} is closed")
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._attempts(what, request, size, within or self.seconds_for(size))
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def in_background(self, work: Coroutine[None, None, None]) -> None:
        """Do ``work``, which does not raise, while the caller goes on. :meth:`close` waits for it."""
        task = asyncio.create_task(work)
        self._in_background.add(task)
        task.add_done_callback(self._in_background.discard)

    def seconds_for(self, size: int) -> float:
        """Return how long an operation may take that sends ``size`` bytes."""
        return self.location.timeout + size / _SLOWEST

    async def close(self) -> None:
        """Let the requests under way end, and close all connections."""
        if self._in_background:
            await asyncio.wait(self._in_background)
        self._is_closed = True
        await self._idle.wait()
        await self._client.retire()

    async def _attempts(
        self,
        what: str,
        request: Callable[[Client, TimeLimit], Awaitable[T]],
        size: int,
        seconds: float,
    ) -> T:
        is_in_doubt = False
        has_renewed = False
        reason = "no answer in time"
        limit = TimeLimit(seconds)
        try:
            while True:
                await self._acquire_slot(limit)
                client = self._client
                try:
                    return await self._attempt(client, request, limit, size)
                except REQUEST_ERRORS as exc:
                    if isinstance(exc, TimeoutError) and limit.is_over:
                        raise
                    failure = failure_of(exc)
                async with asyncio.timeout_at(limit.ends_at):
                    reason = failure.told(await client.secrets()) if failure.said else failure.reason
                    logger.debug(
                        "%s: %s failed: %s (attempt %d)", self.location, what, reason, limit.attempts
                    )
                    if failure.is_about_credentials and not has_renewed:
                        has_renewed = True
                        if await self._renew(client, reason):
                            continue
                    if not failure.is_passing:
                        raise self._refused(what, failure, reason, is_in_doubt)
                    is_in_doubt = is_in_doubt or failure.is_in_doubt
                    await asyncio.sleep(retry_delay(limit.attempts))
        except TimeoutError:
            raise StoreError(
                f"{self.location}: {what} failed: {reason} ({limit.attempts} attempts in {seconds:g} s)",
                reason="the object store does not answer as it should",
            ) from None

    async def _acquire_slot(self, limit: TimeLimit) -> None:
        if self._slots.locked():
            async with asyncio.timeout_at(limit.ends_at):
                await self._slots.acquire()
        else:
            await self._slots.acquire()  # at once

    async def _attempt(
        self,
        client: Client,
        request: Callable[[Client, TimeLimit], Awaitable[T]],
        limit: TimeLimit,
        size: int,
    ) -> T:
        """Make one attempt, which has a slot, and release that."""
        try:
            limit.attempts += 1
            seconds = self.location.attempt_timeout + size / _SLOWEST
            ends_at = min(asyncio.get_running_loop().time() + seconds, limit.ends_at)
            async with asyncio.timeout_at(ends_at) as limit.attempt, client:
                return await request(client, limit)
        finally:
            self._slots.release()

    async def _renew(self, client: Client, reason: str) -> bool:
        """Take the credentials that there are now, unless somebody has; return whether they are others.

        Programs renew them in a file, or as a token in one, and nothing tells when.
        """
        async with self._renewing:
            if self._client is not client:
                return True
            now = asyncio.get_running_loop().time()
            if now - self._renewed_at < _RENEW_EVERY:
                return False
            self._renewed_at = now
            try:
                renewed = await open_client(self.location)
            except REQUEST_ERRORS as exc:
                logger.warning("%s: no new credentials: %s", self.location, failure_of(exc).reason)
                return False
            if await renewed.secrets() == await client.secrets():
                await renewed.retire()
                return False
            logger.info("%s: credentials are read anew: %s", self.location, reason)
            self._client = renewed
            await client.retire()
            return True

    def _refused(self, what: str, failure: Failure, reason: str, is_in_doubt: bool) -> RefusedError:
        message = f"{self.location}: {what} failed: {reason}"
        return RefusedError(message, failure, is_in_doubt=is_in_doubt)
