"""Compiles the RPC core, and what drives it, with mypyc, if this machine has what that takes.

Run it (``make install`` does) to have the compiled modules beside their sources, where Python prefers them.
They are the same modules: nothing needs them, and the tests of the core run on both.

Compiled code does not look after the C stack, as Python's interpreter does. So a module belongs here only if
every recursion through it that a peer can bring about has a bound (``rpcshare/rpc/limits.py``), or goes
through a function that is interpreted, as those of a stub are.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path("rpcshare/rpc")
MODULES = (
    "codec",
    "decoding",
    "direct",
    "driver",
    "encoding",
    "exports",
    "frames",
    "imports",
    "integers",
    "local",
    "members",
    "payload",
    "reference",
    "remote",
    "session",
)
# One library, in which they call each other directly, with a small module for each of them that loads it.
LIBRARY = "core"

_BUILD = f"""
from mypyc.build import mypycify
from setuptools import setup

sources = {[str(PACKAGE / f"{module}.py") for module in MODULES]!r}
name = {".".join((*PACKAGE.parts, LIBRARY))!r}
setup(name=name, ext_modules=mypycify(sources, group_name=name), script_args=["-q", "build_ext", "--inplace"])
"""


def compiled(root: Path) -> list[Path]:
    """Return what there is in the checkout ``root`` that was compiled."""
    return sorted(path for suffix in ("so", "pyd") for path in (root / PACKAGE).glob(f"*.{suffix}"))


def is_up_to_date(root: Path) -> bool:
    """Whether the core is compiled as it is now."""
    made = compiled(root)
    changed = max((root / PACKAGE / f"{module}.py").stat().st_mtime for module in MODULES)
    return len(made) == len(MODULES) + 1 and all(path.stat().st_mtime >= changed for path in made)


def compile_core(root: Path, into: Path) -> list[Path]:
    """Compile the core of the checkout ``root``, in a copy within ``into``; return what came of it.

    Raises:
        RuntimeError: this machine cannot; the message has the last line of what was said.
    """
    shutil.copytree(
        root / PACKAGE.parts[0],
        into / PACKAGE.parts[0],
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    command = [sys.executable, "-c", _BUILD]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["mypyc failed"]
        raise RuntimeError(said[-1])
    return compiled(into)


def main() -> None:
    root = Path(__file__).parents[1]
    if is_up_to_date(root):
        return
    # All or none: each of them counts on the others being of the same make.
    for path in compiled(root):
        path.unlink()
    print("Compiling the RPC core ...", flush=True)
    try:
        with tempfile.TemporaryDirectory() as name:
            for made in compile_core(root, Path(name)):
                shutil.copy(made, root / PACKAGE)
    except RuntimeError as exc:
        print(f"It stays Python, which is slower and otherwise the same: {exc}")


if __name__ == "__main__":
    main()
