"""All workspaces: their rows in the database of records, and their directories."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, or_, select, update

from rpcshare.auth.subject_sources import organization_of
from rpcshare.database.engine import Database
from rpcshare.database.records import workspaces as rows
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.disk_watch import DiskUsage, disk_usage
from rpcshare.workspaces.workspace import (
    NewWorkspace,
    Workspace,
    WorkspaceChanges,
    WorkspaceState,
    owner_from,
    owner_text,
    unknown_workspace,
)

__all__ = ["Reach", "WorkspaceFolder", "Workspaces"]

logger = logging.getLogger("rpcshare.workspaces")

_ABANDONED_AFTER = 3600 * 1000
"""Milliseconds after which nobody is making or removing a workspace any more."""

_MAX_PAGE = 1000

Values: TypeAlias = dict[str, Any]
Conditions: TypeAlias = "list[ColumnElement[bool]]"


class Reach(msgspec.Struct, frozen=True):
    """Whose workspaces a caller may use: of some owners, of an organization, or all."""

    owners: tuple[str, ...]
    organization: str | None = None
    is_all: bool = False


class WorkspaceFolder(msgspec.Struct, frozen=True):
    """Where a workspace is on this machine."""

    path: Path

    @property
    def files(self) -> Path:
        """What its owner and its agents see."""
        return self.path / "files"

    @property
    def home(self) -> Path:
        """The agents' home, which outlives each of them."""
        return self.path / "home"


class Workspaces:
    """Keeps rows and directories; who may do what is known to those who call. Methods raise DatabaseError."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        user: tuple[int, int] | None = None,
        max_of_owner: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep them.

        Args:
            database: has the schema of records.
            folder: holds a directory for each. Servers with one database have one, on a shared file system.
            user: who owns the files, where the server is root; None: the server's own user.
            max_of_owner: how many one owner may have.
            clock: tells seconds.
        """
        self._database = database
        self._folder = folder
        self._user = user if os.geteuid() == 0 else None
        self._max_of_owner = max_of_owner
        self._clock = clock

    def folder_of(self, workspace: Workspace) -> WorkspaceFolder:
        """Return where its files are. They may be missing: on another server, or being removed."""
        return WorkspaceFolder(self._folder / workspace.id)

    async def add(self, owner: str, new: NewWorkspace) -> Workspace:
        """Make a row and empty directories; the state is ``creating``.

        Raises:
            ShareError: INVALID_ARGUMENT: the owner has one of this name, or too many. STORAGE_UNAVAILABLE.
        """
        now = self._now()
        workspace = Workspace(
            id=f"wsp_{secrets.token_hex(12)}",
            owner=owner,
            name=new.name,
            state=WorkspaceState.CREATING,
            source=new.source,
            mounts=new.mounts,
            resources=new.resources,
            hosts=new.hosts,
            created_at=now,
            updated_at=now,
            disk_used=0,
            measured_at=None,
        )

        def write(connection: Connection) -> None:
            _lock(connection, owner_text(owner))
            own = rows.c.owner == owner_text(owner)
            if connection.execute(select(rows.c.id).where(own, rows.c.name == new.name)).first() is not None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "name: there is a workspace of this name")
            if (connection.execute(select(func.count()).where(own)).scalar() or 0) >= self._max_of_owner:
                message = f"this server keeps at most {self._max_of_owner:,} workspaces of one owner"
                raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
            connection.execute(insert(rows), _columns(workspace))

        await self._database.write(write)
        try:
            await asyncio.to_thread(self._make_folders, self.folder_of(workspace))
        except OSError as exc:
            logger.warning("the directory of a workspace cannot be made: %s", exc)
            await self.discard(workspace)
            message = "the directory of the workspace cannot be made"
            raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, message) from exc
        return workspace

    async def set_state(self, workspace: Workspace, state: WorkspaceState) -> Workspace:
        """Say how far it is."""
        changed = msgspec.structs.replace(workspace, state=state, updated_at=self._now())
        await self._write(changed, state=state.value, updated_at=changed.updated_at)
        return changed

    async def change(self, workspace: Workspace, changes: WorkspaceChanges) -> Workspace:
        """Change a workspace; programs that run go on with what they were started with.

        Raises:
            ShareError: INVALID_ARGUMENT: another one has this name. WORKSPACE_NOT_FOUND.
        """
        given = {
            name: value
            for name in ("name", "mounts", "resources", "hosts")
            if (value := getattr(changes, name)) is not None
        }
        changed = msgspec.structs.replace(workspace, updated_at=self._now(), **given)
        columns = _columns(changed)

        def write(connection: Connection) -> None:
            _lock(connection, columns["owner"])
            same = (rows.c.owner == columns["owner"], rows.c.name == changed.name, rows.c.id != changed.id)
            if connection.execute(select(rows.c.id).where(*same)).first() is not None:
                raise ShareError(ErrorCode.INVALID_ARGUMENT, "name: there is a workspace of this name")
            values = {name: columns[name] for name in (*given, "updated_at")}
            statement = update(rows).where(rows.c.id == changed.id, rows.c.state == workspace.state.value)
            if connection.execute(statement.values(values)).rowcount != 1:
                raise unknown_workspace()

        await self._database.write(write)
        return changed

    async def find(self, workspace_id: str, reach: Reach) -> Workspace:
        """Return a workspace that is within reach. Raises ShareError: WORKSPACE_NOT_FOUND."""
        query = select(rows).where(rows.c.id == workspace_id, *_within(reach))
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise unknown_workspace()
        return _workspace(row)

    async def list(self, reach: Reach) -> list[Workspace]:
        """Return the workspaces within reach, the oldest first; at most 1,000."""
        query = select(rows).where(*_within(reach)).order_by(rows.c.created_at, rows.c.id).limit(_MAX_PAGE)
        found = await self._database.read(lambda connection: list(connection.execute(query)))
        return [_workspace(row) for row in found]

    async def users_of(self, workspace_id: str) -> Sequence[str]:
        """Return the names of the workspaces that mount this one."""
        query = select(rows).where(rows.c.mounts.contains(workspace_id, autoescape=True))
        found = await self._database.read(lambda connection: list(connection.execute(query)))
        workspaces = map(_workspace, found)
        return [each.name for each in workspaces if any(m.workspace == workspace_id for m in each.mounts)]

    async def measure(self, workspace: Workspace) -> DiskUsage:
        """Return what its files and its home hold, and write it down."""
        folder = self.folder_of(workspace)
        usage = await asyncio.to_thread(disk_usage, [folder.files, folder.home])
        await self._write(workspace, disk_used=usage.size, measured_at=self._now())
        return usage

    async def discard(self, workspace: Workspace) -> None:
        """Remove its files, and then its row. It is REMOVING by now, or has never been READY."""
        await asyncio.to_thread(remove_folder, self.folder_of(workspace).path)
        statement = delete(rows).where(rows.c.id == workspace.id)
        await self._database.write(lambda connection: connection.execute(statement))

    async def discard_abandoned(self) -> int:
        """Remove what a server was making or removing when it was killed; return how many there were."""
        before = self._now() - _ABANDONED_AFTER
        unready = rows.c.state != WorkspaceState.READY.value
        query = select(rows).where(unready, rows.c.updated_at < before)
        found = await self._database.read(lambda connection: list(connection.execute(query)))
        for row in found:
            await self.discard(_workspace(row))
        return len(found)

    def _make_folders(self, folder: WorkspaceFolder) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.path.mkdir(mode=0o700)
        for each in (folder.files, folder.home):
            each.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(each, *self._user)

    async def _write(self, workspace: Workspace, **values: object) -> None:
        statement = update(rows).where(rows.c.id == workspace.id).values(values)
        await self._database.write(lambda connection: connection.execute(statement))

    def _now(self) -> int:
        return int(self._clock() * 1000)


