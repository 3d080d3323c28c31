"""From the URL in the settings to the broadcaster that it names."""

from collections.abc import Awaitable, Callable

from rpcshare.broadcast.broadcaster import Broadcaster
from rpcshare.broadcast.local import LocalBroadcaster

__all__ = ["open_broadcaster"]


async def open_broadcaster(url: str) -> Broadcaster:
    """Open the broadcaster that ``url`` names: ``local://`` is one within this process.

    Raises:
        ValueError: ``url`` names no broadcaster. The message says what would, and does not repeat
            ``url``, which may hold credentials.
    """
    scheme, _, rest = url.partition(":")
    try:
        _, opener = _BROADCASTERS[scheme.lower()]
    except KeyError:
        supported = ", ".join(form for form, _ in _BROADCASTERS.values())
        raise ValueError(f"not the URL of a broadcaster; supported: {supported}") from None
    return await opener(rest)


async def _open_local(rest: str) -> LocalBroadcaster:
    if rest != "//":
        raise ValueError("a broadcaster in the process has no name: its URL is local://")
    return LocalBroadcaster()


# By scheme: what its URLs look like, and what opens the part behind the colon.
_BROADCASTERS: dict[str, tuple[str, Callable[[str], Awaitable[Broadcaster]]]] = {
    "local": ("local://", _open_local),
}
