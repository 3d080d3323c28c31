"""The driver ``kubernetes``: a pod for each sandbox.

The server and its pods share a volume (a ReadWriteMany claim), on which workspaces are. All else goes over
connections from the server to the pod's init: a NetworkPolicy lets nothing else in, and nothing out.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from kubernetes_asyncio.client import ApiClient

from rpcshare.process_directories import process_directory
from rpcshare.sandbox.cluster_api import ClusterAPI, connected_client, own_namespace, told
from rpcshare.sandbox.driver import EndReason, Sandbox, SandboxError, SandboxLimits, SandboxSpec
from rpcshare.sandbox.inner_etc import InnerEtc
from rpcshare.sandbox.instance_lock import InstanceLock
from rpcshare.sandbox.pod import Cluster, PodSandbox, remove_pod
from rpcshare.sandbox.pod_manifest import PORT, PodSettings
from rpcshare.sandbox.pod_watch import PodWatch
from rpcshare.sandbox.supervision import require_name

__all__ = ["KubernetesDriver"]

logger = logging.getLogger("rpcshare.sandbox")

_SERVER_LABEL, _INSTANCE_LABEL = "rpcshare.sandbox/server", "rpcshare.sandbox/instance"
_ETC = ("passwd", "group", "nsswitch.conf")
_PROBE_LIMITS = SandboxLimits(memory=128 * 2**20, cpus=0.5, processes=64)
_NEEDED = (
    ("create", "pods"),
    ("delete", "pods"),
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "pods/log"),
    ("create", "secrets"),
    ("delete", "secrets"),
    ("list", "secrets"),
)

# Whether a pod gets out at all: it tries the API of its own cluster, which every pod reaches that may.
_PROBE = """
import os, socket, sys
if not os.access("/tmp", os.W_OK): sys.exit("it has no /tmp that its user may write to")
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
except OSError:
    sys.exit(0)
