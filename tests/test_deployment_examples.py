"""The unit, the image and the chart: what can be said of them without systemd, a container or a cluster."""

import json
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from support.authorities import Authority
from support.running_server import RunningServer, bare_environment

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "examples" / "systemd"
ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze: apt-get install systemd")


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that is there."""
    for path in SYSTEMD.iterdir():
        text = path.read_text().replace("/opt/rpcshare/bin/rpcshare", shutil.which("true") or "/bin/true")
        (tmp_path / path.name).write_text(text)
    return sorted(tmp_path.iterdir())


def analyzed(*arguments: str | Path) -> str:
    assert ANALYZE is not None
    finished = subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@needs_systemd
def test_systemd_understands_the_units(units: list[Path]) -> None:
    said = analyzed("verify", *units)
    assert [line for line in said.splitlines() if "rpcshare" in line] == []


@needs_systemd
def test_the_unit_is_as_closed_as_the_documents_say(units: list[Path]) -> None:
    (service,) = (unit for unit in units if unit.suffix == ".service")
    finished = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", service],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    exposure = re.search(r"Overall exposure level.*: ([\d.]+)", finished.stdout)
    if exposure is None:
        pytest.skip("this systemd-analyze knows no --offline")
    assert float(exposure[1]) <= 1.5


def is_well(**variables: str) -> tuple[int, str]:
    """Run the health check of the image; return its exit status and what it says."""
    command = [sys.executable, str(ROOT / ".packaging" / "healthcheck.py")]
    environment = bare_environment(**variables)
    finished = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return finished.returncode, finished.stderr


@pytest.mark.slow
def test_the_image_is_healthy_wherever_its_server_listens(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "plain", "--host=::") as server:
        assert is_well(RPCSHARE_HOST="::", RPCSHARE_PORT=str(server.port)) == (0, "")
        status, said = is_well(RPCSHARE_PORT=str(server.port), RPCSHARE_TLS_CERT="cert.pem")
        assert (status, said.splitlines()[1:]) == (1, [])
    status, said = is_well(RPCSHARE_PORT=str(server.port))
    assert (status, said.splitlines()[1:]) == (1, [])


@pytest.mark.slow
def test_the_image_is_healthy_with_a_certificate(tmp_path: Path) -> None:
    pem = str(Authority(tmp_path / "ca").issue_to_server())
    with RunningServer(tmp_path / "data", f"--tls-cert={pem}", f"--tls-key={pem}") as server:
        assert is_well(RPCSHARE_PORT=str(server.port), RPCSHARE_TLS_CERT=pem) == (0, "")


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_image_asks_a_server_on_a_unix_socket(
    tmp_path_factory: pytest.TempPathFactory, status: int, expected: int
) -> None:
    path = tmp_path_factory.mktemp("s") / "rpcshare.sock"  # a socket's path has about 100 characters

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4096).startswith(b"GET /healthz HTTP/1.1\r\n")
            connection.sendall(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\n\r\n" % status)

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        answered = pool.submit(answer, listener)
        assert is_well(RPCSHARE_HOST=f"unix:{path}")[0] == expected
        answered.result(10)


def test_all_that_the_image_is_made_of_reaches_its_build() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    wanted = {name for names in copied for name in names.split()}
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    # What hatchling reads of the checkout is named in pyproject.toml.
    hooks = set(re.findall(r'^path = "([^"]+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert wanted
    for name in wanted | hooks:
        assert (ROOT / name).exists()
        assert any(name == each or name.startswith(f"{each}/") for each in let_in), name
    for name in hooks:
        assert any(name.startswith(f"{each}/") for each in wanted)


def test_compose_builds_the_image_of_the_containerfile() -> None:
    compose = (ROOT / "examples" / "compose.yaml").read_text()
    assert "dockerfile: Containerfile" in compose
    assert "context: .." in compose


def test_no_other_container_of_compose_gets_the_balancers_address() -> None:
    document = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text())
    (network,) = document["networks"]["default"]["ipam"]["config"]
    balancer = document["services"]["balancer"]["networks"]["default"]["ipv4_address"]
    assert ip_address(balancer) in ip_network(network["subnet"])
    assert ip_address(balancer) not in ip_network(network["ip_range"])
    for name in ("server-1", "server-2"):
        assert document["services"][name]["environment"]["RPCSHARE_TRUSTED_PROXY"] == balancer


def test_one_version_is_released_with_its_changelog() -> None:
    command = [sys.executable, str(ROOT / ".packaging" / "release_notes.py")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("First version.")


def test_each_npm_package_names_the_repository_of_pyproject() -> None:
    command = [sys.executable, str(ROOT / ".packaging" / "repository.py"), "--url"]
    url = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    packages = [path.parent for path in (ROOT / "clients").glob("*/package.json")]
    assert len(packages) > 1
    for package in packages:
        manifest = json.loads((package / "package.json").read_text())
        folder = f"clients/{package.name}"
        assert manifest["repository"] == {"type": "git", "url": f"git+{url}.git", "directory": folder}
        assert manifest["homepage"] == f"{url}/tree/main/{folder}#readme"
        assert manifest["bugs"] == f"{url}/issues"


def test_each_npm_package_has_the_license() -> None:
    license_text = (ROOT / "LICENSE").read_text()
    packages = [path.parent for path in (ROOT / "clients").glob("*/package.json")]
    assert len(packages) > 1
    for package in packages:
        assert (package / "LICENSE").read_text() == license_text
