"""The server's end of the connection to a sandbox's init; :mod:`~rpcshare.sandbox.inside` is the other."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rpcshare.sandbox.driver import AGENT_HOME, EGRESS_PORT, WORKSPACE, SandboxSpec
from rpcshare.sandbox.syscall_filter import SyscallFilter

__all__ = ["DEFAULT_PATH", "InitChannel", "forwarded_ports", "init_message", "listen_for_callers"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class InitChannel:
    """Tells an init what to run, and hears of how that goes."""

    def __init__(
        self,
        on_refused: Callable[[str], None] | None,
        on_other: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        """Make the end of a connection that is opened later.

        Args:
            on_refused: is called with the names of refused system calls.
            on_other: is called with messages that only some inits send.
        """
        self.started = asyncio.Event()
        """Set once the command runs, or it is known why it does not."""
        self.exited = asyncio.Event()
        """Set once the command has ended by itself. The init waits for :meth:`close`."""
        self.exit_code: int | None = None
        self.failure = ""
        """Why the command does not run."""
        self._on_refused = on_refused
        self._on_other = on_other
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(
        self, control: socket.socket, message: Mapping[str, object], descriptors: Sequence[int]
    ) -> None:
        """Send an init what it is to run, and open files with it. Raises OSError."""
        data = json.dumps(message).encode() + b"\n"
        control.setblocking(False)
        sent = socket.send_fds(control, [data], list(descriptors))
        self._reader, self._writer = await asyncio.open_unix_connection(sock=control)
        self._writer.write(data[sent:])

    def open_streams(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Mapping[str, object]
    ) -> None:
        """Send an init on another machine what it is to run."""
        self._reader, self._writer = reader, writer
        writer.write(json.dumps(message).encode() + b"\n")

    async def read(self) -> None:
        """Heed the init until the connection ends."""
        reader = self._reader
        if reader is not None:
            with contextlib.suppress(OSError, ValueError):
                while line := await reader.readline():
                    self._heed(json.loads(line))

    def _heed(self, message: Mapping[str, Any]) -> None:
        if "exit" in message:
            self.exit_code = int(message["exit"])
            self.exited.set()
        elif "failed" in message:
            self.failure = str(message["failed"])
            self.started.set()
        elif "started" in message:
            self.started.set()
        elif "refused" in message:
            if self._on_refused is not None:
                self._on_refused(str(message["refused"]))
        else:
            self._on_other(message)

    def terminate(self) -> None:
        """Have the command end by SIGTERM."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.write(b'{"terminate": true}\n')

    def close(self) -> None:
        """Close the connection, at which the init ends, and the command with it."""
        if self._writer is not None:
            self._writer.close()


def init_message(
    spec: SandboxSpec,
    *,
    controlled: Collection[str],
    ports: Sequence[tuple[int, str]],
    filter_: SyscallFilter | None,
    user: Sequence[int] | None = None,
    home: PurePosixPath | Path = AGENT_HOME,
    directory: PurePosixPath | Path = WORKSPACE,
    defaults: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return what an init is told to run.

    Args:
        spec: what is wanted.
        controlled: which of ``memory`` and ``pids`` a control group limits. Resource limits take their place.
        ports: ports on 127.0.0.1, inside, and the paths of the sockets, inside, that they lead to.
        filter_: the filter of system calls; None: none is installed.
        user: the user and group that the init becomes; None: it is that user already.
        home: ``HOME`` of the command.
        directory: its working directory.
        defaults: environment that stands where nothing else is said, such as an image's, with its ``PATH``.
    """
    limits = spec.limits
    resources = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits.disk, "RLIMIT_NOFILE": 16_384}
    if "memory" not in controlled:
        resources["RLIMIT_DATA"] = limits.memory
    if "pids" not in controlled:
        resources["RLIMIT_NPROC"] = limits.processes
    environment = {
        "PATH": DEFAULT_PATH,
        **(defaults or {}),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 -- inside
        "USER": "agent",
        "SHELL": "/bin/sh",
        **(_proxy_environment() if spec.egress_socket is not None else {}),
        **spec.environment,
    }
    return {
        "command": list(spec.command),
        "environment": environment,
        "directory": str(directory),
        "user": None if user is None else list(user),
        "limits": resources,
        "ports": [list(each) for each in ports],
        "serves": spec.port,
        "filter": "" if filter_ is None else base64.b64encode(filter_.program).decode(),
        "names": {} if filter_ is None else {str(number): name for number, name in filter_.names.items()},
    }


def forwarded_ports(spec: SandboxSpec) -> list[tuple[int, Path]]:
    """Return ports on 127.0.0.1, inside, and the Unix sockets of this machine that they lead to."""
    egress = [] if spec.egress_socket is None else [(EGRESS_PORT, spec.egress_socket)]
    return [*egress, *sorted(spec.sockets.items())]


def listen_for_callers(path: Path) -> socket.socket:
    """Return a socket that listens at ``path``, for those who want to reach the command. Raises OSError."""
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


def _proxy_environment() -> dict[str, str]:
    proxy = f"http://127.0.0.1:{EGRESS_PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    # Node.js heeds the others only if it is told to.
    none = "localhost,127.0.0.1,::1"
    return {**dict.fromkeys(names, proxy), "NO_PROXY": none, "no_proxy": none, "NODE_USE_ENV_PROXY": "1"}
