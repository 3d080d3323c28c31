"""What callers may do in the vault, and what the audit log tells of it."""

import pytest
from structlog.testing import capture_logs

from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import ANONYMOUS, Caller, CallerUser, Role, Scope
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.vault.caller_vault import CallerVault

KEY = {"service": "openai", "name": "work", "value": "sk-a-value-of-these-tests"}


@pytest.fixture(params=["sqlite"])
def records_url(tmp_path):
    return f"sqlite:///{tmp_path}/records.sqlite3"


@pytest.fixture
def of(vault):
    async def opened():
        return vault

    def of(caller, **options):
        return CallerVault(opened, caller, AuditLog(), **options)

    return of


def user(name, organization="acme", role=Role.MEMBER, *, is_whole=True):
    who = CallerUser(f"usr_{name}", organization, role, is_whole=is_whole)
    return Caller(subject=name, scopes=role.scopes, user=who, source="user")


TOKEN = Caller(subject="ci", scopes=frozenset({Scope.CREATE}), source="key")


async def refused(work, code):
    with pytest.raises(ShareError) as caught:
        await work
    assert caught.value.code is code


async def test_a_caller_without_a_user_has_entries_of_his_subject(of):
    stored = await of(TOKEN).store(KEY)
    assert (await of(TOKEN).retrieve(stored.id))[1] == KEY["value"]
    other = Caller(subject="ci", scopes=TOKEN.scopes, source="jwt")
    await refused(of(other).retrieve(stored.id), ErrorCode.INVALID_ARGUMENT)


async def test_who_has_no_name_or_no_scope_has_no_vault(of):
    await refused(of(ANONYMOUS).list(), ErrorCode.UNAUTHORIZED)
    await refused(of(ANONYMOUS).store(KEY), ErrorCode.UNAUTHORIZED)
    await refused(of(user("v", role=Role.VIEWER)).list(), ErrorCode.FORBIDDEN)
    reader = Caller(subject="r", scopes=frozenset({Scope.READ}), source="key")
    await refused(of(reader).store(KEY), ErrorCode.FORBIDDEN)


async def test_a_credential_that_is_over_opens_nothing(of):
    over = CredentialValidity(expires_at=1.0)
    caller = Caller(subject="ci", scopes=TOKEN.scopes, source="key", standing=over)
    await refused(of(caller).list(), ErrorCode.UNAUTHORIZED)


async def test_an_admin_of_the_server_does_not_read_the_keys_of_others(of):
    stored = await of(user("alice")).store(KEY)
    root = Caller(subject="admin", scopes=frozenset({Scope.ADMIN}), source="admin")
    await refused(of(root).retrieve(stored.id), ErrorCode.INVALID_ARGUMENT)
    assert await of(root).list() == []


async def test_the_organization_s_keys_are_listed_by_members_and_managed_by_admins(of):
    admin = user("ada", role=Role.ADMIN)
    stored = await of(admin).store({**KEY, "owner": "organization"})
    [listed] = await of(user("alice")).list()
    assert (listed.id, listed.described()["owner"]) == (stored.id, "organization")
    await refused(of(user("alice")).retrieve(stored.id), ErrorCode.INVALID_ARGUMENT)
    await refused(of(user("alice")).rotate(stored.id, "x"), ErrorCode.INVALID_ARGUMENT)
    await refused(of(user("alice")).revoke(stored.id), ErrorCode.INVALID_ARGUMENT)
    await refused(of(user("alice")).store({**KEY, "owner": "organization"}), ErrorCode.FORBIDDEN)
    assert (await of(user("eve", role=Role.ADMIN)).retrieve(stored.id))[1] == KEY["value"]
    await of(admin).revoke(stored.id)
    assert await of(user("alice")).list() == []


async def test_no_operation_crosses_an_organization(of):
    inside, outside = user("ada", role=Role.ADMIN), user("mallory", "other", Role.ADMIN)
    own = await of(inside).store(KEY)
    shared = await of(inside).store({**KEY, "owner": "organization"})
    assert await of(outside).list() == []
    for entry in (own, shared):
        await refused(of(outside).retrieve(entry.id), ErrorCode.INVALID_ARGUMENT)
        await refused(of(outside).rotate(entry.id, "x"), ErrorCode.INVALID_ARGUMENT)
        await refused(of(outside).revoke(entry.id), ErrorCode.INVALID_ARGUMENT)
    assert len(await of(inside).list()) == 2


async def test_a_key_of_an_admin_that_was_given_less_manages_no_organization(of):
    admin = user("ada", role=Role.ADMIN)
    stored = await of(admin).store({**KEY, "owner": "organization"})
    partial = user("ada", role=Role.ADMIN, is_whole=False)
    await refused(of(partial).retrieve(stored.id), ErrorCode.INVALID_ARGUMENT)


async def test_where_it_is_switched_off_no_value_is_handed_out(of):
    stored = await of(TOKEN).store(KEY)
    await refused(of(TOKEN, may_retrieve=False).retrieve(stored.id), ErrorCode.FORBIDDEN)
    assert len(await of(TOKEN, may_retrieve=False).list()) == 1


async def test_the_audit_log_tells_of_each_use_and_of_no_value(of):
    with capture_logs() as lines:
        stored = await of(TOKEN).store(KEY)
        await of(TOKEN).retrieve(stored.id)
        await of(TOKEN).rotate(stored.id, "another-value")
        await refused(of(TOKEN, may_retrieve=False).retrieve(stored.id), ErrorCode.FORBIDDEN)
        await of(TOKEN).revoke(stored.id)
    told = [(line["action"], line["outcome"], line.get("entry")) for line in lines]
    assert told == [
        ("vault.store", "ok", stored.id),
        ("vault.retrieve", "ok", stored.id),
        ("vault.rotate", "ok", stored.id),
        ("vault.retrieve", "refused", None),
        ("vault.revoke", "ok", stored.id),
    ]
    assert KEY["value"] not in repr(lines)
    assert "another-value" not in repr(lines)
