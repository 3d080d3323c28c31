"""A real server in a process of its own, for tests that need one from the outside.

The fixture ``server`` gives one that is shared by all tests. A test that stops or kills it starts its own::

    with RunningServer(tmp_path / "data") as server:
        server.kill()
        server.restart()
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

__all__ = ["READY", "RPCSHARE", "RunningServer", "bare_environment"]

RPCSHARE = str(Path(sys.executable).with_name("rpcshare"))
"""The command, as installed."""

READY = re.compile(r"rpcshare is listening on (\S+) \((compiled|pure Python)\)$")

# A stop takes at most 10 s; what is not over then is a failure.
STOP_TIMEOUT = 12.0


def bare_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with ``variables``, and with no other setting of rpcshare."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RPCSHARE_")}
    return {**kept, **variables}


class RunningServer:
    """``rpcshare serve`` on a free port of the loopback, ready when the constructor returns.

    Args:
        data_dir: where it keeps its shares and secrets.
        options: more options, such as ``"--anonymous-create"``.
        env: more environment variables.

    Attributes:
        url: where it listens.
        token: its admin token.
        data_dir: as given.
        log: the file that has what it wrote to standard error, over all restarts.
        process: the one that runs, or ran last.

    Raises:
        RuntimeError: it ended before it was ready; the message has what it wrote.
    """

    command: Sequence[str] = (RPCSHARE,)
    """What is run; a subclass may have another server."""

    def __init__(self, data_dir: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        self._options = options
        # All tests come from one address, and many of them are about what is refused.
        unlimited = {"RPCSHARE_MAX_CREATES": "0", "RPCSHARE_MAX_FAILED_AUTHENTICATIONS": "0"}
        self._env = bare_environment(**{**unlimited, **(env or {})})
        self.process, self.url = self._start(port=0)
        self.token = (data_dir / "admin-token").read_text().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def port(self) -> int:
        """Where it listens; a restart keeps it."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def stop(self) -> int:
        """End it as an operator does, with SIGTERM, and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a chance to write anything more."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it if it runs, and start it again: on the same port, with the same data."""
        self.stop()
        self.process, self.url = self._start(self.port)

    def _start(self, port: int) -> tuple[subprocess.Popen[str], str]:
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [*self.command, "serve", f"--port={port}", f"--data-dir={self.data_dir}", *self._options],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = READY.match(line)
        if ready is None:
            process.kill()
            process.wait()
            process.stdout.close()
            raise RuntimeError(f"the server did not start: {line}{self.log.read_text()}")
        return process, ready[1]

    def _end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)  # of a process that has ended already, this does nothing
        try:
            return self.process.wait(STOP_TIMEOUT)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
