"""The shell blocks of README.md and docs/, run as they are printed, against a server of the test's own.

Each block is run here or elsewhere, or says why it is not. Placeholders, such as ``STORE``, have values here.
Of ``rpcshare serve``, the settings are checked; starting it is what other tests do.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from support.running_server import RPCSHARE, RunningServer, bare_environment

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

# By the document and the first words. What the others need is no part of a machine that runs tests.
ELSEWHERE = {
    ("README.md", "make install"): "tests/install, and .ci/run, which begins with it",
    ("README.md", "make test"): "this is a part of it",
    ("docs/clients.md", "url=http://127.0.0.1:8787 token="): "tests/test_examples.py",
    ("docs/clients.md", "python -m rpcshare.conformance serve"): "tests/conformance",
    ("docs/moving.md", "rpcshare import-bucket"): "tests/fork/test_moving.py",
    ("docs/moving.md", "rpcshare serve"): "tests/fork/test_moving.py",
    ("docs/opencode.md", "opencode import https"): "tests/opencode",
    ("docs/opencode.md", "rpcshare pull https"): "tests/opencode",
    ("docs/opencode.md", "NODE_EXTRA_CA_CERTS"): "tests/opencode",
    ("docs/opencode.md", "opencode run"): "tests/opencode",
    ("docs/people.md", "rpcshare users list"): "needs users: tests/people",
    ("docs/people.md", "rpcshare users limits"): "needs users: tests/people",
    ("docs/performance.md", "make bench"): "takes minutes, and is run before a release",
    ("docs/workspaces.md", "rpcshare serve"): "needs bubblewrap: tests/workspaces",
    ("docs/workspaces.md", "rpcshare workspace"): "needs a server that runs agents: tests/workspaces",
    ("docs/agents.md", "rpcshare agent"): "needs a server that runs agents: tests/agents",
    ("docs/install.md", "uvx"): "needs uv and a package index; make release-check installs what it would",
    ("docs/install.md", "pipx"): "needs pipx and a package index; make release-check installs what it would",
    ("docs/install.md", "python3 -m venv"): "needs a package index; make release-check does it",
    ("docs/install.md", "RPCSHARE_COMPILE=1"): "needs a package index; make release-check does it",
    ("docs/deploying.md", "podman build"): "make image-check",
    ("docs/deploying.md", "helm install"): "needs a cluster; make chart-check renders it",
}

pytestmark = pytest.mark.rare  # a process for each line


class Block(NamedTuple):
    document: str
    text: str

    @property
    def elsewhere(self) -> str | None:
        return next(
            (where for (document, begin), where in ELSEWHERE.items() if self._is(document, begin)), None
        )

    def _is(self, document: str, begin: str) -> bool:
        return self.document == document and self.text.startswith(begin)

    def __str__(self) -> str:
        return f"{self.document}: {self.text[:30]}"


def blocks() -> list[Block]:
    return [
        Block(document, text)
        for document in DOCUMENTS
        for text in re.findall(r"^```sh\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)
    ]


BLOCKS = blocks()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a server that has run, and a backup of it."""
    folder = tmp_path_factory.mktemp("kept")
    with RunningServer(folder / "data") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        httpx.post(f"{server.url}/api/share", json={"sessionID": "DEMO_ID"}, headers=headers)
        server.stop()
    command = [RPCSHARE, "export", str(folder / "backup"), f"--data-dir={folder / 'data'}"]
    subprocess.run(command, env=bare_environment(), check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture
def place(server: RunningServer, tmp_path: Path, kept: Path) -> Path:
    """A folder with what the documents speak of."""
    session = [{"type": "session", "data": {"id": "DEMO_ID", "title": "Fix the parser"}}]
    (tmp_path / "session.json").write_text(json.dumps(session))
    (tmp_path / "rpcshare.toml").write_text("port = 8787\n")
    (tmp_path / "keys").write_text("A" * 43 + "=\n")
    (tmp_path / "proxy-secret").write_text("a secret of some length\n")
    (tmp_path / "run").mkdir()
    shutil.copytree(kept / "data", tmp_path / "data")
    (tmp_path / ".config").mkdir()
    headers = {"Authorization": f"Bearer {server.token}"}
    body = {"sessionID": "DEMO_ID", "data": session}
    httpx.post(f"{server.url}/api/share", json=body, headers=headers).raise_for_status()
    return tmp_path


def prepared(block: Block, server: RunningServer, place: Path) -> str:
    """Return a script of a block, with values for what a reader has to fill in."""
    text = block.text.replace("rpcshare serve", "rpcshare config check")
    values = {
        "http://127.0.0.1:8787": server.url,
        "rpcshare login https://share.example": f'rpcshare login {server.url} <<<"$RPCSHARE_TOKEN"',
        "--from STORE --to STORE": f"--from sqlite:///{place}/data/store.sqlite3 --to sqlite:///to.sqlite3",
        "--from STORE --owner NAME": f"--from sqlite:///{place}/data/store.sqlite3 --owner laptop",
        "unix:/run/rpcshare/": f"unix:{place}/run/",
        # They go on until they are stopped.
        "rpcshare watch DEMO_ID": "timeout 5 rpcshare watch DEMO_ID || test $? = 124",
        # They ask on a terminal, which there is none of.
        "rpcshare rm DEMO_ID": "rpcshare rm DEMO_ID --yes",
        "--password-prompt": "--password-file proxy-secret",
        "token revoke --jti ID": "token revoke --jti 0123456789",
        "curl -u :PASSWORD": "true curl -u :PASSWORD",
        "curl -H": "true curl -H",
        # The certificates are of another host.
        "rpcshare ls --url https://share.example:8787": "true rpcshare ls",
    }
    for old, new in values.items():
        text = text.replace(old, new)
    return f"set -e\n{text}"


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=str(block)) for block in BLOCKS if block.elsewhere is None]
)
def test_a_block_runs_as_it_is_printed(block: Block, server: RunningServer, place: Path, kept: Path) -> None:
    if block.text.startswith("rpcshare restore"):
        shutil.copytree(kept / "backup", place / "backup")
    env = bare_environment(
        PATH=f"{Path(RPCSHARE).parent}{os.pathsep}{os.environ['PATH']}",
        HOME=str(place),
        XDG_CONFIG_HOME=str(place / ".config"),
        RPCSHARE_URL=server.url,
        RPCSHARE_TOKEN=server.token,
        RPCSHARE_DATA_DIR=str(place / "data"),
        DATA=str(place / "data"),
        PUBLIC_URL="https://share.example",
    )
    finished = subprocess.run(
        ["bash", "-c", prepared(block, server, place)],
        env=env,
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr


def test_what_runs_elsewhere_is_still_there() -> None:
    stale = [key for key in ELSEWHERE if not any(block._is(*key) for block in BLOCKS)]
    assert stale == []
