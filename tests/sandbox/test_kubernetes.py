"""The driver ``kubernetes``: on an API of the tests, and a node that runs its pods by bubblewrap."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

pytest.importorskip(
    "kubernetes_asyncio", reason="needs kubernetes_asyncio: pip install 'rpcshare[kubernetes]'"
)

from kubernetes_asyncio.client import ApiClient, Configuration

from rpcshare.sandbox.driver import EndReason, Mount, SandboxError, SandboxLimits
from rpcshare.sandbox.instance_lock import InstanceLock
from rpcshare.sandbox.kubernetes import KubernetesDriver
from rpcshare.sandbox.pod_manifest import label_value, pod_name
from sandbox.driver_contract import DriverContract
from sandbox.fake_cluster import PODS, SECRETS, FakeCluster, fake_cluster
from sandbox.places import PYTHON, USER, Places

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user"),
]


@pytest.fixture
async def cluster(places: Places) -> AsyncIterator[FakeCluster]:
    async with fake_cluster(places.root) as cluster:
        yield cluster


@pytest.fixture
async def make(cluster: FakeCluster, tmp_path: Path) -> AsyncIterator[Callable[..., KubernetesDriver]]:
    """Returns what makes a driver that has not been checked."""
    clients: list[ApiClient] = []

    def make(**options: object) -> KubernetesDriver:
        configuration = Configuration()
        configuration.host = cluster.url
        clients.append(ApiClient(configuration))
        driver = KubernetesDriver(
            "image",
            tmp_path / str(options.get("state", "state")),
            claim="workspaces",
            mounted_at=cluster.volume,
            namespace="agents",
            user=USER,
            client=clients[-1],
            port=cluster.port,
        )
        driver.python = PYTHON
        return driver

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
async def driver(
    make: Callable[..., KubernetesDriver], cluster: FakeCluster, monkeypatch
) -> AsyncIterator[KubernetesDriver]:
    """One that has not tried whether it works: the test does."""

    async def probe(_driver: KubernetesDriver) -> None: ...

    monkeypatch.setattr(KubernetesDriver, "_probe", probe)
    driver = make()
    await driver.check()
    yield driver
    await driver.close()
    assert cluster.kept == {PODS: {}, SECRETS: {}}


class TestContract(DriverContract):
    """All but what is the cluster's: its network, its addresses, and its control groups."""

    async def test_two_at_once_do_not_see_each_other(self, driver, places) -> None:
        pytest.skip("the node of the tests has one address for all pods")

    async def test_without_a_socket_it_has_no_network(self, driver, places) -> None:
        pytest.skip("the network is the cluster's")

    async def test_memory_ends_it(self, driver, places) -> None:
        pytest.skip("the control groups are the kubelet's")

    async def test_memory_of_files_in_tmp_ends_it_or_is_refused(self, driver, places) -> None:
        pytest.skip("the control groups are the kubelet's")


def settle(cluster: FakeCluster, status: dict[str, object], **container: object) -> None:
    """Have the next pod be so from the start, and never run."""
    states = [{"name": "sandbox", "state": container}] if container else []
    cluster.statuses.append({"phase": "Pending", "containerStatuses": states, **status})


