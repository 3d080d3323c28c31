"""View tokens: what one opens, and what is none."""

import base64
import json
from uuid import UUID

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from rpcshare.auth.caller import View
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.view_tokens import ViewTokens, ViewTokenVerifier

SECRET = UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
NOW = 1_700_000_000.0
VIEW = View("9eiXoPTK", "0123456789abcdef", 3)


@pytest.fixture
def tokens() -> ViewTokens:
    return ViewTokens(SECRET, clock=lambda: NOW)


def test_a_token_is_read_as_what_it_was_issued_for(tokens: ViewTokens) -> None:
    token = tokens.issue(VIEW, NOW + 60)
    assert token.startswith("rsv_")
    assert tokens.read(token) == (VIEW, NOW + 60)


def test_every_node_with_the_shared_secret_reads_it(tokens: ViewTokens) -> None:
    assert ViewTokens(SECRET, clock=lambda: NOW + 59).read(tokens.issue(VIEW, NOW + 60)) is not None


def test_a_token_of_another_server_is_none(tokens: ViewTokens) -> None:
    assert tokens.read(ViewTokens(UUID(int=1), clock=lambda: NOW).issue(VIEW, NOW + 60)) is None


def test_a_token_ends(tokens: ViewTokens) -> None:
    assert tokens.read(tokens.issue(VIEW, NOW)) is None


def unsigned(claims: dict[str, object]) -> str:
    parts = ({"alg": "none"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join((*encoded, ""))


def signed_with_the_shared_secret(claims: dict[str, object]) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET.bytes.hex()), algorithms=["HS256"])


CLAIMS = {"share": "9eiXoPTK", "generation": "0123456789abcdef", "epoch": 3, "iat": 0, "exp": NOW + 60}


@pytest.mark.parametrize(
    "token",
    ["", "rsv_", "rsv_a.b.c", f"rsv_{unsigned(CLAIMS)}", f"rsv_{signed_with_the_shared_secret(CLAIMS)}"],
)
def test_what_is_not_signed_with_the_key_of_view_tokens_is_none(tokens: ViewTokens, token: str) -> None:
    assert tokens.read(token) is None


def test_a_token_that_was_changed_is_none(tokens: ViewTokens) -> None:
    header, _, signature = tokens.issue(VIEW, NOW + 60).split(".")
    claims = base64.urlsafe_b64encode(json.dumps({**CLAIMS, "share": "another1"}).encode()).decode()
    assert tokens.read(f"{header}.{claims.rstrip('=')}.{signature}") is None


def test_without_its_prefix_it_is_none(tokens: ViewTokens) -> None:
    assert tokens.read(tokens.issue(VIEW, NOW + 60).removeprefix("rsv_")) is None


def test_no_token_stands_for_the_view_that_no_change_ends(tokens: ViewTokens) -> None:
    assert tokens.read(tokens.issue(View("9eiXoPTK", "0123456789abcdef", None), NOW + 60)) is None


async def test_its_bearer_has_no_name_and_no_scopes_and_is_not_anonymous(tokens: ViewTokens) -> None:
    verifier = ViewTokenVerifier(tokens)
    caller = await verifier.verify(Credential(CredentialKind.TOKEN, tokens.issue(VIEW, NOW + 60)))
    assert caller is not None
    assert (caller.subject, caller.scopes, caller.views) == (None, frozenset(), {VIEW})
    assert not caller.is_anonymous
    assert caller.standing is not None


@pytest.mark.parametrize("kind", [CredentialKind.API_KEY, CredentialKind.PATH_KEY])
async def test_it_is_no_key(tokens: ViewTokens, kind: CredentialKind) -> None:
    assert await ViewTokenVerifier(tokens).verify(Credential(kind, tokens.issue(VIEW, NOW + 60))) is None
