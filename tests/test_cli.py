"""The command line: what it prints, where, and with which status it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from uuid import UUID, uuid5

import click
import pytest
from click.testing import CliRunner, Result

import rpcshare.cli.group
from rpcshare.auth.secret_files import SecretFileError, shared_secret
from rpcshare.cli import main
from rpcshare.compiled import core
from rpcshare.config import ConfigError, Settings
from rpcshare.errors import ErrorCode, ShareError
from support.narrowing import not_none

SECRET = UUID("8d0c7a4e-6a52-4b6c-9a07-6a1f3c1d9b10")
SESSION = "ses_0123456789abcdefXYZ"
ROOT = Path(rpcshare.cli.group.__file__).parents[2]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="rpcshare")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(result: Result, status: int) -> str:
    """Return the only line printed, which is on standard error."""
    assert (result.exit_code, result.stdout) == (status, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("rpcshare: ")
    return line.removeprefix("rpcshare: ")


class Server:
    """Stands for the server: takes the settings, and ends as it is told to."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.end: int | BaseException = 0

    def serve(self, settings: Settings) -> int:
        self.settings = settings
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


@pytest.fixture
def server(monkeypatch) -> Server:
    server = Server()
    module = ModuleType("rpcshare.server.run")
    vars(module).update(serve=server.serve)
    monkeypatch.setitem(sys.modules, "rpcshare.server.run", module)
    return server


# --- the group ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_commands(arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    assert "serve" in result.stdout
    assert "credentials" in result.stdout


def test_every_listed_command_exists():
    context = click.Context(main)
    commands = {name: not_none(main.get_command(context, name)) for name in main.list_commands(context)}
    assert {name: command.name for name, command in commands.items()} == {name: name for name in commands}


def test_version():
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"rpcshare, version 0.1.0 ({core()})\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("frobnicate",), "frobnicate"),
        (("--frobnicate",), "--frobnicate"),
        (("serve", "--frobnicate"), "--frobnicate"),
        (("serve", "--port"), "--port"),
        (("serve", "more"), "more"),
        (("credentials",), "SESSION_ID"),
    ],
)
def test_a_command_line_that_makes_no_sense_gets_one_line_and_status_2(arguments, named):
    assert named in assert_one_line(run(*arguments), 2)


def test_help_is_quick_for_importing_no_more_than_it_needs():
    script = (
        "import sys; from rpcshare.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    imported = set(run_python("-c", script).stderr.split())
    assert "click" in imported
    assert not imported & {"pydantic", "uvicorn", "starlette", "sqlite3"}


# --- missing packages ---------------------------------------------------------------------------


def test_without_click_one_line_says_what_to_install():
    script = "import sys; sys.modules['click'] = None; import rpcshare.cli"
    process = run_python("-c", script)
    assert (process.returncode, process.stdout) == (1, "")
    (line,) = process.stderr.splitlines()
    assert "pip install 'rpcshare[server]'" in line


def test_without_a_package_of_the_server_one_line_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)
    for name in ("config", "cli.options", "cli.serve"):
        monkeypatch.delitem(sys.modules, f"rpcshare.{name}", raising=False)
    line = assert_one_line(run("serve"), 1)
    assert line == "this command needs the package pydantic: pip install 'rpcshare[server]'"


# --- serve --------------------------------------------------------------------------------------

OPTIONS = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "data-dir": ("/d", Path("/d")),
    "store": ("memory://", "memory://"),
    "broadcast": ("redis://h/0", "redis://h/0"),
    "public-url": ("share.example.com", "https://share.example.com"),
    "signing-key": ("/k", Path("/k")),
    "jwt-issuer": ("https://id.example", "https://id.example"),
    "jwt-audience": ("share", "share"),
    "jwks-url": ("https://id.example/jwks", "https://id.example/jwks"),
    "jwt-key": ("/k", Path("/k")),
    "jwt-role-claim": ("realm_access.roles", "realm_access.roles"),
    "jwt-role-map": ("editor=create", (("editor", "create"),)),
    "allowed-origins": ("https://a,https://b", ("https://a", "https://b")),
    "max-message-size": ("1KiB", 1024),
    "max-share-size": ("1MiB", 1024**2),
    "max-share-items": ("1000", 1000),
    "max-calls-in-flight": ("8", 8),
    "log-level": ("debug", "debug"),
    "log-format": ("json", "json"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_serve_takes_every_setting_as_an_option(server, option):
    given, expected = OPTIONS[option]
    assert run("serve", f"--{option}", given).exit_code == 0
    assert getattr(server.settings, option.replace("-", "_")) == expected


def test_serve_takes_the_secrets_as_options(server):
    run("serve", "--token", "correct-horse", "--shared-secret", str(SECRET))
    assert server.settings.token.get_secret_value() == "correct-horse"
    assert server.settings.shared_secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), True), (("--anonymous-create",), True), (("--no-anonymous-create",), False)],
)
def test_serve_takes_a_switch_both_ways(server, monkeypatch, arguments, expected):
    monkeypatch.setenv("RPCSHARE_ANONYMOUS_CREATE", "1")
    run("serve", *arguments)
    assert server.settings.anonymous_create is expected


def test_serve_without_options_has_the_defaults(server):
    run("serve")
    assert server.settings == Settings()


def test_a_setting_comes_from_the_command_line_then_the_environment_then_the_file(
    server, monkeypatch, tmp_path
):
    config = tmp_path / "rpcshare.toml"
    config.write_text('host = "file"\nport = 1\nlog_level = "error"')
    monkeypatch.setenv("RPCSHARE_PORT", "2")
    monkeypatch.setenv("RPCSHARE_LOG_LEVEL", "warning")
    run("serve", "--config", str(config), "--log-level", "debug")
    settings = server.settings
    assert (settings.host, settings.port, settings.log_level) == ("file", 2, "debug")


