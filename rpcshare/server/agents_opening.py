"""Agents on a server that runs them, from its settings. Imported on such servers alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rpcshare.agents.agent_services import AgentServices
from rpcshare.agents.agents import Agents
from rpcshare.agents.counts import AgentCounts
from rpcshare.agents.node import AgentNode
from rpcshare.agents.opencode.binary import OpencodeBinary, OpencodeUnavailableError
from rpcshare.agents.process_slots import ProcessSlots
from rpcshare.agents.running import RunnerSettings, Running
from rpcshare.agents.webhook_delivery import WebhookDelivery
from rpcshare.config import ConfigError, Settings
from rpcshare.database import DatabaseError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.gateway import GatewaySocket, ModelGateway
from rpcshare.gateway.metering import ModelSessions
from rpcshare.process_directories import process_directory
from rpcshare.sandbox.egress_proxy import EgressPolicy
from rpcshare.server.agent_metrics import AgentMetrics
from rpcshare.server.records_opening import Records
from rpcshare.shares.service import ShareService
from rpcshare.structured_log import structlog
from rpcshare.workspaces.caller_workspaces import WorkspaceServices
from rpcshare.workspaces.workspace import Workspace

__all__ = ["opened_agents"]

logger = structlog.get_logger("rpcshare.server")

_MODELS_PORT = 4097
"""On 127.0.0.1, inside: it leads to the model gateway."""


@contextlib.asynccontextmanager
async def opened_agents(
    settings: Settings,
    records: Records,
    shares: ShareService,
    workspaces: WorkspaceServices,
    gateway: ModelGateway,
    *,
    public_url: str,
) -> AsyncIterator[AgentServices]:
    """Yield the agents of a server whose ``agents`` is not ``off``; the database opens in the background."""
    opening = _Opening(settings, records, shares, workspaces, gateway)
    node = AgentNode(f"node-{secrets.token_hex(8)}", opening.agents, opening.running)
    node.start()
    found = asyncio.create_task(opening.warn())
    policy = EgressPolicy(["*"], settings.egress_private)
    delivery = WebhookDelivery(opening.agents, policy)
    try:
        services = AgentServices(
            opening.agents,
            node,
            shares,
            lambda wanted: gateway.catalogue.find(wanted).name,
            public_url=public_url,
            check_start=node.check,
        )
        services.model_names = gateway.catalogue.names
        services.webhook_policy = policy
        services.wake_webhooks = delivery.wake
        delivery.start()
        services.collectors = (AgentMetrics(opening.counts),)
        yield services
    finally:
        await delivery.close()
        found.cancel()
        await asyncio.gather(found, return_exceptions=True)
        await node.close()


class _Opening:
    """Opens what agents need at the first call; the next call tries again where that has failed."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        shares: ShareService,
        workspaces: WorkspaceServices,
        gateway: ModelGateway,
    ) -> None:
        self._settings = settings
        self._records = records
        self._shares = shares
        self._workspaces = workspaces
        self._gateway = gateway
        self._lock = asyncio.Lock()
        self._agents: Agents | None = None
        self._binary: OpencodeBinary | None = None
        self.counts = AgentCounts()
        self._slots = ProcessSlots(settings.max_running_agents)

    async def agents(self) -> Agents:
        async with self._lock:
            if self._agents is None:
                settings = self._settings
                try:
                    database = await self._records.opened()
                except (ConfigError, DatabaseError, ShareError) as exc:
                    logger.warning("the agents cannot be opened", reason=str(exc))
                    message = "the agents cannot be opened"
                    raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message) from exc
                is_shared = not database.is_sqlite or settings.workers > 1
                self._agents = Agents(database, max_of_owner=settings.max_agents, is_shared=is_shared)
        return self._agents

    async def warn(self) -> None:
        """Say at the start what will keep agents from being started."""
        try:
            await self._found_binary()
        except ShareError as exc:
            logger.warning("no agent can be started", reason=exc.message)
        if not self._gateway.catalogue.names():
            logger.warning("agents have no model: the settings have no table [models.NAME]")

    async def running(self, agents: Agents) -> Running:
        """Return what runners need. Raises ShareError: CONTAINER_START_FAILED."""
        return Running(
            agents=agents,
            workspaces=self._workspaces.opened,
            programs=self._workspaces.programs,
            shares=self._shares,
            binary=await self._found_binary(),
            open_models=self._open_models,
            settings=RunnerSettings(idle_timeout=self._settings.agents_idle_timeout),
            slots=self._slots,
            counts=self.counts,
        )

    async def _found_binary(self) -> OpencodeBinary:
        if self._binary is None:
            try:
                settings = self._settings
                if settings.opencode_bin is None and settings.agents in ("docker", "kubernetes"):
                    driver = self._workspaces.programs.driver
                    self._binary = await OpencodeBinary.find_inside(driver)
                else:
                    self._binary = await OpencodeBinary.find(settings.opencode_bin)
            except OpencodeUnavailableError as exc:
                raise ShareError(ErrorCode.CONTAINER_START_FAILED, str(exc)) from exc
        return self._binary

    async def _open_models(self, workspace: Workspace, model: str, sessions: ModelSessions) -> _Models:
        folder = process_directory("models")
        path = Path(folder.name) / "gateway"
        try:
            socket = await self._gateway.open(
                path, sessions, workspace_id=workspace.id, workspace_name=workspace.name
            )
        except BaseException:
            folder.cleanup()
            raise
        catalogue = self._gateway.catalogue
        config = {
            "provider": catalogue.opencode_providers(_MODELS_PORT),
            "enabled_providers": [table.name for table in catalogue.tables],
            "model": model,
            "small_model": model,
            "share": "disabled",
            "autoupdate": False,
        }
        return _Models(folder, socket, config, {_MODELS_PORT: path})


class _Models:
    """The model gateway's socket of one process."""

    def __init__(
        self,
        folder: tempfile.TemporaryDirectory[str],
        socket: GatewaySocket,
        config: dict[str, Any],
        sockets: dict[int, Path],
    ) -> None:
        self._folder = folder
        self._socket = socket
        self.config = config
        self.sockets = sockets

    async def close(self) -> None:
        await self._socket.close()
        await asyncio.to_thread(self._folder.cleanup)
