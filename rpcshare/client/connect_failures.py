"""Why no connection could be made, and whether another attempt can go better."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from rpcshare.errors import ErrorCode, ShareError

if TYPE_CHECKING:
    from websockets.datastructures import Headers

__all__ = ["ConnectFailedError", "failure_of", "refusal_of"]

# Of 4xx, those that say "not now". The others say that the request is wrong, as each repetition would be.
_LATER_4XX = frozenset({408, 425, 429})
# Of 5xx, those that say "never": not implemented, another version of HTTP, a network that wants a sign-in.
_NEVER_5XX = frozenset({501, 505, 511})

# A peer that goes away in the middle of a TLS handshake says nothing about the next one.
_CUT_SHORT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


class ConnectFailedError(ConnectionError):
    """No connection could be made; the message says to where, and why.

    Attributes:
        retry_after: the seconds that the server wants to be left alone for, or None.
        is_permanent: whether another attempt would fail in the same way until somebody changes something.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.is_permanent = is_permanent


def refusal_of(
    status: int, place: str, what: str, *, retry_after: str = ""
) -> ShareError | ConnectFailedError:
    """Return the error for a server that answered ``status`` where another one was needed.

    Args:
        status: of the HTTP response.
        place: where the server is, as an error may tell it.
        what: what it answered, such as ``the handshake``.
        retry_after: the header of that name.
    """
    if status == 401:
        return ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized by {place}")
    if status == 403:
        return ShareError(ErrorCode.FORBIDDEN, f"Forbidden by {place}")
    is_later = status in _LATER_4XX or (status >= 500 and status not in _NEVER_5XX)
    return ConnectFailedError(
        f"{place} answered {status} to {what}",
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
        is_permanent=not is_later,
    )


def failure_of(exc: Exception, place: str) -> ConnectFailedError:
    """Return the error for what ``websockets`` raised. It quotes neither headers nor a proxy's URL.

    Args:
        exc: an OSError, a WebSocketException, an ImportError or a ValueError.
        place: where the server is, as an error may tell it.
    """
    # Not with the module, as in connecting.py.
    from websockets.exceptions import InvalidHandshake, InvalidProxy, ProxyError  # noqa: PLC0415

    if isinstance(exc, ssl.SSLError):
        return ConnectFailedError(
            f"cannot connect to {place}: {exc}", is_permanent=not isinstance(exc, _CUT_SHORT)
        )
    if isinstance(exc, ProxyError):
        return _proxy_failure(exc, place)
    if isinstance(exc, ImportError):
        return ConnectFailedError(
            f"cannot connect to {place}: the environment names a SOCKS proxy, which needs the package "
            "python-socks: pip install 'rpcshare[socks]'",
            is_permanent=True,
        )
    if isinstance(exc, InvalidProxy | ValueError):  # the server's URL has been checked: it is the proxy's
        return ConnectFailedError(_no_proxy(place), is_permanent=True)
    # Of a peer that hung up there is no telling; one that answered speaks something else.
    is_cut_short = isinstance(exc.__cause__, EOFError | OSError)
    is_permanent = isinstance(exc, InvalidHandshake) and not is_cut_short
    why = "it hung up during the handshake" if is_cut_short and isinstance(exc, InvalidHandshake) else exc
    return ConnectFailedError(f"cannot connect to {place}: {why}", is_permanent=is_permanent)


def _proxy_failure(exc: Exception, place: str) -> ConnectFailedError:
    from websockets.exceptions import InvalidProxyStatus  # noqa: PLC0415 -- as above

    if isinstance(exc, InvalidProxyStatus):
        status = exc.response.status_code
        is_permanent = status < 500 and status not in _LATER_4XX
        return ConnectFailedError(
            f"cannot connect to {place}: the proxy of the environment answered {status}",
            retry_after=_seconds(exc.response.headers),
            is_permanent=is_permanent,
        )
    why = f": {exc.__cause__}" if isinstance(exc.__cause__, Exception) else ""
    return ConnectFailedError(f"cannot connect to {place} through the proxy of the environment{why}")


def _no_proxy(place: str) -> str:
    # It may hold a password, so it is not quoted.
    return f"cannot connect to {place}: the environment names a proxy that is no http, https or socks URL"


def _seconds(headers: Headers) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
