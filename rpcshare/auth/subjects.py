"""What a caller may be called: the subject of a key, of a token, of whatever names a caller."""

from rpcshare.auth.caller import Scope

__all__ = ["ADMIN_SUBJECT", "fault_of_name", "fault_of_subject"]

ADMIN_SUBJECT = "admin"
"""The admin token's. Its shares are nobody else's, so the name is for credentials of admins alone."""

_MAX_LENGTH = 256


def fault_of_subject(subject: str, scopes: frozenset[Scope]) -> str | None:
    """Return what is wrong with naming a caller of these scopes ``subject``, or None if nothing is."""
    if fault := fault_of_name(subject):
        return fault
    if subject == ADMIN_SUBJECT and Scope.ADMIN not in scopes:
        return f"{ADMIN_SUBJECT!r} is reserved for admins: choose another, or give the scope admin"
    return None


def fault_of_name(subject: str) -> str | None:
    """Return why nobody at all can be called ``subject``, or None if somebody can."""
    if not 0 < len(subject) <= _MAX_LENGTH or not subject.isprintable() or subject != subject.strip():
        return f"must be 1 to {_MAX_LENGTH} printable characters, without a space at either end"
    return None
