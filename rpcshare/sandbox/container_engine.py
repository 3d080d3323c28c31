"""Docker or Podman, by its API: what it can do, and calls whose failures are sentences.

Podman answers Docker's API with differences. Those that matter here are :class:`EngineAbilities`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from rpcshare.sandbox.driver import SandboxError

__all__ = ["ContainerEngine", "EngineAbilities", "Image", "default_socket"]

_LEAST_API = (1, 40)  # Docker 19.03: masked paths, limits on processes, private control groups
_CALL_SECONDS = 60.0
_PULL_SECONDS = 900.0
_SHOWN = 300


@dataclass(frozen=True)
class EngineAbilities:
    """What an engine is, and which limits its control groups have."""

    name: str
    """``Docker`` or ``Podman``."""
    version: str
    is_rootless: bool
    has_user_remap: bool
    """Whether it gives containers another range of users unless it is told not to."""
    has_selinux: bool
    groups: str
    """``cgroup v1`` or ``cgroup v2``."""
    controlled: frozenset[str]
    """Of ``memory``, ``pids`` and ``cpu``, what can be limited."""

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman."""
        return self.name == "Podman"

    def without(self, controller: str) -> EngineAbilities:
        """Return what it can do without a controller that has turned out to be missing."""
        return replace(self, controlled=self.controlled - {controller})


@dataclass(frozen=True)
class Image:
    """An image, by its id: what its name means may change."""

    id: str
    environment: Mapping[str, str]
    volumes: tuple[str, ...]
    """Directories that would be volumes: writable, and counted by nobody."""
    has_healthcheck: bool


class ContainerEngine:
    """A connection to an engine."""

    def __init__(self, socket: Path) -> None:
        """Connect when needed to the engine that listens at ``socket``."""
        self.socket = socket
        self._docker: Docker | None = None

    @property
    def docker(self) -> Docker:
        """The client."""
        if self._docker is None:
            # No limit on connections: each container that is waited for has one.
            connector = aiohttp.UnixConnector(str(self.socket), limit=0)
            timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
            session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
            self._docker = Docker(f"unix://{self.socket}", session=session, timeout=timeout)
        return self._docker

    async def close(self) -> None:
        """Close the connection."""
        if self._docker is not None:
            docker, self._docker = self._docker, None
            await docker.close()
            await docker.session.close()

    @contextlib.asynccontextmanager
    async def told(self, what: str) -> AsyncIterator[None]:
        """Turn what fails inside into a SandboxError that begins with ``what``."""
        try:
            yield
        except DockerError as exc:
            raise SandboxError(f"{what}: {_shown(exc.message)}") from exc
        except TimeoutError as exc:
            raise SandboxError(f"{what}: the engine at {self.socket} does not answer") from exc
        except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
            # The latter: what answers is JSON, and not that of an engine.
            raise SandboxError(f"{what}: {_shown(str(exc)) or type(exc).__name__}") from exc

    async def abilities(self) -> EngineAbilities:
        """Return what the engine can do.

        Raises:
            SandboxError: it cannot be reached, or lacks what a sandbox needs.
        """
        await asyncio.to_thread(self._require_socket)
        async with self.told(f"the container engine at {self.socket} does not answer as one does"):
            version = await self.docker.version()
            info: Mapping[str, Any] = await self.docker.system.info()
            api = tuple(int(part) for part in str(version["ApiVersion"]).split(".")[:2])
        names = [str(each.get("Name", "")) for each in version.get("Components") or ()]
        name = "Podman" if any("Podman" in each for each in names) else "Docker"
        if api < _LEAST_API:
            raise SandboxError(
                f"{name} {version.get('Version')} is too old: its API is {version['ApiVersion']}"
            )
        if info.get("OSType", "linux") != "linux":
            raise SandboxError(f"{name} runs containers of {info.get('OSType')}, and not of Linux")
        options = [str(each) for each in info.get("SecurityOptions") or ()]
        if not any(each.startswith("name=seccomp") for each in options):
            raise SandboxError(f"{name} has no seccomp, which keeps containers from most of the kernel")
        rootless = bool(info.get("Rootless")) or "name=rootless" in options
        if rootless and name == "Docker":
            raise SandboxError(
                "rootless Docker has no way to run a sandbox as the server's own user: use Podman, or run "
                "Docker as root"
            )
        limits = {"memory": "MemoryLimit", "pids": "PidsLimit", "cpu": "CpuCfsQuota"}
        return EngineAbilities(
            name=name,
            version=str(version.get("Version", "")),
            is_rootless=rootless,
            has_user_remap="name=userns" in options,
            has_selinux="name=selinux" in options,
            groups="cgroup v2" if str(info.get("CgroupVersion")) == "2" else "cgroup v1",
            controlled=frozenset(each for each, flag in limits.items() if info.get(flag)),
        )

    def _require_socket(self) -> None:
        try:
            is_socket = stat.S_ISSOCK(self.socket.stat().st_mode)
        except OSError as exc:
            raise SandboxError(
                f"there is no container engine at {self.socket} ({exc.strerror}): start Docker, or "
                "`podman system service`, or name its socket by --agents-engine"
            ) from exc
        if not is_socket:
            raise SandboxError(f"{self.socket} is no socket: name the engine's by --agents-engine")
        if not os.access(self.socket, os.R_OK | os.W_OK):
            raise SandboxError(
                f"this server's user may not use the container engine at {self.socket}: it has to be in the "
                "socket's group, which has all the rights of the engine"
            )

    async def image(self, name: str) -> Image:
        """Return an image, which is pulled if it is not there. Raises SandboxError."""
        try:
            async with self.told(f"the image {name} cannot be looked up"):
                try:
                    found = await self.docker.images.inspect(name)
                except DockerError as exc:
                    if exc.status != 404:
                        raise
                    found = None
            if found is None:
                async with self.told(f"the image {name} is not there, and cannot be pulled"):
                    async with asyncio.timeout(_PULL_SECONDS):
                        await self.docker.images.pull(name)
                    found = await self.docker.images.inspect(name)
        except SandboxError as exc:
            raise SandboxError(
                f"{exc.message}; build it, pull it, or name another by --agents-image"
            ) from exc
        config = found.get("Config") or {}
        environment = dict(str(each).partition("=")[::2] for each in config.get("Env") or ())
        test = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
        return Image(
            id=str(found["Id"]),
            environment=environment,
            volumes=tuple(config.get("Volumes") or ()),
            has_healthcheck=test[0] != "NONE",
        )


def default_socket() -> Path:
    """Return the socket of the engine that is there: Docker's, Podman's, or that of the user's own Podman."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    places = (Path("/run/docker.sock"), Path("/run/podman/podman.sock"), Path(runtime, "podman/podman.sock"))
    usable = (each for each in places if os.access(each, os.R_OK | os.W_OK))
    return next(usable, next((each for each in places if each.exists()), places[0]))


def _shown(message: str) -> str:
    return " ".join(message.split())[-_SHOWN:]
