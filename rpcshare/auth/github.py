"""Signing in with GitHub: OAuth 2.0 with PKCE, and what its API says of who has signed in."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from rpcshare import jsontext
from rpcshare.auth.bounded_http import ask
from rpcshare.auth.oidc import ProviderSays, Returned, SignInBegun, challenge
from rpcshare.auth.provider_answers import json_answer
from rpcshare.auth.provider_errors import SignInError
from rpcshare.auth.sign_in_providers import Provider

__all__ = ["GitHubProvider"]

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_API = "https://api.github.com"
_VERSION = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


class GitHubProvider:
    """GitHub, or a GitHub Enterprise Server at the issuer's URL."""

    def __init__(self, provider: Provider) -> None:
        """Sign in with ``provider``."""
        self.provider = provider
        base = provider.issuer.rstrip("/")
        self._web = base
        self._api = _API if base == "https://github.com" else f"{base}/api/v3"

    async def authorization_url(self, begun: SignInBegun, redirect_uri: str) -> str:
        """Return where the browser goes to sign in."""
        query = urlencode(
            {
                "client_id": self.provider.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(self.provider.scopes),
                "state": begun.state,
                "code_challenge": challenge(begun.verifier),
                "code_challenge_method": "S256",
            }
        )
        return f"{self._web}/login/oauth/authorize?{query}"

    async def claims(
        self,
        returned: Returned,
        begun: SignInBegun,
        redirect_uri: str,
        wanted: Callable[[dict[str, Any]], bool],  # noqa: ARG002 -- as of the other kind of provider
    ) -> ProviderSays:
        """Return what GitHub says of who has signed in, by the names of OpenID Connect.

        Groups are organizations, ``acme``, and teams, ``acme/operators``.

        Raises:
            SignInError: it does not say who, or not in time.
        """
        form = {
            "client_id": self.provider.client_id,
            "client_secret": self.provider.client_secret or "",
            "code": returned.code,
            "redirect_uri": redirect_uri,
            "code_verifier": begun.verifier,
        }
        url = f"{self._web}/login/oauth/access_token"
        tokens = await json_answer(self.provider, url, headers={"Accept": "application/json"}, form=form)
        access = tokens.get("access_token")
        if not isinstance(access, str) or not _TOKEN.fullmatch(access):
            raise self._bad("no access token")
        headers = {**_VERSION, "Authorization": f"Bearer {access}"}
        user = await json_answer(self.provider, f"{self._api}/user", headers=headers)
        number = user.get("id")
        if type(number) is not int:  # a login can be given up, and taken by somebody else
            raise self._bad("no user")
        claims = {
            "sub": str(number),
            "name": user.get("name") or user.get("login"),
            "preferred_username": user.get("login"),
            "picture": user.get("avatar_url"),
            **_primary(await self._list("/user/emails", headers)),
        }
        if self.provider.wants_groups:
            claims[self.provider.group_claim] = await self._groups(headers)
        return ProviderSays(claims)

    async def logout_url(self, _identity_token: str, _back: str) -> str | None:
        """Return None: GitHub has no address at which a browser's session ends."""
        return None

    async def close(self) -> None:
        """Do nothing: there is nothing that is fetched in the background."""

    async def _groups(self, headers: dict[str, str]) -> list[str]:
        names = [_text(each, "login") for each in await self._list("/user/orgs?per_page=100", headers)]
        wanted = (*self.provider.allowed_groups, *self.provider.role_map)
        if any("/" in each for each in wanted):
            for team in await self._list("/user/teams?per_page=100", headers):
                of = team.get("organization")
                organization, slug = _text(of if isinstance(of, dict) else {}, "login"), _text(team, "slug")
                if organization and slug and "/" not in organization + slug:  # or it reads like another's
                    names.append(f"{organization}/{slug}")
        return names

    async def _list(self, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
        try:
            answer = await ask(f"{self._api}{path}", headers=headers)
            content = jsontext.decode(answer.body)
        except (ConnectionError, TimeoutError, ValueError) as exc:
            raise self._unreachable(f"{path}: {type(exc).__name__}") from None
        if not isinstance(content, list) or answer.status != HTTPStatus.OK:
            raise self._unreachable(f"{path} answers {answer.status}")
        return [each for each in content if isinstance(each, dict)]

    def _bad(self, what: str) -> SignInError:
        return SignInError(f"{self.provider.label} sent {what}. Nobody was signed in.")

    def _unreachable(self, detail: str) -> SignInError:
        sentence = (
            f"{self.provider.label} cannot be reached at the moment. Please try again in a few seconds."
        )
        return SignInError(sentence, detail, status=502)


def _primary(addresses: list[dict[str, Any]]) -> dict[str, Any]:
    for each in addresses:
        if each.get("primary") is True and isinstance(each.get("email"), str):
            return {"email": each["email"], "email_verified": each.get("verified") is True}
    return {}


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""
