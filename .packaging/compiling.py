"""Compiles the value codec of the RPC core with mypyc, if this machine has what that takes.

Run it (``make install`` does) to have the compiled modules beside their sources, where Python prefers them.
They are the same modules: nothing needs them, and the tests of the core run on both.

Only modules in which every recursion has a bound of its own are compiled: compiled code does not look after
the C stack, as Python's interpreter does.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

MODULES = ("rpcshare/rpc/encoding.py", "rpcshare/rpc/decoding.py")


def compiled(root: Path, module: str) -> list[Path]:
    """Return what there is beside ``module`` that was compiled from it."""
    source = root / module
    return sorted(
        path
        for name in (source.stem, f"{source.stem}__mypyc")
        for suffix in ("so", "pyd")
        for path in source.parent.glob(f"{name}.*.{suffix}")
    )


def is_up_to_date(root: Path, module: str) -> bool:
    """Whether ``module`` is compiled as it is now."""
    made = compiled(root, module)
    changed = (root / module).stat().st_mtime
    return bool(made) and all(path.stat().st_mtime >= changed for path in made)


def compile_modules(root: Path, modules: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Compile ``modules`` and yield what came of it, by the place where it belongs.

    It is done in a copy: mypyc leaves much behind. Each module is compiled alone, or they would share a
    library outside the package.

    Raises:
        RuntimeError: this machine cannot; the message has the last line of what was said.
    """
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copytree(root / "rpcshare", copy / "rpcshare", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
        for module in modules:
            command = [sys.executable, "-m", "mypyc", module]
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines() or ["mypyc failed"]
                raise RuntimeError(said[-1])
            for made in compiled(copy, module):
                yield str(made.relative_to(copy)), made


def main() -> None:
    root = Path(__file__).parents[1]
    modules = tuple(module for module in MODULES if not is_up_to_date(root, module))
    for module in modules:
        for path in compiled(root, module):
            path.unlink()
    if not modules:
        return
    print("Compiling the value codec ...", flush=True)
    try:
        for place, made in compile_modules(root, modules):
            shutil.copy(made, root / place)
    except RuntimeError as exc:
        print(f"It stays Python, which is slower and otherwise the same: {exc}")


if __name__ == "__main__":
    main()
