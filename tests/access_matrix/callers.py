"""The kinds of callers: how each shows who it is."""

import base64
import ssl
import time
from dataclasses import dataclass, field

from access_matrix.deployments import PASSWORD, PROXY, SESSION_COOKIE, Deployment, Made
from support.token_issuer import claims, token

__all__ = ["Caller", "caller"]

STRANGER = "127.0.0.2"


@dataclass(frozen=True)
class Caller:
    """One kind of caller at one server."""

    name: str
    deployment: Deployment
    headers: dict[str, str] = field(default_factory=dict)
    prefix: str = ""
    """Before each path."""
    address: str = "127.0.0.1"
    """Where requests come from."""
    tls: ssl.SSLContext | None = None
    shows_secret: str = ""
    """``right`` or ``wrong``; empty for a caller who has none to show."""

    def secret_of(self, share: Made) -> str | None:
        """Return what this caller shows as the share's secret, if anything."""
        if self.shows_secret == "wrong":
            return self.deployment.handed.secret("00000000-1111-5222-8333-444444444444")
        return share.secret if self.shows_secret else None


def caller(name: str, deployment: Deployment) -> Caller:  # noqa: C901, PLR0911, PLR0912 -- a table, one case a row
    """Return the caller of a row of :mod:`access_matrix.rights`."""
    keys, secret = deployment.keys, deployment.handed.secret

    def shown(**options: object) -> Caller:
        return Caller(name, deployment, **options)  # type: ignore[arg-type]

    def bearer(text: str) -> Caller:
        return shown(headers={"Authorization": f"Bearer {secret(text)}"})

    def key(which: str, **options: object) -> Caller:
        return shown(headers={"Authorization": f"ApiKey {keys[which]}"}, **options)

    def basic(password: str) -> Caller:
        credentials = base64.b64encode(f"anybody:{secret(password)}".encode()).decode()
        return shown(headers={"Authorization": f"Basic {credentials}"})

    now = int(time.time())
    match name.removeprefix("open: "):
        case "nobody":
            return shown()
        case "wrong token":
            return bearer("a-token-that-nobody-gave-out-91b2c7")
        case "expired signed token":
            return bearer(token(deployment.issuer_key, "ES256", claims(iat=now - 900, exp=now - 300)))
        case "owner, signed token":
            return bearer(token(deployment.issuer_key, "ES256", claims(sub="alice", scope="create")))
        case "admin":
            return bearer(deployment.server.token)
        case "view token":
            return bearer(deployment.view_token)
        case "untrusted proxy":
            return shown(headers={"X-User": "alice"}, address=STRANGER)
        case "trusted proxy":
            return shown(headers={"X-User": "behind-the-proxy"}, address=PROXY)
        case "secret":
            return shown(shows_secret="right")
        case "wrong secret":
            return shown(shows_secret="wrong")
        case "other owner, secret":
            return key("other owner", shows_secret="right")
        case "owner, wrong secret":
            return key("owner", shows_secret="wrong")
        case "password":
            return basic(PASSWORD)
        case "wrong password":
            return basic("not the password of any share, 77a0")
        case "certificate":
            return shown(tls=deployment.machine)
        case "revoked certificate":
            return shown(tls=deployment.revoked_machine)
        case "owner, path key":
            return shown(prefix=f"/k/{keys['owner']}")
        case "owner, signed in":
            cookie = f"{SESSION_COOKIE}={deployment.session_cookie}"
            return shown(headers={"Cookie": cookie, "Origin": deployment.url})
        case which:
            return key(which)
