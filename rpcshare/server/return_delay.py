"""When the clients of a server that stops are to come back.

They are spread over some seconds, so that the server that comes next is not asked by all of them at once.
"""

import random

__all__ = ["return_delay", "with_return_delay"]

# Clients that come back in a second: a core makes about 1,000 sessions in that time.
_PER_SECOND = 500

# No client waits for longer, in seconds, however many there are.
_LONGEST = 5.0


def return_delay(clients: int) -> float:
    """Return after how many seconds one of so many clients is to come back, chosen at random."""
    return random.uniform(0.0, min(_LONGEST, clients / _PER_SECOND))  # noqa: S311 -- not a secret


def with_return_delay(reason: str, clients: int) -> str:
    """Return the reason of a close code with the delay in it (PROTOCOL.md, T-16)."""
    return f"{reason} (retry-after={return_delay(clients):.2f})"
