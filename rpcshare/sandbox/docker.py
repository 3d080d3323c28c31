"""The driver ``docker``: a container for each sandbox, of Docker or Podman on this machine.

The server makes the sockets, and the container sees each by a bind mount: so it needs no network, and the
engine has to be on the server's machine. The init connects to the server by one of them, and all that the
command prints goes through a pipe that comes with the first message. When the server ends, so does that
connection, and with it the container; its record is removed when the server next starts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rpcshare.process_directories import process_directory
from rpcshare.sandbox import inside
from rpcshare.sandbox.container_config import INSTANCE_LABEL, SERVER_LABEL, JSONObject, container_config
from rpcshare.sandbox.container_engine import ContainerEngine, EngineAbilities, Image, default_socket
from rpcshare.sandbox.docker_container import DockerSandbox, remove_container
from rpcshare.sandbox.driver import EndReason, Mount, SandboxError, SandboxLimits, SandboxSpec
from rpcshare.sandbox.inner_etc import InnerEtc
from rpcshare.sandbox.instance_lock import InstanceLock
from rpcshare.sandbox.supervision import (
    require_name,
)

__all__ = ["DockerDriver"]

logger = logging.getLogger("rpcshare.sandbox")

_CONNECT_SECONDS = 60.0
_REMOVAL_TRIES = 5
_LOOK_AGAIN = 0.5
_STATISTICS_EVERY = 2.0
_PROBE = "test -w /tmp || { echo it has no /tmp that everybody may write to; exit 1; }"
_PROBE_LIMITS = SandboxLimits(memory=128 * 2**20, cpus=0.5, processes=32)


@dataclass(frozen=True)
class _Opened:
    """What a driver knows once it has been checked."""

    abilities: EngineAbilities
    image: Image
    user: tuple[int, int]
    etc: InnerEtc
    init: Path
    lock: InstanceLock


class DockerDriver:
    """Starts sandboxes as containers."""

    name = "docker"
    python = "python3"
    scratch: Path | None = None

    def __init__(
        self,
        image: str,
        state_dir: Path,
        *,
        engine: Path | None = None,
        user: tuple[int, int] = (65534, 65534),
        mounts: Sequence[Mount] = (),
    ) -> None:
        """Make the driver.

        Args:
            image: what the root of sandboxes is: it has ``python3``, ``sh``, and what is to be run.
            state_dir: a directory of this server alone. Its path tells its containers from those of others.
            engine: the socket of the engine; None: Docker's or Podman's own.
            user: the user and group that a server which is root gives its sandboxes.
            mounts: what each of them sees, beside its own.
        """
        self._image_name = image
        self._state_dir = state_dir
        self._engine = ContainerEngine(engine or default_socket())
        self._user = user
        self._mounts = tuple(mounts)
        self._server = hashlib.sha256(bytes(state_dir.absolute())).hexdigest()[:32]
        self._opened: _Opened | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._sandboxes: set[DockerSandbox] = set()

    async def check(self) -> None:
        """Return if sandboxes can be started here. Raises SandboxError: a sentence says what is missing."""
        if self._opened is None:
            try:
                abilities = await self._engine.abilities()
                image = await self._engine.image(self._image_name)
                self._opened = await asyncio.to_thread(self._open, abilities, image)
                await self._remove_left()
                await self._probe()
            except BaseException:
                await self._close_files()
                raise

    def _open(self, abilities: EngineAbilities, image: Image) -> _Opened:
        user = self._user if os.geteuid() == 0 else (os.getuid(), os.getgid())
        try:
            self._files = process_directory("init")
            init = Path(self._files.name, "init.py")
            shutil.copyfile(inside.__file__, init)
            init.chmod(0o644)
            lock = InstanceLock(self._state_dir)
            return _Opened(abilities, image, user, InnerEtc(user), init, lock)
        except OSError as exc:
            raise SandboxError(f"the files of sandboxes cannot be written: {exc}") from exc

    async def _probe(self) -> None:
        """Run a command: no other way tells whether the image, the engine and this server go together."""
        while True:
            with process_directory("probe") as folder:
                workspace, home, run_dir = places = [Path(folder, name) for name in ("ws", "home", "run")]
                for each in places:
                    each.mkdir(mode=0o700)
                    if os.geteuid() == 0:
                        os.chown(each, *self._user)
                spec = SandboxSpec(
                    "probe", ("/bin/sh", "-c", _PROBE), workspace, home, run_dir, limits=_PROBE_LIMITS
                )
                try:
                    sandbox = await self.start(spec)
                except SandboxError as exc:
                    if not self._give_up_controller(exc.message):
                        what = f"a container of the image {self._image_name} does not start"
                        raise SandboxError(f"{what}: {exc.message}", exc.log) from exc
                    continue
                status = await sandbox.wait()
                self._note_limited(sandbox.limited)
            if status.reason is not EndReason.EXITED or status.exit_code != 0:
                said = sandbox.log_tail(3)
                raise SandboxError(
                    f"a container of the image {self._image_name} {status.message}: {said}", said
                )
            return

    def _note_limited(self, limited: frozenset[str] | None) -> None:
        """Believe what a container has, and not what the engine says that it can do.

        Podman that is rootless leaves limits out in silence, on control groups of version 1.
        """
        opened = self._require_opened()
        if limited is not None and (missing := opened.abilities.controlled - limited):
            logger.warning("containers get no limit by a control group on: %s", ", ".join(sorted(missing)))
            abilities = opened.abilities
            for each in missing:
                abilities = abilities.without(each)
            self._opened = replace(opened, abilities=abilities)

    def _give_up_controller(self, message: str) -> bool:
        """Whether an engine was refused a controller that it claims to have, as where it is not delegated."""
        opened = self._opened
        if opened is None or "controller" not in message:
            return False
        missing = next((each for each in sorted(opened.abilities.controlled) if f"`{each}`" in message), None)
        if missing is None:
            return False
        logger.warning("no limit on %s by a control group: %s", missing, message)
        abilities = opened.abilities.without(missing)
        self._opened = _Opened(abilities, opened.image, opened.user, opened.etc, opened.init, opened.lock)
        return True

    async def _remove_left(self) -> None:
        """Remove the containers of server processes that run no more."""
        opened = self._require_opened()
        filters = {"label": [f"{SERVER_LABEL}={self._server}"]}
        async with self._engine.told("containers that were left cannot be removed"):
            left = await self._engine.docker.containers.list(all=True, filters=filters)
            for container in left:
                instance = str((container["Labels"] or {}).get(INSTANCE_LABEL, ""))
                if not await asyncio.to_thread(opened.lock.runs, instance):
                    await remove_container(container)
                    logger.info("removed a container that a server has left: %s", container.id[:12])

    async def start(self, spec: SandboxSpec) -> DockerSandbox:
        """Start a command; return once it runs. Raises SandboxError."""
        require_name(spec)
        if self._opened is None:
            await self.check()
        opened = self._require_opened()
        await asyncio.to_thread(_require_places, spec)
        sandbox = DockerSandbox(spec, self._engine, opened.abilities)
        self._sandboxes.add(sandbox)
        sandbox.on_end = lambda _: self._sandboxes.discard(sandbox)

        def config(control: Path) -> JSONObject:
            return container_config(
                spec,
                abilities=opened.abilities,
                image=opened.image,
                user=opened.user,
                init=opened.init,
                control=control,
                etc=opened.etc.files,
                mounts=self._mounts,
                labels={SERVER_LABEL: self._server, INSTANCE_LABEL: opened.lock.id},
                python=self.python,
            )

        try:
            await sandbox.start(config, opened.user, opened.image.environment)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(sandbox.abandon()))
            raise
        return sandbox

    def _require_opened(self) -> _Opened:
        if self._opened is None:
            raise SandboxError("the driver is closed")
        return self._opened

    async def close(self) -> None:
        """End all sandboxes."""
        await asyncio.gather(*(each.terminate(grace=1.0) for each in list(self._sandboxes)))
        await self._close_files()

    async def _close_files(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.etc.remove()
            opened.lock.release()
        if self._files is not None:
            self._files.cleanup()
            self._files = None
        await self._engine.close()


def _require_places(spec: SandboxSpec) -> None:
    """Raise SandboxError if there is nothing to mount: some engines would make a directory."""
    wanted = {"workspace": spec.workspace, "home": spec.home}
    for what, path in (*wanted.items(), *((f"mount {each.target}", each.source) for each in spec.mounts)):
        if not path.exists():
            raise SandboxError(f"the sandbox could not be started: its {what} is not there")
