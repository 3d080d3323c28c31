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
import base64
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
import tempfile
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from rpcshare.sandbox import inside
from rpcshare.sandbox.cgroups import ControlGroup, ControlGroups
from rpcshare.sandbox.disk_watch import DiskWatch
from rpcshare.sandbox.driver import (
    AGENT_HOME,
    EGRESS_PORT,
    WORKSPACE,
    EndReason,
    Mount,
    Sandbox,
    SandboxError,
    SandboxSpec,
    SandboxStatus,
)
from rpcshare.sandbox.log_tail import LogTail
from rpcshare.sandbox.process_tree import process_tree_usage
from rpcshare.sandbox.syscall_filter import SyscallFilter, syscall_filter

__all__ = ["BubblewrapDriver", "BubblewrapSandbox"]

logger = logging.getLogger("rpcshare.sandbox")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_VERSION = re.compile(r"bubblewrap (\d+)\.(\d+)")
_LEAST_VERSION = (0, 6)  # --size, and fixes of mounts; --disable-userns came with 0.8
_START_SECONDS = 20.0
_WATCH_EVERY = 0.25
_FORKS_REFUSED = 64  # a build that is refused one goes on; a fork bomb is refused thousands
_TOLD_SECONDS = 5.0
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
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Joins the groups before anything of the sandbox runs, so that nothing of it is ever outside of them.
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'


class BubblewrapDriver:
    """Starts sandboxes on this machine."""

    name = "local"

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
        self._etc: tempfile.TemporaryDirectory[str] | None = None
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
        self._make_etc()
        command = [program, *self._namespaces(), *self._root(), "--", "/bin/true"]
        _output(command)

    def _seen(self) -> list[Path]:
        return [Path("/usr"), *_own_python()]

    def _make_etc(self) -> None:
        if self._etc is not None:
            return
        self._etc = tempfile.TemporaryDirectory(prefix="rpcshare-etc-")
        uid, gid = self._inside_user
        folder = Path(self._etc.name)
        folder.chmod(0o755)
        files = {
            "passwd": f"root:x:0:0:root:/:/sbin/nologin\nagent:x:{uid}:{gid}:agent:{AGENT_HOME}:/bin/sh\n",
            "group": f"root:x:0:\nagent:x:{gid}:\n",
            "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
            "hostname": "sandbox\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
            "resolv.conf": "# There is no DNS here: names are resolved by the proxy.\nnameserver 127.0.0.1\n",
        }
        for name, text in files.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)

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
        folder = Path(self._etc.name) if self._etc is not None else None
        for file in sorted(folder.iterdir()) if folder is not None else ():
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
        if not _NAME.fullmatch(spec.name):
            raise SandboxError("the name of a sandbox is of letters, digits, dashes and underscores")
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
        sandbox.on_end = self._sandboxes.discard
        return sandbox

    def _inside_user_of_command(self) -> list[int] | None:
        return list(self._user) if os.geteuid() == 0 else None

    async def close(self) -> None:
        """End all sandboxes."""
        await asyncio.gather(*(each.terminate(grace=1.0) for each in list(self._sandboxes)))
        self._remove_etc()

    def _remove_etc(self) -> None:
        if self._etc is not None:
            self._etc.cleanup()
            self._etc = None

    def _command(self, spec: SandboxSpec, group: ControlGroup | None, told: int) -> list[str]:
        files = [] if group is None else [str(file) for file in group.process_files]
        python = os.path.realpath(sys.executable)
        command = ["/bin/sh", "-c", _JOIN, "rpcshare", str(len(files)), *files]
        init = [python, "-I", "-S", "-B"]
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
                for port, path in _ports(spec)
                for part in ("--ro-bind", str(path), f"{_RUN}/{port}.sock")
            ),
            *("--remount-ro", "/dev", "--remount-ro", "/"),
        ]
        return [*command, program, *self._namespaces(), *mounts, *last, "--", *init, _INIT]


