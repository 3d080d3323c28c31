"""The step of ``make install`` that compiles the core: it succeeds, says why it cannot, or fails."""

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkouts import EXTENSION, Checkout

# Where the type checker looks for settings, in the folder that it runs in and those above it.
SETTINGS = {"pyproject.toml", "mypy.ini", ".mypy.ini", "setup.cfg"}

# What stands in for the compiler: a module that the step imports in a process of its own.
FAKE_COMPILER = """
import sys

def mypycify(sources, group_name):
    print("note: something else")
    print("rpcshare/rpc/codec.py:1: error: it is broken")
    print("error: command failed", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def compiling(checkout: Checkout) -> dict[str, Any]:
    loaded = runpy.run_path(str(checkout.root / ".packaging" / "compiling.py"))
    missing = loaded["what_is_missing"]()
    if missing is not None:
        pytest.skip(missing)
    return loaded


def put_fake_compiler(folder: Path, source: str) -> str:
    package = folder / "fake" / "mypyc"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "build.py").write_text(source)
    return str(package.parent)


def compiled(checkout: Checkout) -> list[str]:
    return [path.name for path in checkout.root.glob(f"rpcshare/*/*{EXTENSION}")]


@pytest.mark.rare
@pytest.mark.timeout(900)  # half a minute of CPU
def test_it_needs_no_settings_but_the_projects_own(
    checkout: Checkout, compiling: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in tmp_path.parents:
        assert not SETTINGS & {path.name for path in folder.iterdir()}
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))
    # One small library of them: it is checked with all that it imports, as the large one is.
    checks = [each for each in compiling["LIBRARIES"] if each.name == "checks"]
    monkeypatch.setitem(compiling["compile_core"].__globals__, "LIBRARIES", checks)

    into = tmp_path / "bare"
    results = compiling["compile_core"](checkout.root, into, tmp_path / "log")
    for path in results:
        shutil.copy(into / path, checkout.root / path)

    shown = checkout.python(
        "import rpcshare.compiled, rpcshare.shares.batch_validation as c; "
        "print(rpcshare.compiled.core(), c.__file__)"
    )
    assert shown.stdout == f"compiled {checkout.root}/rpcshare/shares/batch_validation{EXTENSION}\n"
    assert shown.stderr == ""
    source = checkout.root / "rpcshare" / "jsontext.py"  # which it imports
    source.write_text(f"{source.read_text()}\n")
    assert "jsontext.py has changed" in checkout.python("import rpcshare").stderr


@pytest.mark.usefixtures("compiling")
def test_a_compiler_that_fails_fails_it(checkout: Checkout, tmp_path: Path) -> None:
    finished = checkout.compile(PYTHONPATH=put_fake_compiler(tmp_path, FAKE_COMPILER))
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert "rpcshare/rpc/codec.py:1: error: it is broken" in finished.stderr
    assert "build/compile.log" in finished.stderr
    assert "error: command failed" in (checkout.root / "build" / "compile.log").read_text()
    assert compiled(checkout) == []


@pytest.mark.usefixtures("compiling")
def test_a_compiler_that_is_killed_fails_it(checkout: Checkout, tmp_path: Path) -> None:
    killed = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    finished = checkout.compile(PYTHONPATH=put_fake_compiler(tmp_path, killed))
    assert finished.returncode == 1
    assert "SIGKILL" in finished.stderr


def test_without_a_compiler_it_says_so_and_goes_on(checkout: Checkout, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    finished = checkout.compile(PATH=str(empty), CC="cc")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("no C compiler (cc) found: the core stays pure Python")
    assert finished.stdout.count("\n") == 1


def test_a_compiler_that_is_asked_for_is_the_only_one_that_counts(checkout: Checkout) -> None:
    finished = checkout.compile(CC="/nowhere/cc")
    assert finished.returncode == 0
    assert finished.stdout.startswith("no C compiler (/nowhere/cc) found:")


def test_it_is_left_out_where_that_is_asked_for(checkout: Checkout) -> None:
    finished = checkout.compile(RPCSHARE_COMPILE="0")
    assert finished.returncode == 0
    assert finished.stdout.startswith("RPCSHARE_COMPILE is 0: the core stays pure Python")


def test_what_no_longer_fits_is_removed_even_if_nothing_takes_its_place(checkout: Checkout) -> None:
    stale = checkout.root / "rpcshare" / "rpc" / f"session{EXTENSION}"
    stale.write_bytes(b"stale")
    other = stale.with_name("session.cpython-39-x86_64-linux-gnu.so")
    other.write_bytes(b"another Python's")
    checkout.compile(CC="/nowhere/cc")
    assert not stale.exists()
    assert other.exists()
