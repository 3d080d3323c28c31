"""Which node runs the agents of a workspace: whoever has its lease, until that expires."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from rpcshare.database.engine import Database
from rpcshare.database.records import workspace_leases as rows

__all__ = ["LEASE_SECONDS", "Leases"]

LEASE_SECONDS = 6.0
"""How long a node that is gone keeps what it had."""


class Leases:
    """The leases of one node. Methods raise DatabaseError."""

    def __init__(
        self,
        database: Database,
        node: str,
        *,
        lasts: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take leases as ``node``, a name that no other process has had."""
        self._database = database
        self._node = node
        self._lasts = lasts
        self._clock = clock

    async def take(self, workspace: str) -> bool:
        """Take the lease of a workspace, or prolong it; return whether it is this node's now."""

        def write(connection: Connection) -> bool:
            now, until = self._moments()
            row = connection.execute(
                select(rows).where(rows.c.workspace == workspace).with_for_update()
            ).first()
            if row is None:
                values = {"workspace": workspace, "node": self._node, "expires_at": until}
                connection.execute(insert(rows), values)
                return True
            if row.node != self._node and row.expires_at > now:
                return False
            values = {"node": self._node, "expires_at": until}
            connection.execute(update(rows).where(rows.c.workspace == workspace).values(values))
            return True

        return await self._database.write(write)

    async def prolong(self, workspaces: Sequence[str]) -> set[str]:
        """Prolong leases, and return those that are still this node's."""
        if not workspaces:
            return set()

        def write(connection: Connection) -> set[str]:
            _, until = self._moments()
            own = (rows.c.workspace.in_(workspaces), rows.c.node == self._node)
            connection.execute(update(rows).where(*own).values(expires_at=until))
            return {row.workspace for row in connection.execute(select(rows.c.workspace).where(*own))}

        return await self._database.write(write)

    async def give_back(self, workspace: str) -> None:
        """Let another node have it at once."""
        own = (rows.c.workspace == workspace, rows.c.node == self._node)
        await self._database.write(lambda connection: connection.execute(delete(rows).where(*own)))

    async def held(self) -> dict[str, str]:
        """Return which node has which workspace, of leases that have not expired."""
        now, _ = self._moments()
        query = select(rows).where(rows.c.expires_at > now)
        found = await self._database.read(lambda connection: list(connection.execute(query)))
        return {row.workspace: row.node for row in found}

    def _moments(self) -> tuple[int, int]:
        now = self._clock()
        return int(now * 1000), int((now + self._lasts) * 1000)
