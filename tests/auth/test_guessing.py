"""Guessing credentials: after some wrong ones, an address's are verified no more."""

import pytest
from structlog.testing import capture_logs

from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.auth.credential import Credential
from rpcshare.auth.jwks import FixedKeys
from rpcshare.auth.rate_limits import FailureLimit
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.signed_tokens import SignedTokenVerifier, TokenIssuer
from rpcshare.auth.token_keys import TokenKey
from rpcshare.errors import ErrorCode, ShareError
from support.token_issuer import AUDIENCE, ISSUER, claims, make_key, token

HERE = "192.0.2.1"
KEY = make_key("EdDSA")


class KnowsBob:
    """A verifier of one token; it counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def verify(self, credential: Credential) -> Caller | None:
        self.asked += 1
        return Caller("bob") if credential.value == "right" else None


@pytest.fixture
def verifier() -> KnowsBob:
    return KnowsBob()


@pytest.fixture
def authenticator(verifier) -> Authenticator:
    return Authenticator([verifier], failures=FailureLimit(2, clock=lambda: 0.0))


def shows(token: str | None, address: str = HERE) -> RequestHead:
    headers = () if token is None else (("authorization", f"Bearer {token}"),)
    return RequestHead(headers=headers, address=address)


async def code_of(authenticator, token, address=HERE) -> ErrorCode:
    with pytest.raises(ShareError) as refused:
        await authenticator.caller(shows(token, address))
    return refused.value.code


@pytest.fixture
async def limited(authenticator, verifier) -> Authenticator:
    assert [await code_of(authenticator, guess) for guess in ("a", "b")] == [ErrorCode.UNAUTHORIZED] * 2
    verifier.asked = 0
    return authenticator


async def test_a_guess_too_many_is_refused_and_no_verifier_sees_it(limited, verifier):
    assert await code_of(limited, "right") is ErrorCode.RATE_LIMITED
    assert verifier.asked == 0


async def test_guesses_in_band_are_refused_alike(limited):
    with pytest.raises(ShareError) as refused:
        await limited.caller_of_token("right", address=HERE)
    assert refused.value.code is ErrorCode.RATE_LIMITED


async def test_a_request_without_a_credential_goes_on(limited):
    assert (await limited.caller(shows(None))).subject is ANONYMOUS.subject


async def test_another_address_goes_on(limited):
    assert (await limited.caller(shows("right", "192.0.2.2"))).subject == "bob"


async def test_a_caller_who_was_known_goes_on_and_is_verified_each_time(authenticator, verifier):
    await authenticator.caller(shows("right"))
    for guess in ("a", "b"):
        await code_of(authenticator, guess)
    verifier.asked = 0
    assert (await authenticator.caller(shows("right"))).subject == "bob"
    assert verifier.asked == 1
    assert await code_of(authenticator, "c") is ErrorCode.RATE_LIMITED


async def test_each_refusal_is_in_the_audit_log_without_what_was_shown(authenticator):
    with capture_logs() as lines:
        for guess in ("guess-1", "guess-2", "guess-3"):
            await code_of(authenticator, guess)
    assert [(line["action"], line["reason"], line["address"]) for line in lines] == [
        ("authenticate", "UNAUTHORIZED", HERE),
        ("authenticate", "UNAUTHORIZED", HERE),
        ("authenticate", "RATE_LIMITED", HERE),
    ]
    assert "guess" not in str(lines)


# --- tokens whose key nobody has --------------------------------------------------------------------


@pytest.fixture
def of_an_issuer() -> Authenticator:
    keys = FixedKeys([TokenKey(KEY, "known", ["EdDSA"])])
    verifier = SignedTokenVerifier([TokenIssuer(name=ISSUER, audience=AUDIENCE, keys=keys)])
    failures = FailureLimit(2, clock=lambda: 0.0)
    return Authenticator([verifier], failures=failures, is_no_guess=verifier.names_unknown_key)


@pytest.mark.parametrize("key_id", ["new", "old", ""])
async def test_a_token_whose_key_its_issuer_does_not_have_yet_locks_nobody_out(of_an_issuer, key_id):
    for _ in range(5):
        shown = token(KEY, "EdDSA", kid=key_id)
        assert await code_of(of_an_issuer, shown) is ErrorCode.UNAUTHORIZED
    caller = await of_an_issuer.caller(shows(token(KEY, "EdDSA", kid="known")))
    assert caller.subject == "alice"


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "known"},  # a signature of another key
        {"kid": None},
        {"kid": "new", "iss": "https://nobody.example"},
        {"kid": 1},
    ],
)
async def test_any_other_token_that_is_not_valid_is_a_guess(of_an_issuer, header):
    payload = claims(**({"iss": header.pop("iss")} if "iss" in header else {}))
    for _ in range(2):
        await code_of(of_an_issuer, token(make_key("EdDSA"), "EdDSA", payload, **header))
    assert await code_of(of_an_issuer, "another") is ErrorCode.RATE_LIMITED


async def test_a_key_that_nobody_has_is_no_way_around_the_limit(of_an_issuer):
    for _ in range(2):
        await code_of(of_an_issuer, "guess")
    shown = token(KEY, "EdDSA", kid="new")
    assert await code_of(of_an_issuer, shown) is ErrorCode.RATE_LIMITED
