"""What a server that stops has to bring to an end."""

from __future__ import annotations

import asyncio

from rpcshare.server.body_limits import BodyLimits
from rpcshare.server.event_streams import EventStreams
from rpcshare.server.metrics import Metrics
from rpcshare.server.rpc_endpoint import RpcEndpoint
from rpcshare.server.web import PageSite

__all__ = ["Shutdown"]


class Shutdown:
    """The RPC sessions, the readers of events and of pages, and the requests that are still arriving."""

    def __init__(
        self,
        rpc: RpcEndpoint,
        event_streams: EventStreams,
        site: PageSite,
        body_limits: BodyLimits,
        metrics: Metrics,
    ) -> None:
        self.body_limits = body_limits
        self.metrics = metrics
        self._rpc = rpc
        self._event_streams = event_streams
        self._site = site
        metrics.count_sessions(lambda: len(rpc))
        metrics.count_event_streams(lambda: len(event_streams))

    def __len__(self) -> int:
        """How many sessions and readers there are."""
        return len(self._rpc) + len(self._event_streams)

    async def drain(self) -> None:
        """End readers at once, and RPC sessions when the calls that are under way have returned.

        Pages that are being drawn are waited for.
        """
        await asyncio.gather(self._rpc.drain(), self._event_streams.drain(), self._site.drain())

    def warm_up(self) -> None:
        """Have ready what the first page would wait for, if nobody has asked for one yet."""
        self._site.warm_up()

    async def close(self) -> None:
        """End the processes that serve them, when all is drained."""
        await self._site.close()
