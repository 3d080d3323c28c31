"""Signed tokens (JWT, RFC 7519, by the advice of RFC 8725): from the text to a caller.

Nothing in a token is believed before its signature has been verified, except what chooses the key to do so:
its issuer, the algorithm and the key's id. Each issuer has keys of its own, and each key its algorithms.
"""

import base64
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from rpcshare import jsontext
from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.credential import MAX_CREDENTIAL_LENGTH, Credential, CredentialKind
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.ended_tokens import EndedTokens, TokenClaims
from rpcshare.auth.jwks import KeySource
from rpcshare.auth.subject_sources import Source, jwt_source
from rpcshare.auth.subjects import fault_of_subject
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "LEEWAY",
    "SignedTokenVerifier",
    "TokenIssuer",
    "claim_at",
    "claim_words",
    "encoded",
    "read_token",
    "time_of_claim",
]

LEEWAY = 60.0
"""Seconds by which an issuer's clock may be ahead of this one. What has expired has expired."""

# RFC 7515 section 7.1; without a signature it is none.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

# What a token of access or identity calls itself, if anything (RFC 7519 section 5.1, RFC 9068 section 2.1).
_TYPES = frozenset({"jwt", "application/jwt", "at+jwt", "application/at+jwt"})

_LATEST = 2.0**53  # of a time that is taken for one


class TokenIssuer(msgspec.Struct, frozen=True):
    """Somebody whose tokens are believed."""

    name: str
    """Exactly the claim ``iss``."""
    audience: str
    """What the claim ``aud`` must be, or have in it."""
    keys: KeySource
    role_claim: str | None = None
    """The claim with a user's roles, or a path to it such as ``realm_access.roles``."""
    role_scopes: Mapping[str, frozenset[Scope]] = {}
    """What each role may do; others may nothing."""
    is_own: bool = False
    """Whether it is this server."""

    @property
    def source(self) -> str:
        """The source of its subjects."""
        return Source.TOKEN if self.is_own else jwt_source(self.name)


