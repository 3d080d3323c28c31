"""Signed tokens that were ended before their time: one, all of a subject, or all.

The store keeps a :class:`Revocation` as JSON under ``auth/revoked/{id}``. It never changes. It is removed
when no token that it ends can be valid any longer, where that is known.
"""

import re
import secrets
import time
from collections.abc import Callable

import msgspec

from rpcshare.auth.subjects import fault_of_name
from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import ObjectStore, StoredObject, StoreError

__all__ = ["REVOKED_PREFIX", "Revocation", "TokenRevocations", "decode_revocation"]

REVOKED_PREFIX = "auth/revoked/"
"""Of the objects in the store."""

PRUNE_AFTER = 7 * 86_400.0
"""Seconds for which a revocation stays after its time: a clock that was wrong must not bring a token back."""

_VERSION = 1
_TOKEN_ID = re.compile(r"[\x21-\x7e]{1,256}")


class Revocation(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Ends the tokens that fit all that it names. All times are milliseconds since the epoch."""

    v: int = _VERSION
    id: str
    issuer: str | None = None
    """Claim ``iss``; None: of any issuer."""
    token_id: str | None = None
    """Claim ``jti``; None: of any token that was issued before the revocation."""
    subject: str | None = None
    """Claim ``sub``; None: of anybody."""
    revoked_at: int
    expires_at: int | None = None
    """When the last token that it ends has expired; None: that is not known."""

    def ends(self, issuer: str, token_id: str | None, subject: str, issued_at: float) -> bool:
        """Whether a token with these claims is ended; ``issued_at`` is in seconds since the epoch."""
        if self.issuer not in (None, issuer) or self.subject not in (None, subject):
            return False
        if self.token_id is not None:
            return self.token_id == token_id
        return issued_at * 1000 <= self.revoked_at

    def described(self) -> dict[str, object]:
        """Return it by the names that users see."""
        return {
            "id": self.id,
            "issuer": self.issuer,
            "jti": self.token_id,
            "subject": self.subject,
            "revokedAt": self.revoked_at,
            "expiresAt": self.expires_at,
        }


class TokenRevocations:
    """The revocations in a store.

    Every method raises :class:`~rpcshare.storage.StoreError` when the store fails.
    """

    def __init__(self, store: ObjectStore, *, clock: Callable[[], float] = time.time) -> None:
        """Keep them in ``store``; ``clock`` tells seconds since the epoch."""
        self._store = store
        self._clock = clock

    async def revoke(
        self,
        *,
        issuer: str | None = None,
        token_id: str | None = None,
        subject: str | None = None,
        expires_in: object = None,
    ) -> Revocation:
        """End a token by its id, else all that a subject has, else all; those that are issued later are good.

        Args:
            issuer: whose tokens; None: every issuer's.
            token_id: the claim ``jti``.
            subject: the claim ``sub``.
            expires_in: after what time none of them is valid anyway, as
                :func:`~rpcshare.durations.parse_duration` takes it; None: that is not known.

        Raises:
            ShareError: INVALID_ARGUMENT.
        """
        if token_id is not None and _TOKEN_ID.fullmatch(token_id) is None:
            raise _invalid("jti: must be 1 to 256 visible ASCII characters")
        if subject is not None and (fault := fault_of_name(subject)):
            raise _invalid(f"subject: {fault}")
        now = self._clock()
        try:
            until = None if expires_in is None else int((now + parse_duration(expires_in)) * 1000)
        except ValueError as exc:
            raise _invalid(f"expires: {exc}") from None
        made = Revocation(
            id=secrets.token_hex(8),
            issuer=issuer,
            token_id=token_id,
            subject=subject,
            revoked_at=int(now * 1000),
            expires_at=until,
        )
        await self._store.put(REVOKED_PREFIX + made.id, msgspec.json.encode(made), if_absent=True)
        return made

    async def list(self) -> list[Revocation]:
        """Return all, the oldest first."""
        found = [decode_revocation(each) async for each in self._store.scan(REVOKED_PREFIX)]
        return sorted(found, key=lambda each: (each.revoked_at, each.id))


def decode_revocation(found: StoredObject) -> Revocation:
    """Return what the store keeps of a revocation.

    Raises:
        StoreError: the object is something else.
    """
    try:
        kept = msgspec.json.decode(found.body, type=Revocation)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StoreError(f"the object at {found.key} is no revocation of tokens") from None
    if kept.v != _VERSION or REVOKED_PREFIX + kept.id != found.key:
        raise StoreError(f"the object at {found.key} is of another version, or another's")
    return kept


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
