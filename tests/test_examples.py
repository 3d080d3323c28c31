"""Every example, also of the README and docs/clients.md: what it prints, and what the server then holds."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

import rpcshare
from support.narrowing import not_none
from support.npm_packages import built, needs_packages
from support.running_server import bare_environment
from support.scripted_agents import ScriptedAgents

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None or not (NODE_MODULES / "capnweb").is_dir(),
    reason="needs node, and the packages of tests/node",
)

TIMEOUT = 20  # seconds, for a program that takes less than one


@pytest.fixture
def env(server) -> dict[str, str]:
    return bare_environment(RPCSHARE_URL=server.url, RPCSHARE_TOKEN=server.token)


@pytest.fixture
def client(server):
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        yield client


@pytest.fixture
def session_id() -> str:
    return f"ses_{uuid4().hex}"


@pytest.fixture
def run(env):
    """Run a program to its end and return the lines that it printed."""

    def run(*command: str | Path, cwd: Path = ROOT) -> list[str]:
        process = subprocess.run(
            command, env=env, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert (process.returncode, process.stderr) == (0, "")
        return process.stdout.splitlines()

    return run


@pytest.fixture
def start(env):
    """Start a Python example that goes on until it is told to stop, or until the end of the test."""
    processes = []

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        command: list[str | Path] = [sys.executable, EXAMPLES / name, *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env=env, cwd=ROOT, text=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def with_packages(tmp_path):
    """A project that has the packages of clients/ installed."""
    (tmp_path / "node_modules").symlink_to(built() / "node_modules")
    return tmp_path


@pytest.fixture
def run_node(run, tmp_path):
    """Run a script as one of a project that has the npm packages installed."""

    def run_node(script: str, *arguments: str) -> list[str]:
        (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        (tmp_path / "script.mjs").write_text(script)
        return run(NODE, "script.mjs", *arguments, cwd=tmp_path)

    return run_node


@pytest.fixture
def documented(server, tmp_path):
    """Take the code out of a document, for the server of this test, to be run in ``tmp_path``."""
    (tmp_path / ".rpcshare").mkdir()
    (tmp_path / ".rpcshare" / "admin-token").write_text(f"{server.token}\n")

    def documented(document: str, kind: str) -> str:
        code = re.findall(rf"^```{kind}\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)[0]
        here = server.url.removeprefix("http://")
        assert "127.0.0.1:8787" in code
        return code.replace("127.0.0.1:8787", here)

    return documented


PROGRAMS = [path for path in EXAMPLES.iterdir() if path.suffix in {".py", ".mjs"}]


def test_every_example_is_tested():
    tested = Path(__file__).read_text() + (ROOT / "tests/opencode/test_opencode_plugin.py").read_text()
    assert [path.name for path in PROGRAMS if f'"{path.name}"' not in tested] == []


def test_every_example_says_how_to_run_it():
    for path in PROGRAMS:
        assert f"examples/{path.name} " in path.read_text()


def test_share_session(run, client, session_id):
    output = run(sys.executable, EXAMPLES / "share_session.py", session_id)
    share = client.create_share(session_id)
    assert output == [f"{share.url} has seen 1 sync"]
    session = client.get_share(share.id)
    assert session["session"]["title"] == "Shared from Python"
    assert [part["text"] for part in session["parts"]] == ["Hello"]


def test_typed_client(run, client, session_id):
    url, whole, listed, deleted = run(sys.executable, EXAMPLES / "typed_client.py", session_id)
    share_id = url.removesuffix(" has seen 2 syncs").rpartition("/")[2]
    assert whole == "Typed: 1 message"
    assert listed == f"listed: {share_id}"
    assert deleted == "deleted: Share not found (SHARE_NOT_FOUND)"
    assert client.list_shares(query=session_id).count == 0


def test_watch_share(start, client, session_id):
    share = client.create_share(session_id, [{"type": "session", "data": {"id": session_id}}])
    watching = start("watch_share.py", share.id)
    assert watching.stdout.readline() == "snapshot 1 session\n"
    client.sync_share(share.id, share.secret, [{"type": "message", "data": {"id": "msg_1"}}])
    assert watching.stdout.readline() == "sync 2 message\n"
    client.delete_share(share.id)
    assert watching.communicate(timeout=TIMEOUT) == ("deleted None\n", "")
    assert watching.returncode == 0


def test_watch_share_trio(start, client, session_id):
    shares = [client.create_share(f"{session_id}{which}") for which in "ab"]
    watching = start("watch_share_trio.py", *(share.id for share in shares))
    seen = {watching.stdout.readline() for _ in shares}
    assert seen == {f"{share.id} snapshot 0 session\n" for share in shares}
    for share in shares:
        client.sync_share(share.id, share.secret, [{"type": "message", "data": {"id": "msg_1"}}])
        assert watching.stdout.readline() == f"{share.id} sync 1 message\n"
        client.delete_share(share.id)
        assert watching.stdout.readline() == f"{share.id} deleted None\n"
    assert watching.communicate(timeout=TIMEOUT) == ("", "")
    assert watching.returncode == 0


def test_blocking_script(run, client, session_id):
    output = run(sys.executable, EXAMPLES / "blocking_script.py", session_id)
    share = client.create_share(session_id)
    assert output == [f"{share.url} holds 3 messages after 4 syncs"]
    messages = client.get_share(share.id)["messages"]
    assert [message["id"] for message in messages] == ["msg_0", "msg_1", "msg_2"]


def test_callbacks(run, client, session_id):
    output = run(sys.executable, EXAMPLES / "callbacks.py", session_id)
    assert output == ["server-called, and answered", "snapshot", "sync", "left: 0"]
    share = client.create_share(session_id)
    assert client.get_share_metadata(share.id).sync_count == 1


@pytest.fixture
def counter_url(start) -> str:
    """Where the counter server listens."""
    line = start("counter_server.py", "0").stdout.readline()
    return f"ws://127.0.0.1:{line.removeprefix('listening on port ').strip()}"


async def test_counter_server_as_python_calls_it(counter_url):
    async with rpcshare.connect(counter_url) as api:
        assert await api.makeCounter(40).increment(2) == 42
        async with api.makeCounter() as counter:
            assert [await counter.increment(), await counter.increment()] == [1, 2]


@pytest.mark.node
@needs_node
def test_counter_server_as_javascript_calls_it(run_node, counter_url):
    documented = re.findall(
        r"^    (const .*|console.*);$", (EXAMPLES / "counter_server.py").read_text(), re.M
    )
    script = [
        'import { newWebSocketRpcSession } from "capnweb";',
        'import WebSocket from "ws";',
        "globalThis.WebSocket ??= WebSocket;",
        *(line.replace("ws://127.0.0.1:8123", counter_url) for line in documented),
        "process.exit();",
    ]
    assert run_node("\n".join(script)) == ["42"]


@pytest.mark.node
@needs_node
def test_share_session_from_javascript(run_node, client, session_id):
    script = (EXAMPLES / "share_session.mjs").read_text()
    (output,) = run_node(script, session_id)
    share = client.create_share(session_id)
    assert output == f"{share.url} has seen 1 sync"
    assert client.get_share(share.id)["session"]["title"] == "Shared from JavaScript"


@pytest.mark.node
@needs_packages
def test_share_next(run, client, session_id, with_packages):
    (with_packages / "script.mjs").write_text((EXAMPLES / "share_next.mjs").read_text())
    output = run(NODE, "script.mjs", session_id, cwd=with_packages)
    share = client.create_share(session_id)
    assert output == [share.url, "all of it has arrived"]
    assert [part["text"] for part in client.get_share(share.id)["parts"]] == ["Hello"]


@pytest.mark.node
@needs_packages
def test_watch_page(env, client, session_id, with_packages):
    share = client.create_share(session_id)
    (with_packages / "script.mjs").write_text((EXAMPLES / "watch_page.mjs").read_text())
    command = [NODE, "script.mjs", share.url]
    with subprocess.Popen(command, cwd=with_packages, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = not_none(process.stdout).readline().strip()
            page = httpx.get(url, timeout=TIMEOUT)
            assert share.url in page.text
            assert "export function watch" in httpx.get(f"{url}index.js", timeout=TIMEOUT).text
        finally:
            process.kill()


def test_first_share_of_the_readme(run, client, documented, tmp_path):
    printed = run(sys.executable, "-c", documented("README.md", "python"), cwd=tmp_path)
    share = client.create_share("ses_demo_0001")
    assert printed[-1] == share.url
    assert [part["text"] for part in client.get_share(share.id)["parts"]] == ["Hello"]


@pytest.mark.node
@needs_node
def test_typescript_of_the_clients_page(run, client, documented, tmp_path):
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    # The types are all that Node 20 cannot run.
    (tmp_path / "script.mjs").write_text(re.sub(r" as any|: any", "", documented("docs/clients.md", "ts")))
    (printed,) = run(NODE, "script.mjs", cwd=tmp_path)
    share = client.create_share("ses_demo_0002")
    assert printed.endswith(share.url)
    assert [message["id"] for message in client.get_share(share.id)["messages"]] == ["msg_1"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_of_the_clients_page(run, client, documented, tmp_path):
    script = documented("docs/clients.md", "sh").replace("curl ", "curl -sS ")
    printed = "\n".join(run("sh", "-c", script, cwd=tmp_path))
    assert '"syncCount":1' in printed
    assert '"text":"Hello"' in printed
    with pytest.raises(rpcshare.ShareError, match="not found"):
        client.get_share("emo_0004")


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    options = ("--agents=local", "--agents-unsafe")
    with ScriptedAgents(tmp_path_factory.mktemp("agents") / "data", *options) as running:
        yield running


@pytest.mark.slow
@needs_node
@pytest.mark.parametrize("name", ["agent.py", "agent.mjs"])
def test_an_agent(name, agents, tmp_path):
    with rpcshare.connect_blocking(agents.url, token=agents.token) as client:
        workspaces = client.workspaces()
        workspace = client._run(_made(workspaces, name.replace(".", "-")))
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / name).write_text((EXAMPLES / name).read_text())
    program = sys.executable if name.endswith(".py") else not_none(NODE)
    done = subprocess.run(
        [program, tmp_path / name, workspace, "run make"],
        env=bare_environment(RPCSHARE_URL=agents.url, RPCSHARE_TOKEN=agents.token),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["allowed: make", "run make", "Answered: {'reply': 'once'}"]


async def _made(workspaces, name):
    return (await workspaces.create({"name": name}).info())["id"]
