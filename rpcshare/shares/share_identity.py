"""What a share is called, and the secret that opens it for writing.

Both follow from the session ID (PROTOCOL.md, "Identity of a share"), so that whoever runs the server
can compute them, and a client that lost them gets them again.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import TypeGuard

import msgspec

from rpcshare.auth.view_tokens import ViewTokens
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "Credentials",
    "SecretKind",
    "ShareCredentials",
    "check_session_id",
    "is_session_id",
    "is_share_id",
]

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SHARE_ID = re.compile(r"[A-Za-z0-9_-]{1,288}")  # a session ID, and what may be added to it
_SECRETS_KNOWN = 4096  # of shares that are in use: each sync shows one
_SHORTEST_ID, _STEP, _ADDED = 8, 4, 12  # characters


class SecretKind(StrEnum):
    """What a share's secret is made from."""

    SESSION = "session"
    """The session ID: shares of the caller who was the first to share this session."""
    SUBJECT = "subject"
    """The session ID and its owner: shares of others, who must not learn the first one's secret."""
    RANDOM = "random"
    """Chance; only a hash is kept. Shares of anonymous callers."""
    IMPORTED = "imported"
    """Whatever the deployment that the share comes from made it from; only a hash is kept."""


class ShareCredentials(msgspec.Struct, frozen=True):
    """What the creator of a share gets."""

    id: str
    url: str
    secret: str

    def __repr__(self) -> str:
        """Leave out the secret."""
        return f"{type(self).__name__}(id={self.id!r}, url={self.url!r}, secret=<hidden>)"


def check_session_id(value: object) -> str:
    """Return ``value`` if it is a session ID.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    if not is_session_id(value):
        message = "sessionID: must be a string of 1 to 256 letters, digits, _ and -"
        raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
    return value


def is_session_id(value: object) -> TypeGuard[str]:
    """Whether ``value`` is a session ID."""
    return isinstance(value, str) and _SESSION_ID.fullmatch(value) is not None


def is_share_id(value: str) -> bool:
    """Whether ``value`` can be a share's id: only then may it become a part of a store's key."""
    return _SHARE_ID.fullmatch(value) is not None


class Credentials:
    """Makes ids, secrets and links from the server's ``shared_secret`` and ``public_url``."""

    def __init__(self, shared_secret: uuid.UUID, public_url: str) -> None:
        self._shared_secret = shared_secret
        self._public_url = public_url.rstrip("/")
        self._derived = lru_cache(_SECRETS_KNOWN)(lambda name: str(uuid.uuid5(shared_secret, name)))

    def of_session(self, session_id: str) -> ShareCredentials:
        """Return what the first caller with this session ID gets, unless the id is taken.

        Raises:
            ShareError: INVALID_ARGUMENT: ``session_id`` is none.
        """
        share_id = next(self.share_ids(check_session_id(session_id), None))
        secret = self.secret(session_id, SecretKind.SESSION, None)
        return ShareCredentials(share_id, self.url(share_id), secret)

    def share_ids(self, session_id: str, owner: str | None, aliases: Sequence[str] = ()) -> Iterator[str]:
        """Yield the ids under which a share of ``owner``, or an alias, is looked for, the shortest first.

        The same every time, so that who creates a share again finds it. The last one of each owner is that
        owner's alone; :meth:`random_share_id` makes further ones.
        """
        for length in range(_SHORTEST_ID, len(session_id), _STEP):
            yield session_id[-length:]
        yield session_id
        for name in (*aliases, owner):
            if name is None:
                continue
            # Neither # nor a space can occur in a session ID, so this is nobody's secret.
            digits = uuid.uuid5(self._shared_secret, f"#{session_id} {name}").hex
            yield session_id + digits[:_ADDED]

    def random_share_id(self, session_id: str) -> str:
        """Return an id that nobody has, most likely."""
        return session_id + secrets.token_hex(_ADDED // 2)

    def fingerprint(self) -> str:
        """Return what is the same for servers with the same shared secret, and does not tell it."""
        return hmac.digest(self._shared_secret.bytes, b"rpcshare: which shared secret", "sha256")[:8].hex()

    def view_tokens(self) -> ViewTokens:
        """Return what makes and reads the view tokens of this server's shares."""
        return ViewTokens(self._shared_secret)

    def url(self, share_id: str) -> str:
        """Return the link to a share."""
        return f"{self._public_url}/share/{share_id}"

    def secret(self, session_id: str, kind: SecretKind, owner: str | None) -> str:
        """Return the secret of a share of ``owner``, which must not be of kind RANDOM.

        Of kind IMPORTED it is one that opens the share as well as the secret that it came with.
        """
        if kind is SecretKind.SESSION:
            return self._derived(session_id)
        if kind is SecretKind.RANDOM:
            raise ValueError("a random secret is known to its caller alone")
        return self._derived(f"{session_id} {owner}")

    def is_of_session(self, session_id: str, hashed: str | None) -> bool:
        """Whether ``hashed`` is the hash of the secret that follows from a session ID alone."""
        return equal_secrets(secret_hash(self._derived(session_id)), hashed or "")

    def __repr__(self) -> str:
        """Leave out the shared secret."""
        return f"{type(self).__name__}(public_url={self._public_url!r})"


def random_secret() -> str:
    """Return a secret that follows from nothing."""
    return str(uuid.uuid4())


def secret_hash(secret: str) -> str:
    """Return what is kept of a random secret, which has entropy enough for a plain hash."""
    return hashlib.sha256(_bytes(secret)).hexdigest()


def equal_secrets(one: str, other: str) -> bool:
    """Compare in a time that does not tell where the difference is."""
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # whatever a caller sent as a secret
