"""Clients of a share server, for scripts and programs: the bare stub, the typed client, the blocking one."""

from rpcshare.client.agents import (
    Agent,
    AgentEvent,
    AgentEvents,
    AgentInfo,
    AgentPage,
    AgentRequest,
    Agents,
    ApprovalLink,
    QueuedMessage,
)
from rpcshare.client.batching import Batch, batch
from rpcshare.client.blocking import BlockingShareClient, connect_blocking
from rpcshare.client.connect_failures import ConnectFailedError
from rpcshare.client.connecting import connect
from rpcshare.client.events import EventStream
from rpcshare.client.reconnecting import ConnectionState, Reconnecting, StateChange
from rpcshare.client.share_client import ShareClient
from rpcshare.client.types import (
    AccessSettings,
    Identity,
    SearchHit,
    SearchPage,
    SessionIndex,
    SessionPage,
    ShareCredentials,
    ShareEvent,
    ViewToken,
)

__all__ = [
    "AccessSettings",
    "Agent",
    "AgentEvent",
    "AgentEvents",
    "AgentInfo",
    "AgentPage",
    "AgentRequest",
    "Agents",
    "ApprovalLink",
    "Batch",
    "BlockingShareClient",
    "ConnectFailedError",
    "ConnectionState",
    "EventStream",
    "Identity",
    "QueuedMessage",
    "Reconnecting",
    "SearchHit",
    "SearchPage",
    "SessionIndex",
    "SessionPage",
    "ShareClient",
    "ShareCredentials",
    "ShareEvent",
    "StateChange",
    "ViewToken",
    "batch",
    "connect",
    "connect_blocking",
]
