"""From Redis to this node: one connection that follows the channels of the shares watched here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError,  # noqa: A004 -- redis's, which is none of Python's
    RedisError,
)

from rpcshare.broadcast.broadcaster import LogAppended, Unsubscribe
from rpcshare.broadcast.cancellation import cancel_all
from rpcshare.broadcast.node_messages import NodeMessage
from rpcshare.broadcast.sealed_messages import BadMessageError, SealedMessages
from rpcshare.retry_delay import retry_delay

__all__ = ["RedisListener"]

logger = logging.getLogger(__name__)

_HEARTBEAT = 3.0  # seconds of silence after which Redis is asked whether it is there, and has to answer
_WARN_EVERY = 60.0  # seconds between two lines about messages that no node has made


class RedisListener:
    """Hands on what is published about the shares that are watched.

    For a share whose channel it had no connection to, it hands on
    :meth:`~rpcshare.broadcast.LogAppended.missed` as soon as it has one.

    Attributes:
        connected: set while there is a connection.
        failure: why there is none.
    """

    def __init__(
        self, client: Redis, messages: SealedMessages, deliver: Callable[[LogAppended], Awaitable[None]]
    ) -> None:
        self.connected = asyncio.Event()
        self.failure = "not connected yet"
        self._client = client
        self._messages = messages
        self._deliver = deliver
        self._watched: dict[str, str] = {}  # share ids, by channel
        self._nodes: dict[str, tuple[str, Callable[[NodeMessage], None]]] = {}  # likewise
        self._changed = asyncio.Event()  # _watched differs from what Redis has been told
        self._uncertain: set[str] = set()  # shares watched of which messages may have been missed
        self._refused = 0  # messages since the last line about them
        self._warned_at = -_WARN_EVERY

    def watch(self, share_id: str) -> None:
        """Follow the channel of a share."""
        self._watched[self._messages.channel_of(share_id)] = share_id
        if not self.connected.is_set():
            self._uncertain.add(share_id)
        self._changed.set()

    def forget(self, share_id: str) -> None:
        """Follow it no more."""
        self._watched.pop(self._messages.channel_of(share_id), None)
        self._uncertain.discard(share_id)
        self._changed.set()

    def listen(self, node: str, callback: Callable[[NodeMessage], None]) -> Unsubscribe:
        """Follow the channel of a node."""
        channel = self._messages.channel_of_node(node)
        self._nodes[channel] = node, callback
        self._changed.set()

        def unsubscribe() -> None:
            self._nodes.pop(channel, None)
            self._changed.set()

        return unsubscribe

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as it takes."""
        failures = 0
        while True:
            try:
                await self._listen()
            except Exception as exc:  # noqa: BLE001 -- whatever Redis answers, it is asked again
                self.failure = f"{type(exc).__name__}: {exc}"
            if self.connected.is_set():
                logger.warning("The connection to Redis was lost: %s", self.failure)
                self.connected.clear()
                self._uncertain.update(self._watched.values())
                failures = 0
            elif failures == 0:
                logger.warning("Redis cannot be reached, and will be tried again: %s", self.failure)
            failures += 1
            await asyncio.sleep(retry_delay(failures))

    async def _listen(self) -> None:
        """Use one connection until it fails."""
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self._messages.nodes)
            if pubsub.connection is None:
                raise ConnectionError("not connected")
            tasks = [
                asyncio.create_task(self._follow(pubsub.connection)),
                asyncio.create_task(self._read(pubsub)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_all(tasks)
            # Neither returns. Both may fail at once, by what the library does with a connection that is gone.
            failures = [exc for task in tasks if not task.cancelled() and (exc := task.exception())]
            raise next((exc for exc in failures if isinstance(exc, RedisError | OSError)), failures[0])

    async def _follow(self, connection: AbstractConnection) -> None:
        """Keep Redis told of what is watched.

        A PubSub whose connection fails makes another by itself. Only one task may ask it to at a time, which
        is _read.
        """
        followed: set[str] = set()
        while True:
            self._changed.clear()
            wanted = self._watched.keys() | self._nodes.keys()
            added, dropped = wanted - followed, followed - wanted
            if added:
                await connection.send_command("SUBSCRIBE", *added)
            if dropped:
                await connection.send_command("UNSUBSCRIBE", *dropped)
            followed = (followed | added) - dropped
            await self._changed.wait()

    async def _read(self, pubsub: PubSub) -> None:
        is_asked = False
        while True:
            message = await pubsub.get_message(timeout=_HEARTBEAT)
            if message is None:
                if is_asked:
                    raise ConnectionError("no answer in time")
                await pubsub.ping()
                is_asked = True
                continue
            is_asked = False
            if message["type"] in ("subscribe", "message"):
                await self._on_message(message["type"], message["channel"].decode(), message["data"])

    async def _on_message(self, kind: str, channel: str, data: bytes) -> None:
        if channel == self._messages.nodes:
            if kind == "subscribe" and not self.connected.is_set():
                logger.info("Connected to Redis")
                self.connected.set()
            return
        if channel in self._nodes:
            if kind == "message":
                self._on_node_message(*self._nodes[channel], data)
            return
        share_id = self._watched.get(channel)
        if share_id is None:
            return  # not watched any more
        if kind == "message":
            try:
                message = self._messages.unseal(data, share_id)
            except BadMessageError as exc:
                self._refuse(exc)
            else:
                await self._deliver(message)
        elif share_id in self._uncertain:
            self._uncertain.discard(share_id)
            await self._deliver(LogAppended.missed(share_id))

    def _on_node_message(self, node: str, callback: Callable[[NodeMessage], None], data: bytes) -> None:
        try:
            message = self._messages.unseal_for_node(data, node)
        except BadMessageError as exc:
            self._refuse(exc)
            return
        try:
            callback(message)
        except Exception:
            logger.exception("A message to this node could not be dealt with")

    def _refuse(self, reason: BadMessageError) -> None:
        """Drop a message. What is in the store is found within seconds all the same."""
        self._refused += 1
        if monotonic() - self._warned_at >= _WARN_EVERY:
            logger.warning("Dropped %d messages from Redis, of the last: %s", self._refused, reason)
            self._refused = 0
            self._warned_at = monotonic()
