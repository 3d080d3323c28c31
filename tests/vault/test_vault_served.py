"""The vault of a running server: over RPC, HTTP and the command line, and what is left of it on the disk."""

import base64
import json
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import rpcshare
from rpcshare.rpc import RpcError
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow  # real servers

VALUE = "sk-served-" + "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ring") / "keys"
    path.touch(mode=0o600)
    path.write_text(base64.b64encode(bytes(range(32))).decode())
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> Iterator[RunningServer]:
    data_dir = tmp_path_factory.mktemp("vault") / "data"
    with RunningServer(data_dir, f"--encryption-key-file={key_file}", "--log-level=debug") as running:
        yield running


def run(server: RunningServer, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = bare_environment(RPCSHARE_URL=server.url, RPCSHARE_TOKEN=server.token)
    return subprocess.run(
        [RPCSHARE, "vault", *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def ask(server: RunningServer, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {server.token}"}
    return httpx.request(method, server.url + path, headers=headers, **options)


async def test_over_rpc_a_key_is_kept_used_changed_and_revoked(server):
    async with rpcshare.connect(server.url, token=server.token) as api:
        vault = api.vault()
        stored = await vault.store({"service": "openai", "name": "rpc", "value": VALUE})
        listed = [entry for entry in await vault.list() if entry["id"] == stored["id"]]
        assert [set(entry) for entry in listed] == [
            {"id", "owner", "service", "name", "scopes", "createdAt", "rotatedAt", "expiresAt", "usedAt"}
        ]
        assert (await vault.retrieve(stored["id"]))["value"] == VALUE
        await vault.rotate(stored["id"], "another")
        assert (await vault.retrieve(stored["id"]))["value"] == "another"
        assert await vault.revoke(stored["id"]) == {"success": True}
        with pytest.raises(RpcError, match="no such entry"):
            await vault.retrieve(stored["id"])


def test_over_http_it_is_the_same(server):
    stored = ask(server, "POST", "/api/keys", json={"service": "openai", "name": "http", "value": VALUE})
    entry = f"/api/keys/{stored.json()['id']}"
    assert VALUE not in ask(server, "GET", "/api/keys").text
    found = ask(server, "GET", entry)
    assert found.json()["value"] == VALUE
    assert found.headers["Cache-Control"] == "no-store"
    changed = ask(server, "POST", f"{entry}/rotate", json={"value": "another"})
    assert changed.json()["rotatedAt"] is not None
    assert ask(server, "GET", entry).json()["value"] == "another"
    assert ask(server, "DELETE", entry).json() == {"success": True}
    gone = ask(server, "GET", entry)
    assert (gone.status_code, gone.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert httpx.get(server.url + "/api/keys").status_code == 401


@pytest.mark.parametrize("character", ["v", "\u00e9", "\n"])
def test_a_value_may_be_64_kib_however_it_is_written(server, character):
    longest = character * (65_536 // len(character.encode()))
    entry = {"service": "openai", "name": f"long {ord(character)}"}
    stored = ask(server, "POST", "/api/keys", json={**entry, "value": longest})
    assert stored.status_code == 200, stored.text
    assert ask(server, "GET", f"/api/keys/{stored.json()['id']}").json()["value"] == longest
    longer = ask(server, "POST", "/api/keys", json={**entry, "value": longest + "v"})
    assert (longer.status_code, longer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_on_the_command_line_a_value_comes_from_a_pipe(server):
    made = run(server, "set", "cli", "--service", "openai", "--json", stdin=f"{VALUE}\n")
    entry_id = json.loads(made.stdout)["id"]
    assert run(server, "get", entry_id).stdout == f"{VALUE}\n"
    assert VALUE not in run(server, "ls").stdout
    replaced = run(server, "set", "cli", "--service", "openai", "--json", stdin="another")
    assert json.loads(replaced.stdout) == {"id": entry_id, "replaced": True}
    assert run(server, "rm", entry_id).returncode == 0
    missing = run(server, "get", entry_id)
    assert (missing.returncode, missing.stderr.count("\n")) == (5, 1)
    assert run(server, "set", "cli", stdin="").returncode == 2


def test_on_its_page_a_key_is_stored_replaced_and_revoked_and_never_shown(server):
    headers = {"Authorization": f"Bearer {server.token}", "Origin": server.url}
    with httpx.Client(base_url=server.url, headers=headers, follow_redirects=True) as browser:
        form = {"service": "openai", "name": "by <form>", "value": VALUE, "expires": "30d"}
        page = browser.post("/vault", data=form)
        assert (page.url.path, page.status_code) == ("/vault", 200)
        assert "by &lt;form&gt;" in page.text
        assert VALUE not in page.text
        [entry] = [each for each in browser.get("/api/keys").json() if each["name"] == "by <form>"]
        again = browser.post("/vault", data=form)
        assert again.status_code == 400
        assert "rotate or revoke" in again.text
        assert VALUE not in again.text
        browser.post(f"/vault/{entry['id']}/rotate", data={"value": "another"})
        assert browser.get(f"/api/keys/{entry['id']}").json()["value"] == "another"
        foreign = {"Origin": "https://other.example"}
        assert browser.post(f"/vault/{entry['id']}/revoke", headers=foreign).status_code == 403
        assert "It is revoked." in browser.post(f"/vault/{entry['id']}/revoke").text
        assert browser.get(f"/api/keys/{entry['id']}").status_code == 400


def test_nothing_of_a_value_is_on_the_disk_or_in_the_log(server):
    ask(server, "POST", "/api/keys", json={"service": "openai", "name": "dump", "value": VALUE})
    raw = VALUE.encode()
    shifted = [base64.b64encode(raw[start : start + 36])[:44] for start in range(3)]
    hidden = [raw[:16], raw.hex().encode()[:32], zlib.compress(raw)[2:16], *shifted]
    for file in [*server.data_dir.rglob("*"), server.log]:
        if file.is_file():
            content = file.read_bytes()
            assert [form for form in hidden if form in content] == [], file.name


def test_a_key_that_is_lost_is_not_replaced_by_another(tmp_path):
    """What the lost one has wrapped, a new one does not open; and what the new one wraps, the old one."""
    with RunningServer(tmp_path / "data") as running:
        made = ask(running, "POST", "/api/keys", json={"service": "s", "name": "n", "value": VALUE}).json()
        kept = (tmp_path / "data" / "vault-key").rename(tmp_path / "kept")
        running.restart()
        answer = ask(running, "POST", "/api/keys", json={"service": "s", "name": "m", "value": VALUE})
        assert answer.status_code == 503
        assert "vault-key" in running.log.read_text()
        assert not (tmp_path / "data" / "vault-key").exists()
        kept.rename(tmp_path / "data" / "vault-key")
        assert ask(running, "GET", f"/api/keys/{made['id']}").json()["value"] == VALUE


async def test_where_it_is_switched_off_no_value_is_handed_out(tmp_path):
    with RunningServer(tmp_path / "data", "--no-vault-retrieve") as running:
        async with rpcshare.connect(running.url, token=running.token) as api:
            stored = await api.vault().store({"service": "openai", "name": "n", "value": VALUE})
            with pytest.raises(RpcError) as caught:
                await api.vault().retrieve(stored["id"])
        assert caught.value.code == "FORBIDDEN"
        assert VALUE not in running.log.read_text()


def test_a_new_first_key_of_the_ring_wraps_what_others_have_wrapped(tmp_path, key_file):
    """The old key can then be taken out of the file."""
    ring = tmp_path / "ring"
    ring.write_text(key_file.read_text())
    ring.chmod(0o600)
    with RunningServer(tmp_path / "data", f"--encryption-key-file={ring}") as running:
        made = ask(running, "POST", "/api/keys", json={"service": "s", "name": "n", "value": VALUE})
        entry = f"/api/keys/{made.json()['id']}"
        newer = base64.b64encode(b"n" * 32).decode()
        # Shares and what else is in the store are rewritten by nobody: the old key stays to read them.
        ring.write_text(f"{newer}\n{key_file.read_text()}\n")
        running.restart()
        assert ask(running, "GET", entry).json()["value"] == VALUE
    done = subprocess.run(
        [RPCSHARE, "vault", "rewrap", "--json", f"--data-dir={tmp_path / 'data'}"],
        env=bare_environment(RPCSHARE_ENCRYPTION_KEY_FILE=str(ring)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["faults"] == []
    ring.write_text(newer)
    again = subprocess.run(
        [RPCSHARE, "vault", "rewrap", "--json", f"--data-dir={tmp_path / 'data'}"],
        env=bare_environment(RPCSHARE_ENCRYPTION_KEY_FILE=str(ring)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout) == {"wrapped": 0, "faults": []}


def test_a_value_that_is_too_long_is_not_logged_as_what_a_share_lacks(server):
    too_long = {"service": "openai", "name": "long", "value": "x" * 65_537}
    answer = ask(server, "POST", "/api/keys", json=too_long)
    assert (answer.status_code, answer.json()["error"]) == (413, "value: is longer than 65,536 bytes")
    assert "so the share lacks it" not in server.log.read_text()
    items = [{"type": "session", "data": {"id": "x" * 2_000_000}}] * 40
    shared = {"sessionID": "ses_too_long", "data": items}
    assert ask(server, "POST", "/api/share", json=shared).status_code == 413
    assert "so the share lacks it" in server.log.read_text()
