"""The settings of a server: their names, defaults and limits, and the three places they come from.

Each setting has one name. It is spelled ``--data-dir`` on the command line, ``RPCSHARE_DATA_DIR`` in the
environment, and ``data_dir`` or ``data-dir`` in the TOML file.
"""

import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, Secret, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from rpcshare.auth.caller import Scope
from rpcshare.auth.credential import MAX_CREDENTIAL_LENGTH, Credential, CredentialKind
from rpcshare.auth.origin import parse_origin
from rpcshare.auth.proxy_secret import fault_of_proxy_secret
from rpcshare.auth.subject_sources import NAMED_SOURCES, Source, is_source, jwt_source
from rpcshare.durations import parse_duration

__all__ = [
    "DATABASE_FILE",
    "NEVER_SHOWN",
    "ConfigError",
    "Settings",
    "environment_name",
    "known_variables",
    "load_configuration",
    "load_settings",
    "option_name",
    "unknown_variables",
]

_ENVIRONMENT_PREFIX = "RPCSHARE_"

# Of commands and of the build, which are no settings of a server.
_OTHER_VARIABLES = ("CONFIG", "URL", "PROFILE", "CA", "CERT", "CERT_KEY", "P12_PASSWORD", "COMPILE")

# What Kubernetes sets in every container for a Service of the name rpcshare.
_SERVICE_LINK = re.compile(r"RPCSHARE_(SERVICE_(HOST|PORT)|PORT_[0-9]+_(TCP|UDP|SCTP)).*")

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
    }
)
"""Tokens, and URLs that may hold a password: an error names these settings but never their values."""

_LONGEST_SHOWN = 60

# RFC 3986 section 3.3.
_URL_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")

# RFC 9110 section 5.6.2.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

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

# RFC 7518 section 3.2: at least as long as what HS256 makes.
_MIN_JWT_SECRET = 32

_STORE_FILE = "store.sqlite3"
DATABASE_FILE = "database.sqlite3"
"""The name of the database in the data directory."""


class ConfigError(Exception):
    """A setting that the server cannot start with, in one line that names it and no secret."""


def _seconds(value: object) -> float:
    """Return a duration in seconds, which a bare number is too."""
    is_number = isinstance(value, str) and value.strip().isdecimal()
    return parse_duration(f"{value}s".replace(" ", "") if is_number else value)


def _text(value: str) -> str:
    value = value.strip()
    if not value:
        raise ValueError("must not be empty")
    return value


def _host(value: str) -> str:
    value = _text(value)
    return value[1:-1] if value.startswith("[") and value.endswith("]") else value


def _path_text(value: object) -> object:
    return _text(value) if isinstance(value, str) else value


