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
    """The server's own origins, and others that may call."""

    def __init__(
        self,
        base_url: str | None = None,
        allowed: Iterable[str] = (),
        audit: AuditLog | None = None,
        *,
        is_public: bool = False,
    ) -> None:
        """Take where the server is, and who else's pages may call.

        Args:
            base_url: of the server; a path is ignored.
            allowed: other origins.
            audit: hears of refusals.
            is_public: whether browsers reach the server under ``base_url`` alone. If not, pages from wherever
                a request was addressed to are the server's own: whoever has a name lead to the server's
                address (DNS rebinding) has such pages too.

        Raises:
            ValueError: one of them is no origin.
        """
        self._audit = audit or AuditLog()
        self._allowed = {_required(origin) for origin in allowed}
        self._base: str | None = None
        # Of pages that are own by the host they came from. Behind a proxy that ends TLS, the scheme that the
        # browser saw is not known here; but a server of TLS has no page without.
        self._schemes: tuple[str, ...] = () if is_public else ("http", "https")
        if base_url is not None:
            scheme, _, rest = base_url.partition("://")
            self._base = _required(f"{scheme}://{rest.partition('/')[0]}")
            if scheme == "https":
                self._schemes = self._schemes[1:]

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
        if origin is None or not (origin in self._allowed or self._is_own(origin, head)):
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
        return origin is not None and self._is_own(origin, head)

    def _is_own(self, origin: str, head: RequestHead) -> bool:
        urls = (f"{scheme}://{host}" for host in head.header("host") for scheme in self._schemes)
        return origin == self._base or origin in map(parse_origin, urls)


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
