"""``rpcshare keys`` and ``rpcshare token``: what they print, where, and with which status they end."""

import asyncio
import base64
import json
import os
import re

import pytest
from click.testing import CliRunner, Result

from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.signed_tokens import SignedTokenVerifier
from rpcshare.auth.signing_key import SigningKey
from rpcshare.cli import main
from rpcshare.storage import SqliteStore
from support.narrowing import not_none

KEY = re.compile(r"rsk_([0-9a-f]{12})_[A-Za-z0-9]{43}")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments, prog_name="rpcshare")
    assert result.exit_code == status, result.output
    return result


def refusal(*arguments: str, status: int) -> str:
    result = run(*arguments, status=status)
    (line,) = result.stderr.splitlines()
    assert result.stdout == ""
    return line.removeprefix("rpcshare: ")


def listed() -> list[dict[str, object]]:
    return json.loads(run("keys", "list", "--json").stdout)


def make_key(*options: str) -> str:
    return run("keys", "create", "ci", *options).stdout.strip()


def id_of(key: str) -> str:
    return not_none(KEY.fullmatch(key))[1]


def test_create_prints_the_key_alone_on_standard_output():
    make_key()  # and with it the data directory
    result = run("keys", "create", "ci")
    match = not_none(KEY.fullmatch(result.stdout.rstrip("\n")))
    assert result.stderr == (f"key {match[1]} of ci (create), does not expire; it is not shown again\n")


def test_create_makes_the_store_if_there_is_none(tmp_path):
    make_key()
    assert (tmp_path / ".rpcshare" / "store.sqlite3").stat().st_mode & 0o777 == 0o600


def test_create_takes_scopes_and_an_expiry():
    made = json.loads(
        run(
            "keys", "create", "ci", "--scope", "read", "--scope", "create", "--expires", "2w", "--json"
        ).stdout
    )
    assert not_none(KEY.fullmatch(made["key"]))[1] == made["id"]
    assert (made["name"], made["scopes"]) == ("ci", ["create", "read"])
    assert made["expiresAt"] - made["createdAt"] == 14 * 86_400_000


def test_list_shows_no_key():
    secrets = [make_key(), make_key("--expires", "1d")]
    for options in ((), ("--json",)):
        output = run("keys", "list", *options).output
        assert all(id_of(key) in output for key in secrets)
        assert not any(key.rpartition("_")[2] in output for key in secrets)


def test_list_tells_what_became_of_keys():
    first, second = make_key(), make_key()
    run("keys", "revoke", id_of(first))
    third = run("keys", "rotate", id_of(second)).stdout.strip()
    states = {key["id"]: (key["rotatedAt"] is None, key["revokedAt"] is None) for key in listed()}
    assert states == {id_of(first): (True, False), id_of(second): (False, False), id_of(third): (True, True)}
    lines = run("keys", "list").stdout.splitlines()
    assert ["revoked" in line for line in lines[1:]] == [True, False, False]
    assert ["rotated" in line for line in lines[1:]] == [False, True, False]


def test_in_a_store_without_keys_there_is_nothing_to_list(tmp_path):
    async def make_store() -> None:
        await (await SqliteStore.open(tmp_path / ".rpcshare" / "store.sqlite3")).close()

    asyncio.run(make_store())
    assert run("keys", "list").output == ""
    assert listed() == []


def test_rotate_prints_the_new_key():
    old = make_key("--scope", "read", "--expires", "1d")
    new = json.loads(run("keys", "rotate", id_of(old), "--json").stdout)
    assert (new["name"], new["scopes"]) == ("ci", ["read"])
    assert new["expiresAt"] - new["createdAt"] == 86_400_000


def test_revoke_prints_nothing_and_may_be_repeated():
    key = make_key()
    for _ in range(2):
        assert run("keys", "revoke", id_of(key)).output == ""


def test_keys_are_in_an_encrypted_store_too(tmp_path):
    (tmp_path / "keys").write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
    options = ("--encryption-key-file", "keys")
    key = run("keys", "create", "ci", *options).stdout.strip()
    assert id_of(key) in run("keys", "list", *options).stdout
    assert "is not encrypted" not in run("keys", "list", *options).output
    assert id_of(key) not in run("keys", "list", status=2).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (("keys", "create"), 2, "NAME"),
        (("keys", "create", ""), 2, "name: must be 1 to 256"),
        (("keys", "create", "admin"), 2, "name: 'admin' is reserved"),
        (("keys", "create", "ci", "--scope", "write"), 2, "'create', 'read', 'admin'"),
        (("keys", "create", "ci", "--expires", "30"), 2, "--expires: must be a duration"),
        (("keys", "create", "ci", "--store", "memory://"), 2, "--store: memory://"),
        (("keys", "create", "ci", "--store", "ftp://x"), 2, "--store: not the URL of a store"),
        (("keys", "create", "ci", "--data-dir", "/dev/null/x"), 1, "cannot open the store"),
        (("keys", "list"), 1, "--store: there is no store"),
        (("keys", "rotate", "0" * 12), 1, "--store: there is no store"),
        (("keys", "frobnicate"), 2, "frobnicate"),
        (("token", "create"), 2, "--subject"),
        (("token", "create", "--subject", "admin"), 2, "subject: 'admin' is reserved"),
        (("token", "create", "--subject", "a", "--scope", "x"), 2, "'create', 'read', 'admin'"),
        (("token", "create", "--subject", "a", "--expires", "x"), 2, "expires: must be a duration"),
        (("token", "create", "--subject", "a", "--expires", "500d"), 2, "expires: must be at most 366d"),
        (("token", "create", "--subject", "a", "--signing-key", "nosuch"), 1, "no signing key nosuch"),
    ],
)
def test_what_cannot_be_done_gets_one_line_and_a_status(arguments, status, named):
    assert named in refusal(*arguments, status=status)


@pytest.mark.parametrize("arguments", [("keys", "create", "ci"), ("token", "create", "--subject", "ci")])
def test_a_new_data_directory_is_told_of_since_a_server_may_have_another(arguments, tmp_path):
    told = (
        f"made a new data directory, {tmp_path}/.rpcshare: if the server has another, name it with --data-dir"
    )
    assert told in run(*arguments).stderr.splitlines()
    assert told not in run(*arguments).stderr.splitlines()


@pytest.mark.parametrize("act", ["rotate", "revoke"])
def test_an_id_that_no_key_has_is_told(act):
    make_key()
    assert refusal("keys", act, "0" * 12, status=5).startswith("there is no key of this id")


def test_a_revoked_key_is_not_rotated():
    key_id = id_of(make_key())
    run("keys", "revoke", key_id)
    assert "has been revoked" in refusal("keys", "rotate", key_id, status=2)


@pytest.mark.parametrize("group", ["keys", "token"])
def test_a_group_alone_shows_its_commands(group):
    assert "create" in run(group).stdout


def test_a_token_is_signed_with_the_key_in_the_data_directory(tmp_path):
    token = run("token", "create", "--subject", "alice", "--scope", "read", "--expires", "1h").stdout.strip()
    issuer = SigningKey.kept(None, tmp_path / ".rpcshare").issuer()
    verifier = SignedTokenVerifier([issuer])
    caller = not_none(asyncio.run(verifier.verify(Credential(CredentialKind.TOKEN, token))))
    assert (caller.subject, caller.scopes) == ("alice", {"read"})
