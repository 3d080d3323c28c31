"""The names of the channels in Redis."""

__all__ = ["RedisChannels"]

_VERSION = 1  # of what is in a message; servers that speak another do not hear it


class RedisChannels:
    """The channels of one deployment: servers that name the same database."""

    def __init__(self, database: int) -> None:
        self._prefix = f"rpcshare:{_VERSION}:{database}:share:"
        self.nodes = f"rpcshare:{_VERSION}:{database}:nodes"
        """Every node listens to it, and nobody writes: so there is always something to listen to."""

    def of_share(self, share_id: str) -> str:
        """Return the channel of messages about a share."""
        return self._prefix + share_id

    def share_of(self, channel: str) -> str | None:
        """Return the share that a channel is about, None for another channel."""
        return channel.removeprefix(self._prefix) if channel.startswith(self._prefix) else None
