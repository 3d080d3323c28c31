"""No operation crosses an organization: each of them, by each caller, on each share, of drawn memberships."""

import random
from typing import Any

import pytest
from finding import indexed, session, text

from rpcshare.auth.caller import Caller, CallerUser, Role, Scope
from rpcshare.auth.subject_sources import Source, organization_of, user_source
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares.access_settings import ViewToken
from rpcshare.shares.document import Form
from rpcshare.shares.service import ShareService

ORGANIZATIONS = ("acme", "globex", "acme/eu")
REFUSALS = {ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN}


def user_of(organization: str, role: Role, name: str, *, by_key: bool = False) -> Caller:
    user = CallerUser(f"usr_{name}", organization, role, is_whole=not by_key)
    scopes = role.scopes & {Scope.CREATE} if by_key else role.scopes
    return Caller(user.id, scopes, source=user_source(organization), user=user)


def drawn_callers(chance: random.Random) -> list[Caller]:
    users = [
        user_of(
            chance.choice(ORGANIZATIONS), chance.choice(list(Role)), str(number), by_key=chance.random() < 0.3
        )
        for number in range(6)
    ]
    # One who has moved: the same user, in another organization now.
    moved = chance.choice(users)
    assert moved.user is not None
    elsewhere = chance.choice([each for each in ORGANIZATIONS if each != moved.organization])
    users.append(user_of(elsewhere, Role.MEMBER, moved.user.id.removeprefix("usr_")))
    machines = [
        Caller("ci", frozenset({Scope.CREATE}), source=Source.KEY),
        Caller("auditor", frozenset({Scope.READ, Scope.CREATE}), source=Source.KEY),
        Caller("acme", frozenset({Scope.CREATE}), source=Source.TOKEN),
    ]
    return [*users, *machines]


def is_mine(caller: Caller, owner: str) -> bool:
    return caller.owner == owner


def is_in_my_organization(caller: Caller, owner: str) -> bool:
    return caller.organization is not None and caller.organization == organization_of(owner)


def manages(caller: Caller, owner: str) -> bool:
    user = caller.user
    is_mine_to_manage = (
        user is not None and user.manages_organization and is_in_my_organization(caller, owner)
    )
    return caller.has(Scope.ADMIN) or is_mine_to_manage


def may_read(caller: Caller, owner: str, visibility: str) -> bool:
    reads_others = caller.has(Scope.READ) and organization_of(owner) == caller.organization
    is_for_me = visibility == "organization" and is_in_my_organization(caller, owner)
    return (
        visibility == "link" or is_mine(caller, owner) or caller.has(Scope.ADMIN) or reads_others or is_for_me
    )


def may_list(caller: Caller, owner: str, visibility: str) -> bool:
    is_for_me = visibility == "organization" and is_in_my_organization(caller, owner)
    return is_mine(caller, owner) or manages(caller, owner) or is_for_me


def may_write(caller: Caller, owner: str) -> bool:
    return (is_mine(caller, owner) and caller.has(Scope.CREATE)) or manages(caller, owner)


async def is_allowed(call: Any) -> bool:
    try:
        result = await call
    except ShareError as exc:
        if exc.code not in REFUSALS:
            raise
        return False
    if hasattr(result, "aclose"):
        await result.aclose()
    return True


READS = {
    "document": lambda service, caller, share: service.document(caller, share, Form.AGENT_SESSION),
    "data": lambda service, caller, share: service.sync_data(caller, share),
    "version": lambda service, caller, share: service.version(caller, share),
    "transcript": lambda service, caller, share: service.transcript(caller, share),
    "page": lambda service, caller, share: service.document_and_transcript(caller, share),
    "part": lambda service, caller, share: service.part(caller, share, "prt_1"),
    "metadata": lambda service, caller, share: service.metadata(caller, share),
    "row": lambda service, caller, share: service.row(caller, share),
    "last refusal": lambda service, caller, share: service.last_refusal(caller, share),
    "subscribe": lambda service, caller, share: service.subscribe(caller, share),
}
WRITES = {
    "sync": lambda service, caller, share: service.sync(caller, share, None, []),
    "settings": lambda service, caller, share: service.update(caller, share, None),
    "view token": lambda service, caller, share: service.create_view_token(caller, share, None, None),
    "check": lambda service, caller, share: service.check_write(caller, share, None),
}


async def drawn_shares(
    service: ShareService, callers: list[Caller], chance: random.Random
) -> dict[str, tuple[str, str]]:
    """Make shares; return owner and visibility of each."""
    shares: dict[str, tuple[str, str]] = {}
    for number in range(12):
        maker = chance.choice([each for each in callers if each.has(Scope.CREATE)])
        wanted = chance.choice(["link", "private", "organization"])
        if wanted == "organization" and maker.organization is None:
            wanted = "private"
        data = [session(f"title {number}"), text("prt_1", "everybody says this")]
        made = await service.create(maker, f"ses_{number:08}", data, {"visibility": wanted})
        assert maker.owner is not None
        shares[made.id] = (maker.owner, wanted)
    await indexed(service)
    return shares


