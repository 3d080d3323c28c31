"""From the settings to the issuers whose signed tokens are accepted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rpcshare.auth.caller import Scope
from rpcshare.auth.jwks import FixedKeys, KeySource, RemoteKeys
from rpcshare.auth.signed_tokens import TokenIssuer
from rpcshare.auth.signing_key import OWN_ISSUER, SigningKey
from rpcshare.config import ConfigError, Settings, option_name
from rpcshare.structured_log import structlog

__all__ = ["token_issuers"]

logger = structlog.get_logger("rpcshare.server")

_KEY_SETTINGS = ("jwks_url", "jwt_key", "jwt_secret")


@contextlib.asynccontextmanager
async def token_issuers(settings: Settings) -> AsyncIterator[list[TokenIssuer]]:
    """Give this server, as an issuer, and the one in the settings, if there is one.

    Raises:
        ConfigError: the settings do not fit together, or a file of keys cannot be used.
        SecretFileError: the server's own key can be neither read nor made.
    """
    issuers = [SigningKey.kept(settings.signing_key, settings.data_dir).issuer()]
    async with contextlib.AsyncExitStack() as stack:
        if _has_issuer(settings):
            keys = _keys(settings)
            if isinstance(keys, RemoteKeys):
                stack.push_async_callback(keys.close)
            issuers.append(
                TokenIssuer(
                    name=settings.jwt_issuer or "",
                    audience=settings.jwt_audience or "",
                    keys=keys,
                    role_claim=settings.jwt_role_claim,
                    role_scopes=_role_scopes(settings),
                )
            )
        yield issuers


def _has_issuer(settings: Settings) -> bool:
    """Whether there is an issuer in the settings, and all that is needed to believe it."""
    given = [name for name in _KEY_SETTINGS if getattr(settings, name) is not None]
    names = ["jwt_issuer", "jwt_audience"]
    others = [name for name in (*names, "jwt_role_claim") if getattr(settings, name) is not None]
    others += ["jwt_role_map"] if settings.jwt_role_map else []
    if not given and not others:
        return False
    if len(given) != 1:
        what = f"{option_name((given or others)[0])}: needs exactly one of"
        raise ConfigError(f"{what} {', '.join(map(option_name, _KEY_SETTINGS))}")
    for name in names:
        if name not in others:
            raise ConfigError(f"{option_name(given[0])}: needs {option_name(name)}, too")
    if ("jwt_role_claim" in others) != ("jwt_role_map" in others):
        raise ConfigError("--jwt-role-claim and --jwt-role-map: each needs the other")
    if settings.jwt_issuer == OWN_ISSUER:
        raise ConfigError(f"--jwt-issuer: {OWN_ISSUER!r} is the name of this server's own tokens")
    return True


def _keys(settings: Settings) -> KeySource:
    # Few servers have such an issuer, and joserfc takes long to import.
    from rpcshare.auth.token_keys import keys_of_document, secret_key  # noqa: PLC0415

    if settings.jwks_url is not None:
        if settings.jwks_url.startswith("http:"):
            logger.warning("whoever can change what --jwks-url answers over plain HTTP can sign tokens")
        return RemoteKeys(settings.jwks_url)
    if settings.jwt_secret is not None:
        return FixedKeys([secret_key(settings.jwt_secret.get_secret_value())])
    path = settings.jwt_key
    if path is None:
        return FixedKeys([])
    try:
        return FixedKeys(keys_of_document(path.read_bytes()))
    except OSError as exc:
        raise ConfigError(f"--jwt-key: cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"--jwt-key: {path} {exc}") from None


def _role_scopes(settings: Settings) -> dict[str, frozenset[Scope]]:
    scopes: dict[str, frozenset[Scope]] = {}
    for role, scope in settings.jwt_role_map:
        scopes[role] = scopes.get(role, frozenset()) | {Scope(scope)}
    return scopes
