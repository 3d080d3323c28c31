"""Names of callers that come from outside: from certificates, and from proxies."""

from collections.abc import Set as AbstractSet

from rpcshare.auth.admin_token import ADMIN
from rpcshare.auth.caller import Scope
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["MAX_SUBJECT_LENGTH", "check_subject", "is_subject"]

MAX_SUBJECT_LENGTH = 256
"""In characters. It is stored with every share of its owner."""


def is_subject(text: str) -> bool:
    """Whether ``text`` can name a caller: printable, of 1 to 256 characters, without spaces around it."""
    return 0 < len(text) <= MAX_SUBJECT_LENGTH and text.isprintable() and text == text.strip()


def check_subject(text: str, scopes: AbstractSet[Scope], origin: str) -> str:
    """Return ``text`` if it may name a caller with ``scopes``.

    Args:
        text: the name.
        scopes: what the caller will hold.
        origin: where the name comes from, for the error.

    Raises:
        ShareError: UNAUTHORIZED, for what cannot be a name, and for the admin's name without its scope:
            the shares of that name are those made with the admin token.
    """
    if not is_subject(text):
        raise ShareError(
            ErrorCode.UNAUTHORIZED,
            f"Unauthorized: {origin} does not hold a name of 1 to {MAX_SUBJECT_LENGTH} printable characters",
        )
    if text == ADMIN.subject and Scope.ADMIN not in scopes:
        raise ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized: {origin} holds the admin's name")
    return text
