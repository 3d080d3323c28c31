"""Shares that belong to nobody become the caller's that proves a right to them, and nobody else's."""

import asyncio

import pytest

from rpcshare import jsontext
from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.importing import import_bucket
from rpcshare.storage import MemoryStore
from support.older_shares import SECRET, older_share, put_older
from support.share_stores import YieldingStore, contents

ID = "12345678"
SESSION = "ses_older_12345678"


def part(part_id):
    return {"type": "part", "data": {"id": part_id}}


async def part_ids(service, caller, share_id=ID):
    merged = jsontext.decode(await service.agent_session(caller, share_id))
    return [part["id"] for part in merged["parts"]]


async def code_of(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code


async def own_ids(service, caller):
    return [index.id for index in (await service.list_own(caller)).sessions]


@pytest.fixture
def of_session(credentials):
    """The secret that follows from the session: the older deployment's, if the shared secret is."""
    return credentials.of_session(SESSION).secret


@pytest.fixture(params=["as it was left", "imported"])
async def bucket(request, store, of_session):
    """Put a share into the store that has the secret of its session."""
    share = older_share(metadata={"sessionID": SESSION, "secret": of_session, "syncCount": 7})
    await put_older(store, share=share)
    if request.param == "imported":
        await import_bucket(store, store)
    return store


@pytest.fixture(params=["as it was left", "imported"])
async def foreign_bucket(request, store):
    """Put a share into the store whose secret this server's shared secret does not tell."""
    await put_older(store)
    if request.param == "imported":
        await import_bucket(store, store)
    return store


# By an admin


async def test_an_admin_who_creates_it_again_gets_its_id_and_its_secret(
    bucket, service, new_service, admin, of_session
):
    made = await service.create(admin, SESSION, [part("new")])
    assert (made.id, made.secret) == (ID, of_session)
    assert await part_ids(service, admin) == ["prt_1", "new"]
    assert await new_service().create(admin, SESSION) == made
    assert await own_ids(service, admin) == [ID]


async def test_what_an_admin_adopted_is_open_to_the_secret_that_machines_still_hold(
    foreign_bucket, service, admin, bob
):
    made = await service.create(admin, SESSION)
    assert made.id == ID
    assert made.secret != SECRET
    assert await service.sync(bob, ID, SECRET, [part("by the old secret")]) == 8
    assert await service.sync(bob, ID, made.secret, [part("by the new secret")]) == 9
    assert await service.create(admin, SESSION) == made


async def test_an_admin_does_not_walk_into_what_a_stranger_made_under_his_sessions_id(
    new_service, admin, anonymous
):
    service = new_service(anonymous_create=True)
    trap = await service.create(anonymous, SESSION, [part("trap")])
    made = await service.create(admin, SESSION)
    assert made.id != trap.id
    assert await code_of(service.sync(anonymous, made.id, trap.secret, [])) is ErrorCode.INVALID_SECRET


# By its secret


@pytest.mark.parametrize("scope", [Scope.CREATE, Scope.ADMIN])
async def test_who_shows_its_secret_adopts_it(foreign_bucket, service, new_service, bob, scope):
    alice = Caller("alice", frozenset({scope}))
    made = await service.create(alice, SESSION, [part("new")], {"secret": SECRET})
    assert (made.id, made.secret) == (ID, SECRET)
    assert await own_ids(service, alice) == [ID]
    again = await new_service().create(alice, SESSION)
    assert again.id == ID
    assert await service.sync(bob, ID, again.secret, []) == 9


async def test_who_writes_an_imported_share_by_its_secret_adopts_it(
    bucket, service, new_service, alice, bob, of_session
):
    assert await service.sync(alice, ID, of_session, [part("live")]) == 8
    made = await new_service().create(alice, SESSION)
    assert (made.id, made.secret) == (ID, of_session)
    assert (await service.create(bob, SESSION)).id != ID


async def test_a_write_that_is_refused_adopts_nothing(bucket, service, store, alice, of_session):
    before = contents(store)
    assert await code_of(service.sync(alice, ID, "wrong", [])) is ErrorCode.INVALID_SECRET
    assert await code_of(service.sync(alice, ID, of_session, [{"type": "?"}])) is ErrorCode.INVALID_ARGUMENT
    assert contents(store) == before


async def test_a_caller_who_may_only_read_adopts_nothing_by_writing(bucket, service, alice, of_session):
    reader = Caller("reader", frozenset({Scope.READ}))
    await service.sync(reader, ID, of_session, [])
    assert (await service.create(alice, SESSION, None, {"secret": of_session})).id == ID


@pytest.mark.parametrize("secret", ["wrong", "", SECRET.upper()])
async def test_a_wrong_secret_is_refused_and_makes_nothing(foreign_bucket, service, store, alice, secret):
    before = contents(store)
    refused = service.create(alice, SESSION, [part("x")], {"secret": secret})
    assert await code_of(refused) is ErrorCode.INVALID_SECRET
    assert contents(store) == before


async def test_guesses_at_its_secret_are_limited(foreign_bucket, new_service, alice):
    service = new_service(limits=CallerLimits(failed_authentications=3))
    codes = [await code_of(service.create(alice, SESSION, None, {"secret": f"no {n}"})) for n in range(4)]
    assert codes == [ErrorCode.INVALID_SECRET] * 3 + [ErrorCode.RATE_LIMITED]


async def test_a_secret_that_is_no_string_is_refused(service, alice):
    refused = service.create(alice, SESSION, None, {"secret": 7})
    assert await code_of(refused) is ErrorCode.INVALID_ARGUMENT


async def test_who_has_a_share_of_the_session_needs_no_secret(service, alice):
    made = await service.create(alice, SESSION)
    assert await service.create(alice, SESSION, None, {"secret": "of something else"}) == made


async def test_the_secret_of_anothers_share_makes_it_nobody_elses(service, alice, bob):
    theirs = await service.create(alice, SESSION)
    made = await service.create(bob, SESSION, None, {"secret": theirs.secret})
    assert made.id != theirs.id
    assert await own_ids(service, alice) == [theirs.id]


# Without proof


async def test_nobody_else_gets_it(bucket, service, alice, of_session):
    made = await service.create(alice, SESSION, [part("mine")])
    assert made.id != ID
    assert made.secret != of_session
    assert await part_ids(service, alice) == ["prt_1"]


async def test_once_it_is_adopted_it_is_no_other_admins(bucket, service, admin):
    await service.create(admin, SESSION)
    other = Caller("other", frozenset({Scope.ADMIN}))
    assert (await service.create(other, SESSION)).id != ID


async def test_a_share_of_another_session_is_not_adopted_for_its_id(bucket, service, admin):
    assert (await service.create(admin, f"another_{ID}")).id != ID


async def test_what_cannot_be_read_is_left_alone(service, store, admin):
    await store.put(f"share/{ID}", b"{")
    assert (await service.create(admin, SESSION)).id != ID
    assert contents(store)[f"share/{ID}"] == b"{"


@pytest.mark.parametrize("seed", range(10))
async def test_of_two_admins_at_once_one_adopts_it(store, new_service, of_session, seed):
    await put_older(store, share=older_share(metadata={"sessionID": SESSION, "secret": of_session}))
    nodes = [
        new_service(YieldingStore(store, 2 * seed + number), LocalBroadcaster(), shared_store=True)
        for number in range(2)
    ]
    admins = [Caller(name, frozenset({Scope.ADMIN})) for name in ("one", "other")]
    made = await asyncio.gather(*(node.create(who, SESSION) for node, who in zip(nodes, admins, strict=True)))
    assert sorted(each.id == ID for each in made) == [False, True]
    assert [(await new_service().create(who, SESSION)).id for who in admins] == [each.id for each in made]


# Anonymous shares


async def test_an_anonymous_caller_who_shows_the_secret_gets_the_same_share(new_service, anonymous):
    service = new_service(anonymous_create=True)
    made = await service.create(anonymous, SESSION)
    assert await service.create(anonymous, SESSION, [part("more")], {"secret": made.secret}) == made
    assert await part_ids(service, anonymous, made.id) == ["more"]
    other = await service.create(anonymous, SESSION)
    assert other.id != made.id
    assert await service.create(anonymous, SESSION, None, {"secret": other.secret}) == other


async def test_who_has_got_a_name_since_adopts_his_anonymous_share(new_service, anonymous, alice):
    service = new_service(anonymous_create=True)
    made = await service.create(anonymous, SESSION)
    assert await service.create(alice, SESSION, None, {"secret": made.secret}) == made
    assert await own_ids(service, alice) == [made.id]
    await service.sync(anonymous, made.id, made.secret, [])


async def test_an_anonymous_share_is_not_adopted_by_writing_it(new_service, anonymous, alice):
    service = new_service(anonymous_create=True)
    made = await service.create(anonymous, SESSION)
    await service.sync(alice, made.id, made.secret, [])
    assert await own_ids(service, alice) == []


# At the import


async def test_import_gives_shares_to_an_owner(store, new_service, alice, bob, of_session):
    bucket = MemoryStore()
    await put_older(bucket, share=older_share(metadata={"sessionID": SESSION, "secret": of_session}))
    assert (await import_bucket(bucket, store, owner="alice")).given == 1
    service = new_service()
    assert await own_ids(service, alice) == [ID]
    made = await service.create(alice, SESSION)
    assert (made.id, made.secret) == (ID, of_session)
    assert (await service.create(bob, SESSION)).id != ID
    assert (await import_bucket(bucket, store, owner="bob")).given == 0
    assert await own_ids(new_service(), alice) == [ID]


async def test_import_gives_what_was_imported_before_and_is_nobodys(store, new_service, alice):
    bucket = MemoryStore()
    await put_older(bucket)
    await import_bucket(bucket, store)
    again = await import_bucket(bucket, store, owner="alice")
    assert (again.unchanged, again.given) == (1, 1)
    assert await own_ids(new_service(), alice) == [ID]
    assert (await new_service().create(alice, SESSION)).id == ID
