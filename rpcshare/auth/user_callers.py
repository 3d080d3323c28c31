"""Knowing users by the sessions of their browsers, and by their keys, on every node of a server.

What is known is kept in memory. Every so often one number is read from the database, which grows with every
change that ends a right; when it has grown, all that is known is read again. So whoever is disabled, signed
out or given another role loses what the old rights opened within seconds, and a request costs no query.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from rpcshare.auth.allowances import Allowances
from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.people import People, session_hash
from rpcshare.auth.subject_sources import user_source
from rpcshare.auth.users import SESSION_PREFIX, BrowserSession, User
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["UserCallers"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# All in seconds.
REFRESH_INTERVAL = 1.5
TRUST_WITHOUT_DATABASE = 60.0
_TIMEOUT = 10.0

MAX_KNOWN = 20_000
"""Sessions that are kept in memory: others are looked up when they are shown."""


class _KnownUser:
    def __init__(self, user: User) -> None:
        self.user = user
        # One for all that acts for the user: it ends when the user's rights change.
        self.standing = CredentialValidity()

    def is_as(self, user: User | None) -> bool:
        mine = self.user
        return (
            user is not None
            and user.disabled_at is None
            and (user.organization, user.role) == (mine.organization, mine.role)
        )


class _KnownSession:
    def __init__(self, session: BrowserSession, user: _KnownUser) -> None:
        self.session = session
        self.user = user
        self.own = CredentialValidity(session.expires_at / 1000)
        self.standing = self.own & user.standing


class UserCallers:
    """Knows the callers that users are, each within 5 seconds of a change for the last time."""

    def __init__(
        self,
        people: People,
        allowances: Allowances | None = None,
        *,
        refresh_interval: float = REFRESH_INTERVAL,
    ) -> None:
        """Know ``people``, and have ``allowances`` know theirs, from :meth:`refreshing` on."""
        self._people = people
        self._allowances = allowances or Allowances()
        self._refresh_interval = refresh_interval
        self._sessions: dict[str, _KnownSession] = {}  # by the hash of the secret
        self._users: dict[str, _KnownUser] = {}
        self._revision: int | None = None
        # Learned since the last refresh: a change may have come while they were being looked up.
        self._new_sessions: set[str] = set()
        self._new_users: set[str] = set()
        self._refreshed_at = time.monotonic()

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator[UserCallers]:
        """Refresh what is known in the background."""
        task = asyncio.create_task(self._refresh_again_and_again())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def verify(self, credential: Credential) -> Caller | None:
        """Return whom the session of a browser stands for, or None for what is none, or has ended.

        Raises:
            ShareError: STORAGE_UNAVAILABLE: the database has to be asked and cannot.
        """
        if credential.kind is not CredentialKind.SESSION or not credential.value.startswith(SESSION_PREFIX):
            return None
        name = session_hash(credential.value)
        self._require_fresh()
        known = self._sessions.get(name)
        if known is None or known.standing.is_over:
            known = await self._look_up(name)
        if known is None:
            return None
        return _caller(known.user, known.standing, known.user.user.role.scopes)

    async def caller_of_key(
        self, user_id: str, organization: str | None, scopes: frozenset[Scope], standing: CredentialValidity
    ) -> Caller | None:
        """Return whom a key of a user stands for: the user, with no more scopes than the role allows.

        A key with the scope ``admin`` is as good as its user; another manages nobody and no keys. None, if
        the user is there no more, is disabled, or has come into another organization since the key was made.

        Raises:
            ShareError: STORAGE_UNAVAILABLE.
        """
        self._require_fresh()
        known = self._users.get(user_id)
        if known is None or known.standing.is_over:
            try:
                user = await self._asked(self._people.find(user_id))
            except ShareError as exc:
                if exc.code is ErrorCode.INVALID_ARGUMENT:
                    return None
                raise
            if user.disabled_at is not None:
                return None
            known = self._learn(user)
        if known.user.organization != organization:
            return None
        allowed = known.user.role.scopes
        is_whole = Scope.ADMIN in scopes
        if is_whole:
            scopes = allowed
        elif Scope.ADMIN not in allowed:
            scopes &= allowed
        return _caller(known, standing & known.standing, scopes, is_whole=is_whole)

    def session_id(self, secret: str) -> str | None:
        """Return the id of a session that is known here by its secret."""
        known = self._sessions.get(session_hash(secret))
        return None if known is None else known.session.id

    async def refresh(self) -> None:
        """Learn of every change since the last refresh.

        Raises:
            DatabaseError, TimeoutError: the database failed; what was known stays so.
        """
        began = time.monotonic()
        new_sessions, self._new_sessions = self._new_sessions, set()
        new_users, self._new_users = self._new_users, set()
        try:
            async with asyncio.timeout(_TIMEOUT):
                revision = await self._people.revision()
                if revision != self._revision:
                    self._allowances.know(await self._people.chosen_allowances())
                    await self._compare(set(self._sessions), set(self._users))
                elif new_sessions or new_users:
                    await self._compare(new_sessions, new_users)
        except BaseException:
            self._new_sessions |= new_sessions
            self._new_users |= new_users
            raise
        self._revision = revision
        self._refreshed_at = began
        for name, known in [*self._sessions.items()]:
            if known.standing.is_over:
                del self._sessions[name]

    async def _compare(self, names: Collection[str], user_ids: Collection[str]) -> None:
        """Read again what is known of some sessions and users, and end what is otherwise now."""
        looked = {name: known for name in names if (known := self._sessions.get(name)) is not None}
        of_users = {user_id: user for user_id in user_ids if (user := self._users.get(user_id)) is not None}
        there = await self._people.still_there([each.session.id for each in looked.values()], of_users)
        for user_id, user in of_users.items():
            now = there.users.get(user_id)
            if now is not None and user.is_as(now):
                user.user = now
                continue
            user.standing.end()
            if self._users.get(user_id) is user:
                del self._users[user_id]
        for name, known in looked.items():
            if known.session.id not in there.sessions:
                known.own.end()
                if self._sessions.get(name) is known:
                    del self._sessions[name]

    async def _look_up(self, name: str) -> _KnownSession | None:
        found = await self._asked(self._people.find_session(name))
        if found is None:
            self._sessions.pop(name, None)
            return None
        session, user = found
        known = _KnownSession(session, self._learn(user))
        while len(self._sessions) >= MAX_KNOWN:  # the one that came first; what it opened goes on
            del self._sessions[next(iter(self._sessions))]
        self._sessions[name] = known
        self._new_sessions.add(name)
        return known

    def _learn(self, user: User) -> _KnownUser:
        known = self._users.get(user.id)
        if known is not None and not known.standing.is_over and known.is_as(user):
            return known
        if known is not None:
            known.standing.end()
        known = self._users[user.id] = _KnownUser(user)
        self._new_users.add(user.id)
        return known

    def _require_fresh(self) -> None:
        if time.monotonic() - self._refreshed_at > TRUST_WITHOUT_DATABASE:
            raise _unavailable()

    async def _asked(self, asking: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await asking
        except (DatabaseError, TimeoutError) as exc:
            logger.warning("A user cannot be looked up: %s", _reason(exc))
            raise _unavailable() from exc

    async def _refresh_again_and_again(self) -> None:
        is_well = True
        while True:
            try:
                await self.refresh()
            except (DatabaseError, TimeoutError) as exc:
                if is_well:
                    logger.warning("Users cannot be refreshed: %s", _reason(exc))
                is_well = False
            else:
                is_well = True
            await asyncio.sleep(self._refresh_interval)


def _caller(
    known: _KnownUser, standing: CredentialValidity, scopes: frozenset[Scope], *, is_whole: bool = True
) -> Caller:
    user = known.user
    return Caller(
        subject=user.id,
        scopes=scopes,
        standing=standing,
        source=user_source(user.organization),
        user=msgspec.structs.replace(user.caller_user, is_whole=is_whole),
    )


def _unavailable() -> ShareError:
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage unavailable", retry_after=REFRESH_INTERVAL)


def _reason(exc: Exception) -> str:
    return str(exc) or "the database does not answer"
