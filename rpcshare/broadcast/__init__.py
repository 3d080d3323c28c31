"""Who tells whom that a share's log grew: :class:`Broadcaster` and what implements it."""

from rpcshare.broadcast.broadcaster import CATALOGUE, Broadcaster, BroadcastError, LogAppended, Unsubscribe
from rpcshare.broadcast.factory import open_broadcaster
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.broadcast.node_messages import (
    NODE_NAME,
    EntryWritten,
    NodeMessage,
    SyncsDeclined,
    SyncsForwarded,
    node_of,
)

__all__ = [
    "CATALOGUE",
    "NODE_NAME",
    "BroadcastError",
    "Broadcaster",
    "EntryWritten",
    "LocalBroadcaster",
    "LogAppended",
    "NodeMessage",
    "SyncsDeclined",
    "SyncsForwarded",
    "Unsubscribe",
    "node_of",
    "open_broadcaster",
]
