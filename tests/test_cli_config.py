"""Looking at a server's settings before it runs: where they come from, and what is wrong with them."""

import json
import logging
import os
import sys
from types import ModuleType

import click
import pytest
import structlog
from click.testing import CliRunner, Result

from rpcshare.cli import main
from rpcshare.config import Settings, known_variables, unknown_variables


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="rpcshare")


def shown(*arguments: str) -> dict[str, tuple[str, str, str | None]]:
    """Return value, kind of source and source of each setting."""
    result = run("config", "show", "--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return {
        each["setting"]: (each["value"], each["source"], each["place"]) for each in json.loads(result.stdout)
    }


def test_show_says_where_each_setting_comes_from(monkeypatch, tmp_path):
    (tmp_path / "rpcshare.toml").write_text('host = "h"\nport = 1\nlog_level = "error"')
    monkeypatch.setenv("RPCSHARE_PORT", "2")
    monkeypatch.setenv("RPCSHARE_LOG_LEVEL", "info")
    told = shown("--config", "rpcshare.toml", "--log-level", "debug")
    assert list(told) == list(Settings.model_fields)
    assert told["host"] == ("h", "file", "host in rpcshare.toml")
    assert told["port"] == ("2", "environment", "RPCSHARE_PORT")
    assert told["log_level"] == ("debug", "option", "--log-level")
    assert told["workers"] == ("1", "default", None)


def test_show_says_which_variable_names_the_file_of_a_secret(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("a-very-secret-token\n")
    monkeypatch.setenv("RPCSHARE_TOKEN_FILE", "token")
    assert shown()["token"] == ("********", "environment", "RPCSHARE_TOKEN_FILE")


def test_show_tells_what_stands_for_what_was_not_given():
    told = shown("--data-dir", "d", "--port", "90")
    assert told["store"][0] == "sqlite:///d/store.sqlite3"
    assert told["public_url"][0] == "http://127.0.0.1:90"
    assert told["token"][0] == "kept in d/admin-token"


@pytest.mark.parametrize(
    ("option", "value", "seen"),
    [
        ("token", "horse", "********"),
        ("shared-secret", "8d0c7a4e-6a52-4b6c-9a07-6a1f3c1d9b10", "********"),
        ("jwt-secret", "horse" * 10, "********"),
        ("database", "postgresql://u:horse@h/d", "postgresql://u:********@h/d"),
        ("broadcast", "redis://:horse@h:1/0", "redis://:********@h:1/0"),
        ("store", "s3://b/p?region=r&secret=horse", "s3://b/p?region=r&secret=********"),
        ("jwks-url", "https://h/jwks?key=horse", "https://h/jwks?key=********"),
    ],
)
def test_show_masks_secrets(option, value, seen):
    assert shown(f"--{option}", value)[option.replace("-", "_")][0] == seen


def test_show_prints_tab_separated_lines_into_a_pipe():
    heading, first, *_ = run("config", "show").stdout.splitlines()
    assert heading.split("\t") == ["setting", "value", "from"]
    assert first.split("\t") == ["host", "127.0.0.1", "default"]


def test_check_of_good_settings():
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (0, "the settings are good\n")


def test_check_names_each_problem_and_makes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("RPCSHARE_PROT", "horse")
    result = run(
        "config", "check", "--jwt-key", "nonesuch", "--store", "ftp://horse", "--database", "x:horse"
    )
    assert (result.exit_code, result.stdout) == (1, "")
    named = [line.split(" ")[0] for line in result.stderr.splitlines()]
    assert named[:3] == ["--jwt-key:", "--database:", "--store:"]
    assert (
        "the environment variable RPCSHARE_PROT is no setting: did you mean RPCSHARE_PORT?" in result.stderr
    )
    assert "horse" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_bad_value_is_a_usage_error():
    result = run("config", "check", "--port", "http")
    assert result.exit_code == 2
    assert result.stderr.startswith("rpcshare: --port: ")


@pytest.mark.parametrize("quote", ['"', "'"])
def test_check_names_a_variable_with_quotes_in_its_value(quote, monkeypatch):
    monkeypatch.setenv("RPCSHARE_TOKEN", f"{quote}a-very-secret-token{quote}")
    result = run("config", "check")
    assert result.exit_code == 1
    assert result.stderr == "the environment variable RPCSHARE_TOKEN has quotes as a part of its value\n"


def test_check_prints_json(monkeypatch):
    monkeypatch.setenv("RPCSHARE_ZZZ", "1")
    result = run("config", "check", "--json")
    problem = "the environment variable RPCSHARE_ZZZ is no setting"
    assert json.loads(result.stdout) == {"ok": False, "problems": [problem]}


def test_serve_names_an_unknown_variable_at_its_start(monkeypatch):
    served: list[Settings] = []

    def serve(settings: Settings) -> int:
        served.append(settings)
        return 0

    module = ModuleType("rpcshare.server.run")
    vars(module).update(serve=serve)
    monkeypatch.setitem(sys.modules, "rpcshare.server.run", module)
    monkeypatch.setenv("RPCSHARE_ANONYMOUS_CRATE", "horse")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        result = run("serve", "--log-format", "json")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert len(served) == 1
    event = json.loads(result.stderr)
    assert event["level"] == "warning"
    assert event["event"].endswith(
        "RPCSHARE_ANONYMOUS_CRATE is no setting: did you mean RPCSHARE_ANONYMOUS_CREATE?"
    )
    assert "horse" not in result.stderr


def test_what_kubernetes_sets_for_a_service_of_the_name_is_no_typing_error():
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8787_TCP", "PORT_8787_TCP_ADDR")
    assert unknown_variables({f"RPCSHARE_{name}": "x" for name in (*links, "SERVIC_HOST")}) == [
        "RPCSHARE_SERVIC_HOST"
    ]


def test_every_variable_of_a_command_is_known():
    def variables(command: click.Command, context: click.Context) -> set[str]:
        own = {option.envvar for option in command.params if isinstance(option.envvar, str)}
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                own |= variables(below, context)
        return own

    assert variables(main, click.Context(main)) <= set(known_variables())
    assert unknown_variables(dict.fromkeys(known_variables(), "1")) == []
