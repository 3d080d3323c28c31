"""Keys of users in the hands of admins: revoked, never handed out."""

import pytest

from rpcshare.auth.api_keys import ApiKeys, UnknownApiKeyError
from rpcshare.auth.audit import AuditLog
from rpcshare.auth.caller import Caller, CallerUser, Role, Scope
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.server.keys_rpc import KeysRpc
from rpcshare.storage import MemoryStore


def user(name: str, role: Role, organization: str = "acme") -> Caller:
    return Caller(name, role.scopes, source="user", user=CallerUser(f"usr_{name}", organization, role))


MEMBER = user("alice", Role.MEMBER)
ADMINS = [
    user("ada", Role.ADMIN),
    user("root", Role.SERVER_ADMIN),
    Caller("admin", frozenset({Scope.ADMIN}), source="admin"),
]


@pytest.fixture
def keys() -> ApiKeys:
    return ApiKeys(MemoryStore())


@pytest.mark.parametrize("admin", ADMINS, ids=["organization", "server", "token"])
async def test_an_admin_revokes_the_key_of_a_user_and_gets_none_in_its_place(keys, admin):
    """Whoever had it would be the user, and read what is the user's alone."""
    made = await keys.create("laptop", user=MEMBER.user)
    of_admin = KeysRpc(keys, admin, AuditLog())
    with pytest.raises(ShareError) as caught:
        await of_admin.rotate(made.kept.id)
    assert caught.value.code is ErrorCode.FORBIDDEN
    assert (await keys.find(made.kept.id)).revoked_at is None
    assert (await of_admin.revoke(made.kept.id))["revokedAt"] is not None


async def test_an_admin_of_an_organization_does_not_end_the_keys_of_an_admin_of_the_server(keys):
    root = user("root", Role.SERVER_ADMIN)
    made = await keys.create("console", ["admin"], user=root.user)
    with pytest.raises(ShareError) as caught:
        await KeysRpc(keys, ADMINS[0], AuditLog()).revoke(made.kept.id)
    assert caught.value.code is ErrorCode.FORBIDDEN
    assert (await keys.find(made.kept.id)).revoked_at is None
    assert (await KeysRpc(keys, root, AuditLog()).revoke(made.kept.id))["revokedAt"] is not None


async def test_a_user_rotates_the_own_key(keys):
    made = await keys.create("laptop", user=MEMBER.user)
    assert (await KeysRpc(keys, MEMBER, AuditLog()).rotate(made.kept.id))["key"].startswith("rsk_")


async def test_the_key_of_another_organization_is_as_if_it_were_not_there(keys):
    made = await keys.create("laptop", user=MEMBER.user)
    with pytest.raises(UnknownApiKeyError):
        await KeysRpc(keys, user("eve", Role.ADMIN, "other"), AuditLog()).rotate(made.kept.id)
