"""A certified OpenID provider under Node, and what a browser does with it and with a server."""

import html
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support.running_server import RunningServer

__all__ = [
    "CLIENT_SECRET",
    "NODE",
    "OidcPeer",
    "browser",
    "close_browsers",
    "configured",
    "signed_in",
    "table",
    "told",
    "until",
]

NODE = Path(__file__).parents[1] / "node"

CLIENT_SECRET = "a secret of the client: +/=%"


class OidcPeer:
    """The provider; see ``tests/node/oidc_provider.mjs`` for what it can be told."""

    def __init__(self, algorithm: str = "RS256") -> None:
        self._process = subprocess.Popen(
            ["node", "oidc_provider.mjs"],
            cwd=NODE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"PATH": os.environ["PATH"], "ALG": algorithm, "NODE_NO_WARNINGS": "1"},
        )
        assert self._process.stdout is not None
        self.issuer = self._process.stdout.readline().strip()
        assert self.issuer.startswith("http"), self.issuer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def tell(self, **changes: Any) -> None:
        """Have it behave in another way."""
        httpx.post(f"{self.issuer}/control", json=changes, timeout=30).raise_for_status()

    def knows(self, server: RunningServer, name: str = "acme") -> None:
        """Let it send browsers back to a server, and bend nothing."""
        back = [f"{server.url}/auth/{name}/callback"]
        self.tell(redirectURIs=back, logoutURI="", mode="", account="", codeTTL=60, claims={})


def table(peer: OidcPeer, name: str = "acme", **more: str) -> str:
    """Return the table of the provider in a configuration; values of ``more`` are TOML."""
    lines = [f"[oidc.{name}]", f'issuer = "{peer.issuer}"', 'client_id = "rpcshare"']
    lines += [f'client_secret = "{CLIENT_SECRET}"', *(f"{key} = {value}" for key, value in more.items())]
    return "\n".join(lines) + "\n"


def configured(folder: Path, text: str) -> str:
    path = folder / "rpcshare.toml"
    path.write_text(text)
    return f"--config={path}"


_opened: list[httpx.Client] = []


def browser(server: RunningServer, **cookies: str) -> httpx.Client:
    """Return a browser that follows redirections; :func:`close_browsers` closes it."""
    made = httpx.Client(base_url=server.url, follow_redirects=True, timeout=60, cookies=cookies)
    _opened.append(made)
    return made


def close_browsers() -> None:
    while _opened:
        _opened.pop().close()


def signed_in(server: RunningServer, peer: OidcPeer, account: str, name: str = "acme") -> httpx.Client:
    """Return a browser that has signed in: it follows redirections, and keeps cookies."""
    peer.tell(account=account)
    made = browser(server)
    answer = made.get(f"/auth/{name}/login")
    assert answer.status_code == 200, answer.text
    return made


def told(answer: httpx.Response) -> str:
    """Return the sentence of a page."""
    found = re.search(r"<main.*?</main>", answer.text, re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[0] if found else answer.text).split()))


def until(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds: of what ends on all nodes, within 5 seconds on an idle machine."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.1)
