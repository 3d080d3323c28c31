"""A real opencode, offline: a scripted provider, and a home of its own.

::

    with Provider(tmp_path / "project") as provider:
        opencode = Opencode(tmp_path, provider, config={"enterprise": {"url": server.url}})
        opencode.run("Say hello [scenario:hello]")
        with opencode.serve() as api:
            session = api.post("/session", {})
            api.post(f"/session/{session['id']}/message", prompt("Edit [scenario:edit]"))
"""

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

__all__ = ["AVAILABLE", "MISSING", "Api", "Opencode", "Provider", "link_in", "prompt", "settle"]

HERE = Path(__file__).parent


def _binary() -> Path | None:
    found = sorted(HERE.glob("node_modules/opencode-*/bin/opencode"))
    return next((path for path in found if "musl" not in path.parts[-3]), None)


BINARY = _binary()

AVAILABLE = BINARY is not None
"""Whether there is an opencode to run."""

MISSING = "needs node, Linux on x64, and tests/opencode/node_modules as `make test` installs them"
"""The reason to skip a test where there is none."""


def prompt(text: str) -> dict[str, Any]:
    """Return a message of the user's, as opencode's HTTP API takes it."""
    return {"parts": [{"type": "text", "text": text}]}


def link_in(text: str, url: str) -> str:
    """Return the one link to a share on the server at ``url`` in what opencode printed."""
    (link,) = {word for word in text.split() if word.startswith(f"{url}/share/")}
    return link


def settle(check: Callable[[], None]) -> None:
    """Return once ``check`` passes; its last failure is the test's."""
    end = time.monotonic() + 20
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


class Provider:
    """The provider of a model whose answers are scripted: see ``fake_llm.mjs``.

    Args:
        project: the directory that its tool calls are about.
    """

    def __init__(self, project: Path) -> None:
        project.mkdir(parents=True, exist_ok=True)
        self.project = project
        self._process = subprocess.Popen(
            ["node", HERE / "fake_llm.mjs"],
            env={**os.environ, "PROJ": str(project)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


class Api:
    """opencode's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: object) -> Any:
        return self._ask("POST", path, body)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=200) as response:
            text = response.read()
        return json.loads(text) if text else None


class Opencode:
    """An opencode with a configuration, and a home that lasts over its runs.

    Args:
        directory: for its home.
        provider: of its only model.
        config: more configuration, such as ``{"plugin": […]}``.
        env: more environment variables.
    """

    def __init__(
        self,
        directory: Path,
        provider: Provider,
        *,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.project = provider.project
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        fake = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": provider.url, "apiKey": "x"},
            "models": {"fake": {"name": "Fake"}},
        }
        self._config = {
            "provider": {"fake": fake},
            "model": "fake/fake",
            "small_model": "fake/fake",
            **(config or {}),
        }
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "OPENCODE_CONFIG_CONTENT": json.dumps(self._config),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            **(env or {}),
        }

    def run(self, *arguments: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        """Run ``opencode run`` to its end."""
        return self.command("run", *arguments, timeout=timeout)

    def command(self, *arguments: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        """Run ``opencode`` with any arguments to its end."""
        return subprocess.run(
            [*self._binary(), *arguments],
            cwd=self.project,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def node(self, script: Path, *arguments: str, timeout: float = 100) -> str:
        """Run a script that runs ``opencode``, and return what it printed."""
        binary_first = f"{Path(self._binary()[0]).parent}:{self._env['PATH']}"
        finished = subprocess.run(
            ["node", script, *arguments],
            cwd=self.project,
            env={**self._env, "PATH": binary_first},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=True,
        )
        return finished.stdout

    @contextmanager
    def serve(self) -> Iterator[Api]:
        """Run ``opencode serve`` on a free port; it is stopped at the end."""
        with subprocess.Popen(
            [*self._binary(), "serve", "--port", "0"],
            cwd=self.project,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield Api(_address(process))
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    @staticmethod
    def _binary() -> Sequence[str]:
        assert BINARY is not None, MISSING
        return [str(BINARY)]


def _address(process: subprocess.Popen[str]) -> str:
    """Return where a server listens, once it says so; what else it prints is read and forgotten."""
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.search(r"listening on (http://\S+)", line):
                found.put(match[1])

    threading.Thread(target=read, daemon=True).start()
    return found.get(timeout=200)
