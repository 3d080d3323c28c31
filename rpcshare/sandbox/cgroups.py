"""Control groups: the kernel's limits on memory, processors and processes, of version 2 or 1.

Which there are differs by machine and by container. So each limit is taken from the first place that has it:
version 2, if its controller can be given to a group beneath the server's own; version 1; and otherwise none,
and the driver has to do with resource limits of processes.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, cgroup-v1/pids.rst.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from rpcshare.sandbox.driver import SandboxLimits

__all__ = ["ControlGroup", "ControlGroups", "GroupUsage"]

logger = logging.getLogger("rpcshare.sandbox")

_PERIOD = 100_000  # microseconds, in which a group may use its share of processor time
_CONTROLLERS = ("memory", "pids", "cpu")
_LEAF = "rpcshare-server"
_PREFIX = "rpcshare-sandbox-"
_LEFT_AFTER = 60.0  # seconds
_REMOVAL_SECONDS = 5.0

Directories: TypeAlias = dict[str, Path]


@dataclass(frozen=True)
class GroupUsage:
    """What a group has used. None: nobody counts it."""

    memory: int | None = None
    """Bytes, now."""
    processes: int | None = None
    out_of_memory: int = 0
    """How many processes were killed for want of memory."""
    refused_processes: int = 0
    """How often a process or thread could not be started."""


@dataclass(frozen=True)
class ControlGroup:
    """The group of one sandbox: a directory for each controller that there is."""

    directories: Mapping[str, Path]
    is_version_2: bool
    known: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of_process(cls, process: int, proc: Path = Path("/proc")) -> ControlGroup | None:
        """Return the group that somebody else has made for a process, to read it; None: it cannot be seen."""
        try:
            own = _own_groups((proc / str(process) / "cgroup").read_text())
            mounts = _mounts((proc / "self" / "mountinfo").read_text())
        except OSError:
            return None
        found: Directories = {}
        for controller in _CONTROLLERS:
            if controller in mounts and controller in own:
                found[controller] = mounts[controller] / own[controller].lstrip("/")
        if not found and "" in mounts and "" in own:
            directory = mounts[""] / own[""].lstrip("/")
            found = {each: directory for each in _CONTROLLERS if (directory / f"{each}.max").exists()}
            return cls(found, is_version_2=True) if found else None
        found = {each: directory for each, directory in found.items() if directory.is_dir()}
        return cls(found, is_version_2=False) if found else None

    @property
    def process_files(self) -> list[Path]:
        """Files to which a process writes its id to join the group."""
        return sorted({directory / "cgroup.procs" for directory in self.directories.values()})

    def usage(self) -> GroupUsage:
        """Return what it has used."""
        memory, pids = self.directories.get("memory"), self.directories.get("pids")
        used = out_of_memory = None
        if memory is not None and self.is_version_2:
            used = _number(memory / "memory.current")
            out_of_memory = _value(memory / "memory.events", "oom_kill")
        elif memory is not None:
            used = _number(memory / "memory.usage_in_bytes")
            out_of_memory = _value(memory / "memory.oom_control", "oom_kill")
        refused = None if pids is None else _value(pids / "pids.events", "max")
        processes = None if pids is None else _number(pids / "pids.current")
        return GroupUsage(used, processes, out_of_memory or 0, refused or 0)

    def limited(self, limits: SandboxLimits) -> frozenset[str]:
        """Return the controllers that have these limits, or lower ones."""
        found = set()
        for controller, name, most in (
            ("memory", "memory.max" if self.is_version_2 else "memory.limit_in_bytes", limits.memory),
            ("pids", "pids.max", limits.processes),
            ("cpu", "cpu.max" if self.is_version_2 else "cpu.cfs_quota_us", None),
        ):
            directory = self.directories.get(controller)
            if directory is not None:
                with contextlib.suppress(OSError, ValueError):
                    # "max", or -1, is no limit; of version 2, a period follows the quota.
                    value = int((directory / name).read_text().split()[0])
                    if value > 0 and (most is None or value <= most):
                        found.add(controller)
        return frozenset(found)

    def peak_memory(self) -> int | None:
        """Return the most bytes that it has had at once."""
        memory = self.directories.get("memory")
        if memory is None:
            return None
        name = "memory.peak" if self.is_version_2 else "memory.max_usage_in_bytes"
        return _number(memory / name)

    def is_empty(self) -> bool:
        """Whether no process is left in it."""
        for file in self.process_files:
            try:
                if file.read_text().strip():
                    return False
            except OSError:
                continue
        return True

    def kill(self) -> None:
        """Kill all that is in it. Whoever forks meanwhile is found in the next turn."""
        for directory in set(self.directories.values()):
            with contextlib.suppress(OSError):
                (directory / "cgroup.kill").write_text("1")
        for file in self.process_files:
            with contextlib.suppress(OSError, ValueError):
                for line in file.read_text().split():
                    with contextlib.suppress(OSError):
                        os.kill(int(line), 9)

    def remove(self) -> None:
        """Remove it, with all that is still in it. Blocks for as long as processes take to end."""
        end = time.monotonic() + _REMOVAL_SECONDS
        while not self.is_empty() and time.monotonic() < end:
            self.kill()
            time.sleep(0.01)
        for directory in set(self.directories.values()):
            while True:
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError as exc:  # the last process is still being taken down
                    if time.monotonic() >= end:
                        logger.warning("the control group %s cannot be removed: %s", directory, exc.strerror)
                        break
                    time.sleep(0.01)
                else:
                    break


class ControlGroups:
    """Makes groups beneath the server's own."""

    def __init__(self, parents: Mapping[str, Path], *, is_version_2: bool) -> None:
        """Made by :meth:`find`. ``parents`` has, for each controller, the directory to make groups in."""
        self.parents = dict(parents)
        self.is_version_2 = is_version_2

    @classmethod
    def find(cls, proc: Path = Path("/proc/self")) -> ControlGroups:
        """Return what can be used here; it may be nothing.

        Args:
            proc: the directory of this process under ``/proc``.
        """
        try:
            own = _own_groups((proc / "cgroup").read_text())
            mounts = _mounts((proc / "mountinfo").read_text())
        except OSError:
            return cls({}, is_version_2=False)
        if "" in mounts and (found := _version_2(mounts[""], own.get("", "/"))):
            return cls(found, is_version_2=True)
        found = {}
        for controller in _CONTROLLERS:
            mount = mounts.get(controller)
            if mount is None:
                continue
            path = mount / own.get(controller, "/").lstrip("/")
            directory = path if path.is_dir() else mount
            if os.access(directory, os.W_OK):
                found[controller] = directory
        return cls(found, is_version_2=False)

    @property
    def version(self) -> str:
        """``cgroup v2`` or ``cgroup v1``."""
        return "cgroup v2" if self.is_version_2 else "cgroup v1"

    def remove_left(self) -> None:
        """Remove groups that a server has left which was killed. One that is in use cannot be removed."""
        for parent in set(self.parents.values()):
            for directory in parent.glob(f"{_PREFIX}*"):
                with contextlib.suppress(OSError):
                    # One that is new may be about to be joined.
                    if time.time() - directory.stat().st_mtime > _LEFT_AFTER:
                        directory.rmdir()

    def make(self, name: str, limits: SandboxLimits) -> ControlGroup | None:
        """Return a new group with these limits; None where there are none.

        A controller whose limit cannot be set is left out, as if it was not there.
        """
        made: Directories = {}
        # Another server of this machine may have a sandbox of the same name.
        unique = f"{_PREFIX}{name}-{secrets.token_hex(4)}"
        settings = _settings_2(limits) if self.is_version_2 else _settings_1(limits)
        for controller, parent in self.parents.items():
            directory = parent / unique
            try:
                directory.mkdir(exist_ok=directory in made.values())  # of version 2, all have one
                for file, value, is_needed in settings[controller]:
                    if is_needed or (directory / file).exists():
                        (directory / file).write_text(value)
                made[controller] = directory
            except OSError as exc:
                logger.warning("no limit on %s by a control group: %s", controller, exc.strerror)
                if directory not in made.values():
                    with contextlib.suppress(OSError):
                        directory.rmdir()
        return ControlGroup(made, self.is_version_2) if made else None


