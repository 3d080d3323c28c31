"""The settings of a server: their names, defaults and limits, and the three places they come from.

Each setting has one name. It is spelled ``--data-dir`` on the command line, ``RPCSHARE_DATA_DIR`` in the
environment, and ``data_dir`` or ``data-dir`` in the TOML file.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from rpcshare import setting_types as types
from rpcshare.auth.caller import DefaultVisibility, Scope
from rpcshare.auth.subject_sources import Source, jwt_source

__all__ = [
    "DATABASE_FILE",
    "FILE_ONLY",
    "NEVER_SHOWN",
    "RECORDS_FILE",
    "ConfigError",
    "Settings",
    "environment_name",
    "known_variables",
    "load_configuration",
    "load_settings",
    "option_name",
    "require_address",
    "unknown_variables",
]

_ENVIRONMENT_PREFIX = "RPCSHARE_"

# Of commands and of the build, which are no settings of a server.
_OTHER_VARIABLES = ("CONFIG", "URL", "PROFILE", "CA", "CERT", "CERT_KEY", "P12_PASSWORD", "COMPILE")

# What Kubernetes sets in every container for a Service of the name rpcshare.
_SERVICE_LINK = re.compile(r"RPCSHARE_(SERVICE_(HOST|PORT)|PORT_[0-9]+_(TCP|UDP|SCTP)).*")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)  # in RPCSHARE_PORT

NEVER_SHOWN = frozenset(
    {
        "token",
        "metrics_token",
        "shared_secret",
        "store",
        "database",
        "broadcast",
        "public_url",
        "jwt_secret",
        "jwks_url",
        "proxy_secret",
        "oidc",
        "models",
    }
)
"""Tokens, and URLs that may hold a password: an error names these settings but never their values."""

FILE_ONLY = frozenset({"oidc", "models"})
"""Settings that are tables: neither an option nor a variable can give them."""

_IN_FILES = ("token", "metrics_token", "shared_secret", "jwt_secret", "store", "database", "broadcast")
"""Settings that may hold a secret: the environment may name a file with the value instead, by NAME_FILE."""

_LONGEST_SHOWN = 60

# A setting, and the one without which it means nothing.
_NEEDS = {
    "tls_cert": "tls_key",
    "tls_key": "tls_cert",
    "client_ca": "tls_cert",
    "client_crl": "client_ca",
    "proxy_subject_header": "trusted_proxy",
    "proxy_secret": "trusted_proxy",
    "proxy_secret_file": "trusted_proxy",
}

# Where pydantic speaks of its own types rather than of the setting.
_REASONS = {
    "bool_parsing": "must be true or false",
    "byte_size": "must be a number of bytes, such as 16MiB",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
}

_STORE_FILE = "store.sqlite3"
DATABASE_FILE = "database.sqlite3"
"""The name of the database in the data directory."""
RECORDS_FILE = "records.sqlite3"
"""The name of the database of users and other records, which is nowhere else."""


class ConfigError(Exception):
    """A setting that the server cannot start with, in one line that names it and no secret."""


class Settings(BaseModel):
    """The validated settings of a server. A field's description is its ``--help``.

    The constructor reads nothing from the environment: :func:`load_settings` does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    if TYPE_CHECKING:

        def __init__(self, **values: object) -> None: ...  # of whatever types: they are validated

    host: types.Host = Field(
        "127.0.0.1",
        description="Address to listen on, or unix:PATH for a Unix socket, which needs --public-url.",
    )
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0 means any free port.")
    keep_alive: types.Seconds = Field(
        75,
        description="How long a connection may be idle between two requests, such as 75s. It must be longer "
        "than the proxy in front keeps it.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=128,
        description="Number of processes that serve, on one port and one store. More than the number of "
        "cores do not help.",
    )
    data_dir: types.FilePath = Field(
        Path(".rpcshare"), description="Directory of the embedded store and the server's secrets."
    )
    store: types.Text | None = Field(
        None,
        repr=False,
        description="URL of the store of shares: sqlite:///PATH, memory:// or s3://BUCKET/PREFIX. "
        "[default: the embedded store in the data directory]",
    )
    database: types.Text | None = Field(
        None,
        repr=False,
        description="URL of the database of search: sqlite:///PATH, or postgresql://USER@HOST/DATABASE for "
        "several servers. [default: a SQLite file in the data directory]",
    )
    broadcast: types.Text = Field(
        "local://",
        repr=False,
        description="How servers that share a store notify each other: local:// or redis://HOST:PORT/DB.",
    )
    encryption_key_file: types.FilePath | None = Field(
        None,
        description="File with encryption keys, one per line. The first encrypts objects, all decrypt them. "
        "[default: no encryption]",
    )
    encryption_allow_plain: bool = Field(
        default=False, description="Also read objects that were stored without encryption."
    )
    public_url: types.PublicURL | None = Field(
        None,
        description="Base URL of every share link. Only pages at this URL count as the server's own. A bare "
        "host name means https://. "
        "[default: http://HOST:PORT, or https:// with --tls-cert]",
    )
    token: types.Token | None = Field(
        None, description="The admin token. [default: created once and kept in the data directory]"
    )
    shared_secret: types.UUIDSecret | None = Field(
        None,
        description="UUID from which the secrets of shares are derived. "
        "[default: created once and kept in the data directory]",
    )
    signing_key: types.FilePath | None = Field(
        None,
        description="File with the Ed25519 private key for 'rpcshare token'. Servers that share it "
        "accept each other's tokens. [default: created once and kept in the data directory]",
    )
    jwt_issuer: types.Text | None = Field(
        None, description="Issuer whose signed tokens are accepted. Their claim iss must be exactly this."
    )
    jwt_audience: types.Text | None = Field(
        None,
        description="Audience that tokens of --jwt-issuer must have: their claim aud, or one of its values.",
    )
    jwks_url: types.JWKSURL | None = Field(
        None, repr=False, description="URL of the public keys of --jwt-issuer, as a JWKS."
    )
    jwt_key: types.FilePath | None = Field(
        None, description="File with the public keys of --jwt-issuer: PEM, JWK or JWKS."
    )
    jwt_secret: types.JWTSecret | None = Field(
        None, description="Secret shared with --jwt-issuer. Its tokens are then HS256, HS384 or HS512."
    )
    jwt_role_claim: types.Text | None = Field(
        None,
        description="Claim with the roles of a user, or the path to that claim, such as realm_access.roles.",
    )
    jwt_role_map: types.RoleMap = Field((), description="Scopes of roles: ROLE=SCOPE,ROLE=SCOPE,...")
    tls_cert: types.FilePath | None = Field(
        None,
        description="The server's certificate, in PEM, with the intermediate ones. The server then speaks "
        "https.",
    )
    tls_key: types.FilePath | None = Field(None, description="Key of --tls-cert, in PEM.")
    client_ca: types.FilePath | None = Field(
        None,
        description="CA certificates, in PEM. A client certificate that they issued identifies its subject.",
    )
    client_crl: types.FilePath | None = Field(
        None, description="Revocation lists of --client-ca, in PEM; read again when the file changes."
    )
    client_cert_scope: types.Scopes = Field(
        (Scope.CREATE,),
        description="Scopes of client certificates: create, read, admin; several with commas.",
    )
    trusted_proxy: types.Networks = Field(
        (),
        description="Addresses or networks of trusted proxies; several with commas, or by repeating the "
        "option.",
    )
    proxy_subject_header: types.HeaderName | None = Field(
        None, description="Header in which a trusted proxy names the caller that it has authenticated."
    )
    proxy_scope: types.Scopes = Field(
        (Scope.CREATE,),
        description="Scopes of callers that a proxy names: create, read, admin; several with commas.",
    )
    proxy_secret: types.ProxySecret | None = Field(
        None,
        description="Secret that a trusted proxy must show in --proxy-secret-header. Without it, the request "
        "counts as one from no proxy.",
    )
    proxy_secret_file: types.FilePath | None = Field(
        None, description="File with the proxy secret, in place of --proxy-secret."
    )
    proxy_secret_header: types.HeaderName = Field(
        "X-Proxy-Secret", description="Header in which a trusted proxy shows the proxy secret."
    )
    proxy_hops: int = Field(
        1,
        ge=1,
        le=16,
        description="Number of proxies that a request passes, one after the other. Proxies that "
        "--trusted-proxy names by a single address do not count.",
    )
    same_subjects: types.TwoSources = Field(
        (),
        description="Sources in which the same name is the same owner: two or more of key, token, jwt, "
        "certificate, proxy, with commas.",
    )
    unprefixed_subjects: types.Sources = Field(
        (),
        description="Sources whose callers own the shares of older versions, which stored no source. "
        "[default: decided at the first start, and kept in the store]",
    )
    anonymous_create: bool = Field(
        default=False, description="Let callers without a credential create shares."
    )
    default_visibility: Annotated[DefaultVisibility, types.AnyCase] = Field(
        "link",
        description="Who may read a new share, unless its creator says: link (whoever has the link), "
        "private, or organization (the users of the owner's organization). An API key may have a default of "
        "its own.",
    )
    allowed_origins: types.Origins = Field(
        (),
        description="Origins whose pages may call the server, in addition to its own: https://HOST,https://HOST,...",
    )
    max_message_size: ByteSize = Field(
        ByteSize(16 * 1024**2),
        ge=0,
        description="Largest message that is accepted, such as 16MiB; 0 means no limit.",
    )
    max_share_size: ByteSize = Field(
        ByteSize(256 * 1024**2),
        ge=0,
        description="Largest share that is stored, such as 256MiB; 0 means no limit.",
    )
    max_share_items: int = Field(
        200_000,
        ge=0,
        description="Maximum number of messages, parts, diffs and models in a share, or in one sync; "
        "0 means no limit.",
    )
    max_calls_in_flight: int = Field(
        1024, ge=0, description="Maximum number of calls in flight on one connection; 0 means no limit."
    )
    max_values: int = Field(
        500_000,
        ge=0,
        description="Maximum number of values, including arrays and objects, in one RPC message, or copied "
        "because of one; 0 means no limit.",
    )
    max_session_memory: ByteSize = Field(
        ByteSize(320 * 1024**2),
        ge=0,
        description="Maximum memory, roughly, for what one RPC connection sends and requests; "
        "0 means no limit.",
    )
    max_rpc_memory: ByteSize = Field(
        ByteSize(512 * 1024**2),
        ge=0,
        description="Maximum memory for all RPC connections. When it is exceeded, a connection of the "
        "caller that uses most is closed; 0 means no limit.",
    )
    max_creates: int = Field(
        300,
        ge=0,
        description="Maximum number of shares that one caller may create in a minute; 0 means no limit.",
    )
    max_failed_authentications: int = Field(
        20,
        ge=0,
        description="Number of wrong credentials and secrets from one address in a minute before more are "
        "refused; 0 means no limit.",
    )
    max_connections: int = Field(
        2000, ge=0, description="Maximum number of open WebSockets of one caller; 0 means no limit."
    )
    max_user_storage: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="Largest size of all shares of a user, such as 10GiB; 0 means no limit.",
    )
    max_user_shares: int = Field(
        0, ge=0, description="Maximum number of shares that a user may have; 0 means no limit."
    )
    max_user_requests: int = Field(
        0,
        ge=0,
        description="Maximum number of requests, and calls over RPC, of a user in a minute; 0 means no "
        "limit.",
    )
    max_organization_storage: ByteSize = Field(
        ByteSize(0),
        ge=0,
        description="Largest size of all shares of an organization's users; 0 means no limit.",
    )
    max_organization_shares: int = Field(
        0, ge=0, description="Maximum number of shares of an organization's users; 0 means no limit."
    )
    max_organization_requests: int = Field(
        0,
        ge=0,
        description="Maximum number of requests, and calls over RPC, of an organization's users in a minute; "
        "0 means no limit.",
    )
    redact: bool = Field(
        default=True, description="Replace text that looks like a provider's credential before it is stored."
    )
    vault_retrieve: bool = Field(
        default=True,
        description="Let owners read the values that they keep in the vault. Without it, they are only used.",
    )
    agents: Annotated[Literal["off", "local", "docker", "kubernetes"], types.AnyCase] = Field(
        "off",
        description="What runs agents, in sandboxes: off, local (bubblewrap, on this machine), docker "
        "(containers of Docker or Podman, on this machine), or kubernetes (pods).",
    )
    agents_image: types.ImageName = Field(
        "rpcshare-agents",
        description="Container image in which agents run. It has python3, sh, git and the agent's program.",
    )
    agents_engine: types.EngineSocket | None = Field(
        None,
        description="Socket of the container engine: unix:///PATH, or PATH. [default: Docker's, or Podman's]",
    )
    agents_claim: types.KubernetesName | None = Field(
        None,
        description="Claim of the volume that is mounted at --workspaces-dir, and that pods of agents mount: "
        "ReadWriteMany, in their namespace.",
    )
    agents_namespace: types.KubernetesName | None = Field(
        None, description="Kubernetes namespace of agents. [default: the server's own]"
    )
    agents_unsafe: bool = Field(
        default=False,
        description="Run agents without a sandbox where there is no bubblewrap. They can do all that the "
        "server can.",
    )
    agents_user: types.UserIds = Field(
        (65534, 65534),
        description="User and group, as numbers USER:GROUP, of agents and their files on a server that runs "
        "as root.",
    )
    opencode_bin: types.FilePath | None = Field(
        None,
        description="The opencode that agents run, of version 1. "
        "[default: opencode on PATH, or that of --agents-image]",
    )
    agents_idle_timeout: types.Seconds = Field(
        300.0,
        ge=1,
        description="After how long without anything to do the process of agents is stopped, such as 5m. A "
        "message starts it again.",
    )
    max_agents: int = Field(
        100, ge=1, description="Maximum number of agents of one owner that have not ended."
    )
    max_running_agents: int = Field(
        8,
        ge=1,
        description="Maximum number of workspaces whose agents run at once on this server; others wait.",
    )
    workspaces_dir: types.FilePath | None = Field(
        None,
        description="Directory of workspaces. Servers with one database need one, on a shared file system. "
        "[default: workspaces in the data directory]",
    )
    max_workspaces: int = Field(100, ge=1, description="Maximum number of workspaces of one owner.")
    max_workspace_memory: ByteSize = Field(
        ByteSize(2 * 1024**3),
        ge=64 * 1024**2,
        description="Most memory of a workspace, such as 2GiB. It gets that unless it asks for less.",
    )
    max_workspace_cpu: float = Field(
        2.0, gt=0, le=1024, description="Most processors of a workspace's agents, such as 2 or 0.5."
    )
    max_workspace_disk: ByteSize = Field(
        ByteSize(5 * 1024**3), ge=1024**2, description="Most disk that a workspace takes, such as 5GiB."
    )
    egress_allow: types.EgressHosts = Field(
        (),
        description="Hosts that agents may connect to: HOST, *.HOST for all beneath it, either with :PORT; "
        "several with commas. * is every host of the public internet.",
    )
    egress_private: types.EgressHosts = Field(
        (),
        description="Hosts that agents and git may connect to although they are on a private network, in the "
        "same form.",
    )
    egress_by_owner: bool = Field(
        default=True,
        description="Let the owner of a workspace name further hosts of the public internet for its agents.",
    )
    git_known_hosts: types.FilePath | None = Field(
        None,
        description="File with the SSH keys of git hosts, as known_hosts has them. [default: no SSH]",
    )
    git_ca_file: types.FilePath | None = Field(
        None,
        description="CA certificates, in PEM, for git over https. [default: the system's]",
    )
    git_file_root: types.FilePath | None = Field(
        None,
        description="Directory of repositories on this machine that may be cloned as file://PATH. "
        "[default: none]",
    )
    audit_log: types.FilePath | None = Field(
        None,
        description="File for the audit log, as JSON lines. [default: standard error, with the log]",
    )
    access_log: bool = Field(
        default=False,
        description="Log each request and each RPC session, with its address and subject, to standard error.",
    )
    metrics: bool = Field(default=True, description="Answer GET /metrics.")
    metrics_token: types.Token | None = Field(
        None, description="Token that GET /metrics asks for, as a bearer token. [default: none]"
    )
    sign_in_link: bool = Field(
        default=True,
        description="Print a link at the start that signs an admin in: once, and within 10 minutes.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], types.AnyCase] = Field(
        "info", description="Lowest severity of messages that are logged."
    )
    log_format: Annotated[Literal["console", "json"], types.AnyCase] = Field(
        "console", description="Format of the log: console for people, json for programs."
    )

    oidc: types.Providers = Field(
        (), repr=False, description="Identity providers that users sign in with: tables [oidc.NAME]."
    )
    models: types.ModelTables = Field(
        (), repr=False, description="Models that agents may use, and their providers: tables [models.NAME]."
    )

    @property
    def socket_path(self) -> Path | None:
        """The path of the Unix socket to listen on; None: the server listens on an address."""
        is_unix = self.host.startswith(types.UNIX_PREFIX)
        return Path(self.host.removeprefix(types.UNIX_PREFIX)) if is_unix else None

    @property
    def store_url(self) -> str:
        """The URL of the store: the one that was set, or the embedded one's."""
        return self.store or f"sqlite:///{quote(str(self.data_dir / _STORE_FILE))}"

    @property
    def database_url(self) -> str:
        """The URL of the database: the one that was set, or that of a file in the data directory."""
        return self.database or f"sqlite:///{quote(str(self.data_dir / DATABASE_FILE))}"

    @property
    def workspaces_path(self) -> Path:
        """The directory of workspaces."""
        return self.workspaces_dir or self.data_dir / "workspaces"

    @property
    def records_url(self) -> str:
        """The URL of the database of records: PostgreSQL's, or of a file in the data directory.

        Never of the file that ``database`` names: that one may be removed, to be made again.
        """
        if self.database_url.startswith("sqlite:"):
            return f"sqlite:///{quote(str(self.data_dir / RECORDS_FILE))}"
        return self.database_url

    def base_url(self, port: int | None = None) -> str:
        """Return the base of every share link, without a slash at its end.

        Args:
            port: on which the server listens, where that is known better than from the settings.
        """
        if self.public_url is not None:
            return self.public_url
        return self.listening_url(self.port if port is None else port)

    def listening_url(self, port: int) -> str:
        """Return where the server itself answers that listens on ``port``, or on a Unix socket."""
        if self.socket_path is not None:
            return self.host
        scheme = "http" if self.tls_cert is None else "https"
        return f"{scheme}://{_bracketed(self.host)}:{port}"

    @property
    def outside_sources(self) -> list[str]:
        """The sources of subjects whose names others hand out."""
        return [
            *([] if self.jwt_issuer is None else [jwt_source(self.jwt_issuer)]),
            *([] if self.client_ca is None else [Source.CERTIFICATE]),
            *([] if self.proxy_subject_header is None else [Source.PROXY]),
        ]

    def sources(self, field: str) -> tuple[str, ...]:
        """Return what ``same_subjects`` or ``unprefixed_subjects`` names, the issuer of ``jwt`` included.

        Raises:
            ConfigError: it names ``jwt``, and there is no issuer.
        """
        named: tuple[str, ...] = getattr(self, field)
        if Source.JWT in named and self.jwt_issuer is None:
            raise ConfigError(f"{option_name(field)}: jwt needs --jwt-issuer, or is jwt:ISSUER")
        return tuple(jwt_source(self.jwt_issuer or "") if name == Source.JWT else name for name in named)


