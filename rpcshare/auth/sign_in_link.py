"""A link that signs in whoever has started the server: once, and not for long."""

import os
import secrets
import time
from collections.abc import Callable
from hmac import compare_digest

__all__ = ["LASTS", "SignInLink"]

LASTS = 600.0
"""Seconds."""


class SignInLink:
    """The secret of a link, which stands once for a token: in one of all processes that are forked later."""

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Stand for ``token``. The clock tells seconds, and never goes back."""
        self._token = token
        self._clock = clock
        self._ends_at = clock() + LASTS
        self._secret = secrets.token_urlsafe(32)
        # Of all processes that have it, only one can read the byte that is in the pipe.
        self._once, writer = os.pipe()
        os.set_blocking(self._once, False)
        os.write(writer, b"1")
        os.close(writer)

    def address(self, base_url: str) -> str:
        """Return the link. Its secret is in the fragment, which browsers send to nobody."""
        return f"{base_url}/sign-in#once={self._secret}"

    def take(self, shown: str) -> str | None:
        """Return the token, if what is shown is the secret, for the first time and in time."""
        if not compare_digest(shown.encode("utf-8", "replace"), self._secret.encode()):
            return None
        if self._clock() >= self._ends_at or os.read(self._once, 1) != b"1":
            return None
        return self._token
