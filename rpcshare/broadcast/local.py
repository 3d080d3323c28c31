"""Messages within one process, for a server that is the only one on its store."""

import logging
from collections.abc import Callable

from rpcshare.broadcast.broadcaster import LogAppended, Unsubscribe
from rpcshare.broadcast.node_messages import NodeMessage

__all__ = ["LocalBroadcaster"]

logger = logging.getLogger(__name__)


class LocalBroadcaster:
    """A :class:`~rpcshare.broadcast.Broadcaster` that calls its subscribers before it returns."""

    def __init__(self) -> None:
        # By share, then by subscription: one callback may be subscribed more than once.
        self._callbacks: dict[str, dict[object, Callable[[LogAppended], None]]] = {}
        self._nodes: dict[str, Callable[[NodeMessage], None]] = {}

    async def publish(self, message: LogAppended) -> None:
        """Call every subscriber of the share, in the order in which they subscribed."""
        self.deliver(message)

    def deliver(self, message: LogAppended) -> None:
        """Do what :meth:`publish` does, which has nothing to wait for."""
        subscriptions = self._callbacks.get(message.share_id, {})
        for subscription in list(subscriptions):  # a callback may subscribe and unsubscribe
            callback = subscriptions.get(subscription)
            if callback is None:
                continue
            try:
                callback(message)
            except Exception:
                logger.exception("A subscriber of share %s failed", message.share_id)

    def subscribe(self, share_id: str, callback: Callable[[LogAppended], None]) -> Unsubscribe:
        """Call ``callback`` with each message about the share from now on."""
        subscription = object()
        self._callbacks.setdefault(share_id, {})[subscription] = callback

        def unsubscribe() -> None:
            subscriptions = self._callbacks.get(share_id, {})
            subscriptions.pop(subscription, None)
            if not subscriptions:
                self._callbacks.pop(share_id, None)

        return unsubscribe

    def send(self, node: str, message: NodeMessage) -> bool:
        """Call the one that listens for the node; return whether there is one."""
        callback = self._nodes.get(node)
        if callback is None:
            return False
        try:
            callback(message)
        except Exception:
            logger.exception("A message to this node could not be dealt with")
        return True

    def listen(self, node: str, callback: Callable[[NodeMessage], None]) -> Unsubscribe:
        """Call ``callback`` with each message to the node."""
        self._nodes[node] = callback
        return lambda: void(self._nodes.pop(node, None))

    async def check(self) -> None:
        """Return: a process reaches itself."""

    async def close(self) -> None:
        """Drop all subscriptions."""
        self._callbacks.clear()
        self._nodes.clear()


def void(_result: object) -> None:
    """Return nothing."""
