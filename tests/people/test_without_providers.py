"""A server without a table ``[oidc.NAME]`` has no users, and nothing of them."""

import subprocess
import sys

import httpx

from rpcshare.client import ShareClient
from support.running_server import RunningServer

OF_USERS = ("people", "sign_in", "oidc", "github", "user_callers")


def test_nothing_of_users_is_imported() -> None:
    names = [*(f"rpcshare.auth.{name}" for name in OF_USERS), "rpcshare.database.records", "httpx"]
    program = f"import sys, rpcshare.server.run; print([m for m in {names!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_there_is_no_way_to_sign_in_and_nobody_is_a_user(server: RunningServer) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        for path in ("/auth/github/login", "/auth/github/callback", "/profile", "/organization"):
            assert (await client.get(path)).status_code == 404
        assert "auth/" not in (await client.get("/sign-in")).text
    async with ShareClient(server.url, token=server.token) as admin:
        assert await admin.api.whoami() == {"subject": "admin", "scopes": ["admin"]}
    assert not (server.data_dir / "records.sqlite3").exists()
