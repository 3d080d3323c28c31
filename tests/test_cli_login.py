"""Signing in on the command line: what is kept, where, which command uses it, and what is never shown."""

import json
import os
import pty
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from rpcshare.cli import main
from rpcshare.cli.profile_store import Profile, Profiles, base_of
from support.running_server import RPCSHARE, bare_environment

NOBODY = "http://127.0.0.1:1"  # where no server is
REMOTE = "https://own.example"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kept(tmp_path) -> Path:
    return tmp_path / "config" / "rpcshare" / "profiles.json"


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def assert_ok(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def assert_refused(result: Result, status: int) -> str:
    assert (result.exit_code, result.stdout) == (status, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("rpcshare: ")


@pytest.fixture
def signed_in(server) -> str:
    """The name of a profile for the server."""
    assert_ok(run("login", server.url, stdin=f"{server.token}\n"))
    return server.url.removeprefix("http://")


def test_login_keeps_the_token_where_its_owner_alone_can_read_it(server, kept):
    printed = assert_ok(run("login", server.url, stdin=f"{server.token}\n"))
    assert printed == f"signed in to {server.url} as admin (profile {server.url.removeprefix('http://')})\n"
    assert server.token in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_login_verifies_the_token_before_it_keeps_it(server, kept):
    line = assert_refused(run("login", server.url, stdin="correct-horse\n"), 4)
    assert line.startswith("Unauthorized")
    assert "horse" not in line
    assert not kept.exists()


def test_a_refused_login_leaves_the_profile_that_there_is(server, signed_in, kept):
    before = kept.read_bytes()
    assert_refused(run("login", server.url, stdin="correct-horse\n"), 4)
    assert kept.read_bytes() == before


@pytest.mark.parametrize("token", ["", "\n", "two words\n", "na\xefve\n", "x" * 9000])
def test_what_can_be_no_token_is_refused_and_not_repeated(token, kept):
    line = assert_refused(run("login", NOBODY, stdin=token), 2)
    assert "token" in line
    assert "words" not in line
    assert not kept.exists()


@pytest.mark.parametrize(
    "url", ["https://h/k/horse", "https://user:horse@h", "https://h/?token=horse", "ftp://h"]
)
def test_a_url_that_holds_a_secret_or_is_no_server_s_is_refused(url):
    assert "horse" not in assert_refused(run("login", url, stdin="token\n"), 2)


def test_login_takes_no_token_as_an_argument(server):
    assert_refused(run("login", server.url, server.token), 2)
    assert_refused(run("login", server.url, "--token", server.token), 2)


def test_login_prompts_on_a_terminal_without_echo(server, tmp_path):
    ours, theirs = pty.openpty()
    env = bare_environment(XDG_CONFIG_HOME=str(tmp_path / "config"))
    process = subprocess.Popen(
        [RPCSHARE, "login", server.url], env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"Token for" not in seen:
        seen += os.read(ours, 1000)
    os.write(ours, f"{server.token}\n".encode())
    reader = threading.Thread(target=process.wait)
    reader.start()
    try:
        while True:
            seen += os.read(ours, 1000)
    except OSError:
        pass  # the terminal's other end is closed
    reader.join()
    os.close(ours)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.read().startswith(b"signed in to ")
    assert process.returncode == 0
    assert server.token.encode() not in seen


def test_commands_use_the_default_profile(server, signed_in):
    assert json.loads(assert_ok(run("whoami", "--json"))) == {"subject": "admin", "scopes": ["admin"]}
    assert run("ls").exit_code == 0
    told = assert_ok(run("whoami"))
    assert f"credential: profile {signed_in}\n" in told
    assert f"server: {server.url}\n" in told


def test_without_a_credential_whoami_says_how_to_sign_in(server):
    assert "rpcshare login" in assert_refused(run("whoami", "--url", server.url), 4)


def test_an_option_wins_over_the_environment_which_wins_over_the_profile(server, signed_in, monkeypatch):
    monkeypatch.setenv("RPCSHARE_TOKEN", server.token)
    assert "credential: RPCSHARE_TOKEN\n" in assert_ok(run("whoami"))
    assert "credential: --token\n" in assert_ok(run("whoami", "--token", server.token))
    assert f"credential: profile {signed_in}\n" in assert_ok(run("whoami", "--profile", signed_in))
    assert_refused(run("whoami", "--token", "wrong"), 4)
    monkeypatch.setenv("RPCSHARE_TOKEN", "wrong")
    assert_refused(run("whoami"), 4)


def test_verbose_says_on_standard_error_which_credential_is_used(server, signed_in):
    result = run("whoami", "--json", "-v")
    assert json.loads(result.stdout)["subject"] == "admin"
    assert result.stderr == f"server: {server.url}, credential: profile {signed_in}\n"


def test_a_profile_s_token_goes_to_its_own_server_alone(server, tmp_path):
    profiles = Profiles(tmp_path / "config" / "rpcshare")
    profiles.add("remote", Profile(REMOTE), server.token, in_keyring=False, default=True)
    # The same token would be the right one here: it is not sent.
    assert "no token was sent" in assert_refused(run("whoami", "--url", server.url), 4)


def test_a_profile_of_another_server_than_the_default_is_found_by_its_url(server, signed_in, tmp_path):
    profiles = Profiles(tmp_path / "config" / "rpcshare")
    profiles.add("remote", Profile(REMOTE), "other", in_keyring=False, default=True)
    assert f"profile {signed_in}" in assert_ok(run("whoami", "--url", f"{server.url}/rpc"))
    assert_refused(run("pull", f"{server.url}/share/nonesuch"), 5)


def test_a_profile_that_there_is_not_is_named():
    assert "there is no profile work" in assert_refused(run("ls", "--profile", "work"), 4)


def test_a_token_that_the_server_no_longer_takes_names_its_profile(server, tmp_path):
    profiles = Profiles(tmp_path / "config" / "rpcshare")
    profiles.add("old", Profile(server.url), "revoked-horse", in_keyring=False, default=True)
    line = assert_refused(run("ls"), 4)
    assert "the token of profile old is not valid" in line
    assert "horse" not in line


def test_logout_forgets_the_token(server, signed_in, kept):
    assert assert_ok(run("logout")) == f"signed out of {server.url} (profile {signed_in})\n"
    assert server.token not in kept.read_text()
    assert_refused(run("whoami", "--url", server.url), 4)
    assert_refused(run("logout"), 4)


def test_profiles_lists_servers_and_chooses_the_default(server, signed_in):
    assert_ok(run("login", server.url, "--name", "second", stdin=server.token))
    told = json.loads(assert_ok(run("profiles", "--json")))
    assert [(each["name"], each["default"]) for each in told] == [(signed_in, False), ("second", True)]
    assert_ok(run("profiles", "--default", signed_in))
    assert f"credential: profile {signed_in}\n" in assert_ok(run("whoami"))
    assert server.token not in assert_ok(run("profiles"))
    assert "the default is now second" in assert_ok(run("logout", signed_in))


def test_logout_of_a_url_ends_every_profile_of_it_and_no_other(server, signed_in, tmp_path):
    profiles = Profiles(tmp_path / "config" / "rpcshare")
    profiles.add("remote", Profile(REMOTE), "other", in_keyring=False, default=False)
    assert json.loads(assert_ok(run("logout", f"{server.url}/", "--json"))) == [signed_in]
    assert list(profiles.read().profiles) == ["remote"]


def test_a_user_without_a_home_has_no_profiles_and_is_told_at_a_login(server, monkeypatch):
    def expanduser(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "expanduser", expanduser)
    assert run("ls", "--url", server.url, "--token", server.token).exit_code == 0
    assert_refused(run("ls", "--url", server.url), 4)
    assert "set XDG_CONFIG_HOME" in assert_refused(run("login", server.url, stdin=server.token), 1)


def test_a_damaged_file_matters_only_where_it_is_needed(server, kept, monkeypatch):
    kept.parent.mkdir(parents=True)
    kept.write_text("damaged")
    monkeypatch.setenv("RPCSHARE_URL", server.url)
    monkeypatch.setenv("RPCSHARE_TOKEN", server.token)
    assert assert_ok(run("whoami", "--json"))
    monkeypatch.delenv("RPCSHARE_TOKEN")
    monkeypatch.setenv("RPCSHARE_DATA_DIR", str(server.data_dir))
    result = run("whoami", "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: no profile is used: {kept} does not hold profiles")


def test_a_damaged_file_is_named_and_not_quoted(kept):
    kept.parent.mkdir(parents=True)
    kept.write_text('{"profiles": {"horse": "horse"}}')
    line = assert_refused(run("ls"), 1)
    assert line.startswith(f"{kept} does not hold profiles")
    assert "horse" not in line


def test_a_configuration_directory_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "config").write_text("a file")
    line = assert_refused(run("login", server.url, stdin=server.token), 1)
    assert line.startswith(f"cannot write {tmp_path / 'config' / 'rpcshare'}")


def test_logins_at_once_are_all_kept(tmp_path):
    profiles = Profiles(tmp_path)

    def add(number: int) -> None:
        profiles.add(str(number), Profile(f"https://h{number}"), "t", in_keyring=False, default=False)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(profiles.read().profiles) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profiles.json", "profiles.lock"]


class FakeKeyring(ModuleType):
    """Stands for the package keyring with a backend."""

    def __init__(self, priority: float) -> None:
        super().__init__("keyring")
        self.priority = priority
        self.tokens: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_keyring(self) -> SimpleNamespace:
        return SimpleNamespace(priority=self.priority)

    def get_password(self, service: str, name: str) -> str | None:
        if self.is_locked:
            raise RuntimeError("horse")
        return self.tokens.get((service, name))

    def set_password(self, service: str, name: str, token: str) -> None:
        if self.is_locked:
            raise RuntimeError(token)
        self.tokens[service, name] = token

    def delete_password(self, service: str, name: str) -> None:
        del self.tokens[service, name]


@pytest.fixture
def ring(monkeypatch) -> FakeKeyring:
    ring = FakeKeyring(5)
    monkeypatch.setitem(sys.modules, "keyring", ring)
    return ring


def test_with_a_keyring_the_token_is_there_and_not_in_the_file(server, ring, kept):
    assert_ok(run("login", server.url, "--name", "n", stdin=server.token))
    assert ring.tokens == {("rpcshare", "n"): server.token}
    assert server.token not in kept.read_text()
    assert "credential: profile n\n" in assert_ok(run("whoami"))
    assert_ok(run("logout"))
    assert ring.tokens == {}


def test_a_keyring_without_a_backend_is_none(server, ring, kept):
    ring.priority = 0
    assert_ok(run("login", server.url, stdin=server.token))
    assert ring.tokens == {}
    assert server.token in kept.read_text()


def test_a_keyring_that_fails_is_told_of_and_the_file_has_the_token(server, ring, kept):
    ring.is_locked = True
    result = run("login", server.url, stdin=server.token)
    assert result.exit_code == 0
    assert "the keyring did not take the token (RuntimeError)" in result.stderr
    assert server.token not in result.output
    assert server.token in kept.read_text()


def test_a_token_that_the_keyring_no_longer_gives_is_told_of(server, ring):
    assert_ok(run("login", server.url, "--name", "n", stdin=server.token))
    ring.tokens.clear()
    assert "was kept in the keyring" in assert_refused(run("ls"), 4)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://H.example:443/", "https://h.example"),
        ("wss://h/rpc", "https://h"),
        ("http://h:80/base/rpc/share", "http://h/base"),
        ("http://[::1]:8787/k/KEY/rpc", "http://[::1]:8787"),
        ("https://user:x@h/a/", "https://h/a"),
    ],
)
def test_servers_are_the_same_whatever_their_urls_end_with(url, base):
    assert base_of(url) == base
