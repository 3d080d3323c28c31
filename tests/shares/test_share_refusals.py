"""Who may do what, and what it is told if it may not: PROTOCOL.md, "Errors"."""

import json

import pytest

from rpcshare.auth.caller import Caller, Scope
from rpcshare.errors import ErrorCode, ShareError
from support.items import part
from support.share_stores import contents

SESSION = "ses_e07c577c9ffeM4JP4I9eiXoPTK"


READER = Caller("reader", frozenset({Scope.READ}))
ALICE_READING = Caller("alice", frozenset({Scope.READ}))
NOT_A_BATCH = [part("a"), {"type": "part", "data": {}}]

REFUSALS = {
    "create, anonymous": lambda s, c: (
        s.create(c["anonymous"], "ses_new"),
        ("UNAUTHORIZED", "Unauthorized"),
    ),
    "create, read only": lambda s, c: (s.create(READER, "ses_new"), ("FORBIDDEN", "Forbidden")),
    "create, no session id": lambda s, c: (
        s.create(c["alice"], "a/b"),
        ("INVALID_ARGUMENT", "sessionID: "),
    ),
    "create, session id no string": lambda s, c: (
        s.create(c["alice"], 5),
        ("INVALID_ARGUMENT", "sessionID: "),
    ),
    "create, bad data": lambda s, c: (
        s.create(c["alice"], "ses_new", NOT_A_BATCH),
        ("INVALID_ARGUMENT", "data[1].data.id: "),
    ),
    "create again, bad data": lambda s, c: (
        s.create(c["alice"], SESSION, {}),
        ("INVALID_ARGUMENT", "data: "),
    ),
    "sync, unknown share": lambda s, c: (
        s.sync(c["alice"], "unknown", "wrong", NOT_A_BATCH),
        ("SHARE_NOT_FOUND", "Share not found"),
    ),
    "sync, id that is none": lambda s, c: (
        s.sync(c["admin"], "../head", None, []),
        ("SHARE_NOT_FOUND", "Share not found"),
    ),
    "sync, id no string": lambda s, c: (
        s.sync(c["alice"], None, "x", []),
        ("INVALID_ARGUMENT", "shareID: "),
    ),
    "sync, wrong secret": lambda s, c: (
        s.sync(c["alice"], "9eiXoPTK", "wrong", NOT_A_BATCH),
        ("INVALID_SECRET", "Invalid secret"),
    ),
    "sync, secret that is no ASCII": lambda s, c: (
        s.sync(c["alice"], "9eiXoPTK", "ü\ud800", []),
        ("INVALID_SECRET", "Invalid secret"),
    ),
    "sync, wrong secret of an admin": lambda s, c: (
        s.sync(c["admin"], "9eiXoPTK", "", []),
        ("INVALID_SECRET", "Invalid secret"),
    ),
    "sync, secret no string": lambda s, c: (
        s.sync(c["alice"], "9eiXoPTK", 5, []),
        ("INVALID_ARGUMENT", "secret: "),
    ),
    "sync, no secret, another": lambda s, c: (
        s.sync(c["bob"], "9eiXoPTK", None, []),
        ("FORBIDDEN", "Forbidden"),
    ),
    "sync, no secret, anonymous": lambda s, c: (
        s.sync(c["anonymous"], "9eiXoPTK", None, []),
        ("FORBIDDEN", "Forbidden"),
    ),
    "sync, no secret, the owner reading": lambda s, c: (
        s.sync(ALICE_READING, "9eiXoPTK", None, []),
        ("FORBIDDEN", "Forbidden"),
    ),
    "sync, bad data": lambda s, c: (
        s.sync(c["alice"], "9eiXoPTK", None, NOT_A_BATCH),
        ("INVALID_ARGUMENT", "data[1].data.id: "),
    ),
    "sync, no data": lambda s, c: (
        s.sync(c["alice"], "9eiXoPTK", None, None),
        ("INVALID_ARGUMENT", "data: "),
    ),
    "delete, unknown share": lambda s, c: (
        s.delete(c["admin"], "unknown", None),
        ("SHARE_NOT_FOUND", "Share not found"),
    ),
    "delete, wrong secret": lambda s, c: (
        s.delete(c["alice"], "9eiXoPTK", "wrong"),
        ("INVALID_SECRET", "Invalid secret"),
    ),
    "delete, no secret, another": lambda s, c: (
        s.delete(c["bob"], "9eiXoPTK", None),
        ("FORBIDDEN", "Forbidden"),
    ),
    "read, unknown share": lambda s, c: (
        s.agent_session(c["admin"], "unknown"),
        ("SHARE_NOT_FOUND", "Share not found"),
    ),
    "read, id no string": lambda s, c: (
        s.sync_data(c["admin"], b"9eiXoPTK"),
        ("INVALID_ARGUMENT", "shareID: "),
    ),
    "metadata, unknown share": lambda s, c: (
        s.metadata(c["admin"], "unknown"),
        ("SHARE_NOT_FOUND", "Share not found"),
    ),
    "subscribe, unknown share": lambda s, c: (
        s.subscribe(c["admin"], "unknown"),
        ("SHARE_NOT_FOUND", "Share not found"),
    ),
    "subscribe, from no number": lambda s, c: (
        s.subscribe(c["admin"], "9eiXoPTK", "1"),
        ("INVALID_ARGUMENT", "fromSyncCount: "),
    ),
    "subscribe, from before the first": lambda s, c: (
        s.subscribe(c["admin"], "9eiXoPTK", -1),
        ("INVALID_ARGUMENT", "fromSyncCount: "),
    ),
    "list, anonymous": lambda s, c: (
        s.list_own(c["anonymous"]),
        ("UNAUTHORIZED", "Unauthorized"),
    ),
    "list all, anonymous": lambda s, c: (
        s.list_all(c["anonymous"]),
        ("UNAUTHORIZED", "Unauthorized"),
    ),
    "list all, no admin": lambda s, c: (s.list_all(c["alice"]), ("FORBIDDEN", "Forbidden")),
    "list, limit 0": lambda s, c: (
        s.list_own(c["alice"], limit=0),
        ("INVALID_ARGUMENT", "limit: "),
    ),
    "list, limit 201": lambda s, c: (
        s.list_own(c["alice"], limit=201),
        ("INVALID_ARGUMENT", "limit: "),
    ),
    "list, limit true": lambda s, c: (
        s.list_own(c["alice"], limit=True),
        ("INVALID_ARGUMENT", "limit: "),
    ),
    "list, cursor of another": lambda s, c: (
        s.list_own(c["alice"], cursor="abc"),
        ("INVALID_ARGUMENT", "cursor: "),
    ),
    "list, cursor no string": lambda s, c: (
        s.list_own(c["alice"], cursor=5),
        ("INVALID_ARGUMENT", "cursor: "),
    ),
    "list, query no string": lambda s, c: (
        s.list_own(c["alice"], query=5),
        ("INVALID_ARGUMENT", "query: "),
    ),
}


@pytest.fixture
def callers(alice, bob, admin, anonymous):
    return {"alice": alice, "bob": bob, "admin": admin, "anonymous": anonymous}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_may_not_be_is_refused_and_changes_nothing(service, store, callers, case):
    alice = callers["alice"]
    await service.create(alice, SESSION, [part("a")])
    call, (code, message) = REFUSALS[case](service, callers)
    before = contents(store)
    with pytest.raises(ShareError) as caught:
        await call
    assert caught.value.code == ErrorCode(code)
    assert caught.value.message.startswith(message)
    assert code not in ("SHARE_NOT_FOUND", "INVALID_SECRET") or caught.value.message == message
    assert contents(store) == before
    merged = json.loads(await service.agent_session(alice, "9eiXoPTK"))
    assert merged["metadata"]["syncCount"] == 1


async def test_owner_admin_and_secret_open_a_share_for_writing(service, callers):
    made = await service.create(callers["alice"], SESSION)
    for caller, secret in [
        ("alice", None),
        ("admin", None),
        ("alice", made.secret),
        ("bob", made.secret),
        ("anonymous", made.secret),
    ]:
        await service.sync(callers[caller], made.id, secret, [])
    assert (await service.metadata(callers["bob"], made.id)).sync_count == 5
