"""The client certificate of a command: where it is shown, and what is said when it cannot be."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rpcshare.cli.connection import Server, with_share
from support.authorities import Authority

OWN, OTHER = "https://own.example", "https://other.example"


@click.command()
@with_share
def probe(server: Server, share_id: str) -> None:
    click.echo(json.dumps([server.token, server.shows_certificate, server.ssl_context is not None, share_id]))


@pytest.fixture(autouse=True)
def _files(monkeypatch, tmp_path):
    """A working directory with a CA, a certificate, and what is none."""
    authority = Authority(tmp_path)
    authority.pem(authority.issue("me")).rename(tmp_path / "me.pem")
    authority.pem(authority.issue("other")).rename(tmp_path / "other.pem")
    (tmp_path / "text.pem").write_text("not a certificate")
    (tmp_path / ".rpcshare").mkdir()
    (tmp_path / ".rpcshare/admin-token").write_text("kept")
    monkeypatch.chdir(tmp_path)


def probed(server: str, *options: str, **env: str) -> list[object]:
    result = CliRunner().invoke(probe, [f"{server}/share/abcdefgh", *options], env=env)
    assert result.exit_code == 0, result.output
    token, shows_certificate, has_context, _ = json.loads(result.stdout)
    return [token, shows_certificate, has_context]


def said(server: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(probe, [f"{server}/share/abcdefgh", *options])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("server", "options", "env", "shows"),
    [
        # Given on the command line: shown wherever that says.
        (OTHER, ["--cert", "me.pem"], {}, True),
        # From the environment: to the server that it names, and to those on this machine.
        (OWN, [], {"RPCSHARE_CERT": "me.pem", "RPCSHARE_URL": OWN}, True),
        ("https://127.0.0.1:1", [], {"RPCSHARE_CERT": "me.pem", "RPCSHARE_URL": OWN}, True),
        (OTHER, [], {"RPCSHARE_CERT": "me.pem", "RPCSHARE_URL": OWN}, False),
        (OTHER, [], {"RPCSHARE_CERT": "me.pem"}, False),
        (OWN, [], {"RPCSHARE_URL": OWN}, False),
    ],
)
def test_a_certificate_goes_to_the_server_that_it_is_meant_for_and_no_other(server, options, env, shows):
    assert probed(server, *options, **env) == [None, shows, True]


def test_without_encryption_no_certificate_is_shown_and_a_token_still_is():
    assert probed("http://127.0.0.1:1", RPCSHARE_CERT="me.pem") == ["kept", False, False]


@pytest.mark.parametrize("option", ["--cert", "--ca"])
def test_to_ask_for_a_certificate_without_encryption_is_a_usage_error(option):
    status, message = said("http://127.0.0.1:1", option, "me.pem")
    assert status == 2
    assert "--ca and --cert are for servers whose URL begins with https://" in message


def test_a_certificate_takes_the_place_of_the_token_that_lies_around():
    local = "https://127.0.0.1:1"
    assert probed(local)[0] == "kept"
    assert probed(local, "--cert", "me.pem")[0] is None
    assert probed(local, "--cert", "me.pem", "--token", "typed")[0] == "typed"
    assert probed(local, "--cert", "me.pem", "--data-dir", ".rpcshare")[0] == "kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ca", "text.pem"], "--ca: text.pem does not hold certificates in PEM"),
        (
            ["--cert", "text.pem"],
            "--cert: text.pem does not hold a certificate in PEM of which it holds the key",
        ),
        (["--cert", "me.pem", "--cert-key", "other.pem"], "of which other.pem holds the key"),
        (["--cert-key", "me.pem"], "--cert-key: needs --cert too"),
    ],
)
def test_files_that_are_of_no_use_are_named(options, message):
    status, line = said(OWN, *options)
    assert status != 0
    assert message in line


@pytest.mark.parametrize("option", ["--ca", "--cert"])
def test_a_file_that_is_not_there_is_named(option):
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        CliRunner().invoke(
            probe, [f"{OWN}/share/abcdefgh", option, str(Path("none.pem"))], catch_exceptions=False
        )