def _path(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError as exc:
        raise ValueError("names the home directory of an unknown user") from exc


def _public_url(value: str) -> str:
    scheme, _, rest = (value if "://" in value else f"https://{value}").partition("://")
    authority, slash, path = rest.partition("/")
    origin = parse_origin(f"{scheme}://{authority}")
    is_web = scheme.lower() in ("http", "https")
    if origin is None or not is_web or not _URL_PATH.fullmatch(slash + path):
        raise ValueError("must be a host name or an http(s) URL, without user, query or fragment, in ASCII")
    return origin + (slash + path).rstrip("/")


def _token(value: Secret[str]) -> Secret[str]:
    if not Credential(CredentialKind.TOKEN, value.get_secret_value()).is_well_formed:
        raise ValueError(
            f"must be 1 to {MAX_CREDENTIAL_LENGTH} visible ASCII characters, none of them a space"
        )
    return value


def _jwks_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("must be an http(s) URL")
    return value


def _jwt_secret(value: Secret[str]) -> Secret[str]:
    secret = value.get_secret_value()
    if len(secret.encode("utf-8", "surrogatepass")) < _MIN_JWT_SECRET:
        raise ValueError(f"must be {_MIN_JWT_SECRET} bytes or more")
    if "-----BEGIN " in secret:
        raise ValueError("must not be a key in PEM: anybody may have the public one")
    return value


def _role_map(value: object) -> object:
    """Turn ``editor=create,auditor=read``, or a table of the file, into pairs."""
    if isinstance(value, str):
        return [part.strip().rpartition("=")[::2] for part in value.split(",") if part.strip()]
    return list(value.items()) if isinstance(value, dict) else value


def _role(value: tuple[str, str]) -> tuple[str, Scope]:
    role, scope = value[0].strip(), value[1].strip()
    if not role or scope not in set(Scope):
        raise ValueError(f"must be ROLE=SCOPE,ROLE=SCOPE,... with the scopes {', '.join(Scope)}")
    return role, Scope(scope)


def _uuid(value: object) -> object:
    if isinstance(value, Secret | UUID):
        return value
    try:
        return UUID(value if isinstance(value, str) else "")
    except ValueError:
        # Raised anew: pydantic and uuid both quote from what they were given.
        raise ValueError("must be a UUID") from None


def _listed(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [element.strip() for element in value.split(",") if element.strip()]


def _origin(value: str) -> str:
    origin = parse_origin(value.strip().rstrip("/"))
    if origin is None:
        raise ValueError("must be origins such as https://example.com, separated by commas")
    return origin


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(value.strip() if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None


def _scope(value: object) -> object:
    if value not in list(Scope):
        raise ValueError(f"must be one or more of {', '.join(Scope)}, separated by commas")
    return value


def _source(value: str) -> str:
    value = value.strip()
    if not is_source(value):
        raise ValueError(
            f"must be some of {', '.join(NAMED_SOURCES)}, jwt and jwt:ISSUER, separated by commas"
        )
    return value


def _sources(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) == 1:
        raise ValueError("must be two or more")
    return value


def _proxy_secret(value: Secret[str]) -> Secret[str]:
    secret = value.get_secret_value()
    if fault := fault_of_proxy_secret(secret):
        raise ValueError(fault)
    return value


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("must be the name of a header")
    return value


_Sources = Annotated[tuple[Annotated[str, AfterValidator(_source)], ...], BeforeValidator(_listed), NoDecode]
_Scopes = Annotated[tuple[Annotated[Scope, BeforeValidator(_scope)], ...], BeforeValidator(_listed), NoDecode]
_File = Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """The validated settings of a server. A field's description is its ``--help``.

    The constructor reads nothing from the environment: :func:`load_settings` does.
    """

    model_config = SettingsConfigDict(
        env_prefix=_ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: Annotated[str, AfterValidator(_host)] = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0 means any free port.")
    keep_alive: Annotated[float, BeforeValidator(_seconds)] = Field(
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
    data_dir: Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)] = Field(
        Path(".rpcshare"), description="Directory of the embedded store and the server's secrets."
    )
    store: Annotated[str, AfterValidator(_text)] | None = Field(
        None,
        repr=False,
        description="URL of the store of shares: sqlite:///PATH, memory:// or s3://BUCKET/PREFIX. "
        "[default: the embedded store in the data directory]",
    )
    database: Annotated[str, AfterValidator(_text)] | None = Field(
        None,
        repr=False,
        description="URL of the database of search: sqlite:///PATH, or postgresql://USER@HOST/DATABASE for "
        "several servers. [default: a SQLite file in the data directory]",
    )
    broadcast: Annotated[str, AfterValidator(_text)] = Field(
        "local://",
        repr=False,
        description="How servers that share a store notify each other: local:// or redis://HOST:PORT/DB.",
    )
    encryption_key_file: Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)] | None = Field(
        None,
        description="File with encryption keys, one per line. The first encrypts objects, all decrypt them. "
        "[default: no encryption]",
    )
    encryption_allow_plain: bool = Field(
        default=False, description="Also read objects that were stored without encryption."
    )
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        None,
        description="Base URL of every share link. Only pages at this URL count as the server's own. A bare "
        "host name means https://. "
        "[default: http://HOST:PORT, or https:// with --tls-cert]",
    )
    token: Annotated[Secret[str], AfterValidator(_token)] | None = Field(
        None, description="The admin token. [default: created once and kept in the data directory]"
    )
    shared_secret: Annotated[Secret[UUID], BeforeValidator(_uuid)] | None = Field(
        None,
        description="UUID from which the secrets of shares are derived. "
        "[default: created once and kept in the data directory]",
    )
    signing_key: Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)] | None = Field(
        None,
        description="File with the Ed25519 private key for 'rpcshare token'. Servers that share it "
        "accept each other's tokens. [default: created once and kept in the data directory]",
    )
    jwt_issuer: Annotated[str, AfterValidator(_text)] | None = Field(
        None, description="Issuer whose signed tokens are accepted. Their claim iss must be exactly this."
    )
    jwt_audience: Annotated[str, AfterValidator(_text)] | None = Field(
        None,
        description="Audience that tokens of --jwt-issuer must have: their claim aud, or one of its values.",
    )
    jwks_url: Annotated[str, AfterValidator(_text), AfterValidator(_jwks_url)] | None = Field(
        None, repr=False, description="URL of the public keys of --jwt-issuer, as a JWKS."
    )
    jwt_key: Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)] | None = Field(
        None, description="File with the public keys of --jwt-issuer: PEM, JWK or JWKS."
    )
    jwt_secret: Annotated[Secret[str], AfterValidator(_jwt_secret)] | None = Field(
        None, description="Secret shared with --jwt-issuer. Its tokens are then HS256, HS384 or HS512."
    )
    jwt_role_claim: Annotated[str, AfterValidator(_text)] | None = Field(
        None,
        description="Claim with the roles of a user, or the path to that claim, such as realm_access.roles.",
    )
    jwt_role_map: Annotated[
        tuple[Annotated[tuple[str, str], AfterValidator(_role)], ...],
        BeforeValidator(_role_map),
        NoDecode,
    ] = Field((), description="Scopes of roles: ROLE=SCOPE,ROLE=SCOPE,...")
    tls_cert: _File | None = Field(
        None,
        description="The server's certificate, in PEM, with the intermediate ones. The server then speaks "
        "https.",
    )
    tls_key: _File | None = Field(None, description="Key of --tls-cert, in PEM.")
    client_ca: _File | None = Field(
        None,
        description="CA certificates, in PEM. A client certificate that they issued identifies its subject.",
    )
    client_crl: _File | None = Field(
        None, description="Revocation lists of --client-ca, in PEM; read again when the file changes."
    )
    client_cert_scope: _Scopes = Field(
        (Scope.CREATE,),
        description="Scopes of client certificates: create, read, admin; several with commas.",
    )
    trusted_proxy: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...],
        BeforeValidator(_listed),
        NoDecode,
    ] = Field(
        (),
        description="Addresses or networks of trusted proxies; several with commas, or by repeating the "
        "option.",
    )
    proxy_subject_header: Annotated[str, AfterValidator(_header_name)] | None = Field(
        None, description="Header in which a trusted proxy names the caller that it has authenticated."
    )
    proxy_scope: _Scopes = Field(
        (Scope.CREATE,),
        description="Scopes of callers that a proxy names: create, read, admin; several with commas.",
    )
    proxy_secret: Annotated[Secret[str], AfterValidator(_proxy_secret)] | None = Field(
        None,
        description="Secret that a trusted proxy must show in --proxy-secret-header. Without it, the request "
        "counts as one from no proxy.",
    )
    proxy_secret_file: _File | None = Field(
        None, description="File with the proxy secret, in place of --proxy-secret."
    )
    proxy_secret_header: Annotated[str, AfterValidator(_header_name)] = Field(
        "X-Proxy-Secret", description="Header in which a trusted proxy shows the proxy secret."
    )
    proxy_hops: int = Field(
        1,
        ge=1,
        le=16,
        description="Number of proxies that a request passes, one after the other. Proxies that "
        "--trusted-proxy names by a single address do not count.",
    )
    same_subjects: Annotated[_Sources, AfterValidator(_sources)] = Field(
        (),
        description="Sources in which the same name is the same owner: two or more of key, token, jwt, "
        "certificate, proxy, with commas.",
    )
    unprefixed_subjects: _Sources = Field(
        (),
        description="Sources whose callers own the shares of older versions, which stored no source. "
        "[default: decided at the first start, and kept in the store]",
    )
    anonymous_create: bool = Field(
        default=False, description="Let callers without a credential create shares."
    )
    default_visibility: Annotated[Literal["link", "private"], BeforeValidator(_lower)] = Field(
        "link",
        description="Who may read a new share, unless its creator says: link (whoever has the link) or "
        "private. An API key may have a default of its own.",
    )
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_origin)], ...],
        BeforeValidator(_listed),
        NoDecode,
    ] = Field(
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
    redact: bool = Field(
        default=True, description="Replace text that looks like a provider's credential before it is stored."
    )
    audit_log: Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)] | None = Field(
        None,
        description="File for the audit log, as JSON lines. [default: standard error, with the log]",
    )
    access_log: bool = Field(
        default=False,
        description="Log each request and each RPC session, with its address and subject, to standard error.",
    )
    metrics: bool = Field(default=True, description="Answer GET /metrics.")
    metrics_token: Annotated[Secret[str], AfterValidator(_token)] | None = Field(
        None, description="Token that GET /metrics asks for, as a bearer token. [default: none]"
    )
    sign_in_link: bool = Field(
        default=True,
        description="Print a link at the start that signs an admin in: once, and within 10 minutes.",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lower)
    ] = Field("info", description="Lowest severity of messages that are logged.")
    log_format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = Field(
        "console", description="Format of the log: console for people, json for programs."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- likewise
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- likewise
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what was passed and no more."""
        return (init_settings,)

    @property
    def store_url(self) -> str:
        """The URL of the store: the one that was set, or the embedded one's."""
        return self.store or f"sqlite:///{quote(str(self.data_dir / _STORE_FILE))}"

    @property
    def database_url(self) -> str:
        """The URL of the database: the one that was set, or that of a file in the data directory."""
        return self.database or f"sqlite:///{quote(str(self.data_dir / DATABASE_FILE))}"

    def base_url(self, port: int | None = None) -> str:
        """Return the base of every share link, without a slash at its end.

        Args:
            port: on which the server listens, where that is known better than from the settings.
        """
        if self.public_url is not None:
            return self.public_url
        return self.listening_url(self.port if port is None else port)

    def listening_url(self, port: int) -> str:
        """Return where the server itself answers that listens on ``port``."""
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
    environment = EnvSettingsSource(Settings)()
    file = {} if config_file is None else _read_file(config_file)
    places = {
        **{field: f"{field} in {config_file}" for field in file},
        **{field: environment_name(field) for field in environment},
        **{field: option_name(field) for field in given},
    }
    values = {**file, **environment, **given}
    try:
        return _coherent(Settings.model_validate(values)), places
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=True)[0]
    field = str(error["loc"][0])
    raise ConfigError(f"{places[field]}: {_reason(error)}{_shown(field, values[field])}")


def known_variables() -> list[str]:
    """Return the names of the variables that mean something to a server or a command."""
    others = [_ENVIRONMENT_PREFIX + name for name in _OTHER_VARIABLES]
    return [*(environment_name(field) for field in Settings.model_fields), *others]


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
    if settings.proxy_secret is not None and settings.proxy_secret_file is not None:
        raise ConfigError("--proxy-secret and --proxy-secret-file: give one of them")
    return settings


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
