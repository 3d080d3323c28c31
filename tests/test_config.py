"""The settings: where they come from, what wins, and what is said about a bad one."""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import Secret

from rpcshare.auth.caller import Scope
from rpcshare.config import FILE_ONLY, ConfigError, Settings, environment_name, load_settings, option_name

TOKEN = "a-very-secret-token"
SECRET = "8d0c7a4e-6a52-4b6c-9a07-6a1f3c1d9b10"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write_file(tmp_path):
    def write(content: str) -> Path:
        path = tmp_path / "rpcshare.toml"
        path.write_text(content, "utf-8")
        return path

    return write


def error_of(command_line=None, config_file=None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(command_line, config_file)
    return str(caught.value)


def plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, Secret) else value


# --- defaults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ("host", "127.0.0.1"),
        ("port", 8787),
        ("workers", 1),
        ("data_dir", Path(".rpcshare")),
        ("store", None),
        ("broadcast", "local://"),
        ("public_url", None),
        ("token", None),
        ("shared_secret", None),
        ("signing_key", None),
        ("jwt_issuer", None),
        ("jwt_audience", None),
        ("jwks_url", None),
        ("jwt_key", None),
        ("jwt_secret", None),
        ("jwt_role_claim", None),
        ("jwt_role_map", ()),
        ("tls_cert", None),
        ("client_cert_scope", (Scope.CREATE,)),
        ("trusted_proxy", ()),
        ("proxy_scope", (Scope.CREATE,)),
        ("anonymous_create", False),
        ("default_visibility", "link"),
        ("allowed_origins", ()),
        ("max_message_size", 16 * 1024 * 1024),
        ("max_share_size", 256 * 1024 * 1024),
        ("max_share_items", 200_000),
        ("keep_alive", 75),
        ("max_calls_in_flight", 1024),
        ("max_values", 500_000),
        ("max_session_memory", 320 * 1024**2),
        ("max_rpc_memory", 512 * 1024**2),
        ("max_creates", 300),
        ("max_failed_authentications", 20),
        ("max_connections", 2000),
        ("max_user_storage", 0),
        ("max_user_shares", 0),
        ("max_user_requests", 0),
        ("max_organization_storage", 0),
        ("max_organization_shares", 0),
        ("max_organization_requests", 0),
        ("redact", True),
        ("audit_log", None),
        ("log_level", "info"),
        ("log_format", "console"),
    ],
)
def test_a_setting_that_nobody_made_has_its_default(field, default):
    assert getattr(load_settings(), field) == default


# --- precedence ---------------------------------------------------------------------------------

