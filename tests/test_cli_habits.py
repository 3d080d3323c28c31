"""What all commands have in common: help, JSON, exit statuses, tables in a pipe, completion."""

import json
import os
from collections.abc import Iterator
from uuid import UUID, uuid4

import click
import pytest
from click.testing import CliRunner, Result

from rpcshare import connect_blocking
from rpcshare.cli import main

SECRET = UUID("8d0c7a4e-6a52-4b6c-9a07-6a1f3c1d9b10")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(server, monkeypatch):
    monkeypatch.setenv("RPCSHARE_URL", server.url)
    monkeypatch.setenv("RPCSHARE_TOKEN", server.token)
    return run_command


def run_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="rpcshare")


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_short_help_that_tells_the_exit_statuses(path):
    result = run_command(*path, "-h")
    assert result.exit_code == 0
    assert "4 not signed in, 5 not found" in " ".join(result.stdout.split())


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != ("serve",)], ids=" ".join)
def test_every_command_has_json(path):
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)


def test_a_list_is_tab_separated_in_a_pipe(run, server):
    session_id = f"ses_{uuid4().hex}"
    with connect_blocking(server.url, token=server.token) as client:
        session = {"id": "s", "title": f"{session_id}\ttab", "directory": ""}
        share = client.create_share(session_id, [{"type": "session", "data": session}])
    heading, row = run("ls", session_id).stdout.splitlines()
    assert heading.split("\t") == ["id", "title", "directory", "messages", "parts", "updated", "url"]
    assert row.split("\t") == [share.id, f"{session_id} tab", "", "0", "0", "just now", share.url]


def test_rm_prints_what_it_deleted_as_json(run, server):
    with connect_blocking(server.url, token=server.token) as client:
        share = client.create_share(f"ses_{uuid4().hex}", [])
    assert json.loads(run("rm", share.id, "--json").stdout) == {
        "id": share.id, "url": share.url, "deleted": True,
    }  # fmt: skip
    assert run("rm", share.id).exit_code == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--url", "https://h", "--profile", "p"),
        ("ls", "--token", "t", "--data-dir", "d"),
        ("pull", "abcdefgh", "--json", "--format", "markdown"),
        ("access", "abcdefgh", "--no-expiry", "--expires", "7d"),
        ("access", "abcdefgh", "--private", "--link"),
        ("logout", "h", "--all"),
        ("credentials", "ses_1", "--url", "https://a", "--public-url", "https://b"),
    ],
    ids=" ".join,
)
def test_options_that_contradict_each_other_are_refused(arguments):
    secret = ("--shared-secret", str(SECRET)) if arguments[0] == "credentials" else ()
    result = run_command(*arguments, *secret)
    assert (result.exit_code, result.stdout) == (2, "")


def test_credentials_are_of_the_server_that_is_asked_of(monkeypatch):
    def url_of(*arguments: str) -> object:
        options = ("ses_0123456789", "--shared-secret", str(SECRET), "--json")
        return json.loads(run_command("credentials", *options, *arguments).stdout)["url"]

    assert url_of("--url", "https://own.example/rpc") == "https://own.example/share/23456789"
    monkeypatch.setenv("RPCSHARE_URL", "wss://other.example:8443")
    assert url_of() == "https://other.example:8443/share/23456789"
    assert url_of("--public-url", "h.example") == "https://h.example/share/23456789"


def test_a_dash_before_a_word_of_a_search_is_no_option(run):
    assert run("search", "-volume", "-hash", "x").exit_code == 0


@pytest.mark.parametrize(
    ("shell", "line", "place"),
    [
        (
            "bash",
            "complete -o nosort -F _rpcshare_completion rpcshare",
            "data/bash-completion/completions/rpcshare",
        ),
        ("zsh", "#compdef rpcshare", "data/zsh/site-functions/_rpcshare"),
        ("fish", "function _rpcshare_completion;", "config/fish/completions/rpcshare.fish"),
    ],
)
def test_completion_prints_and_installs_the_script_of_a_shell(shell, line, place, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    script = run_command("completion", shell).stdout
    assert line in script
    assert f"installed {tmp_path / place}" in run_command("completion", shell, "--install").stdout
    assert (tmp_path / place).read_text().strip() == script.strip()


def test_completion_completes_commands():
    env = {"_RPCSHARE_COMPLETE": "bash_complete", "COMP_WORDS": "rpcshare lo", "COMP_CWORD": "1"}
    result = CliRunner().invoke(main, [], prog_name="rpcshare", env=env)
    assert result.stdout.split() == ["plain,login", "plain,logout"]


def test_a_file_of_the_profiles_is_not_needed_where_the_command_line_says_all(monkeypatch, tmp_path, server):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "rpcshare").mkdir()
    (tmp_path / "rpcshare" / "profiles.json").write_text("damaged")
    assert run_command("ls", "--url", server.url, "--token", server.token).exit_code == 0