class TestStarts:
    """What keeps a pod from starting is a sentence, and nothing is left of it."""

    async def test_a_pod_that_cannot_start_is_told_in_the_clusters_words(self, cluster, driver, places):
        message = "couldn't find key x in Secret"
        settle(cluster, {}, waiting={"reason": "CreateContainerConfigError", "message": message})
        with pytest.raises(SandboxError, match="does not start: CreateContainerConfigError: couldn't find"):
            await driver.start(places.shell("true"))

    async def test_an_image_that_cannot_be_pulled_is_told_when_time_is_up(
        self, cluster, driver, places, monkeypatch
    ):
        monkeypatch.setattr("rpcshare.sandbox.pod._START_SECONDS", 0.5)
        settle(cluster, {}, waiting={"reason": "ImagePullBackOff", "message": "Back-off pulling image"})
        with pytest.raises(SandboxError, match=r"in 0.5 s: ImagePullBackOff: Back-off pulling"):
            await driver.start(places.shell("true"))

    async def test_a_pod_for_which_there_is_no_node_is_told_when_time_is_up(
        self, cluster, driver, places, monkeypatch
    ):
        monkeypatch.setattr("rpcshare.sandbox.pod._START_SECONDS", 0.5)
        unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        settle(cluster, {"conditions": [{**unschedulable, "message": "0/3 nodes are available"}]})
        with pytest.raises(SandboxError, match="Unschedulable: 0/3 nodes are available"):
            await driver.start(places.shell("true"))

    async def test_what_the_cluster_refuses_is_told(self, cluster, driver, places):
        cluster.refusals = [(403, "exceeded quota: agents")]
        with pytest.raises(SandboxError, match="could not be started: exceeded quota: agents"):
            await driver.start(places.shell("true"))
        assert cluster.kept[SECRETS] == {}

    async def test_an_init_that_cannot_run_is_told_in_its_words(self, cluster, driver, places):
        driver._opened = replace(
            driver._opened,
            cluster=replace(
                driver._opened.cluster,
                settings=replace(driver._opened.cluster.settings, python="no-python"),
            ),
        )
        with pytest.raises(SandboxError, match=r"the pod ended at once: .*no-python"):
            await driver.start(places.shell("true"))

    @pytest.mark.parametrize("after", [0.0, 0.05, 0.3, 0.6])
    async def test_nothing_is_left_of_a_start_that_is_cancelled(self, cluster, driver, places, after):
        starting = asyncio.ensure_future(driver.start(places.shell("sleep 370", port=4096)))
        await asyncio.sleep(after)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if not starting.cancelled():
            await starting.result().terminate(grace=0.1)
        assert cluster.kept == {PODS: {}, SECRETS: {}}
        assert list(places.run_dir.iterdir()) == []

    async def test_a_directory_that_is_not_on_the_volume_is_refused(self, driver, places, tmp_path):
        mount = Mount(tmp_path, PurePosixPath("/mnt/other"))
        with pytest.raises(SandboxError, match="/mnt/other is not on the volume"):
            await driver.start(places.shell("true", mounts=(mount,)))

    async def test_a_small_file_of_the_server_goes_along(self, driver, places, tmp_path):
        (tmp_path / "known").write_text("a file of the server")
        mount = Mount(tmp_path / "known", PurePosixPath("/run/known"))
        sandbox = await driver.start(places.shell("cat /run/known", mounts=(mount,)))
        await asyncio.wait_for(sandbox.wait(), 30)
        assert sandbox.log_tail() == "a file of the server"


class TestEnds:
    """What the cluster does to a pod is its end, with the reason that the cluster has."""

    @pytest.mark.parametrize(
        ("status", "reason", "said"),
        [
            (
                {"reason": "Evicted", "message": "The node was low on resource: memory."},
                EndReason.LOST,
                "Evicted",
            ),
            ({"reason": "DeadlineExceeded", "message": "Pod was active"}, EndReason.TIMEOUT, "took longer"),
            (
                {"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]},
                EndReason.MEMORY,
                "bytes of memory",
            ),
        ],
    )
    async def test_a_pod_that_the_cluster_ends(self, cluster, driver, places, status, reason, said):
        sandbox = await driver.start(places.shell("echo working; sleep 371"))
        [name] = cluster.kept[PODS]
        cluster.set_status(name, {"phase": "Failed", **status})
        ended = await asyncio.wait_for(sandbox.wait(), 30)
        assert ended.reason is reason
        assert said in ended.message
        assert sandbox.log_tail() == "working"

    async def test_a_pod_that_somebody_deletes(self, cluster, driver, places):
        sandbox = await driver.start(places.shell("sleep 372"))
        [pod] = cluster.kept[PODS].values()
        cluster.put(PODS, "DELETED", pod)
        ended = await asyncio.wait_for(sandbox.wait(), 30)
        assert ended.reason is EndReason.LOST
        assert "the pod was deleted" in ended.message

    async def test_an_end_that_a_lost_watch_did_not_tell_of_is_found_by_listing_again(
        self, cluster, driver, places
    ):
        sandbox = await driver.start(places.shell("sleep 373"))
        [name] = cluster.kept[PODS]
        listed = cluster.lists
        cluster.forget_versions()
        cluster.kept[PODS].pop(name)  # while nobody watched; its events are forgotten, too
        cluster.tell()
        ended = await asyncio.wait_for(sandbox.wait(), 60)
        assert ended.reason is EndReason.LOST
        assert cluster.lists > listed

    async def test_a_watch_that_hangs_keeps_no_sandbox_from_starting_or_ending(
        self, cluster, driver, places, monkeypatch
    ):
        monkeypatch.setattr("rpcshare.sandbox.pod_watch._ASK_EVERY", 0.2)
        cluster.hangs = True
        sandbox = await asyncio.wait_for(driver.start(places.shell("exit 6")), 30)
        ended = await asyncio.wait_for(sandbox.wait(), 30)
        assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 6)

    async def test_a_watch_that_ends_goes_on(self, cluster, driver, places):
        sandbox = await driver.start(places.shell("until test -f go; do sleep 0.1; done; exit 5"))
        for _ in range(3):
            cluster.end_watches()
            await asyncio.sleep(0.3)
        (places.workspace / "go").touch()
        ended = await asyncio.wait_for(sandbox.wait(), 30)
        assert (ended.reason, ended.exit_code) == (EndReason.EXITED, 5)
        assert cluster.watches >= 4


