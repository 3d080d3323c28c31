"""Who tells whom that a share's log grew: :class:`Broadcaster` and what implements it."""

from rpcshare.broadcast.broadcaster import CATALOGUE, Broadcaster, BroadcastError, LogAppended, Unsubscribe
from rpcshare.broadcast.factory import open_broadcaster
from rpcshare.broadcast.local import LocalBroadcaster

__all__ = [
    "CATALOGUE",
    "BroadcastError",
    "Broadcaster",
    "LocalBroadcaster",
    "LogAppended",
    "Unsubscribe",
    "open_broadcaster",
]
