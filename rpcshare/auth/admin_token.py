"""The one token that may do everything."""

import hashlib
import hmac

from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.subject_sources import Source
from rpcshare.auth.subjects import ADMIN_SUBJECT

__all__ = ["ADMIN", "AdminTokenVerifier"]

ADMIN = Caller(subject=ADMIN_SUBJECT, scopes=frozenset({Scope.ADMIN}), source=Source.ADMIN)


class AdminTokenVerifier:
    """Knows the admin token, and keeps no more of it than a hash."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)

    async def verify(self, credential: Credential) -> Caller | None:
        """Return the admin if ``credential`` is the admin token, in a time that tells nothing."""
        if credential.kind is CredentialKind.API_KEY:
            return None
        return ADMIN if hmac.compare_digest(_digest(credential.value), self._digest) else None


def _digest(token: str) -> bytes:
    # Comparing digests hides the token's length too. A string out of JSON may hold half a surrogate
    # pair, which is no reason to fail.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
