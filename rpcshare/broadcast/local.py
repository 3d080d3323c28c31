"""Messages within one process, for a server that is the only one on its store."""

import logging
from collections.abc import Callable

from rpcshare.broadcast.broadcaster import LogAppended, Unsubscribe

__all__ = ["LocalBroadcaster"]

logger = logging.getLogger(__name__)


class LocalBroadcaster:
    """A :class:`~rpcshare.broadcast.Broadcaster` that calls its subscribers before it returns."""

    def __init__(self) -> None:
        # By share, then by subscription: one callback may be subscribed more than once.
        self._callbacks: dict[str, dict[object, Callable[[LogAppended], None]]] = {}

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

    async def check(self) -> None:
        """Return: a process reaches itself."""

    async def close(self) -> None:
        """Drop all subscriptions."""
        self._callbacks.clear()
