"""Connections after a fork: a process that is forked has a copy of its parent's, and must not use it.

The socket is shared: what the child sends would be in the middle of what the parent sends. And the event loop
that would bring answers runs in the parent alone. So the child's copy fails at once.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

from rpcshare.rpc import SessionClosedError

__all__ = ["MESSAGE", "ForkedError", "break_after_fork"]

MESSAGE = "this connection belongs to the process that made it: after a fork, connect again"


class ForkedError(SessionClosedError, RuntimeError):
    """The connection is another process's, from which this one was forked."""

    def __init__(self) -> None:
        super().__init__(MESSAGE)


class Forkable(Protocol):
    """What has to know that it is a copy."""

    def break_copy(self) -> None:
        """Fail whatever is asked from now on; called in the process that has been forked."""
        ...


_connections: WeakSet[Forkable] = WeakSet()


def break_after_fork(connection: Forkable) -> None:
    """Have the copy of ``connection`` broken in each process that is forked from this one."""
    _connections.add(connection)


def _break_all() -> None:
    for connection in list(_connections):
        connection.break_copy()
    _connections.clear()


if hasattr(os, "register_at_fork"):  # there are forks
    os.register_at_fork(after_in_child=_break_all)
