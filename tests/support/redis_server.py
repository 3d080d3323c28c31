"""A Redis or Valkey server of the tests' own, in a process that they may stop and kill."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from support.narrowing import not_none

__all__ = ["RedisServer"]


class RedisServer:
    """Runs between ``with`` and its end, on a port of the loopback that stays the same."""

    def __init__(self, directory: Path, *options: str) -> None:
        """Skip the test where there is no server to be run."""
        self._command = shutil.which("redis-server") or shutil.which("valkey-server")
        if self._command is None:
            pytest.skip("neither redis-server nor valkey-server is installed")
        self._directory = directory
        self._options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *self._options]
        self._process = subprocess.Popen(
            [not_none(self._command), *options], cwd=self._directory, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < until
                assert self._process.poll() is None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it at once; no error if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it keep its connections and do nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
