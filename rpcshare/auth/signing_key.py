"""Tokens that the server signs itself, with an Ed25519 key that only its nodes have."""

import math
import time
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Self
from uuid import uuid4

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from rpcshare import jsontext
from rpcshare.auth.caller import Scope
from rpcshare.auth.jwks import FixedKeys
from rpcshare.auth.secret_files import SecretFileError, signing_key
from rpcshare.auth.signed_tokens import TokenIssuer, encoded
from rpcshare.auth.subjects import fault_of_subject
from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["DEFAULT_LIFETIME", "OWN_ISSUER", "SigningKey"]

OWN_ISSUER = "rpcshare"
"""The issuer and the audience of tokens that servers sign for themselves: whose they are, the key tells."""

DEFAULT_LIFETIME = "30d"

MAX_LIFETIME = 366 * 86_400.0
"""In seconds: so long the store remembers which tokens were ended. An API key need not end."""

_ALGORITHM = "EdDSA"


class SigningKey:
    """The key of this server."""

    algorithms = frozenset({_ALGORITHM})

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key()
        # RFC 7638, and RFC 8037 section 2. All of JOSE for this would be a good part of a server's start.
        jwk = {"crv": "Ed25519", "kty": "OKP", "x": encoded(self._public.public_bytes_raw())}
        self.id = encoded(sha256(jsontext.encode(jwk)).digest())

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's, of ``signed``."""
        if algorithm not in self.algorithms:
            return False
        try:
            self._public.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    @classmethod
    def kept(cls, configured: Path | None, data_dir: Path) -> Self:
        """Return the key in the file ``configured``, else the one in ``data_dir``, made if it is not there.

        Raises:
            SecretFileError: there is no such file, or no Ed25519 private key in it, in PEM, not encrypted.
        """
        path, text = signing_key(configured, data_dir, _new_pem)
        try:
            key = load_pem_private_key(text.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise SecretFileError(
                f"{path} does not hold an Ed25519 private key (PEM, not encrypted): "
                "'openssl genpkey -algorithm ed25519' makes one"
            )
        return cls(key)

    def issuer(self) -> TokenIssuer:
        """Return what is needed to believe the tokens of this key."""
        return TokenIssuer(name=OWN_ISSUER, audience=OWN_ISSUER, keys=FixedKeys([self]), is_own=True)

    def sign(
        self,
        subject: str,
        scopes: Collection[str],
        expires_in: object = DEFAULT_LIFETIME,
        *,
        token_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> str:
        """Return a token.

        Args:
            subject: whom it stands for.
            scopes: what that one may do.
            expires_in: for how long, as :func:`~rpcshare.durations.parse_duration` takes it; at most 366 d.
            token_id: its claim ``jti``, by which it can be ended; None: a random one.
            clock: tells seconds since the epoch.

        Raises:
            ShareError: INVALID_ARGUMENT.
        """
        if not scopes or not set(scopes) <= set(Scope):
            raise _invalid(f"scope: must be one or more of {', '.join(Scope)}")
        granted = frozenset(map(Scope, scopes))
        if fault := fault_of_subject(subject, granted):
            raise _invalid(f"subject: {fault}")
        try:
            lifetime = parse_duration(expires_in)
        except ValueError as exc:
            raise _invalid(f"expires: {exc}") from None
        if lifetime > MAX_LIFETIME:
            raise _invalid("expires: must be at most 366d; an API key need not end")
        now = clock()
        header = {"alg": _ALGORITHM, "kid": self.id, "typ": "JWT"}
        claims = {
            "iss": OWN_ISSUER,
            "aud": OWN_ISSUER,
            "sub": subject,
            "scope": " ".join(sorted(granted)),
            # Not rounded: what is signed right after all tokens were ended is good.
            "iat": round(now, 3),
            "exp": math.ceil(now + lifetime),
            "jti": token_id or uuid4().hex,
        }
        signed = f"{encoded(jsontext.encode(header))}.{encoded(jsontext.encode(claims))}"
        return f"{signed}.{encoded(self._key.sign(signed.encode('ascii')))}"


def _new_pem() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii").strip()


def _invalid(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
