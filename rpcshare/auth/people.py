"""Users, their identities and the sessions of their browsers, in the database of records."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from rpcshare.auth.allowances import ChosenAllowance
from rpcshare.auth.caller import Role
from rpcshare.auth.users import (
    SESSION_PREFIX,
    BrowserSession,
    Identity,
    RoleFrom,
    SignIn,
    User,
    unknown_user,
)
from rpcshare.database.engine import Database
from rpcshare.database.records import (
    allowances,
    identities,
    organizations,
    people_changes,
    sessions,
    users,
)
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["People", "session_hash"]

SESSION_LASTS = 30 * 24 * 3600 * 1000  # ms
MAX_SESSIONS = 50
"""Of one user: the oldest end when there are more."""

_ATTEMPTS = 5
_AT_ONCE = 500  # ids of a statement
_LONGEST = 200  # characters of what a browser says of itself
_MAX_LIMIT = 200


class People:
    """The users of a server. Methods raise DatabaseError when the database fails."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        """Keep them in ``database``, whose schema is that of records; ``clock`` tells seconds."""
        self._database = database
        self._clock = clock

    # Signing in

    async def sign_in(self, who: SignIn) -> User:
        """Return the user that ``who`` is: known by the identity, linked by the address, or new.

        An address links to a user of the same organization only, and only where trusted providers have
        verified it both times: whoever can put any address into an account must not get another's.

        Raises:
            ShareError: FORBIDDEN: the user is disabled.
        """
        return await self._database.write(partial(self._sign_in, who))

    def _sign_in(self, who: SignIn, connection: Connection) -> User:
        now = self._now()
        # One at a time for an identity and an address: two that begin at once must not make two users.
        _lock(connection, f"identity {who.issuer} {who.subject}", f"email {who.email}")
        own = (identities.c.issuer == who.issuer, identities.c.subject == who.subject)
        known = connection.execute(select(identities.c.user_id).where(*own)).scalar()
        user = _user(connection, known) if known is not None else _linked(connection, who)
        if user is not None and user.disabled_at is not None:
            raise ShareError(ErrorCode.FORBIDDEN, "Forbidden: this account is disabled")
        user = self._new(connection, who, now) if user is None else self._updated(connection, user, who, now)
        seen = {"provider": who.provider, "email": who.email, "used_at": now}
        if known is None:
            made = {"issuer": who.issuer, "subject": who.subject, "user_id": user.id, "created_at": now}
            connection.execute(insert(identities), {**made, **seen})
        else:
            connection.execute(update(identities).where(*own).values(seen))
        return user

    def _new(self, connection: Connection, who: SignIn, now: int) -> User:
        user_id = f"usr_{secrets.token_hex(8)}"
        user = User(
            id=user_id,
            organization=who.organization or f"personal-{user_id}",
            role=who.role or who.default_role,
            role_from=RoleFrom.DEFAULT if who.role is None else RoleFrom.PROVIDER,
            email=who.email,
            email_is_trusted=who.email_is_trusted,
            name=who.name,
            avatar_url=who.avatar_url,
            created_at=now,
            seen_at=now,
        )
        _require_organization(connection, user.organization, now)
        connection.execute(insert(users), msgspec.structs.asdict(user))
        return user

    def _updated(self, connection: Connection, user: User, who: SignIn, now: int) -> User:
        """Take over what a provider says now of a user that there is."""
        role, role_from = user.role, user.role_from
        if who.role is not None:
            role, role_from = who.role, RoleFrom.PROVIDER
        elif role_from is RoleFrom.PROVIDER:  # it named a role, and does so no longer
            role, role_from = who.default_role, RoleFrom.DEFAULT
        is_personal = user.organization == f"personal-{user.id}"
        newest = msgspec.structs.replace(
            user,
            organization=who.organization or (user.organization if is_personal else f"personal-{user.id}"),
            role=role,
            role_from=role_from,
            email=who.email or user.email,
            email_is_trusted=who.email_is_trusted if who.email else user.email_is_trusted,
            name=who.name or user.name,
            avatar_url=who.avatar_url or user.avatar_url,
            seen_at=now,
        )
        _require_organization(connection, newest.organization, now)
        connection.execute(update(users).where(users.c.id == user.id).values(msgspec.structs.asdict(newest)))
        if (newest.organization, newest.role) != (user.organization, user.role):
            _note_change(connection)
        return newest

    # Sessions

    async def begin_session(self, user: User, provider: str, address: str, agent: str) -> str:
        """Return the secret of a new session of a browser. Only its hash is kept."""
        secret = SESSION_PREFIX + secrets.token_urlsafe(32)
        now = self._now()
        session = BrowserSession(
            id=f"ses_{secrets.token_hex(8)}",
            user_id=user.id,
            provider=provider,
            address=address,
            agent=agent[:_LONGEST],
            created_at=now,
            expires_at=now + SESSION_LASTS,
        )

        def begin(connection: Connection) -> None:
            values = {**msgspec.structs.asdict(session), "token_hash": session_hash(secret)}
            connection.execute(insert(sessions), values)
            own = sessions.c.user_id == user.id
            kept = select(sessions.c.id).where(own).order_by(sessions.c.created_at.desc(), sessions.c.id)
            over = [*connection.execute(kept.offset(MAX_SESSIONS)).scalars()]
            if over:
                connection.execute(delete(sessions).where(sessions.c.id.in_(over)))
                _note_change(connection)
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))

        await self._database.write(begin)
        return secret

    async def find_session(self, token_hash: str) -> tuple[BrowserSession, User] | None:
        """Return the session whose secret has this hash, and whose it is; None if it has ended."""
        query = select(*_session_columns).where(
            sessions.c.token_hash == token_hash, sessions.c.expires_at > self._now()
        )

        def find(connection: Connection) -> tuple[BrowserSession, User] | None:
            row = connection.execute(query).first()
            user = _user(connection, row.user_id) if row is not None else None
            if row is None or user is None or user.disabled_at is not None:
                return None
            return BrowserSession(*row), user

        return await self._database.read(find)

    async def sessions_of(self, user_id: str) -> list[BrowserSession]:
        """Return the sessions of a user, the newest first."""
        query = select(*_session_columns).where(
            sessions.c.user_id == user_id, sessions.c.expires_at > self._now()
        )
        query = query.order_by(sessions.c.created_at.desc())
        return await self._database.read(
            lambda connection: [BrowserSession(*row) for row in connection.execute(query)]
        )

    async def end_sessions(self, user_id: str, session_id: str | None = None) -> None:
        """End a session of a user, or all of them; each node hears of it within seconds."""
        ended = delete(sessions).where(sessions.c.user_id == user_id)
        if session_id is not None:
            ended = ended.where(sessions.c.id == session_id)

        def end(connection: Connection) -> None:
            if connection.execute(ended).rowcount:
                _note_change(connection)

        await self._database.write(end)

    async def end_sessions_of(self, issuer: str, subject: str) -> User | None:
        """End the sessions that an identity has begun, and return whose they were; None: nobody's."""
        of = (identities.c.issuer == issuer, identities.c.subject == subject)
        query = select(identities.c.user_id, identities.c.provider).where(*of)

        def end(connection: Connection) -> User | None:
            row = connection.execute(query).first()
            if row is None:
                return None
            begun = (sessions.c.user_id == row.user_id, sessions.c.provider == row.provider)
            if connection.execute(delete(sessions).where(*begun)).rowcount:
                _note_change(connection)
            return _user(connection, row.user_id)

        return await self._database.write(end)

    async def still_there(self, session_ids: Collection[str], user_ids: Collection[str]) -> Standing:
        """Return which of these sessions have not ended, and the users, as they are now."""

        def look(connection: Connection) -> Standing:
            found: set[str] = set()
            known: dict[str, User] = {}
            for some in _batches(session_ids):
                found.update(
                    connection.execute(select(sessions.c.id).where(sessions.c.id.in_(some))).scalars()
                )
            for some in _batches(user_ids):
                rows = connection.execute(select(users).where(users.c.id.in_(some)))
                known.update((row.id, _of_row(row)) for row in rows)
            return Standing(found, known)

        return await self._database.read(look)

    async def revision(self) -> int:
        """Return a number that grows with every change that ends a right."""
        query = select(people_changes.c.revision).where(people_changes.c.name == "people")
        return await self._database.read(lambda connection: int(connection.execute(query).scalar() or 0))

    # Users

    async def find(self, user_id: str, organization: str | None = None) -> User:
        """Return a user; of ``organization``, unless that is None.

        Raises:
            ShareError: INVALID_ARGUMENT: there is none.
        """
        return await self._database.read(lambda connection: _required(connection, user_id, organization))

    async def find_by_email(self, email: str) -> list[User]:
        """Return the users who have this address."""
        query = select(users).where(users.c.email == email.strip().lower())
        return await self._database.read(lambda connection: list(map(_of_row, connection.execute(query))))

    async def page(
        self, organization: str | None, *, cursor: str | None = None, limit: int = 50, query: str = ""
    ) -> tuple[list[User], str | None]:
        """Return users in the order of ids, and the cursor of the next page; None if this is the last.

        Args:
            organization: whose; None: of all.
            cursor: of the page before.
            limit: how many, 1 to 200.
            query: what a name or an address must contain, in whatever case.

        Raises:
            ShareError: INVALID_ARGUMENT.
        """
        if not 1 <= limit <= _MAX_LIMIT:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"limit: must be from 1 to {_MAX_LIMIT}")
        wanted = select(users).order_by(users.c.id).limit(limit + 1)
        if organization is not None:
            wanted = wanted.where(users.c.organization == organization)
        if cursor is not None:
            wanted = wanted.where(users.c.id > cursor)
        if query:
            name = func.lower(users.c.name).contains(query.lower(), autoescape=True)
            wanted = wanted.where(or_(name, users.c.email.contains(query.lower(), autoescape=True)))
        found = await self._database.read(lambda connection: list(map(_of_row, connection.execute(wanted))))
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def names_of(self, user_ids: Collection[str], organization: str) -> dict[str, str]:
        """Return what those of these users are called who are in an organization now, by their ids."""
        wanted = select(users.c.id, users.c.name, users.c.email).where(users.c.organization == organization)

        def look(connection: Connection) -> dict[str, str]:
            found: dict[str, str] = {}
            for some in _batches(user_ids):
                rows = connection.execute(wanted.where(users.c.id.in_(some)))
                found.update((row.id, row.name or row.email) for row in rows)
            return found

        return await self._database.read(look)

    async def identities_of(self, user_id: str) -> list[Identity]:
        """Return who a user is to the providers."""
        columns = (identities.c[name] for name in Identity.__struct_fields__)
        query = select(*columns).where(identities.c.user_id == user_id).order_by(identities.c.created_at)
        return await self._database.read(
            lambda connection: [Identity(*row) for row in connection.execute(query)]
        )

    async def organizations(
        self, *, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[OrganizationRow], str | None]:
        """Return organizations in the order of names with how many users each has, as :meth:`page` does."""
        if not 1 <= limit <= _MAX_LIMIT:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, f"limit: must be from 1 to {_MAX_LIMIT}")
        number = select(func.count()).select_from(users).where(users.c.organization == organizations.c.id)
        wanted = select(organizations.c.id, organizations.c.created_at, number.scalar_subquery())
        wanted = wanted.order_by(organizations.c.id).limit(limit + 1)
        if cursor is not None:
            wanted = wanted.where(organizations.c.id > cursor)
        found = await self._database.read(
            lambda connection: [OrganizationRow(*row) for row in connection.execute(wanted)]
        )
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def find_organization(self, name: str) -> OrganizationRow:
        """Return an organization.

        Raises:
            ShareError: INVALID_ARGUMENT: there is none.
        """
        number = select(func.count()).select_from(users).where(users.c.organization == name)
        wanted = select(organizations.c.id, organizations.c.created_at, number.scalar_subquery())
        wanted = wanted.where(organizations.c.id == name)
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        if row is None:
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "name: there is no such organization")
        return OrganizationRow(*row)

    async def chosen_allowances(self) -> dict[str, ChosenAllowance]:
        """Return what admins have chosen that users and organizations may have, by their keys."""
        return await self._database.read(
            lambda connection: {
                row.key: ChosenAllowance(row.storage, row.shares, row.requests)
                for row in connection.execute(select(allowances))
            }
        )

    async def choose_allowance(self, key: str, chosen: ChosenAllowance) -> None:
        """Have a user or an organization be allowed this, on every node within seconds."""

        def choose(connection: Connection) -> None:
            connection.execute(delete(allowances).where(allowances.c.key == key))
            if chosen != ChosenAllowance():
                values = {"key": key, **msgspec.structs.asdict(chosen)}
                connection.execute(insert(allowances), values)
            _note_change(connection)

        await self._database.write(choose)

    async def set_role(self, user_id: str, role: Role, organization: str | None = None) -> User:
        """Give a user a role, which stays until another is given; rights that are in use end within seconds.

        Raises:
            ShareError: INVALID_ARGUMENT: there is no such user.
        """
        return await self._change(user_id, organization, role=role, role_from=RoleFrom.ADMIN)

    async def set_disabled(self, user_id: str, *, disabled: bool, organization: str | None = None) -> User:
        """Disable a user, who is signed out everywhere within seconds, or let the user in again.

        Raises:
            ShareError: INVALID_ARGUMENT: there is no such user.
        """
        return await self._change(user_id, organization, disabled_at=self._now() if disabled else None)

    async def _change(self, user_id: str, organization: str | None, **values: Any) -> User:  # noqa: ANN401
        def change(connection: Connection) -> User:
            user = _required(connection, user_id, organization)
            changed = msgspec.structs.replace(user, **values)
            connection.execute(update(users).where(users.c.id == user_id).values(values))
            if changed.disabled_at is not None:
                connection.execute(delete(sessions).where(sessions.c.user_id == user_id))
            _note_change(connection)
            return changed

        return await self._database.write(change)

    def _now(self) -> int:
        return int(self._clock() * 1000)


