"""What a proxy shows to be believed, beside the address that it comes from: a secret in a header.

An address alone proves little where others are in the same network. Who knows the secret is the proxy.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ProxySecret", "fault_of_proxy_secret", "read_proxy_secret"]

_MIN_LENGTH, _MAX_LENGTH = 16, 1024
_SECRET = re.compile(rf"[\x21-\x7e]{{{_MIN_LENGTH},{_MAX_LENGTH}}}")


class ProxySecret:
    """The secret, and the header in which it is shown."""

    def __init__(self, secret: str, header: str) -> None:
        self._digest = _digest(secret.encode("ascii"))
        self._header = header.lower().encode("ascii")

    def __repr__(self) -> str:
        """Leave out the secret."""
        return f"ProxySecret(header={self._header!r})"

    def take(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Return ``headers`` without the secret, and whether it was shown: once, and right.

        Of several values one may be the client's own, so they prove nothing.
        """
        left, shown = [], []
        for name, value in headers:
            if name.lower() == self._header:
                shown.append(value.strip())
            else:
                left.append((name, value))
        return left, len(shown) == 1 and hmac.compare_digest(_digest(shown[0]), self._digest)


def fault_of_proxy_secret(secret: str) -> str | None:
    """Return what is wrong with ``secret``, or None if nothing is."""
    if _SECRET.fullmatch(secret) is None:
        return f"must be {_MIN_LENGTH} to {_MAX_LENGTH:,} visible ASCII characters, none of them a space"
    return None


def read_proxy_secret(path: Path) -> str:
    """Return the secret in a file, which may end with a line break.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds none.
    """
    with path.open("rb") as file:
        secret = file.read(_MAX_LENGTH + 2).decode("ascii", "replace").strip()
    if fault := fault_of_proxy_secret(secret):
        raise ValueError(f"what {path} holds {fault}")
    return secret


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()  # of one length, so that comparing does not tell the secret's
