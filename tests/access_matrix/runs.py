"""A run of the matrix: its servers, its callers, and what they were answered."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from access_matrix.asking import Answers, ask_http, ask_over_batches, ask_over_websocket
from access_matrix.callers import Caller, caller
from access_matrix.deployments import Deployment, Handed

__all__ = ["ENTRIES", "MatrixRun"]

ENTRIES: dict[str, Callable[[Caller], Answers]] = {
    "WebSocket": ask_over_websocket,
    "batch": ask_over_batches,
    "HTTP API": partial(ask_http, entry="HTTP API"),
    "events": partial(ask_http, entry="events"),
    "pages": partial(ask_http, entry="pages"),
}


class MatrixRun:
    """Asks each caller's questions at each entry once, whichever test wants to know first."""

    def __init__(self, paths: pytest.TempPathFactory, stack: ExitStack) -> None:
        self.handed = Handed()
        self.closed = stack.enter_context(Deployment(paths.mktemp("closed"), self.handed))
        self.open = stack.enter_context(Deployment(paths.mktemp("open"), self.handed, "--anonymous-create"))
        self._callers: dict[str, Caller] = {}
        self._answers: dict[tuple[str, str], Answers] = {}

    def caller(self, name: str) -> Caller:
        """Return the caller of a row."""
        if name not in self._callers:
            deployment = self.open if name.startswith("open: ") else self.closed
            self._callers[name] = caller(name, deployment)
        return self._callers[name]

    def answers(self, entry: str, name: str) -> Answers:
        """Return what a caller is answered at an entry."""
        if (entry, name) not in self._answers:
            self._answers[entry, name] = ENTRIES[entry](self.caller(name))
        return self._answers[entry, name]
