"""The entries of the vault, in the database of records."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import asdict, replace
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from rpcshare.database import DatabaseError
from rpcshare.database.engine import Database
from rpcshare.database.records import vault_entries as entries
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage.encryption_keys import KeyRing
from rpcshare.vault.entry import (
    VaultEntry,
    VaultOwner,
    checked_value,
    parse_new_entry,
    unknown_entry,
)
from rpcshare.vault.envelope import Place, Sealed, VaultIntegrityError, open_sealed, rewrapped, seal

__all__ = ["MAX_ENTRIES", "Vault", "is_vault_empty"]

logger = logging.getLogger("rpcshare.vault")

MAX_ENTRIES = 1000
"""Of one owner."""

_REWRAPPED_AT_ONCE = 100

Faults: TypeAlias = list[str]
_KNOWN = [entries.c[name] for name in VaultEntry.__struct_fields__]


class Vault:
    """All entries, whosever they are: :class:`~rpcshare.vault.CallerVault` knows who may do what.

    Nothing is held in memory: an entry that is revoked is used nowhere from the next use on. Methods raise
    DatabaseError when the database fails.
    """

    def __init__(self, database: Database, keys: KeyRing, *, clock: Callable[[], float] = time.time) -> None:
        """Keep entries in ``database``, whose schema is that of records; ``clock`` tells seconds."""
        self._database = database
        self._keys = keys
        self._clock = clock

    async def store(self, owner: VaultOwner, given: object) -> VaultEntry:
        """Keep a value.

        Args:
            owner: whose it is.
            given: ``{service, name, value, scopes?, grants?, expiresAt?}``.

        Raises:
            ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
        """
        now = self._now()
        new, expires_at = parse_new_entry(given, now)
        entry = VaultEntry(
            id=f"vlt_{secrets.token_hex(12)}",
            owner=owner.text,
            service=new.service,
            name=new.name,
            scopes=new.scopes or [],
            grants=new.grants,
            version=1,
            created_at=now,
            rotated_at=None,
            expires_at=expires_at,
            used_at=None,
        )
        sealed = seal(self._keys, _place(entry), new.value)

        def write(connection: Connection) -> None:
            _lock(connection, entry.owner)
            own = entries.c.owner == entry.owner
            same = (own, entries.c.service == entry.service, entries.c.name == entry.name)
            if connection.execute(select(entries.c.id).where(*same)).first() is not None:
                message = f"name: {entry.service} has a key of this name: rotate or revoke that one"
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
            if (connection.execute(select(func.count()).where(own)).scalar() or 0) >= MAX_ENTRIES:
                message = f"the vault holds at most {MAX_ENTRIES:,} entries of one owner"
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
            connection.execute(insert(entries), {**_columns(entry), **sealed._asdict()})

        await self._database.write(write)
        return entry

    async def list(self, owners: Sequence[VaultOwner]) -> list[VaultEntry]:
        """Return the entries of some owners, the oldest first."""
        query = select(*_KNOWN).where(entries.c.owner.in_([owner.text for owner in owners]))
        query = query.order_by(entries.c.created_at, entries.c.id)
        rows = await self._database.read(lambda connection: list(connection.execute(query)))
        found = []
        for row in rows:
            try:
                found.append(_entry(row))
            except VaultIntegrityError as exc:  # the others are as good as before
                logger.warning("an entry of the vault is not listed: %s", exc)
        return found

    async def find(self, owners: Sequence[VaultOwner], entry_id: str) -> VaultEntry:
        """Return an entry of one of these owners.

        Raises:
            ShareError: INVALID_ARGUMENT: they have none of this id.
        """
        entry, _ = await self._row(owners, entry_id)
        return entry

    async def retrieve(self, owners: Sequence[VaultOwner], entry_id: str) -> tuple[VaultEntry, str]:
        """Return an entry of one of these owners, and its value.

        Raises:
            ShareError: INVALID_ARGUMENT: they have none of this id, or it has expired.
            VaultIntegrityError: the row was changed.
        """
        entry, sealed = await self._row(owners, entry_id)
        if entry.is_over(self._now()):
            raise ShareError(ErrorCode.INVALID_ARGUMENT, "id: this entry of the vault has expired")
        value = open_sealed(self._keys, _place(entry), sealed)
        await self._note_use(entry)
        return entry, value

    async def use(
        self, owners: Sequence[VaultOwner], service: str, purpose: str
    ) -> tuple[VaultEntry, str] | None:
        """Return the newest entry for a service that may be used for a purpose, and its value.

        Args:
            owners: whose entries are looked at, the first before the others.
            service: what the key is for.
            purpose: ``workspace:ID`` or ``integration:ID``, as grants have it.

        Returns:
            None if there is none that is granted and has not expired.

        Raises:
            VaultIntegrityError: the row was changed.
        """
        now = self._now()
        for owner in owners:
            for entry in reversed(await self.list([owner])):
                if entry.service == service and not entry.is_over(now) and entry.is_granted(purpose):
                    return await self.retrieve([owner], entry.id)
        return None

    async def rotate(self, owners: Sequence[VaultOwner], entry_id: str, value: object) -> VaultEntry:
        """Put another value in the place of one, which is gone.

        Raises:
            ShareError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE.
        """
        text = checked_value(value)

        def write(connection: Connection) -> VaultEntry:
            _lock(connection, entry_id)
            entry, _ = _required(connection, owners, entry_id)
            changed = replace(entry, version=entry.version + 1, rotated_at=self._now())
            sealed = seal(self._keys, _place(changed), text)
            values = {**_columns(changed), **sealed._asdict()}
            connection.execute(update(entries).where(entries.c.id == entry_id).values(values))
            return changed

        return await self._database.write(write)

    async def revoke(self, owners: Sequence[VaultOwner], entry_id: str) -> VaultEntry:
        """Remove an entry with its data key.

        Raises:
            ShareError: INVALID_ARGUMENT: they have none of this id.
        """

        def write(connection: Connection) -> VaultEntry:
            _lock(connection, entry_id)
            entry, _ = _required(connection, owners, entry_id)
            connection.execute(delete(entries).where(entries.c.id == entry_id))
            return entry

        return await self._database.write(write)

    async def rewrap(self) -> tuple[int, Sequence[str]]:
        """Wrap each data key by the first key of the ring, so that the others can be taken out of it.

        Values are not touched, and none is decrypted. Entries may be used, changed and made meanwhile.

        Returns:
            How many were wrapped anew, and what is wrong with those that could not be.
        """
        faults: Faults = []
        done, after = 0, ""
        while True:
            query = select(*_KNOWN, *_SEALED).where(
                entries.c.key_id != self._keys.first.id, entries.c.id > after
            )
            query = query.order_by(entries.c.id).limit(_REWRAPPED_AT_ONCE)
            rows = await self._database.read(
                lambda connection, query=query: list(connection.execute(query))  # type: ignore[misc]
            )
            if not rows:
                return done, faults
            for row in rows:
                after = str(row.id)
                try:
                    done += await self._rewrap(_entry(row), _sealed(row))
                except VaultIntegrityError as exc:
                    faults.append(str(exc))

    async def check(self) -> Sequence[str]:
        """Return what is wrong with entries: each is decrypted, and its value is looked at by nobody."""
        query = select(*_KNOWN, *_SEALED)
        rows = await self._database.read(lambda connection: list(connection.execute(query)))
        faults: Faults = []
        for row in rows:
            try:
                open_sealed(self._keys, _place(_entry(row)), _sealed(row))
            except VaultIntegrityError as exc:
                faults.append(str(exc))
        return faults

    async def _rewrap(self, entry: VaultEntry, sealed: Sealed) -> bool:
        newly = rewrapped(self._keys, _place(entry), sealed)
        # Unless it was rotated, revoked or wrapped meanwhile.
        is_same = (entries.c.id == entry.id, entries.c.wrapped_key == sealed.wrapped_key)
        values = {"key_id": newly.key_id, "wrapped_key": newly.wrapped_key}
        statement = update(entries).where(*is_same).values(values)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount == 1)

    async def _row(self, owners: Sequence[VaultOwner], entry_id: str) -> tuple[VaultEntry, Sealed]:
        return await self._database.read(lambda connection: _required(connection, owners, entry_id))

    async def _note_use(self, entry: VaultEntry) -> None:
        used = update(entries).where(entries.c.id == entry.id).values(used_at=self._now())
        try:
            await self._database.write(lambda connection: connection.execute(used))
        except DatabaseError as exc:  # the audit log tells of it all the same
            logger.warning("when an entry of the vault was used could not be written down: %s", exc)

    def _now(self) -> int:
        return int(self._clock() * 1000)


async def is_vault_empty(database: Database) -> bool:
    """Whether nothing is kept, of anybody."""
    query = select(entries.c.id).limit(1)
    return await database.read(lambda connection: connection.execute(query).first() is None)


_SEALED = [entries.c[name] for name in Sealed._fields]


def _required(
    connection: Connection, owners: Sequence[VaultOwner], entry_id: str
) -> tuple[VaultEntry, Sealed]:
    own = entries.c.owner.in_([owner.text for owner in owners])
    row = connection.execute(select(*_KNOWN, *_SEALED).where(entries.c.id == entry_id, own)).first()
    if row is None:
        raise unknown_entry()
    return _entry(row), _sealed(row)


def _columns(entry: VaultEntry) -> dict[str, Any]:
    grants = None if entry.grants is None else json.dumps(entry.grants)
    return {**asdict(entry), "scopes": json.dumps(entry.scopes), "grants": grants}


def _entry(row: Row[Any]) -> VaultEntry:
    """Return what a row tells.

    Raises:
        VaultIntegrityError: it was changed by something else than this.
    """
    try:
        values = {name: getattr(row, name) for name in VaultEntry.__struct_fields__}
        grants = None if row.grants is None else json.loads(row.grants)
        return msgspec.convert({**values, "scopes": json.loads(row.scopes), "grants": grants}, VaultEntry)
    except (ValueError, TypeError):
        raise VaultIntegrityError(f"the vault's entry {row.id} has been changed") from None


def _sealed(row: Row[Any]) -> Sealed:
    try:
        return Sealed(row.key_id, bytes(memoryview(row.wrapped_key)), bytes(memoryview(row.value)))
    except TypeError:
        raise VaultIntegrityError(f"the vault's entry {row.id} has been changed") from None


def _place(entry: VaultEntry) -> Place:
    grants = None if entry.grants is None else tuple(entry.grants)
    return Place(entry.id, entry.owner, entry.service, entry.name, entry.version, entry.expires_at, grants)


def _lock(connection: Connection, name: str) -> None:
    """Let nobody else do the same before this transaction ends. SQLite has one writer in all."""
    if connection.dialect.name != "sqlite":
        key = func.hashtextextended(f"vault {name}", 0x72706376)
        connection.execute(select(func.pg_advisory_xact_lock(key)))
