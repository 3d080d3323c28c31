"""A fork of opencode under Bun, as much of it as sharing needs, with one of three ways to share."""

import functools
import json
import os
import queue
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.npm_packages import BUN, CLIENTS, NPM, built, run_in
from support.running_server import bare_environment

__all__ = ["CLIENTS_OF_FORKS", "FORK", "MISSING", "Fork", "ForkError", "is_available", "packed", "project"]

FORK = Path(__file__).parents[1] / "fork"
CLIENTS_OF_FORKS = ("http", "websocket", "ours")
MISSING = "needs Bun, and the npm packages of clients/ and tests/fork as `make test` installs them"
ANSWER_TIMEOUT = 40.0  # seconds


def is_available() -> bool:
    return BUN.exists() and NPM is not None and (FORK / "node_modules" / "drizzle-orm").is_dir()


@functools.cache
def packed(package: str) -> Path:
    """Return the tarball of a package in clients/, as npm would publish it."""
    assert NPM is not None
    directory = built() / package if package != "messagepack" else CLIENTS / package
    target = CLIENTS / "node_modules" / ".packed"
    target.mkdir(exist_ok=True)
    command = ["pack", "--silent", "--ignore-scripts", "--pack-destination", str(target)]
    name = run_in(directory, NPM, *command).split()[-1]
    return target / name


def project(directory: Path) -> Path:
    """Make the fork in ``directory``, with our packages as they are in their tarballs, and return it.

    The fork pins capnweb 0.4.0; our client brings its own.
    """
    shutil.copytree(FORK / "opencode", directory / "opencode")
    shutil.copy(FORK / "fork.ts", directory)
    shutil.copy(FORK / "bun.d.ts", directory)
    wiring = FORK.parents[1] / "examples" / "opencode_share_next.ts"
    shutil.copy(wiring, directory / "opencode" / "share" / "share-next.ts")
    settings = json.loads((FORK / "tsconfig.json").read_text())
    settings["compilerOptions"]["typeRoots"] = [str(CLIENTS / "node_modules" / "@types")]
    (directory / "tsconfig.json").write_text(json.dumps(settings))
    modules = directory / "node_modules"
    modules.mkdir()
    for name in ("capnweb", "drizzle-orm"):
        (modules / name).symlink_to(FORK / "node_modules" / name)
    for package in ("types", "share-next"):
        with tarfile.open(packed(package)) as tarball:
            tarball.extractall(modules / "@rpcshare", filter="data")
        (modules / "@rpcshare" / "package").rename(modules / "@rpcshare" / package)
    own = modules / "@rpcshare" / "share-next" / "node_modules"
    own.mkdir()
    for name in ("capnweb", "ws"):
        (own / name).symlink_to(CLIENTS / "node_modules" / name)
    return directory


class ForkError(Exception):
    """What the fork was told to do failed; the message is its own."""


class Fork:
    """A process of the fork. Its database outlives it."""

    def __init__(self, project: Path, client: str, database: Path, url: str, key: str, **env: str) -> None:
        settings = {
            "FORK_DATABASE": str(database),
            "FORK_URL": f"{url}/k/{key}" if client == "http" else url,  # its HTTP sends no header
            "OPENCODE_SHARE_RPC_KEY": key,
            **env,
        }
        self._log = database.with_suffix(".log")
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [BUN, "fork.ts", client],
                cwd=project,
                env=bare_environment(**settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._answer() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def __getattr__(self, command: str) -> Any:
        return functools.partial(self._do, command)

    @property
    def log(self) -> str:
        """What it has logged, over all processes with this database."""
        return self._log.read_text()

    def exit(self) -> None:
        """Have it dispose of what it has, and exit, as opencode does."""
        self._send("exit")
        self._process.wait(ANSWER_TIMEOUT)
        self._close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join(ANSWER_TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _do(self, command: str, *arguments: object) -> Any:
        self._send(command, *arguments)
        answer = self._answer()
        if "error" in answer:
            raise ForkError(answer["error"])
        return answer["result"]

    def _send(self, *line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + os.linesep)
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)

    def _answer(self) -> Any:
        try:
            return json.loads(self._answers.get(timeout=ANSWER_TIMEOUT))
        except queue.Empty:
            raise AssertionError(f"the fork does not answer: {self.log}") from None
