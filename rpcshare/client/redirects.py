"""Redirects: which are followed, and what is said of the others."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit, urlunsplit

from rpcshare.client.connect_failures import ConnectFailedError

__all__ = ["MOST_REDIRECTS", "place_of", "redirected"]

MOST_REDIRECTS = 5

_STATUSES = frozenset({301, 302, 307, 308})
_SECURE = {"http": "https", "ws": "wss", "https": "https", "wss": "wss"}
_WEB = {"ws": "http", "wss": "https"}
_PORTS = {"http": 80, "https": 443}


def place_of(url: str) -> str:
    """Return what of ``url`` an error may tell: neither a user, nor a path, which may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def redirected(url: str, status: int, location: str | None, *, within_origin: bool = False) -> str | None:
    """Return where the answer to a request of ``url`` leads to; None if that is no redirect to follow.

    It is followed from plain text to TLS on the same host: a server that answers so has carried nothing out.
    To another host no credential may go. The scheme stays of the same kind: http becomes https, and ws wss.

    Args:
        url: absolute, and what was asked.
        status: of the answer.
        location: its header of that name.
        within_origin: follow it to another path of the same server, too.

    Raises:
        ConnectFailedError: it leads elsewhere. The message says where to, without the path.
    """
    if status not in _STATUSES or not location:
        return None
    asked = urlsplit(_as_web(url))
    try:
        target = urlsplit(urljoin(_as_web(url), location))
        origins = [(each.scheme, each.hostname, each.port or _PORTS[each.scheme]) for each in (asked, target)]
    except (ValueError, KeyError):
        raise ConnectFailedError(
            f"{place_of(url)} answered {status}, with a Location that is no http URL", is_permanent=True
        ) from None
    is_upgrade = asked.hostname == target.hostname and (asked.scheme, target.scheme) == ("http", "https")
    if origins[0] == origins[1]:
        if not within_origin:
            return None
    elif not is_upgrade:
        raise ConnectFailedError(
            f"{place_of(url)} redirects to {place_of(target.geturl())}: use that if you trust it",
            is_permanent=True,
        )
    scheme = _SECURE[urlsplit(url).scheme] if target.scheme == "https" else urlsplit(url).scheme
    # A user in the URL is what the caller asked with, and no Location takes it away or brings another.
    user = asked.netloc.rpartition("@")[0]
    host = target.netloc.rpartition("@")[2]
    netloc = f"{user}@{host}" if user else host
    return urlunsplit((scheme, netloc, target.path, target.query, ""))


def _as_web(url: str) -> str:
    scheme, _, rest = url.partition(":")
    return f"{_WEB.get(scheme, scheme)}:{rest}"
