"""View tokens: the right to read one share, signed, so that nothing has to be kept of them.

A token is ``rsv_`` and a JWS (RFC 7515) of the claims that make a :class:`~rpcshare.auth.caller.View`. Its
key follows from the server's shared secret, so every node knows it, and nobody makes that from the key.
"""

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from rpcshare.auth.caller import Caller, View
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.credential_validity import CredentialValidity

# Many servers never see such a token, and what reads and makes them takes long to import.
if TYPE_CHECKING:
    from joserfc.jwk import OctKey

__all__ = ["VIEW_TOKEN_PREFIX", "ViewTokenVerifier", "ViewTokens"]

VIEW_TOKEN_PREFIX = "rsv_"  # noqa: S105 -- what tokens begin with

_ALGORITHM = "HS256"
_INFO = b"rpcshare view token"


class _Claims(msgspec.Struct, frozen=True):
    share: str
    generation: str
    epoch: int
    iat: float
    exp: float


class ViewTokens:
    """Makes and reads view tokens."""

    def __init__(self, shared_secret: UUID, clock: Callable[[], float] = time.time) -> None:
        """Take the key from ``shared_secret``, and the time in seconds since the epoch from ``clock``."""
        self._shared_secret = shared_secret
        self._clock = clock

    @cached_property
    def _key(self) -> "OctKey":
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 -- as above
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415
        from joserfc.jwk import OctKey  # noqa: PLC0415

        derived = HKDF(SHA256(), 32, salt=None, info=_INFO).derive(self._shared_secret.bytes)
        return OctKey.import_key(derived)

    def issue(self, view: View, expires_at: float) -> str:
        """Return a token for ``view``, good until ``expires_at``, in seconds since the epoch."""
        claims = {
            "share": view.share_id,
            "generation": view.generation,
            "epoch": view.epoch,
            "iat": int(self._clock()),
            "exp": expires_at,
        }
        from joserfc import jwt  # noqa: PLC0415 -- as above

        return VIEW_TOKEN_PREFIX + jwt.encode({"alg": _ALGORITHM}, claims, self._key, algorithms=[_ALGORITHM])

    def read(self, token: str) -> tuple[View, float] | None:
        """Return what a token opens, and until when; None for one that is not ours, or is too old."""
        if not token.startswith(VIEW_TOKEN_PREFIX):
            return None
        from joserfc import jwt  # noqa: PLC0415 -- as above
        from joserfc.errors import JoseError  # noqa: PLC0415

        try:
            text = token.removeprefix(VIEW_TOKEN_PREFIX)
            decoded = jwt.decode(text, self._key, algorithms=[_ALGORITHM])
            claims = msgspec.convert(decoded.claims, _Claims)
        except (JoseError, ValueError):  # msgspec's error is a ValueError
            return None
        if claims.exp <= self._clock():
            return None
        return View(claims.share, claims.generation, claims.epoch), claims.exp


class ViewTokenVerifier:
    """Knows whoever shows a view token: nobody by name, with a view."""

    def __init__(self, tokens: ViewTokens) -> None:
        self._tokens = tokens

    async def verify(self, credential: Credential) -> Caller | None:
        """Return a caller with one view, which ends with the token."""
        if credential.kind is not CredentialKind.TOKEN:
            return None
        found = self._tokens.read(credential.value)
        if found is None:
            return None
        view, expires_at = found
        return Caller(subject=None, views=frozenset({view}), standing=CredentialValidity(expires_at))
