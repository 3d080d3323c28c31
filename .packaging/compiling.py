"""Compiles the RPC core, what drives it, and what handles the items of syncs, with mypyc; some are in C.

Run it (``make install`` does) to have the compiled modules beside their sources, where Python prefers them.
They are the same modules, and the tests of the core run on both. Where there is no C compiler, it says so and
succeeds; where there is one, it fails if it cannot compile. ``RPCSHARE_COMPILE=0`` has it leave the core in
pure Python. ``rpcshare/compiled.py`` decides which of the two a program runs.

Compiled code does not look after the C stack, as Python's interpreter does. So a module belongs here only if
every recursion through it that a peer can bring about has a bound (``rpcshare/rpc/limits.py``), or goes
through a function that is interpreted, as those of a stub are. Nor does one that has functions within a
function which call each other: compiled, they stay until the garbage collector looks, with all they hold.
"""

import ast
import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import progress


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
    "callback_connection",
    "codec",
    "counted_calls",
    "dates",
    "decoding",
    "driver",
    "encoding",
    "exports",
    "fifo",
    "frames",
    "imports",
    "integers",
    "local_references",
    "members",
    "memory_budget",
    "messagepack",
    "payload",
    "preencoded",
    "promises",
    "read_coalescing",
    "reference",
    "remote",
    "session",
)
_SYNCS = (
    "batch_validation",
    "content",
    "entry_text",
    "items",
    "pending_items",
    "redaction",
)
LIBRARIES = (
    Library(Path("rpcshare/rpc"), "core", _CORE),
    Library(Path("rpcshare/shares"), "syncs", _SYNCS),
)

# Modules that are written in C, with one in Python beside each that does the same.
IN_C = (
    Path("rpcshare/rpc/argument_text.c"),
    Path("rpcshare/rpc/short_messages.c"),
    Path("rpcshare/shares/batch_text.c"),
)
HEADERS = (Path("rpcshare/json_scan.h"),)

_BUILD = """
import sys
from pathlib import Path
from mypyc import build
from setuptools import setup

# What the others are like matters to `make lint`: packages that they want may be missing where this runs.
options = ["--follow-imports=silent"]
name, *sources = sys.argv[1:]
modules = build.mypycify([*options, *sources], group_name=name)

# An exception that reaches compiled code in an await is passed on by throw() with three arguments, of which
# Python 3.12 and newer warn. Where warnings are errors, the warning takes the place of the exception.
# mypyc's issue 1214; once that is mended, this says so.
with_three = "PyObject_CallFunctionObjArgs(_m, type, value, traceback, NULL)"
with_one = "PyObject_CallOneArg(_m, value)"
runtime = Path(build.include_dir(), "misc_ops.c").read_text()
if runtime.count(with_three) != 1:
    sys.exit("error: mypyc's misc_ops.c no longer calls throw() as .packaging/compiling.py expects")
own = Path("build", "runtime")
own.mkdir(parents=True, exist_ok=True)
(own / "misc_ops.c").write_text(runtime.replace(with_three, with_one))
for module in modules:
    module.include_dirs.insert(0, str(own))

setup(name=name, ext_modules=modules, script_args=["-q", "build_ext", "--inplace"])
"""

_BUILD_IN_C = """
import sys
from setuptools import Extension, setup

name, source = sys.argv[1:]
options = [] if sys.platform == "win32" else ["-Wall", "-Wextra", "-Werror=implicit-function-declaration"]
modules = [Extension(name, [source], extra_compile_args=options)]
setup(name=name, ext_modules=modules, script_args=["-q", "build_ext", "--inplace"])
"""

_MYPY_TABLES = re.compile(r"^\[+tool\.mypy\b.*?(?=^\[(?!\[?tool\.mypy\b)|\Z)", re.MULTILINE | re.DOTALL)

LOG = Path("build/compile.log")


class CompileError(Exception):
    """This machine has a C compiler, and cannot compile; the message names the cause."""


def what_is_missing() -> str | None:
    """Return what this machine lacks to compile anything for this Python; None if nothing is missing."""
    if _compiler() is None:
        return f"no C compiler ({_usual_compiler()}) found"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return f"no C headers of this Python ({header}; Debian has them in python3-dev) found"
    return None


def _usual_compiler() -> str:
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shlex.split(command)[0]


def _compiler() -> str | None:
    """Return the compiler that there is: the one asked for, this Python's own, or the system's."""
    asked_for = os.environ.get("CC")
    names = [_usual_compiler()] if asked_for else [_usual_compiler(), "cc", "gcc", "clang"]
    return next((name for name in names if shutil.which(name)), None)


def _environment() -> dict[str, str]:
    compiler = _compiler()
    if compiler is None or compiler == _usual_compiler():
        return dict(os.environ)
    return {**os.environ, "CC": compiler}


def is_up_to_date(root: Path) -> bool:
    """Whether all libraries are compiled for this Python as the checkout ``root`` has them now."""
    which = _which_core(root)
    try:
        of = json.loads(which["record_path"](root / "rpcshare").read_bytes())["of"]
        return of == _made_of() and which["mismatch"](root / "rpcshare") is None
    except (OSError, ValueError, LookupError, PackageNotFoundError):
        return False


