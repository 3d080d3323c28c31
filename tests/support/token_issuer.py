"""An issuer of tokens, good and bad, for tests."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://id.example"
AUDIENCE = "https://share.example"


def make_key(algorithm: str) -> OKPKey | ECKey | RSAKey:
    match algorithm:
        case "EdDSA" | "Ed25519":
            return OKPKey.generate_key("Ed25519")
        case "ES256":
            return ECKey.generate_key("P-256")
        case "ES384":
            return ECKey.generate_key("P-384")
        case _:
            return RSAKey.generate_key(2048)


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def claims(**others: Any) -> dict[str, Any]:
    """Return the claims of a token that is fine, changed by ``others``; None takes one away."""
    now = int(time.time())
    fine = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "scope": "create", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**fine, **others}.items() if value is not None}


def jwk(key: Key, key_id: str, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key_id, **members}


def pem(key: Key) -> bytes:
    public = key.public_key
    assert not isinstance(public, bytes)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def token(key: Key | bytes | None, algorithm: str, payload: Any = None, **header: Any) -> str:
    """Return a token signed by ``key``: bytes for an HMAC, None for no signature at all."""
    head = {
        name: value for name, value in {"alg": algorithm, "typ": "JWT", **header}.items() if value is not None
    }
    signed = ".".join(
        base64url(json.dumps(part).encode()) for part in (head, claims() if payload is None else payload)
    )
    if key is None:
        return f"{signed}."
    if isinstance(key, bytes):
        signature = hmac.new(key, signed.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
    else:
        signature = JWSRegistry.algorithms[algorithm].sign(signed.encode(), key)
    return f"{signed}.{base64url(signature)}"