class OrganizationRow(NamedTuple):
    """An organization, and how many users it has."""

    id: str
    created_at: int
    users: int


class Standing(msgspec.Struct, frozen=True):
    """What there is still."""

    sessions: set[str]
    users: dict[str, User]


_session_columns = [sessions.c[name] for name in BrowserSession.__struct_fields__]


def session_hash(secret: str) -> str:
    """Return what is kept of a session's secret, which has 256 bits that nobody guesses."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _linked(connection: Connection, who: SignIn) -> User | None:
    if not who.email or not who.email_is_trusted or not who.organization:
        return None
    query = select(users).where(
        users.c.email == who.email, users.c.email_is_trusted, users.c.organization == who.organization
    )
    found = list(connection.execute(query.limit(2)))
    return _of_row(found[0]) if len(found) == 1 else None


def _required(connection: Connection, user_id: str, organization: str | None) -> User:
    user = _user(connection, user_id)
    if user is None or (organization is not None and user.organization != organization):
        raise unknown_user()
    return user


def _user(connection: Connection, user_id: str) -> User | None:
    row = connection.execute(select(users).where(users.c.id == user_id)).first()
    return None if row is None else _of_row(row)


def _of_row(row: Row[Any]) -> User:
    user = User(**{name: getattr(row, name) for name in User.__struct_fields__})
    return msgspec.structs.replace(user, role=Role(user.role), role_from=RoleFrom(user.role_from))


def _require_organization(connection: Connection, name: str, now: int) -> None:
    query = select(organizations.c.id).where(organizations.c.id == name)
    if connection.execute(query).first() is None:
        _lock(connection, f"organization {name}")
        if connection.execute(query).first() is None:
            connection.execute(insert(organizations), {"id": name, "created_at": now})


def _lock(connection: Connection, *names: str) -> None:
    """Let nobody else do the same before this transaction ends. SQLite has one writer in all."""
    if connection.dialect.name != "sqlite":
        for name in sorted(names):
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0x72706375))))


def _note_change(connection: Connection) -> None:
    grown = people_changes.c.revision + 1
    connection.execute(update(people_changes).values(revision=grown))


def _batches(ids: Collection[str]) -> list[list[str]]:
    each = list(ids)
    return [each[start : start + _AT_ONCE] for start in range(0, len(each), _AT_ONCE)]
