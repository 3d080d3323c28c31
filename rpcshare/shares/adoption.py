"""Shares that belong to nobody: who becomes the owner of one, and by what proof.

An anonymous caller made it, or ``import-bucket`` brought it from the older deployment.
"""

import msgspec

from rpcshare.auth.caller import Caller, Scope
from rpcshare.shares.access import is_secret_of
from rpcshare.shares.objects import Head
from rpcshare.shares.share_identity import Credentials, SecretKind, secret_hash

__all__ = ["adopted", "adopts_by_writing", "handed_over", "may_adopt"]


def may_adopt(caller: Caller, head: Head, secret: str | None, credentials: Credentials) -> bool:
    """Decide whether a share that belongs to nobody becomes, or stays, that of who creates it again.

    Its secret is the proof. Without one an admin is believed, but only of a share that was imported:
    whoever made one here without a name knows its secret, and may have made it for an admin to walk into.
    """
    if head.deleted or head.owner is not None:
        return False
    if secret is not None:
        return is_secret_of(secret, head, credentials)
    return caller.has(Scope.ADMIN) and _is_imported(head, credentials)


def _is_imported(head: Head, credentials: Credentials) -> bool:
    """Whether a share that belongs to nobody was made by another deployment, not by an anonymous caller."""
    if head.secret_kind is SecretKind.IMPORTED:
        return True
    # Those that were imported first were not marked; what is random is no other secret.
    return head.secret_kind is SecretKind.RANDOM and credentials.is_of_session(
        head.session_id, head.secret_hash
    )


def adopts_by_writing(caller: Caller, head: Head, secret: object) -> bool:
    """Whether ``caller``, who may write a share and has shown ``secret``, becomes its owner by that."""
    return (
        head.owner is None
        and head.secret_kind is SecretKind.IMPORTED
        and secret is not None
        and caller.subject is not None
        and caller.has(Scope.CREATE)
    )


def adopted(head: Head, owner: str) -> Head:
    """Return the head of a share that belonged to nobody as that of a share of ``owner``.

    The secret that it came with goes on opening it.
    """
    if head.owner is not None or head.deleted:
        return head
    return msgspec.structs.replace(head, owner=owner, secret_kind=SecretKind.IMPORTED).revised()


def handed_over(head: Head, owner: str, credentials: Credentials) -> Head:
    """Return the head of a share that had an owner as that of a share of another, ``owner``.

    The secret that opens it stays the same, also where it was made from the former owner's name.
    """
    if head.deleted or head.owner is None or head.owner == owner:
        return head
    changed = msgspec.structs.replace(head, owner=owner)
    if head.secret_kind is SecretKind.SUBJECT:
        secret = credentials.secret(head.session_id, SecretKind.SUBJECT, head.owner)
        changed = msgspec.structs.replace(
            changed, secret_kind=SecretKind.IMPORTED, secret_hash=secret_hash(secret)
        )
    return changed.revised()
