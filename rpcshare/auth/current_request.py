"""The HTTP request that is being answered: its ID, and who asks. Background work has none."""

from __future__ import annotations

from contextvars import ContextVar

from rpcshare.auth.caller import Caller

__all__ = ["CurrentRequest", "current_request"]


class CurrentRequest:
    """One request, from its head to the end of its answer."""

    __slots__ = ("caller", "id")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.caller: Caller | None = None
        """Once it is known."""


current_request: ContextVar[CurrentRequest | None] = ContextVar("current_request", default=None)
"""None outside of a request, and in RPC sessions, which outlive the request that opened them."""
