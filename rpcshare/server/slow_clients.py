"""What has been sent on a connection and its client has not taken: for how long that waits."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

__all__ = ["SLOW_CLIENT_TIMEOUT", "SlowClients", "waiting_on"]

SLOW_CLIENT_TIMEOUT = 60.0
"""For how long, in seconds, a client may take nothing at all of what waits for it, at most a quarter more."""

# How often it is looked within that time.
_LOOKS = 4


class SlowClients:
    """Cuts off a connection whose client takes nothing, be it slow as it may otherwise.

    What waits is in memory, or in the kernel until the client has acknowledged it. The former alone does not
    tell: of what has been encrypted, a transport for TLS knows no more. Where the kernel does not say how
    much it has (Linux does), the end of a connection over TLS has the same time, whatever its client takes.
    """

    __slots__ = ("_interval", "_looks", "_loop", "_timer", "_transport", "_waited")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience: float
    ) -> None:
        """Watch ``transport`` until :meth:`stop`."""
        self._transport = transport
        self._loop = loop
        self._interval = patience / _LOOKS
        # What waited when it was last looked, and how often it has been the same since.
        self._waited = (0, 0)
        self._looks = 0
        self._timer = loop.call_later(self._interval, self._look)

    def stop(self) -> None:
        """Look no more: the connection is lost, or another protocol's."""
        self._timer.cancel()

    def has_left(self) -> bool:
        """Whether the client has all that it was sent."""
        return not any(waiting_on(self._transport))

    def _look(self) -> None:
        waiting = waiting_on(self._transport)
        if waiting != self._waited or not (any(waiting) or self._transport.is_closing()):
            self._waited = waiting
            self._looks = 0
        else:
            self._looks += 1
        if self._looks == _LOOKS:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._interval, self._look)


def waiting_on(transport: asyncio.Transport) -> tuple[int, int]:
    """Return how many bytes wait in ``transport``, and in the kernel (0 where that cannot be asked)."""
    return transport.get_write_buffer_size(), _in_kernel(transport)


def _in_kernel(transport: asyncio.Transport) -> int:
    try:
        descriptor = transport.get_extra_info("socket").fileno()
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it cannot be asked, or there is no connection any more
        return 0
    return int(struct.unpack("i", answer)[0])
