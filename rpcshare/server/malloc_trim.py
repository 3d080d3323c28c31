"""Memory that has been freed goes back to the system.

The C library keeps what is freed, for it may be wanted again: after a burst of large requests a server would
look as large for ever. So blocks of 128 KiB and more are mapped one by one, and go back when they are freed
(``M_MMAP_THRESHOLD``, which the library would raise up to 32 MiB); all threads share two arenas
(``M_ARENA_MAX``); and what is free in those is given back once the process has been larger (``malloc_trim``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["giving_back", "trim_memory", "tune_allocator"]

# <malloc.h> of the GNU C library: mallopt(3).
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_THRESHOLD = 128 * 1024
_ARENAS = 2

_EVERY, _SELDOM = 2.0, 4.0  # seconds between two tries: after one that gave back much, and at most
_GROWTH = (
    16 * 2**20
)  # bytes beyond the least that there was, from which on there may be something to give back
_MUCH = 4 * 2**20  # bytes
_MANY = 50_000  # blocks that Python has allocated, which it may keep room for when they are freed


def tune_allocator() -> None:
    """Have large blocks mapped one by one, and few arenas, if the C library is GNU's."""
    library = _library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
        library.mallopt(_M_ARENA_MAX, _ARENAS)


@contextlib.contextmanager
def giving_back() -> Iterator[None]:
    """Give back what is free after the process has been larger. Needs a running event loop."""
    library = _library()
    if library is None:
        yield
        return
    task = asyncio.create_task(_give_back_repeatedly(library.malloc_trim))
    try:
        yield
    finally:
        task.cancel()


def trim_memory() -> None:
    """Have the C library give back what it keeps of freed memory, where it is one that keeps much.

    After large pages, that is some 60 MB. It takes milliseconds, without the interpreter's lock.
    """
    library = _library()
    if library is not None:
        library.malloc_trim(0)


async def _give_back_repeatedly(trim: Callable[[int], int]) -> None:
    # That something has been freed cannot be seen from outside: small blocks stay with the process. So it is
    # tried, the less often the less has come of it.
    least = last = _resident()
    last_blocks = sys.getallocatedblocks()
    pause = _EVERY
    has_looked_at_all = False
    while True:
        await asyncio.sleep(pause)
        before, blocks = _resident(), sys.getallocatedblocks()
        least = min(least, before)
        is_growing = before - last > _MUCH or blocks - last_blocks > _MANY
        if is_growing or last - before > _MUCH or last_blocks - blocks > _MANY:
            has_looked_at_all = False  # much has come or gone, and left garbage, maybe
        last, last_blocks = before, blocks
        if before < least + _GROWTH:
            pause = _EVERY
            continue
        # What an error has held in its traceback, and little else, is in cycles. Most are young. All objects
        # are looked at only once after each change, when it is over: that holds everybody up for a moment. It
        # also empties the interpreter's lists of free tuples, one of which can keep 256 KiB that are free.
        is_thorough = pause == _SELDOM and not (is_growing or has_looked_at_all)
        gc.collect(2 if is_thorough else 1)
        await asyncio.to_thread(trim, 0)  # without the interpreter's lock
        last, last_blocks = _resident(), sys.getallocatedblocks()
        gave_much = before - last > _MUCH
        has_looked_at_all = is_thorough or (has_looked_at_all and not gave_much)
        pause = _EVERY if gave_much else min(2 * pause, _SELDOM)


def _resident() -> int:
    """Return how many bytes of memory the process has."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _library() -> ctypes.CDLL | None:
    if not Path("/proc/self/statm").exists():
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
