"""A Kubernetes API with pods and Secrets, and a node: it runs what a pod is made of by bubblewrap."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import web

__all__ = ["FakeCluster", "fake_cluster"]

JSON: TypeAlias = "dict[str, Any]"

PODS, SECRETS = "pods", "secrets"


class FakeCluster:
    """What an API server and a node know."""

    def __init__(self, volume: Path, folder: Path) -> None:
        self.url = ""
        self.volume = volume
        self.folder = folder
        self.port = _free_port()
        self.kept: dict[str, dict[str, JSON]] = {PODS: {}, SECRETS: {}}
        self.made: list[JSON] = []
        self.version = 100
        self.oldest = 0
        """Versions before this one are known no more."""
        self.events: list[tuple[int, str, JSON]] = []
        self.changed = asyncio.Event()
        self.denied: set[tuple[str, str]] = set()
        self.statuses: list[JSON] = []
        """What a pod's status is instead of being run; each of these in turn."""
        self.refusals: list[tuple[int, str]] = []
        """With what the next calls are refused, that make something."""
        self.lists = self.watches = 0
        self.hangs = False
        """Whether watches stay open and tell nothing."""
        self.drop_watches = asyncio.Event()
        self.running: set[asyncio.Task[None]] = set()

    # The API

    def put(self, kind: str, event: str, thing: JSON) -> None:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        name = thing["metadata"]["name"]
        if event == "DELETED":
            self.kept[kind].pop(name, None)
        else:
            self.kept[kind][name] = thing
        if kind == PODS:
            self.events.append((self.version, event, json.loads(json.dumps(thing))))
            self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def set_status(self, name: str, status: JSON) -> None:
        if pod := self.kept[PODS].get(name):
            self.put(PODS, "MODIFIED", {**pod, "status": {**pod.get("status", {}), **status}})

    def forget_versions(self) -> None:
        """Answer 410 to who goes on from what has been until now, and end all watches."""
        self.version += 1
        self.oldest = self.version
        self.end_watches()

    def end_watches(self) -> None:
        self.drop_watches.set()
        self.drop_watches = asyncio.Event()
        self.tell()

    async def review(self, request: web.Request) -> web.Response:
        attributes = (await request.json())["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (attributes["resource"], attributes["subresource"])))
        return web.json_response({"status": {"allowed": (attributes["verb"], resource) not in self.denied}})

    async def create(self, request: web.Request) -> web.Response:
        kind, thing = request.match_info["kind"], await request.json()
        if self.refusals:
            return refusal(*self.refusals.pop(0))
        name = thing["metadata"]["name"]
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
            return refusal(422, f"metadata.name: Invalid value: {name}")
        for value in thing["metadata"]["labels"].values():
            if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value):
                return refusal(422, f"metadata.labels: Invalid value: {value}")
        self.made.append(thing)
        self.put(kind, "ADDED", {**thing, "status": {"phase": "Pending"}})
        if kind == PODS:
            task = asyncio.ensure_future(self.run(name))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
        return web.json_response(thing, status=201)

    async def delete(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        thing = self.kept[kind].get(name)
        if thing is None:
            return refusal(404, f"{kind} {name} not found")
        self.put(kind, "DELETED", thing)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def listed(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if request.query.get("watch"):
            return await self.watch(request)
        self.lists += 1
        items = [each for each in self.kept[kind].values() if matches(each, request)]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        seen, dropped = int(request.query["resourceVersion"]), self.drop_watches
        response = web.StreamResponse()
        await response.prepare(request)
        if seen < self.oldest:
            gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        while not dropped.is_set():
            changed = self.changed
            for version, kind, thing in [] if self.hangs else self.events:
                if version > seen and matches(thing, request):
                    await response.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")
                    seen = version
            await changed.wait()
        return response

    async def log(self, request: web.Request) -> web.Response:
        path = self.folder / request.match_info["name"] / "log"
        return web.Response(text=path.read_text() if path.exists() else "")

    # The node

    async def run(self, name: str) -> None:
        if self.statuses:
            self.set_status(name, self.statuses.pop(0))
            return
        pod = self.kept[PODS][name]
        folder = self.folder / name
        command = self.command(pod, folder)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env={}, cwd="/")
        started = {"containerStatuses": [{"name": "sandbox", "state": {"running": {}}}]}
        self.set_status(name, {"phase": "Running", "podIP": "127.0.0.1", **started})
        ending = asyncio.ensure_future(process.wait())
        try:
            while not ending.done() and name in self.kept[PODS]:
                changed = asyncio.ensure_future(self.changed.wait())
                await asyncio.wait((ending, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = await ending
        done = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
        self.set_status(
            name,
            {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [{"name": "sandbox", "state": {"terminated": done}}],
            },
        )

    def command(self, pod: JSON, folder: Path) -> list[str]:
        """Return what runs the container of a pod. Its network is the machine's."""
        spec = pod["spec"]
        [container] = spec["containers"]
        sources = {each["name"]: self.volume_of(each, folder) for each in spec["volumes"]}
        command = ["bwrap", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--as-pid-1"]
        command += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
        for name in ("bin", "sbin", "lib", "lib64"):
            command += ["--symlink", f"usr/{name}", f"/{name}"]
        for path in (
            Path("/etc/hosts"),
            Path("/etc/ssl/certs"),
            Path("/etc/alternatives"),
            Path(sys.base_prefix),
        ):
            if path.exists() and not path.is_relative_to("/usr"):
                command += [*parents(path), "--ro-bind", str(path), str(path)]
        for mount in container["volumeMounts"]:
            source = sources[mount["name"]]
            command += parents(Path(mount["mountPath"]))
            if source is None:
                command += ["--perms", "1777", "--tmpfs", mount["mountPath"]]
                continue
            option = "--ro-bind" if mount.get("readOnly") else "--bind"
            command += [option, str(source / mount.get("subPath", "")), mount["mountPath"]]
        user = spec["securityContext"]
        command += ["--remount-ro", "/", "--setenv", "PATH", os.environ["PATH"]]
        command += ["--setenv", "KUBERNETES_SERVICE_HOST", "10.0.0.1", "--"]
        if os.geteuid() == 0:
            command += ["setpriv", f"--reuid={user['runAsUser']}", f"--regid={user['runAsGroup']}"]
            command += ["--clear-groups", "--no-new-privs"]
        return [*command, *container["command"]]

    def volume_of(self, volume: JSON, folder: Path) -> Path | None:
        if "persistentVolumeClaim" in volume:
            return self.volume
        if "emptyDir" in volume:
            return None
        kept = self.kept[SECRETS][volume["secret"]["secretName"]]["data"]
        items = volume["secret"].get("items") or [{"key": key, "path": key} for key in kept]
        target = folder / volume["name"]
        for item in items:
            path = target / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(kept[item["key"]]))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        return target


@contextlib.asynccontextmanager
async def fake_cluster(volume: Path) -> AsyncIterator[FakeCluster]:
    """Yield one that serves, whose pods see ``volume``."""
    folder = Path(tempfile.mkdtemp(prefix="rpcs-node-"))
    cluster = FakeCluster(volume, folder)
    app = web.Application(client_max_size=2**21)
    app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", cluster.review)
    base = "/api/v1/namespaces/agents/{kind}"
    app.router.add_post(base, cluster.create)
    app.router.add_get(base, cluster.listed)
    app.router.add_delete(base + "/{name}", cluster.delete)
    app.router.add_get(base + "/{name}/log", cluster.log)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield cluster
    finally:
        for name in list(cluster.kept[PODS]):
            cluster.put(PODS, "DELETED", cluster.kept[PODS][name])
        cluster.end_watches()
        if cluster.running:  # each ends what it has started
            await asyncio.wait(cluster.running, timeout=20)
        await asyncio.gather(*cluster.running, return_exceptions=True)
        await runner.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def parents(path: Path) -> list[str]:
    above = reversed(path.parents[:-1])
    return [part for each in above for part in ("--perms", "0755", "--dir", str(each))]


def matches(thing: JSON, request: web.Request) -> bool:
    key, _, value = request.query.get("labelSelector", "").partition("=")
    return not key or thing["metadata"]["labels"].get(key) == value


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "message": message}, status=status)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
