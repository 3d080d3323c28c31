"""What a workspace is, and what callers say of one."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import quote, unquote

import msgspec

from rpcshare.auth.subject_sources import organization_of
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.egress_proxy import EgressPolicy
from rpcshare.workspaces.resources import Bounds, Resources, parse_resources

__all__ = [
    "GitSource",
    "MountedWorkspace",
    "NewWorkspace",
    "Workspace",
    "WorkspaceChanges",
    "WorkspaceState",
    "is_workspace_id",
    "owner_text",
    "parse_changes",
    "parse_new_workspace",
    "unknown_workspace",
]

MAX_MOUNTS = 16
MAX_HOSTS = 64

_ID = re.compile(r"wsp_[0-9a-f]{24}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOSTS = "each is a host name and no address, with *. in front for all beneath it, and :PORT behind"
_LONGEST_HOST = 260
_LONGEST_URL = 2048
_LONGEST_REF = 255

JSONObject: TypeAlias = dict[str, object]


class WorkspaceState(StrEnum):
    """How far a workspace is."""

    CREATING = "creating"
    """Its repository is being cloned."""
    READY = "ready"
    REMOVING = "removing"


class GitSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The repository that a workspace began with."""

    git: str
    """Its URL; never with a password in it."""
    ref: str | None = None
    """A branch or a tag; None: what the repository says."""
    key: str | None = None
    """The id or name of an entry of the vault, of the service ``git``; None: the one for the URL's host."""


class MountedWorkspace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another workspace, which is seen in this one at ``/mnt/NAME`` and cannot be written there."""

    name: str
    workspace: str
    """An id."""
    readonly: bool = True


class Workspace(msgspec.Struct, frozen=True):
    """A row. Times are milliseconds since the epoch."""

    id: str
    owner: str
    """As shares have it (:mod:`rpcshare.auth.subject_sources`)."""
    name: str
    state: WorkspaceState
    source: GitSource | None
    mounts: tuple[MountedWorkspace, ...]
    resources: Resources
    hosts: tuple[str, ...]
    """Hosts that its agents may connect to, beside those of the server's settings."""
    created_at: int
    updated_at: int
    disk_used: int
    """Bytes allocated, when it was last measured."""
    measured_at: int | None

    @property
    def organization(self) -> str | None:
        """The organization of its owner; None for an owner who is no user."""
        return organization_of(self.owner)

    def described(self) -> JSONObject:
        """Return it by the names of the wire."""
        source = None if self.source is None else {"git": self.source.git, "ref": self.source.ref}
        resources = self.resources
        return {
            "id": self.id,
            "name": self.name,
            "status": self.state.value,
            "source": source,
            "mounts": [msgspec.to_builtins(each) for each in self.mounts],
            "resources": {
                "memory": resources.memory,
                "cpu": resources.cpu,
                "disk": resources.disk,
                "timeout": resources.timeout,
            },
            "hosts": list(self.hosts),
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
            "diskUsed": self.disk_used,
            "measuredAt": self.measured_at,
        }


class NewWorkspace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``create`` takes, checked by :func:`parse_new_workspace`; rights on mounts are looked at later."""

    name: str
    source: GitSource | None
    mounts: tuple[MountedWorkspace, ...]
    resources: Resources
    hosts: tuple[str, ...]


class WorkspaceChanges(msgspec.Struct, frozen=True):
    """What ``update`` takes; None: stays as it is."""

    name: str | None
    mounts: tuple[MountedWorkspace, ...] | None
    resources: Resources | None
    hosts: tuple[str, ...] | None


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    source: GitSource | None = None
    mounts: list[MountedWorkspace] | None = None
    resources: JSONObject | None = None
    hosts: list[str] | None = None


def parse_new_workspace(given: object, bounds: Bounds) -> NewWorkspace:
    """Return what ``create`` was given: ``{name, source?, mounts?, resources?, hosts?}``.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    new = _given(given, "expected {name, source?, mounts?, resources?, hosts?}")
    if new.name is None:
        raise _wrong("name: is missing")
    if new.source is not None:
        _check_source(new.source)
    return NewWorkspace(
        _checked_name(new.name),
        new.source,
        _checked_mounts(new.mounts or []),
        parse_resources(new.resources, bounds),
        _checked_hosts(new.hosts or []),
    )