# For each setting: what it is in the environment and on the command line, the same in TOML, and
# what that makes of it; three values, one for each place.
SCOPES = [
    ("read", '["read"]', (Scope.READ,)),
    ("create, read", '["create", "read"]', (Scope.CREATE, Scope.READ)),
    ("admin,read,", '"admin"', (Scope.ADMIN, Scope.READ)),
]
FILES = [("/a", '"/a"', Path("/a")), ("b", '"b"', Path("b")), ("c", '"c"', Path("c"))]
HOSTS = [
    ("a.example, *.b.example:8443", '["a.example", "*.b.example:8443"]', ("a.example", "*.b.example:8443")),
    ("c.example", '"c.example"', ("c.example",)),
    ("", "[]", ()),
]
# These do not stand alone.
TOGETHER = {
    "tls_cert": {"tls_key": "/k"},
    "tls_key": {"tls_cert": "/c"},
    "client_ca": {"tls_cert": "/c", "tls_key": "/k"},
    "client_crl": {"tls_cert": "/c", "tls_key": "/k", "client_ca": "/ca"},
    "proxy_subject_header": {"trusted_proxy": "10.0.0.1"},
    "proxy_secret": {"trusted_proxy": "10.0.0.1"},
    "proxy_secret_file": {"trusted_proxy": "10.0.0.1"},
}
SOURCES = [
    ("key,jwt", '"key,jwt"', ("key", "jwt")),
    ("token, proxy", '["token", "proxy"]', ("token", "proxy")),
    ("certificate,jwt:https://a", '"certificate,jwt:https://a"', ("certificate", "jwt:https://a")),
]
EXAMPLES: dict[str, list[Any]] = {
    "host": [("a.example", '"a.example"', "a.example"), ("b", '"b"', "b"), ("c", '"c"', "c")],
    "port": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "workers": [("1", "1", 1), ("2", "2", 2), ("8", "8", 8)],
    "data_dir": [("/a", '"/a"', Path("/a")), ("b", '"b"', Path("b")), ("c", '"c"', Path("c"))],
    "store": [
        ("memory://", '"memory://"', "memory://"),
        ("sqlite:///a", '"sqlite:///a"', "sqlite:///a"),
        ("s3://b/p", '"s3://b/p"', "s3://b/p"),
    ],
    "database": [
        ("sqlite:///a", '"sqlite:///a"', "sqlite:///a"),
        ("postgresql://a/b", '"postgresql://a/b"', "postgresql://a/b"),
        ("sqlite:////c", '"sqlite:////c"', "sqlite:////c"),
    ],
    "broadcast": [
        ("local://", '"local://"', "local://"),
        ("redis://a/0", '"redis://a/0"', "redis://a/0"),
        ("redis://b/0", '"redis://b/0"', "redis://b/0"),
    ],
    "encryption_key_file": FILES,
    "tls_cert": FILES,
    "tls_key": FILES,
    "client_ca": FILES,
    "client_crl": FILES,
    "client_cert_scope": SCOPES,
    "trusted_proxy": [
        ("10.0.0.0/8", '["10.0.0.0/8"]', (ip_network("10.0.0.0/8"),)),
        ("::1, 127.0.0.1", '"::1,127.0.0.1"', (ip_network("::1"), ip_network("127.0.0.1"))),
        ("", "[]", ()),
    ],
    "proxy_subject_header": [("X-A", '"X-A"', "X-A"), ("b", '"b"', "b"), ("C", '"C"', "C")],
    "proxy_scope": SCOPES,
    "proxy_secret": [(each * 16, f'"{each * 16}"', each * 16) for each in "abc"],
    "proxy_secret_file": [("/a", '"/a"', Path("/a")), ("b", '"b"', Path("b")), ("c", '"c"', Path("c"))],
    "proxy_secret_header": [("X-A", '"X-A"', "X-A"), ("b", '"b"', "b"), ("C", '"C"', "C")],
    "proxy_hops": [("1", "1", 1), ("2", "2", 2), ("16", "16", 16)],
    "same_subjects": SOURCES,
    "unprefixed_subjects": SOURCES,
    "encryption_allow_plain": [("1", "true", True), ("no", "false", False), ("on", "true", True)],
    "public_url": [
        ("https://a", '"https://a"', "https://a"),
        ("b.example", '"b.example"', "https://b.example"),
        ("http://c/", '"http://c/"', "http://c"),
    ],
    "token": [("a", '"a"', "a"), ("b", '"b"', "b"), ("c", '"c"', "c")],
    "shared_secret": [(str(UUID(int=n)), f'"{UUID(int=n)}"', UUID(int=n)) for n in (1, 2, 3)],
    "signing_key": [("/a", '"/a"', Path("/a")), ("b", '"b"', Path("b")), ("c", '"c"', Path("c"))],
    "jwt_issuer": [("https://a", '"https://a"', "https://a"), ("b", '"b"', "b"), ("c", '"c"', "c")],
    "jwt_audience": [("https://a", '"https://a"', "https://a"), ("b", '"b"', "b"), ("c", '"c"', "c")],
    "jwks_url": [
        (f"https://{host}/jwks", f'"https://{host}/jwks"', f"https://{host}/jwks") for host in "abc"
    ],
    "jwt_key": [("/a", '"/a"', Path("/a")), ("b", '"b"', Path("b")), ("c", '"c"', Path("c"))],
    "jwt_secret": [(char * 32, f'"{char * 32}"', char * 32) for char in "abc"],
    "jwt_role_claim": [("a.b", '"a.b"', "a.b"), ("b", '"b"', "b"), ("c", '"c"', "c")],
    "jwt_role_map": [
        ("a=read", '{a = "read"}', (("a", "read"),)),
        ("a=b=read, c=create", '"a=b=read, c=create"', (("a=b", "read"), ("c", "create"))),
        ("a=read,a=create", '[["a", "read"], ["a", "create"]]', (("a", "read"), ("a", "create"))),
    ],
    "default_visibility": [
        ("private", '"private"', "private"),
        ("link", '"link"', "link"),
        ("PRIVATE", '"private"', "private"),
    ],
    "anonymous_create": [("1", "true", True), ("no", "false", False), ("on", "true", True)],
    "allowed_origins": [
        ("https://a", '["https://a"]', ("https://a",)),
        ("https://a, http://b/", '["https://a", "http://b"]', ("https://a", "http://b")),
        ("", "[]", ()),
    ],
    "max_message_size": [("1KiB", '"1KiB"', 1024), ("2", "2", 2), ("0", "0", 0)],
    "max_share_size": [("1 MiB", '"1 MiB"', 1024**2), ("2", "2", 2), ("0", "0", 0)],
    "max_share_items": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_values": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_session_memory": [("1 MiB", '"1 MiB"', 1024**2), ("2", "2", 2), ("0", "0", 0)],
    "max_rpc_memory": [("1 MiB", '"1 MiB"', 1024**2), ("2", "2", 2), ("0", "0", 0)],
    "keep_alive": [("5", "5", 5), ("90", "90", 90), ("2m", '"2m"', 120)],
    "max_calls_in_flight": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_creates": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_failed_authentications": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_connections": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_user_storage": [("1 MiB", '"1 MiB"', 1024**2), ("2", "2", 2), ("0", "0", 0)],
    "max_user_shares": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_user_requests": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_organization_storage": [("1 MiB", '"1 MiB"', 1024**2), ("2", "2", 2), ("0", "0", 0)],
    "max_organization_shares": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "max_organization_requests": [("1", "1", 1), ("2", "2", 2), ("0", "0", 0)],
    "redact": [("0", "false", False), ("yes", "true", True), ("off", "false", False)],
    "access_log": [("true", "true", True), ("false", "false", False), ("1", "true", True)],
    "vault_retrieve": [("false", "false", False), ("true", "true", True), ("0", "false", False)],
    "agents": [
        ("local", '"local"', "local"),
        ("OFF", '"off"', "off"),
        ("DOCKER", '"docker"', "docker"),
    ],
    "agents_image": [
        ("agents", '"agents"', "agents"),
        ("registry.example:5000/a/b:1", '"registry.example:5000/a/b:1"', "registry.example:5000/a/b:1"),
        ("a@sha256:0f", '"a@sha256:0f"', "a@sha256:0f"),
    ],
    "agents_claim": [("a", '"a"', "a"), ("a-1", '"a-1"', "a-1"), ("0", '"0"', "0")],
    "agents_namespace": [("a", '"a"', "a"), ("a-1", '"a-1"', "a-1"), ("0", '"0"', "0")],
    "agents_engine": [
        ("unix:///run/docker.sock", '"unix:///run/docker.sock"', Path("/run/docker.sock")),
        ("/run/podman/podman.sock", '"/run/podman/podman.sock"', Path("/run/podman/podman.sock")),
        ("/s", '"/s"', Path("/s")),
    ],
    "agents_unsafe": [("1", "true", True), ("no", "false", False), ("on", "true", True)],
    "agents_user": [
        ("1000", "1000", (1000, 1000)),
        ("1000:1001", '"1000:1001"', (1000, 1001)),
        ("5", "5", (5, 5)),
    ],
    "opencode_bin": FILES,
    "agents_idle_timeout": [("5", "5", 5), ("90s", '"90s"', 90), ("2m", '"2m"', 120)],
    "max_agents": [("1", "1", 1), ("2", "2", 2), ("3", "3", 3)],
    "max_running_agents": [("1", "1", 1), ("2", "2", 2), ("3", "3", 3)],
    "workspaces_dir": FILES,
    "max_workspaces": [("1", "1", 1), ("2", "2", 2), ("3", "3", 3)],
    "max_workspace_memory": [
        ("1GiB", '"1GiB"', 1024**3),
        ("67108864", "67108864", 2**26),
        ("2 GiB", '"2 GiB"', 2**31),
    ],
    "max_workspace_cpu": [("1", "1", 1.0), ("0.5", "0.5", 0.5), ("4", "4", 4.0)],
    "max_workspace_disk": [
        ("1GiB", '"1GiB"', 1024**3),
        ("2MiB", '"2MiB"', 2**21),
        ("3MiB", '"3MiB"', 3 * 2**20),
    ],
    "egress_allow": HOSTS,
    "egress_private": HOSTS,
    "egress_by_owner": [("false", "false", False), ("true", "true", True), ("0", "false", False)],
    "git_known_hosts": FILES,
    "git_ca_file": FILES,
    "git_file_root": FILES,
    "metrics": [("false", "false", False), ("true", "true", True), ("0", "false", False)],
    "metrics_token": [("a", '"a"', "a"), ("b", '"b"', "b"), ("c", '"c"', "c")],
    "sign_in_link": [("false", "false", False), ("true", "true", True), ("0", "false", False)],
    "audit_log": [("/a", '"/a"', Path("/a")), ("b", '"b"', Path("b")), ("c", '"c"', Path("c"))],
    "log_level": [
        ("DEBUG", '"DEBUG"', "debug"),
        ("warning", '"warning"', "warning"),
        ("error", '"error"', "error"),
    ],
    "log_format": [
        ("json", '"json"', "json"),
        ("console", '"console"', "console"),
        ("JSON", '"JSON"', "json"),
    ],
}


