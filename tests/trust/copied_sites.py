"""A store with what is to be ended in it, the commands that copy it, and what strangers get from a copy."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

from support.running_server import RPCSHARE, RunningServer, bare_environment

__all__ = ["CLOSED", "CLOSING", "OPEN", "Ended", "Site", "finished", "strangers_see"]

PART = [{"type": "part", "data": {"id": "p", "messageID": "m", "type": "text", "text": "confidential"}}]


CLOSING = {"private": [{"visibility": "private"}], "password": [{"password": "long enough"}]}
"""How the shares of these names are closed."""


class Finished(NamedTuple):
    status: int
    said: str


def finished(*words: object) -> Finished:
    """Run a command to its end."""
    done = subprocess.run(
        [RPCSHARE, *map(str, words)], capture_output=True, text=True, check=False, env=bare_environment()
    )
    return Finished(done.returncode, done.stdout + done.stderr)


class Site:
    """A store in ``folder``, or in a bucket, which servers are started on one after the other.

    Each server has a data directory of its own: one that has seen what was ended would put it right. If they
    are to be one server that is started again, ``keeps_data`` is true.
    """

    def __init__(
        self, folder: Path, name: str, store: str | None = None, *, keeps_data: bool = False
    ) -> None:
        self.folder = folder
        self.name = name
        self.store = store or f"sqlite:///{folder}/{name}.sqlite3"
        self._keeps_data = keeps_data
        self._servers = 0

    def serve(self, *options: str) -> RunningServer:
        self._servers += not self._keeps_data
        return RunningServer(
            self.folder / f"{self.name}-{self._servers}",
            f"--store={self.store}",
            f"--signing-key={self.folder}/home/signing-key",
            "--shared-secret=12345678-1234-5678-9234-567812345678",
            *options,
        )

    def run(self, *words: str) -> str:
        done = finished(*words, "--store", self.store, "--data-dir", self.folder / "home")
        assert done.status == 0, done.said
        return done.said

    def copied_to(self, other: "Site", *words: str) -> Finished:
        return finished("migrate", "--from", self.store, "--to", other.store, *words)


class Ended(NamedTuple):
    """What a site has that can be ended: shares by what becomes of them, and credentials likewise."""

    shares: dict[str, str]
    credentials: dict[str, str]
    token_id: str

    @classmethod
    def made_in(cls, site: Site) -> "Ended":
        credentials = {}
        for name in ("revoked key", "rotated key"):
            made = site.run("keys", "create", name.replace(" ", "-"), "--scope", "admin", "--json")
            credentials[name] = json.loads(made.splitlines()[0])["key"]
        token_ids = []
        for name in ("token by id", "token by subject"):
            subject = name.replace(" ", "-")
            command = [RPCSHARE, "token", "create", "--subject", subject, "--scope=admin"]
            done = subprocess.run(
                [*command, "--data-dir", site.folder / "home"],
                capture_output=True,
                text=True,
                check=True,
                env=bare_environment(),
            )
            credentials[name] = done.stdout.strip()
            token_ids.append(done.stderr.split()[-1])
        shares = {}
        with site.serve() as server:
            for name in ("private", "password", "deleted"):
                body = {"sessionID": f"ses_copied_{name}", "data": PART}
                answer = httpx.post(f"{server.url}/api/share", json=body, headers=_admin(server))
                shares[name] = answer.raise_for_status().json()["id"]
            server.stop()
        return cls(shares, credentials, token_ids[0])

    def end_in(self, site: Site) -> None:
        """End all of it, by the commands and requests that operators and owners use."""
        for name, command in (("revoked key", "revoke"), ("rotated key", "rotate")):
            site.run("keys", command, self.credentials[name].split("_")[1])
        site.run("token", "revoke", "--jti", self.token_id)
        site.run("token", "revoke", "--subject", "token-by-subject")
        self.change_in(site, CLOSING, delete=["deleted"])

    def change_in(
        self, site: Site, changes: Mapping[str, Sequence[dict[str, str]]], *, delete: Sequence[str] = ()
    ) -> None:
        """Change settings of shares, one after the other, and delete some."""
        with site.serve() as server, httpx.Client(base_url=server.url, headers=_admin(server)) as client:
            for name, settings in changes.items():
                for each in settings:
                    client.patch(f"/api/share/{self.shares[name]}", json=each).raise_for_status()
            for name in delete:
                client.delete(f"/api/share/{self.shares[name]}").raise_for_status()
            server.stop()


def strangers_see(site: Site, ended: Ended) -> dict[str, int]:
    """Return which status each share gives to anybody, and each credential to its bearer."""
    with site.serve() as server, httpx.Client(base_url=server.url) as client:
        seen = {name: client.get(f"/api/share/{share}").status_code for name, share in ended.shares.items()}
        for name, credential in ended.credentials.items():
            headers = {"Authorization": f"Bearer {credential}"}
            seen[name] = client.get("/api/sessions", headers=headers).status_code
    return seen


def _admin(server: RunningServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token}"}


_CREDENTIALS = ("revoked key", "rotated key", "token by id", "token by subject")

OPEN = dict.fromkeys(("private", "password", "deleted", *_CREDENTIALS), 200)
"""What is seen before anything was ended."""

CLOSED = {"private": 401, "password": 401, "deleted": 404} | dict.fromkeys(_CREDENTIALS, 401)
"""What is seen afterwards."""
