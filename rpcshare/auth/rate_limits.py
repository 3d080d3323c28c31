"""Limits on what one caller, or one address, may do: creates, failed authentications, connections.

Each node counts for itself, in memory that is bounded: of too many callers at once the oldest is forgotten.
Where a node is several processes, each tells the others what it counts (:mod:`rpcshare.auth.shared_limits`).
"""

import hashlib
import ipaddress
import math
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError

__all__ = [
    "SITE_FACTOR",
    "CallerLimits",
    "ConnectionLimit",
    "FailureLimit",
    "RateLimit",
    "UncountedRefusalError",
    "network_of",
    "refuse_until",
]

WINDOW = 60.0
"""Seconds in which is counted."""

MAX_COUNTED = 100_000
"""Callers or addresses that are counted at once, some 10 MB of them."""

MAX_KNOWN = 10_000
"""Credentials that are remembered, by a hash, as having been right."""

SITE = 48
"""The length of prefix that a site may get in IPv6: 65,536 networks of one household each."""

SITE_FACTOR = 8
"""How many times as often as from one network there may be failures from a whole site."""

_CONNECTION_PAUSE = 10.0  # seconds: one of so many connections ends sooner or later

_FAILURES = frozenset({ErrorCode.UNAUTHORIZED, ErrorCode.INVALID_SECRET})

Clock = Callable[[], float]


class UncountedRefusalError(ShareError):
    """What was shown is refused, and cannot have been a guess: it counts as no failure."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNAUTHORIZED, message)


class RateLimit:
    """So many times a minute for each key. A minute begins with the first time."""

    def __init__(self, limit: int, clock: Clock = time.monotonic, *, max_keys: int = MAX_COUNTED) -> None:
        """Take the ``limit``; 0 is off. The clock tells seconds, and never goes back."""
        self.limit = limit
        self._clock = clock
        self._max_keys = max_keys
        # When the minute of each began, and the count: in the order in which they began.
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.on_count: Callable[[str], None] | None = None
        """Is called with the key of what is counted here, for other processes to :meth:`add`."""
        self.refused = 0
        """How often there were too many."""

    def count(self, key: str) -> None:
        """Count one more."""
        if not self.limit:
            return
        self.add(key)
        if self.on_count is not None:
            self.on_count(key)

    def add(self, key: str, number: int = 1) -> None:
        """Count one, or more, that another process has counted."""
        began, count = self._current(key)
        self._counts[key] = (began, count + number)
        if len(self._counts) > self._max_keys:
            self._counts.popitem(last=False)

    def wait(self, key: str, limit: int | None = None) -> float:
        """Return for how many seconds there may be no more; 0 if there may be one now.

        A key may have a ``limit`` of its own.
        """
        if not self.limit or key not in self._counts:
            return 0.0
        began, count = self._current(key)
        most = self.limit if limit is None else limit
        return began + WINDOW - self._clock() if count >= most else 0.0

    def number(self, key: str) -> int:
        """Return how many there have been in the minute of a key."""
        return self._current(key)[1] if key in self._counts else 0

    def take(self, key: str, what: str) -> None:
        """Count one more, if there may be.

        Raises:
            ShareError: RATE_LIMITED; ``what`` names in it what there have been too many of.
        """
        self.check(key, what)
        self.count(key)

    def check(self, key: str, what: str) -> None:
        """Return if there may be one more. Raises as :meth:`take` does."""
        seconds = self.wait(key)
        self.refused += seconds > 0
        refuse_until(seconds, f"Too many {what}: {self.limit:,} a minute are allowed")

    def _current(self, key: str) -> tuple[float, int]:
        now = self._clock()
        while self._counts:
            oldest = next(iter(self._counts))
            if now - self._counts[oldest][0] < WINDOW:
                break
            del self._counts[oldest]
        return self._counts.get(key, (now, 0))


class FailureLimit:
    """Makes guessing slow: so many wrong credentials and secrets a minute from one network.

    After them, what is shown from there is refused unseen, right or wrong, or guessing would go on; but for
    what has been right not long ago: whoever guesses may have honest neighbours behind the same address.
    """

    def __init__(self, limit: int, clock: Clock = time.monotonic, *, key: bytes | None = None) -> None:
        """Allow ``limit`` failures a minute; 0 is off. Processes that tell each other share a ``key``."""
        self.of_networks = RateLimit(limit, clock)
        self.of_sites = RateLimit(limit * SITE_FACTOR, clock)
        self.on_known: Callable[[bytes], None] | None = None
        """Is called with the hash of what has been right here, for other processes to :meth:`know`."""
        self.refused = 0
        """How often something was refused unseen."""
        # Keyed, so that what is kept tells nobody anything.
        self._key = key or secrets.token_bytes(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()

    @contextmanager
    def attempt(self, address: str, shown: str) -> Iterator[None]:
        """Verify in this context what is ``shown``; UNAUTHORIZED and INVALID_SECRET out of it count.

        An :class:`UncountedRefusalError` does not.

        Raises:
            ShareError: RATE_LIMITED, instead of entering the context.
        """
        if not self.of_networks.limit:
            yield
            return
        network, site = network_of(address), network_of(address, SITE)
        digest = hashlib.blake2b(
            shown.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key
        ).digest()
        if digest not in self._known:
            seconds = max(self.of_networks.wait(network), self.of_sites.wait(site))
            self.refused += seconds > 0
            refuse_until(seconds, "Too many failed authentications from this address")
        try:
            yield
        except ShareError as exc:
            if exc.code in _FAILURES and not isinstance(exc, UncountedRefusalError):
                self.of_networks.count(network)
                self.of_sites.count(site)
                self._known.pop(digest, None)
            raise
        if digest not in self._known and self.on_known is not None:
            self.on_known(digest)
        self.know(digest)

    def know(self, digest: bytes) -> None:
        """Remember what has been right."""
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


class ConnectionLimit:
    """So many connections of one caller at once."""

    def __init__(self, limit: int) -> None:
        """Take the ``limit``; 0 is off."""
        self._limit = limit
        self.open: Counter[str] = Counter()
        """How many each caller has here."""
        self.elsewhere: dict[int, dict[str, int]] = {}
        """How many each caller has in other processes, by process."""
        self.on_change: Callable[[str], None] | None = None
        """Is called with whose number here is another."""
        self.refused = 0
        """How often a caller had too many."""

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Count a connection of ``caller`` while the context lasts.

        Raises:
            ShareError: RATE_LIMITED, instead of entering the context.
        """
        key = _key_of(caller)
        if 0 < self._limit <= self.open[key] + sum(held.get(key, 0) for held in self.elsewhere.values()):
            self.refused += 1
            refuse_until(_CONNECTION_PAUSE, f"Too many connections: {self._limit:,} are allowed at once")
        self._add(key, 1)
        try:
            yield
        finally:
            self._add(key, -1)

    def _add(self, key: str, number: int) -> None:
        self.open[key] += number
        if not self.open[key]:
            del self.open[key]
        if self.on_change is not None:
            self.on_change(key)