def option_name(field: str) -> str:
    """Return how the setting ``field`` is spelled on the command line."""
    return "--" + field.replace("_", "-")


def environment_name(field: str) -> str:
    """Return how the setting ``field`` is spelled in the environment."""
    return _ENVIRONMENT_PREFIX + field.upper()


def load_settings(
    command_line: Mapping[str, object] | None = None, config_file: Path | None = None
) -> Settings:
    """Return the settings: the command line's before the environment's before the file's.

    Args:
        command_line: what was given there, by field name; None stands for "not given".
        config_file: a TOML file, or None for none.

    Raises:
        ConfigError: a value is bad, the file cannot be read, or it has a key that means nothing.
    """
    return load_configuration(command_line, config_file)[0]


def load_configuration(
    command_line: Mapping[str, object] | None = None, config_file: Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """Return the settings as :func:`load_settings` does, and where each comes from that is no default.

    Raises:
        ConfigError: as for :func:`load_settings`.
    """
    given = {name: value for name, value in (command_line or {}).items() if value is not None}
    environment = _read_environment(os.environ)
    if _SERVICE_ADDRESS.match(str(environment.get("port", ""))):
        del environment["port"]
    from_files = _read_secret_files(environment)
    environment |= from_files
    file = {} if config_file is None else _read_file(config_file)
    places = {
        **{field: f"{field} in {config_file}" for field in file},
        **{field: environment_name(field) for field in environment},
        **{field: f"{environment_name(field)}_FILE" for field in from_files},
        **{field: option_name(field) for field in given},
    }
    values = {**file, **environment, **given}
    try:
        return _coherent(Settings.model_validate(values)), places
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=True)[0]
    field = str(error["loc"][0])
    raise ConfigError(f"{places[field]}: {_reason(error)}{_shown(field, values[field])}")


