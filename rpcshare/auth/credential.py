"""What a caller shows to say who it is, and the seam at which that is verified."""

import re
from enum import StrEnum
from typing import Protocol

import msgspec

from rpcshare.auth.caller import Caller

__all__ = ["MAX_CREDENTIAL_LENGTH", "Credential", "CredentialKind", "CredentialVerifier"]

MAX_CREDENTIAL_LENGTH = 8192
"""In characters. A signed token with many claims has 4,000; servers commonly take 8 kB a header."""

_WELL_FORMED = re.compile(rf"[\x21-\x7e]{{1,{MAX_CREDENTIAL_LENGTH}}}")


class CredentialKind(StrEnum):
    """In which of the forms of PROTOCOL.md, "Who is asking", a credential was shown."""

    TOKEN = "token"  # noqa: S105 -- a kind's name
    """A token of any sort: ``Bearer``, ``x-opencode-share-key``, WebSocket subprotocol, in-band."""
    API_KEY = "api-key"
    """``Authorization: ApiKey KEY``: a stored key and nothing else."""
    PATH_KEY = "path-key"
    """The path prefix ``/k/KEY``: a stored key or the admin token."""
    SESSION = "session"
    """The cookie of a browser that is signed in as a user: nothing else is, and shown in no other way."""


class Credential(msgspec.Struct, frozen=True):
    """A credential as it was shown; nothing about it has been verified."""

    kind: CredentialKind
    value: str

    def __repr__(self) -> str:
        """Return a form without the value."""
        return f"Credential({self.kind.value})"

    @property
    def is_well_formed(self) -> bool:
        """Whether the value is 1 to 8,192 visible ASCII characters: no other is worth verifying."""
        return _WELL_FORMED.fullmatch(self.value) is not None


class CredentialVerifier(Protocol):
    """Knows the callers of one sort of credential."""

    async def verify(self, credential: Credential) -> Caller | None:
        """Return whom ``credential`` stands for, or None if this verifier does not know it.

        Raises:
            ShareError: it cannot be told now, for instance because the store is unavailable.
        """
        ...
