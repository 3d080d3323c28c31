"""Knowing API keys when they are shown, on every node that shares a store.

Known keys are kept in memory. Every so often the store is listed, which tells by etags which of them have
changed, and those alone are read again: so a revocation is heard of on every node within seconds, and to
verify a key costs the store nothing. A key that is not known may have been made a moment ago, so it is looked
up; who shows one invention after the other soon has to wait for the next listing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from rpcshare.auth.api_keys import ApiKey, find_key, id_of_key, list_key_objects
from rpcshare.auth.caller import Caller, CallerKey, Scope
from rpcshare.auth.credential import Credential
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.subject_sources import Source
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import ObjectStore, StoreError

__all__ = ["ApiKeyVerifier"]

logger = logging.getLogger(__name__)

# All in seconds. A revoked key is refused everywhere within 5; a listing takes its time, too.
REFRESH_INTERVAL = 1.5
REFRESH_TIMEOUT = 10.0
# How long keys are taken for valid while the store cannot be asked.
TRUST_WITHOUT_STORE = 60.0

# How many unknown ids are looked up within one interval between refreshes.
LOOKUPS = 100


class UserKeys(Protocol):
    """Knows users whose keys are shown."""

    async def caller_of_key(
        self, user_id: str, organization: str | None, scopes: frozenset[Scope], standing: CredentialValidity
    ) -> Caller | None:
        """Return whom a key of a user stands for; None, if the user may not act any more."""
        ...


class _Known:
    """A key that this node knows."""

    def __init__(self, key: ApiKey, etag: str) -> None:
        self.key = key
        self.etag = etag
        # One for all that show the key: it ends with it.
        self.standing = CredentialValidity(None if key.expires_at is None else key.expires_at / 1000)

    def update(self, key: ApiKey, etag: str) -> None:
        """Take over what the store has; a revocation is final, whatever is read late."""
        if self.key.revoked_at is None:
            self.key = key
            self.etag = etag
            if key.revoked_at is not None:
                self.standing.end()


class ApiKeyVerifier:
    """Knows the keys in a store, each within 5 seconds of its revocation for the last time."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        refresh_interval: float = REFRESH_INTERVAL,
        trust_without_store: float = TRUST_WITHOUT_STORE,
    ) -> None:
        """Know the keys in ``store``; nothing is refreshed before :meth:`refreshing`."""
        self._store = store
        self.users: UserKeys | None = None
        """Knows the users whose keys some are; None: nobody signs in, and their keys are good for nothing."""
        self._refresh_interval = refresh_interval
        self._trust_without_store = trust_without_store
        self._known: dict[str, _Known] = {}
        self._refreshed_at = time.monotonic()
        # Unknown ids that were shown, until a time: how many were looked up, and which are not there.
        self._lookups_until = 0.0
        self._lookups = 0
        self._absent: set[str] = set()
        # Ids whose objects could not be read, with their etags: not tried again until somebody shows them.
        self._unreadable: dict[str, str] = {}

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator["ApiKeyVerifier"]:
        """Refresh what is known in the background."""
        task = asyncio.create_task(self._refresh_again_and_again())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def verify(self, credential: Credential) -> Caller | None:
        """Return whom a key stands for, or None for what is no key that was ever made.

        Raises:
            ShareError: UNAUTHORIZED: the key has been revoked or has expired. STORAGE_UNAVAILABLE: the store
                has to be asked and cannot. RATE_LIMITED: too many unknown keys are being shown.
        """
        key_id = id_of_key(credential.value)
        if key_id is None:
            return None
        known = self._known.get(key_id)
        if known is None:
            known = await self._look_up(key_id)
        elif time.monotonic() - self._refreshed_at > self._trust_without_store:
            known = await self._ask(key_id)
        if known is None or not known.key.fits(credential.value):
            return None
        if known.key.revoked_at is not None:
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the API key has been revoked")
        if known.standing.is_over:
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the API key has expired")
        if known.key.user is not None:
            return await self._of_user(known.key, known.key.user, known.standing)
        return Caller(
            subject=known.key.name,
            scopes=known.key.scopes,
            standing=known.standing,
            source=Source.KEY,
            default_visibility=known.key.default_visibility,
            key=_of_caller(known.key),
        )

    async def _of_user(self, key: ApiKey, user_id: str, standing: CredentialValidity) -> Caller:
        caller = None
        if self.users is not None:
            caller = await self.users.caller_of_key(user_id, key.organization, key.scopes, standing)
        if caller is None:
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized: the user of the API key may not sign in")
        return msgspec.structs.replace(caller, default_visibility=key.default_visibility, key=_of_caller(key))

    async def refresh(self) -> None:
        """Learn of every key that was made, changed or removed since the last refresh.

        Raises:
            StoreError: the store failed; what was known stays so.
            TimeoutError: it took too long.
        """
        began = time.monotonic()
        async with asyncio.timeout(REFRESH_TIMEOUT):
            missing = set(self._known)
            async for key_id, info in list_key_objects(self._store):
                missing.discard(key_id)
                known = self._known.get(key_id)
                etag = self._unreadable.get(key_id) if known is None else known.etag
                if etag != info.etag:
                    await self._read_listed(key_id, info.etag)
        for key_id in missing:
            self._forget(key_id)
        self._refreshed_at = began

    async def _read_listed(self, key_id: str, etag: str) -> None:
        try:
            await self._read(key_id)
        except StoreError as exc:
            # What a change of a key is for, as a rule, is to end it.
            logger.warning("API key %s cannot be read: %s", key_id, exc)
            self._forget(key_id)
            self._unreadable[key_id] = etag

    async def _look_up(self, key_id: str) -> _Known | None:
        """Ask the store about a key that is not known, unless it has been asked too often."""
        now = time.monotonic()
        if now >= self._lookups_until:
            self._lookups_until = now + self._refresh_interval
            self._lookups = 0
            self._absent.clear()
        if key_id in self._absent:
            return None
        if self._lookups >= LOOKUPS:
            raise ShareError(
                ErrorCode.RATE_LIMITED,
                "Too many unknown API keys are being shown",
                retry_after=self._refresh_interval,
            )
        self._lookups += 1
        known = await self._ask(key_id)
        if known is None:
            self._absent.add(key_id)
        return known

    async def _ask(self, key_id: str) -> _Known | None:
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT):
                return await self._read(key_id)
        except (StoreError, TimeoutError) as exc:
            logger.warning("An API key cannot be verified: %s", _reason(exc))
            raise ShareError(
                ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=self._refresh_interval
            ) from exc

    async def _read(self, key_id: str) -> _Known | None:
        """Take over what the store has of a key."""
        found = await find_key(self._store, key_id)
        if found is None:
            self._forget(key_id)
            return None
        self._unreadable.pop(key_id, None)
        known = self._known.get(key_id)
        if known is None:
            known = self._known[key_id] = _Known(*found)
        else:
            known.update(*found)
        return known

    def _forget(self, key_id: str) -> None:
        known = self._known.pop(key_id, None)
        if known is not None:
            known.standing.end()

    async def _refresh_again_and_again(self) -> None:
        is_well = True
        while True:
            try:
                await self.refresh()
            except (StoreError, TimeoutError) as exc:
                if is_well:
                    logger.warning("API keys cannot be refreshed: %s", _reason(exc))
                is_well = False
            else:
                is_well = True
            await asyncio.sleep(self._refresh_interval)


def _of_caller(key: ApiKey) -> CallerKey:
    return CallerKey(key.id, key.rate_limit or 0)


def _reason(exc: Exception) -> str:
    return str(exc) or "the store does not answer"