def _read_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """Return what variables say that are not empty, in whatever case their names are."""
    given = {name.upper(): value for name, value in environment.items() if value}
    names = {field: environment_name(field) for field in Settings.model_fields if field not in FILE_ONLY}
    return {field: given[name] for field, name in names.items() if name in given}


def known_variables() -> list[str]:
    """Return the names of the variables that mean something to a server or a command."""
    others = [_ENVIRONMENT_PREFIX + name for name in _OTHER_VARIABLES]
    files = [f"{environment_name(field)}_FILE" for field in _IN_FILES]
    fields = (environment_name(field) for field in Settings.model_fields if field not in FILE_ONLY)
    return [*fields, *files, *others]


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that look like settings, and are none."""
    known = set(known_variables())
    return sorted(
        name
        for name in environment
        if name.upper().startswith(_ENVIRONMENT_PREFIX)
        and name.upper() not in known
        and not _SERVICE_LINK.fullmatch(name)
    )


def _coherent(settings: Settings) -> Settings:
    """Return ``settings``, if every setting has the others that it needs.

    Raises:
        ConfigError: a setting needs another one that is missing, or excludes one that is there.
    """
    for field, needed in _NEEDS.items():
        if getattr(settings, field) and not getattr(settings, needed):
            raise ConfigError(f"{option_name(field)}: needs {option_name(needed)} too")
    require_address(settings)
    if settings.proxy_secret is not None and settings.proxy_secret_file is not None:
        raise ConfigError("--proxy-secret and --proxy-secret-file: give one of them")
    return settings


def require_address(settings: Settings) -> None:
    """Require that links can be made.

    Raises:
        ConfigError: the server listens on a Unix socket, which no link can name, and has no public URL.
    """
    if settings.socket_path is not None and settings.public_url is None:
        raise ConfigError("--host: a Unix socket needs --public-url too, which links are made from")


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return _REASONS.get(error["type"]) or error["msg"].replace("Input should", "must", 1)


def _shown(field: str, value: object) -> str:
    if field in NEVER_SHOWN or value == "":
        return ""
    text = repr(value)
    return f", not {text}" if len(text) <= _LONGEST_SHOWN else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _read_secret_files(environment: Mapping[str, object]) -> dict[str, str]:
    """Return the settings whose values are in files that the environment names.

    Raises:
        ConfigError: a file cannot be read or is empty, or its setting is in the environment, too.
    """
    values: dict[str, str] = {}
    for field in _IN_FILES:
        name = f"{environment_name(field)}_FILE"
        if not (path := os.environ.get(name)):
            continue
        if field in environment:
            raise ConfigError(f"{environment_name(field)} and {name}: give one of them")
        try:
            values[field] = Path(path).read_text("utf-8").strip()
        except OSError as exc:
            raise ConfigError(f"{name}: cannot read {path}: {exc.strerror}") from exc
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: {path} is not UTF-8") from None
        if not values[field]:
            raise ConfigError(f"{name}: {path} is empty")
    return values


def _read_file(path: Path) -> dict[str, object]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"--config: cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--config: {path} is not UTF-8") from exc
    except tomllib.TOMLDecodeError as exc:
        # Its message gives the line, and quotes a character or a key at most.
        raise ConfigError(f"--config: {path} is not TOML: {exc}") from exc
    settings: dict[str, object] = {}
    for key, value in content.items():
        field = key.replace("-", "_")
        if field not in Settings.model_fields:
            raise ConfigError(f"--config: {path} has the unknown key {key!r}")
        if field in settings:
            raise ConfigError(f"--config: {path} has {field!r} in two spellings")
        settings[field] = value
    return settings
