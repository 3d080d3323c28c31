"""Whoever waits for a long step of the installation sees that it goes on, and what went wrong."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkouts import ROOT

SCRIPT = ROOT / ".packaging" / "progress.py"
PYTHON = sys.executable


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    loaded = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(loaded["run"].__globals__, "EVERY", 0.05)
    return loaded


def wait_for(marker: Path) -> list[str]:
    code = "import pathlib, sys, time\nprint('Fetching something', flush=True)\n"
    return [PYTHON, "-c", f"{code}while not pathlib.Path({str(marker)!r}).exists(): time.sleep(0.01)"]


def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_shows_how_long_it_has_taken_and_what_was_said_last(
    progress: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, printed = tmp_path / "marker", []

    def heard(line: str, **_options: object) -> None:
        printed.append(line)
        if line.endswith("Fetching something"):
            marker.touch()

    monkeypatch.setitem(progress["run"].__globals__, "print", heard)
    assert progress["run"]("A step", tmp_path / "log", wait_for(marker), quotes_log=True) == 0
    assert printed[0] == "A step ..."
    assert any(line.endswith(" s  Fetching something") for line in printed)


def test_a_step_that_succeeds_says_no_more(tmp_path: Path) -> None:
    finished = shown("A step", str(tmp_path / "new" / "log"), PYTHON, "-c", "print('much')")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "A step ...\n", "")
    assert (tmp_path / "new" / "log").read_text() == "much\n"


def test_of_a_step_that_fails_the_last_lines_are_shown_and_where_the_others_are(tmp_path: Path) -> None:
    code = "import sys\nfor n in range(50): print('line', n)\nsys.exit('it is broken')"
    finished = shown("A step", str(tmp_path / "log"), PYTHON, "-c", code)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-2:] == [
        "  it is broken",
        f"A step: failed (all that was said: {tmp_path / 'log'})",
    ]
    assert "line 49" in finished.stderr
    assert "line 1\n" not in finished.stderr


def test_a_command_that_there_is_not_is_said_in_a_line(tmp_path: Path) -> None:
    finished = shown("A step", str(tmp_path / "log"), "/nowhere/command")
    assert finished.returncode == 1
    assert finished.stderr == "A step: cannot run /nowhere/command: No such file or directory\n"
