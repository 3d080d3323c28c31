"""The owner of an agent as a caller: what the server does in his name while he is away."""

from __future__ import annotations

from rpcshare.auth.caller import Caller, CallerUser, Role, Scope
from rpcshare.auth.subject_sources import organization_of, user_of

__all__ = ["caller_of"]

_SEPARATOR = "\x1f"


def caller_of(owner: str) -> Caller:
    """Return a caller whose shares, workspaces and vault are those of ``owner``, with no right beyond."""
    source, separator, subject = owner.partition(_SEPARATOR)
    if not separator:
        source, subject = "", owner
    organization, user_id = organization_of(owner), user_of(owner)
    user = None
    if organization is not None and user_id is not None:
        user = CallerUser(id=user_id, organization=organization, role=Role.MEMBER, is_whole=False)
    return Caller(subject=subject, source=source, scopes=frozenset({Scope.CREATE}), user=user)
