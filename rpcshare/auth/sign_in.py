"""Signing in with a provider: from the button to the user, whatever the provider speaks.

What belongs to one attempt (state, nonce, verifier) is with the browser that makes it, sealed, in a cookie.
So any node can finish what another has begun, an answer counts in that browser alone, and a server keeps
nothing of attempts that nobody finishes.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from rpcshare.auth.cookies import SessionSeal
from rpcshare.auth.github import GitHubProvider
from rpcshare.auth.oidc import OpenIdProvider, ProviderSays, Returned, SignInBegun
from rpcshare.auth.people import People
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.sign_in_providers import Preset, Provider
from rpcshare.auth.signed_tokens import claim_at, claim_words
from rpcshare.auth.users import SignIn, User, fault_of_claimed_organization, fault_of_organization
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["ATTEMPT_LASTS", "SignIns", "attempt_of", "who_signs_in"]

logger = logging.getLogger(__name__)

ATTEMPT_LASTS = 600
"""Seconds from the button to the provider's answer."""

_LONGEST = 20.0  # seconds that an answer waits for its provider
_AT_ONCE = 64  # answers of one provider that wait: more are refused at once
_MAX_CODE = 4096
_MAX_LOGOUT_TOKEN = 16 * 1024
# Has a space, so that it is never taken for the credential of a session's cookie.
_SEALED = "signing in "

_EMAIL = re.compile(r"[^@\s]{1,64}@[a-z0-9.-]{1,190}")
_LONGEST_NAME = 200
_ERRORS = {
    "access_denied": "You have not signed in at {label}, or it does not let you in here.",
    "temporarily_unavailable": "{label} cannot sign you in at the moment. Please try again.",
    "server_error": "{label} cannot sign you in at the moment. Please try again.",
}


class SignedInUser(NamedTuple):
    """Who has signed in, and where to go now."""

    user: User
    next: str
    identity_token: str
    """As :class:`~rpcshare.auth.oidc.ProviderSays` has it."""


class _SignsIn(Protocol):
    provider: Provider

    async def authorization_url(self, begun: SignInBegun, redirect_uri: str) -> str: ...

    async def claims(
        self,
        returned: Returned,
        begun: SignInBegun,
        redirect_uri: str,
        wanted: Callable[[dict[str, Any]], bool],
    ) -> ProviderSays: ...

    async def logout_url(self, identity_token: str, back: str) -> str | None: ...

    async def close(self) -> None: ...