def parse_changes(given: object, bounds: Bounds, current: Resources) -> WorkspaceChanges:
    """Return what ``update`` was given: ``{name?, mounts?, resources?, hosts?}``.

    Raises:
        ShareError: INVALID_ARGUMENT.
    """
    new = _given(given, "expected {name?, mounts?, resources?, hosts?}")
    if new.source is not None:
        raise _wrong("source: cannot be changed: make another workspace")
    return WorkspaceChanges(
        None if new.name is None else _checked_name(new.name),
        None if new.mounts is None else _checked_mounts(new.mounts),
        None if new.resources is None else parse_resources(new.resources, bounds, current),
        None if new.hosts is None else _checked_hosts(new.hosts),
    )


def is_workspace_id(text: str) -> bool:
    """Whether ``text`` looks like the id of a workspace."""
    return _ID.fullmatch(text) is not None


def unknown_workspace() -> ShareError:
    """Return the error for an id of no workspace, or of none that the caller may use: they look alike."""
    return ShareError(ErrorCode.WORKSPACE_NOT_FOUND, "there is no such workspace")


def owner_text(owner: str) -> str:
    """Return an owner as it is kept: PostgreSQL keeps no control characters that an owner may have."""
    return quote(owner, safe=":@ /.")


def owner_from(text: str) -> str:
    """Return the owner of :func:`owner_text`."""
    return unquote(text)


def _given(given: object, expected: str) -> _Given:
    if not isinstance(given, dict):
        raise _wrong(expected)
    try:
        return msgspec.convert(given, _Given)
    except msgspec.ValidationError as exc:
        raise _wrong(str(exc)) from None


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _wrong("name: 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first")
    return name


def _check_source(source: GitSource) -> None:
    if not 0 < len(source.git) <= _LONGEST_URL or not source.git.isprintable():
        raise _wrong(f"source.git: expected the URL of a repository, of at most {_LONGEST_URL} characters")
    ref = source.ref
    if ref is not None and (
        not 0 < len(ref) <= _LONGEST_REF
        or ref.startswith("-")
        or ".." in ref
        or not re.fullmatch(r"[A-Za-z0-9._/+@#-]+", ref)
    ):
        raise _wrong("source.ref: expected the name of a branch or a tag")


def _checked_mounts(mounts: list[MountedWorkspace]) -> tuple[MountedWorkspace, ...]:
    if len(mounts) > MAX_MOUNTS:
        raise _wrong(f"mounts: at most {MAX_MOUNTS}")
    for each in mounts:
        if not _NAME.fullmatch(each.name):
            raise _wrong("mounts: a name is 1 to 64 letters, digits, dots, dashes and underscores")
        if not each.readonly:
            raise _wrong("mounts: another workspace is mounted read-only")
        if not is_workspace_id(each.workspace):
            raise unknown_workspace()
    if len({each.name for each in mounts}) != len(mounts):
        raise _wrong("mounts: two have one name")
    return tuple(mounts)


def _checked_hosts(hosts: list[str]) -> tuple[str, ...]:
    if len(hosts) > MAX_HOSTS:
        raise _wrong(f"hosts: at most {MAX_HOSTS}")
    if any(len(host) > _LONGEST_HOST or "*" in host.removeprefix("*.") for host in hosts):
        raise _wrong(f"hosts: {_HOSTS}")
    try:
        EgressPolicy(hosts)
    except ValueError:
        raise _wrong(f"hosts: {_HOSTS}") from None
    return tuple(host.lower() for host in hosts)


def _wrong(message: str) -> ShareError:
    return ShareError(ErrorCode.INVALID_ARGUMENT, message)
