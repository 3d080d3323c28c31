"""Finds the shares of a session's sub-agents, and of the session that started it, for one who looks at it."""

from __future__ import annotations

import time
from collections import OrderedDict

import msgspec

from rpcshare.auth.caller import Caller
from rpcshare.errors import ShareError
from rpcshare.render.relatives import children_of, parent_of
from rpcshare.render.sessions import total_of
from rpcshare.shares.outline import Relative, Transcript
from rpcshare.shares.service import ShareService

__all__ = ["RelativeFinder"]

_KEPT, _KEPT_FOR = 500, 10.0  # totals; seconds


class RelativeFinder:
    """Remembers for some seconds what each sub-agent has cost: its share has to be opened for that."""

    def __init__(self, service: ShareService) -> None:
        self._service = service
        self._totals: OrderedDict[str, tuple[float, Relative]] = OrderedDict()

    async def find(self, caller: Caller, transcript: Transcript) -> Transcript:
        """Return ``transcript`` with those of its relatives that the caller may read."""
        children, parent = children_of(transcript), parent_of(transcript)
        if not children and not parent:
            return transcript
        asked = [*children, parent] if parent else children
        found = await self._service.shares_of_same_owner(caller, transcript.share_id, asked)
        relatives = [
            await self._total(caller, Relative(session_id, found[session_id]))
            for session_id in children
            if session_id in found and session_id != transcript.session_id
        ]
        return msgspec.structs.replace(
            transcript, children=tuple(relatives), parent=found.get(parent) if parent else None
        )

    async def _total(self, caller: Caller, child: Relative) -> Relative:
        now = time.monotonic()
        known = self._totals.get(child.share_id)
        if known is not None and known[1].session_id == child.session_id and now - known[0] < _KEPT_FOR:
            return known[1]
        try:
            total = total_of(await self._service.transcript(caller, child.share_id))
        except ShareError:  # it is gone meanwhile, or cannot be read now
            return child
        told = msgspec.structs.replace(
            child,
            cost=total.cost,
            input=total.input,
            output=total.output + total.reasoning,
            cached=total.cached,
        )
        self._totals[child.share_id] = now, told
        while len(self._totals) > _KEPT:
            self._totals.popitem(last=False)
        return told
