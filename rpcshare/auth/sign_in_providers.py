"""The identity providers of the settings: a table ``[oidc.NAME]`` each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from rpcshare.auth.caller import Role
from rpcshare.auth.users import fault_of_organization

__all__ = ["Preset", "Provider", "parse_providers"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_GITHUB, _GOOGLE = "https://github.com", "https://accounts.google.com"
_MAX_SECRET = 16 * 1024


class Preset(StrEnum):
    """What a provider is like, where it is not any by OpenID Connect."""

    OIDC = "oidc"
    GITHUB = "github"
    """OAuth 2.0 with an API of its own, and no identity tokens."""
    GOOGLE = "google"
    """OpenID Connect, whose domain of a user is the claim ``hd``."""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    client_id: str
    client_secret: str | None = None
    client_secret_file: str | None = None
    preset: Preset | None = None
    issuer: str | None = None
    label: str | None = None
    scopes: list[str] | None = None
    allowed_domains: list[str] = []
    allowed_groups: list[str] = []
    group_claim: str = "groups"
    role_claim: str | None = None
    role_map: dict[str, Role] = {}
    default_role: Role = Role.MEMBER
    organization: str | None = None
    organization_claim: str | None = None
    trusted: bool | None = None
    unverified_email: bool = False
    provider_logout: bool = True


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that users sign in with."""

    name: str
    preset: Preset
    issuer: str
    """Exactly the claim ``iss``."""
    label: str
    """What its button says."""
    client_id: str
    client_secret: str | None
    """None: a public client, of which PKCE alone proves that a code is its own."""
    scopes: tuple[str, ...]
    allowed_domains: frozenset[str]
    """Of verified addresses, in lower case; empty: any."""
    allowed_groups: frozenset[str]
    group_claim: str
    role_claim: str
    role_map: Mapping[str, Role]
    default_role: Role
    organization: str
    """Of who signs in; empty: by the claim or, without one, each user has one alone."""
    organization_claim: str | None
    is_trusted: bool
    """Whether an address that it has verified links to a user of another provider."""
    takes_unverified_email: bool
    """Whether its addresses count as verified though it does not say so."""
    ends_session: bool = True
    """Whether who signs out here is offered to sign out there, too."""

    def __repr__(self) -> str:
        """Leave out the secret."""
        return f"Provider({self.name!r}, {self.issuer!r})"

    @property
    def wants_groups(self) -> bool:
        """Whether anything depends on groups."""
        return bool(self.allowed_groups or (self.role_map and self.role_claim == self.group_claim))

    def role_of(self, roles: list[str]) -> Role | None:
        """Return the highest role that the map has for any of ``roles``, or None."""
        order = list(Role)
        found = [self.role_map[each] for each in roles if each in self.role_map]
        return max(found, key=order.index, default=None)


def parse_providers(tables: object) -> tuple[Provider, ...]:
    """Return the providers of the tables ``oidc`` of a configuration file.

    Raises:
        ValueError: a table makes none; the message names it, and quotes no secret.
    """
    if isinstance(tables, tuple) and all(isinstance(each, Provider) for each in tables):
        return tables
    if not isinstance(tables, Mapping):
        raise ValueError("must be tables: [oidc.NAME]")  # noqa: TRY004 -- as of all settings
    return tuple(_provider(str(name), table) for name, table in tables.items())


def _provider(name: str, table: object) -> Provider:
    if not _NAME.fullmatch(name):
        raise ValueError(f"[oidc.{name[:40]}]: a name has up to 32 letters a-z, digits, - and _")
    if not isinstance(table, Mapping):
        raise ValueError(f"oidc.{name}: must be a table: [oidc.{name}]")  # noqa: TRY004 -- likewise
    spelled = {str(key).replace("-", "_"): value for key, value in table.items()}
    try:
        given = msgspec.convert(spelled, _Table)
    except msgspec.ValidationError as exc:
        raise ValueError(f"[oidc.{name}]: {_reason(exc)}") from None
    try:
        return _made(name, given)
    except ValueError as exc:
        raise ValueError(f"[oidc.{name}]: {exc}") from None