class SignedTokenVerifier:
    """Knows the tokens of some issuers."""

    def __init__(
        self,
        issuers: Sequence[TokenIssuer],
        ended: EndedTokens | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Believe ``issuers``, but for tokens that are ``ended``; ``clock`` tells seconds since the epoch."""
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._ended = ended
        self._clock = clock

    async def verify(self, credential: Credential) -> Caller | None:
        """Return whom a token stands for, or None for what no issuer has signed.

        Raises:
            ShareError: UNAUTHORIZED: the token has been signed, and is not valid here or now; the message
                says why. STORAGE_UNAVAILABLE: its issuer's keys cannot be had, or the store that tells which
                tokens were ended.
        """
        parsed = self._parsed(credential)
        if parsed is None:
            return None
        issuer, header, claims, match = parsed
        if not await _is_signed(issuer.keys, header, match):
            return None
        caller = self._caller(issuer, claims)
        if self._ended is not None and caller.subject is not None and caller.standing is not None:
            token_id = claims.get("jti")
            known_by = TokenClaims(
                issuer.name,
                token_id if isinstance(token_id, str) else None,
                caller.subject,
                time_of_claim(claims, "iat") or 0.0,
            )
            await self._ended.check(known_by)
            self._ended.watch(known_by, caller.standing)
        return caller

    def names_unknown_key(self, credential: Credential) -> bool:
        """Whether a token names a key that its issuer does not have, so there is nothing to verify it with.

        Its key may be too new, or too old. It cannot be a guess at a signature: none comes out right so.
        """
        parsed = self._parsed(credential)
        if parsed is None:
            return False
        issuer, header, _, _ = parsed
        key_id = header.get("kid")
        return isinstance(key_id, str) and not issuer.keys.knows(key_id)

    def _parsed(
        self, credential: Credential
    ) -> tuple[TokenIssuer, dict[str, Any], dict[str, Any], re.Match[str]] | None:
        """Return issuer, header, claims and parts of a token, of which nothing has been verified."""
        if credential.kind is not CredentialKind.TOKEN or len(credential.value) > MAX_CREDENTIAL_LENGTH:
            return None
        parts = _parts(credential.value)
        if parts is None:
            return None
        header, claims, match = parts
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        return None if issuer is None else (issuer, header, claims, match)

    def _caller(self, issuer: TokenIssuer, claims: dict[str, Any]) -> Caller:
        """Return whom ``claims``, which ``issuer`` has signed, stand for.

        Raises:
            ShareError: UNAUTHORIZED.
        """
        audience = claims.get("aud")
        if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _refused("is for another audience")
        now = self._clock()
        expires_at = time_of_claim(claims, "exp")
        if expires_at is None:
            raise _refused("has no time of expiry")
        if now >= expires_at:
            raise _refused("has expired")
        if any((time_of_claim(claims, claim) or 0) > now + LEEWAY for claim in ("nbf", "iat")):
            raise _refused("is not valid yet")
        scopes = _scopes(issuer, claims)
        subject = claims.get("sub")
        if not isinstance(subject, str) or fault_of_subject(subject, scopes) is not None:
            raise _refused("has no subject that can be used here")
        return Caller(
            subject=subject, scopes=scopes, standing=CredentialValidity(expires_at), source=issuer.source
        )


async def read_token(
    text: str, keys: KeySource, kinds: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any], bool] | None:
    """Return header and claims of a token, and whether one of ``keys`` has signed it; None: it is none.

    Args:
        text: the token.
        keys: of whom it may be.
        kinds: values of ``typ``, in lower case, that it may have besides those of a token.

    Raises:
        ShareError: STORAGE_UNAVAILABLE: the keys cannot be had.
    """
    parts = _parts(text)
    if parts is None:
        return None
    header, claims, match = parts
    return header, claims, await _is_signed(keys, header, match, kinds)


def _parts(text: str) -> tuple[dict[str, Any], dict[str, Any], re.Match[str]] | None:
    match = _COMPACT.fullmatch(text)
    if match is None:
        return None
    header, claims = _decoded_object(match[1]), _decoded_object(match[2])
    return None if header is None or claims is None else (header, claims, match)


async def _is_signed(
    keys_of_issuer: KeySource, header: dict[str, Any], token: re.Match[str], kinds: Collection[str] = ()
) -> bool:
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        return False
    if not isinstance(kind, str) or (kind.lower() not in _TYPES and kind.lower() not in kinds):
        return False
    # No extension is understood here, so none may be critical (RFC 7515 section 4.1.11); b64 is one of those.
    if "crit" in header or "b64" in header:
        return False
    signed = f"{token[1]}.{token[2]}".encode("ascii")
    signature = _decoded(token[3])
    if signature is None:
        return False
    keys = await keys_of_issuer.candidates(key_id, algorithm)
    return any(key.verifies(algorithm, signed, signature) for key in keys)


def _scopes(issuer: TokenIssuer, claims: dict[str, Any]) -> frozenset[Scope]:
    named = {word for word in claim_words(claims.get("scope")) if word in set(Scope)}
    if issuer.role_claim is not None:
        # Who maps roles decides by them who is an admin, and not by what the issuer lets clients ask for.
        named.discard(Scope.ADMIN.value)
    scopes = frozenset(map(Scope, named))
    if issuer.role_claim is not None:
        for role in claim_words(claim_at(claims, issuer.role_claim), split=False):
            scopes |= issuer.role_scopes.get(role, frozenset())
    return scopes


def claim_words(value: object, *, split: bool = True) -> list[str]:
    """Return the strings in a claim that is a list of them, or one string; with ``split``, of several."""
    if isinstance(value, str):
        return value.split() if split else [value]
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def claim_at(claims: dict[str, Any], path: str) -> object:
    """Return the claim named ``path``, which may have dots in its name, or the one that it leads to."""
    if path in claims:
        return claims[path]
    value: object = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def time_of_claim(claims: dict[str, Any], name: str) -> float | None:
    """Return the claim ``name`` as seconds since the epoch, or None if it is not there.

    Raises:
        ShareError: UNAUTHORIZED: it is no time.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _refused(f"has a claim {name} that is no time")
    return float(value)


def _decoded_object(text: str) -> dict[str, Any] | None:
    content = _decoded(text)
    try:
        value = jsontext.decode(content or b"")
    except jsontext.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _decoded(text: str) -> bytes | None:
    """Return what ``text`` is the base64url form of, or None: of all that decode to it only one is taken."""
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return content if encoded(content) == text else None


def encoded(content: bytes) -> str:
    """Return ``content`` in base64url, as the parts of a token are."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _refused(why: str) -> ShareError:
    return ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized: the token {why}")