def test_every_setting_has_an_example():
    assert set(EXAMPLES) == set(Settings.model_fields) - FILE_ONLY


@pytest.mark.parametrize("field", EXAMPLES)
def test_the_command_line_wins_over_the_environment_which_wins_over_the_file(field, write_file, monkeypatch):
    in_file, in_environment, on_command_line = EXAMPLES[field]
    path = write_file(f"{field} = {in_file[1]}")

    def value(command_line=None):
        given = {**TOGETHER.get(field, {}), **(command_line or {})}
        return plain(getattr(load_settings(given, path), field))

    assert value() == in_file[2]
    monkeypatch.setenv(environment_name(field), in_environment[0])
    assert value() == in_environment[2]
    assert value({field: on_command_line[0]}) == on_command_line[2]


def test_settings_from_different_places_combine(write_file, monkeypatch):
    path = write_file('host = "::1"\nport = 1\ntoken = "t"')
    monkeypatch.setenv("RPCSHARE_PORT", "2")
    monkeypatch.setenv("RPCSHARE_LOG_LEVEL", "debug")
    settings = load_settings({"log_level": "error"}, path)
    assert (settings.host, settings.port, settings.log_level) == ("::1", 2, "error")


def test_an_option_that_was_not_given_overrides_nothing(monkeypatch):
    monkeypatch.setenv("RPCSHARE_PORT", "2")
    assert load_settings({"port": None, "anonymous_create": None}).port == 2