class BubblewrapSandbox:
    """A command in a sandbox on this machine."""

    def __init__(
        self,
        spec: SandboxSpec,
        group: ControlGroup | None,
        filter_: SyscallFilter | None,
        user: list[int] | None,
    ) -> None:
        """Made by :meth:`BubblewrapDriver.start`."""
        self._spec = spec
        self._group = group
        self._filter = filter_
        self._user = user
        self._log = LogTail(spec.log_file)
        self._process: Process | None = None
        self._control: asyncio.StreamWriter | None = None
        self._listener: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reason: EndReason | None = None
        self._exit_code: int | None = None
        self._failure = ""
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._peak: int | None = None
        self._init: int | None = None
        """A descriptor of process 1 inside, with which all of it ends."""
        self.on_end: Callable[[BubblewrapSandbox], None] = lambda _: None

    @property
    def name(self) -> str:
        """The name of its spec."""
        return self._spec.name

    @property
    def socket_path(self) -> Path | None:
        """A Unix socket that leads to the command's port."""
        return None if self._spec.port is None else self._spec.run_dir / f"{self._spec.name}.sock"

    @property
    def status(self) -> SandboxStatus:
        """What it is doing now."""
        enforced = self._enforced_by()
        if not self._ended.is_set():
            memory = None if self._group is None else self._group.usage().memory
            return SandboxStatus(running=True, memory=memory, enforced_by=enforced)
        reason = self._reason or EndReason.LOST
        code = self._exit_code if reason is EndReason.EXITED else None
        return SandboxStatus(
            running=False,
            reason=reason,
            exit_code=code,
            message=self._message(reason),
            memory=self._peak,
            enforced_by=enforced,
        )

    async def wait(self) -> SandboxStatus:
        """Return how it has ended, once nothing of it is left."""
        await self._ended.wait()
        return self.status

    async def terminate(self, *, grace: float = 5.0) -> SandboxStatus:
        """End it: by SIGTERM, and by SIGKILL after ``grace`` seconds."""
        if self._ended.is_set():
            return self.status
        self._reason = self._reason or EndReason.TERMINATED
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.write(b'{"terminate": true}\n')
        try:
            await asyncio.wait_for(self._ended.wait(), grace)
        except TimeoutError:
            self._kill()
            await self._ended.wait()
        return self.status

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it printed. They are not redacted."""
        return self._log.last(lines)

    # Starting

    async def start(self, command: Callable[[int], list[str]], *, is_isolated: bool) -> None:
        """Start it; return once the command runs. Raises SandboxError."""
        near, far = socket.socketpair()
        told, telling = os.pipe()
        descriptors = [far.fileno(), telling]
        try:
            if self._spec.port is not None:
                self._listener = self._listen()
                descriptors.append(self._listener.fileno())
            self._process = await asyncio.create_subprocess_exec(
                *command(telling),
                str(far.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": _PATH},
                cwd="/",
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as exc:
            near.close()
            os.close(told)
            raise SandboxError(f"the sandbox cannot be started: {exc.strerror}") from exc
        finally:
            far.close()
            os.close(telling)
        reader, self._control = await asyncio.open_unix_connection(sock=near)
        self._tasks = [asyncio.ensure_future(each) for each in (self._read_log(), self._read_control(reader))]
        self._control.write(json.dumps(self._message_to_init(is_isolated=is_isolated)).encode() + b"\n")
        try:
            await self._await_start()
            self._init = _init_of(told)
        finally:
            os.close(told)
        watching: list[Awaitable[None]] = [self._watch_usage(), self._watch_disk()]
        if self._spec.limits.timeout is not None:
            watching.append(self._watch_time(self._spec.limits.timeout))
        self._tasks += [asyncio.ensure_future(each) for each in watching]
        self._tasks.append(asyncio.ensure_future(self._await_end()))

    def _listen(self) -> socket.socket:
        path = cast("Path", self.socket_path)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        return listener

    def _message_to_init(self, *, is_isolated: bool) -> dict[str, object]:
        spec, limits = self._spec, self._spec.limits
        home = AGENT_HOME if is_isolated else spec.home
        environment = {
            "PATH": _PATH,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",  # noqa: S108 -- inside
            "USER": "agent",
            "SHELL": "/bin/sh",
            **(_proxy_environment() if spec.egress_socket is not None else {}),
            **spec.environment,
        }
        resources = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits.disk, "RLIMIT_NOFILE": 16_384}
        if "memory" not in self._controlled:
            resources["RLIMIT_DATA"] = limits.memory
        if "pids" not in self._controlled:
            resources["RLIMIT_NPROC"] = limits.processes
        filter_ = self._filter if is_isolated else None
        return {
            "command": list(spec.command),
            "environment": environment,
            "directory": str(WORKSPACE if is_isolated else spec.workspace),
            "user": self._user if is_isolated else None,
            "limits": resources,
            "ports": [
                [port, f"{_RUN}/{port}.sock" if is_isolated else str(path)] for port, path in _ports(spec)
            ],
            "serves": None if self._listener is None else [self._listener.fileno(), spec.port],
            "filter": "" if filter_ is None else base64.b64encode(filter_.program).decode(),
            "names": {} if filter_ is None else {str(number): name for number, name in filter_.names.items()},
        }

    async def _await_start(self) -> None:
        try:
            await asyncio.wait_for(self._started.wait(), _START_SECONDS)
        except TimeoutError:
            raise SandboxError("the sandbox did not start in time", self.log_tail()) from None
        if self._failure:
            raise SandboxError(f"the sandbox could not be started: {self._failure}", self.log_tail())

    # Watching

    async def _read_log(self) -> None:
        output = cast("asyncio.StreamReader", cast("Process", self._process).stdout)
        while data := await output.read(65_536):
            self._log.write(data)

    async def _read_control(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                self._heed(json.loads(line))
        if not self._started.is_set():
            await asyncio.sleep(0.05)  # for what was printed about it
            self._failure = self._failure or self.log_tail(1) or "it ended at once"
            self._started.set()

    def _heed(self, message: Mapping[str, Any]) -> None:
        if "exit" in message:
            self._exit_code = int(message["exit"])
        elif "failed" in message:
            self._failure = str(message["failed"])
            self._started.set()
        elif "started" in message:
            self._started.set()
        elif "refused" in message and self._spec.on_refused is not None:
            self._spec.on_refused(str(message["refused"]))

    async def _watch_usage(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            reason = self._exceeded()
            if reason is None and not {"memory", "pids"} <= self._controlled:
                reason = await asyncio.to_thread(self._exceeded_by_tree)
            if reason is not None:
                self._end(reason)
                return

    def _exceeded_by_tree(self) -> EndReason | None:
        usage = process_tree_usage(cast("Process", self._process).pid)
        limits = self._spec.limits
        if "memory" not in self._controlled and (usage.memory or 0) > limits.memory:
            return EndReason.MEMORY
        # The resource limit refuses more; at three quarters of it something is starting them without end.
        too_many = "pids" not in self._controlled and (usage.processes or 0) > limits.processes * 3 // 4
        return EndReason.PROCESSES if too_many else None

    def _exceeded(self) -> EndReason | None:
        if self._group is None:
            return None
        usage = self._group.usage()
        if usage.out_of_memory:
            return EndReason.MEMORY
        return EndReason.PROCESSES if usage.refused_processes >= _FORKS_REFUSED else None

    async def _watch_disk(self) -> None:
        limits = self._spec.limits
        watch = DiskWatch([self._spec.workspace, self._spec.home], limits.disk, limits.files)
        await watch.until_exceeded()
        self._end(EndReason.DISK)

    async def _watch_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._end(EndReason.TIMEOUT)

    # Ending

    def _end(self, reason: EndReason) -> None:
        if not self._ended.is_set():
            self._reason = self._reason or reason
            self._kill()

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
        if self._control is not None:
            self._control.close()  # at which the init ends, if it has only just begun

    async def _await_end(self) -> None:
        await _ended(cast("Process", self._process).pid)
        # Both end when the last process has: it holds the other ends. What they have to tell counts. If
        # bubblewrap alone was killed, the rest is ended here.
        if (await asyncio.wait(self._tasks[:2], timeout=_TOLD_SECONDS))[1]:
            self._kill()
        if self._reason is None:
            if (exceeded := self._exceeded()) is not None:
                self._reason = exceeded
            else:
                self._reason = EndReason.LOST if self._exit_code is None else EndReason.EXITED
        await self._clean_up()

    async def abandon(self) -> None:
        """Leave nothing of a start that has failed."""
        self._kill()
        if self._process is not None:
            await _ended(self._process.pid)
        await self._clean_up()

    async def _clean_up(self) -> None:
        self._peak = None if self._group is None else self._group.peak_memory()
        if self._tasks:
            await asyncio.wait(self._tasks[:2], timeout=_GONE_SECONDS)
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if self._process is not None:
            # It has ended; a thread of asyncio's tells the loop, which may be over before.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _GONE_SECONDS)
        if self._group is not None:
            await asyncio.to_thread(self._group.remove)
        if self._control is not None:
            self._control.close()
        if self._init is not None:
            os.close(self._init)
            self._init = None
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                (self.socket_path or Path()).unlink()
        self._log.close()
        self._ended.set()
        self.on_end(self)

    @property
    def _controlled(self) -> frozenset[str]:
        return frozenset() if self._group is None else frozenset(self._group.directories)

    def _enforced_by(self) -> Mapping[str, str]:
        version = "cgroup v2" if self._group is not None and self._group.is_version_2 else "cgroup v1"
        controlled = self._controlled
        return {
            "memory": version if "memory" in controlled else "rlimit and measurement",
            "processes": version if "pids" in controlled else "rlimit and measurement",
            "cpu": version if "cpu" in controlled else "nothing",
            "disk": "measurement",
            "timeout": "clock",
        }

    def _message(self, reason: EndReason) -> str:
        limits = self._spec.limits
        return {
            EndReason.EXITED: f"ended by itself with status {self._exit_code}",
            EndReason.TERMINATED: "was stopped",
            EndReason.MEMORY: f"used more than its {limits.memory:,} bytes of memory",
            EndReason.PROCESSES: f"started more than its {limits.processes:,} processes",
            EndReason.DISK: f"wrote more than its {limits.disk:,} bytes or {limits.files:,} files",
            EndReason.TIMEOUT: f"took longer than its {limits.timeout or 0:g} s",
            EndReason.LOST: "was killed, from outside or by itself",
        }[reason]


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


def _ports(spec: SandboxSpec) -> list[tuple[int, Path]]:
    egress = [] if spec.egress_socket is None else [(EGRESS_PORT, spec.egress_socket)]
    return [*egress, *sorted(spec.sockets.items())]


def _mount(mount: Mount) -> list[str]:
    kind = "--ro-bind" if mount.readonly else "--bind"
    return [*_parents(mount.target), kind, str(mount.source), str(mount.target)]


def _parents(path: PurePosixPath) -> list[str]:
    """Return what makes the directories above a mount, open to the user: bubblewrap itself may close them."""
    above = reversed([each for each in path.parents if each != each.parent])
    return [part for each in above for part in ("--perms", "0755", "--dir", str(each))]


def _proxy_environment() -> dict[str, str]:
    proxy = f"http://127.0.0.1:{EGRESS_PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    # Node.js heeds the others only if it is told to.
    none = "localhost,127.0.0.1,::1"
    return {**dict.fromkeys(names, proxy), "NO_PROXY": none, "no_proxy": none, "NODE_USE_ENV_PROXY": "1"}


def _own_python() -> list[Path]:
    """Return the directories of Python that are not beneath /usr, for the init."""
    prefix = Path(sys.base_prefix).resolve()
    return [] if prefix.is_relative_to("/usr") else [prefix]


def _output(command: list[str]) -> str:
    import subprocess  # noqa: PLC0415 -- asyncio has it already

    try:
        done = subprocess.run(  # noqa: S603 -- the operator's own program
            command, check=True, capture_output=True, text=True, timeout=_START_SECONDS, env={"PATH": _PATH}
        )
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", "") or str(exc)
        raise SandboxError(f"bubblewrap does not run here: {said.strip()[-300:]}") from exc
    return done.stdout
