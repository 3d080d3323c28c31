"""Directories of a sandbox, and what is run in one."""

import os
import sys
from pathlib import Path
from typing import Any

from rpcshare.sandbox.driver import SandboxSpec

__all__ = ["PYTHON", "USER", "Places"]

USER = (40_000 + os.getpid() % 20_000,) * 2
"""Nobody else's: without control groups, all processes of a user count together."""
PYTHON = os.path.realpath(sys.executable)
"""Which is inside as well, as the init runs by it."""


class Places:
    """A workspace, a home and a directory for sockets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace, self.home, self.run_dir = (root / name for name in ("ws", "home", "run"))
        for folder in (self.workspace, self.home, self.run_dir):
            folder.mkdir(mode=0o700)
            if os.geteuid() == 0 and folder is not self.run_dir:
                os.chown(folder, *USER)

    def spec(self, *command: str, **options: Any) -> SandboxSpec:
        """Return what runs a command here."""
        return SandboxSpec(
            options.pop("name", "test"), command, self.workspace, self.home, self.run_dir, **options
        )

    def shell(self, script: str, **options: Any) -> SandboxSpec:
        """Return what runs a script of the shell here."""
        return self.spec("/bin/sh", "-c", script, **options)

    def python(self, script: str, **options: Any) -> SandboxSpec:
        """Return what runs a program in Python here."""
        return self.spec(PYTHON, "-I", "-c", script, **options)