def test_turning_a_thing_off_on_the_command_line_overrides_the_environment(monkeypatch):
    monkeypatch.setenv("RPCSHARE_ANONYMOUS_CREATE", "true")
    assert not load_settings({"anonymous_create": False}).anonymous_create


def test_what_kubernetes_sets_for_a_service_of_the_name_is_no_port(monkeypatch):
    monkeypatch.setenv("RPCSHARE_PORT", "tcp://10.0.0.1:8787")
    assert load_settings({}).port == 8787


def test_the_environment_may_name_the_file_of_a_secret(monkeypatch, tmp_path):
    for field, value in {
        "token": TOKEN,
        "shared_secret": SECRET,
        "database": "postgresql://u:p@db/x",
    }.items():
        (tmp_path / field).write_text(f"{value}\n")
        monkeypatch.setenv(f"{environment_name(field)}_FILE", str(tmp_path / field))
    settings = load_settings({"database": "postgresql://other/x"})
    assert settings.token is not None
    assert settings.token.get_secret_value() == TOKEN
    assert settings.shared_secret is not None
    assert settings.shared_secret.get_secret_value() == UUID(SECRET)
    assert settings.database == "postgresql://other/x"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "RPCSHARE_TOKEN_FILE: cannot read {path}: No such file or directory"),
        (b" \n", "RPCSHARE_TOKEN_FILE: {path} is empty"),
        (b"\xff", "RPCSHARE_TOKEN_FILE: {path} is not UTF-8"),
        (b"a b\n", "RPCSHARE_TOKEN_FILE: "),
    ],
)
def test_a_bad_file_of_a_secret_is_named_and_not_quoted(content, complaint, monkeypatch, tmp_path):
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("RPCSHARE_TOKEN_FILE", str(path))
    error = error_of()
    assert error.startswith(complaint.format(path=path))
    assert "a b" not in error


