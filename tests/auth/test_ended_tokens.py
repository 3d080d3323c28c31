"""Signed tokens that are ended before their time: one, a subject's, or all."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.ended_tokens import EndedTokens
from rpcshare.auth.jwks import FixedKeys
from rpcshare.auth.signed_tokens import SignedTokenVerifier, TokenIssuer
from rpcshare.auth.token_keys import TokenKey
from rpcshare.auth.token_revocations import PRUNE_AFTER, REVOKED_PREFIX, TokenRevocations
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import MemoryStore, ObjectInfo, StoreError
from support.token_issuer import AUDIENCE, ISSUER, claims, make_key, token

KEY = make_key("EdDSA")
NOW = 1_800_000_000.0
OTHER = "https://other.example"


class UnreachableStore(MemoryStore):
    is_reachable = True

    async def check(self) -> None:
        if not self.is_reachable:
            raise StoreError("the store does not answer")

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        if not self.is_reachable:
            raise StoreError("the store does not answer")
        return super().list(prefix, start_after=start_after)


@pytest.fixture
def store() -> UnreachableStore:
    return UnreachableStore()


@pytest.fixture
def revocations(store) -> TokenRevocations:
    return TokenRevocations(store, clock=lambda: NOW)


@pytest.fixture
def ended(store) -> EndedTokens:
    return EndedTokens(store, refresh_interval=0.01, clock=lambda: NOW)


@pytest.fixture
def verifier(ended) -> SignedTokenVerifier:
    keys = FixedKeys([TokenKey(KEY, None, ["EdDSA"])])
    issuers = [TokenIssuer(name=name, audience=AUDIENCE, keys=keys) for name in (ISSUER, OTHER)]
    return SignedTokenVerifier(issuers, ended, clock=lambda: NOW)


def shown(**others) -> Credential:
    payload = claims(**{"iat": NOW - 60, "exp": NOW + 10**9, "jti": "one", **others})
    return Credential(CredentialKind.TOKEN, token(KEY, "EdDSA", payload))


async def is_good(verifier, **others) -> bool:
    try:
        return await verifier.verify(shown(**others)) is not None
    except ShareError as exc:
        if exc.code is not ErrorCode.UNAUTHORIZED or "revoked" not in exc.message:
            raise
        return False


@pytest.mark.parametrize(
    ("revoked", "token_of", "good"),
    [
        ({"token_id": "one"}, {}, False),
        ({"token_id": "one"}, {"jti": "two"}, True),
        ({"token_id": "one"}, {"jti": None}, True),
        ({"token_id": "one"}, {"jti": 1}, True),
        ({"token_id": "one"}, {"iss": OTHER}, False),
        ({"token_id": "one", "issuer": ISSUER}, {}, False),
        ({"token_id": "one", "issuer": ISSUER}, {"iss": OTHER}, True),
        ({"token_id": "one"}, {"iat": NOW + 30}, False),
        ({"subject": "alice"}, {}, False),
        ({"subject": "alice"}, {"sub": "bob"}, True),
        ({"subject": "alice"}, {"iat": NOW + 1}, True),
        ({"subject": "alice"}, {"iat": None}, False),
        ({"subject": "alice", "issuer": ISSUER}, {"iss": OTHER}, True),
        ({}, {}, False),
        ({}, {"sub": "bob", "jti": None}, False),
        ({}, {"iat": NOW + 1}, True),
        ({}, {"iat": NOW}, False),
        ({"issuer": OTHER}, {}, True),
        ({"issuer": OTHER}, {"iss": OTHER}, False),
    ],
)
async def test_a_revocation_ends_the_tokens_that_fit_all_it_names(
    verifier, ended, revocations, revoked, token_of, good
):
    async with ended.refreshing():
        assert await is_good(verifier, **token_of)
        await revocations.revoke(**revoked)
        await ended.refresh()
        assert await is_good(verifier, **token_of) == good


async def test_what_a_token_has_opened_ends_with_it(verifier, ended, revocations):
    async with ended.refreshing():
        caller = await verifier.verify(shown())
        other = await verifier.verify(shown(jti="two"))
        over = asyncio.Event()
        caller.standing.on_end(over.set)
        await revocations.revoke(token_id="one")
        async with asyncio.timeout(20):
            await over.wait()
    assert caller.has_lost_standing
    assert not other.has_lost_standing


async def test_a_node_that_starts_knows_what_was_ended_before(verifier, ended, revocations):
    await revocations.revoke(subject="alice")
    async with ended.refreshing():
        assert not await is_good(verifier)


async def test_no_token_is_believed_while_it_cannot_be_told_whether_it_was_ended(store, verifier, ended):
    store.is_reachable = False
    async with ended.refreshing():
        with pytest.raises(ShareError) as refused:
            await verifier.verify(shown())
    assert refused.value.code is ErrorCode.STORAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("expires_in", "later", "is_left"),
    [(60, 61, True), (60, 61 + PRUNE_AFTER, False), (None, 10**9, True)],
)
async def test_a_revocation_is_removed_well_after_all_that_it_ends_has_expired(
    store, revocations, expires_in, later, is_left
):
    await revocations.revoke(token_id="one", expires_in=expires_in)
    ended = EndedTokens(store, clock=lambda: NOW + later)
    async with ended.refreshing():
        left = [info.key async for info in store.list(REVOKED_PREFIX)]
    assert bool(left) == is_left


async def test_a_revocation_that_is_taken_out_of_the_store_still_holds_where_it_is_known(
    store, verifier, ended, revocations
):
    made = await revocations.revoke(token_id="one")
    async with ended.refreshing():
        await store.delete([REVOKED_PREFIX + made.id])
        await ended.refresh()
        assert not await is_good(verifier)


async def test_what_cannot_be_read_keeps_no_other_from_being_heeded(store, verifier, ended, revocations):
    await store.put(f"{REVOKED_PREFIX}0", b"{")
    await revocations.revoke(token_id="one")
    async with ended.refreshing():
        assert not await is_good(verifier)


@pytest.mark.parametrize(
    "bad", [{"token_id": ""}, {"token_id": "a b"}, {"subject": " "}, {"expires_in": "x"}]
)
async def test_a_revocation_of_what_cannot_be_is_refused(revocations, bad):
    with pytest.raises(ShareError) as refused:
        await revocations.revoke(**bad)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
