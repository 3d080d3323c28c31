"""The order of keys, and where a prefix lies in it."""

__all__ = ["key_range"]

_BEHIND_EVERY_KEY = "\x80"  # keys are ASCII


def key_range(prefix: str, start_after: str = "") -> tuple[str, str]:
    """Return ``(first, end)``: keys under ``prefix`` behind ``start_after`` are in [first, end).

    Stores seek to ``first`` in an ordered index instead of matching every key against a pattern.
    """
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else _BEHIND_EVERY_KEY
    # "\0" makes the smallest string that is greater than start_after.
    return (prefix if start_after < prefix else start_after + "\0"), end
