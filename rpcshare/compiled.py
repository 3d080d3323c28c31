"""Which core runs: the compiled one, or the same modules in pure Python.

``make install`` compiles some modules (``.packaging/compiling.py``) and puts the results beside their
sources, where Python prefers them, with a record of what they were compiled from. They are used only if all
of them are there, for this version of Python, and were compiled from these very sources: modules that are
half compiled, or older than their sources, would be other than what is read. In that case none of them is
used, and a warning says why. With ``PURE_PYTHON=1`` in the environment none is used either.

:mod:`rpcshare` calls :func:`core` before it imports any other module of its own.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

TYPE_CHECKING = False  # type checkers know it by its name; typing takes long to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal

__all__ = ["PACKAGE", "core", "digest", "extension_modules", "mismatch", "record_path"]

PACKAGE = Path(__file__).parent


def record_path(package: Path) -> Path:
    """Return the file that says what the modules for this version of Python were compiled from.

    It is a JSON object: ``results`` has the size of each extension module, ``sources`` the digest of each
    source, both by their path within the package.
    """
    return package / f"compiled{EXTENSION_SUFFIXES[0].rpartition('.')[0]}.json"


def extension_modules(package: Path) -> dict[str, Path]:
    """Return what this version of Python would import of ``package`` that is compiled, by relative path."""
    return {
        f"{subpackage.name}/{entry.name}": Path(entry.path)
        for subpackage in _subpackages(package)
        for entry in os.scandir(subpackage)
        if entry.name[entry.name.find(".") :] in EXTENSION_SUFFIXES
    }


def _subpackages(package: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(package) as entries:
        yield from (entry for entry in entries if entry.is_dir())


def digest(source: Path) -> str:
    """Return what tells one content of a source from another."""
    import hashlib  # noqa: PLC0415 -- only where there is something compiled

    return hashlib.sha256(source.read_bytes()).hexdigest()


def mismatch(package: Path) -> str | None:
    """Return why the extension modules of ``package`` must not be used; None if they may."""
    import json  # noqa: PLC0415 -- as above

    path = record_path(package)
    try:
        record = json.loads(path.read_bytes())
        sizes, digests = dict(record["results"]), dict(record["sources"])
    except (OSError, ValueError, LookupError, TypeError) as exc:
        return f"no record of what they were compiled from: {path.name}: {_reason(exc)}"
    found = {name: module.stat().st_size for name, module in extension_modules(package).items()}
    if found != sizes:
        wrong = next(name for name in sorted({*found, *sizes}) if found.get(name) != sizes.get(name))
        return f"{wrong} is missing" if wrong not in found else f"{wrong} is of another compilation"
    for name, expected in digests.items():
        try:
            if digest(package / name) != expected:
                return f"{name} has changed since"
        except OSError as exc:
            return f"{name}: {_reason(exc)}"
    return None


def _reason(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__


class _Sources:
    """Finds the sources of modules that are compiled as well, as an entry of ``sys.meta_path``."""

    def __init__(self, sources: Mapping[str, Path]) -> None:
        self._sources = sources

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        del path, target
        source = self._sources.get(fullname)
        return None if source is None else spec_from_file_location(fullname, source)


def _sources_of(modules: Mapping[str, Path]) -> dict[str, Path]:
    found = {}
    for module in modules.values():
        name = module.name.partition(".")[0]
        source = module.with_name(f"{name}.py")
        if source.exists():
            found[f"{__package__}.{module.parent.name}.{name}"] = source
    return found


@functools.cache
def core() -> Literal["compiled", "pure Python"]:
    """Return which core this process runs. The first call decides it, before any of it is imported."""
    modules = extension_modules(PACKAGE)
    wrong = mismatch(PACKAGE) if modules else None
    if modules and wrong is None and os.environ.get("PURE_PYTHON") != "1":
        return "compiled"
    if modules:
        sys.meta_path.insert(0, _Sources(_sources_of(modules)))
    if wrong is not None:
        import logging  # noqa: PLC0415 -- where all is well, nothing is told

        logging.getLogger("rpcshare").warning(
            "the core runs in pure Python, which is slower: its compiled modules do not fit (%s); "
            "`make install` compiles them again",
            wrong,
        )
    return "pure Python"
