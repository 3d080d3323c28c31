"""The seam at which wrong passwords and share secrets are counted."""

from typing import Protocol

from rpcshare.auth.caller import Caller

__all__ = ["Guesses"]


class Guesses(Protocol):
    """Counts what callers have guessed wrong, by their addresses say."""

    def admit(self, caller: Caller) -> None:
        """Return if ``caller`` may show a password or a secret.

        Raises:
            ShareError: RATE_LIMITED: it has shown too many that were wrong.
        """
        ...

    def failed(self, caller: Caller) -> None:
        """Hear that what ``caller`` has shown was wrong."""
        ...