def test_a_secret_and_a_file_of_it_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("RPCSHARE_TOKEN", TOKEN)
    monkeypatch.setenv("RPCSHARE_TOKEN_FILE", str(tmp_path / "token"))
    assert error_of() == "RPCSHARE_TOKEN and RPCSHARE_TOKEN_FILE: give one of them"


def test_an_empty_environment_variable_sets_nothing(monkeypatch):
    monkeypatch.setenv("RPCSHARE_TOKEN", "")
    monkeypatch.setenv("RPCSHARE_PORT", "")
    settings = load_settings()
    assert (settings.token, settings.port) == (None, 8787)


def test_settings_made_in_a_program_do_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("RPCSHARE_PORT", "2")
    assert Settings().port == 8787


# --- the file -----------------------------------------------------------------------------------


def test_a_key_of_the_file_may_be_spelled_like_the_option(write_file):
    assert load_settings(config_file=write_file('data-dir = "/d"')).data_dir == Path("/d")


def test_a_key_in_two_spellings_is_refused(write_file):
    path = write_file('data-dir = "/d"\ndata_dir = "/e"')
    assert error_of(config_file=path) == f"--config: {path} has 'data_dir' in two spellings"


@pytest.mark.parametrize("content", ["prot = 1", "port = 1\nprot = 2", "[prot]\nport = 1"])
def test_an_unknown_key_is_named(write_file, content):
    path = write_file(content)
    assert error_of(config_file=path) == f"--config: {path} has the unknown key 'prot'"


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.toml"
    expected = f"--config: cannot read {path}: No such file or directory"
    assert error_of(config_file=path) == expected


def test_a_file_that_is_not_toml_is_named_with_the_place(write_file):
    path = write_file(f"port = 1\ntoken = {TOKEN}")
    message = error_of(config_file=path)
    assert message.startswith(f"--config: {path} is not TOML: ")
    assert "line 2" in message
    assert TOKEN not in message


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes(b'host = "\xe9"')
    assert error_of(config_file=path) == f"--config: {path} is not UTF-8"


# --- bad values ---------------------------------------------------------------------------------

