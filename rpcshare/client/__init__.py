"""Clients of a share server, for scripts and programs: the bare stub, the typed client, the blocking one."""

from rpcshare.client.blocking import BlockingShareClient, connect_blocking
from rpcshare.client.connecting import ConnectFailedError, connect
from rpcshare.client.events import EventStream
from rpcshare.client.share_client import ShareClient
from rpcshare.client.types import Identity, SessionIndex, SessionPage, ShareCredentials, ShareEvent

__all__ = [
    "BlockingShareClient",
    "ConnectFailedError",
    "EventStream",
    "Identity",
    "SessionIndex",
    "SessionPage",
    "ShareClient",
    "ShareCredentials",
    "ShareEvent",
    "connect",
    "connect_blocking",
]
