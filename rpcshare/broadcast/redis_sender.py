"""From this node to Redis: messages in their order, and word of those that got lost."""

import asyncio
import logging
from collections import deque
from typing import NamedTuple

from redis.asyncio import Redis

from rpcshare.broadcast.broadcaster import LogAppended
from rpcshare.broadcast.node_messages import NodeMessage
from rpcshare.broadcast.sealed_messages import SealedMessages
from rpcshare.retry_delay import retry_delay

__all__ = ["RedisSender"]

logger = logging.getLogger(__name__)

_LARGEST_QUEUE = 10_000  # messages that wait, of about 200 bytes
_LARGEST_CONTENT = 8 * 2**20  # bytes of messages to single nodes that wait beside them
_MESSAGES_AT_ONCE = 100


class _Sealed(NamedTuple):
    """A message to one node: whoever misses it looks elsewhere in time."""

    channel: str
    data: bytes


class RedisSender:
    """Publishes what it is given, in the background.

    What it cannot publish it remembers by share, and says so when Redis is back: memory is bounded by
    the shares that are written to.
    """

    def __init__(self, client: Redis, messages: SealedMessages) -> None:
        self._client = client
        self._messages = messages
        self._waiting: deque[LogAppended | _Sealed] = deque()
        self._content = 0  # bytes of those to single nodes among them
        self._missed: dict[str, None] = {}  # shares of which messages got lost, in order
        self._is_down = False
        self._has_work = asyncio.Event()
        self._is_settled = asyncio.Event()  # nothing waits, or it has to wait until Redis is back
        self._is_settled.set()

    def add(self, message: LogAppended) -> None:
        """Take ``message``, to be published next."""
        if self._is_down or len(self._waiting) >= _LARGEST_QUEUE:
            self._missed[message.share_id] = None
        else:
            self._waiting.append(message)
        self._has_work.set()
        if not self._is_down:
            self._is_settled.clear()

    def add_for_node(self, node: str, message: NodeMessage) -> bool:
        """Take a message to one node, to be published next; return False if there is no way now."""
        if self._is_down or len(self._waiting) >= _LARGEST_QUEUE or self._content >= _LARGEST_CONTENT:
            return False
        sealed = _Sealed(self._messages.channel_of_node(node), self._messages.seal_for_node(node, message))
        self._waiting.append(sealed)
        self._content += len(sealed.data)
        self._has_work.set()
        self._is_settled.clear()
        return True

    async def run(self) -> None:
        """Publish until cancelled."""
        failures = 0
        while True:
            await self._has_work.wait()
            try:
                await self._publish_some()
            except Exception as exc:  # noqa: BLE001 -- whatever Redis answers, it is asked again
                if not self._is_down:
                    logger.warning("Redis takes no messages: %s: %s", type(exc).__name__, exc)
                self._is_down = True
                self._is_settled.set()
                failures += 1
                await asyncio.sleep(retry_delay(failures))
            else:
                if self._is_down:
                    logger.info("Redis takes messages again")
                self._is_down = False
                failures = 0

    async def drain(self) -> None:
        """Return once all is published, or Redis is known to be away."""
        await self._is_settled.wait()

    async def _publish_some(self) -> None:
        messages = [self._waiting.popleft() for _ in range(min(_MESSAGES_AT_ONCE, len(self._waiting)))]
        self._content -= sum(len(message.data) for message in messages if isinstance(message, _Sealed))
        missed, self._missed = self._missed, {}
        messages += map(LogAppended.missed, missed)
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for message in messages:
                    if isinstance(message, _Sealed):
                        pipeline.publish(message.channel, message.data)
                    else:
                        channel = self._messages.channel_of(message.share_id)
                        pipeline.publish(channel, self._messages.seal(message))
                await pipeline.execute()
        except BaseException:
            lost = [*messages, *self._waiting]
            hints = (message for message in lost if isinstance(message, LogAppended))
            self._missed.update(dict.fromkeys(message.share_id for message in hints))
            self._waiting.clear()
            self._content = 0
            raise
        if not self._waiting and not self._missed:
            self._has_work.clear()
            self._is_settled.set()
