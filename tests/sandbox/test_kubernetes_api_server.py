"""The driver ``kubernetes`` on a real API server: `make kubernetes-check` builds one, and runs this.

There is no node. What a pod is made of is run as in the other tests, and its status is written by an admin.
"""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("kubernetes_asyncio", reason="needs pip install 'rpcshare[kubernetes]'")
pytest.importorskip("yaml", reason="needs PyYAML, which comes with kubernetes_asyncio")

import yaml  # type: ignore[import-untyped]
from kubernetes_asyncio.client import ApiClient, Configuration, CoreV1Api

from rpcshare.sandbox.driver import EndReason, SandboxError
from rpcshare.sandbox.kubernetes import KubernetesDriver
from rpcshare.sandbox.pod_watch import PodWatch
from sandbox.fake_cluster import PODS, SECRETS, FakeCluster
from sandbox.places import PYTHON, USER, Places

SERVER = os.environ.get("KUBE_APISERVER", "")

pytestmark = [
    pytest.mark.rare,
    pytest.mark.skipif(not SERVER, reason="KUBE_APISERVER names no binary: make kubernetes-check builds one"),
    pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user"),
]

MANIFEST = Path(__file__).parents[2] / "examples" / "kubernetes" / "agents.yaml"
ADMIN, ACCOUNT = "admin-token", "account-token"
TOKENS = f"""\
{ADMIN},admin,1,system:masters
{ACCOUNT},system:serviceaccount:share:rpcshare,2,system:serviceaccounts
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def api_server(tmp_path_factory) -> Iterator[tuple[str, Path, str]]:
    """Its URL, its certificate, and the URL of its etcd."""
    folder = tmp_path_factory.mktemp("api-server")
    (folder / "tokens.csv").write_text(TOKENS)
    key = folder / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    clients, peers, port = free_port(), free_port(), free_port()
    etcd = f"http://127.0.0.1:{clients}"
    commands = [
        [
            *("etcd", f"--data-dir={folder}/etcd", f"--listen-client-urls={etcd}"),
            *(f"--advertise-client-urls={etcd}", f"--listen-peer-urls=http://127.0.0.1:{peers}"),
        ],
        [
            *(SERVER, f"--etcd-servers={etcd}", f"--secure-port={port}", "--bind-address=127.0.0.1"),
            *(f"--cert-dir={folder}/certs", f"--token-auth-file={folder}/tokens.csv"),
            *("--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"),
            *("--service-account-issuer=https://test", f"--service-account-key-file={key}"),
            *(f"--service-account-signing-key-file={key}", "--disable-admission-plugins=ServiceAccount"),
            "--watch-cache=false",  # which would know versions that etcd has forgotten
        ],
    ]
    processes = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"{number}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        certificate = folder / "certs" / "apiserver.crt"
        end = time.monotonic() + 90
        while not is_ready(port, certificate):
            if time.monotonic() > end or processes[1].poll() is not None:
                pytest.fail((folder / "1.log").read_text(errors="replace")[-2000:])
            time.sleep(0.5)
        yield f"https://127.0.0.1:{port}", certificate, etcd
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def is_ready(port: int, certificate: Path) -> bool:
    import httpx

    if not certificate.exists():
        return False
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    try:
        answer = httpx.get(f"https://127.0.0.1:{port}/readyz", verify=context, timeout=5)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def client_of(api_server: tuple[str, Path, str], token: str) -> ApiClient:
    configuration = Configuration()
    configuration.host, configuration.ssl_ca_cert = api_server[0], str(api_server[1])
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
    return ApiClient(configuration)


@pytest.fixture
async def admin(api_server) -> AsyncIterator[ApiClient]:
    async with client_of(api_server, ADMIN) as client:
        await apply(client)
        yield client


async def apply(client: ApiClient) -> None:
    """Make what the example has, but for what is of another group than the core's and RBAC."""
    places = {
        "Namespace": "/api/v1/namespaces",
        "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/agents/roles",
        "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/agents/rolebindings",
        "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/agents/networkpolicies",
        "ResourceQuota": "/api/v1/namespaces/agents/resourcequotas",
        "PersistentVolumeClaim": "/api/v1/namespaces/agents/persistentvolumeclaims",
    }
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    for each in yaml.safe_load_all(MANIFEST.read_text()):
        url = str(client.configuration.host) + places[each["kind"]]
        made = await client.rest_client.request(
            "POST", url, headers=dict(headers), body=each, _preload_content=False
        )
        assert made.status in (201, 409), await made.text()


