"""The servers that are compared, and the clients that put load on them: each a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from shutil import which
from typing import Any, Self

from support.running_server import RunningServer

__all__ = ["NODE_CLIENT", "PYTHON_CLIENT", "Load", "Peer", "Start", "ours", "runtimes"]

TESTS = Path(__file__).parents[1]
NODE = TESTS / "node"
RUNTIMES = TESTS / "bench" / "runtimes" / "node_modules" / ".bin"
NODE_CLIENT = ("node", str(NODE / "bench_load.mjs"))
PYTHON_CLIENT = (sys.executable, str(TESTS / "bench" / "python_load.py"))
TICKS = os.sysconf("SC_CLK_TCK")

_numbers = count()


class Process:
    """A process, as the operating system sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """Return the seconds of CPU that the process has used, in user and system mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cpu_of_all(self) -> float:
        """Return the seconds of CPU of the process and of those that it has started and that still run."""
        found = subprocess.run(["pgrep", "-P", str(self.pid)], check=False, capture_output=True, text=True)
        return self.cpu() + sum(Process(int(pid)).cpu_of_all() for pid in found.stdout.split())

    def memory(self, what: str = "VmRSS") -> float:
        """Return how many bytes of memory it has, or with VmHWM: has had at most."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"the system does not tell {what}")


class Peer(Process):
    """A server under load."""

    def __init__(self, name: str, url: str, token: str, pid: int) -> None:
        super().__init__(pid)
        self.name = name
        self.url = url
        self.token = token


Start = Callable[[Path], AbstractContextManager[Peer]]


class Load(Process):
    """A client, driven line by line (see tests/node/bench_load.mjs)."""

    def __init__(self, peer: Peer, client: tuple[str, ...] = NODE_CLIENT) -> None:
        self._process = subprocess.Popen(
            [*client, peer.url.replace("http", "ws", 1) + "/rpc", peer.token],
            cwd=NODE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        super().__init__(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def __call__(self, *command: object) -> Any:
        """Carry out a command and return its answer."""
        self.begin(*command)
        return self.end()

    def begin(self, *command: object) -> None:
        """Begin to carry out a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """Return the answer to the command that has begun."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the load has ended")
        return json.loads(answer)


@contextmanager
def ours(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """Run our server with ``options``, and with its data in a new directory in ``folder``."""
    data = folder / f"ours{next(_numbers)}"
    with RunningServer(data, "--max-share-size=0", *options, env=env) as server:
        yield Peer("ours", server.url, server.token, server.process.pid)


def runtimes() -> dict[str, Start]:
    """Return what starts npm's capnweb on each runtime that is installed here, by the runtime's name."""
    commands = {
        "node": ("node", "bench_node.mjs"),
        "bun": (str(RUNTIMES / "bun"), "bench_bun.mjs"),
        "workerd": (str(RUNTIMES / "workerd"), "serve", "bench_workerd.capnp", "--control-fd=1"),
    }
    return {name: partial(_runtime, name, command) for name, command in commands.items() if which(command[0])}


@contextmanager
def _runtime(name: str, command: tuple[str, ...], folder: Path) -> Iterator[Peer]:
    """Run a server made with npm's capnweb, with its data in a new directory in ``folder``."""
    data = folder / f"{name}{next(_numbers)}"
    data.mkdir()
    where = f"--directory-path=disk={data}" if name == "workerd" else str(data)
    process = subprocess.Popen([*command, where], cwd=NODE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            sys.exit(f"the server on {name} did not start; is tests/node installed?")
        port = json.loads(line)["port"] if line.startswith("{") else line
        yield Peer(name, f"http://127.0.0.1:{port}", "bench-token", process.pid)
    finally:
        process.kill()
        process.communicate()
