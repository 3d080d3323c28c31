"""How the parts of the system that show a share learn that its log grew.

A message is a hint, sent after the entry is durable: the log in the store is the truth. So it carries
nothing of the entry, and who receives it reads the store. A message that is lost or late costs time, never
data. One that is false costs a read.

Nodes that write one share at the same time also send each other messages that carry content:
:mod:`~rpcshare.broadcast.node_messages`.
"""

from collections.abc import Callable
from typing import Protocol, Self

import msgspec

from rpcshare.broadcast.node_messages import NodeMessage

__all__ = ["CATALOGUE", "BroadcastError", "Broadcaster", "LogAppended", "Unsubscribe"]

Unsubscribe = Callable[[], None]
"""Ends a subscription: the callback is not called again. Calling it twice is no error."""


CATALOGUE = "*"
"""In the place of a share id: that the catalogue has changed. No share has such an id."""


class BroadcastError(Exception):
    """The broadcaster cannot reach other nodes."""


class LogAppended(msgspec.Struct, frozen=True):
    """An entry has been appended to the log of a share, and is durable."""

    share_id: str
    generation: str
    """Which of the logs that the share has had: one deleted and created again has a new one. Empty
    where messages are :meth:`missed`."""
    entry: int
    """The entry's number in the log. Numbers have no gaps, so a gap means a lost message."""

    @classmethod
    def missed(cls, share_id: str) -> Self:
        """Return what stands for any number of messages about a share that could not be delivered.

        It is of no log that the subscriber can know, who therefore has to look into the store.
        """
        return cls(share_id=share_id, generation="", entry=0)


class Broadcaster(Protocol):
    """Carries messages from the node that appended an entry to all nodes that watch the share.

    A node that watches the share hears its own messages too, and nothing in them says whose they
    are. It recognises them, like one that comes twice, by an entry number that it has already
    applied.
    """

    async def publish(self, message: LogAppended) -> None:
        """Send ``message`` to the subscribers of its share.

        Does not raise when nobody can be reached: the caller has done its part once the entry is in
        the store. That the way is blocked is for :meth:`check` to say.
        """
        ...

    def subscribe(self, share_id: str, callback: Callable[[LogAppended], None]) -> Unsubscribe:
        """Call ``callback`` with each message about the share from now on.

        Calls are made on the event loop and in the order of publication, as far as one node
        published. The callback must not block. What it raises is logged, and no concern of others.

        It is called with :meth:`LogAppended.missed` once the way is free again, if it was blocked and
        messages may have been lost.
        """
        ...

    def send(self, node: str, message: NodeMessage) -> bool:
        """Send ``message`` to the node of this name, and to no other; return whether it may arrive.

        Does not wait. It may get lost, and nobody is told.
        """
        ...

    def listen(self, node: str, callback: Callable[[NodeMessage], None]) -> Unsubscribe:
        """Call ``callback`` with each message to the node of this name, which is random.

        Calls are made as those of :meth:`subscribe` are.
        """
        ...

    async def check(self) -> None:
        """Return if messages reach other nodes now; raise :class:`BroadcastError` if not."""
        ...

    async def close(self) -> None:
        """Drop all subscriptions and let go of every resource. No call may follow."""
        ...
