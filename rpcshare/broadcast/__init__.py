"""Who tells whom that a share's log grew: :class:`Broadcaster` and what implements it."""

from rpcshare.broadcast.broadcaster import Broadcaster, BroadcastError, LogAppended, Unsubscribe
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.broadcast.opening import open_broadcaster

__all__ = [
    "BroadcastError",
    "Broadcaster",
    "LocalBroadcaster",
    "LogAppended",
    "Unsubscribe",
    "open_broadcaster",
]