print("it reaches the network")
sys.exit(9)
"""


@dataclass(frozen=True)
class _Opened:
    """What a driver knows once it has been checked."""

    client: ApiClient
    cluster: Cluster
    lock: InstanceLock
    etc: InnerEtc


class KubernetesDriver:
    """Starts sandboxes as pods."""

    name = "kubernetes"
    python = "python3"

    def __init__(
        self,
        image: str,
        state_dir: Path,
        *,
        claim: str,
        mounted_at: Path,
        namespace: str | None = None,
        user: tuple[int, int] = (65534, 65534),
        client: ApiClient | None = None,
        port: int = PORT,
    ) -> None:
        """Make the driver.

        Args:
            image: what the root of sandboxes is: it has ``python3``, ``sh``, and what is to be run.
            state_dir: a directory of this server alone. With the host's name it tells its pods from others'.
            claim: the claim of the volume that the server and its pods share.
            mounted_at: where the server has mounted that: workspaces are beneath it.
            namespace: of pods; None: the server's own.
            user: the user and group that a server which is root gives its sandboxes.
            client: of the cluster's API; None: made from the pod's account, or from the user's kubeconfig.
            port: on which the init in each pod waits for the server.
        """
        self._image = image
        self._state_dir = state_dir
        self._claim = claim
        self._namespace = namespace
        self._user = user
        self._client = client
        self._port = port
        self._opened: _Opened | None = None
        self._sandboxes: set[PodSandbox] = set()
        identity = f"{socket.gethostname()} {state_dir.absolute()}"
        self._server = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.scratch: Path | None = mounted_at
        """Beneath which directories have to be that sandboxes are given."""

    async def check(self) -> None:
        """Return if sandboxes can be started here. Raises SandboxError: a sentence says what is missing."""
        if self._opened is not None:
            return
        client = self._client or await connected_client()
        try:
            await self._open(client)
            await self._remove_left()
            await self._probe()
        except BaseException:
            await self._close(client)
            raise

    async def _open(self, client: ApiClient) -> None:
        namespace = await asyncio.to_thread(own_namespace) if self._namespace is None else self._namespace
        api = ClusterAPI(client, namespace)
        for verb, what in _NEEDED:
            await _require_right(api, verb, what)
        watch = PodWatch(api, f"{_SERVER_LABEL}={self._server}")
        with told("the pods of this server cannot be listed"):
            await watch.open()
        try:
            lock = await asyncio.to_thread(InstanceLock, self._state_dir)
        except OSError as exc:
            await watch.close()
            raise SandboxError(f"the files of sandboxes cannot be written: {exc}") from exc
        user = self._user if os.geteuid() == 0 else (os.getuid(), os.getgid())
        assert self.scratch is not None  # noqa: S101 -- as it is given to the constructor
        settings = PodSettings(
            namespace=namespace,
            image=self._image,
            claim=self._claim,
            mounted_at=self.scratch,
            user=user,
            python=self.python,
            host_users=False,
            labels={_SERVER_LABEL: self._server, _INSTANCE_LABEL: lock.id},
            port=self._port,
        )
        self._opened = _Opened(client, Cluster(api, watch, settings), lock, InnerEtc(user))

    async def _probe(self) -> None:
        """Run a command: no other way tells whether a pod starts, is reached, and reaches nothing."""
        opened = self._require_opened()
        try:
            await self._try_pod()
        except SandboxError as exc:
            if "hostUsers" not in exc.message and "user namespace" not in exc.message:
                raise
            logger.warning("pods get no range of users of their own: %s", exc.message)
            settings = replace(opened.cluster.settings, host_users=None)
            self._opened = replace(opened, cluster=replace(opened.cluster, settings=settings))
            await self._try_pod()

    async def _try_pod(self) -> None:
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        async with _folders(self._require_opened()) as (workspace, home, run_dir):
            command = (self.python, "-I", "-c", _PROBE, host, port)
            spec = SandboxSpec("probe", command, workspace, home, run_dir, limits=_PROBE_LIMITS)
            sandbox = await self.start(spec)
            status = await sandbox.wait()
        if status.exit_code == 9:
            raise SandboxError(
                "a pod of a sandbox reaches the network: a NetworkPolicy has to keep it in, such as the one "
                "in examples/kubernetes/agents.yaml, and the cluster's network has to enforce it"
            )
        if status.reason is not EndReason.EXITED or status.exit_code != 0:
            raise SandboxError(f"a pod of the image {self._image} {status.message}: {sandbox.log_tail(3)}")

    async def _remove_left(self) -> None:
        """Remove the pods and Secrets of server processes that run no more."""
        opened = self._require_opened()
        cluster, runs = opened.cluster, opened.lock.runs
        with told("pods that were left cannot be removed"):
            kept = await cluster.api.list_secrets(f"{_SERVER_LABEL}={self._server}")
            left = [each["metadata"] for each in kept["items"]]
            left += [each["metadata"] for each in cluster.watch.pods.values()]
            owners = {str(each["name"]): str(each["labels"].get(_INSTANCE_LABEL, "")) for each in left}
            for name, instance in owners.items():
                if not await asyncio.to_thread(runs, instance):
                    await remove_pod(cluster, name)
                    logger.info("removed a pod that a server has left: %s", name)

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Start a command; return once it runs. Raises SandboxError."""
        require_name(spec)
        if self._opened is None:
            await self.check()
        opened = self._require_opened()
        sandbox = PodSandbox(spec, opened.cluster)
        self._sandboxes.add(sandbox)
        sandbox.on_end = lambda _: self._sandboxes.discard(sandbox)
        try:
            await sandbox.start([file for file in opened.etc.files if file.name in _ETC])
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
        if self._opened is not None:
            await self._close(self._opened.client)

    async def _close(self, client: ApiClient) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.cluster.watch.close()
            opened.etc.remove()
            opened.lock.release()
        if client is not self._client:
            await client.close()


@contextlib.asynccontextmanager
async def _folders(opened: _Opened) -> AsyncIterator[tuple[Path, Path, Path]]:
    """Yield a workspace and a home on the volume, and a directory for sockets."""
    settings = opened.cluster.settings
    prefix = ".rpcshare-probe-"
    try:
        await asyncio.to_thread(settings.mounted_at.mkdir, 0o700, parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=settings.mounted_at)
    except OSError as exc:
        raise SandboxError(f"the volume at {settings.mounted_at} cannot be written: {exc.strerror}") from exc
    with (
        made as shared,
        process_directory("probe") as run_dir,
    ):
        places = Path(shared, "workspace"), Path(shared, "home")
        for each in places:
            each.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(each, *settings.user)
        yield *places, Path(run_dir)


async def _require_right(api: ClusterAPI, verb: str, what: str) -> None:
    with told("the Kubernetes API does not say what this server may do"):
        is_allowed = await api.may(verb, *what.split("/"))
    if not is_allowed:
        raise SandboxError(
            f"this server's account may not {verb} {what} in the namespace {api.namespace}: give it the role "
            "in examples/kubernetes/agents.yaml"
        )
