"""What every sandbox driver does, whatever it runs programs with.

A driver starts one command in a sandbox, on the directories that it is given, and within limits. The sandbox
has no network. What leaves it goes through Unix sockets: the egress proxy, and others that the caller names.
``tests/sandbox/driver_contract.py`` has the tests that each driver passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol

__all__ = [
    "AGENT_HOME",
    "EGRESS_PORT",
    "WORKSPACE",
    "EndReason",
    "Mount",
    "Sandbox",
    "SandboxDriver",
    "SandboxError",
    "SandboxLimits",
    "SandboxSpec",
    "SandboxStatus",
]

WORKSPACE = PurePosixPath("/workspace")
"""Where the workspace's files are, inside. It is the working directory of the command."""

AGENT_HOME = PurePosixPath("/home/agent")
"""``HOME`` of the command, inside."""

EGRESS_PORT = 3128
"""The port on 127.0.0.1, inside, that leads to the egress proxy."""


class SandboxError(Exception):
    """A sandbox that could not be started.

    Attributes:
        message: one sentence, for whoever asked for it.
        log: the last lines that the command or the sandbox printed. They are not redacted.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.log = log


class EndReason(StrEnum):
    """Why a sandbox has ended."""

    EXITED = "exited"
    """The command ended by itself; its exit status is in the status."""
    TERMINATED = "terminated"
    """It was asked for."""
    MEMORY = "memory"
    PROCESSES = "processes"
    DISK = "disk"
    TIMEOUT = "timeout"
    LOST = "lost"
    """It was killed from outside, or has killed its own init."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one sandbox may use. Exceeding memory, processes, disk or time ends it."""

    memory: int = 2 * 2**30
    """Bytes, of all processes and of what they write to ``/tmp``."""
    cpus: float = 2.0
    """Processors' worth of time."""
    processes: int = 512
    """Processes and threads."""
    disk: int = 5 * 2**30
    """Bytes allocated by the workspace's files and the home, together."""
    files: int = 1_000_000
    """Files and directories in those."""
    timeout: float | None = None
    """Seconds; None: as long as it likes."""


@dataclass(frozen=True)
class Mount:
    """A directory or file of this machine that the sandbox sees."""

    source: Path
    target: PurePosixPath
    """Absolute, and beneath nothing that is writable inside."""
    readonly: bool = True


@dataclass(frozen=True)
class SandboxSpec:
    """What is to be run, and on what."""

    name: str
    """Of letters, digits, dashes and underscores: for logs, and for the names of control groups."""
    command: tuple[str, ...]
    workspace: Path
    """The directory that is writable at :data:`WORKSPACE`."""
    home: Path
    """The directory that is writable at :data:`AGENT_HOME`. It outlives the sandbox."""
    run_dir: Path
    """A directory of this machine alone, for sockets; its path is at most 60 bytes long."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside ``HOME``, ``PATH``, ``LANG``, ``TMPDIR`` and the proxy's; none of the server's is inherited."""
    mounts: tuple[Mount, ...] = ()
    limits: SandboxLimits = SandboxLimits()
    egress_socket: Path | None = None
    """The Unix socket of an egress proxy; None: nothing leaves the sandbox."""
    sockets: Mapping[int, Path] = field(default_factory=dict)
    """Ports on 127.0.0.1, inside, and the Unix sockets of this machine that they lead to: a model gateway."""
    port: int | None = None
    """The port on 127.0.0.1, inside, on which the command serves. :attr:`Sandbox.socket_path` leads to it."""
    log_file: Path | None = None
    """A file that also gets the output, up to 16 MiB; None: only its end is kept, in memory."""
    on_refused: Callable[[str], None] | None = None
    """Is called with the name of a system call that was refused inside, once a second at most for each."""


@dataclass(frozen=True)
class SandboxStatus:
    """What a sandbox is doing, or how it has ended."""

    running: bool
    reason: EndReason | None = None
    """None while it runs."""
    exit_code: int | None = None
    """Of the command, where it ended by itself; of a signal, 128 and its number."""
    message: str = ""
    """How it ended, as a sentence."""
    memory: int | None = None
    """Bytes in use, or at most in use until it ended; None where nobody counts."""
    enforced_by: Mapping[str, str] = field(default_factory=dict)
    """What enforces each limit: ``memory`` by ``cgroup v2``, ``cgroup v1`` or ``rlimit``, and so on."""


class Sandbox(Protocol):
    """A command that runs in a sandbox, or has ended."""

    @property
    def name(self) -> str:
        """The name of its spec."""

    @property
    def status(self) -> SandboxStatus:
        """What it is doing now."""

    @property
    def socket_path(self) -> Path | None:
        """A Unix socket that leads to the command's ``port``; None where the spec names none.

        It accepts from the start. A connection is closed at once while the command does not listen yet.
        """

    async def wait(self) -> SandboxStatus:
        """Return how it has ended, once nothing of it is left."""

    async def terminate(self, *, grace: float = 5.0) -> SandboxStatus:
        """Send SIGTERM to the command, kill all that is left after ``grace`` seconds, and return the end."""

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it printed. They are not redacted."""


class SandboxDriver(Protocol):
    """Starts sandboxes."""

    name: str
    """As in ``--agents``: ``local``, ``docker``, ``kubernetes``."""
    python: str
    """Python inside: a path, or a name on ``PATH``."""
    scratch: Path | None
    """Where directories have to be that sandboxes are given; None: anywhere."""

    async def check(self) -> None:
        """Return if sandboxes can be started here.

        Raises:
            SandboxError: they cannot; the message says what is missing.
        """

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Start a command; return once it runs.

        Raises:
            SandboxError: it could not be started. Nothing is left of it.
        """

    async def close(self) -> None:
        """End all sandboxes."""