def _settings_2(limits: SandboxLimits) -> dict[str, list[tuple[str, str, bool]]]:
    quota = max(1000, round(limits.cpus * _PERIOD))
    return {
        "memory": [("memory.max", str(limits.memory), True), ("memory.swap.max", "0", False)],
        "pids": [("pids.max", str(limits.processes), True)],
        "cpu": [("cpu.max", f"{quota} {_PERIOD}", True)],
    }


def _settings_1(limits: SandboxLimits) -> dict[str, list[tuple[str, str, bool]]]:
    memory = str(limits.memory)
    return {
        "memory": [
            ("memory.limit_in_bytes", memory, True),
            ("memory.memsw.limit_in_bytes", memory, False),  # what is swapped out counts, too
        ],
        "pids": [("pids.max", str(limits.processes), True)],
        "cpu": [
            ("cpu.cfs_period_us", str(_PERIOD), True),
            ("cpu.cfs_quota_us", str(max(1000, round(limits.cpus * _PERIOD))), True),
        ],
    }


def _version_2(mount: Path, own: str) -> Directories | None:
    """Return where groups of version 2 can be made, having handed controllers down if need be."""
    directory = mount / own.lstrip("/")
    if directory.name == _LEAF:
        directory = directory.parent
    wanted = set(_CONTROLLERS)
    try:
        if not wanted <= set((directory / "cgroup.controllers").read_text().split()):
            return None
        handed = directory / "cgroup.subtree_control"
        if not wanted <= set(handed.read_text().split()):
            # A group that hands controllers down has no processes of its own.
            (directory / _LEAF).mkdir(exist_ok=True)
            for process in (directory / "cgroup.procs").read_text().split():
                (directory / _LEAF / "cgroup.procs").write_text(process)
            handed.write_text(" ".join(f"+{each}" for each in _CONTROLLERS))
    except OSError:
        return None
    return dict.fromkeys(_CONTROLLERS, directory) if os.access(directory, os.W_OK) else None


def _own_groups(text: str) -> dict[str, str]:
    """Return the path of this process's group, by controller; that of version 2 has an empty name."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _mounts(text: str) -> Directories:
    """Return where the hierarchies are, by controller; that of version 2 has an empty name."""
    found: Directories = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, rest = after.partition(" ")
        path = Path(before.split()[4])
        if kind == "cgroup2":
            found[""] = path
        elif kind == "cgroup":
            for option in rest.split()[-1].split(","):
                found.setdefault(option, path)
    return found


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _value(file: Path, name: str) -> int | None:
    try:
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return None
