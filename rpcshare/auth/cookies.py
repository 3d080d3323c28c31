"""Credentials that a browser keeps: what somebody signed in with, and shares that were opened to them.

The cookie holds the credential itself, sealed, and each request verifies it anew with the same verifiers as
any other: there is no second way to be signed in, and what is revoked ends at once.

A browser sends cookies whoever's page makes it send them. So they count only for a request that comes from
a page of our own, or, if it changes nothing, from no page at all.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.users import SESSION_PREFIX
from rpcshare.auth.view_tokens import VIEW_TOKEN_PREFIX

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

__all__ = ["MAX_AGE", "CookieReader", "SessionSeal", "SiteCookies"]

MAX_AGE = 30 * 24 * 3600
"""For how many seconds a browser stays signed in."""

_MAX_HEADER = 32_768  # characters of cookies that are looked at
_MAX_VIEWS = 50

# RFC 9110 section 9.2.1.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SessionSeal:
    """Turns a credential into the value of a cookie, and back."""

    def __init__(self, shared_secret: UUID) -> None:
        """Seal with a key out of the secret that all servers of a store have in common."""
        self._shared_secret = shared_secret

    @cached_property
    def _fernet(self) -> "Fernet":
        # A server that no browser has signed in to need not import them.
        from cryptography.fernet import Fernet  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

        key = HKDF(SHA256(), 32, salt=None, info=b"rpcshare session cookie")
        return Fernet(urlsafe_b64encode(key.derive(self._shared_secret.bytes)))

    def seal(self, token: str) -> str:
        """Return the value of a cookie that stands for ``token``."""
        return self._fernet.encrypt(token.encode()).decode("ascii")

    def open(self, value: str, max_age: int = MAX_AGE) -> str | None:
        """Return what was sealed, or None for a value that is not ours or older than ``max_age`` seconds."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 -- as above

        try:
            return self._fernet.decrypt(value.encode("ascii", "replace"), ttl=max_age).decode(
                "utf-8", "replace"
            )
        except InvalidToken:
            return None


class SiteCookies:
    """How the cookies of one site are named, and where a browser is to send them.

    Over https a prefix says that only https set them (RFC 6265bis section 4.1.3): neither somebody on the
    network nor, of ``__Host-``, a page of a subdomain can put cookies of his own in their place.
    """

    def __init__(self, base_url: str) -> None:
        """Take the site's address; cookies are for what is below it."""
        base = urlsplit(base_url)
        self.is_secure = base.scheme == "https"
        self._path = base.path.rstrip("/")
        # The prefix __Host- means the whole host, as a site below a path must not.
        secure = "__Secure-" if self.is_secure else ""
        site = "__Host-" if self.is_secure and not self._path else secure
        self.session = f"{site}rpcshare_session"
        self.made_key = f"{site}rpcshare_made_key"
        """Of a key that was made, from the form to the page that shows it."""
        self.attempt = f"{site}rpcshare_signing_in_"
        """Begins the names of what belongs to one attempt to sign in with a provider."""
        self.signed_in_by = f"{site}rpcshare_signed_in_by"
        """Tells which provider's session the browser's began with, for it to be ended, too."""
        self._view = f"{secure}rpcshare_view"
        self._any_view = re.compile(rf"{self._view}(?:_[A-Za-z0-9_-]{{1,300}})?")

    def view(self, share_id: str) -> str:
        """Return the name of the cookie with the view token of a share."""
        return f"{self._view}_{share_id}"

    def is_view(self, name: str) -> bool:
        """Whether a cookie of this name has the view token of some share."""
        return self._any_view.fullmatch(name) is not None

    def path(self, share_id: str = "") -> str:
        """Return where a browser is to send a cookie: everywhere, or to one share's pages."""
        return f"{self._path}/share/{share_id}" if share_id else f"{self._path}/"

    def path_of_files(self, share_id: str) -> str:
        """Return where the files are that one share's pages offer."""
        return f"{self._path}/api/share/{share_id}"


class CookieReader:
    """Finds the credentials in the cookies of a request."""

    def __init__(self, seal: SessionSeal, origins: OriginPolicy, cookies: SiteCookies) -> None:
        self._seal = seal
        self._origins = origins
        self._site = cookies

    def credentials(self, head: RequestHead) -> Iterator[Credential]:
        """Yield what the cookies hold, if they count; what cannot be read is as if it were not there."""
        headers = [value[:_MAX_HEADER] for value in head.header("cookie")]
        if not headers or not self._may_count(head):
            return
        views = 0
        for name, value in _cookies("; ".join(headers)):
            if name == self._site.session:
                token = self._seal.open(value)
            elif self._site.is_view(name) and value.startswith(VIEW_TOKEN_PREFIX) and views < _MAX_VIEWS:
                # No other sort of token: guesses at cookies are not counted, and these cannot be guessed.
                views += 1
                token = value
            else:
                continue
            is_session = (token or "").startswith(SESSION_PREFIX)
            kind = CredentialKind.SESSION if is_session else CredentialKind.TOKEN
            credential = Credential(kind, token or "")
            if credential.is_well_formed:
                yield credential

    def _may_count(self, head: RequestHead) -> bool:
        if head.header("origin") or head.is_websocket or head.method not in _SAFE_METHODS:
            return self._origins.is_own(head)
        return True


def _cookies(header: str) -> Iterator[tuple[str, str]]:
    # One cookie at a time: a single one that SimpleCookie does not like must not hide the others.
    for piece in header.split(";"):
        try:
            for name, morsel in SimpleCookie(piece.strip()).items():
                yield name, morsel.value
        except CookieError:
            continue