def compile_core(root: Path, into: Path, log: Path) -> list[Path]:
    """Compile all libraries of the checkout ``root``, in a copy within ``into``.

    Returns:
        what a package needs of it, as paths within ``into``: the modules, and the record of them as the last.

    Raises:
        CompileError: it cannot be done; ``log`` has all that was said.
    """
    shutil.copytree(
        root / "rpcshare",
        into / "rpcshare",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "compiled.*.json", "__pycache__"),
    )
    # mypyc reads the type checker's settings from the folder that it runs in: without them, an import of a
    # package that has no types is an error. The rest of the file would be setuptools' to understand.
    tables = _MYPY_TABLES.findall((root / "pyproject.toml").read_text("utf-8"))
    (into / "pyproject.toml").write_text("".join(tables))
    log.unlink(missing_ok=True)
    for library in LIBRARIES:
        name = ".".join((*library.package.parts, library.name))
        command = [sys.executable, "-c", _BUILD, name, *map(str, library.sources)]
        status = progress.run(f"Compiling {library.package}", log, command, cwd=into, env=_environment())
        if status:
            raise CompileError(_cause(log, status))
    for source in IN_C:
        name = ".".join(source.with_suffix("").parts)
        command = [sys.executable, "-c", _BUILD_IN_C, name, str(source)]
        status = progress.run(f"Compiling {source}", log, command, cwd=into, env=_environment())
        if status:
            raise CompileError(_cause(log, status))
    return _recorded(into)


def _cause(log: Path, status: int) -> str:
    """Return the line that says why: the first error, or else the last of what was said."""
    if status < 0:
        return f"the compiler was ended by {signal.Signals(-status).name}"
    said = progress.lines(log)
    errors = (line for line in said if "error:" in line)
    return next(errors, said[-1] if said else f"mypyc ended with status {status}")


def _recorded(into: Path) -> list[Path]:
    """Write the record of what has been compiled within ``into``; return all that has come of it."""
    which = _which_core(into)
    package = into / "rpcshare"
    results = which["extension_modules"](package)
    if {Path(name).name.partition(".")[0] for name in results} != _expected_modules():
        raise CompileError(f"mypyc made other modules than were wanted: {', '.join(sorted(results))}")
    sources = {str(path.relative_to(package)): which["digest"](path) for path in _all_sources(into)}
    sizes = {name: path.stat().st_size for name, path in results.items()}
    record = which["record_path"](package)
    record.write_text(json.dumps({"of": _made_of(), "results": sizes, "sources": sources}, indent=1) + "\n")
    return [path.relative_to(into) for path in (*results.values(), record)]


def _expected_modules() -> set[str]:
    by_mypyc = {name for library in LIBRARIES for name in (*library.modules, f"{library.name}__mypyc")}
    return by_mypyc | {source.stem for source in IN_C}


def _made_of() -> list[str]:
    """Return the compiler, and what it is given and told."""
    sources = [*(source for library in LIBRARIES for source in library.sources), *IN_C]
    told = hashlib.sha256((_BUILD + _BUILD_IN_C).encode()).hexdigest()
    return [f"mypy {version('mypy')}", f"build {told}", *map(str, sources)]


def _all_sources(root: Path) -> list[Path]:
    """Return the modules, and those that they import: constants and types of these are compiled in."""
    found: set[Path] = set()
    waiting = [root / source for library in LIBRARIES for source in library.sources]
    while waiting:
        source = waiting.pop()
        if source not in found:
            found.add(source)
            waiting += _imported(root, source)
    return sorted(found | {root / source for source in (*IN_C, *HEADERS)})


def _imported(root: Path, source: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(source.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        for name in names:
            path = root.joinpath(*name.split(".")).with_suffix(".py")
            if path.exists():
                yield path


def _which_core(root: Path) -> dict[str, Any]:
    """Return the functions of the module by which a program decides, without importing the package."""
    return runpy.run_path(str(root / "rpcshare" / "compiled.py"))


def _remove(root: Path) -> None:
    which = _which_core(root)
    which["record_path"](root / "rpcshare").unlink(missing_ok=True)
    for path in which["extension_modules"](root / "rpcshare").values():
        path.unlink()


def main() -> int:
    root = Path(__file__).parents[1]
    if os.environ.get("RPCSHARE_COMPILE") == "0":
        missing: str | None = "RPCSHARE_COMPILE is 0"
    elif is_up_to_date(root):
        return 0
    else:
        missing = what_is_missing()
    # All or none: each of them counts on the others being of the same make.
    _remove(root)
    if missing is not None:
        print(f"{missing}: the core stays pure Python, which is slower and otherwise the same")
        return 0
    try:
        with tempfile.TemporaryDirectory() as name:
            for path in compile_core(root, Path(name), root / LOG):
                shutil.copy(Path(name, path), root / path)
    except CompileError as exc:
        print(f"the core cannot be compiled: {exc} (all that was said: {LOG})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