BAD = [
    ("host", ""),
    ("port", "http"),
    ("port", "-1"),
    ("port", "65536"),
    ("port", "80.5"),
    ("data_dir", ""),
    ("data_dir", "~nobody-of-that-name/x"),
    ("store", " "),
    ("broadcast", ""),
    ("public_url", ""),
    ("public_url", "ftp://example.com"),
    ("public_url", "https://"),
    ("public_url", "https://example.com:port"),
    ("public_url", "https://user:pass@example.com"),
    ("public_url", "https://example.com/?q"),
    ("public_url", "https://example.com/#f"),
    ("public_url", "https://exa mple.com"),
    ("public_url", "https://example.com/a b"),
    ("public_url", "https://ex\xe4mple.com"),
    ("public_url", "mailto:me"),
    ("token", ""),
    ("token", "two words"),
    ("token", "na\xefve"),
    ("token", "x" * 8193),
    ("shared_secret", ""),
    ("shared_secret", "not-a-uuid"),
    ("shared_secret", SECRET + "0"),
    ("signing_key", ""),
    ("jwt_issuer", " "),
    ("jwt_audience", ""),
    ("jwks_url", "id.example/jwks"),
    ("jwks_url", "file:///etc/passwd"),
    ("jwks_url", "https://"),
    ("jwt_key", ""),
    ("jwt_secret", "x" * 31),
    ("jwt_secret", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----"),
    ("jwt_role_claim", ""),
    ("jwt_role_map", "editor"),
    ("jwt_role_map", "editor=write"),
    ("jwt_role_map", "=read"),
    ("anonymous_create", "perhaps"),
    ("tls_cert", ""),
    ("client_cert_scope", "everything"),
    ("client_cert_scope", "create;read"),
    ("trusted_proxy", "proxy.example"),
    ("trusted_proxy", "10.0.0.1/8"),
    ("trusted_proxy", "10.0.0.0/33"),
    ("proxy_subject_header", ""),
    ("proxy_subject_header", "X User"),
    ("proxy_subject_header", "X-User:"),
    ("proxy_scope", "root"),
    ("proxy_secret", "too short"),
    ("proxy_secret", "with a space in the middle"),
    ("proxy_secret_header", "X User"),
    ("proxy_hops", "0"),
    ("same_subjects", "key"),
    ("same_subjects", "key,ldap"),
    ("unprefixed_subjects", "admin"),
    ("allowed_origins", "example.com"),
    ("allowed_origins", "https://a,https://b/path"),
    ("allowed_origins", "*"),
    ("max_message_size", "-1"),
    ("max_message_size", "lots"),
    ("max_share_size", "1 parsec"),
    ("max_calls_in_flight", "-1"),
    ("max_calls_in_flight", "many"),
    ("max_creates", "-1"),
    ("max_failed_authentications", "few"),
    ("max_connections", "-1"),
    ("max_user_storage", "lots"),
    ("max_user_shares", "-1"),
    ("max_organization_requests", "few"),
    ("redact", "perhaps"),
    ("audit_log", ""),
    ("log_level", "loud"),
    ("log_format", "xml"),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_option_gets_one_line_that_names_it(field, value):
    message = error_of({field: value})
    assert message.startswith(f"{option_name(field)}: ")
    assert "\n" not in message


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, v in BAD if v])
def test_a_bad_variable_gets_one_line_that_names_it(field, value, monkeypatch):
    monkeypatch.setenv(environment_name(field), value)
    message = error_of()
    assert message.startswith(f"{environment_name(field)}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "content",
    [
        'port = "x"',
        "port = [1]",
        "host = 1",
        "token = 1",
        "shared_secret = 1",
        "shared_secret = 1979-05-27",
        "public_url = true",
        "data_dir = 1",
        "anonymous_create = 7",
        'jwt_role_map = ["a"]',
        "jwt_role_map = {a = 1}",
        "jwt_secret = 1",
        "allowed_origins = 1",
        "allowed_origins = [1]",
        'allowed_origins = ["x"]',
        "max_share_size = -1",
        "log_level = 1",
        "store.url = 'memory://'",
    ],
)
def test_a_bad_value_in_the_file_gets_one_line_that_names_key_and_file(write_file, content):
    path = write_file(content)
    message = error_of(config_file=path)
    key = content.replace(".", " ").split()[0]
    assert message.startswith(f"{key} in {path}: ")
    assert "\n" not in message


def test_a_bad_value_that_is_no_secret_is_shown():
    assert error_of({"port": "http"}) == "--port: must be a whole number, not 'http'"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token", f"{TOKEN} {TOKEN}"),
        ("shared_secret", f"{SECRET}0"),
        ("shared_secret", f"z{SECRET}"),
        ("shared_secret", f"z{SECRET[1:]}"),
        ("jwt_secret", TOKEN),
        ("jwks_url", f"ftp://me:{TOKEN}@example.com"),
        ("public_url", f"https://me:{TOKEN}@example.com"),
        ("public_url", f"https://[{TOKEN}]"),
    ],
)
def test_a_bad_value_that_may_be_secret_is_not_shown(field, value):
    message = error_of({field: value})
    assert not any(secret in message for secret in (TOKEN, SECRET[1:], "z", "me:"))


