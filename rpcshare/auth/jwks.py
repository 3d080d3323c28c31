"""Where the keys of an issuer of tokens come from: a file, a secret, or a URL that is asked now and then."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

from rpcshare import jsontext
from rpcshare.auth.bounded_http import MAX_SIZE, TIMEOUT, ask
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["MAX_SIZE", "TIMEOUT", "FixedKeys", "KeySource", "RemoteKeys", "VerifyingKey"]

logger = logging.getLogger(__name__)

# All in seconds.
MAX_AGE = 300.0  # after which the keys are fetched anew: so long may one be used that was taken back
MIN_INTERVAL = 30.0  # between two requests, whatever tokens are shown
MAX_STALE = 24 * 3600.0  # for which keys are used while they cannot be fetched


class VerifyingKey(Protocol):
    """A key to verify with."""

    @property
    def id(self) -> str | None:
        """The id that a token's header names it by; None: it fits every id."""
        ...

    @property
    def algorithms(self) -> frozenset[str]:
        """What it may be used with."""
        ...

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's, by ``algorithm``, of ``signed``."""
        ...


class KeySource(Protocol):
    """Has the keys of an issuer."""

    async def candidates(self, key_id: str | None, algorithm: str) -> Sequence[VerifyingKey]:
        """Return the keys with which a token may have been signed whose header names these two.

        Raises:
            ShareError: STORAGE_UNAVAILABLE: it cannot be told now.
        """
        ...

    def knows(self, key_id: str) -> bool:
        """Whether any key may be the one with this id."""
        ...


class FixedKeys:
    """Keys that never change."""

    def __init__(self, keys: Sequence[VerifyingKey]) -> None:
        self._keys = tuple(keys)

    async def candidates(self, key_id: str | None, algorithm: str) -> Sequence[VerifyingKey]:
        """Return the keys that fit; one without an id, as PEM files have it, fits every id."""
        return _fitting(self._keys, key_id, algorithm)

    def knows(self, key_id: str) -> bool:
        """Whether any key may be the one with this id."""
        return _has(self._keys, key_id)


class RemoteKeys:
    """The keys of a JWKS at a URL, of which a copy is kept.

    A copy is fetched anew when it is old, in the background, and when a token names a key that it does not
    have: then at most every ``min_interval`` seconds, so that bad tokens make no requests.
    """

    def __init__(
        self,
        url: str,
        *,
        max_age: float = MAX_AGE,
        min_interval: float = MIN_INTERVAL,
        max_stale: float = MAX_STALE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._max_age = max_age
        self._min_interval = min_interval
        self._max_stale = max_stale
        self._clock = clock
        self._keys: list[VerifyingKey] = []
        self._fetched_at: float | None = None  # None: never yet
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def candidates(self, key_id: str | None, algorithm: str) -> Sequence[VerifyingKey]:
        """Return the keys that fit, after a look at the URL if that is due.

        Raises:
            ShareError: STORAGE_UNAVAILABLE: there is no copy that is young enough, and none can be had.
        """
        if self._age() > self._max_age:
            fetching = self._fetch_if_due()
            if fetching is not None and self._age() > self._max_stale:
                await fetching
        if self._age() > self._max_stale:
            raise ShareError(
                ErrorCode.STORAGE_UNAVAILABLE,
                "The keys that tokens are verified with are not available",
                retry_after=TIMEOUT,
            )
        found = _fitting(self._keys, key_id, algorithm)
        if not found:
            fetching = self._fetch_if_due()
            if fetching is not None:
                await fetching
                found = _fitting(self._keys, key_id, algorithm)
        return found

    def knows(self, key_id: str) -> bool:
        """Whether any key of the copy may be the one with this id."""
        return _has(self._keys, key_id)

    async def close(self) -> None:
        """Give up a request that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _fetch_if_due(self) -> "asyncio.Future[None] | None":
        """Return what to wait for until there is a new copy, or None if it is too early to ask for one.

        Many may wait for one request, and any of them may give up waiting.
        """
        if self._fetching is None:
            if self._tried_at is not None and self._clock() - self._tried_at < self._min_interval:
                return None
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        return asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        from rpcshare.auth.token_keys import keys_of_jwks  # noqa: PLC0415 -- as httpx, below

        try:
            keys = keys_of_jwks(jsontext.decode(await _get(self._url)))
        except (ConnectionError, ValueError, TimeoutError) as exc:
            # Of what the other side sent, nothing is repeated.
            reason = str(exc) if type(exc) in (ConnectionError, ValueError) else type(exc).__name__
            logger.warning("The keys that tokens are verified with cannot be fetched: %s", reason)
        else:
            self._keys = list(keys)
            self._fetched_at = self._clock()
        finally:
            self._fetching = None


async def _get(url: str) -> bytes:
    """Return what is at ``url``.

    Raises:
        ConnectionError, TimeoutError: there was no answer.
        ValueError: it was no success, or too large.
    """
    answer = await ask(url)
    if answer.status != HTTPStatus.OK:
        raise ValueError(f"the answer is {answer.status}")
    return answer.body


def _has(keys: Sequence[VerifyingKey], key_id: str) -> bool:
    return any(key.id is None or key.id == key_id for key in keys)


def _fitting(keys: Sequence[VerifyingKey], key_id: str | None, algorithm: str) -> list[VerifyingKey]:
    return [
        key
        for key in keys
        if algorithm in key.algorithms and (key_id is None or key.id is None or key.id == key_id)
    ]