async def test_who_has_not_the_token_is_not_talked_to(cluster, driver, places):
    sandbox = await driver.start(places.shell("sleep 374", port=4096))
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    await reader.readline()
    writer.write(b'{"role": "serve", "id": 0, "nonce": "x", "proof": "0"}\n')
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    sandbox._link._token = b"another"
    reader, writer = await asyncio.open_unix_connection(sandbox.socket_path)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    assert sandbox.status.running
    await sandbox.terminate(grace=0.1)


async def test_the_command_and_its_environment_are_in_no_object_of_the_cluster(cluster, driver, places):
    spec = places.shell("echo $KEY; env", environment={"KEY": "sk-not-to-be-listed"})
    sandbox = await driver.start(spec)
    await asyncio.wait_for(sandbox.wait(), 30)
    assert "sk-not-to-be-listed" in sandbox.log_tail()
    assert "KUBERNETES" not in sandbox.log_tail()
    assert "sk-not-to-be-listed" not in str(cluster.made)


async def test_a_pod_has_no_right_and_no_way_that_it_does_not_need(cluster, driver, places):
    limits = SandboxLimits(memory=2**28, cpus=0.5, timeout=60)
    sandbox = await driver.start(places.shell("true", limits=limits, name="wsp_A_b"))
    await asyncio.wait_for(sandbox.wait(), 30)
    _, pod = cluster.made
    spec = pod["spec"]
    [container] = spec["containers"]
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"], spec["hostUsers"]) == (
        False,
    ) * 3
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["resources"]["limits"]["memory"] == str(2**28)
    assert container["resources"]["limits"]["cpu"] == "500m"
    assert spec["activeDeadlineSeconds"] > 60
    assert "env" not in container
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"/workspace", "/home/agent", "/tmp", "/dev/shm"}
    assert not {"hostNetwork", "hostPID", "serviceAccountName"} & set(spec)


async def test_a_server_without_a_right_says_which(cluster, make):
    cluster.denied.add(("watch", "pods"))
    with pytest.raises(SandboxError, match="may not watch pods in the namespace agents: give it the role"):
        await make().check()


async def test_a_network_that_lets_pods_out_is_refused(cluster, make, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.url.rpartition(":")[2])
    with pytest.raises(SandboxError, match="reaches the network: a NetworkPolicy has to keep it in"):
        await make().check()
    assert cluster.kept == {PODS: {}, SECRETS: {}}


async def test_a_network_that_keeps_pods_in_is_taken(cluster, make, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    driver = make()
    await driver.check()
    await driver.close()
    assert cluster.kept == {PODS: {}, SECRETS: {}}


async def test_what_a_server_has_left_is_removed_by_the_next_one(cluster, make, driver, places):
    sandbox = await driver.start(places.shell("sleep 375"))
    beside = make()
    await beside.check()  # another process of that server, whose pods are not its to end
    assert len(cluster.kept[PODS]) == 1
    await beside.close()
    os.close(driver._opened.lock._descriptor)  # as when its process ends
    other, following = make(state="other"), make()
    await other.check()
    assert len(cluster.kept[PODS]) == 1
    await following.check()
    assert cluster.kept == {PODS: {}, SECRETS: {}}
    await asyncio.wait_for(sandbox.wait(), 60)
    for each in (other, following):
        await each.close()
    driver._opened = replace(driver._opened, lock=InstanceLock(driver._state_dir))


def test_names_and_labels_are_those_that_a_cluster_takes():
    """However long a name is, and whatever is in it."""
    for name in ("a", "wsp_0123456789abcdef01234567-a1b2c3", "X" * 80, "_-_", "-a-"):
        made = pod_name(name, "01234567")
        assert len(made) <= 63
        assert made == made.lower()
        assert not made.startswith("-")
        assert "_" not in made
        assert "--" not in made
    assert label_value("wsp_1-a") == "wsp_1-a"
    for text in ("_", "-a-", "x" * 80, "é/ü", ""):
        value = label_value(text)
        assert len(value) <= 63
        assert value == "" or (value[0].isalnum() and value[-1].isalnum())
    assert label_value("x" * 80) != label_value("x" * 81)
