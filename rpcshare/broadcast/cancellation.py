"""Ending tasks that may swallow a cancellation."""

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["cancel_all"]

_AGAIN_AFTER = 0.1  # seconds


async def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel ``tasks`` until all of them have ended. What they raise is left in them.

    Once is not enough for what awaits redis-py: its time-outs take a cancellation that comes together with an
    answer for their own, and the task goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_AFTER)
