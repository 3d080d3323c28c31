"""Memory that has been freed, given back to the system."""

import ctypes
import sys

__all__ = ["trim_memory"]


def trim_memory() -> None:
    """Have the C library give back what it keeps of freed memory, where it is one that keeps much (glibc).

    After large pages, that is some 60 MB. It takes milliseconds, without the interpreter's lock.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and keeps little
    if trim is not None:
        trim(0)