def test_the_environment_may_name_the_file(server, monkeypatch, tmp_path):
    (tmp_path / "rpcshare.toml").write_text("port = 1")
    monkeypatch.setenv("RPCSHARE_CONFIG", "rpcshare.toml")
    run("serve")
    assert server.settings.port == 1


def test_serve_help_names_every_option_and_variable():
    words = run("serve", "--help").stdout.replace("\n", " ")
    for option in (*OPTIONS, "token", "shared-secret", "jwt-secret", "anonymous-create", "config"):
        assert f"--{option}" in words
        assert f"RPCSHARE_{option.replace('-', '_').upper()}" in words


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_status_is_the_server_s(server, status):
    server.end = status
    assert run("serve").exit_code == status


def test_a_bad_setting_is_named_as_it_was_given(server, monkeypatch):
    assert assert_one_line(run("serve", "--port", "http"), 2).startswith("--port: ")
    monkeypatch.setenv("RPCSHARE_PORT", "http")
    assert assert_one_line(run("serve"), 2).startswith("RPCSHARE_PORT: ")
    assert server.settings is None


def test_a_bad_secret_is_not_printed(server):
    assert "horse" not in run("serve", "--token", "correct horse").output
    assert "8d0c7a4e" not in run("serve", "--shared-secret", f"{SECRET}0").output


@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        (ConfigError("--store: no such scheme"), 2, "--store: no such scheme"),
        (SecretFileError("cannot read /d/admin-token"), 1, "cannot read /d/admin-token"),
        (ShareError(ErrorCode.STORAGE_UNAVAILABLE, "Storage"), 1, "Storage"),
        (OSError(98, "Address already in use"), 1, "Address already in use"),
        (PermissionError(13, "Permission denied", "/d"), 1, "/d: Permission denied"),
        (click.ClickException("two\nlines"), 1, "two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_of_the_server_gets_one_line_and_a_status(server, end, status, line):
    server.end = end
    result = run("serve")
    assert result.exit_code == status
    assert result.stderr.strip().startswith(f"rpcshare: {line}")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("kind", [ValueError, ModuleNotFoundError])
def test_a_failure_that_nobody_foresaw_tells_its_place_but_not_its_text(server, kind):
    server.end = kind("correct-horse")
    if kind is ModuleNotFoundError:
        server.end.name = "rpcshare.missing"  # a fault of ours, not a package to install
    line = assert_one_line(run("serve"), 1)
    assert line.startswith(f"internal error: {kind.__name__} at ")
    assert "correct-horse" not in line


# --- credentials --------------------------------------------------------------------------------


def test_credentials_prints_id_url_and_secret():
    result = run("credentials", SESSION, "--shared-secret", str(SECRET), "--public-url", "h.example")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "id: bcdefXYZ",
        "url: https://h.example/share/bcdefXYZ",
        f"secret: {uuid5(SECRET, SESSION)}",
    ]


def test_credentials_prints_json():
    result = run("credentials", "--json", SESSION, "--shared-secret", str(SECRET))
    assert json.loads(result.stdout) == {
        "id": "bcdefXYZ",
        "url": "http://127.0.0.1:8787/share/bcdefXYZ",
        "secret": str(uuid5(SECRET, SESSION)),
    }


def test_credentials_uses_the_secret_that_the_server_keeps(tmp_path):
    kept = shared_secret(None, tmp_path / "data")
    result = run("credentials", SESSION, "--data-dir", "data")
    assert result.stdout.splitlines()[-1] == f"secret: {uuid5(kept, SESSION)}"


def test_credentials_uses_the_server_s_environment_and_file(monkeypatch, tmp_path):
    (tmp_path / "rpcshare.toml").write_text(f'shared_secret = "{SECRET}"\nhost = "h.example"')
    monkeypatch.setenv("RPCSHARE_PORT", "80")
    result = run("credentials", SESSION, "--config", "rpcshare.toml")
    assert "url: http://h.example:80/share/bcdefXYZ" in result.stdout


def test_credentials_makes_no_secret_of_its_own(tmp_path):
    line = assert_one_line(run("credentials", SESSION), 1)
    assert line.startswith("no shared secret in .rpcshare")
    assert list(tmp_path.iterdir()) == []


def test_credentials_says_which_file_is_garbled(tmp_path):
    (tmp_path / "shared-secret").write_text("garbled")
    line = assert_one_line(run("credentials", SESSION, "--data-dir", str(tmp_path)), 1)
    assert f"{tmp_path}/shared-secret" in line


def test_credentials_needs_a_public_url_where_the_port_is_any(monkeypatch):
    monkeypatch.setenv("RPCSHARE_PORT", "0")
    line = assert_one_line(run("credentials", SESSION, "--shared-secret", str(SECRET)), 2)
    assert line.startswith("--public-url: ")


def test_credentials_takes_any_port_where_there_is_a_public_url(monkeypatch):
    monkeypatch.setenv("RPCSHARE_PORT", "0")
    monkeypatch.setenv("RPCSHARE_PUBLIC_URL", "h.example")
    result = run("credentials", SESSION, "--shared-secret", str(SECRET))
    assert "url: https://h.example/share/bcdefXYZ" in result.stdout


@pytest.mark.parametrize("session_id", ["", "a b", "a/b", "x" * 257])
def test_credentials_refuses_what_is_no_session_id(session_id):
    assert_one_line(run("credentials", session_id, "--shared-secret", str(SECRET)), 2)


def test_the_command_works_as_a_process():
    script = "from rpcshare.cli import main; main(prog_name='rpcshare')"
    process = run_python("-c", script, "credentials", SESSION, f"--shared-secret={SECRET}")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("id: bcdefXYZ\n")