class CallerLimits:
    """The limits of one server. Off, as long as nobody says how many."""

    def __init__(
        self,
        *,
        creates: int = 0,
        failed_authentications: int = 0,
        connections: int = 0,
        clock: Clock = time.monotonic,
        key: bytes | None = None,
    ) -> None:
        """Take each limit; 0 is off.

        Args:
            creates: calls that make shares, a minute and caller.
            failed_authentications: wrong credentials, secrets and passwords, a minute and network.
            connections: open at once, of a caller.
            clock: tells seconds, and never goes back.
            key: as for :class:`FailureLimit`.
        """
        self.creates = RateLimit(creates, clock)
        self.failures = FailureLimit(failed_authentications, clock, key=key)
        self.connections = ConnectionLimit(connections)

    def check_create(self, caller: Caller) -> None:
        """Return if ``caller`` may make one more share now. Raises RATE_LIMITED."""
        self.creates.check(_key_of(caller), "shares made")

    def take_create(self, caller: Caller) -> None:
        """Count a share that ``caller`` makes. Raises RATE_LIMITED."""
        self.creates.take(_key_of(caller), "shares made")


@lru_cache(maxsize=4096)
def network_of(address: str, prefix: int = 64) -> str:
    """Return what is counted of an address: of IPv6, the /64 that one household has, or a wider one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, prefix), strict=False))


def _key_of(caller: Caller) -> str:
    return network_of(caller.address) if caller.owner is None else f"subject {caller.owner}"


def refuse_until(seconds: float, message: str) -> None:
    """Return if there is nothing to wait for. Raises RATE_LIMITED, with the seconds."""
    if seconds > 0:
        # In the message too: over RPC there is no Retry-After.
        message = f"{message}; try again in {math.ceil(seconds)} s"
        raise ShareError(ErrorCode.RATE_LIMITED, message, retry_after=seconds)
