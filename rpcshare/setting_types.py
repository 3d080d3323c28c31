"""The types of settings: text, paths, origins, networks, durations, secrets.

What is given for a setting is refused with a ValueError, which says what it must be and quotes nothing of it.
"""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, PlainValidator, Secret

from rpcshare.auth.caller import Scope
from rpcshare.auth.credential import MAX_CREDENTIAL_LENGTH, Credential, CredentialKind
from rpcshare.auth.origin import parse_origin
from rpcshare.auth.proxy_secret import fault_of_proxy_secret
from rpcshare.auth.sign_in_providers import Provider, parse_providers
from rpcshare.auth.subject_sources import NAMED_SOURCES, is_source
from rpcshare.durations import parse_duration
from rpcshare.gateway.models import ModelTable, parse_model_tables

__all__ = [
    "JWKSURL",
    "UNIX_PREFIX",
    "AnyCase",
    "EgressHosts",
    "EngineSocket",
    "FilePath",
    "HeaderName",
    "Host",
    "ImageName",
    "JWTSecret",
    "KubernetesName",
    "ModelTables",
    "Networks",
    "Origins",
    "Providers",
    "ProxySecret",
    "PublicURL",
    "RoleMap",
    "Scopes",
    "Seconds",
    "Sources",
    "Text",
    "Token",
    "TwoSources",
    "UUIDSecret",
    "UserIds",
]

UNIX_PREFIX = "unix:"
"""What stands before the path of a Unix socket in ``host``."""

# sockaddr_un of Linux has room for 107 bytes and a NUL, that of macOS for 103.
_LONGEST_SOCKET_PATH = 103

# RFC 3986 section 3.3.
_URL_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")

# RFC 9110 section 5.6.2.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# What the engine itself takes is narrower; this keeps what is no name out of paths of its API.
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# RFC 7518 section 3.2: at least as long as what HS256 makes.
_MIN_JWT_SECRET = 32


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
    if value.startswith(UNIX_PREFIX):
        path = Path(value.removeprefix(UNIX_PREFIX))
        if not path.is_absolute() or "\0" in value or len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise ValueError(
                f"must be unix: and an absolute path of at most {_LONGEST_SOCKET_PATH} bytes, or an address"
            )
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


def _two(value: tuple[str, ...]) -> tuple[str, ...]:
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


def _egress_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        from rpcshare.sandbox.egress_proxy import EgressPolicy  # noqa: PLC0415 -- few servers run agents

        EgressPolicy(value)
    return value


def _user_ids(value: object) -> object:
    """Turn ``1000`` or ``1000:1000`` into a user and a group."""
    parts = str(value).split(":") if isinstance(value, str | int) else value
    if isinstance(parts, list | tuple) and 0 < len(parts) <= 2:
        numbers = [int(part) for part in parts if str(part).isascii() and str(part).isdecimal()]
        if len(numbers) == len(parts) and all(0 < number < 2**31 for number in numbers):
            return numbers[0], numbers[-1]
    raise ValueError("must be the number of a user who is not root, or USER:GROUP as numbers")


def _image_name(value: str) -> str:
    if not _IMAGE_NAME.fullmatch(value):
        raise ValueError("must be the name of a container image, such as registry.example/agents:1")
    return value


def _kubernetes_name(value: str) -> str:
    if not _KUBERNETES_NAME.fullmatch(value):
        raise ValueError("must be a name of Kubernetes: lower-case letters, digits and dashes")
    return value


def _engine_socket(value: object) -> object:
    """Turn ``unix:///PATH`` into a path; an engine that is on another machine is of no use."""
    if not isinstance(value, str):
        return value
    path = value.removeprefix("unix://")
    if "://" in path or not path.startswith("/") or len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ValueError("must be unix:// and an absolute path: the engine has to be on this machine")
    return path


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


EgressHosts = Annotated[
    tuple[Annotated[str, AfterValidator(_text)], ...], BeforeValidator(_listed), AfterValidator(_egress_hosts)
]
EngineSocket = Annotated[Path, BeforeValidator(_engine_socket)]
FilePath = Annotated[Path, BeforeValidator(_path_text), AfterValidator(_path)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Host = Annotated[str, AfterValidator(_host)]
ImageName = Annotated[str, AfterValidator(_image_name)]
JWKSURL = Annotated[str, AfterValidator(_text), AfterValidator(_jwks_url)]
JWTSecret = Annotated[Secret[str], AfterValidator(_jwt_secret)]
KubernetesName = Annotated[str, AfterValidator(_kubernetes_name)]
Networks = Annotated[
    tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...],
    BeforeValidator(_listed),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_listed)]
ProxySecret = Annotated[Secret[str], AfterValidator(_proxy_secret)]
PublicURL = Annotated[str, AfterValidator(_public_url)]
RoleMap = Annotated[tuple[Annotated[tuple[str, str], AfterValidator(_role)], ...], BeforeValidator(_role_map)]
Scopes = Annotated[tuple[Annotated[Scope, BeforeValidator(_scope)], ...], BeforeValidator(_listed)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
Sources = Annotated[tuple[Annotated[str, AfterValidator(_source)], ...], BeforeValidator(_listed)]
Text = Annotated[str, AfterValidator(_text)]
Token = Annotated[Secret[str], AfterValidator(_token)]
UserIds = Annotated[tuple[int, int], BeforeValidator(_user_ids)]
UUIDSecret = Annotated[Secret[UUID], BeforeValidator(_uuid)]
AnyCase = BeforeValidator(_lower)
TwoSources = Annotated[Sources, AfterValidator(_two)]

Providers = Annotated[tuple[Provider, ...], PlainValidator(parse_providers)]
"""Tables ``[oidc.NAME]``."""

ModelTables = Annotated[tuple[ModelTable, ...], PlainValidator(parse_model_tables)]
"""Tables ``[models.NAME]``."""