class SignIns:
    """The ways to sign in that a server has."""

    def __init__(
        self,
        providers: Sequence[Provider],
        people: People,
        seal: SessionSeal,
        base_url: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Sign in with ``providers``, which send browsers back to a path of ``base_url``."""
        self._people = people
        self._seal = seal
        self._base_url = base_url
        self._clock = clock
        self._ways: dict[str, _SignsIn] = {
            each.name: GitHubProvider(each)
            if each.preset is Preset.GITHUB
            else OpenIdProvider(each, clock=clock)
            for each in providers
        }
        self._waiting = dict.fromkeys(self._ways, 0)

    @property
    def providers(self) -> list[Provider]:
        """The providers, in the order of the settings."""
        return [way.provider for way in self._ways.values()]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SignIns]:
        """Give up what is fetched in the background when the context ends."""
        try:
            yield self
        finally:
            for way in self._ways.values():
                await way.close()

    async def begin(self, name: str, next_address: str) -> tuple[str, str, str]:
        """Begin to sign in.

        Args:
            name: of the provider.
            next_address: where to go in the end: a page of this site.

        Returns:
            Where to send the browser, the name that tells this attempt from others, and what it has to keep.

        Raises:
            SignInError: there is no such provider, or it cannot be reached.
        """
        way = self._way(name)
        begun = SignInBegun(
            provider=name,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            next=next_address,
            at=self._clock(),
        )
        async with self._bounded(way):
            url = await way.authorization_url(begun, self._redirect_uri(name))
        return url, attempt_of(begun.state), self._seal.seal(_SEALED + msgspec.json.encode(begun).decode())

    async def finish(
        self, name: str, answer: Sequence[tuple[str, str]], kept: Mapping[str, str]
    ) -> SignedInUser:
        """Return who has signed in, and where to go now.

        Args:
            name: of the provider, as the address has it.
            answer: the parameters that the browser has brought.
            kept: what it kept of its attempts, by their names.

        Raises:
            SignInError: it is no answer to an attempt of this browser, or the provider's answer is refused.
        """
        way = self._way(name)
        given = dict(answer)
        if len(given) != len(answer):
            raise SignInError("The answer is malformed. Please sign in again.", "a parameter is there twice")
        begun = self._begun(name, given.get("state", ""), kept)
        if "error" in given:
            raise self._told_error(way.provider, given["error"])
        code = given.get("code", "")
        if not 0 < len(code) <= _MAX_CODE or not code.isascii() or not code.isprintable():
            raise SignInError("The answer is malformed. Please sign in again.", "there is no code")
        returned = Returned(code, given.get("iss"))
        async with self._bounded(way):
            said = await way.claims(
                returned, begun, self._redirect_uri(name), lambda found: _lacks(way.provider, found)
            )
        try:
            user = await self._people.sign_in(who_signs_in(way.provider, said.claims))
        except ShareError as exc:
            if exc.code is not ErrorCode.FORBIDDEN:
                raise
            raise SignInError("This account is disabled. An admin can let you in again.") from None
        return SignedInUser(user, begun.next, said.identity_token)

    async def logout_url(self, name: str, identity_token: str) -> str | None:
        """Return where a browser ends its session at a provider, and comes back from; None: nowhere.

        Args:
            name: of the provider.
            identity_token: that the session began with; empty: it is not known.
        """
        way = self._ways.get(name)
        if way is None:
            return None
        try:
            async with self._bounded(way):
                return await way.logout_url(identity_token, f"{self._base_url}/sign-in")
        except SignInError:
            return None

    async def end_by_provider(self, name: str, logout_token: str) -> User | None:
        """End the sessions of who has signed out at a provider, which says so by a token.

        Returns:
            The user; None: nobody here has that identity.

        Raises:
            SignInError: the token is not the provider's.
            DatabaseError: the database failed.
        """
        way = self._way(name)
        if not isinstance(way, OpenIdProvider):
            raise SignInError("There is no such way to sign out.", status=404)
        if not 0 < len(logout_token) <= _MAX_LOGOUT_TOKEN:
            raise SignInError("There is no logout token.")
        async with self._bounded(way):
            subject = await way.subject_logged_out(logout_token)
        return await self._people.end_sessions_of(way.provider.issuer, subject)

    def _begun(self, name: str, state: str, kept: Mapping[str, str]) -> SignInBegun:
        sealed = kept.get(attempt_of(state), "") if state else ""
        text = self._seal.open(sealed, ATTEMPT_LASTS) or "" if sealed else ""
        if not text.startswith(_SEALED):
            raise SignInError(
                "This browser has not begun to sign in here, or more than 10 minutes ago. Please sign in "
                f"again, at {self._base_url}",
                "there is no cookie for the state of the answer",
            )
        begun = msgspec.json.decode(text.removeprefix(_SEALED), type=SignInBegun)
        if begun.provider != name or not hmac.compare_digest(begun.state.encode(), state.encode()):
            raise SignInError(
                "The answer is for another sign-in. Please sign in again.", "another provider's"
            )
        return begun

    def _told_error(self, provider: Provider, error: str) -> SignInError:
        code = error if re.fullmatch(r"[a-z_]{1,40}", error) else "an error"
        told = _ERRORS.get(code, "{label} has not signed you in, and says: {code}.")
        return SignInError(told.format(label=provider.label, code=code), f"the provider answers {code}")

    def _way(self, name: str) -> _SignsIn:
        way = self._ways.get(name)
        if way is None:
            raise SignInError("There is no such way to sign in.", status=404)
        return way

    def _redirect_uri(self, name: str) -> str:
        return f"{self._base_url}/auth/{name}/callback"

    @asynccontextmanager
    async def _bounded(self, way: _SignsIn) -> AsyncIterator[None]:
        """Ask a provider for a bounded time, and not too often at once."""
        provider = way.provider
        if self._waiting[provider.name] >= _AT_ONCE:
            raise SignInError(
                f"Too many people wait for {provider.label}. Please try again in a few seconds.", status=503
            )
        self._waiting[provider.name] += 1
        try:
            async with asyncio.timeout(_LONGEST):
                yield
        except TimeoutError:
            raise SignInError(
                f"{provider.label} does not answer. Please try again in a few seconds.", "timeout", status=502
            ) from None
        finally:
            self._waiting[provider.name] -= 1


def attempt_of(state: str) -> str:
    """Return what tells an attempt from others of the same browser."""
    return re.sub(r"[^A-Za-z0-9]", "", state)[:12]


def who_signs_in(provider: Provider, claims: Mapping[str, Any]) -> SignIn:
    """Return what the settings make of verified claims.

    Raises:
        SignInError: the settings do not let this user in.
    """
    email, is_verified = _address(provider, claims)
    _require_domain(provider, claims, email if is_verified else "")
    groups = _groups(claims, provider.group_claim)
    if provider.allowed_groups and not provider.allowed_groups.intersection(groups):
        detail = "none of the groups is allowed" if groups else _without(claims, provider.group_claim)
        raise SignInError(f"Your account at {provider.label} is in no group that may sign in here.", detail)
    return SignIn(
        issuer=provider.issuer,
        subject=str(claims["sub"]),
        provider=provider.name,
        organization=_organization(provider, claims),
        role=provider.role_of(_groups(claims, provider.role_claim)),
        default_role=provider.default_role,
        email=email,
        email_is_trusted=is_verified and provider.is_trusted,
        name=_line(claims.get("name")) or _line(claims.get("preferred_username")),
        avatar_url=_https(claims.get("picture")),
    )


def _lacks(provider: Provider, claims: Mapping[str, Any]) -> bool:
    wanted = ["email", "email_verified", "name"]
    if provider.allowed_groups:
        wanted.append(provider.group_claim)
    if provider.role_map:
        wanted.append(provider.role_claim)
    if provider.organization_claim is not None:
        wanted.append(provider.organization_claim)
    return any(claim_at(dict(claims), name) is None for name in wanted)


def _address(provider: Provider, claims: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the address, in lower case, and whether it has been verified; empty: there is none."""
    value = claims.get("email")
    email = value.strip().lower() if isinstance(value, str) else ""
    if not email.isprintable() or not _EMAIL.fullmatch(email):
        return "", False
    # Some write it as a string; Entra ID says it by a claim of its own.
    said = claims.get("email_verified", claims.get("xms_edov"))
    return email, provider.takes_unverified_email or said in (True, "true", "1")


def _require_domain(provider: Provider, claims: Mapping[str, Any], verified: str) -> None:
    if not provider.allowed_domains:
        return
    domain = verified.rpartition("@")[2]
    if provider.preset is Preset.GOOGLE and domain != "gmail.com":
        # Whoever has had an address may keep an account with it: the organization's own accounts have hd.
        hosted = claims.get("hd")
        domain = hosted.lower() if isinstance(hosted, str) else ""
    if domain not in provider.allowed_domains:
        what = "belongs to no organization" if verified else "has no address that it has verified"
        raise SignInError(
            f"Your account at {provider.label} {what} that may sign in here.",
            "the domain is not among allowed_domains" if verified else _without(claims, "email_verified"),
        )


def _organization(provider: Provider, claims: Mapping[str, Any]) -> str:
    if provider.organization_claim is None:
        return provider.organization
    value = claim_at(dict(claims), provider.organization_claim)
    values = claim_words(value, split=False)
    claimed = values[0] if len(values) == 1 else ""
    # With the provider's name before it: what others call an organization is none of this one's.
    name = f"{provider.name}/{claimed}"
    fault = fault_of_claimed_organization(claimed) or fault_of_organization(name) if claimed else "is no name"
    if fault is not None:
        raise SignInError(
            f"{provider.label} does not say which organization you belong to.",
            f"the claim {provider.organization_claim} {fault}",
        )
    return name


def _groups(claims: Mapping[str, Any], name: str) -> list[str]:
    value = claim_at(dict(claims), name)
    # Zitadel has an object whose keys are the roles.
    groups = list(value) if isinstance(value, dict) else claim_words(value, split=False)
    # Keycloak writes the path of a group, /admins, unless its mapper is told to write the name alone.
    return [*groups, *(group[1:] for group in groups if group.startswith("/"))]


def _without(claims: Mapping[str, Any], name: str) -> str:
    """Return what the log says of a claim that is not there."""
    sources = claims.get("_claim_names")
    if (isinstance(sources, dict) and name in sources) or claims.get("hasgroups"):
        return f"the claim {name} is left out, because there are too many: have the provider send fewer"
    return f"the claim {name} is missing: have the provider send it"


def _line(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:_LONGEST_NAME]


def _https(value: object) -> str:
    text = value if isinstance(value, str) and len(value) <= 2000 and value.isprintable() else ""
    try:
        return text if urlsplit(text).scheme == "https" else ""
    except ValueError:
        return ""