@pytest.mark.parametrize("seed", range(2))
async def test_no_operation_crosses_an_organization(searched, seed):
    chance, service = random.Random(seed), searched
    callers = drawn_callers(chance)
    shares = await drawn_shares(service, callers, chance)
    for caller in callers:
        for share, (owner, visibility) in shares.items():
            for name, read in READS.items():
                expected = may_read(caller, owner, visibility)
                assert await is_allowed(read(service, caller, share)) == expected, (name, caller, owner)
            for name, write in WRITES.items():
                expected = may_write(caller, owner)
                assert await is_allowed(write(service, caller, share)) == expected, (name, caller, owner)
        listed = {
            share for share, (owner, visibility) in shares.items() if may_list(caller, owner, visibility)
        }
        own = {share for share, (owner, _) in shares.items() if is_mine(caller, owner)}
        assert {each.id for each in (await service.list_sessions(caller, limit=200)).sessions} == listed
        assert {each.id for each in (await service.list_own(caller, limit=200)).sessions} == own
        for query in (None, "title", "ti"):
            page = await service.list_sessions(caller, limit=200, query=query)
            assert ({each.id for each in page.sessions}, page.count) == (listed, len(listed))
            rows = await service.list_rows(caller, limit=200, query=query, by_change=True)
            assert {row.index.id for row in rows.rows} == listed
        found = {hit.share_id for hit in (await service.search(caller, "everybody", limit=100)).hits}
        assert found == listed


@pytest.mark.parametrize("seed", range(2))
async def test_nobody_deletes_a_share_across_an_organization(new_service, seed):
    chance, service = random.Random(seed), new_service()
    callers = drawn_callers(chance)
    shares = await drawn_shares(service, callers, chance)
    for caller in callers:
        for share, (owner, _) in shares.items():
            if not may_write(caller, owner):
                assert not await is_allowed(service.delete(caller, share, None))
    assert len((await service.list_all(Caller("admin", frozenset({Scope.ADMIN})), limit=200)).sessions) == 12


async def test_pages_of_a_listing_have_each_share_once(new_service):
    service = new_service()
    alice, bob = (user_of("acme", Role.MEMBER, name) for name in ("alice", "bob"))
    made = set()
    for number in range(9):
        maker = (alice, bob)[number % 2]
        made.add((await service.create(maker, f"ses_{number:08}", None, {"visibility": "organization"})).id)
    await indexed(service)
    seen: list[str] = []
    cursor = None
    while True:
        page = await service.list_sessions(alice, limit=2, cursor=cursor)
        assert page.count == 9
        seen += [each.id for each in page.sessions]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)


async def test_what_becomes_private_is_neither_listed_nor_found_by_members(new_service):
    service = new_service()
    alice, bob = (user_of("acme", Role.MEMBER, name) for name in ("alice", "bob"))
    data = [session("plans"), text("prt_1", "secret plans")]
    made = await service.create(alice, "ses_00000001", data, {"visibility": "organization"})
    await indexed(service)
    assert [each.id for each in (await service.list_sessions(bob)).sessions] == [made.id]
    assert len((await service.search(bob, "plans")).hits) == 2
    await service.update(alice, made.id, None, {"visibility": "private"})
    assert (await service.list_sessions(bob)).sessions == []
    assert (await service.search(bob, "plans")).hits == []


async def test_who_reads_a_share_that_becomes_private_hears_no_more_of_it(new_service):
    service = new_service()
    alice, bob = (user_of("acme", Role.MEMBER, name) for name in ("alice", "bob"))
    made = await service.create(alice, "ses_00000001", None, {"visibility": "organization"})
    reading = await service.subscribe(bob, made.id)
    await anext(reading)
    await service.update(alice, made.id, None, {"visibility": "private"})
    with pytest.raises(ShareError, match="private"):
        await anext(reading)


async def test_an_organization_can_be_the_default_visibility(new_service):
    service = new_service(default_visibility="organization")
    alice = user_of("acme", Role.MEMBER, "alice")
    machine = Caller("ci", frozenset({Scope.CREATE}), source=Source.KEY)
    ours = await service.create(alice, "ses_00000001")
    other = await service.create(machine, "ses_00000002")
    assert (await service.update(alice, ours.id, None)).visibility == "organization"
    assert (await service.update(machine, other.id, None)).visibility == "private"


async def test_a_share_of_nobody_in_an_organization_cannot_be_for_one(new_service):
    service = new_service()
    machine = Caller("ci", frozenset({Scope.CREATE}), source=Source.KEY)
    with pytest.raises(ShareError, match="Forbidden: visibility organization needs an owner who is a user"):
        await service.create(machine, "ses_00000001", None, {"visibility": "organization"})
    made = await service.create(machine, "ses_00000002")
    with pytest.raises(ShareError, match="Forbidden: visibility organization needs an owner who is a user"):
        await service.update(machine, made.id, made.secret, {"visibility": "organization"})


async def test_a_view_token_reads_a_share_of_any_organization_as_its_maker_means_it(new_service):
    service = new_service()
    alice = user_of("acme", Role.MEMBER, "alice")
    made = await service.create(alice, "ses_00000001", None, {"visibility": "organization"})
    assert isinstance(await service.create_view_token(alice, made.id, None), ViewToken)
