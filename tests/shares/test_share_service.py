"""What callers get: PROTOCOL.md, "Identity of a share" and "ShareRpc"."""

import asyncio
import json
import uuid

import msgspec
import pytest

from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.errors import ErrorCode, ShareError
from support.items import part
from support.service_fixtures import using
from support.share_stores import FailingStore, RecordingStore, YieldingStore, contents

SESSION = "ses_e07c577c9ffeM4JP4I9eiXoPTK"


async def refused(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code, caught.value.message


async def read(service, caller, share_id):
    return json.loads(await service.agent_session(caller, share_id))


# Creating


async def test_a_share_has_the_end_of_its_session_as_id(service, alice, shared_secret):
    made = await service.create(alice, SESSION)
    assert made.id == "9eiXoPTK"
    assert made.url == "https://share.example/share/9eiXoPTK"
    assert made.secret == str(uuid.uuid5(shared_secret, SESSION))


@pytest.mark.parametrize(("data", "count"), [(None, 0), ([], 0), ([part("a")], 1)])
async def test_the_sync_count_is_1_after_a_create_with_data_only(service, alice, data, count):
    made = await service.create(alice, SESSION, data)
    assert (await read(service, alice, made.id))["metadata"]["syncCount"] == count


async def test_creating_again_gives_the_same_credentials_and_keeps_all(service, alice):
    first = await service.create(alice, SESSION, [part("a")])
    assert await service.create(alice, SESSION) == first
    assert await service.create(alice, SESSION, [part("b")]) == first
    merged = await read(service, alice, first.id)
    assert [each["id"] for each in merged["parts"]] == ["a", "b"]
    assert merged["metadata"]["syncCount"] == 2


async def test_creating_again_on_a_fresh_server_gives_the_same(new_service, alice):
    first = await new_service().create(alice, SESSION, [part("a")])
    assert await new_service().create(alice, SESSION) == first


async def test_another_caller_gets_a_share_of_its_own(service, alice, bob):
    first = await service.create(alice, SESSION, [part("a")])
    other = await service.create(bob, SESSION, [part("b")])
    assert other.id == "JP4I9eiXoPTK"
    assert other.secret != first.secret
    assert await service.create(bob, SESSION) == other
    assert [each["id"] for each in (await read(service, bob, first.id))["parts"]] == ["a"]
    assert [each["id"] for each in (await read(service, bob, other.id))["parts"]] == ["b"]


async def test_another_session_of_the_same_end_gets_a_longer_id(service, alice, shared_secret):
    sessions = ["aaaa_bbbb_12345678", "cccc_bbbb_12345678", "dddd_bbbb_12345678"]
    made = [await service.create(alice, session) for session in sessions]
    assert [each.id for each in made] == ["12345678", "bbb_12345678", "dd_bbbb_12345678"]
    for session, each in zip(sessions, made, strict=True):
        assert each.secret == str(uuid.uuid5(shared_secret, session))
        assert await service.create(alice, session) == each


async def test_when_all_ends_are_taken_an_id_gets_more_characters(service, alice, bob):
    first = await service.create(alice, "short")
    other = await service.create(bob, "short")
    assert (first.id, other.id[:5]) == ("short", "short")
    assert len(other.id) > 5
    assert await service.create(bob, "short") == other


async def test_a_share_is_found_though_a_shorter_id_is_free_now(service, alice, bob):
    await service.create(alice, SESSION)
    longer = await service.create(bob, SESSION)
    await service.delete(alice, "9eiXoPTK", None)
    assert await service.create(bob, SESSION) == longer


async def test_nobody_gets_the_secret_of_who_was_first_not_even_later(service, alice, bob):
    first = await service.create(alice, SESSION)
    await service.delete(alice, first.id, first.secret)
    later = await service.create(bob, SESSION)
    assert later.secret != first.secret
    with pytest.raises(ShareError, match="Invalid secret"):
        await service.sync(alice, later.id, first.secret, [])


async def test_a_share_that_is_made_anew_has_its_old_credentials_and_no_old_data(service, alice):
    first = await service.create(alice, SESSION, [part("old")])
    await service.delete(alice, first.id, first.secret)
    assert await service.create(alice, SESSION, [part("new")]) == first
    merged = await read(service, alice, first.id)
    assert [each["id"] for each in merged["parts"]] == ["new"]
    assert merged["metadata"]["syncCount"] == 1


async def test_anonymous_callers_always_get_a_new_share(new_service, anonymous, shared_secret):
    service = new_service(anonymous_create=True)
    made = [await service.create(anonymous, SESSION) for _ in range(10)]
    assert len({each.id for each in made}) == 10
    assert len({each.secret for each in made}) == 10
    assert str(uuid.uuid5(shared_secret, SESSION)) not in {each.secret for each in made}


async def test_an_anonymous_share_is_written_with_its_secret_only(new_service, store, anonymous, alice):
    service = new_service(anonymous_create=True)
    made = await service.create(anonymous, SESSION)
    assert await service.sync(anonymous, made.id, made.secret, []) == 1
    for caller in (anonymous, alice):
        with pytest.raises(ShareError, match="Forbidden"):
            await service.sync(caller, made.id, None, [])
    assert not any(made.secret.encode() in body for body in contents(store).values())


# Syncing


async def test_an_empty_sync_counts_and_is_kept(new_service, alice):
    made = await new_service().create(alice, SESSION)
    assert await new_service().sync(alice, made.id, None, []) == 1
    assert (await new_service().metadata(alice, made.id)).sync_count == 1


# Reading


async def test_a_link_is_enough_to_read(service, alice, anonymous):
    made = await service.create(alice, SESSION, [part("a", text="x")])
    merged = await read(service, anonymous, made.id)
    assert merged["parts"] == [{"id": "a", "text": "x"}]
    assert json.loads(await service.sync_data(anonymous, made.id))[1] == part("a", text="x")


async def test_no_answer_but_that_to_create_has_the_secret(service, alice):
    made = await service.create(alice, SESSION, [part("a")])
    answers = [
        await service.agent_session(alice, made.id),
        await service.sync_data(alice, made.id),
        repr(await service.metadata(alice, made.id)).encode(),
        repr(await service.list_own(alice)).encode(),
        (await anext(await service.subscribe(alice, made.id))).json,
    ]
    assert not any(made.secret.encode() in answer for answer in answers)


async def test_metadata_is_as_the_wire_has_it(service, alice):
    made = await service.create(
        alice, SESSION, [{"type": "session", "data": {"title": "T", "directory": "/d"}}, part("a")]
    )
    assert json.loads(msgspec.json.encode(await service.metadata(alice, made.id))) == {
        "id": made.id,
        "sessionID": SESSION,
        "title": "T",
        "directory": "/d",
        "messageCount": 0,
        "partCount": 1,
        "diffCount": 0,
        "modelCount": 0,
        "lastUpdated": 1_700_000_000_001,
        "syncCount": 1,
        "createdAt": 1_700_000_000_000,
    }


async def test_times_are_those_of_creation_and_of_the_last_sync(service, alice):
    made = await service.create(alice, SESSION)
    created = (await read(service, alice, made.id))["metadata"]
    assert created["lastUpdated"] == created["createdAt"]
    await service.sync(alice, made.id, None, [])
    synced = (await read(service, alice, made.id))["metadata"]
    assert synced["createdAt"] == created["createdAt"] < synced["lastUpdated"]


async def test_events_end_with_the_credential_that_they_were_got_with(service, alice):
    made = await service.create(alice, SESSION, [part("a")])
    standing = CredentialValidity()
    subscription = await service.subscribe(msgspec.structs.replace(alice, standing=standing), made.id)
    other = await service.subscribe(alice, made.id)
    await anext(subscription)
    standing.end()
    await service.sync(alice, made.id, None, [part("b")])
    assert (await refused(anext(subscription)))[0] is ErrorCode.UNAUTHORIZED
    assert [(await anext(other)).value["type"] for _ in range(2)] == ["snapshot", "sync"]


async def test_subscribers_get_the_share_then_its_syncs_then_its_end(service, alice, anonymous):
    made = await service.create(alice, SESSION, [part("a")])
    subscription = await service.subscribe(anonymous, made.id)
    await service.sync(alice, made.id, None, [part("b")])
    await service.delete(alice, made.id, None)
    events = [event.value async for event in subscription]
    assert [event["type"] for event in events] == ["snapshot", "sync", "deleted"]
    assert events[1] == {
        "type": "sync",
        "shareID": made.id,
        "syncCount": 2,
        "data": [part("b")],
    }


async def test_a_subscription_resumes_after_a_restart(new_service, alice):
    made = await new_service().create(alice, SESSION, [part("a")])
    first = new_service()
    for name in "bcd":
        await first.sync(alice, made.id, None, [part(name)])
    await first.close()
    subscription = await new_service().subscribe(alice, made.id, 2)
    assert [(await anext(subscription)).sync_count for _ in range(2)] == [3, 4]


async def test_closing_ends_subscriptions(service, alice):
    made = await service.create(alice, SESSION)
    subscription = await service.subscribe(alice, made.id, 0)
    await service.close()
    assert [event async for event in subscription] == []


# Deleting


async def test_a_deleted_share_is_gone_with_all_of_its_content(service, store, alice):
    made = await service.create(alice, SESSION, [part("a", text="the content")])
    await service.delete(alice, made.id, made.secret)
    for call in (
        service.agent_session(alice, made.id),
        service.sync(alice, made.id, made.secret, []),
        service.delete(alice, made.id, made.secret),
    ):
        assert await refused(call) == (ErrorCode.SHARE_NOT_FOUND, "Share not found")
    assert (await service.list_own(alice)).count == 0
    assert not any(b"the content" in body for body in contents(store).values())
    assert not any(key.startswith("index/") for key in contents(store))


async def test_owner_and_admin_delete_without_the_secret(service, alice, admin):
    for caller in (alice, admin):
        made = await service.create(alice, SESSION)
        await service.delete(caller, made.id, None)
        assert (await refused(service.metadata(alice, made.id)))[0] is ErrorCode.SHARE_NOT_FOUND


# Memory


async def test_shares_not_used_lately_are_let_go_of(new_service, alice):
    store = RecordingStore()
    service = new_service(store, memory_budget=50_000)
    ids = [(await service.create(alice, f"ses_{n:08}", [part("a", text="x" * 10_000)])).id for n in range(20)]
    assert service.open_shares._total <= 50_000
    assert 0 < len(service.open_shares._open) < 5
    store.calls.clear()
    await service.agent_session(alice, ids[-1])
    assert store.calls == []
    for share_id in ids:
        assert len((await read(service, alice, share_id))["parts"]) == 1


async def test_a_watched_share_is_not_let_go_of(new_service, alice):
    service = new_service(memory_budget=0)
    made = await service.create(alice, SESSION)
    subscription = await service.subscribe(alice, made.id, 0)
    for n in range(5):
        await service.create(alice, f"ses_{n:08}", [part("a")])
    assert list(service.open_shares._open) == [made.id]
    await service.sync(alice, made.id, None, [])
    assert (await anext(subscription)).sync_count == 1


async def test_a_share_in_use_is_not_let_go_of(new_service, alice):
    service = new_service(memory_budget=0)
    made = await service.create(alice, SESSION)
    async with using(service, made.id) as log:
        await service.create(alice, "ses_other000")
        async with using(service, made.id) as again:
            assert again is log
    assert service.open_shares._open == {}


async def test_callers_that_open_a_share_at_once_load_it_once(new_service, store, alice):
    made = await new_service().create(alice, SESSION, [part("a")])
    recording = RecordingStore(YieldingStore(store))
    service = new_service(recording)
    await asyncio.gather(*(service.agent_session(alice, made.id) for _ in range(20)))
    assert [name for name, _ in recording.calls].count("scan") == 1


async def test_a_share_that_could_not_be_opened_is_not_listened_for(new_service, store, broadcaster, alice):
    first = new_service()
    made = await first.create(alice, SESSION)
    await first.close()
    with pytest.raises(ShareError, match="Storage unavailable"):
        await new_service(FailingStore(lambda name, _: name == "scan", store)).metadata(alice, made.id)
    assert broadcaster._callbacks == {}


async def test_an_id_that_nobody_has_costs_a_look_at_the_places_where_a_share_may_be(new_service, alice):
    store = RecordingStore()
    service = new_service(store)
    await refused(service.agent_session(alice, "unknown1"))
    keys = ["share/unknown1/head", "share/unknown1", "older/unknown1", "share/unknown1/head"]
    assert store.calls == [("get", key) for key in keys]
    await refused(service.agent_session(alice, "../../etc"))
    assert len(store.calls) == 4


async def test_check_says_whether_store_and_broadcaster_answer(new_service, store):
    service = new_service()
    await service.check()
    await store.close()
    assert (await refused(service.check()))[0] is ErrorCode.STORAGE_UNAVAILABLE


@pytest.mark.parametrize("creates", ["first", "other"])
async def test_a_secret_is_not_given_to_another_because_what_says_whose_it_is_was_lost(
    new_service, store, alice, bob, creates
):
    """Somebody who can remove objects from the store, and has an account."""
    share = await new_service().create(alice, "ses_1")
    (key,) = [key for key in contents(store) if key.startswith("session/")]
    body = contents(store)[key]
    await store.delete([key])
    caller = alice if creates == "first" else bob
    made = await new_service().create(caller, "ses_1")
    assert (made.secret == share.secret) is (creates == "first")
    if creates == "other":
        assert contents(store)[key] == body
