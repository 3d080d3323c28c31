"""What the server does for a sandbox while it runs: the same for every driver.

A :class:`SupervisedSandbox` hears of its init, keeps the end of the output, measures, and ends the sandbox
that exceeds a limit. Each driver adds how its sandbox is started, killed and cleaned up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from rpcshare.sandbox.disk_watch import DiskWatch
from rpcshare.sandbox.driver import EndReason, SandboxError, SandboxLimits, SandboxSpec, SandboxStatus
from rpcshare.sandbox.init_channel import InitChannel, listen_for_callers
from rpcshare.sandbox.log_tail import LogTail
from rpcshare.sandbox.process_tree import process_tree_usage

__all__ = ["FORKS_REFUSED", "SupervisedSandbox", "enforced_by", "require_name", "tree_exceeds"]

logger = logging.getLogger("rpcshare.sandbox")

FORKS_REFUSED = 64
"""A build that is refused one process goes on; a fork bomb is refused thousands."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TOLD_SECONDS = 5.0
_GONE_SECONDS = 10.0


class SupervisedSandbox(ABC):
    """A command that runs in a sandbox, or has ended."""

    watch_every = 0.25
    """Seconds between two looks at what it uses."""
    start_seconds = 20.0
    """How long an init may take to start the command, once it is connected."""

    def __init__(self, spec: SandboxSpec) -> None:
        """Made by a driver, which then opens the channel to the init and calls :meth:`_supervise`."""
        self._spec = spec
        self._log = LogTail(spec.log_file)
        self._channel = InitChannel(spec.on_refused, self._heed_other)
        self._listener: socket.socket | None = None
        self._output: int | None = None
        self._telling: list[asyncio.Task[None]] = []
        self._hearing: asyncio.Task[None] | None = None
        """Ends with the connection to the init, which the init keeps for as long as it runs."""
        self._watching: list[asyncio.Task[None]] = []
        self._reason: EndReason | None = None
        self._ended = asyncio.Event()
        self._peak: int | None = None
        self.on_end: Callable[[SupervisedSandbox], None] = lambda _: None

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
            return SandboxStatus(running=True, memory=self._memory(), enforced_by=enforced)
        reason = self._reason or EndReason.LOST
        code = self._channel.exit_code if reason is EndReason.EXITED else None
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
        self._channel.terminate()
        try:
            await asyncio.wait_for(self._ended.wait(), grace)
        except TimeoutError:
            self._kill()
            await self._ended.wait()
        return self.status

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that it printed. They are not redacted."""
        return self._log.last(lines)

    # What each driver does

    @abstractmethod
    def _kill(self) -> None:
        """Kill all of it, at once or soon. May be called at any time, and again."""

    @abstractmethod
    async def _until_gone(self) -> None:
        """Return when its init is gone."""

    @abstractmethod
    async def _release(self) -> None:
        """Give back what it holds on this machine, and note the most memory that it had."""

    @abstractmethod
    def _enforced_by(self) -> Mapping[str, str]:
        """Return what enforces each limit."""

    @abstractmethod
    async def _exceeded(self) -> EndReason | None:
        """Return which limit of memory or processes is exceeded."""

    def _heed_other(self, message: Mapping[str, Any]) -> None:
        """Take a message that only the inits of some drivers send."""
        logger.warning("the init of %s sent what it never sends: %s", self.name, sorted(message))

    def _memory(self) -> int | None:
        """Return how much memory it uses now."""
        return None

    def _message(self, reason: EndReason) -> str:
        return _end_message(reason, self._spec.limits, self._channel.exit_code)

    # For drivers

    def _open_output(self, user: Sequence[int] | None) -> int:
        """Return the end of a pipe that the command prints to; keep what it prints.

        It belongs to the command's user, who could not open ``/dev/stderr`` otherwise.
        """
        reading, self._output = os.pipe()
        if user is not None:
            os.fchown(self._output, user[0], user[1])
        pipe = FileIO(reading, "rb")
        self._telling.append(asyncio.ensure_future(self._log.follow(pipe)))
        return self._output

    def _open_listener(self) -> socket.socket | None:
        """Return a socket at :attr:`socket_path`, if the command serves. Raises OSError."""
        if self.socket_path is not None:
            self._listener = listen_for_callers(self.socket_path)
        return self._listener

    async def _talk_to_init(self, control: socket.socket, message: Mapping[str, object]) -> None:
        """Have an init start the command; return once it runs. Raises SandboxError."""
        descriptors = [] if self._listener is None else [self._listener.fileno()]
        if self._output is not None:
            descriptors.append(self._output)
        try:
            await self._channel.open(control, message, descriptors)
        except OSError as exc:
            control.close()
            raise SandboxError(f"the sandbox could not be started: {exc.strerror}", self.log_tail()) from exc
        if self._listener is not None:
            self._listener.close()  # the init has it: once that is gone, a connection is refused
        self._close_output()
        await self._hear_start()

    def _close_output(self) -> None:
        if self._output is not None:
            os.close(self._output)
            self._output = None

    async def _hear_start(self) -> None:
        """Heed an init that was told what to run; return once it does. Raises SandboxError."""
        self._hearing = asyncio.ensure_future(self._read_channel())
        self._telling.append(self._hearing)
        try:
            await asyncio.wait_for(self._channel.started.wait(), self.start_seconds)
        except TimeoutError:
            raise SandboxError("the sandbox did not start in time", self.log_tail()) from None
        if self._channel.failure:
            message = f"the sandbox could not be started: {self._channel.failure}"
            raise SandboxError(message, self.log_tail())

    def _supervise(self) -> None:
        """Watch it from now on."""
        watching: list[Awaitable[None]] = [self._watch_usage(), self._watch_disk(), self._watch_exit()]
        if self._spec.limits.timeout is not None:
            watching.append(self._watch_time(self._spec.limits.timeout))
        self._watching = [asyncio.ensure_future(each) for each in (*watching, self._await_end())]

    # Watching

    async def _read_channel(self) -> None:
        await self._channel.read()
        if not self._channel.started.is_set():
            await asyncio.sleep(0.05)  # for what was printed about it
            self._channel.failure = self._channel.failure or self.log_tail(1) or "it ended at once"
            self._channel.started.set()

    async def _watch_usage(self) -> None:
        while True:
            await asyncio.sleep(self.watch_every)
            if (reason := await self._exceeded()) is not None:
                self._end(reason)
                return

    async def _watch_exit(self) -> None:
        await self._channel.exited.wait()
        # The last of its processes may have been killed for want of memory: what counts that is still there.
        reason = await self._exceeded()
        self._reason = self._reason or reason
        self._channel.close()

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

    async def _await_end(self) -> None:
        await self._until_gone()
        # Both end when the last process has: it holds the other ends. What they have to tell counts. If
        # the init alone was killed, the rest is ended here.
        if (await asyncio.wait(self._telling, timeout=_TOLD_SECONDS))[1]:
            self._kill()
        if self._reason is None:
            if (exceeded := await self._exceeded()) is not None:
                self._reason = exceeded
            else:
                self._reason = EndReason.LOST if self._channel.exit_code is None else EndReason.EXITED
        await self._clean_up()

    async def abandon(self) -> None:
        """Leave nothing of a start that has failed."""
        self._kill()
        await self._until_gone()
        await self._clean_up()

    async def _clean_up(self) -> None:
        self._close_output()
        if self._telling:
            await asyncio.wait(self._telling, timeout=_GONE_SECONDS)
        for task in (*self._telling, *self._watching):
            if task is not asyncio.current_task():
                task.cancel()
        await self._release()
        self._channel.close()
        if self._listener is not None:
            self._listener.close()
            if self.socket_path is not None:
                with contextlib.suppress(OSError):
                    self.socket_path.unlink()
        self._log.close()
        self._ended.set()
        self.on_end(self)


def _end_message(reason: EndReason, limits: SandboxLimits, exit_code: int | None) -> str:
    """Return how a sandbox has ended, as a sentence without its subject."""
    return {
        EndReason.EXITED: f"ended by itself with status {exit_code}",
        EndReason.TERMINATED: "was stopped",
        EndReason.MEMORY: f"used more than its {limits.memory:,} bytes of memory",
        EndReason.PROCESSES: f"started more than its {limits.processes:,} processes",
        EndReason.DISK: f"wrote more than its {limits.disk:,} bytes or {limits.files:,} files",
        EndReason.TIMEOUT: f"took longer than its {limits.timeout or 0:g} s",
        EndReason.LOST: "was killed, from outside or by itself",
    }[reason]


def require_name(spec: SandboxSpec) -> None:
    """Raise SandboxError if a sandbox's name is none: it becomes part of paths."""
    if not _NAME.fullmatch(spec.name):
        raise SandboxError("the name of a sandbox is of letters, digits, dashes and underscores")


def tree_exceeds(root: int, limits: SandboxLimits, controlled: Collection[str]) -> EndReason | None:
    """Return which limit a tree of processes exceeds, of those that no control group has."""
    usage = process_tree_usage(root)
    if "memory" not in controlled and (usage.memory or 0) > limits.memory:
        return EndReason.MEMORY
    # The resource limit refuses more; at three quarters of it something is starting them without end.
    too_many = "pids" not in controlled and (usage.processes or 0) > limits.processes * 3 // 4
    return EndReason.PROCESSES if too_many else None


def enforced_by(groups: str, controlled: Collection[str]) -> dict[str, str]:
    """Return what enforces each limit, where ``groups`` has those of the controllers ``controlled``."""
    return {
        "memory": groups if "memory" in controlled else "rlimit and measurement",
        "processes": groups if "pids" in controlled else "rlimit and measurement",
        "cpu": groups if "cpu" in controlled else "nothing",
        "disk": "measurement",
        "timeout": "clock",
    }