def remove_folder(path: Path) -> None:
    """Remove a directory with all that is in it, however deep; blocks. Raises ShareError."""
    if not path.exists():
        return
    # rm goes down any depth, and through no link: Python's own is recursive.
    done = subprocess.run(["/bin/rm", "-rf", "--", str(path)], check=False, capture_output=True)  # noqa: S603
    if done.returncode or path.exists():
        logger.warning(
            "the directory of a workspace cannot be removed: %s", done.stderr.decode(errors="replace")[-300:]
        )
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, "the files of the workspace cannot be removed")


def _within(reach: Reach) -> Conditions:
    if reach.is_all:
        return []
    conditions: Conditions = [rows.c.owner.in_([owner_text(owner) for owner in reach.owners])]
    if reach.organization is not None:
        conditions.append(rows.c.organization == reach.organization)
    return [or_(*conditions)]


def _columns(workspace: Workspace) -> Values:
    values = msgspec.structs.asdict(workspace)
    source = workspace.source
    return {
        **values,
        "owner": owner_text(workspace.owner),
        "organization": organization_of(workspace.owner),
        "state": workspace.state.value,
        "source": None if source is None else msgspec.json.encode(source).decode(),
        **{name: msgspec.json.encode(values[name]).decode() for name in ("mounts", "resources", "hosts")},
    }


def _workspace(row: Row[Any]) -> Workspace:
    values = {name: getattr(row, name) for name in Workspace.__struct_fields__}
    values["owner"] = owner_from(row.owner)
    for name in ("source", "mounts", "resources", "hosts"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return msgspec.convert(values, Workspace)


def _lock(connection: Connection, owner: str) -> None:
    """Let nobody else add to an owner's before this transaction ends. SQLite has one writer in all."""
    if connection.dialect.name != "sqlite":
        key = func.hashtextextended(f"workspaces {owner}", 0x72706373)
        connection.execute(select(func.pg_advisory_xact_lock(key)))
