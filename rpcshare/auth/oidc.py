"""Signing in by OpenID Connect: the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 9700).

Nothing that a provider sends is believed before it is known to be the provider's: its metadata names the same
issuer as the settings, and an identity token is signed by one of its keys, by an algorithm of that key, for
this client and for the sign-in that this browser began.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Collection
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from rpcshare.auth.jwks import RemoteKeys
from rpcshare.auth.provider_answers import json_answer, unreachable
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.sign_in_providers import Provider
from rpcshare.auth.signed_tokens import LEEWAY, encoded, read_token, time_of_claim
from rpcshare.errors import ShareError

__all__ = ["OpenIdProvider", "ProviderSays", "Returned", "SignInBegun"]

logger = logging.getLogger(__name__)

# All in seconds.
METADATA_AGE = 3600.0
RETRY_AFTER = 5.0  # between two attempts to have the metadata
KEYS_INTERVAL = 1.0  # between two fetches of keys: tokens come from the provider alone, not from callers

_MAX_TOKEN = 64 * 1024  # characters

_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_TYPES = ("logout+jwt", "application/logout+jwt")
_LOGOUT_LASTS = 150.0  # seconds: the two minutes that Back-Channel Logout 1.0 recommends, and clocks

# Of an identity token by OpenID Connect Core, section 3.1.3.6, by the algorithm that signed it.
_HASHES = {
    "RS256": hashlib.sha256,
    "ES256": hashlib.sha256,
    "EdDSA": hashlib.sha512,
    "Ed25519": hashlib.sha512,
}


class SignInBegun(msgspec.Struct, frozen=True):
    """What a browser keeps, sealed, from the beginning of a sign-in to its end."""

    provider: str
    state: str
    nonce: str
    verifier: str
    next: str
    at: float


class Returned(msgspec.Struct, frozen=True):
    """What the browser brings back from a provider."""

    code: str
    issuer: str | None
    """By RFC 9207."""


class ProviderSays(NamedTuple):
    """What a provider has said, verified, of who has signed in."""

    claims: dict[str, Any]
    identity_token: str = ""
    """By which the provider knows the browser's session again, when it is to end; empty: none."""


