"""Knowing which signed tokens were ended, on every node that shares a store, while they are in use.

Every so often the store is listed, and what is new there is read. So a token is refused everywhere within
seconds of its revocation, and to verify one costs the store nothing.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import msgspec

from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.token_revocations import PRUNE_AFTER, REVOKED_PREFIX, Revocation, decode_revocation
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["EndedTokens", "TokenClaims"]

logger = logging.getLogger(__name__)

# All in seconds. An ended token is refused everywhere within 5; a listing takes its time, too.
REFRESH_INTERVAL = 2.0
REFRESH_TIMEOUT = 10.0
# How long tokens are taken for valid while the store cannot be asked.
TRUST_WITHOUT_STORE = 60.0


class TokenClaims(msgspec.Struct, frozen=True):
    """What a token is known by."""

    issuer: str
    token_id: str | None
    subject: str
    issued_at: float
    """In seconds since the epoch; 0 for a token that does not tell."""


class EndedTokens:
    """The revocations in a store, and the tokens in use that may be ended by one."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        refresh_interval: float = REFRESH_INTERVAL,
        trust_without_store: float = TRUST_WITHOUT_STORE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Know those in ``store``; nothing is known before :meth:`refreshing`."""
        self._store = store
        self._refresh_interval = refresh_interval
        self._trust_without_store = trust_without_store
        self._clock = clock
        # What ends single tokens, by their id, and what ends many; both by the revocation's id.
        self._single: dict[str, dict[str, Revocation]] = {}
        self._many: dict[str, Revocation] = {}
        self._known: dict[str, Revocation | None] = {}  # None: it cannot be read
        self._in_use: WeakKeyDictionary[CredentialValidity, TokenClaims] = WeakKeyDictionary()
        self._refreshed_at = -math.inf

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator["EndedTokens"]:
        """Refresh what is known, now and in the background."""
        is_well = await self._try_to_refresh(is_well=True)
        task = asyncio.create_task(self._refresh_again_and_again(is_well=is_well))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def check(self, claims: TokenClaims) -> None:
        """Return if a token was not ended.

        Raises:
            ShareError: UNAUTHORIZED; STORAGE_UNAVAILABLE: it cannot be told now.
        """
        if time.monotonic() - self._refreshed_at > self._trust_without_store:
            try:
                await self.refresh()
            except (StoreError, TimeoutError) as exc:
                raise ShareError(
                    ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=self._refresh_interval
                ) from exc
        if self._is_ended(claims):
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the token has been revoked")

    def watch(self, claims: TokenClaims, standing: CredentialValidity) -> None:
        """End ``standing`` as soon as the token is known to be ended."""
        self._in_use[standing] = claims

    async def refresh(self) -> None:
        """Learn of every revocation that was made since the last refresh.

        Raises:
            StoreError: the store failed; what was known stays so.
            TimeoutError: it took too long.
        """
        began = time.monotonic()
        has_new = False
        async with asyncio.timeout(REFRESH_TIMEOUT):
            listed = {
                info.key.removeprefix(REVOKED_PREFIX) async for info in self._store.list(REVOKED_PREFIX)
            }
            for revocation_id in listed - self._known.keys():
                has_new |= await self._read(revocation_id)
        for revocation_id in self._known.keys() - listed:
            kept = self._known[revocation_id]
            # A revocation is final: one that is gone before its time was not removed by a server.
            if kept is None or self._is_past(kept):
                self._forget(revocation_id)
        self._refreshed_at = began
        if has_new:
            for standing, claims in list(self._in_use.items()):
                if self._is_ended(claims):
                    standing.end()

    async def prune(self) -> None:
        """Remove what ends no token any longer, as all of them have expired.

        Raises:
            StoreError: the store failed.
        """
        expired = [kept.id for kept in self._known.values() if kept is not None and self._is_past(kept)]
        if expired:
            await self._store.delete([REVOKED_PREFIX + revocation_id for revocation_id in expired])

    def _is_past(self, revocation: Revocation) -> bool:
        """Whether what it ends has expired, and that for so long that no clock can be as wrong."""
        expires_at = revocation.expires_at
        return expires_at is not None and expires_at < (self._clock() - PRUNE_AFTER) * 1000

    def _is_ended(self, claims: TokenClaims) -> bool:
        single = self._single.get(claims.token_id, {}) if claims.token_id is not None else {}
        return any(
            each.ends(claims.issuer, claims.token_id, claims.subject, claims.issued_at)
            for each in (*single.values(), *self._many.values())
        )

    async def _read(self, revocation_id: str) -> bool:
        """Take over a revocation; return whether there is one."""
        found = await self._store.get(REVOKED_PREFIX + revocation_id)
        if found is None:
            return False  # another node has just removed it
        try:
            kept = decode_revocation(found)
        except StoreError as exc:
            logger.warning("A revocation of tokens is not heeded: %s", exc)
            self._known[revocation_id] = None
            return False
        self._known[revocation_id] = kept
        if kept.token_id is not None:
            self._single.setdefault(kept.token_id, {})[revocation_id] = kept
        else:
            self._many[revocation_id] = kept
        return True

    def _forget(self, revocation_id: str) -> None:
        kept = self._known.pop(revocation_id, None)
        self._many.pop(revocation_id, None)
        if kept is not None and kept.token_id is not None:
            of_token = self._single.get(kept.token_id, {})
            of_token.pop(revocation_id, None)
            if not of_token:
                self._single.pop(kept.token_id, None)

    async def _refresh_again_and_again(self, *, is_well: bool) -> None:
        while True:
            await asyncio.sleep(self._refresh_interval)
            is_well = await self._try_to_refresh(is_well=is_well)

    async def _try_to_refresh(self, *, is_well: bool) -> bool:
        try:
            await self.refresh()
            await self.prune()
        except (StoreError, TimeoutError) as exc:
            if is_well:
                logger.warning(
                    "Revocations of tokens cannot be refreshed: %s", str(exc) or "the store does not answer"
                )
            return False
        return True