class Node(FakeCluster):
    """Runs the pods of a real API server."""

    def __init__(self, core: Any, volume: Path, folder: Path) -> None:
        super().__init__(volume, folder)
        self.core = core

    async def serve(self) -> None:
        """Run each pod that comes, until this is cancelled."""
        while True:
            for pod in await self.listed_of(PODS):
                name = pod["metadata"]["name"]
                if name not in self.kept[PODS]:
                    for secret in await self.listed_of(SECRETS):
                        self.kept[SECRETS][secret["metadata"]["name"]] = secret
                    self.kept[PODS][name] = pod
                    task = asyncio.ensure_future(self.run(name))
                    self.running.add(task)
                    task.add_done_callback(self.running.discard)
            names = {each["metadata"]["name"] for each in await self.listed_of(PODS)}
            for name in set(self.kept[PODS]) - names:
                self.kept[PODS].pop(name)
                self.tell()
            await asyncio.sleep(0.1)

    async def listed_of(self, kind: str) -> list[dict[str, Any]]:
        ask = self.core.list_namespaced_pod if kind == PODS else self.core.list_namespaced_secret
        response = await ask("agents", _preload_content=False)
        found: list[dict[str, Any]] = (await response.json())["items"]
        return found

    def set_status(self, name: str, status: dict[str, Any]) -> None:
        task = asyncio.ensure_future(self.write_status(name, status))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def write_status(self, name: str, status: dict[str, Any]) -> None:
        for each in status.get("containerStatuses", ()):
            each |= {"image": "image", "imageID": "", "ready": False, "restartCount": 0}
        status = {**status, **({"podIPs": [{"ip": status["podIP"]}]} if "podIP" in status else {})}
        response = await self.core.patch_namespaced_pod_status(
            name, "agents", {"status": status}, _preload_content=False
        )
        assert response.status in (200, 404), await response.text()


@pytest.fixture
async def driver(admin, api_server, places: Places, tmp_path, monkeypatch) -> AsyncIterator[KubernetesDriver]:
    node = Node(CoreV1Api(admin), places.root, tmp_path / "node")
    serving = asyncio.ensure_future(node.serve())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    async with client_of(api_server, ACCOUNT) as client:
        driver = KubernetesDriver(
            "image",
            tmp_path / "state",
            claim="workspaces",
            mounted_at=places.root,
            namespace="agents",
            user=USER,
            client=client,
            port=node.port,
        )
        driver.python = PYTHON
        yield driver
        await driver.close()
    assert await node.listed_of(PODS) == []
    assert await node.listed_of(SECRETS) == []
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    if node.running:
        await asyncio.wait(node.running, timeout=20)


async def test_its_pods_are_taken_run_and_removed_with_the_rights_of_the_example(driver, places):
    await driver.check()  # which runs one
    sandbox = await driver.start(places.shell("echo hello > made; exit 3", port=4096, name="wsp_A-1"))
    status = await asyncio.wait_for(sandbox.wait(), 60)
    assert (status.reason, status.exit_code) == (EndReason.EXITED, 3)
    assert (places.workspace / "made").read_text() == "hello\n"


async def test_a_watch_from_a_version_that_is_too_old_begins_anew(driver, api_server, monkeypatch):
    await driver.check()
    found = await driver._opened.cluster.api.list_pods("a=b")
    async with httpx.AsyncClient() as client:
        revision = {"revision": found["metadata"]["resourceVersion"]}
        (await client.post(f"{api_server[2]}/v3/kv/compaction", json=revision)).raise_for_status()
    watch: PodWatch = driver._opened.cluster.watch
    listed = []
    original = watch._list

    async def counted() -> str:
        listed.append(1)
        return await original()

    monkeypatch.setattr(watch, "_list", counted)
    following = asyncio.ensure_future(watch._watch("1"))
    async with asyncio.timeout(30):
        while not listed:
            await asyncio.sleep(0.05)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_right_that_is_missing_is_named(admin, api_server, places, tmp_path):
    async with client_of(api_server, ACCOUNT) as client:
        driver = KubernetesDriver(
            "image",
            tmp_path / "state",
            claim="workspaces",
            mounted_at=places.root,
            namespace="default",
            client=client,
        )
        with pytest.raises(SandboxError, match="may not create pods in the namespace default"):
            await driver.check()
