"""A copy of what the core is compiled from, in which a test may break things."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__all__ = ["EXTENSION", "ROOT", "Checkout"]

ROOT = Path(__file__).parents[2]
EXTENSION = EXTENSION_SUFFIXES[0]


class Checkout:
    """The package, its build scripts and its settings, without anything compiled, at ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        uncompiled = shutil.ignore_patterns("*.so", "*.pyd", "compiled.*.json", "__pycache__")
        for name in ("rpcshare", ".packaging"):
            shutil.copytree(ROOT / name, root / name, ignore=uncompiled)
        shutil.copy(ROOT / "pyproject.toml", root)

    def compile(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the step of ``make install`` that compiles."""
        return self._run([".packaging/compiling.py"], variables)

    def python(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``code``, which imports the copy."""
        return self._run(["-c", code], {"PYTHONPATH": str(self.root), **variables})

    def _run(self, arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PURE_PYTHON": "0", "RPCSHARE_COMPILE": "1", **variables}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
