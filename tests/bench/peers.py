"""The servers that are compared, and the load that npm's client puts on them: each a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from running_server import RunningServer

NODE = Path(__file__).parents[1] / "node"
TICKS = os.sysconf("SC_CLK_TCK")


class Peer:
    """A server under load."""

    def __init__(self, name: str, url: str, token: str, pid: int) -> None:
        self.name = name
        self.url = url
        self.token = token
        self._pid = pid

    def cpu(self) -> float:
        """Return the seconds of CPU that the process has used, in user and system mode."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, what: str = "VmRSS") -> float:
        """Return how many bytes of memory it has, or with VmHWM: has had at most."""
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"the system does not tell {what}")


class Load:
    """npm's client, driven line by line (see tests/node/bench_load.mjs)."""

    def __init__(self, peer: Peer) -> None:
        self._process = subprocess.Popen(
            ["node", "bench_load.mjs", peer.url.replace("http", "ws", 1) + "/rpc", peer.token],
            cwd=NODE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def __call__(self, *command: object) -> Any:
        """Carry out a command and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the load ended in {command[0]}")
        return json.loads(answer)


@contextmanager
def ours(folder: Path) -> Iterator[Peer]:
    """Run our server."""
    with RunningServer(folder / "ours", "--max-share-size=0") as server:
        yield Peer("ours", server.url, server.token, server.process.pid)


@contextmanager
def node(folder: Path) -> Iterator[Peer]:
    """Run the server made with npm's capnweb."""
    process = subprocess.Popen(
        ["node", "bench_server.mjs", folder / "node"], cwd=NODE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            sys.exit("the Node server did not start; is tests/node installed?")
        yield Peer("node", f"http://127.0.0.1:{port}", "bench-token", process.pid)
    finally:
        process.kill()
        process.communicate()
