"""From which web pages a browser may call: the ``Origin`` check (RFC 6454, RFC 6455 section 10.2).

Only browsers send the header, and they never let a page forge it. So it says nothing about
who asks, and everything about whose page makes them ask.
"""

import re
from collections.abc import Iterable

from rpcshare.auth.audit import Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["OriginPolicy", "parse_origin"]

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>[a-z0-9._~-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535


class OriginPolicy:
    """The origins that may call, beside the one under which the request itself was addressed."""

    def __init__(
        self, public_url: str | None = None, allowed: Iterable[str] = (), audit: AuditLog | None = None
    ) -> None:
        """Take the server's public URL, of which a path is ignored, other origins, and who hears of refusals.

        Raises:
            ValueError: one of them is no origin.
        """
        self._audit = audit or AuditLog()
        self._allowed = {_required(origin) for origin in allowed}
        self._public: str | None = None
        if public_url is not None:
            scheme, _, rest = public_url.partition("://")
            self._public = _required(f"{scheme}://{rest.partition('/')[0]}")
            self._allowed.add(self._public)

    def check(self, head: RequestHead) -> None:
        """Return if the request may be made from where it was made.

        Raises:
            ShareError: FORBIDDEN, for an origin that is neither the server's own nor listed, for
                ``null`` (sandboxed frames and local files: anybody's) and for more than one.
        """
        origins = head.header("origin")
        if not origins:
            return
        origin = parse_origin(origins[0]) if len(origins) == 1 else None
        if origin is None or not (origin in self._allowed or origin in _own_origins(head)):
            self._audit.refused(Action.CONNECT, Caller(None, address=head.address), ErrorCode.FORBIDDEN)
            raise ShareError(
                ErrorCode.FORBIDDEN, "Forbidden: this server does not accept calls from that origin"
            )

    def is_own(self, head: RequestHead) -> bool:
        """Whether the request comes from one of the server's own pages, and a browser says so.

        A page that is merely allowed to call is not one of them.
        """
        origins = head.header("origin")
        if not origins:
            return head.header("sec-fetch-site") == ["same-origin"]
        origin = parse_origin(origins[0]) if len(origins) == 1 else None
        return origin is not None and (origin == self._public or origin in _own_origins(head))


def parse_origin(text: str) -> str | None:
    """Return the origin ``text`` in its one normal form, or None if it is none.

    The form is lower case, ``scheme://host`` or ``scheme://host:port``, without the port that http
    or https has anyway.
    """
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return None
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if port is None or int(port) == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}" if int(port) <= _MAX_PORT else None


def _required(text: str) -> str:
    origin = parse_origin(text)
    if origin is None:
        raise ValueError("an origin is scheme://host or scheme://host:port")
    return origin


def _own_origins(head: RequestHead) -> set[str | None]:
    """Return the origins of pages that came from where this request went."""
    # Behind a proxy that ends TLS, the scheme that the browser saw is not known here.
    urls = (f"{scheme}://{host}" for host in head.header("host") for scheme in ("http", "https"))
    return {parse_origin(url) for url in urls}