class _Metadata(msgspec.Struct, frozen=True):
    """What is used of a provider's metadata (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False


class OpenIdProvider:
    """One provider."""

    def __init__(self, provider: Provider, *, clock: Callable[[], float] = time.time) -> None:
        """Sign in with ``provider``; ``clock`` tells seconds since the epoch."""
        self.provider = provider
        self._clock = clock
        self._metadata: _Metadata | None = None
        self._fetched_at = 0.0
        self._failed_at: float | None = None
        self._failure = ""
        self._fetching: asyncio.Task[_Metadata] | None = None
        self._keys: RemoteKeys | None = None
        self._keys_url = ""

    async def authorization_url(self, begun: SignInBegun, redirect_uri: str) -> str:
        """Return where the browser goes to sign in.

        Raises:
            SignInError: the provider cannot be reached, or is another than the settings say.
        """
        metadata = await self._known_metadata()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.provider.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(self.provider.scopes),
                "state": begun.state,
                "nonce": begun.nonce,
                "code_challenge": challenge(begun.verifier),
                "code_challenge_method": "S256",
            }
        )
        joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return f"{metadata.authorization_endpoint}{joint}{query}"

    async def claims(
        self,
        returned: Returned,
        begun: SignInBegun,
        redirect_uri: str,
        wanted: Callable[[dict[str, Any]], bool],
    ) -> ProviderSays:
        """Return what the provider says of who has signed in.

        Args:
            returned: what the browser brought.
            begun: what it kept.
            redirect_uri: where it came back to.
            wanted: whether claims lack something, so that the provider is asked for more.

        Raises:
            SignInError: the answer is not the provider's, not for this sign-in, or there is none.
        """
        metadata = await self._known_metadata()
        self._check_issuer_of_answer(returned, metadata)
        tokens = await self._exchanged(returned.code, begun.verifier, redirect_uri, metadata)
        identity, access = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(identity, str) or len(identity) > _MAX_TOKEN:
            raise self._bad("no identity token", "the scope openid is missing, or this is no OpenID provider")
        header, claims = await self._verified(identity, metadata)
        self._check(claims, begun)
        if isinstance(access, str) and isinstance(claims.get("at_hash"), str):
            self._check_hash(header, claims["at_hash"], access)
        if wanted(claims) and metadata.userinfo_endpoint and isinstance(access, str):
            claims = _merged(claims, await self._userinfo(metadata.userinfo_endpoint, access, claims["sub"]))
        return ProviderSays(claims, identity)

    async def logout_url(self, identity_token: str, back: str) -> str | None:
        """Return where the browser ends its session at the provider (RP-Initiated Logout 1.0).

        Args:
            identity_token: that the session began with; empty: the provider asks which one is meant.
            back: where it is to come back to.

        Returns:
            None: the provider has no such address, or cannot be reached.
        """
        try:
            metadata = await self._known_metadata()
        except SignInError:
            return None
        endpoint = metadata.end_session_endpoint
        if endpoint is None or not self.provider.ends_session:
            return None
        hint = {"id_token_hint": identity_token} if identity_token else {}
        given = {**hint, "client_id": self.provider.client_id, "post_logout_redirect_uri": back}
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(given)}"

    async def subject_logged_out(self, logout_token: str) -> str:
        """Return the subject whose sessions the provider has ended (Back-Channel Logout 1.0, section 2.6).

        Raises:
            SignInError: the token is not the provider's, not for this client, or not of now.
        """
        metadata = await self._known_metadata()
        _, claims = await self._signed(logout_token, metadata, "a logout token", _LOGOUT_TYPES)
        self._check_recipient(claims, "a logout token")
        now = self._clock()
        try:
            issued_at, expires_at = time_of_claim(claims, "iat"), time_of_claim(claims, "exp")
        except ShareError as exc:
            raise self._bad("a logout token that cannot be used", exc.message) from None
        if issued_at is None or abs(now - issued_at) > _LOGOUT_LASTS or (expires_at or now) < now - LEEWAY:
            raise self._bad("a logout token that is not of now", "the claims iat and exp")
        events = claims.get("events")
        # Without a nonce, as identity tokens have one: neither can be taken for the other.
        if not isinstance(events, dict) or _LOGOUT_EVENT not in events or "nonce" in claims:
            raise self._bad("a token that is no logout token", "the claims events and nonce")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise self._bad("a logout token without a subject", "have the provider send sub beside sid")
        return subject

    async def close(self) -> None:
        """Give up what is being fetched."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        if self._keys is not None:
            await self._keys.close()

    # Metadata

    async def _known_metadata(self) -> _Metadata:
        now = time.monotonic()
        if self._metadata is not None and now - self._fetched_at < METADATA_AGE:
            return self._metadata
        if self._failed_at is not None and now - self._failed_at < RETRY_AFTER:
            if self._metadata is not None:
                return self._metadata
            raise self._unreachable(self._failure)
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_metadata())
            self._fetching.add_done_callback(self._fetched)
        if self._metadata is not None:  # old, and good until there is another
            return self._metadata
        return await asyncio.shield(self._fetching)  # one request for all who wait

    def _fetched(self, fetching: asyncio.Task[_Metadata]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            fetching.exception()  # told by the task itself

    async def _fetch_metadata(self) -> _Metadata:
        try:
            metadata = await self._read_metadata()
        except SignInError as exc:
            self._failed_at, self._failure = time.monotonic(), exc.detail
            raise
        self._failed_at = None
        self._metadata, self._fetched_at = metadata, time.monotonic()
        return metadata

    async def _read_metadata(self) -> _Metadata:
        issuer = self.provider.issuer
        content = await self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            metadata = msgspec.convert(content, _Metadata)
        except msgspec.ValidationError as exc:
            raise self._unreachable(f"its metadata cannot be used: {exc}") from None
        if metadata.issuer != issuer:
            same = metadata.issuer.rstrip("/") == issuer.rstrip("/")
            hint = f": write the issuer as {metadata.issuer[:200]!r}" if same else ""
            raise self._unreachable(f"it says that it is another issuer than {issuer}{hint}")
        endpoints = (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri)
        schemes = ("https",) if issuer.startswith("https:") else ("https", "http")
        optional = (metadata.userinfo_endpoint, metadata.end_session_endpoint)
        for endpoint in (*endpoints, *(each for each in optional if each is not None)):
            if not _is_url(endpoint, schemes):
                raise self._unreachable("an endpoint of it is no https URL")
        return metadata

    # Tokens

    def _check_issuer_of_answer(self, returned: Returned, metadata: _Metadata) -> None:
        """Refuse an answer of another provider, whom a code must not be sent to (RFC 9207)."""
        if returned.issuer is None and not metadata.authorization_response_iss_parameter_supported:
            return
        if returned.issuer != self.provider.issuer:
            raise self._bad("an answer that is another provider's", "iss of the answer is another issuer")

    async def _exchanged(
        self, code: str, verifier: str, redirect_uri: str, metadata: _Metadata
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"Accept": "application/json"}
        client_id, secret = self.provider.client_id, self.provider.client_secret
        methods = metadata.token_endpoint_auth_methods_supported or ("client_secret_basic",)
        if secret is None:
            form["client_id"] = client_id
        elif "client_secret_basic" not in methods and "client_secret_post" in methods:
            form |= {"client_id": client_id, "client_secret": secret}
        else:
            # RFC 6749, section 2.3.1: encoded as in a form, before it is base64.
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode('ascii')}"
        return await self._json(metadata.token_endpoint, headers=headers, form=form)

    async def _verified(self, text: str, metadata: _Metadata) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return header and claims of an identity token that the provider has signed."""
        header, claims = await self._signed(text, metadata, "an identity token")
        if header.get("typ", "JWT").lower() not in ("jwt", "application/jwt"):
            raise self._bad("an identity token of another kind", "typ is not JWT")
        return header, claims

    async def _signed(
        self, text: str, metadata: _Metadata, what: str, kinds: Collection[str] = ()
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._keys is None or self._keys_url != metadata.jwks_uri:
            self._keys = RemoteKeys(metadata.jwks_uri, min_interval=KEYS_INTERVAL)
            self._keys_url = metadata.jwks_uri
        try:
            read = await read_token(text, self._keys, kinds)
        except ShareError as exc:
            raise self._unreachable("its keys cannot be had") from exc
        if read is None:
            raise self._bad(f"{what} that is malformed, or not signed")
        header, claims, is_signed = read
        if not is_signed:
            algorithm = header.get("alg")
            raise self._bad(
                f"{what} that is not signed by its keys",
                f"alg {algorithm!r:.40}, kid {header.get('kid')!r:.80}: RS256, ES256 and EdDSA are accepted",
            )
        return header, claims

    def _check(self, claims: dict[str, Any], begun: SignInBegun) -> None:
        """Refuse claims that are not of this issuer, for this client, of now and of this sign-in."""
        client_id = self.provider.client_id
        audiences = self._check_recipient(claims, "an identity token")
        party = claims.get("azp")
        if (len(audiences) > 1 and party is None) or party not in (None, client_id):
            raise self._bad("an identity token for another client", "the claim azp is not the client_id")
        now = self._clock()
        try:
            expires_at, issued_at = time_of_claim(claims, "exp"), time_of_claim(claims, "iat")
            begins_at = time_of_claim(claims, "nbf")
        except ShareError as exc:
            raise self._bad("an identity token that cannot be used", exc.message) from None
        if expires_at is None or issued_at is None:
            raise self._bad("an identity token that cannot be used", "the claim exp or iat is missing")
        clocks = "or the clocks of provider and server differ by more than a minute"
        if now >= expires_at + LEEWAY:
            raise self._bad("an identity token that has expired", clocks)
        if max(issued_at, begins_at or 0) > now + LEEWAY:
            raise self._bad("an identity token that is not valid yet", clocks)
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), begun.nonce.encode()):
            raise self._bad("an identity token for another sign-in", "the claim nonce is another")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:  # OpenID Connect Core, section 2
            raise self._bad("an identity token without a subject", "the claim sub")

    def _check_recipient(self, claims: dict[str, Any], what: str) -> list[Any]:
        """Refuse a token that is not of this issuer and for this client; return whom it is for."""
        if claims.get("iss") != self.provider.issuer:
            raise self._bad(f"{what} of another issuer", "the claim iss is not the issuer")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self.provider.client_id not in audiences:
            raise self._bad(f"{what} for another client", "the claim aud is not the client_id")
        return audiences

    def _check_hash(self, header: dict[str, Any], expected: str, access: str) -> None:
        made = _HASHES[str(header.get("alg"))](access.encode()).digest()
        if not hmac.compare_digest(encoded(made[: len(made) // 2]).encode(), expected.encode()):
            raise self._bad("an identity token of another access token", "the claim at_hash is another")

    async def _userinfo(self, url: str, access: str, subject: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {access}", "Accept": "application/json"}
        found = await self._json(url, headers=headers)
        if found.get("sub") != subject:  # OpenID Connect Core, section 5.3.2
            raise self._bad("what it knows of another user", "sub of userinfo is another")
        return found

    async def _json(
        self, url: str, *, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> dict[str, Any]:
        return await json_answer(self.provider, url, headers=headers, form=form)

    def _bad(self, what: str, detail: str = "") -> SignInError:
        return SignInError(f"{self.provider.label} sent {what}. Nobody was signed in.", detail)

    def _unreachable(self, detail: str) -> SignInError:
        return unreachable(self.provider, detail)


def _merged(claims: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Return the claims of an identity token and of userinfo; the token's count where both have one.

    That an address is verified is said of the address beside it, and of no other.
    """
    merged = {**info, **claims}
    source = claims if "email" in claims and "email_verified" in claims else info
    if source is info and info.get("email") != claims.get("email", info.get("email")):
        source = claims
    merged.pop("email_verified", None)
    if "email_verified" in source:
        merged["email_verified"] = source["email_verified"]
    return merged


def challenge(verifier: str) -> str:
    """Return the code challenge S256 of a verifier (RFC 7636, section 4.2)."""
    return encoded(hashlib.sha256(verifier.encode("ascii")).digest())


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname) and parts.username is None and text.isprintable()
