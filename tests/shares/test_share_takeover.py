"""Nobody gets another's share, or its place, by the session ID, which is public."""

import json

import pytest

from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.exporting import export_shares
from rpcshare.maintenance.importing import import_bucket
from rpcshare.maintenance.restoring import restore_shares
from rpcshare.shares.context import wall_clock
from rpcshare.storage import MemoryStore
from support.older_shares import SECRET as OLDER_SECRET
from support.older_shares import put_older

SESSION = "ses_e07c577c9ffeM4JP4I9eiXoPTK"
MINE = [{"type": "part", "data": {"id": "mine"}}]
THEIRS = [{"type": "part", "data": {"id": "theirs"}}]


@pytest.fixture
def service(new_service):
    return new_service(anonymous_create=True, clock=wall_clock)


@pytest.fixture(params=["another", "anonymous", "a reader", "an admin"])
def thief(request):
    """Return a caller who knows the session ID and nothing else."""
    return {
        "another": Caller("mallory", frozenset({Scope.CREATE})),
        "anonymous": Caller(None),
        "a reader": Caller("mallory", frozenset({Scope.CREATE, Scope.READ})),
        "an admin": Caller("admin", frozenset({Scope.ADMIN})),
    }[request.param]


async def parts(service, caller, share_id):
    return [part["id"] for part in json.loads(await service.agent_session(caller, share_id))["parts"]]


async def code_of(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code


async def assert_has_own(service, thief, share):
    """Assert that ``thief``, who shares the session too, gets neither ``share`` nor its secret."""
    for _ in range(2):
        stolen = await service.create(thief, SESSION, THEIRS, {"visibility": "link", "password": None})
        assert stolen.id != share.id
        assert stolen.secret != share.secret
        assert await code_of(service.sync(Caller(None), share.id, stolen.secret, THEIRS)) in (
            ErrorCode.INVALID_SECRET,
            ErrorCode.SHARE_NOT_FOUND,
            ErrorCode.SHARE_GONE,
        )


async def test_not_while_it_is_there(service, alice, thief):
    share = await service.create(alice, SESSION, MINE, {"visibility": "private"})
    await assert_has_own(service, thief, share)
    assert await parts(service, alice, share.id) == ["mine"]
    assert (await service.update(alice, share.id, None)).visibility == "private"


async def test_not_one_of_an_anonymous_caller(service, anonymous, thief):
    share = await service.create(anonymous, SESSION, MINE)
    await assert_has_own(service, thief, share)
    assert await parts(service, anonymous, share.id) == ["mine"]


@pytest.mark.parametrize("owner", ["alice", None])
async def test_not_the_place_of_one_that_is_deleted(service, thief, owner):
    caller = Caller(owner, frozenset({Scope.CREATE} if owner else ()))
    share = await service.create(caller, SESSION, MINE)
    await service.delete(caller, share.id, share.secret)
    await assert_has_own(service, thief, share)
    assert await code_of(service.metadata(caller, share.id)) is ErrorCode.SHARE_NOT_FOUND


@pytest.mark.parametrize("is_removed", [False, True], ids=["not yet removed", "removed"])
@pytest.mark.parametrize("owner", ["alice", None])
async def test_not_the_place_of_one_that_has_expired(new_service, thief, owner, is_removed):
    now = 1_700_000_000_000
    service = new_service(anonymous_create=True, clock=lambda: now)
    caller = Caller(owner, frozenset({Scope.CREATE} if owner else ()))
    share = await service.create(caller, SESSION, MINE, {"expiresIn": 60})
    now += 60_000
    if is_removed:
        await service.remove_expired()
    await assert_has_own(service, thief, share)
    assert await code_of(service.metadata(caller, share.id)) is ErrorCode.SHARE_GONE


async def test_its_owner_gets_it_back_all_the_same(service, alice, thief):
    share = await service.create(alice, SESSION, MINE)
    await service.delete(alice, share.id, None)
    await assert_has_own(service, thief, share)
    assert await service.create(alice, SESSION, MINE) == share
    await assert_has_own(service, thief, share)


async def test_not_by_another_session_of_the_same_end(service, alice, thief):
    share = await service.create(alice, SESSION, MINE)
    await service.delete(alice, share.id, None)
    assert (await service.create(thief, f"ses_another{SESSION[-8:]}", THEIRS)).id != share.id


@pytest.mark.parametrize("is_imported", [False, True], ids=["as it is", "imported"])
async def test_not_one_in_the_older_layout(new_service, store, alice, thief, is_imported):
    session = "ses_older_12345678"
    await put_older(store)
    if is_imported:
        await import_bucket(store, store)
    service = new_service(anonymous_create=True, clock=wall_clock)
    # An admin may adopt what belongs to nobody: tests/shares/test_adopting_shares.py.
    callers = [caller for caller in (thief, alice) if not caller.has(Scope.ADMIN)]
    made = [await service.create(caller, session, THEIRS) for caller in callers]
    assert "12345678" not in [each.id for each in made]
    for each in made:
        assert await code_of(service.sync(alice, "12345678", each.secret, THEIRS)) is ErrorCode.INVALID_SECRET
    await service.delete(alice, "12345678", OLDER_SECRET)
    assert (await service.create(thief, session, THEIRS)).id != "12345678"


async def test_the_settings_of_one_in_the_older_layout_need_its_secret(new_service, store, alice, anonymous):
    await put_older(store)
    service = new_service(clock=wall_clock)
    assert await code_of(service.update(alice, "12345678", None)) is ErrorCode.FORBIDDEN
    settings = await service.update(anonymous, "12345678", OLDER_SECRET, {"visibility": "private"})
    assert settings.visibility == "private"
    after = new_service(clock=wall_clock)
    assert await code_of(after.metadata(anonymous, "12345678")) is ErrorCode.UNAUTHORIZED
    assert await after.sync(anonymous, "12345678", OLDER_SECRET, []) == 8


async def test_not_one_that_was_restored(new_service, alice, thief, tmp_path):
    before, after = MemoryStore(), MemoryStore()
    options = {"anonymous_create": True, "clock": wall_clock}
    share = await new_service(before, **options).create(alice, SESSION, MINE, {"visibility": "private"})
    await export_shares(before, tmp_path / "backup")
    await restore_shares(after, tmp_path / "backup")
    service = new_service(after, **options)
    await assert_has_own(service, thief, share)
    assert await service.create(alice, SESSION) == share
    assert await parts(service, alice, share.id) == ["mine"]
    assert await code_of(service.metadata(Caller(None), share.id)) is ErrorCode.UNAUTHORIZED
