"""Our npm packages as tarballs in projects that have nothing else: Node, a Bun workspace, a binary."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from support.forks import packed
from support.npm_packages import BUN, CLIENTS, NPM, needs_packages, run_in
from support.running_server import RunningServer, bare_environment

pytestmark = [pytest.mark.node, pytest.mark.rare, needs_packages, pytest.mark.timeout(240)]

OURS = ("types", "share-next", "opencode-plugin", "browser", "messagepack")
needs_bun = pytest.mark.skipif(not BUN.exists(), reason="needs Bun, from clients/node_modules")

# Shares a session, and prints its id.
PROGRAM = """
import { ShareNext } from "@rpcshare/share-next";

const records = new Map();
const share = new ShareNext({
  config: () => ({ url: process.env.SERVER, token: process.env.TOKEN }),
  logger: { info() {}, warn: console.error, error: console.error },
  sessions: {
    session: async (id) => ({ id, title: "From a tarball" }),
    messages: async () => [{ info: { id: "msg_1" }, parts: [] }],
    diff: async () => [],
    models: async () => [],
  },
  store: {
    get: async (id) => records.get(id),
    put: async (id, record) => void records.set(id, record),
    remove: async (id) => void records.delete(id),
  },
  events: { subscribe: () => () => undefined },
});
console.log((await share.create(process.env.SESSION)).id);
await share.close();
"""

IMPORTS = """
import { RpcTarget } from "capnweb";
const modules = await Promise.all(
  ["share-next", "opencode-plugin", "browser", "messagepack"].map((name) => import(`@rpcshare/${name}`)),
);
console.log(JSON.stringify(modules.map((module) => Object.keys(module).length > 0)));
"""


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tarballs: our packages, and what they need of others, so that no registry is asked."""
    directory = tmp_path_factory.mktemp("vendor")
    for package in OURS:
        shutil.copy(packed(package), directory / f"{package}.tgz")
    others = {
        "capnweb": CLIENTS / "node_modules" / "capnweb",
        "ws": CLIENTS / "node_modules" / "ws",
        "msgpack": CLIENTS / "messagepack" / "node_modules" / "@msgpack" / "msgpack",
    }
    assert NPM is not None
    for name, source in others.items():
        output = run_in(
            source, NPM, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(directory)
        )
        (directory / output.split()[-1]).rename(directory / f"{name}.tgz")
    return directory


def packages(vendor: Path, *, beside: str = "") -> dict[str, str]:
    """Return all of them as dependencies, as a ``package.json`` has them."""
    where = f"file:{beside}vendor" if beside else f"file:{vendor}"
    return {
        **{f"@rpcshare/{name}": f"{where}/{name}.tgz" for name in OURS},
        "@msgpack/msgpack": f"{where}/msgpack.tgz",
        "capnweb": f"{where}/capnweb.tgz",
        "ws": f"{where}/ws.tgz",
    }


def shared(server: RunningServer, directory: Path, *command: str | Path) -> None:
    """Run a program that shares a session; the share has to be there."""
    session = f"ses_{uuid4().hex}"
    env = bare_environment(SERVER=server.url, TOKEN=server.token, SESSION=session)
    finished = subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (finished.returncode, finished.stdout.strip()) == (0, session[-8:]), finished.stderr
    share = httpx.get(f"{server.url}/api/share/{session[-8:]}").json()
    assert [message["id"] for message in share["messages"]] == ["msg_1"]


def test_they_are_enough_in_an_empty_node_project(
    vendor: Path, tmp_path: Path, server: RunningServer
) -> None:
    manifest = {"name": "empty", "private": True, "type": "module", "dependencies": packages(vendor)}
    (tmp_path / "package.json").write_text(json.dumps(manifest))
    assert NPM is not None
    run_in(tmp_path, NPM, "install", "--offline", "--no-audit", "--no-fund", "--silent")
    (tmp_path / "imports.mjs").write_text(IMPORTS)
    assert json.loads(run_in(tmp_path, "node", "imports.mjs")) == [True] * 4
    (tmp_path / "program.mjs").write_text(PROGRAM)
    shared(server, tmp_path, "node", "program.mjs")


@pytest.fixture(scope="module")
def workspace(vendor: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bun workspace as a fork of opencode has one, set up as the package's README says."""
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(vendor, root / "vendor")
    program = root / "packages" / "opencode"
    program.mkdir(parents=True)
    overrides = packages(vendor, beside="./")
    (root / "package.json").write_text(
        json.dumps({"name": "root", "private": True, "workspaces": ["packages/*"], "overrides": overrides})
    )
    dependencies = packages(vendor, beside="../../")
    (program / "package.json").write_text(
        json.dumps({"name": "opencode", "type": "module", "dependencies": dependencies})
    )
    (program / "imports.ts").write_text(IMPORTS)
    (program / "program.ts").write_text(PROGRAM)
    env = {**os.environ, "BUN_INSTALL_CACHE_DIR": str(root / "cache")}
    installed = subprocess.run(
        [BUN, "install", "--registry=http://127.0.0.1:9"],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    return program


@needs_bun
def test_they_are_enough_in_a_bun_workspace(workspace: Path, server: RunningServer) -> None:
    assert json.loads(run_in(workspace, BUN, "imports.ts")) == [True] * 4
    shared(server, workspace, BUN, "program.ts")


@needs_bun
def test_they_are_enough_for_a_binary(workspace: Path, server: RunningServer, tmp_path: Path) -> None:
    binary = tmp_path / "program"
    run_in(workspace, BUN, "build", "--compile", "program.ts", "--outfile", binary)
    shared(server, tmp_path, binary)
