"""From Redis to this node: one connection that follows the channels of the shares watched here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 -- redis's, which is none of Python's

from rpcshare.broadcast.broadcaster import LogAppended
from rpcshare.broadcast.redis_channels import RedisChannels
from rpcshare.broadcast.retry_pause import retry_pause

__all__ = ["RedisListener"]

logger = logging.getLogger(__name__)

_HEARTBEAT = 3.0  # seconds of silence after which Redis is asked whether it is there, and has to answer


class RedisListener:
    """Hands on what is published about the shares that are watched.

    For a share whose channel it had no connection to, it hands on
    :meth:`~rpcshare.broadcast.LogAppended.missed` as soon as it has one.

    Attributes:
        connected: set while there is a connection.
        failure: why there is none.
    """

    def __init__(
        self, client: Redis, channels: RedisChannels, deliver: Callable[[LogAppended], Awaitable[None]]
    ) -> None:
        self.connected = asyncio.Event()
        self.failure = "not connected yet"
        self._client = client
        self._channels = channels
        self._deliver = deliver
        self._watched: set[str] = set()
        self._changed = asyncio.Event()  # _watched differs from what Redis has been told
        self._uncertain: set[str] = set()  # shares watched of which messages may have been missed

    def watch(self, share_id: str) -> None:
        """Follow the channel of a share."""
        self._watched.add(share_id)
        if not self.connected.is_set():
            self._uncertain.add(share_id)
        self._changed.set()

    def forget(self, share_id: str) -> None:
        """Follow it no more."""
        self._watched.discard(share_id)
        self._uncertain.discard(share_id)
        self._changed.set()

    async def run(self) -> None:
        """Listen until cancelled, over as many connections as it takes."""
        failures = 0
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as exc:
                self.failure = str(exc)
            if self.connected.is_set():
                logger.warning("The connection to Redis was lost: %s", self.failure)
                self.connected.clear()
                self._uncertain.update(self._watched)
                failures = 0
            elif failures == 0:
                logger.warning("Redis cannot be reached, and will be tried again: %s", self.failure)
            failures += 1
            await asyncio.sleep(retry_pause(failures))

    async def _listen(self) -> None:
        """Use one connection as long as it lasts."""
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self._channels.nodes)
            following = asyncio.create_task(self._follow(pubsub))
            try:
                await self._read(pubsub)
            finally:
                following.cancel()
                # If this is what failed, reading did too, or does after the next heartbeat.
                with suppress(asyncio.CancelledError, RedisError, OSError):
                    await following

    async def _follow(self, pubsub: PubSub) -> None:
        """Keep Redis told of what is watched."""
        followed: set[str] = set()
        while True:
            self._changed.clear()
            added, dropped = self._watched - followed, followed - self._watched
            if added:
                await pubsub.subscribe(*map(self._channels.of_share, added))
            if dropped:
                await pubsub.unsubscribe(*map(self._channels.of_share, dropped))
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
        share_id = self._channels.share_of(channel)
        if share_id is None:
            if not self.connected.is_set():
                logger.info("Connected to Redis")
                self.connected.set()
        elif kind == "message":
            await self._deliver(self._decode(share_id, data))
        elif share_id in self._uncertain:
            self._uncertain.discard(share_id)
            await self._deliver(LogAppended.missed(share_id))

    def _decode(self, share_id: str, data: bytes) -> LogAppended:
        with suppress(msgspec.DecodeError):
            message = _decoder.decode(data)
            if message.share_id == share_id:
                return message
        logger.warning("Redis holds messages about share %s that make no sense", share_id)
        return LogAppended.missed(share_id)


_decoder = msgspec.msgpack.Decoder(LogAppended)
