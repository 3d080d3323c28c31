"""Container engines for tests: a Podman and a Docker of their own, with images of the host's files."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx

from rpcshare.sandbox.container_config import resource_limits
from rpcshare.sandbox.driver import Mount

__all__ = ["IMAGE", "Engine", "docker_engine", "host_mounts", "image_archive", "podman_engine"]

IMAGE = "localhost/rpcshare-test:latest"
_START_SECONDS = 40.0
_PROBE = {"Image": IMAGE, "Entrypoint": ["/usr/bin/env"], "Cmd": ["true"]}


@dataclass(frozen=True)
class Engine:
    """An engine that runs."""

    name: str
    socket: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End the engine, and not its containers."""
        self.process.terminate()
        self.process.wait(20)

    def call(self, method: str, path: str, **options: object) -> httpx.Response:
        """Ask its API, of version 1.40."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        with httpx.Client(transport=transport, base_url="http://engine/v1.40", timeout=60) as client:
            return client.request(method, path, **options)  # type: ignore[arg-type]

    def containers(self) -> list[dict[str, object]]:
        """Return all that there are, stopped or not."""
        found: list[dict[str, object]] = self.call("GET", "/containers/json?all=true").json()
        return found


def host_mounts() -> list[Mount]:
    """Return what fills the image: the machine's own programs, and the Python that runs the tests."""
    folders = {Path("/usr"), Path(sys.base_prefix).resolve()}
    kept = [
        each for each in sorted(folders) if not any(each.is_relative_to(other) for other in folders - {each})
    ]
    return [Mount(each, PurePosixPath(each)) for each in kept]


def image_archive() -> bytes:
    """Return the root of an image that has no programs but those of the machine."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in (
            "etc",
            "etc/ssl",
            "usr",
            "tmp",
            "var",
            "var/tmp",
            "run",
            "proc",
            "sys",
            "dev",
            "home",
            "mnt",
        ):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            archive.addfile(folder)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            path = Path("/", name)
            if path.is_symlink():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, str(path.readlink())
                archive.addfile(link)
            elif path.is_dir():
                archive.add(path, name)
        for name in ("ld.so.cache", "ssl/certs", "alternatives"):
            path = Path("/etc", name)
            if path.exists():
                archive.add(path, f"etc/{name}")
    return made.getvalue()


@contextlib.contextmanager
def podman_engine() -> Iterator[Engine | str]:
    """Yield a Podman; a sentence, where there is none."""
    if shutil.which("podman") is None:
        yield "podman is not installed"
        return
    said = "podman does not run here"
    for runtime in ("crun", "runc"):
        if shutil.which(runtime) is None:
            continue
        with _folder() as folder:
            socket = folder / "podman.sock"
            storage = [f"--root={folder}/root", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
            command = ["podman", "--runtime", runtime, "--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
            command += [
                *storage,
                "--events-backend=none",
                "system",
                "service",
                "--time=0",
                f"unix://{socket}",
            ]
            with _served("Podman", command, socket, folder / "log") as engine:
                if isinstance(engine, Engine):
                    yield engine
                    return
                said = f"{said}: {engine}"
    yield said


@contextlib.contextmanager
def docker_engine() -> Iterator[Engine | str]:
    """Yield a Docker; a sentence, where there is none."""
    if shutil.which("dockerd") is None:
        yield "dockerd is not installed"
        return
    with _folder() as folder:
        socket = folder / "docker.sock"
        folders = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        command = ["dockerd", f"--host=unix://{socket}", *folders, "--storage-driver=vfs"]
        command += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        with _served("Docker", command, socket, folder / "log") as engine:
            yield engine if isinstance(engine, Engine) else f"dockerd does not run here: {engine}"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rpcs-engine-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _served(name: str, command: list[str], socket: Path, log: Path) -> Iterator[Engine | str]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    engine = Engine(name, socket, process)
    try:
        end = time.monotonic() + _START_SECONDS
        failure = ""
        while not failure:
            try:
                if socket.exists():  # httpx leaves one open that it cannot connect
                    engine.call("GET", "/version").raise_for_status()
                    break
                raise FileNotFoundError(f"{command[0]} does not listen")
            except (httpx.HTTPError, OSError) as exc:
                if process.poll() is not None or time.monotonic() > end:
                    failure = log.read_text(errors="replace")[-300:] or str(exc)
                time.sleep(0.1)
        yield failure or _unusable(engine) or engine
        for each in [] if failure or process.poll() is not None else engine.containers():
            engine.call("DELETE", f"/containers/{each['Id']}?force=true")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _unusable(engine: Engine) -> str:
    """Return why it runs no container; nothing, if it does."""
    where = "/images/create?fromSrc=-&repo=localhost/rpcshare-test&tag=latest"
    made = engine.call("POST", where, content=image_archive(), headers={"Content-Type": "application/x-tar"})
    if made.status_code != 200 or "error" in made.text:
        return made.text[-300:]
    binds = [f"{each.source}:{each.target}:ro" for each in host_mounts()]
    limits = {"NetworkMode": "none", "Memory": 64 << 20, "Binds": binds, "Ulimits": resource_limits()}
    created = engine.call("POST", "/containers/create", json={**_PROBE, "HostConfig": limits})
    if created.status_code != 201:
        return created.text[-300:]
    started = engine.call("POST", f"/containers/{created.json()['Id']}/start")
    engine.call("DELETE", f"/containers/{created.json()['Id']}?force=true")
    return "" if started.status_code in (204, 304) else str(json.loads(started.text).get("message"))