def test_no_cause_of_an_error_shows_a_secret():
    with pytest.raises(ConfigError) as caught:
        load_settings({"shared_secret": f"{SECRET}0"})
    assert caught.value.__cause__ is None
    assert SECRET not in repr(caught.value.__context__)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_cert": "c"}, "--tls-cert: needs --tls-key too"),
        ({"tls_key": "k"}, "--tls-key: needs --tls-cert too"),
        ({"client_ca": "ca"}, "--client-ca: needs --tls-cert too"),
        ({"tls_cert": "c", "tls_key": "k", "client_crl": "l"}, "--client-crl: needs --client-ca too"),
        ({"proxy_subject_header": "X-User"}, "--proxy-subject-header: needs --trusted-proxy too"),
        ({"proxy_secret_file": "f"}, "--proxy-secret-file: needs --trusted-proxy too"),
    ],
)
def test_a_setting_that_means_nothing_without_another_names_that(given, message):
    assert error_of(given) == message


# --- what values become -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "base_url"),
    [
        ("share.example.com", "https://share.example.com"),
        ("share.example.com/", "https://share.example.com"),
        ("share.example.com:8443", "https://share.example.com:8443"),
        ("share.example.com/base/", "https://share.example.com/base"),
        ("localhost:8787", "https://localhost:8787"),
        ("http://share.example.com//", "http://share.example.com"),
        ("HTTPS://Share.Example.com:443/Base", "https://share.example.com/Base"),
        ("http://[::1]:8787", "http://[::1]:8787"),
    ],
)
def test_a_public_url_has_a_scheme_and_no_slash_at_its_end(given, base_url):
    assert load_settings({"public_url": given}).base_url() == base_url


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1234"),
        ("localhost", "http://localhost:1234"),
        ("::1", "http://[::1]:1234"),
        ("[::1]", "http://[::1]:1234"),
    ],
)
def test_without_a_public_url_links_name_host_and_port(host, base_url):
    assert load_settings({"host": host, "port": "1234"}).base_url() == base_url


def test_links_are_https_where_the_server_speaks_it():
    settings = load_settings({"tls_cert": "c", "tls_key": "k", "port": "1234"})
    assert settings.base_url() == "https://127.0.0.1:1234"


def test_links_name_the_port_that_was_found_where_any_would_do():
    assert load_settings({"port": "0"}).base_url(40001) == "http://127.0.0.1:40001"


def test_a_public_url_does_not_take_the_port_listened_on():
    assert load_settings({"public_url": "example.com"}).base_url(40001) == "https://example.com"


@pytest.mark.parametrize(
    ("data_dir", "store_url"),
    [
        ("d", "sqlite:///d/store.sqlite3"),
        ("/d", "sqlite:////d/store.sqlite3"),
        ("/d e?f#g%h", "sqlite:////d%20e%3Ff%23g%25h/store.sqlite3"),
    ],
)
def test_without_a_store_it_is_a_file_in_the_data_dir(data_dir, store_url):
    assert load_settings({"data_dir": data_dir}).store_url == store_url


def test_a_store_that_was_set_is_the_store():
    assert load_settings({"store": "memory://", "data_dir": "/d"}).store_url == "memory://"


def test_a_tilde_in_the_data_dir_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load_settings({"data_dir": "~/share"}).data_dir == Path("/home/me/share")


# --- secrecy ------------------------------------------------------------------------------------


def test_settings_do_not_show_what_is_secret():
    settings = load_settings(
        {
            "token": TOKEN,
            "shared_secret": SECRET,
            "broadcast": f"redis://:{TOKEN}@host",
            "store": f"s3://bucket?secret={TOKEN}",
        }
    )
    shown = f"{settings!r} {settings} {settings.token} {settings.shared_secret!r}"
    assert not any(secret in shown for secret in (TOKEN, SECRET))


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]
