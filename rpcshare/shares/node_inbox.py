"""What other nodes send to this one, handed on to the share that it is about.

Nodes on a copy of the store have the same keys, so what they send is authentic. A node that has read an entry
of another in its own store knows that both write to one store; nothing is taken from any other.
"""

import secrets
from collections.abc import Callable
from itertools import count

from rpcshare.broadcast import (
    NODE_NAME,
    Broadcaster,
    NodeMessage,
    SyncsDeclined,
    SyncsForwarded,
    node_of,
)

__all__ = ["NodeInbox"]

_KNOWN = 1000  # nodes
_HELD = 16 * 2**20  # bytes of others' syncs that wait to be written, over all shares


class NodeInbox:
    """The name of a node, under which others reach it, and what it takes from them."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        """Begin to listen."""
        self._broadcaster = broadcaster
        self._node = secrets.token_hex(NODE_NAME // 2)
        self._writers = count()
        self._shares: dict[str, Callable[[NodeMessage], None]] = {}
        self._held = 0
        self._known: dict[str, None] = {}
        self._strangers: dict[str, None] = {}
        self._unsubscribe = broadcaster.listen(self._node, self._on_message)

    def new_writer(self) -> str:
        """Return a name for a share that is opened, which none had before."""
        return f"{self._node}{next(self._writers):x}"

    def register(self, share_id: str, receive: Callable[[NodeMessage], None]) -> None:
        """Hand on what is about a share."""
        self._shares[share_id] = receive

    def unregister(self, share_id: str, receive: Callable[[NodeMessage], None]) -> None:
        """Do so no more, unless there is another of the same ID by now."""
        if self._shares.get(share_id) == receive:
            del self._shares[share_id]

    def send(self, writer: str, message: NodeMessage) -> bool:
        """Send a message to the node of a writer; return whether it may arrive."""
        return self._broadcaster.send(node_of(writer), message)

    def decline(self, message: SyncsForwarded) -> None:
        """Tell who forwarded syncs that they are not taken."""
        self.send(message.origin, SyncsDeclined(message.share_id, message.writer, message.origin))

    def has_read(self, writer: str) -> None:
        """Take note that the store has an entry of a writer."""
        _remember(self._known, node_of(writer))

    def knows(self, writer: str) -> bool:
        """Whether the node of a writer writes to this node's store."""
        return node_of(writer) in self._known

    def is_first_message_of(self, writer: str) -> bool:
        """Whether the node of a writer, which is not known, has sent nothing before."""
        return _remember(self._strangers, node_of(writer))

    def hold(self, size: int) -> bool:
        """Account for so many bytes of others' syncs; return False where that is too much."""
        if self._held + size > _HELD:
            return False
        self._held += size
        return True

    def let_go(self, size: int) -> None:
        """Account for their end."""
        self._held -= size

    def close(self) -> None:
        """Listen no more."""
        self._unsubscribe()

    def _on_message(self, message: NodeMessage) -> None:
        receive = self._shares.get(message.share_id)
        if receive is not None:
            receive(message)
        elif isinstance(message, SyncsForwarded):
            self.decline(message)


def _remember(nodes: dict[str, None], node: str) -> bool:
    """Add one of the last nodes, and return whether it is new."""
    if node in nodes:
        return False
    nodes[node] = None
    if len(nodes) > _KNOWN:
        del nodes[next(iter(nodes))]
    return True
