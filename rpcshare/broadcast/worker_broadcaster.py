"""Messages between the processes of one server that share its port and its store."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from rpcshare.broadcast.broadcaster import LogAppended, Unsubscribe
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.broadcast.node_messages import NodeMessage
from rpcshare.broadcast.worker_messages import Member, Topic, WorkerMessages

__all__ = ["WorkerBroadcaster"]

_SHARES_AT_ONCE = 1000  # in one message: ids are 8 characters as a rule, and 300 at most


class Watched(msgspec.Struct, frozen=True, array_like=True):
    """The sender wants to hear of shares from now on."""

    share_ids: list[str]


class Forgotten(msgspec.Struct, frozen=True, array_like=True):
    """The sender wants to hear of a share no more."""

    share_id: str


class Listening(msgspec.Struct, frozen=True, array_like=True):
    """The sender takes the messages to a node of this name."""

    node: str


class ToNode(msgspec.Struct, frozen=True, array_like=True):
    """A message to one node alone."""

    node: str
    message: NodeMessage


APPENDED: Final = Topic("log appended", LogAppended)
WATCHED: Final = Topic("share watched", Watched)
FORGOTTEN: Final = Topic("share forgotten", Forgotten)
LISTENING: Final = Topic("node listening", Listening)
TO_NODE: Final = Topic("to a node", ToNode)


class WorkerBroadcaster:
    """A broadcaster over the messages between the workers of a server.

    Each process tells the others which shares it watches, so a message goes to those that want it, which
    mostly is nobody. One that begins to watch what another has been watching may have missed something
    while it said so, and is told that.
    """

    def __init__(self, inbox: WorkerMessages) -> None:
        self._inbox = inbox
        self._subscribers = LocalBroadcaster()
        self._subscriptions: Counter[str] = Counter()  # by share
        self._watching: dict[str, set[int]] = {}  # who else watches each share
        self._listening: set[str] = set()  # nodes that this process is
        self._nodes: dict[str, int] = {}  # the slots of those that others are
        self._missed: dict[int, dict[str, None]] = {}  # shares of which messages got lost, by slot
        inbox.on(APPENDED, self._on_appended)
        inbox.on(WATCHED, self._on_watched)
        inbox.on(FORGOTTEN, self._on_forgotten)
        inbox.on(LISTENING, self._on_listening)
        inbox.on(TO_NODE, self._on_node_message)
        inbox.on_joined(self._on_joined)
        inbox.on_left(self._on_left)
        inbox.on_free(self._on_free)

    async def publish(self, message: LogAppended) -> None:
        """Have ``message`` sent to all that watch its share. Does not wait for them."""
        await self._subscribers.publish(message)
        watching = self._watching.get(message.share_id)
        if not watching:
            return
        for slot in self._inbox.post(watching, APPENDED, message):
            self._missed.setdefault(slot, {})[message.share_id] = None

    def subscribe(self, share_id: str, callback: Callable[[LogAppended], None]) -> Unsubscribe:
        """Call ``callback`` with each message about the share from now on."""
        drop = self._subscribers.subscribe(share_id, callback)
        self._subscriptions[share_id] += 1
        if self._subscriptions[share_id] == 1:
            self._inbox.post_all(WATCHED, Watched([share_id]))
        is_over = False

        def unsubscribe() -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            drop()
            self._subscriptions[share_id] -= 1
            if not self._subscriptions[share_id]:
                del self._subscriptions[share_id]
                self._inbox.post_all(FORGOTTEN, Forgotten(share_id))

        return unsubscribe

    def send(self, node: str, message: NodeMessage) -> bool:
        """Send ``message`` to the process that the node is, if it is there."""
        slot = self._nodes.get(node)
        if slot is None:
            return self._subscribers.send(node, message)
        return not self._inbox.post([slot], TO_NODE, ToNode(node, message))

    def listen(self, node: str, callback: Callable[[NodeMessage], None]) -> Unsubscribe:
        """Call ``callback`` with each message to the node, of which the other processes are told."""
        drop = self._subscribers.listen(node, callback)
        self._listening.add(node)
        self._inbox.post_all(LISTENING, Listening(node))

        def unsubscribe() -> None:
            self._listening.discard(node)
            drop()

        return unsubscribe

    async def check(self) -> None:
        """Return: an inbox is there as long as the processes are."""

    async def close(self) -> None:
        """Drop all subscriptions. The inbox is not closed."""
        await self._subscribers.close()

    # What the others say

    def _on_joined(self, slot: int) -> None:
        """Tell a new process what is watched here; its predecessor may have written it last."""
        self._drop(slot)  # what it finds in its inbox may have been meant for its predecessor
        for node in self._listening:
            self._inbox.post([slot], LISTENING, Listening(node))
        share_ids = list(self._subscriptions)
        for start in range(0, len(share_ids), _SHARES_AT_ONCE):
            some = share_ids[start : start + _SHARES_AT_ONCE]
            self._inbox.post([slot], WATCHED, Watched(some))
        for share_id in share_ids:
            self._subscribers.deliver(LogAppended.missed(share_id))

    def _on_left(self, member: Member) -> None:
        self._drop(member.slot)

    def _drop(self, slot: int) -> None:
        self._missed.pop(slot, None)
        self._nodes = {node: other for node, other in self._nodes.items() if other != slot}
        for share_id, slots in list(self._watching.items()):
            slots.discard(slot)
            if not slots:
                del self._watching[share_id]

    def _on_watched(self, sender: Member, message: Watched) -> None:
        for share_id in message.share_ids:
            self._watching.setdefault(share_id, set()).add(sender.slot)
            if share_id in self._subscriptions:
                self._tell_missed(sender.slot, share_id)

    def _on_forgotten(self, sender: Member, message: Forgotten) -> None:
        slots = self._watching.get(message.share_id, set())
        slots.discard(sender.slot)
        if not slots:
            self._watching.pop(message.share_id, None)

    def _on_listening(self, sender: Member, message: Listening) -> None:
        self._nodes[message.node] = sender.slot

    def _on_node_message(self, _sender: Member, message: ToNode) -> None:
        self._subscribers.send(message.node, message.message)

    def _on_appended(self, _sender: Member, message: LogAppended) -> None:
        self._subscribers.deliver(message)

    def _on_free(self, slot: int) -> None:
        for share_id in self._missed.pop(slot, {}):
            self._tell_missed(slot, share_id)

    def _tell_missed(self, slot: int, share_id: str) -> None:
        if self._inbox.post([slot], APPENDED, LogAppended.missed(share_id)):
            self._missed.setdefault(slot, {})[share_id] = None
