"""What a program says of its core is what it runs, whatever lies beside the sources."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkouts import EXTENSION, Checkout

from rpcshare.compiled import core
from rpcshare.rpc import session
from support.running_server import RPCSHARE

SHOW = "import rpcshare.compiled, rpcshare.rpc.session as s; print(rpcshare.compiled.core(), s.__file__)"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def put_compiled(checkout: Checkout, suffix: str = EXTENSION) -> Path:
    """Put a file beside its source that no Python can load: whoever imports it fails."""
    path = checkout.root / "rpcshare" / "rpc" / f"session{suffix}"
    path.write_bytes(b"no module")
    return path


def put_record(checkout: Checkout, results: dict[str, int], sources: dict[str, str]) -> None:
    path = checkout.root / "rpcshare" / f"compiled{EXTENSION.rpartition('.')[0]}.json"
    path.write_text(json.dumps({"results": results, "sources": sources}))


def shown_of(checkout: Checkout, **variables: str) -> tuple[str, str]:
    finished = checkout.python(SHOW, **variables)
    assert finished.returncode == 0, finished.stderr
    source = checkout.root / "rpcshare" / "rpc" / "session.py"
    assert finished.stdout.strip().endswith(str(source))
    return finished.stdout.removesuffix(f" {source}\n"), finished.stderr


def test_it_says_what_is_imported() -> None:
    assert core() == ("pure Python" if str(session.__file__).endswith(".py") else "compiled")


def test_the_command_says_it_with_the_version() -> None:
    for command in ([RPCSHARE], [sys.executable, "-m", "rpcshare"]):
        finished = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert finished.stdout == f"rpcshare, version 0.1.0 ({core()})\n"


def test_sources_alone_are_pure_python_without_a_word(checkout: Checkout) -> None:
    assert shown_of(checkout) == ("pure Python", "")


def test_what_is_compiled_for_another_python_is_no_matter(checkout: Checkout) -> None:
    put_compiled(checkout, ".cpython-39-x86_64-linux-gnu.so")
    assert shown_of(checkout) == ("pure Python", "")


@pytest.mark.parametrize("suffix", [EXTENSION, ".so"])
def test_modules_without_a_record_are_not_used(checkout: Checkout, suffix: str) -> None:
    put_compiled(checkout, suffix)
    said, warned = shown_of(checkout)
    assert said == "pure Python"
    assert warned.startswith("the core runs in pure Python")
    assert "no record" in warned
    assert warned.count("\n") == 1


def test_a_source_that_has_changed_since_is_what_runs(checkout: Checkout) -> None:
    path = put_compiled(checkout)
    put_record(checkout, {f"rpc/{path.name}": path.stat().st_size}, {"rpc/session.py": "another digest"})
    said, warned = shown_of(checkout)
    assert said == "pure Python"
    assert "(rpc/session.py has changed since)" in warned


def test_no_module_is_used_where_one_is_missing(checkout: Checkout) -> None:
    path = put_compiled(checkout)
    put_record(checkout, {f"rpc/{path.name}": path.stat().st_size, f"rpc/codec{EXTENSION}": 1}, {})
    said, warned = shown_of(checkout)
    assert said == "pure Python"
    assert f"(rpc/codec{EXTENSION} is missing)" in warned


def test_a_module_of_another_compilation_is_not_used(checkout: Checkout) -> None:
    path = put_compiled(checkout)
    put_record(checkout, {f"rpc/{path.name}": path.stat().st_size + 1}, {})
    said, warned = shown_of(checkout)
    assert said == "pure Python"
    assert "is of another compilation)" in warned


def test_a_record_that_cannot_be_read_is_none(checkout: Checkout) -> None:
    put_compiled(checkout)
    put_record(checkout, {}, {})
    record = next(checkout.root.glob("rpcshare/compiled.*.json"))
    for content in ("", "[]", '{"results": 5}'):
        record.write_text(content)
        said, warned = shown_of(checkout)
        assert (said, "no record" in warned) == ("pure Python", True)


def test_the_sources_are_taken_where_that_is_asked_for(checkout: Checkout) -> None:
    path = put_compiled(checkout)
    put_record(checkout, {f"rpc/{path.name}": path.stat().st_size}, {})
    assert shown_of(checkout, PURE_PYTHON="1") == ("pure Python", "")
