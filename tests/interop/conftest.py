"""Node.js, where it is installed with the npm packages of tests/node."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NODE = Path(__file__).parent.parent / "node"


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node.js, to be run in tests/node."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    if not (NODE / "node_modules").is_dir():
        pytest.skip("the npm packages are not installed: run `npm ci` in tests/node")
    return found


@pytest.fixture(scope="module")
def npm_server(node: str) -> Iterator[str]:
    """The URL of a server made with npm's capnweb."""
    with running(node, "interop_server.mjs") as url:
        yield url


@pytest.fixture(scope="module")
def upstream(node: str) -> Iterator[str]:
    """The URL of another such server: its target keeps what it is given, and is what relays stand before."""
    with running(node, "relay_server.mjs") as url:
        yield url


@contextmanager
def running(node: str, script: str) -> Iterator[str]:
    """Run a server of tests/node; yield its URL."""
    with subprocess.Popen([node, script], cwd=NODE, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().strip()
            assert port, "the server did not start"
            yield f"ws://127.0.0.1:{port}"
        finally:
            process.kill()
