"""Numbers, times and durations as people read them."""

import math
from datetime import UTC, datetime

__all__ = ["count", "duration", "iso_time", "moment", "money", "plural", "size", "tokens"]

_LATEST = 253402300799000  # ms: the end of the year 9999


def count(number: float) -> str:
    """Return a whole number with thousands apart."""
    return f"{int(number):,}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def money(dollars: float | None) -> str:
    """Return an amount in dollars; empty for none at all."""
    if not dollars or dollars < 0 or dollars > 1e9:
        return ""
    if dollars < 0.0001:
        return "< $0.0001"
    return f"${dollars:,.4f}" if dollars < 0.1 else f"${dollars:,.2f}"


def tokens(number: float) -> str:
    """Return a number of tokens, short."""
    if number < 1000:
        return str(int(number))
    for bound, unit in ((1e6, "k"), (1e9, "M")):
        if number < bound:
            scaled = number / (bound / 1000)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{min(number, 1e15) / 1e9:.1f}G"


def size(number: int) -> str:
    """Return a number of bytes, short."""
    if number < 1000:
        return f"{number} B"
    if number < 1_000_000:
        return f"{number / 1000:.0f} kB"
    return f"{number / 1e6:.1f} MB" if number < 1_000_000_000 else f"{number / 1e9:.1f} GB"


def duration(start: float | None, end: float | None) -> str:
    """Return how long something took, from two times in milliseconds; empty if that is not known.

    It is not known of what has one time for both: transcripts of some agents have no other.
    """
    if not start or end is None or not 0 < end - start < 1e12:
        return ""
    milliseconds = end - start
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = math.floor(seconds / 60)
    if minutes < 60:
        return f"{minutes} min {seconds % 60:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(milliseconds: float | None) -> str:
    """Return a time as ``20 Nov 2026, 13:05 UTC``; empty for none."""
    when = _datetime(milliseconds)
    return f"{when.day} {when:%b %Y, %H:%M} UTC" if when else ""


def iso_time(milliseconds: float | None) -> str:
    """Return a time for the ``datetime`` of a ``<time>``; empty for none."""
    when = _datetime(milliseconds)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else ""


def _datetime(milliseconds: float | None) -> datetime | None:
    if not milliseconds or not 0 < milliseconds < _LATEST:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
