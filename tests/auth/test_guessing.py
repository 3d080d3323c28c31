"""Guessing credentials: after some wrong ones, an address's are verified no more."""

import pytest
from structlog.testing import capture_logs

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.auth.credential import Credential
from rpcshare.auth.handshake import Authenticator
from rpcshare.auth.rate_limits import FailureLimit
from rpcshare.auth.request_head import RequestHead
from rpcshare.errors import ErrorCode, ShareError

HERE = "192.0.2.1"


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
