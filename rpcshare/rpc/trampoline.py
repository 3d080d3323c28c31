"""Things done one after another: what would else be done within each other, and what takes long."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from rpcshare.rpc.event_loop import EventLoop

__all__ = ["in_turn", "take_turn"]

logger = logging.getLogger("rpcshare.rpc")


class _Trampoline(threading.local):
    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.is_running = False


_turns = _Trampoline()


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


class _LongWork(threading.local):
    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()
        self.loop: EventLoop | None = None


_long_work = _LongWork()


def take_turn(loop: EventLoop, action: Callable[[], None]) -> None:
    """Have ``action`` carried out soon: one of what waits here, each time that the event loop goes round.

    However many have long work to do, whoever has little to do waits for a part of one of them.
    """
    if _long_work.loop is not loop:
        # That of another loop is over with it.
        _long_work.waiting.clear()
        _long_work.loop = loop
    _long_work.waiting.append(action)
    if len(_long_work.waiting) == 1:
        loop.call_soon(_next_turn)


def _next_turn() -> None:
    action = _long_work.waiting.popleft()
    if _long_work.waiting and _long_work.loop is not None:
        _long_work.loop.call_soon(_next_turn)
    action()
