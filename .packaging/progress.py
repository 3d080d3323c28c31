"""Runs a command that takes minutes, and shows that it goes on: a short line every ten seconds.

What the command says goes to a file. Of a command that fails the last lines are shown, with the file's name.

    python3 .packaging/progress.py LABEL LOG COMMAND…
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

EVERY = 10.0  # seconds
_WIDTH = 100
_LAST = 15  # lines that are shown of what has failed


def run(
    label: str,
    log: Path,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    quotes_log: bool = False,
) -> int:
    """Run ``command``, with its output in ``log``, and return its exit status, negative for a signal.

    Every ten seconds it prints how long that has taken, with what the command said last if it ``quotes_log``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # What a program in Python prints is to be in the log before the error that it ends with.
    env = {"PYTHONUNBUFFERED": "1", **(os.environ if env is None else env)}
    print(f"{label} ...", flush=True)
    began_at = monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=env
        ) as process,
    ):
        try:
            while True:
                try:
                    return process.wait(EVERY)
                except subprocess.TimeoutExpired:
                    said = f"  {_last_line(log)}" if quotes_log else ""
                    print(f"  {monotonic() - began_at:.0f} s{said}", flush=True)
        except BaseException:
            process.kill()
            raise


def lines(log: Path) -> list[str]:
    """Return the lines of ``log`` that have something in them."""
    text = log.read_text(errors="replace").replace("\r", "\n")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _last_line(log: Path) -> str:
    said = lines(log)
    if not said:
        return ""
    return said[-1] if len(said[-1]) <= _WIDTH else f"{said[-1][: _WIDTH - 1]}…"


def main() -> int:
    label, log, *command = sys.argv[1:]
    try:
        status = run(label, Path(log), command, quotes_log=True)
    except OSError as exc:
        sys.exit(f"{label}: cannot run {command[0]}: {exc.strerror or exc}")
    if status:
        for line in lines(Path(log))[-_LAST:]:
            print(f"  {line}", file=sys.stderr)
        print(f"{label}: failed (all that was said: {log})", file=sys.stderr)
    return 1 if status else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
