"""From the URL in the settings to the broadcaster that it names."""

from collections.abc import Awaitable, Callable

from rpcshare.broadcast.broadcaster import Broadcaster
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.broadcast.redis_location import RedisLocation

__all__ = ["open_broadcaster"]


async def open_broadcaster(url: str, *, store_id: str, secret: bytes) -> Broadcaster:
    """Open the broadcaster that ``url`` names, between the nodes that serve one store.

    ``local://`` is one within this process. ``redis://HOST:PORT/DB`` is one between the nodes that
    name the same database of a Redis or Valkey server, ``rediss://`` the same over TLS; whether the
    server is there is for :meth:`~rpcshare.broadcast.Broadcaster.check` to say.

    Args:
        url: which broadcaster.
        store_id: names the store. Nodes on another hear nothing of this one's, nor it of theirs.
        secret: 32 bytes that only nodes on the store know, from which the keys for messages are derived.

    Raises:
        ValueError: ``url`` names no broadcaster, or one for which a package is missing. The message
            says what to do, and does not repeat ``url``, which may hold credentials.
    """
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    try:
        _, opener = _BROADCASTERS[scheme]
    except KeyError:
        supported = ", ".join(form for form, _ in _BROADCASTERS.values())
        raise ValueError(f"not the URL of a broadcaster; supported: {supported}") from None
    return await opener(scheme, rest, store_id, secret)


async def _open_local(_scheme: str, rest: str, _store_id: str, _secret: bytes) -> Broadcaster:
    if rest != "//":
        raise ValueError("a broadcaster in the process has no name: its URL is local://")
    return LocalBroadcaster()


async def _open_redis(scheme: str, rest: str, store_id: str, secret: bytes) -> Broadcaster:
    location = RedisLocation.parse(scheme, rest)
    try:
        from rpcshare.broadcast.redis import RedisBroadcaster  # noqa: PLC0415 -- not everybody installs it
        from rpcshare.broadcast.sealed_messages import SealedMessages  # noqa: PLC0415 -- needs cryptography
    except ModuleNotFoundError as exc:
        raise ValueError(f"redis:// needs the package {exc.name}: pip install 'rpcshare[redis]'") from exc
    return RedisBroadcaster(location, SealedMessages(location.database, store_id, secret))


_Opener = Callable[[str, str, str, bytes], Awaitable[Broadcaster]]

# By scheme: what its URLs look like, and what opens one, given the scheme, what is behind the colon, and the
# store's name and secret.
_BROADCASTERS: dict[str, tuple[str, _Opener]] = {
    "local": ("local://", _open_local),
    "redis": ("redis://HOST:PORT/DB", _open_redis),
    "rediss": ("rediss://HOST:PORT/DB", _open_redis),
}
