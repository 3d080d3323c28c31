"""The driver ``local``: bubblewrap, control groups where there are any, and an init inside.

A sandbox has namespaces of its own for processes, mounts, network, IPC, names and control groups. It sees
``/usr`` and a few files of ``/etc`` read-only, its workspace, its home and its mounts, and nothing else of
the machine. Its user is no root: a server that is root gives it the identity of ``user``, and one that is not
maps its own. It has no capability and gains none. What else it may not is in
:mod:`~rpcshare.sandbox.syscall_filter`.

With ``unsafe`` and no bubblewrap, programs run without all that, by an order of the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import cast

from rpcshare.sandbox import inside
from rpcshare.sandbox.cgroups import ControlGroup, ControlGroups
from rpcshare.sandbox.driver import (
    AGENT_HOME,
    WORKSPACE,
    EndReason,
    Mount,
    Sandbox,
    SandboxError,
    SandboxSpec,
)
from rpcshare.sandbox.init_channel import DEFAULT_PATH, forwarded_ports, init_message
from rpcshare.sandbox.inner_etc import InnerEtc
from rpcshare.sandbox.supervision import (
    FORKS_REFUSED,
    SupervisedSandbox,
    enforced_by,
    require_name,
    tree_exceeds,
)
from rpcshare.sandbox.syscall_filter import SyscallFilter, syscall_filter

__all__ = ["BubblewrapDriver", "BubblewrapSandbox"]

logger = logging.getLogger("rpcshare.sandbox")

_VERSION = re.compile(r"bubblewrap (\d+)\.(\d+)")
_LEAST_VERSION = (0, 6)  # --size, and fixes of mounts; --disable-userns came with 0.8
_START_SECONDS = 20.0
_GONE_SECONDS = 10.0
_RUN = "/run/rpcshare"
_INIT = "/run/rpcshare-init.py"
_INSIDE_USER = 1000  # as which the server's own user is seen, where it is not root

# What programs expect of /etc; nothing that tells of this machine or its users.
_OF_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
)

# What the kernel tells of the machine, and not of the sandbox.
_OF_PROC = (
    *("kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecount", "kpageflags", "latency_stats"),
    *("sched_debug", "slabinfo", "sysrq-trigger", "timer_list", "vmallocinfo"),
)

# Joins the groups before anything of the sandbox runs, so that nothing of it is ever outside of them.
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'


class BubblewrapDriver:
    """Starts sandboxes on this machine."""

    name = "local"
    python = os.path.realpath(sys.executable)
    scratch: Path | None = None

    def __init__(
        self,
        *,
        user: tuple[int, int] = (65534, 65534),
        unsafe: bool = False,
        hidden: Sequence[Path] = (),
        groups: ControlGroups | None = None,
        program: str | None = None,
    ) -> None:
        """Make the driver.

        Args:
            user: the user and group that a server which is root gives its sandboxes.
            unsafe: whether programs run without a sandbox where there is no bubblewrap.
            hidden: directories of the server; none of them may be seen inside.
            groups: where control groups are made; None: they are looked for.
            program: bubblewrap; None: ``bwrap`` on PATH.
        """
        self._user = user
        self._unsafe = unsafe
        self._hidden = tuple(hidden)
        self._groups = groups
        self._program = program
        self._filter: SyscallFilter | None = None
        self._etc: InnerEtc | None = None
        self._sandboxes: set[BubblewrapSandbox] = set()
        self._can_forbid_namespaces = False
        self.is_isolated = True
        """Whether programs run in a sandbox at all."""

    async def check(self) -> None:
        """Return if sandboxes can be started here. Raises SandboxError: a sentence says what is missing."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        if self._groups is None:
            self._groups = ControlGroups.find()
            self._groups.remove_left()
        program = self._program or shutil.which("bwrap")
        try:
            self._check_program(program)
        except SandboxError:
            self._remove_etc()
            if not self._unsafe:
                raise
            self.is_isolated = False
            logger.warning("agents run without a sandbox: they can do all that the server can")
            return
        self._program = program

    def _check_program(self, program: str | None) -> None:
        if program is None:
            raise SandboxError(
                "--agents local needs bubblewrap: install the package bubblewrap, or run agents without a "
                "sandbox by --agents-unsafe"
            )
        version = _VERSION.match(_output([program, "--version"]))
        found = (int(version[1]), int(version[2])) if version else (0, 0)
        if found < _LEAST_VERSION:
            raise SandboxError(f"{program} is too old: 0.6 is needed, and 0.8 or newer is better")
        self._can_forbid_namespaces = found >= (0, 8)
        self._filter = syscall_filter()
        if self._filter is None:
            raise SandboxError(f"there is no filter of system calls for {os.uname().machine}")
        for each in self._hidden:
            resolved = each.resolve()
            if any(resolved.is_relative_to(seen) for seen in self._seen()):
                raise SandboxError(f"{each} is beneath a directory that sandboxes see: move it elsewhere")
        if self._etc is None:
            self._etc = InnerEtc(self._inside_user)
        command = [program, *self._namespaces(), *self._root(), "--", "/bin/true"]
        _output(command)

    def _seen(self) -> list[Path]:
        return [Path("/usr"), *_own_python()]

    @property
    def _inside_user(self) -> tuple[int, int]:
        return self._user if os.geteuid() == 0 else (_INSIDE_USER, _INSIDE_USER)

    def _namespaces(self) -> list[str]:
        arguments = [
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]
        arguments += ["--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv"]
        if os.geteuid() == 0:
            # The init gives these up when it takes the identity of the user.
            arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            user = str(_INSIDE_USER)
            arguments += ["--unshare-user", "--uid", user, "--gid", user, "--cap-drop", "ALL"]
            if self._can_forbid_namespaces:
                arguments.append("--disable-userns")
        return arguments

    def _root(self) -> list[str]:
        arguments = ["--ro-bind", "/usr", "/usr", *_parents(PurePosixPath("/etc/passwd"))]
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            path = Path("/") / name
            if path.is_symlink():
                arguments += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                arguments += ["--ro-bind", str(path), str(path)]
        for name in _OF_ETC:
            path = Path("/etc") / name
            if path.exists():
                arguments += [*_parents(PurePosixPath(path)), "--ro-bind", str(path), str(path)]
        for file in () if self._etc is None else self._etc.files:
            arguments += ["--ro-bind", str(file), f"/etc/{file.name}"]
        for path in _own_python():
            arguments += [*_parents(PurePosixPath(path)), "--ro-bind", str(path), str(path)]
        arguments += ["--proc", "/proc", "--dev", "/dev"]
        for name in _OF_PROC:
            if (Path("/proc") / name).exists():
                arguments += ["--ro-bind", "/dev/null", f"/proc/{name}"]
        return arguments

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Start a command; return once it runs. Raises SandboxError."""
        require_name(spec)
        if self._groups is None:
            await self.check()
        group = self._groups.make(spec.name, spec.limits) if self._groups is not None else None
        sandbox = BubblewrapSandbox(spec, group, self._filter, self._inside_user_of_command())
        try:
            await sandbox.start(functools.partial(self._command, spec, group), is_isolated=self.is_isolated)
        except BaseException:
            await sandbox.abandon()
            raise
        self._sandboxes.add(sandbox)
        sandbox.on_end = lambda _: self._sandboxes.discard(sandbox)
        return sandbox

    def _inside_user_of_command(self) -> list[int] | None:
        return list(self._user) if os.geteuid() == 0 else None

    async def close(self) -> None:
        """End all sandboxes."""
        await asyncio.gather(*(each.terminate(grace=1.0) for each in list(self._sandboxes)))
        self._remove_etc()

    def _remove_etc(self) -> None:
        if self._etc is not None:
            self._etc.remove()
            self._etc = None

    def _command(self, spec: SandboxSpec, group: ControlGroup | None, told: int) -> list[str]:
        files = [] if group is None else [str(file) for file in group.process_files]
        command = ["/bin/sh", "-c", _JOIN, "rpcshare", str(len(files)), *files]
        init = [self.python, "-I", "-S", "-B"]
        if not self.is_isolated:
            return [*command, *init, inside.__file__]
        program = cast("str", self._program)  # as it has been checked
        last = ("--info-fd", str(told), "--as-pid-1")
        shared = str(spec.limits.memory // 4)
        mounts = [
            *self._root(),
            *("--size", shared, "--perms", "1777", "--tmpfs", "/dev/shm"),  # noqa: S108 -- inside
            *("--size", str(spec.limits.memory // 2), "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108 -- inside
            *("--dir", "/var", "--symlink", "../tmp", "/var/tmp"),  # noqa: S108 -- inside
            *(*_parents(PurePosixPath(_RUN, "socket")), "--ro-bind", inside.__file__, _INIT),
            *("--bind", str(spec.workspace), str(WORKSPACE)),
            *(*_parents(AGENT_HOME), "--bind", str(spec.home), str(AGENT_HOME)),
            *(part for mount in spec.mounts for part in _mount(mount)),
            *(
                part
                for port, path in forwarded_ports(spec)
                for part in ("--ro-bind", str(path), f"{_RUN}/{port}.sock")
            ),
            *("--remount-ro", "/dev", "--remount-ro", "/"),
        ]
        return [*command, program, *self._namespaces(), *mounts, *last, "--", *init, _INIT]


class BubblewrapSandbox(SupervisedSandbox):
    """A command in a sandbox on this machine."""

    def __init__(
        self,
        spec: SandboxSpec,
        group: ControlGroup | None,
        filter_: SyscallFilter | None,
        user: list[int] | None,
    ) -> None:
        """Made by :meth:`BubblewrapDriver.start`."""
        super().__init__(spec)
        self._group = group
        self._filter = filter_
        self._user = user
        self._process: Process | None = None
        self._init: int | None = None
        """A descriptor of process 1 inside, with which all of it ends."""

    async def start(self, command: Callable[[int], list[str]], *, is_isolated: bool) -> None:
        """Start it; return once the command runs. Raises SandboxError."""
        near, far = socket.socketpair()
        told, telling = os.pipe()
        try:
            self._open_listener()
            output = self._open_output(self._user if is_isolated else None)
            self._process = await asyncio.create_subprocess_exec(
                *command(telling),
                str(far.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": DEFAULT_PATH},
                cwd="/",
                pass_fds=[far.fileno(), telling],
                start_new_session=True,
            )
        except OSError as exc:
            near.close()
            os.close(told)
            raise SandboxError(f"the sandbox cannot be started: {exc.strerror}") from exc
        finally:
            far.close()
            os.close(telling)
        try:
            await self._talk_to_init(near, self._init_message(is_isolated=is_isolated))
            self._init = _init_of(told)
        finally:
            os.close(told)
        self._supervise()

    def _init_message(self, *, is_isolated: bool) -> dict[str, object]:
        spec, ports = self._spec, forwarded_ports(self._spec)
        if not is_isolated:
            return init_message(
                spec,
                controlled=self._controlled,
                ports=[(port, str(path)) for port, path in ports],
                filter_=None,
                home=spec.home,
                directory=spec.workspace,
            )
        return init_message(
            spec,
            controlled=self._controlled,
            ports=[(port, f"{_RUN}/{port}.sock") for port, _ in ports],
            filter_=self._filter,
            user=self._user,
        )

    async def _exceeded(self) -> EndReason | None:
        usage = None if self._group is None else self._group.usage()
        if usage is not None and usage.out_of_memory:
            return EndReason.MEMORY
        if usage is not None and usage.refused_processes >= FORKS_REFUSED:
            return EndReason.PROCESSES
        if {"memory", "pids"} <= self._controlled or self._process is None:
            return None
        return await asyncio.to_thread(tree_exceeds, self._process.pid, self._spec.limits, self._controlled)

    def _memory(self) -> int | None:
        return None if self._group is None else self._group.usage().memory

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._init is not None:
            # It does not hear of the end of bubblewrap, which may not signal another user.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        if self._group is not None:
            self._group.kill()
        self._channel.close()  # at which the init ends, if it has only just begun

    async def _until_gone(self) -> None:
        if self._process is not None:
            await _ended(self._process.pid)

    async def _release(self) -> None:
        self._peak = None if self._group is None else self._group.peak_memory()
        if self._process is not None:
            # It has ended; a thread of asyncio's tells the loop, which may be over before.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _GONE_SECONDS)
        if self._group is not None:
            await asyncio.to_thread(self._group.remove)
        if self._init is not None:
            os.close(self._init)
            self._init = None

    @property
    def _controlled(self) -> frozenset[str]:
        return frozenset() if self._group is None else frozenset(self._group.directories)

    def _enforced_by(self) -> Mapping[str, str]:
        version = "cgroup v2" if self._group is not None and self._group.is_version_2 else "cgroup v1"
        return enforced_by(version, self._controlled)


async def _ended(process: int) -> None:
    """Return when a process has ended, whoever has its output open: asyncio itself would wait for them."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _init_of(told: int) -> int | None:
    """Return a descriptor of the process that bubblewrap has told of; None where there is no bubblewrap."""
    os.set_blocking(told, False)
    try:
        return os.pidfd_open(int(json.loads(os.read(told, 4096))["child-pid"]))
    except (OSError, ValueError, KeyError):
        return None


def _mount(mount: Mount) -> list[str]:
    kind = "--ro-bind" if mount.readonly else "--bind"
    return [*_parents(mount.target), kind, str(mount.source), str(mount.target)]


def _parents(path: PurePosixPath) -> list[str]:
    """Return what makes the directories above a mount, open to the user: bubblewrap itself may close them."""
    above = reversed([each for each in path.parents if each != each.parent])
    return [part for each in above for part in ("--perms", "0755", "--dir", str(each))]


def _own_python() -> list[Path]:
    """Return the directories of Python that are not beneath /usr, for the init."""
    prefix = Path(sys.base_prefix).resolve()
    return [] if prefix.is_relative_to("/usr") else [prefix]


def _output(command: list[str]) -> str:
    import subprocess  # noqa: PLC0415 -- asyncio has it already

    try:
        done = subprocess.run(  # noqa: S603 -- the operator's own program
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            env={"PATH": DEFAULT_PATH},
        )
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", "") or str(exc)
        raise SandboxError(f"bubblewrap does not run here: {said.strip()[-300:]}") from exc
    return done.stdout
