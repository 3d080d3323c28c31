"""The keys that signed tokens are verified with (RFC 7517), each for the algorithms of its type and no other.

Which algorithms a key may be used with follows from the key alone: a token's header chooses among those. So a
public key is never taken for the secret of an HMAC, and ``none`` is no algorithm of any key.
"""

import re
import warnings
from collections.abc import Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

from rpcshare import jsontext

__all__ = ["TokenKey", "keys_of_document", "keys_of_jwks", "secret_key"]

MIN_RSA_BITS = 2048
MAX_KEYS = 100
"""In one set: who shows tokens without a key id has all of them tried."""

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)


class TokenKey:
    """A key to verify with, its id, and the algorithms that it is for."""

    def __init__(self, key: Key, key_id: str | None, algorithms: Sequence[str]) -> None:
        self._key = key
        self.id = key_id
        self.algorithms: frozenset[str] = frozenset(algorithms)

    def __repr__(self) -> str:
        """Leave out the key, which may be a secret."""
        return f"TokenKey({self.id!r}, {sorted(self.algorithms)})"

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's, by ``algorithm``, of ``signed``."""
        if algorithm not in self.algorithms:
            return False
        try:
            return JWSRegistry.algorithms[algorithm].verify(signed, signature, self._key)
        except (JoseError, ValueError):  # a signature that is none, or a key whose key_ops forbid it
            return False


def secret_key(secret: str) -> TokenKey:
    """Return the key for tokens that are signed with a shared secret."""
    return TokenKey(OctKey.import_key(secret), None, ["HS256", "HS384", "HS512"])


def keys_of_document(content: bytes) -> list[TokenKey]:
    """Return the public keys in a file: in PEM, one or several, or as a JWK or a JWKS.

    Raises:
        ValueError: it holds no key that tokens can be verified with, or a private one.
    """
    blocks = list(_PEM.finditer(content))
    if blocks:
        return [_key_of_pem(block[0]) for block in blocks]
    try:
        value = jsontext.decode(content)
    except jsontext.JSONDecodeError:
        raise ValueError("is neither PEM nor JSON") from None
    if isinstance(value, dict) and "keys" not in value:
        value = {"keys": [value]}
    keys = keys_of_jwks(value)
    if any(isinstance(each, dict) and "d" in each for each in value["keys"]):
        raise ValueError("holds a private key: give the public one alone")
    if not keys:
        raise ValueError("holds no Ed25519, P-256 or RSA key of 2,048 bits or more for signatures")
    return keys


def keys_of_jwks(value: object) -> list[TokenKey]:
    """Return the keys of a JWKS that tokens can be verified with; those for anything else are left out.

    Raises:
        ValueError: it is no JWKS, or one of very many keys.
    """
    members = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(members, list):
        raise ValueError("is not a JWKS")  # noqa: TRY004 -- one kind of error for all that is wrong with it
    if len(members) > MAX_KEYS:
        raise ValueError(f"has more than {MAX_KEYS} keys")
    return [key for member in members if (key := _key_of_jwk(member)) is not None]


def _key_of_pem(block: bytes) -> TokenKey:
    if b"PRIVATE KEY" in block:
        raise ValueError("holds a private key: give the public one alone")
    try:
        public = load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds a PEM block that is no public key") from None
    key: Key
    if isinstance(public, Ed25519PublicKey):
        key = OKPKey.import_key(public)
    elif isinstance(public, EllipticCurvePublicKey):
        key = ECKey.import_key(public)
    elif isinstance(public, RSAPublicKey) and public.key_size >= MIN_RSA_BITS:
        key = RSAKey.import_key(public)
    else:
        raise ValueError("must be an Ed25519, a P-256 or an RSA key of 2,048 bits or more")
    algorithms = _algorithms(key)
    if not algorithms:
        raise ValueError("must be on the curve P-256")
    return TokenKey(key, None, algorithms)


def _key_of_jwk(member: object) -> TokenKey | None:
    if not isinstance(member, dict) or member.get("kty") not in ("OKP", "EC", "RSA"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of short keys, which are left out
            key = import_key(member)
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    algorithms = _algorithms(key)
    if key.alg is not None:
        algorithms = [name for name in algorithms if name == key.alg]
    is_for_signatures = member.get("use") in (None, "sig") and "verify" in member.get("key_ops", ["verify"])
    return TokenKey(key, key.kid, algorithms) if algorithms and is_for_signatures else None


def _algorithms(key: Key) -> list[str]:
    """Return what ``key`` may be used with: this, and nothing in a token, decides."""
    match key:
        case OKPKey(curve_name="Ed25519"):
            return ["EdDSA", "Ed25519"]  # the second is its name since RFC 9864
        case ECKey(curve_name="P-256"):
            return ["ES256"]
        case RSAKey() if key.public_key.key_size >= MIN_RSA_BITS:
            return ["RS256"]
        case _:
            return []