def _made(name: str, given: _Table) -> Provider:
    presets = {Preset.GITHUB.value: Preset.GITHUB, Preset.GOOGLE.value: Preset.GOOGLE}
    preset = given.preset or (presets.get(name, Preset.OIDC) if given.issuer is None else Preset.OIDC)
    issuer = given.issuer or {Preset.GITHUB: _GITHUB, Preset.GOOGLE: _GOOGLE}.get(preset)
    if issuer is None:
        raise ValueError("issuer: is missing")
    _check_issuer(issuer)
    if not given.client_id:
        raise ValueError("client_id: must not be empty")
    if given.organization is not None and (fault := fault_of_organization(given.organization)):
        raise ValueError(f"organization: {fault}")
    if given.organization is not None and given.organization_claim is not None:
        raise ValueError("organization and organization_claim: give one of them")
    is_public = preset is not Preset.OIDC and not (given.allowed_domains or given.allowed_groups)
    organization = given.organization
    if organization is None:
        # Whoever likes has an account there: strangers are no organization.
        organization = "" if given.organization_claim is not None or is_public else name
    provider = Provider(
        name=name,
        preset=preset,
        issuer=issuer,
        label=given.label or {Preset.GITHUB: "GitHub", Preset.GOOGLE: "Google"}.get(preset) or name,
        client_id=given.client_id,
        client_secret=_secret(given),
        scopes=(),
        allowed_domains=frozenset(each.strip().lower().lstrip("@") for each in given.allowed_domains),
        allowed_groups=frozenset(given.allowed_groups),
        group_claim=given.group_claim,
        role_claim=given.role_claim or given.group_claim,
        role_map=given.role_map,
        default_role=given.default_role,
        organization=organization,
        organization_claim=given.organization_claim,
        is_trusted=given.trusted if given.trusted is not None else preset is not Preset.OIDC,
        takes_unverified_email=given.unverified_email,
        ends_session=given.provider_logout,
    )
    return msgspec.structs.replace(provider, scopes=_scopes(provider, given.scopes))


def _scopes(provider: Provider, given: list[str] | None) -> tuple[str, ...]:
    if provider.preset is Preset.GITHUB:
        usual = ["read:user", "user:email", *(["read:org"] if provider.wants_groups else [])]
        return tuple(given if given is not None else usual)
    scopes = given if given is not None else ["openid", "email", "profile"]
    return tuple(dict.fromkeys(["openid", *scopes]))


def _check_issuer(issuer: str) -> None:
    try:
        parts = urlsplit(issuer)
        host = parts.hostname
    except ValueError:
        raise ValueError("issuer: must be a URL") from None
    if parts.scheme not in ("https", "http") or not host or parts.username is not None:
        raise ValueError("issuer: must be a URL such as https://id.example")
    if parts.query or parts.fragment:
        raise ValueError("issuer: must have no query and no fragment")


def _secret(given: _Table) -> str | None:
    if given.client_secret is not None and given.client_secret_file is not None:
        raise ValueError("client_secret and client_secret_file: give one of them")
    secret = given.client_secret
    if given.client_secret_file is not None:
        path = Path(given.client_secret_file)
        try:
            with path.open(encoding="utf-8") as file:
                secret = file.read(_MAX_SECRET).strip()
        except OSError as exc:
            raise ValueError(f"client_secret_file: cannot read {path}: {exc.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"client_secret_file: {path} is not UTF-8") from None
    if secret is not None and not secret:
        raise ValueError("client_secret: must not be empty; leave it out for a public client")
    return secret


def _reason(exc: Exception) -> str:
    """Return what is wrong, with the key at which it is; msgspec quotes no value of a wrong type."""
    message, _, path = str(exc).partition(" - at `$")
    key = re.sub(r"\[\.\.\.\]", "", path.strip("`").lstrip("."))
    message = (
        message.replace("Object ", "").replace("Expected ", "must be ").replace("contains ", "there is an ")
    )
    return f"{key}: {message}" if key else message
