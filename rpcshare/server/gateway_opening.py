"""The model gateway of a server that runs agents, from its settings. Imported on such servers alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rpcshare.auth.audit import AuditLog
from rpcshare.config import ConfigError, Settings
from rpcshare.gateway.gateway import ModelGateway
from rpcshare.gateway.models import ModelCatalogue
from rpcshare.server.vault_opening import OpenVault

__all__ = ["opened_gateway"]


@contextlib.asynccontextmanager
async def opened_gateway(
    settings: Settings, open_vault: OpenVault | None, audit: AuditLog
) -> AsyncIterator[ModelGateway]:
    """Yield the gateway to the models of the settings; it has no socket yet, and has connected to nobody.

    Raises:
        ConfigError: a key of the server's own is not there.
    """
    gateway = ModelGateway(ModelCatalogue(settings.models), open_vault, audit)
    if faults := gateway.faults():
        raise ConfigError(faults[0])
    try:
        yield gateway
    finally:
        await gateway.close()
