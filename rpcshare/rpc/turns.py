"""Things done one after another that would else be done within each other, however long a chain they are."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["in_turn"]

logger = logging.getLogger("rpcshare.rpc")


class _Turns(threading.local):
    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.is_running = False


_turns = _Turns()


def in_turn(action: Callable[[], None]) -> None:
    """Carry out ``action``: now or, if that is within another of this thread, as soon as that is done.

    What it raises is logged: whoever has its turn taken may not be whom it concerns.
    """
    _turns.waiting.append(action)
    if _turns.is_running:
        return
    _turns.is_running = True
    try:
        while _turns.waiting:
            try:
                _turns.waiting.popleft()()
            except Exception:
                logger.exception("letting go of something failed")
    finally:
        _turns.is_running = False
