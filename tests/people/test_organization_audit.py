"""What was done in an organization: for its admins, bounded, and without what is another's or secret."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select

from rpcshare.auth import organization_audit
from rpcshare.auth.audit import Action, AuditEvent, AuditLog
from rpcshare.auth.caller import Caller, CallerUser, Role, Scope
from rpcshare.auth.organization_audit import OrganizationAudit
from rpcshare.auth.subject_sources import user_source
from rpcshare.database import DatabaseError
from rpcshare.database.engine import Database
from rpcshare.database.records import audit_events
from rpcshare.errors import ErrorCode, ShareError


def user(name: str, organization: str = "acme", role: Role = Role.MEMBER) -> Caller:
    who = CallerUser(f"usr_{name}", organization, role)
    return Caller(who.id, role.scopes, "203.0.113.7", source=user_source(organization), user=who)


ROOT = Caller("admin", frozenset({Scope.ADMIN}), "198.51.100.1", source="admin")


@pytest.fixture
async def audit(records: Database) -> AsyncIterator[OrganizationAudit]:
    async with OrganizationAudit(records).writing() as audit:
        yield audit


@pytest.fixture
def log(audit: OrganizationAudit) -> AuditLog:
    log = AuditLog()
    log.on_event = audit.record
    return log


async def told(audit: OrganizationAudit, organization: str = "acme") -> list[tuple[str, str, str]]:
    events, _ = await audit.page(organization, limit=200)
    return [(each.event.subject, each.event.action, each.event.outcome) for each in events]


async def test_the_newest_of_the_organization_comes_first(audit: OrganizationAudit, log: AuditLog) -> None:
    log.done(Action.KEY_CREATE, user("alice"), key="k1")
    await asyncio.sleep(0.002)  # an event is at a millisecond
    log.refused(Action.USERS_LIST, user("bob"), ErrorCode.FORBIDDEN)
    log.done(Action.KEY_CREATE, user("eve", "globex"), key="k2")
    log.done(Action.KEY_CREATE, Caller("ci", source="key"), key="k3")
    assert await told(audit) == [
        ("usr_bob", "users.list", "refused"),
        ("usr_alice", "key.create", "ok"),
    ]
    assert await told(audit, "globex") == [("usr_eve", "key.create", "ok")]


async def test_admins_of_the_server_are_told_of_only_where_it_concerns_the_organization(
    audit: OrganizationAudit, log: AuditLog
) -> None:
    log.done(Action.USER_DISABLE, ROOT, user="usr_alice", targetOrganization="acme")
    server_admin = user("root", "globex", Role.SERVER_ADMIN)
    log.done(Action.USER_ROLE, server_admin, user="usr_bob", targetOrganization="acme")
    log.done(Action.SHARE_DELETE, server_admin, share="of-acme1")
    events, _ = await audit.page("acme")
    assert {(each.event.subject, each.event.address) for each in events} == {("an admin of the server", "")}
    assert {each.event.details["user"] for each in events} == {"usr_alice", "usr_bob"}
    assert await told(audit, "globex") == []


async def test_no_share_that_may_be_anothers_is_named(audit: OrganizationAudit, log: AuditLog) -> None:
    log.refused(Action.SHARE_READ, user("alice"), ErrorCode.FORBIDDEN, share="anothers")
    log.done(Action.VIEW_TOKEN_CREATE, user("alice"), share="anothers")
    log.done(Action.SHARE_CREATE, user("alice"), share="own_one1")
    events, _ = await audit.page("acme")
    assert sorted(each.event.details.get("share", "") for each in events) == ["", "", "own_one1"]


async def test_pages_have_each_event_once(audit: OrganizationAudit, log: AuditLog) -> None:
    for number in range(25):
        log.done(Action.KEY_CREATE, user("alice"), key=f"{number}")
    found, cursor = [], None
    while True:
        events, cursor = await audit.page("acme", cursor=cursor, limit=4)
        found += [each.event.details["key"] for each in events]
        if cursor is None:
            break
    assert sorted(found, key=int) == [f"{number}" for number in range(25)]


@pytest.mark.parametrize("limit", [0, 201])
async def test_a_page_is_bounded(audit: OrganizationAudit, limit: int) -> None:
    with pytest.raises(ShareError, match="limit"):
        await audit.page("acme", limit=limit)


async def test_many_who_look_at_once_find_each_event_once(audit: OrganizationAudit, log: AuditLog) -> None:
    for number in range(50):
        log.done(Action.KEY_CREATE, user("alice"), key=f"{number}")
    pages = await asyncio.gather(*(audit.page("acme", limit=100) for _ in range(8)))
    assert {len(events) for events, _ in pages} == {50}


async def test_an_organization_keeps_its_newest_events(
    audit: OrganizationAudit, records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_audit, "KEPT", 30)
    monkeypatch.setattr(organization_audit, "_TRIM_EVERY", 10)
    for number in range(100):
        audit.record(
            AuditEvent("acme", 10**12 * 2 + number, Action.KEY_CREATE, "ok", "usr", "", {"key": f"{number}"})
        )
        if number % 10 == 9:
            await audit.flush()
    count = select(func.count()).select_from(audit_events)
    assert await records.read(lambda connection: connection.execute(count).scalar()) == 30
    events, _ = await audit.page("acme", limit=200)
    assert [each.event.details["key"] for each in events] == [f"{number}" for number in range(99, 69, -1)]


async def test_events_wait_in_bounded_memory_while_the_database_fails(
    audit: OrganizationAudit, log: AuditLog, records: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organization_audit, "_WAITING", 5)

    async def fails(_work: object) -> None:
        raise DatabaseError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(records, "write", fails)
        for number in range(20):
            log.done(Action.KEY_CREATE, user("alice"), key=f"{number}")
        with pytest.raises(DatabaseError):
            await audit.flush()
    events, _ = await audit.page("acme")
    assert sorted(int(each.event.details["key"]) for each in events) == [15, 16, 17, 18, 19]
