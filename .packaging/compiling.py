"""Compiles the RPC core, what drives it, and the checks of what callers send, with mypyc if it is there.

Run it (``make install`` does) to have the compiled modules beside their sources, where Python prefers them.
They are the same modules: nothing needs them, and the tests of the core run on both.

Compiled code does not look after the C stack, as Python's interpreter does. So a module belongs here only if
every recursion through it that a peer can bring about has a bound (``rpcshare/rpc/limits.py``), or goes
through a function that is interpreted, as those of a stub are. Nor does one that has functions within a
function which call each other: compiled, they stay until the garbage collector looks, with all they hold.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple


class Library(NamedTuple):
    """Modules that call each other directly; for each of them there is a small one that loads the library."""

    package: Path
    name: str
    modules: tuple[str, ...]

    @property
    def sources(self) -> list[Path]:
        """The modules as they are written, within a checkout."""
        return [self.package / f"{module}.py" for module in self.modules]


_CORE = (
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
    "messagepack",
    "payload",
    "reference",
    "remote",
    "session",
)
LIBRARIES = (
    Library(Path("rpcshare/rpc"), "core", _CORE),
    Library(Path("rpcshare/shares"), "checks", ("checking",)),
)

_BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup

name, *sources = sys.argv[1:]
setup(name=name, ext_modules=mypycify(sources, group_name=name), script_args=["-q", "build_ext", "--inplace"])
"""


def compiled(root: Path, library: Library) -> list[Path]:
    """Return what there is in the checkout ``root`` that was compiled of ``library``."""
    return sorted(path for suffix in ("so", "pyd") for path in (root / library.package).glob(f"*.{suffix}"))


def is_up_to_date(root: Path, library: Library) -> bool:
    """Whether ``library`` is compiled as it is now."""
    made = compiled(root, library)
    changed = max((root / source).stat().st_mtime for source in library.sources)
    return len(made) == len(library.modules) + 1 and all(path.stat().st_mtime >= changed for path in made)


def compile_library(root: Path, library: Library, into: Path) -> list[Path]:
    """Compile ``library`` of the checkout ``root``, in a copy within ``into``; return what came of it.

    Raises:
        RuntimeError: this machine cannot; the message has the last line of what was said.
    """
    shutil.copytree(
        root / "rpcshare",
        into / "rpcshare",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    # mypyc reads the type checker's settings from the folder that it runs in: without them, an import of a
    # package that has no types is an error.
    shutil.copy(root / "pyproject.toml", into)
    name = ".".join((*library.package.parts, library.name))
    command = [sys.executable, "-c", _BUILD, name, *map(str, library.sources)]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["mypyc failed"]
        raise RuntimeError(said[-1])
    return compiled(into, library)


def main() -> None:
    root = Path(__file__).parents[1]
    for library in LIBRARIES:
        if is_up_to_date(root, library):
            continue
        # All or none: each of them counts on the others being of the same make.
        for path in compiled(root, library):
            path.unlink()
        print(f"Compiling {library.package} ...", flush=True)
        try:
            with tempfile.TemporaryDirectory() as name:
                for made in compile_library(root, library, Path(name)):
                    shutil.copy(made, root / library.package)
        except RuntimeError as exc:
            print(f"It stays Python, which is slower and otherwise the same: {exc}")


if __name__ == "__main__":
    main()
