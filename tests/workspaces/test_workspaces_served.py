"""Workspaces of a running server: over RPC, over HTTP, on the command line, and programs that run on them."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

import rpcshare
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcError
from rpcshare.sandbox.driver import EndReason
from rpcshare.workspaces.resources import Bounds
from rpcshare.workspaces.sandboxing import EgressSettings, Program, SandboxedPrograms
from rpcshare.workspaces.workspace import WorkspaceState, parse_new_workspace
from rpcshare.workspaces.workspaces import Workspaces
from support.running_server import RunningServer

pytestmark = pytest.mark.slow

CALLER = Caller(subject="ci", scopes=frozenset({Scope.CREATE}), source="key")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("served")
    options = ("--agents=local", "--agents-unsafe", "--egress-allow=*.example.com")
    with RunningServer(path / "data", *options) as running:
        yield running


def ask(server, method, path, **options):
    headers = {"Authorization": f"Bearer {server.token}"}
    return httpx.request(method, server.url + path, headers=headers, timeout=60, **options)


def run(server, *arguments):
    environment = {**os.environ, "RPCSHARE_URL": server.url, "RPCSHARE_TOKEN": server.token}
    command = [sys.executable, "-m", "rpcshare", "workspace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def files_of(server, workspace_id) -> Path:
    return Path(server.data_dir) / "workspaces" / workspace_id / "files"


async def test_over_rpc_a_new_workspace_is_used_in_the_same_round_trip(server):
    async with rpcshare.connect(server.url, token=server.token) as api:
        info = await api.workspaces().create({"name": "rpc"}).info()
        (files_of(server, info["id"]) / "a.txt").write_text("hello")
        (files_of(server, info["id"]) / "b").write_bytes(b"\0\xff")
        files = api.workspaces().get(info["id"]).files()
        assert [each["name"] for each in (await files.list())["entries"]] == ["a.txt", "b"]
        read = await files.read("a.txt")
        assert (read["content"], read["mimeType"], read["size"]) == ("hello", "text/plain", 5)
        assert (await files.read("b"))["content"] == b"\0\xff"
        assert (await files.find("a"))["paths"] == ["a.txt"]
        with pytest.raises(RpcError, match="does not go up"):
            await files.read("../../../admin-token")
        changed = await api.workspaces().get(info["id"]).update({"resources": {"cpu": 1}})
        assert changed["resources"]["cpu"] == 1
        assert info["id"] in [each["id"] for each in await api.workspaces().list()]
        assert (await api.workspaces().remove(info["id"]))["success"] is True
        with pytest.raises(RpcError) as caught:
            await api.workspaces().get(info["id"])
        assert caught.value.code == "WORKSPACE_NOT_FOUND"


def test_over_http_it_is_the_same(server):
    made = ask(server, "POST", "/api/workspaces", json={"name": "http", "resources": {"memory": "1GiB"}})
    assert made.status_code == 200, made.text
    workspace_id = made.json()["id"]
    files = files_of(server, workspace_id)
    (files / "src").mkdir()
    (files / "src" / "a b.py").write_text("needle = 1\n")
    (files / "c.md").write_text("needle\n")
    (files / "d").write_bytes(b"\0")
    assert ask(server, "GET", f"/api/workspaces/{workspace_id}").json()["resources"]["memory"] == 2**30
    read = ask(server, "GET", f"/api/files/src/a%20b.py?workspace={workspace_id}").json()
    assert (read["content"], read["encoding"]) == ("needle = 1\n", "utf-8")
    assert ask(server, "GET", f"/api/files/d?workspace={workspace_id}").json()["content"] == "AA=="
    for path in ("%2e%2e/%2e%2e/admin-token", "src%2f..%2f..%2f..%2fadmin-token", "%2fetc%2fpasswd", "a%00b"):
        refused = ask(server, "GET", f"/api/files/{path}?workspace={workspace_id}")
        assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert ask(server, "GET", "/api/files/c.md").status_code == 400
    unknown = ask(server, "GET", "/api/files/c.md?workspace=wsp_0")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "WORKSPACE_NOT_FOUND")
    found = ask(server, "GET", f"/api/files/search?query=needle&workspace={workspace_id}&fileTypes=py")
    if found.status_code != 403:  # there is no ripgrep here
        assert [each["path"] for each in found.json()["matches"]] == ["src/a b.py"]
    bad = ask(server, "POST", "/api/workspaces", json={"name": "x", "resources": {"memory": "1PB"}})
    assert (bad.status_code, bad.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert httpx.get(server.url + "/api/workspaces").status_code == 401
    gone = ask(server, "DELETE", f"/api/workspaces/{workspace_id}?snapshot=1").json()
    assert gone == {"success": True, "snapshot": f"{workspace_id}.tar.zst"}
    assert ask(server, "DELETE", f"/api/workspaces/{workspace_id}").status_code == 404


def test_the_document_of_the_api_has_its_paths(server):
    paths = httpx.get(server.url + "/openapi.json").json()["paths"]
    parameters = paths["/api/files/{path}"]["get"]["parameters"]
    assert {each["name"] for each in parameters} == {"path", "workspace"}
    assert set(paths["/api/workspaces/{workspace_id}"]) == {"get", "delete"}


def test_on_the_command_line_a_name_is_as_good_as_an_id(server):
    made = json.loads(
        run(server, "create", "cli", "--memory", "512MiB", "--host", "a.example", "--json").stdout
    )
    (files_of(server, made["id"]) / "note").write_text("of the command line\n")
    assert run(server, "files", "read", "cli", "note").stdout == "of the command line\n"
    assert "note" in run(server, "files", "ls", "cli").stdout
    assert run(server, "files", "find", "cli", "ot").stdout == "note\n"
    shown = run(server, "show", "cli").stdout
    assert "512.0 MiB memory" in shown
    assert "host: a.example" in shown
    other = run(server, "create", "second", "--mount", "first=cli", "--json")
    assert json.loads(other.stdout)["mounts"][0]["workspace"] == made["id"]
    assert run(server, "rm", "second").returncode == 0
    assert run(server, "update", "cli", "--name", "renamed").returncode == 0
    assert run(server, "update", "renamed").returncode == 2
    assert run(server, "rm", "renamed").returncode == 0
    missing = run(server, "show", "renamed")
    assert (missing.returncode, missing.stderr.count("\n")) == (5, 1)
    wrong = run(server, "create", "a/b")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_server_that_runs_no_agents_has_none(tmp_path):
    with RunningServer(tmp_path / "data") as plain:
        assert ask(plain, "GET", "/api/workspaces").status_code == 404
        assert "runs no agents" in run(plain, "ls").stderr


def test_a_server_without_bubblewrap_does_not_start(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "rpcshare",
        "serve",
        "--port=0",
        "--agents=local",
        f"--data-dir={tmp_path}/d",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2
    assert "install the package bubblewrap" in done.stderr


# Programs


@pytest.fixture(params=["sqlite"])
def records_url(tmp_path):
    return f"sqlite:///{tmp_path}/records.sqlite3"


class Running:
    def __init__(self, records, driver, folder: Path, egress: EgressSettings) -> None:
        self.workspaces = Workspaces(records, folder / "ws", user=(65534, 65534))

        async def opened():
            return self.workspaces

        async def resolve(_host, _port):
            return ["127.0.0.1"]

        self.programs = SandboxedPrograms(opened, driver, egress, AuditLog(), resolve=resolve)

    async def make(self, name, **given):
        new = parse_new_workspace({"name": name, **given}, Bounds())
        made = await self.workspaces.add(CALLER.owner or "", new)
        return await self.workspaces.set_state(made, WorkspaceState.READY)


@pytest.fixture
async def running(records, driver, tmp_path):
    made = Running(records, driver, tmp_path, EgressSettings(("allowed.test:1",), ("inner.test",)))
    yield made
    await made.programs.close()


def shell(script: str) -> Program:
    return Program(("/bin/sh", "-c", script))


async def test_a_program_sees_its_workspace_and_its_mounts_and_is_counted(running):
    data = await running.make("data")
    (running.workspaces.folder_of(data).files / "shared").write_text("of data")
    running.workspaces.folder_of(data).files.chmod(0o755)
    site = await running.make("site", mounts=[{"name": "data", "workspace": data.id}])
    with capture_logs() as lines:
        sandbox = await running.programs.start(
            site, shell("cat /mnt/data/shared; touch made; touch /mnt/data/x; unshare -r true"), CALLER
        )
        assert running.programs.is_running(site.id)
        status = await asyncio.wait_for(sandbox.wait(), 60)
        async with asyncio.timeout(20):
            while running.programs.is_running(site.id):
                await asyncio.sleep(0.01)
    assert status.reason is EndReason.EXITED
    assert "of data" in sandbox.log_tail()
    assert not (running.workspaces.folder_of(data).files / "x").exists()
    assert (running.workspaces.folder_of(site).files / "made").exists()
    told = {(line["action"], line["outcome"]) for line in lines if "action" in line}
    assert told == {("sandbox.call", "refused"), ("sandbox.end", "ok")}
    counts = running.programs.counts
    assert (counts.started, counts.ended["exited"], counts.refused_calls["unshare"]) == (1, 1, 1)


async def test_what_the_proxy_refuses_is_told_and_hosts_may_change_under_way(running):
    async def greet(_reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    site = await running.make("site")
    script = """
