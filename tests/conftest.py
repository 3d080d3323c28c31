"""Fixtures for every test."""

import os
import runpy
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from running_server import RunningServer

ROOT = Path(__file__).parents[1]
compiling = runpy.run_path(str(ROOT / ".packaging" / "compiling.py"))
COMPILED = {
    ".".join(source.with_suffix("").parts): ROOT / source
    for library in compiling["LIBRARIES"]
    for source in library.sources
}
PURE = os.environ.get("PURE_PYTHON") == "1"


class PurePython(MetaPathFinder):
    """Finds the sources of modules that are compiled as well."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_file_location(name, COMPILED[name]) if name in COMPILED else None


if PURE:
    sys.meta_path.insert(0, PurePython())


def pytest_configure() -> None:
    for library in () if PURE else compiling["LIBRARIES"]:
        if compiling["compiled"](ROOT, library) and not compiling["is_up_to_date"](ROOT, library):
            stale = f"what is compiled of {library.package} is older than its source: run `make install`"
            pytest.exit(stale, returncode=4)


def pytest_report_header() -> str:
    from rpcshare.rpc import session

    compiled = not str(session.__file__).endswith(".py")
    return f"RPC core: {'compiled' if compiled else 'pure Python'}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests, which keep apart by session id. It is not to be stopped."""
    with RunningServer(tmp_path_factory.mktemp("server") / "data") as server:
        yield server
