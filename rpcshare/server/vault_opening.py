"""Opening the vault when somebody first needs it: most servers have no use for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING

from rpcshare.auth.secret_files import VAULT_KEY_FILE, SecretFileError, vault_key
from rpcshare.config import ConfigError, Settings
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.records_opening import Records
from rpcshare.storage.encryption_keys import KeyFileError, KeyRing
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.database.engine import Database
    from rpcshare.vault.vault import Vault

__all__ = ["OpenVault", "VaultKeyLostError", "opened_key_ring", "vault_key_ring", "vault_on_demand"]


class VaultKeyLostError(Exception):
    """The vault holds entries, and the key that wraps theirs is not there. The message says where it was."""


OpenVault = Callable[[], Awaitable["Vault"]]

logger = structlog.get_logger("rpcshare.server")


def vault_key_ring(settings: Settings, *, is_empty: bool) -> KeyRing:
    """Return the keys that wrap the vault's: the settings', or one that the data directory has.

    One that was made before there was a key file still opens what it has wrapped. It is made only while the
    vault ``is_empty``: what another has wrapped, a new one does not open.

    Raises:
        VaultKeyLostError: there are entries, and no key.
        ShareError: FORBIDDEN: several servers have one database, and no key file.
        KeyFileError, SecretFileError: the keys cannot be read, or not be made.
    """
    own = settings.data_dir / VAULT_KEY_FILE
    if settings.encryption_key_file is not None:
        ring = KeyRing.read(settings.encryption_key_file)
        if not own.exists():
            return ring
        return KeyRing([*ring.keys, *(key for key in KeyRing.read(own).keys if ring.find(key.id) is None)])
    if not settings.records_url.startswith("sqlite:"):
        message = "Forbidden: the vault of servers with one database needs --encryption-key-file"
        raise ShareError(ErrorCode.FORBIDDEN, message)
    if not own.exists():
        if not is_empty:
            raise VaultKeyLostError(
                f"the vault holds entries, and its key is gone: put {own} back, or name the file of its keys "
                "by --encryption-key-file"
            )
        logger.warning(
            "the vault's key is kept beside it, in the data directory; with --encryption-key-file it is "
            "elsewhere, and no backup of the data directory has it",
            path=str(own),
        )
    return KeyRing.read(vault_key(settings.data_dir))


@contextlib.asynccontextmanager
async def vault_on_demand(settings: Settings, records: Records) -> AsyncIterator[OpenVault]:
    """Yield what opens the vault, which is in ``records``, at the first call, and returns it.

    It raises ShareError where it cannot be opened; the next call tries again.
    """
    opening = asyncio.Lock()
    async with contextlib.AsyncExitStack() as stack:
        opened: list[Vault] = []

        async def open_vault() -> Vault:
            async with opening:
                if not opened:
                    opened.append(await _open(settings, stack, records))
            return opened[0]

        yield open_vault


async def opened_key_ring(settings: Settings, database: Database) -> KeyRing:
    """Return the keys of the vault in a database of records. Raises as :func:`vault_key_ring` does."""
    from rpcshare.vault.vault import is_vault_empty  # noqa: PLC0415 -- which imports SQLAlchemy

    is_empty = await is_vault_empty(database)
    return await asyncio.to_thread(vault_key_ring, settings, is_empty=is_empty)


async def _open(settings: Settings, stack: contextlib.AsyncExitStack, records: Records) -> Vault:
    try:
        await asyncio.to_thread(import_module, "rpcshare.vault.vault")  # SQLAlchemy takes half a second
        database = await records.opened()
        keys = await opened_key_ring(settings, database)
    except (KeyFileError, SecretFileError, ConfigError, DatabaseError, VaultKeyLostError) as exc:
        raise _not_opened(exc) from exc
    except ShareError as exc:
        if exc.code is not ErrorCode.STORAGE_UNAVAILABLE:
            raise
        raise _not_opened(exc) from exc  # whose message has the path of the file, for operators alone
    from rpcshare.vault.vault import Vault  # noqa: PLC0415 -- which a server without a vault does not need

    vault = Vault(database, keys)
    wrapping = asyncio.create_task(_rewrap(vault))

    async def end() -> None:
        wrapping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await wrapping

    stack.push_async_callback(end)
    return vault


def _not_opened(cause: Exception) -> ShareError:
    logger.warning("the vault cannot be opened", reason=str(cause))
    return ShareError(ErrorCode.STORAGE_UNAVAILABLE, "the vault cannot be opened", retry_after=5.0)


async def _rewrap(vault: Vault) -> None:
    """Wrap by the first key what others of the ring have wrapped, so that these can be taken out of it."""
    try:
        done, faults = await vault.rewrap()
    except DatabaseError as exc:
        logger.warning("the vault's keys could not be wrapped by the first key of the ring", reason=str(exc))
        return
    if done:
        logger.info("the vault's keys were wrapped by the first key of the ring", entries=done)
    for fault in faults:
        logger.warning("an entry of the vault cannot be opened", reason=fault)
