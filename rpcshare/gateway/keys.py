"""The keys of providers: where they are, and whether they still hold."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.models import ModelTable
from rpcshare.gateway.wires import GatewayError
from rpcshare.vault.entry import VaultOwner, organization_of, owner_of
from rpcshare.vault.envelope import VaultIntegrityError

if TYPE_CHECKING:
    from rpcshare.auth.caller import Caller
    from rpcshare.vault.entry import VaultEntry
    from rpcshare.vault.vault import Vault  # which imports SQLAlchemy

__all__ = ["KeyFor", "ModelKey", "ModelKeys", "fault_of_key"]

logger = logging.getLogger("rpcshare.gateway")

_KEY = re.compile(r"[!-~]{1,4096}")  # what a header can carry
_LONGEST_FILE = 16 * 1024
_AUDIT_EVERY = 60.0  # seconds, of one entry and one session
_MAX_NOTED = 10_000


class ModelKey(NamedTuple):
    """A key for one request."""

    value: str
    entry_id: str | None = None
    """Of the vault; None: it is the server's own."""
    owner: VaultOwner | None = None

    def __repr__(self) -> str:
        """Leave out the value."""
        return f"ModelKey({self.entry_id!r})"


class KeyFor(NamedTuple):
    """What a key is used for: the workspace, which a grant may name, and the session."""

    workspace_id: str = ""
    workspace_name: str = ""
    session_id: str = ""

    @property
    def own_purposes(self) -> tuple[str, ...]:
        """What grants of the caller's own entries may say."""
        return f"workspace:{self.workspace_id}", f"workspace:{self.workspace_name}"


class ModelKeys:
    """Finds the key for a table: in the environment, in a file, or in the vault of whoever runs the agent."""

    def __init__(self, open_vault: Callable[[], Awaitable[Vault]] | None, audit: AuditLog) -> None:
        """Look into the vault that ``open_vault`` opens (None: there is none), and tell ``audit`` of it."""
        self._open_vault = open_vault
        self._audit = audit
        self._told: dict[tuple[str, str, str], float] = {}

    async def find(self, table: ModelTable, caller: Caller, key_for: KeyFor) -> ModelKey:
        """Return the key for a table.

        Raises:
            GatewayError: there is none, or it cannot be had now.
        """
        if caller.has_lost_standing:
            raise GatewayError(401, "the credential that began this agent is no longer valid", "key")
        if table.is_key_in_vault:
            return await self._in_vault(table, caller, key_for)
        if fault := fault_of_key(table):
            logger.warning("%s", fault)
            raise GatewayError(
                503, f"the server's key for {table.name} cannot be read", "key", retry_after=5.0
            )
        return ModelKey(_own_key(table) or "")

    async def holds(self, key: ModelKey) -> bool:
        """Whether a key has neither been revoked nor expired.

        Raises:
            ShareError, DatabaseError: the vault cannot be asked now.
        """
        if key.entry_id is None or key.owner is None or self._open_vault is None:
            return True
        vault = await self._open_vault()
        try:
            entry = await vault.find([key.owner], key.entry_id)
        except VaultIntegrityError:
            return False
        except ShareError as exc:
            if exc.code is ErrorCode.INVALID_ARGUMENT:
                return False
            raise
        return not entry.is_over(_now())

    async def _in_vault(self, table: ModelTable, caller: Caller, key_for: KeyFor) -> ModelKey:
        if self._open_vault is None:
            raise GatewayError(401, f"there is no key for {table.name}", "key")
        try:
            found = await self._newest(await self._open_vault(), table, caller, key_for)
        except VaultIntegrityError as exc:
            logger.warning("%s", exc)
            raise GatewayError(503, "an entry of the vault has been changed", "key") from exc
        except DatabaseError as exc:
            logger.warning("the vault cannot be reached: %s", exc)
            raise GatewayError(503, "the vault cannot be reached", "key", retry_after=5.0) from exc
        if found is None:
            message = f"there is no key for {table.name}: keep one in the vault, for the service {table.name}"
            raise GatewayError(401, message, "key")
        entry, owner, value = found
        if not _KEY.fullmatch(value.strip()):
            message = f"the vault's key for {table.name} is none: it has spaces, or is no ASCII"
            raise GatewayError(401, message, "key")
        self._tell(caller, entry, key_for)
        return ModelKey(value.strip(), entry.id, owner)

    async def _newest(
        self, vault: Vault, table: ModelTable, caller: Caller, key_for: KeyFor
    ) -> tuple[VaultEntry, VaultOwner, str] | None:
        """Return the newest entry that may be used, the caller's own before the organization's."""
        own, organization = owner_of(caller), organization_of(caller)
        now = _now()
        for owner in (own, organization):
            if owner is None:
                continue
            # Its members' workspaces may be called alike: a grant of an organization's entry names the id.
            purposes = key_for.own_purposes if owner == own else key_for.own_purposes[:1]
            for entry in reversed(await vault.list([owner])):
                is_it = entry.service == table.name and not entry.is_over(now)
                if is_it and any(map(entry.is_granted, purposes)):
                    try:
                        return entry, owner, (await vault.retrieve([owner], entry.id))[1]
                    except ShareError as exc:
                        if exc.code is not ErrorCode.INVALID_ARGUMENT:  # else it was revoked meanwhile
                            raise
        return None

    def _tell(self, caller: Caller, entry: VaultEntry, key_for: KeyFor) -> None:
        """Tell the audit log, of an entry and a session once a minute: agents ask all the time."""
        use = (f"{entry.id} {entry.version}", key_for.workspace_id, key_for.session_id)
        now = time.monotonic()
        told = self._told.pop(use, None)
        if told is None or now - told >= _AUDIT_EVERY:
            details = {"entry": entry.id, "service": entry.service, "workspace": key_for.workspace_id}
            self._audit.done(Action.VAULT_USE, caller, **details, session=key_for.session_id)
            told = now
        self._told[use] = told
        while len(self._told) > _MAX_NOTED:
            del self._told[next(iter(self._told))]


def fault_of_key(table: ModelTable) -> str | None:
    """Return what is wrong with a key of the server's own, so that it cannot start; None: nothing."""
    try:
        value = _own_key(table)
    except OSError as exc:
        return f"[models.{table.name}]: key_file: cannot read {table.key_file}: {exc.strerror}"
    except UnicodeDecodeError:
        return f"[models.{table.name}]: key_file: {table.key_file} is not UTF-8"
    if value is None:
        return None
    field = "key_file" if table.key_env is None else "key_env"
    place = table.key_file if table.key_env is None else table.key_env
    if not value:
        return f"[models.{table.name}]: {field}: {place} is {'empty' if table.key_file else 'not set'}"
    if not _KEY.fullmatch(value):
        return f"[models.{table.name}]: {field}: {place} holds no key: it has spaces, or is no ASCII"
    return None


def _own_key(table: ModelTable) -> str | None:
    """Return the server's own key as it is now, or None. Raises OSError, UnicodeError."""
    if table.key_env is not None:
        return os.environ.get(table.key_env, "").strip()
    if table.key_file is None:
        return None
    with Path(table.key_file).expanduser().open(encoding="utf-8") as file:
        return file.read(_LONGEST_FILE).strip()


def _now() -> int:
    return int(time.time() * 1000)
