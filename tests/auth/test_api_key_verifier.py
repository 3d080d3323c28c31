"""Knowing API keys: at once when they are new, and no longer once they have ended."""

import asyncio
import time

import msgspec
import pytest

from rpcshare.auth.api_key_verifier import LOOKUPS, ApiKeyVerifier
from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.caller import Scope
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import MemoryStore, ObjectInfo, StoredObject, StoreError
from support.narrowing import not_none


class Store(MemoryStore):
    """Counts what it is asked, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.read: list[str] = []
        self.listed = 0

    async def get(self, key: str) -> StoredObject | None:
        self._fail()
        self.read.append(key)
        return await super().get(key)

    async def list(self, prefix: str, *, start_after: str = ""):
        self._fail()
        self.listed += 1
        async for info in super().list(prefix, start_after=start_after):
            yield ObjectInfo(*info)

    def _fail(self) -> None:
        if self.fails:
            raise StoreError("the store is down")


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def keys(store):
    return ApiKeys(store)


@pytest.fixture
def verifier(store):
    return ApiKeyVerifier(store)


def shown(key: str, kind: CredentialKind = CredentialKind.API_KEY) -> Credential:
    return Credential(kind, key)


async def refusal(verifier: ApiKeyVerifier, key: str) -> ShareError:
    with pytest.raises(ShareError) as caught:
        await verifier.verify(shown(key))
    return caught.value


@pytest.mark.parametrize("kind", CredentialKind)
async def test_a_key_is_known_in_every_form_in_which_it_may_be_shown(verifier, keys, kind):
    new = await keys.create("ci", ["read"])
    caller = await verifier.verify(shown(new.key, kind))
    assert (caller.subject, caller.scopes) == ("ci", {Scope.READ})


async def test_a_key_that_was_made_after_the_last_refresh_works_at_once(verifier, keys):
    await verifier.refresh()
    new = await keys.create("ci")
    assert (await verifier.verify(shown(new.key))).subject == "ci"


async def test_a_known_key_costs_the_store_nothing(verifier, keys, store):
    new = await keys.create("ci")
    await verifier.refresh()
    store.read.clear()
    for _ in range(3):
        assert await verifier.verify(shown(new.key))
    assert store.read == []


async def test_all_who_show_one_key_share_its_standing(verifier, keys):
    new = await keys.create("ci")
    one, other = [await verifier.verify(shown(new.key)) for _ in range(2)]
    assert one.standing is other.standing


async def test_a_wrong_secret_is_not_known_and_costs_the_store_nothing(verifier, keys, store):
    new = await keys.create("ci")
    await verifier.refresh()
    store.read.clear()
    wrong = new.key[:-1] + ("a" if new.key[-1] != "a" else "b")
    assert await verifier.verify(shown(wrong)) is None
    assert store.read == []


async def test_what_is_no_key_is_left_to_other_verifiers(verifier, store):
    store.fails = True
    assert await verifier.verify(shown("eyJhbGciOiJub25lIn0.e30.")) is None


async def test_revocation_ends_the_standing_at_the_next_refresh(verifier, keys):
    new = await keys.create("ci")
    standing = (await verifier.verify(shown(new.key))).standing
    await keys.revoke(new.kept.id)
    assert not standing.is_over
    await verifier.refresh()
    assert standing.is_over
    error = await refusal(verifier, new.key)
    assert (error.code, error.message) == (
        ErrorCode.UNAUTHORIZED,
        "Unauthorized: the API key has been revoked",
    )


async def test_rotation_ends_the_old_key_and_the_new_one_works(verifier, keys):
    old = await keys.create("ci")
    standing = (await verifier.verify(shown(old.key))).standing
    new = await keys.rotate(old.kept.id)
    await verifier.refresh()
    assert standing.is_over
    assert (await verifier.verify(shown(new.key))).subject == "ci"


async def test_a_key_whose_object_was_removed_ends(verifier, keys, store):
    new = await keys.create("ci")
    standing = (await verifier.verify(shown(new.key))).standing
    await store.delete([f"auth/key/{new.kept.id}"])
    await verifier.refresh()
    assert standing.is_over
    assert await verifier.verify(shown(new.key)) is None


async def test_an_expired_key_is_refused_without_asking_the_store(verifier, store):
    long_ago = ApiKeys(store, clock=lambda: time.time() - 60)
    new = await long_ago.create("ci", expires_in="59s")
    await verifier.refresh()
    store.fails = True
    error = await refusal(verifier, new.key)
    assert (error.code, error.message) == (ErrorCode.UNAUTHORIZED, "Unauthorized: the API key has expired")


async def test_what_a_key_opened_ends_when_the_key_expires(verifier, store):
    almost_a_minute_ago = ApiKeys(store, clock=lambda: time.time() - 59.9)
    new = await almost_a_minute_ago.create("ci", expires_in="1m")
    standing = (await verifier.verify(shown(new.key))).standing
    ended = asyncio.Event()
    standing.on_end(ended.set)
    await asyncio.wait_for(ended.wait(), 5)
    assert (await refusal(verifier, new.key)).code is ErrorCode.UNAUTHORIZED


async def test_a_refresh_reads_only_what_has_changed(verifier, keys, store):
    made = [await keys.create(f"ci-{number}") for number in range(3)]
    await verifier.refresh()
    await keys.revoke(made[1].kept.id)
    store.read.clear()
    await verifier.refresh()
    assert store.read == [f"auth/key/{made[1].kept.id}"]


async def test_a_revocation_is_final_even_if_an_older_state_is_read_afterwards(verifier, keys, store):
    new = await keys.create("ci")
    key = f"auth/key/{new.kept.id}"
    live = (await store.get(key)).body
    await keys.revoke(new.kept.id)
    await verifier.refresh()
    await store.put(key, live)
    await verifier.refresh()
    assert (await refusal(verifier, new.key)).code is ErrorCode.UNAUTHORIZED


async def test_an_invented_key_is_looked_up_once(verifier, store):
    invented = f"rsk_{'0' * 12}_{'x' * 43}"
    for _ in range(5):
        assert await verifier.verify(shown(invented)) is None
    assert len(store.read) == 1


async def test_inventing_many_keys_costs_the_store_little(verifier, keys, store):
    known = await keys.create("ci")
    await verifier.refresh()
    store.read.clear()
    for number in range(LOOKUPS):
        await verifier.verify(shown(f"rsk_{number:012x}_{'x' * 43}"))
    error = await refusal(verifier, f"rsk_{'f' * 12}_{'x' * 43}")
    assert (error.code, error.retry_after) == (ErrorCode.RATE_LIMITED, 1.5)
    assert len(store.read) == LOOKUPS
    assert await verifier.verify(shown(known.key))


async def test_known_keys_stay_valid_while_the_store_is_down(verifier, keys, store):
    new = await keys.create("ci")
    await verifier.refresh()
    store.fails = True
    with pytest.raises(StoreError):
        await verifier.refresh()
    assert (await verifier.verify(shown(new.key))).subject == "ci"


async def test_known_keys_are_not_trusted_for_ever_without_the_store(keys, store):
    verifier = ApiKeyVerifier(store, trust_without_store=0)
    new = await keys.create("ci")
    assert await verifier.verify(shown(new.key))
    store.fails = True
    error = await refusal(verifier, new.key)
    assert (error.code, error.retry_after) == (ErrorCode.STORAGE_UNAVAILABLE, 1.5)
    store.fails = False
    assert await verifier.verify(shown(new.key))


async def test_an_unknown_key_cannot_be_told_without_the_store(verifier, keys, store):
    new = await keys.create("ci")
    store.fails = True
    assert (await refusal(verifier, new.key)).code is ErrorCode.STORAGE_UNAVAILABLE


async def test_an_object_that_cannot_be_read_ends_its_key_and_no_other(verifier, keys, store):
    broken, whole = await keys.create("broken"), await keys.create("whole")
    standing = (await verifier.verify(shown(broken.key))).standing
    await store.put(f"auth/key/{broken.kept.id}", b"{}")
    await verifier.refresh()
    assert standing.is_over
    assert (await refusal(verifier, broken.key)).code is ErrorCode.STORAGE_UNAVAILABLE
    assert (await verifier.verify(shown(whole.key))).subject == "whole"
    store.read.clear()
    await verifier.refresh()
    assert store.read == []


async def test_one_key_s_object_in_the_place_of_another_s_is_not_taken_for_it(verifier, keys, store):
    one, other = await keys.create("one"), await keys.create("other", ["admin"])
    forged = msgspec.json.encode(msgspec.structs.replace(other.kept, hash=one.kept.hash))
    await store.put(f"auth/key/{one.kept.id}", forged)
    assert (await refusal(verifier, one.key)).code is ErrorCode.STORAGE_UNAVAILABLE


async def test_refreshing_goes_on_in_the_background_through_an_outage(keys, store, caplog):
    verifier = ApiKeyVerifier(store, refresh_interval=0.01)
    new = await keys.create("ci")
    ended = asyncio.Event()
    async with verifier.refreshing():
        not_none(not_none(await verifier.verify(shown(new.key))).standing).on_end(ended.set)
        store.fails = True
        async with asyncio.timeout(5):
            while not caplog.records:  # noqa: ASYNC110 -- a log tells nobody
                await asyncio.sleep(0.01)
        store.fails = False
        await keys.revoke(new.kept.id)
        await asyncio.wait_for(ended.wait(), 5)
    assert [record.getMessage() for record in caplog.records] == [
        "API keys cannot be refreshed: the store is down"
    ]
