"""How much a peer may ask of a session."""

from typing import Final

import msgspec

__all__ = ["MAX_CHAIN", "MAX_DEPTH", "PROMISE_WEIGHT", "Limits"]

MAX_DEPTH: Final = 1000
"""Of nesting, however high :attr:`Limits.depth` is: the codec, which may be compiled, recurses so far."""


MAX_CHAIN: Final = 64
"""Of promises of promises: how many have to be waited for, one within the other, to have one value."""


PROMISE_WEIGHT: Final = 128
"""For how many values a promise within one of those counts: a message that holds it may be referred to twice,
and the next to that, so that a few short ones would stand for more than there is memory for."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what a peer may send or make this side hold; 0 turns one off.

    They are this side's alone: nothing is negotiated (PROTOCOL.md, "Limits"). A peer that goes past
    one gets an ``abort`` that names it, and its session ends; other sessions do not notice.
    """

    message_bytes: int = 16 * 1024 * 1024
    """Of one message in its encoded form."""

    depth: int = 256
    """Of nested arrays and objects in one message: npm capnweb's own bound, in both directions.

    With 0 it is ``MAX_DEPTH``, which nothing is above.
    """

    values: int = 500_000
    """Of one message, and of all that is copied because of it: an array counts for one, as does each element.

    A short message may stand for a great many of them, and what has begun is not interrupted: so many take up
    to 0.2 s. Sessions of agents have a value in about 50 bytes, so that 16 MiB of them stay below it.
    """

    memory_bytes: int = 320 * 1024 * 1024
    """Of memory that the session takes, about: what the peer has sent and not released, what it has asked to
    have copied, and what waits for it."""

    bigint_digits: int = 16_384
    """Of one bigint: parsing takes more than linear time (npm capnweb has the same bound)."""

    exports: int = 65_536
    """Entries of the export table, which only the peer's releases make smaller."""

    unread_bytes: int = 64 * 1024 * 1024
    """Of stream messages that have not been answered, because nobody has read what they bring."""

    map_steps: int = 20_000
    """Instructions that one ``remap`` message may take to apply, those of maps within it included."""

    calls_in_flight: int = 1_024
    """Calls that the peer has made and that have not returned."""
