"""Workspaces on a server that runs agents, from its settings. Imported on such servers alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib import import_module
from typing import TYPE_CHECKING

from rpcshare.auth.audit import AuditLog
from rpcshare.config import ConfigError, Settings
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.driver import SandboxError
from rpcshare.server.records_opening import Records
from rpcshare.server.sandbox_drivers import sandbox_driver
from rpcshare.server.vault_opening import OpenVault
from rpcshare.structured_log import structlog
from rpcshare.workspaces.resources import Bounds

if TYPE_CHECKING:
    from rpcshare.workspaces.caller_workspaces import WorkspaceServices
    from rpcshare.workspaces.workspaces import Workspaces

__all__ = ["opened_workspaces"]

logger = structlog.get_logger("rpcshare.server")


@contextlib.asynccontextmanager
async def opened_workspaces(
    settings: Settings, open_vault: OpenVault | None, audit: AuditLog, records: Records
) -> AsyncIterator[WorkspaceServices]:
    """Yield the workspaces of a server whose ``agents`` is not ``off``. Their database is opened when needed.

    Raises:
        ConfigError: the driver does not work here.
    """
    await asyncio.to_thread(
        import_module, "rpcshare.workspaces.caller_workspaces"
    )  # SQLAlchemy: half a second
    from rpcshare.workspaces.caller_workspaces import WorkspaceServices  # noqa: PLC0415 -- likewise
    from rpcshare.workspaces.file_search import Searching  # noqa: PLC0415
    from rpcshare.workspaces.git_clone import GitClone  # noqa: PLC0415
    from rpcshare.workspaces.sandboxing import EgressSettings, SandboxedPrograms  # noqa: PLC0415

    driver = await asyncio.to_thread(sandbox_driver, settings)
    try:
        await driver.check()
    except SandboxError as exc:
        raise ConfigError(f"--agents: {exc.message}") from exc
    searching = await asyncio.to_thread(Searching.find)
    if searching is None:
        logger.warning(
            "nothing can be searched for in workspaces: ripgrep (rg) is not on PATH, or does not run"
        )
    egress = EgressSettings(settings.egress_allow, settings.egress_private, settings.egress_by_owner)
    async with contextlib.AsyncExitStack() as stack:
        opening = _Opening(settings, records)
        programs = SandboxedPrograms(opening.open, driver, egress, audit)
        stack.push_async_callback(programs.close)
        private = egress.policy()
        yield WorkspaceServices(
            opening.open,
            open_vault,
            programs,
            GitClone(
                driver,
                user=settings.agents_user,
                known_hosts=settings.git_known_hosts,
                ca_file=settings.git_ca_file,
                allows_private=private.allows_private,
            ),
            # As plain numbers, which rows are made of.
            bounds=Bounds(
                int(settings.max_workspace_memory),
                settings.max_workspace_cpu,
                int(settings.max_workspace_disk),
            ),
            snapshots=settings.data_dir / "workspace-snapshots",
            searching=searching,
            file_root=settings.git_file_root,
        )


class _Opening:
    """Opens them at the first call; the next call tries again where that has failed."""

    def __init__(self, settings: Settings, records: Records) -> None:
        self._settings = settings
        self._records = records
        self._lock = asyncio.Lock()
        self._opened: Workspaces | None = None

    async def open(self) -> Workspaces:
        async with self._lock:
            if self._opened is None:
                self._opened = await self._open()
        return self._opened

    async def _open(self) -> Workspaces:
        from rpcshare.workspaces.workspaces import Workspaces  # noqa: PLC0415 -- which imports SQLAlchemy

        settings = self._settings
        try:
            database = await self._records.opened()
            workspaces = Workspaces(
                database,
                settings.workspaces_path.resolve(),
                user=settings.agents_user,
                max_of_owner=settings.max_workspaces,
            )
            removed = await workspaces.discard_abandoned()
        except (ConfigError, DatabaseError, ShareError) as exc:
            logger.warning("the workspaces cannot be opened", reason=str(exc))
            message = "the workspaces cannot be opened"
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message) from exc
        if removed:
            logger.info("workspaces were removed that a server had left half made", workspaces=removed)
        return workspaces
