"""The packages in clients/ that share their tools, built once for all tests that need them."""

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

from support.running_server import RPCSHARE, bare_environment

__all__ = ["BUN", "CLIENTS", "NPM", "PLUGIN", "built", "needs_packages", "run_in"]

CLIENTS = Path(__file__).parents[2] / "clients"
PLUGIN = CLIENTS / "opencode-plugin" / "dist" / "index.js"
BUN = CLIENTS / "node_modules" / ".bin" / "bun"
NPM = shutil.which("npm")

needs_packages = pytest.mark.skipif(
    NPM is None or not (CLIENTS / "node_modules" / "typescript").is_dir(),
    reason="needs node, and clients/node_modules as `make test` installs them",
)


def run_in(directory: Path, *command: str | Path, timeout: float = 150) -> str:
    """Run a command in a directory, and return what it wrote; all of that is in the error if it fails."""
    finished = subprocess.run(
        command,
        cwd=directory,
        env=bare_environment(RPCSHARE_TEST_COMMAND=RPCSHARE),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@functools.cache
def built() -> Path:
    """Compile the packages, which type-checks them, and return where they are."""
    run_in(CLIENTS, CLIENTS / "node_modules" / ".bin" / "tsc", "--build")
    return CLIENTS
