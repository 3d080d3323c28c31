"""API keys: how they are made, kept, rotated and revoked."""

import asyncio
import re

import msgspec
import pytest

from rpcshare.auth.api_keys import ApiKeys, UnknownApiKeyError, id_of_key
from rpcshare.auth.caller import Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage import MemoryStore

DAY = 86_400_000  # ms


class Clock:
    def __init__(self) -> None:
        self.now = 1_757_214_689.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def keys(store, clock):
    return ApiKeys(store, clock=clock)


async def test_a_key_has_its_id_in_it_and_256_random_bits(keys):
    new = await keys.create("ci")
    assert re.fullmatch(rf"rsk_{new.kept.id}_[A-Za-z0-9]{{43}}", new.key)
    assert id_of_key(new.key) == new.kept.id


async def test_a_key_may_create_and_does_not_expire_unless_something_else_is_asked_for(keys, clock):
    kept = (await keys.create("ci")).kept
    assert (kept.name, kept.scopes, kept.expires_at) == ("ci", {Scope.CREATE}, None)
    assert kept.created_at == clock.now * 1000


async def test_a_key_has_the_scopes_and_the_life_that_were_asked_for(keys):
    kept = (await keys.create("ci", ["read", "create"], "30d")).kept
    assert kept.scopes == {Scope.READ, Scope.CREATE}
    assert kept.expires_at == kept.created_at + 30 * DAY


async def test_the_store_holds_no_key(keys, store):
    new = await keys.create("ci")
    secret = new.key.rpartition("_")[2].encode()
    bodies = [found.body async for found in store.scan("")]
    assert len(bodies) == 1
    assert not any(secret in body for body in bodies)


async def test_what_is_kept_fits_its_key_and_no_other(keys):
    new = await keys.create("ci")
    assert new.kept.fits(new.key)
    assert not new.kept.fits(new.key[:-1] + ("a" if new.key[-1] != "a" else "b"))


async def test_neither_printing_nor_listing_shows_a_key(keys):
    new = await keys.create("ci")
    (kept,) = await keys.list()
    shown = repr(new) + str(kept.described())
    assert new.key not in shown
    assert kept.hash not in str(kept.described())


@pytest.mark.parametrize("name", ["", " ci", "ci ", "a\nb", "\u202e", "x" * 257, "\ud800"])
async def test_a_name_is_printable_and_not_too_long(keys, name):
    with pytest.raises(ShareError, match=r"^name: must be 1 to 256 printable") as caught:
        await keys.create(name)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_the_name_admin_is_for_admins(keys):
    with pytest.raises(ShareError, match="reserved for admins"):
        await keys.create("admin", ["create"])
    assert (await keys.create("admin", ["admin"])).kept.name == "admin"


@pytest.mark.parametrize("scopes", [[], ["write"], ["create", "Admin"]])
async def test_a_scope_that_there_is_not_is_refused(keys, scopes):
    with pytest.raises(ShareError, match=r"^scopes: must be one or more of create, read, admin$"):
        await keys.create("ci", scopes)


@pytest.mark.parametrize("expires_in", ["soon", 0, -1, True, [], float("nan")])
async def test_a_life_that_is_no_duration_is_refused(keys, expires_in):
    with pytest.raises(ShareError, match=r"^expiresIn: must be"):
        await keys.create("ci", expires_in=expires_in)


async def test_keys_are_listed_the_oldest_first(keys, clock):
    made = []
    for name in "bac":
        made.append((await keys.create(name)).kept)
        clock.now += 1
    assert await keys.list() == made


async def test_rotation_makes_a_key_of_the_same_kind_and_revokes_the_old_one(keys, clock):
    old = await keys.create("ci", ["read"], "30d")
    clock.now += 86_400
    new = await keys.rotate(old.kept.id)
    assert new.key != old.key
    assert (new.kept.name, new.kept.scopes) == ("ci", {Scope.READ})
    assert new.kept.expires_at == int(clock.now * 1000) + 30 * DAY
    ended, live = await keys.list()
    assert (ended.id, ended.rotated_at, ended.revoked_at) == (old.kept.id, clock.now * 1000, clock.now * 1000)
    assert live == new.kept


async def test_of_two_rotations_at_once_one_makes_a_key(keys):
    old = await keys.create("ci")
    results = await asyncio.gather(*(keys.rotate(old.kept.id) for _ in range(2)), return_exceptions=True)
    failures = [result for result in results if isinstance(result, ShareError)]
    assert [failure.code for failure in failures] == [ErrorCode.INVALID_ARGUMENT] * len(failures)
    live = [key for key in await keys.list() if key.revoked_at is None]
    assert len(live) == 1


async def test_a_revoked_key_cannot_be_rotated(keys):
    old = await keys.create("ci")
    await keys.revoke(old.kept.id)
    with pytest.raises(ShareError, match="has been revoked"):
        await keys.rotate(old.kept.id)


async def test_revoking_again_changes_nothing(keys, clock):
    key_id = (await keys.create("ci")).kept.id
    ended = await keys.revoke(key_id)
    assert ended.revoked_at == clock.now * 1000
    clock.now += 1
    assert await keys.revoke(key_id) == ended


@pytest.mark.parametrize("key_id", ["0" * 12, "", "../head", "0" * 13, "\ud800"])
async def test_an_id_that_no_key_has_is_refused(keys, key_id):
    await keys.create("ci")
    for act in (keys.revoke, keys.rotate):
        with pytest.raises(UnknownApiKeyError, match="no key of this id"):
            await act(key_id)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rsk_",
        "rsk_0123456789ab_",
        f"rsk_0123456789ab_{'x' * 42}",
        f"rsk_0123456789AB_{'x' * 43}",
        "x" * 60,
    ],
)
def test_what_is_no_key_has_no_id(text):
    assert id_of_key(text) is None


async def test_fields_of_a_later_version_do_not_hide_a_key(keys, store):
    kept = (await keys.create("ci")).kept
    body = msgspec.to_builtins(kept) | {"colour": "red"}
    await store.put(f"auth/key/{kept.id}", msgspec.json.encode(body))
    assert await keys.list() == [kept]
