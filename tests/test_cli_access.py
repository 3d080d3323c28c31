"""``rpcshare access``, and the options of ``push`` that say who may read a share."""

import json
import os
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner, Result

from rpcshare.cli import main

ITEM = json.dumps({"type": "part", "data": {"id": "prt_1"}})


@pytest.fixture
def run(server, monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RPCSHARE_URL", server.url)
    monkeypatch.setenv("RPCSHARE_TOKEN", server.token)

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=stdin)

    return run


@pytest.fixture
def share(run):
    """Return a function that pushes a share with options, and returns its id."""

    def push(*options: str) -> str:
        result = run("push", "-", f"ses_{uuid4().hex}", "--json", *options, stdin=ITEM)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)["id"]

    return push


def shown(run, *arguments: str) -> dict:
    result = run("access", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_a_share_is_for_whoever_has_the_link(run, share):
    result = run("access", share())
    assert result.stdout.splitlines() == ["read by: whoever has the link", "expires: never"]


def test_push_makes_it_private_with_a_password_and_an_end(run, share, tmp_path):
    (tmp_path / "password").write_text("correct horse\n")
    options = ("--private", "--password-file", str(tmp_path / "password"), "--expires", "7d")
    settings = shown(run, share(*options))
    assert (settings["visibility"], settings["hasPassword"]) == ("private", True)
    assert settings["expiresAt"]


def test_access_changes_what_it_is_told_to(run, share, tmp_path):
    (tmp_path / "password").write_text("correct horse\n")
    share_id = share("--private")
    settings = shown(run, share_id, "--link", "--password-file", str(tmp_path / "password"), "--expires=2h")
    assert (settings["visibility"], settings["hasPassword"]) == ("link", True)
    lines = run("access", share_id).stdout.splitlines()
    assert lines[0] == "read by: whoever has the link and the password"
    assert lines[1].endswith("UTC (in 1 h)")
    settings = shown(run, share_id, "--no-password", "--no-expiry")
    assert settings == {"visibility": "link", "hasPassword": False, "expiresAt": None}


def test_a_view_token_is_alone_on_standard_output(run, share, server):
    share_id = share("--private")
    result = run("access", share_id, "--view-token", "--token-expires", "1h")
    assert result.exit_code == 0
    (token,) = result.stdout.splitlines()
    path = f"{server.url}/api/share/{share_id}"
    assert httpx.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert "read by: private" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--expires", "soon"), "must be a duration such as 30d"),
        (("--expires", "1d", "--no-expiry"), "--no-expiry excludes --expires"),
        (("--no-password", "--password-file", "/dev/null"), "first line is empty"),
        (("--password-prompt",), "needs a terminal"),
        (("--password-prompt", "--password-file", "x"), "exclude each other"),
        (("--token-expires", "1d"), "goes with --view-token"),
        (("--password-file", "nowhere"), "No such file"),
    ],
)
def test_what_makes_no_sense_is_one_line(run, arguments, message):
    result = run("access", "00000001", *arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert message in line


def test_only_those_who_may_write_a_share_may_change_it(run, share, monkeypatch):
    share_id = share()
    view = run("access", share_id, "--view-token").stdout.strip()
    monkeypatch.setenv("RPCSHARE_TOKEN", view)
    result = run("access", share_id, "--private")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "rpcshare: Forbidden: only the owner of a share needs no secret\n"
