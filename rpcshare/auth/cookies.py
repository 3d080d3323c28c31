"""Credentials that a browser keeps: what somebody signed in with, and shares that were opened to them.

The cookie holds the credential itself, sealed, and each request verifies it anew with the same verifiers as
any other: there is no second way to be signed in, and what is revoked ends at once.

A browser sends cookies whoever's page makes it send them. So they count only for a request that comes from
a page of our own, or, if it changes nothing, from no page at all.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.origin import OriginPolicy
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.view_tokens import VIEW_TOKEN_PREFIX

__all__ = ["MAX_AGE", "SESSION_COOKIE", "VIEW_COOKIE", "CookieReader", "SessionSeal"]

SESSION_COOKIE = "rpcshare_session"
VIEW_COOKIE = "rpcshare_view"
"""Followed, in the name of each, by a share's id."""

MAX_AGE = 30 * 24 * 3600
"""For how many seconds a browser stays signed in."""

_VIEW_NAME = re.compile(rf"{VIEW_COOKIE}(?:_[A-Za-z0-9_-]{{1,300}})?")
_MAX_HEADER = 32_768  # characters of cookies that are looked at
_MAX_VIEWS = 50

# RFC 9110 section 9.2.1.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SessionSeal:
    """Turns a credential into the value of a cookie, and back."""

    def __init__(self, shared_secret: UUID) -> None:
        """Seal with a key out of the secret that all servers of a store have in common."""
        derived = HKDF(SHA256(), 32, salt=None, info=b"rpcshare session cookie").derive(shared_secret.bytes)
        self._fernet = Fernet(urlsafe_b64encode(derived))

    def seal(self, token: str) -> str:
        """Return the value of a cookie that stands for ``token``."""
        return self._fernet.encrypt(token.encode()).decode("ascii")

    def open(self, value: str) -> str | None:
        """Return what was sealed, or None for a value that is not ours or too old."""
        try:
            return self._fernet.decrypt(value.encode("ascii", "replace"), ttl=MAX_AGE).decode(
                "utf-8", "replace"
            )
        except InvalidToken:
            return None


class CookieReader:
    """Finds the credentials in the cookies of a request."""

    def __init__(self, seal: SessionSeal, origins: OriginPolicy) -> None:
        self._seal = seal
        self._origins = origins

    def credentials(self, head: RequestHead) -> Iterator[Credential]:
        """Yield what the cookies hold, if they count; what cannot be read is as if it were not there."""
        headers = [value[:_MAX_HEADER] for value in head.header("cookie")]
        if not headers or not self._may_count(head):
            return
        views = 0
        for name, value in _cookies("; ".join(headers)):
            if name == SESSION_COOKIE:
                token = self._seal.open(value)
            elif _VIEW_NAME.fullmatch(name) and value.startswith(VIEW_TOKEN_PREFIX) and views < _MAX_VIEWS:
                # No other sort of token: guesses at cookies are not counted, and these cannot be guessed.
                views += 1
                token = value
            else:
                continue
            credential = Credential(CredentialKind.TOKEN, token or "")
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