import sys, time, urllib.request
for name in ("evil.test", "later.test", "inner.test"):
    try:
        print(urllib.request.urlopen(f"http://{name}/", timeout=5).read())
    except OSError as exc:
        print(name, exc)
sys.stdout.flush()
"""
    (running.workspaces.folder_of(site).files / "ask.py").write_text(script)
    with capture_logs() as lines:
        python = os.path.realpath(sys.executable)
        sandbox = await running.programs.start(site, Program((python, "ask.py")), CALLER)
        status = await asyncio.wait_for(sandbox.wait(), 60)
    assert status.exit_code == 0, sandbox.log_tail()
    refusals = [(line["why"], line["host"]) for line in lines if line.get("action") == "sandbox.egress"]
    assert refusals == [("host", "evil.test:80"), ("host", "later.test:80")]
    assert running.programs.counts.refused_connections["host"] == 2
    server.close()


async def test_a_workspace_over_its_disk_starts_nothing(running):
    site = await running.make("site", resources={"disk": "1MiB"})
    (running.workspaces.folder_of(site).files / "large").write_bytes(os.urandom(2 << 20))
    with pytest.raises(ShareError) as caught:
        await running.programs.start(site, shell("true"), CALLER)
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_a_mount_that_is_gone_is_told(running):
    site = await running.make("site", mounts=[{"name": "x", "workspace": "wsp_" + "0" * 24}])
    with pytest.raises(ShareError) as caught:
        await running.programs.start(site, shell("true"), CALLER)
    assert caught.value.code is ErrorCode.WORKSPACE_NOT_FOUND


async def test_files_that_are_not_on_this_server_are_told(running):
    site = await running.make("site")
    folder = running.workspaces.folder_of(site).path
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ShareError) as caught:
        await running.programs.start(site, shell("true"), CALLER)
    assert caught.value.code is ErrorCode.STORAGE_UNAVAILABLE
