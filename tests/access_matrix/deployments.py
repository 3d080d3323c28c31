"""A server with everything configured, and shares and credentials of every kind."""

import asyncio
import time
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import httpx

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.config import Settings
from rpcshare.storage import open_store
from support.authorities import Authority, client_context
from support.running_server import RunningServer
from support.token_issuer import AUDIENCE, ISSUER, make_key, pem

__all__ = ["PASSWORD", "PROXY", "SESSION_COOKIE", "Deployment", "Handed", "Made"]

PASSWORD = "the password of Alice's share, 5f1c0d7e"
PROXY = "127.0.0.3"
SESSION_COOKIE = "__Host-rpcshare_session"
ITEMS = [
    {
        "type": "message",
        "data": {"id": "msg_1", "role": "assistant", "sessionID": "s", "time": {"created": 1}},
    },
    {"type": "part", "data": {"id": "prt_1", "messageID": "msg_1", "type": "text", "text": "said in public"}},
    {"type": "part", "data": {"id": "prt_file", "type": "file", "mime": "text/plain", "url": "data:,kept"}},
]


class Handed:
    """Everything that was secret in a run, and everything that was answered.

    Attributes:
        credentials: by each of them, the answers in which it was handed out.
        answers: each once, with what was asked when it first came.
    """

    def __init__(self) -> None:
        self.credentials: dict[str, set[bytes]] = {}
        self.answers: dict[bytes, str] = {}

    def secret(self, credential: str, answer: bytes | None = None) -> str:
        """Note a credential, and that ``answer`` is where it may be read."""
        answers = self.credentials.setdefault(credential, set())
        if answer is not None:
            answers.add(answer)
        return credential

    def answered(self, asked: str, answer: bytes) -> None:
        """Note what was answered, head and body."""
        self.answers.setdefault(answer, asked)


class Made:
    """A share, as the one who made it knows it."""

    def __init__(self, share_id: str, secret: str) -> None:
        self.id, self.secret = share_id, secret


class Deployment:
    """A server that speaks TLS, trusts a CA, a proxy and an issuer of tokens, and keeps an audit log."""

    def __init__(self, path: Path, handed: Handed, *options: str) -> None:
        self.handed = handed
        self.authority = Authority(path / "ca")
        self.issuer_key = make_key("ES256")
        (path / "issuer.pem").write_bytes(pem(self.issuer_key))
        revoked = self.authority.issue("revoked-machine")
        (path / "crl.pem").write_bytes(self.authority.revocation_list([revoked]))
        machine = self.authority.issue("machine")
        self.nobody = client_context(self.authority)
        self.machine = client_context(self.authority, self.authority.pem(machine))
        self.revoked_machine = client_context(self.authority, self.authority.pem(revoked))
        for certificate in (machine, revoked):
            handed.secret(_key_line(self.authority.pem(certificate)))
        shown = self.authority.issue_to_server()
        handed.secret(_key_line(shown))
        self.audit_log = path / "audit.log"
        self.data_dir = path / "data"
        self.shared_secret = handed.secret(str(uuid4()))
        self.keys = asyncio.run(self._make_keys())
        self.server = RunningServer(
            self.data_dir,
            f"--tls-cert={shown}",
            f"--tls-key={shown}",
            f"--client-ca={self.authority.path}",
            f"--client-crl={path / 'crl.pem'}",
            "--client-cert-scope=create",
            f"--trusted-proxy={PROXY}",
            "--proxy-subject-header=X-User",
            "--proxy-scope=create,read",
            f"--jwt-issuer={ISSUER}",
            f"--jwt-audience={AUDIENCE}",
            f"--jwt-key={path / 'issuer.pem'}",
            "--same-subjects=key,jwt",
            f"--audit-log={self.audit_log}",
            "--log-level=debug",
            "--agents=local",
            "--agents-unsafe",
            "--max-workspaces=100000",
            *options,
            env={"RPCSHARE_SHARED_SECRET": self.shared_secret},
        )
        self._client = httpx.Client(base_url=self.server.url, verify=self.nobody, timeout=200)
        try:
            self._make_shares()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server, in the middle of whatever it does."""
        self._client.close()
        self.server.kill()

    @property
    def url(self) -> str:
        return self.server.url

    async def _make_keys(self) -> dict[str, str]:
        self.data_dir.mkdir(mode=0o700)
        store = await open_store(Settings(data_dir=self.data_dir).store_url)
        now = time.time()
        keys, earlier = ApiKeys(store), ApiKeys(store, clock=lambda: now - 3600)
        made = {
            "owner": await keys.create("alice", ["create"]),
            "owner, read key": await keys.create("alice", ["read"]),
            "other owner": await keys.create("mallory", ["create"]),
            "create key": await keys.create("carol", ["create"]),
            "read key": await keys.create("rita", ["read"]),
            "expired key": await earlier.create("alice", ["create"], 60),
            "revoked key": await keys.create("alice", ["create"]),
        }
        await keys.revoke(made["revoked key"].kept.id)
        await store.close()
        return {name: self.handed.secret(new.key) for name, new in made.items()}

    def _make_shares(self) -> None:
        self.handed.secret(self.server.token)
        self.handed.secret(PASSWORD)
        self.shares = {
            "link": self.make(),
            "password": self.make(password=PASSWORD),
            "private": self.make(visibility="private"),
            "other's": self.make(owner="other owner", visibility="private"),
            "expired": self.make(expiresIn=1),
            "missing": Made("nothing1", str(UUID(int=7))),
        }
        self.view_token = self._post(
            "owner", f"/api/share/{self.shares['private'].id}/view-token", {}, handing_out="token"
        )["token"]
        form = {"token": self.keys["owner"], "next": "sessions"}
        answer = self._client.post("/sign-in", data=form, headers={"Origin": self.url})
        self.session_cookie = answer.cookies[SESSION_COOKIE]
        self.handed.secret(self.session_cookie)
        expired = self.shares["expired"]
        for _ in range(100):
            if self._client.get(f"/api/share/{expired.id}").status_code == 410:
                return
            time.sleep(0.05)
        raise RuntimeError("the share has not expired")

    def make(self, owner: str = "owner", session_id: str | None = None, **options: object) -> Made:
        """Make a share of Alice's, or Mallory's."""
        body = {"sessionID": session_id or f"ses_{uuid4().hex}", "data": ITEMS, **options}
        made = self._post(owner, "/api/share", body, handing_out="secret")
        return Made(made["id"], made["secret"])

    def fresh(self, share: str) -> Made:
        """Return a share of this kind that nobody else uses, for what would be its end."""
        match share:
            case "link":
                return self.make()
            case "password":
                return self.make(password=PASSWORD)
            case "private":
                return self.make(visibility="private")
            case "other's":
                return self.make(owner="other owner", visibility="private")
        return self.shares[share]

    def _post(self, owner: str, path: str, body: object, *, handing_out: str) -> dict[str, str]:
        answer = self._client.post(path, json=body, headers={"Authorization": f"ApiKey {self.keys[owner]}"})
        answer.raise_for_status()
        value: dict[str, str] = answer.json()
        self.handed.secret(value[handing_out])
        return value


def _key_line(path: Path) -> str:
    """Return a line out of the middle of a private key in PEM."""
    return path.read_text().partition("PRIVATE KEY-----\n")[2].splitlines()[1]
