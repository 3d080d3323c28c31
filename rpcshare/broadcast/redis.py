"""Messages between the nodes of a deployment, by way of the pub/sub of a Redis or Valkey server."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from rpcshare.broadcast.broadcaster import BroadcastError, LogAppended, Unsubscribe
from rpcshare.broadcast.cancellation import cancel_all
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.broadcast.node_messages import NodeMessage
from rpcshare.broadcast.redis_listener import RedisListener
from rpcshare.broadcast.redis_location import RedisLocation
from rpcshare.broadcast.redis_sender import RedisSender
from rpcshare.broadcast.sealed_messages import SealedMessages

__all__ = ["RedisBroadcaster"]

_TIMEOUT = 2.0  # seconds for Redis to answer
_LAST_WORDS = 1.0  # seconds for what waits to be published when this is closed


class RedisBroadcaster:
    """A :class:`~rpcshare.broadcast.Broadcaster` between nodes on one store that name the same database.

    Redis need not be there: messages are then missed, which subscribers learn when it is back.
    """

    def __init__(self, location: RedisLocation, messages: SealedMessages) -> None:
        """Begin to connect. Needs a running event loop."""
        self._location = location
        self._client = Redis(
            host=location.host,
            port=location.port,
            db=location.database,
            username=location.username,
            password=location.password,
            ssl=location.is_encrypted,
            ssl_ca_certs=location.ca_file,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            # What is to be tried again, and who must know of it, is decided here.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._subscribers = LocalBroadcaster()
        self._subscriptions: Counter[str] = Counter()  # by share
        self._sender = RedisSender(self._client, messages)
        self._listener = RedisListener(self._client, messages, self._subscribers.publish)
        self._tasks = [
            asyncio.create_task(self._sender.run()),
            asyncio.create_task(self._listener.run()),
        ]

    async def publish(self, message: LogAppended) -> None:
        """Have ``message`` sent to all nodes. Does not wait for Redis."""
        self._sender.add(message)

    def subscribe(self, share_id: str, callback: Callable[[LogAppended], None]) -> Unsubscribe:
        """Call ``callback`` with each message about the share, from a moment after this on.

        That moment is a round trip to Redis away, or when it is there again; only in that case is the
        callback told that it may have missed something.
        """
        drop = self._subscribers.subscribe(share_id, callback)
        self._subscriptions[share_id] += 1
        self._listener.watch(share_id)
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
                self._listener.forget(share_id)

        return unsubscribe

    def send(self, node: str, message: NodeMessage) -> bool:
        """Have ``message`` sent to a node, if Redis is there. Does not wait for it."""
        return self._sender.add_for_node(node, message)

    def listen(self, node: str, callback: Callable[[NodeMessage], None]) -> Unsubscribe:
        """Call ``callback`` with each message to the node."""
        return self._listener.listen(node, callback)

    async def check(self) -> None:
        """Return if Redis answers now, and this node hears it.

        Raises:
            BroadcastError: neither within 2 s.
        """
        try:
            try:
                await self._client.ping()
            except RedisConnectionError:  # the pool may have had a connection that Redis has closed
                await self._client.ping()
        except (RedisError, OSError) as exc:
            raise BroadcastError(f"{self._location}: {exc}") from exc
        try:
            await asyncio.wait_for(self._listener.connected.wait(), _TIMEOUT)
        except TimeoutError:
            raise BroadcastError(f"{self._location}: {self._listener.failure}") from None

    async def close(self) -> None:
        """Publish what waits, if that is possible within a second, and disconnect."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._sender.drain(), _LAST_WORDS)
        await cancel_all(self._tasks)
        await self._subscribers.close()
        await self._client.aclose()
