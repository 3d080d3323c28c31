"""Messages as they travel through Redis: authenticated, encrypted, and on channels that name no share.

Whoever can use the Redis server may read and publish everything there. Share ids are links, so channels are
named by a keyed hash of them. A message is a Fernet token, so only nodes on the same store can make one. Old
messages can be sent again: they name an entry that the receiver has, or cost it one look into the store.

What nodes send to one node alone carries content. It has keys and channels of its own, which former versions
do not listen to.
"""

import base64
import hashlib
import hmac

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rpcshare.broadcast.broadcaster import LogAppended
from rpcshare.broadcast.node_messages import NodeMessage

__all__ = ["BadMessageError", "SealedMessages"]

MAX_MESSAGE = 2048
"""Bytes. The longest share id gives some 1,000."""

MAX_NODE_MESSAGE = 256 * 1024
"""Likewise, of what goes to one node."""

_VERSION = 2  # of what is in a message; nodes that speak another use other channels


class BadMessageError(Exception):
    """No node on this store has made the message."""


class SealedMessages:
    """The channels of the nodes on one store, and what is published there."""

    def __init__(self, database: int, store_id: str, secret: bytes) -> None:
        """Derive all keys from ``secret``, which only nodes on the store ``store_id`` know."""
        self._store_id = store_id
        self._fernet = Fernet(base64.urlsafe_b64encode(_derived(secret, b"message")))
        self._node_fernet = Fernet(base64.urlsafe_b64encode(_derived(secret, b"node message")))
        self._channel_key = _derived(secret, b"channel")
        self._prefix = f"rpcshare:{_VERSION}:{database}:{store_id}"
        self.nodes = f"{self._prefix}:nodes"
        """Every node listens to this channel, and nobody writes: there always is something to listen to."""

    def channel_of(self, share_id: str) -> str:
        """Return the channel of messages about a share."""
        digest = hmac.digest(self._channel_key, share_id.encode(), hashlib.sha256)
        return f"{self._prefix}:share:{digest.hex()}"

    def channel_of_node(self, node: str) -> str:
        """Return the channel of messages to a node. Its name is random, and tells nothing."""
        return f"{self._prefix}:node:{node}"

    def seal_for_node(self, node: str, message: NodeMessage) -> bytes:
        """Return ``message`` as it is published to a node."""
        return self._node_fernet.encrypt(msgspec.msgpack.encode((self._store_id, node, message)))

    def unseal_for_node(self, data: bytes, node: str) -> NodeMessage:
        """Return the message to ``node`` that was published as ``data``.

        Raises:
            BadMessageError: no node on this store has made it, or it is for another.
        """
        if len(data) > MAX_NODE_MESSAGE:
            raise BadMessageError(f"it has {len(data)} bytes")
        try:
            store_id, to, message = _node_decoder.decode(self._node_fernet.decrypt(data))
        except (InvalidToken, msgspec.DecodeError) as exc:
            raise BadMessageError("no node on this store has made it") from exc
        if store_id != self._store_id or to != node:
            raise BadMessageError("it is for another node")
        return message

    def seal(self, message: LogAppended) -> bytes:
        """Return ``message`` as it is published."""
        return self._fernet.encrypt(msgspec.msgpack.encode((self._store_id, message)))

    def unseal(self, data: bytes, share_id: str) -> LogAppended:
        """Return the message about ``share_id`` that was published as ``data``.

        Raises:
            BadMessageError: no node on this store has made it, or it is about another share.
        """
        if len(data) > MAX_MESSAGE:
            raise BadMessageError(f"it has {len(data)} bytes")
        try:
            store_id, message = _decoder.decode(self._fernet.decrypt(data))
        except (InvalidToken, msgspec.DecodeError) as exc:
            raise BadMessageError("no node on this store has made it") from exc
        if store_id != self._store_id or message.share_id != share_id:
            raise BadMessageError("it is about another share")
        return message


_decoder = msgspec.msgpack.Decoder(tuple[str, LogAppended])
_node_decoder = msgspec.msgpack.Decoder(tuple[str, str, NodeMessage])


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=b"rpcshare broadcast " + purpose).derive(secret)
