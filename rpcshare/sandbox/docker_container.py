"""A sandbox that is a container of Docker or Podman."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import DockerError
from aiodocker.containers import DockerContainer

from rpcshare.sandbox.cgroups import ControlGroup
from rpcshare.sandbox.container_config import CONTROL, RUN, JSONObject
from rpcshare.sandbox.container_engine import ContainerEngine, EngineAbilities
from rpcshare.sandbox.driver import EndReason, SandboxError, SandboxSpec
from rpcshare.sandbox.init_channel import forwarded_ports, init_message
from rpcshare.sandbox.supervision import FORKS_REFUSED, SupervisedSandbox, enforced_by, tree_exceeds
from rpcshare.sandbox.syscall_filter import syscall_filter

__all__ = ["DockerSandbox", "remove_container"]

logger = logging.getLogger("rpcshare.sandbox")

_CONNECT_SECONDS = 60.0
_REMOVAL_TRIES = 5
_LOOK_AGAIN = 0.5
_TOLD_SECONDS = 5.0
_STATISTICS_EVERY = 2.0


class DockerSandbox(SupervisedSandbox):
    """A command in a container."""

    def __init__(self, spec: SandboxSpec, engine: ContainerEngine, abilities: EngineAbilities) -> None:
        """Made by :meth:`DockerDriver.start`."""
        super().__init__(spec)
        self._engine = engine
        self._abilities = abilities
        self._unique = f"rpcshare-{spec.name}-{secrets.token_hex(4)}"
        self._container: DockerContainer | None = None
        self._creating: asyncio.Future[DockerContainer] | None = None
        self._killing: asyncio.Task[None] | None = None
        self._process: int | None = None
        self._group: ControlGroup | None = None
        self._out_of_memory = False
        self._counted = 0.0
        self._at_limit = 0
        self._used: int | None = None
        self.limited: frozenset[str] | None = None
        """Which controllers do limit it, once it has started; None: this server cannot see that."""

    async def start(
        self, config: Callable[[Path], JSONObject], user: tuple[int, int], defaults: Mapping[str, str]
    ) -> None:
        """Start it; return once the command runs. Raises SandboxError."""
        # A short name: the path of a socket has room for 107 bytes.
        control = self._spec.run_dir / f"{secrets.token_hex(4)}.c"
        what = "the sandbox could not be started"
        waiting = socket.socket(socket.AF_UNIX)
        try:
            try:
                waiting.bind(str(control))
                control.chmod(0o666)  # who is inside is another user; the directory keeps others out
                waiting.listen(1)
                waiting.setblocking(False)
                self._open_listener()
                self._open_output(user)
            except OSError as exc:
                raise SandboxError(f"{what}: {exc.strerror}") from exc
            async with self._engine.told(what):
                await self._create(config(control))
                await self._require_container().start()
            near = await self._accept(waiting)
        finally:
            waiting.close()
            with contextlib.suppress(OSError):
                control.unlink()
        async with self._engine.told(what):
            shown = await self._require_container().show()
        self._process = _visible_process(shown)
        if self._process is not None:
            self._group = _group_of(self._process, str(shown["Id"]))
            self.limited = frozenset() if self._group is None else self._group.limited(self._spec.limits)
        await self._talk_to_init(
            near,
            init_message(
                self._spec,
                controlled=self._abilities.controlled,
                ports=[(port, f"{RUN}/{port}.sock") for port, _ in forwarded_ports(self._spec)],
                filter_=syscall_filter(),
                defaults=defaults,
            ),
        )
        self._supervise()

    async def _create(self, config: JSONObject) -> None:
        # If this is cancelled, the container may come into being all the same; abandon() waits for it.
        create = self._engine.docker.containers.create(config, name=self._unique)
        self._creating = asyncio.ensure_future(create)
        self._container = await asyncio.shield(self._creating)

    def _require_container(self) -> DockerContainer:
        if self._container is None:
            raise SandboxError("the container is gone")
        return self._container

    async def _accept(self, waiting: socket.socket) -> socket.socket:
        """Return the connection of the init, unless the container ends before."""
        accepting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(waiting))
        ending = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait(
                (accepting, ending), timeout=_CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if accepting.done():
                near, _ = accepting.result()
                return near
            said = await self._engine_log()
            if not ending.done():
                raise SandboxError("the sandbox did not start in time", said)
            raise SandboxError(f"the sandbox could not be started: {said or 'it ended at once'}", said)
        finally:
            for each in (accepting, ending):
                each.cancel()
            await asyncio.gather(accepting, ending, return_exceptions=True)

    async def _engine_log(self) -> str:
        """Return what an init has printed that did not start."""
        try:
            lines = await self._require_container().log(stdout=True, stderr=True, tail=5)
        except (DockerError, aiohttp.ClientError, TimeoutError, ValueError):
            return ""
        return " ".join("".join(lines).split())[-300:]

    # Watching

    async def _exceeded(self) -> EndReason | None:
        if self._out_of_memory:
            return EndReason.MEMORY
        if self._group is not None:
            # Before the group goes, with the last process.
            self._peak = self._group.peak_memory() or self._peak
            usage = self._group.usage()
            if usage.out_of_memory:
                return EndReason.MEMORY
            if usage.refused_processes >= FORKS_REFUSED:
                return EndReason.PROCESSES
        elif self._process is None and {"memory", "pids"} & self._abilities.controlled:
            return await self._exceeded_by_statistics()
        if {"memory", "pids"} <= self._abilities.controlled or self._process is None:
            return None
        return await asyncio.to_thread(
            tree_exceeds, self._process, self._spec.limits, self._abilities.controlled
        )

    async def _exceeded_by_statistics(self) -> EndReason | None:
        """Ask the engine, where this server cannot see the control group: it is in a container itself."""
        now = time.monotonic()
        if self._container is None or self._ended.is_set() or now - self._counted < _STATISTICS_EVERY:
            return None
        self._counted = now
        try:
            [found] = await self._container.stats(stream=False)
        except (DockerError, aiohttp.ClientError, TimeoutError, ValueError):
            return None
        self._used = found.get("memory_stats", {}).get("usage")
        is_at_limit = found.get("pids_stats", {}).get("current", 0) >= self._spec.limits.processes
        self._at_limit = self._at_limit + 1 if is_at_limit else 0
        return EndReason.PROCESSES if self._at_limit >= 3 else None

    def _memory(self) -> int | None:
        return self._used if self._group is None else self._group.usage().memory

    def _enforced_by(self) -> Mapping[str, str]:
        return enforced_by(self._abilities.groups, self._abilities.controlled)

    # Ending

    def _kill(self) -> None:
        self._channel.close()  # at which the init ends, and all that is inside
        if self._container is not None and self._killing is None:
            self._killing = asyncio.ensure_future(self._kill_container(self._container))

    async def _kill_container(self, container: DockerContainer) -> None:
        with contextlib.suppress(DockerError, aiohttp.ClientError, TimeoutError):
            await container.kill(signal="SIGKILL")

    async def _until_gone(self) -> None:
        told = asyncio.ensure_future(self._until_engine_tells())
        try:
            if self._hearing is not None:
                await asyncio.wait((told, self._hearing), return_when=asyncio.FIRST_COMPLETED)
                # The init is gone. Most engines tell so at once, and some never do: a daemon that was
                # restarted while its containers went on may take them for running ever after.
                while not told.done():
                    await asyncio.wait((told,), timeout=_TOLD_SECONDS)
                    if self._process is None or not _exists(self._process):
                        break
            else:
                await asyncio.wait((told,), timeout=_CONNECT_SECONDS)
        finally:
            told.cancel()
            await asyncio.gather(told, return_exceptions=True)

    async def _until_engine_tells(self) -> None:
        while self._container is not None:
            try:
                await self._container.wait()
                state = (await self._container.show())["State"]
            except DockerError as exc:
                if exc.status == 404:
                    return
            except (aiohttp.ClientError, TimeoutError, ValueError):
                pass
            else:
                if not state.get("Running"):
                    self._out_of_memory = self._out_of_memory or bool(state.get("OOMKilled"))
                    return
            if self._process is not None and not _exists(self._process):
                return  # the engine is gone or restarts, and so is the sandbox
            await asyncio.sleep(_LOOK_AGAIN)

    async def _release(self) -> None:
        if self._creating is not None:
            with contextlib.suppress(DockerError, aiohttp.ClientError, TimeoutError):
                self._container = await self._creating
        if self._killing is not None:
            await self._killing
        if self._container is not None:
            await remove_container(self._container)


async def remove_container(container: DockerContainer) -> None:
    """Remove a container and what is in it."""
    why = ""
    for attempt in range(_REMOVAL_TRIES):
        try:
            await container.delete(force=True, v=True)
        except DockerError as exc:
            if exc.status == 404:
                return
            why = exc.message  # 409: it is being removed; 500: something of it is busy
        except (aiohttp.ClientError, TimeoutError) as exc:
            why = str(exc) or type(exc).__name__
        else:
            return
        await asyncio.sleep(0.2 * 2**attempt)
    logger.warning("the container %s cannot be removed: %s", container.id[:12], why)


def _visible_process(shown: Mapping[str, Any]) -> int | None:
    """Return process 1 of a container, if this server sees it as the engine does."""
    process = int(shown["State"].get("Pid") or 0)
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return None
    return process if bytes(CONTROL) in command else None


def _group_of(process: int, container: str) -> ControlGroup | None:
    """Return the control group of a container; None, where it has none of its own, or it cannot be seen."""
    try:
        if container not in Path(f"/proc/{process}/cgroup").read_text():
            return None
    except OSError:
        return None
    return ControlGroup.of_process(process)


def _exists(process: int) -> bool:
    return os.path.exists(f"/proc/{process}")  # noqa: PTH110 -- which asks nothing of a disk
