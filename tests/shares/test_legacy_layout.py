"""Shares that were made before there were logs: read as they are, upgraded by the first write."""

import asyncio
import json
from typing import Any

import pytest

from rpcshare import jsontext
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.shares import LogSettings
from rpcshare.shares.compaction import CompactionPolicy
from rpcshare.shares.legacy_layout import decode_legacy, decode_legacy_index
from rpcshare.storage import MemoryStore, StoreError
from support.items import part
from support.older_shares import SECRET, older_index, older_share, put_older
from support.service_fixtures import using
from support.share_stores import (
    DyingStore,
    FailingStore,
    FolderStore,
    RecordingStore,
    YieldingStore,
    contents,
    until,
)

ID = "12345678"
SESSION = "ses_older_12345678"
OTHERS = ("session", "messages", "parts", "diffs", "models")


@pytest.fixture
async def older(store):
    """Return the share that is in the store."""
    await put_older(store)
    return older_share()


async def merged(service, caller, share_id=ID):
    return jsontext.decode(await service.agent_session(caller, share_id))


async def part_ids(service, caller, share_id=ID):
    return [part["id"] for part in (await merged(service, caller, share_id))["parts"]]


async def code_of(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code


# Reading


async def test_it_is_read_with_every_value_as_it_was(service, older, bob):
    found = await merged(service, bob)
    assert {name: found[name] for name in OTHERS} == {name: older[name] for name in OTHERS}


async def test_its_metadata_is_kept_except_for_the_secret(service, older, bob):
    assert (await merged(service, bob))["metadata"] == {
        "createdAt": 1_600_000_000_000,
        "lastUpdated": 1_600_000_001_000,
        "syncCount": 7,
        "sessionID": SESSION,
    }


async def test_reading_in_every_way_changes_nothing(new_service, store, older, bob, admin):
    before = contents(store)
    for _ in range(2):
        service = new_service(shared_store=True)
        await service.list_all(admin)
        await service.agent_session(bob, ID)
        await service.sync_data(bob, ID)
        await service.metadata(bob, ID)
        await (await service.subscribe(bob, ID)).aclose()
        await service.check_write(bob, ID, SECRET)
        await service.list_all(admin)
        await service.close()
    assert contents(store) == before


async def test_its_secret_is_in_no_answer(service, older, bob, admin):
    event = await anext(await service.subscribe(bob, ID))
    answers = [
        await service.agent_session(bob, ID),
        await service.sync_data(bob, ID),
        event.json,
        json.dumps([repr(await service.metadata(bob, ID)), repr(await service.list_all(admin))]).encode(),
    ]
    assert not any(SECRET.encode() in answer for answer in answers)


async def test_it_is_listed_as_its_row_says(service, older, admin, alice):
    page = await service.list_all(admin, query="old TIMES")
    assert [json.loads(jsontext.encode(index)) for index in page.sessions] == [older_index()]
    assert (await service.list_own(alice)).count == 0


# Who may write it


async def test_its_secret_still_opens_it(service, older, bob):
    assert await service.sync(bob, ID, SECRET, [part("prt_2")]) == 8


async def test_it_belongs_to_nobody_but_an_admin_may_write_it(service, older, alice, admin):
    assert await code_of(service.sync(alice, ID, None, [])) is ErrorCode.FORBIDDEN
    assert await code_of(service.sync(alice, ID, "wrong", [])) is ErrorCode.INVALID_SECRET
    assert await service.sync(admin, ID, None, []) == 8


@pytest.mark.parametrize("secret", [None, "", 7])
async def test_without_a_secret_of_its_own_only_an_admin_opens_it(service, store, bob, admin, secret):
    metadata = {} if secret is None else {"secret": secret}
    await put_older(store, share=older_share(metadata=metadata))
    for wrong in ("", "None", "7"):
        assert await code_of(service.sync(bob, ID, wrong, [])) is ErrorCode.INVALID_SECRET
    await service.sync(admin, ID, None, [])


@pytest.mark.parametrize("is_upgraded", [False, True])
async def test_who_shares_its_session_again_gets_a_share_and_a_secret_of_his_own(
    new_service, store, older, alice, admin, shared_secret, credentials, is_upgraded
):
    # The secret that follows from the session may be the one that the older deployment gave out.
    of_session = credentials.of_session(SESSION).secret
    await put_older(store, share=older_share(metadata={"sessionID": SESSION, "secret": of_session}))
    if is_upgraded:
        await new_service().sync(admin, ID, None, [])
    service = new_service()
    made = await service.create(alice, SESSION, [part("new")])
    assert made.id != ID
    assert made.secret != of_session
    assert await code_of(service.sync(alice, ID, made.secret, [])) is ErrorCode.INVALID_SECRET
    await service.delete(alice, made.id, None)
    again = await service.create(alice, SESSION)
    assert again.secret == made.secret
    assert await part_ids(service, alice) == ["prt_1"]


async def test_its_id_is_not_given_to_another_session(service, store, older, alice):
    made = await service.create(alice, f"another_{ID}")
    assert made.id == f"her_{ID}"


# Upgrading


async def test_the_first_write_makes_a_log_of_it(service, store, older, bob, new_service, admin):
    await service.sync(bob, ID, SECRET, [part("prt_2"), part("prt_1", "new")])
    assert ID not in {key.rpartition("/")[2] for key in contents(store)}
    for each in (service, new_service()):
        found = await merged(each, bob)
        assert [part["id"] for part in found["parts"]] == ["prt_1", "prt_2"]
        assert found["messages"] == older["messages"]
        assert found["diffs"] == older["diffs"]
        assert found["metadata"]["syncCount"] == 8
        (index,) = (await each.list_all(admin)).sessions
        assert (index.id, index.sync_count, index.part_count) == (ID, 8, 2)


async def test_the_secret_is_nowhere_in_the_store_behind_an_upgrade(service, store, older, admin, bob):
    await service.sync(admin, ID, None, [])
    await service.close()
    assert not any(SECRET.encode() in body for body in contents(store).values())


async def test_a_store_of_files_and_folders_can_upgrade_it(new_service, store, older, bob, admin):
    service = new_service(FolderStore(store))
    await service.list_all(admin)
    await service.sync(bob, ID, SECRET, [part("prt_2")])
    assert await part_ids(service, bob) == ["prt_1", "prt_2"]
    await service.delete(bob, ID, SECRET)
    await service.close()


async def test_a_share_that_the_older_deployment_still_writes_is_not_upgraded(service, store, older, bob):
    await service.agent_session(bob, ID)
    await put_older(store, share=older_share(parts=[]))
    before = contents(store)
    assert await code_of(service.sync(bob, ID, SECRET, [])) is ErrorCode.STORAGE_UNAVAILABLE
    assert contents(store) == before


async def test_subscribers_see_the_upgrade_as_one_more_sync(service, older, bob):
    events = await service.subscribe(bob, ID)
    assert (await anext(events)).sync_count == 7
    await service.sync(bob, ID, SECRET, [part("prt_2")])
    event = await anext(events)
    assert (event.type, event.sync_count) == ("sync", 8)


async def test_it_can_be_deleted_without_ever_having_been_written(service, store, older, bob, new_service):
    await service.delete(bob, ID, SECRET)
    assert await code_of(new_service().agent_session(bob, ID)) is ErrorCode.SHARE_NOT_FOUND
    assert not any(b"Old times" in body for body in contents(store).values())
    assert not any(key.startswith("index/") for key in contents(store))


@pytest.mark.parametrize("seed", range(20))
async def test_two_nodes_that_upgrade_it_at_once_lose_nothing(new_service, store, older, bob, seed):
    nodes = [
        new_service(YieldingStore(store, 2 * seed + number), LocalBroadcaster(), shared_store=True)
        for number in range(2)
    ]
    names = [(nodes[number % 2], f"new_{number}") for number in range(20)]
    counts = await asyncio.gather(*(node.sync(bob, ID, SECRET, [part(name)]) for node, name in names))
    assert sorted(counts) == list(range(8, 28))
    found = [await part_ids(node, bob) for node in (*nodes, new_service())]
    assert found[0] == found[1] == found[2]
    assert sorted(found[0]) == sorted(["prt_1", *(name for _, name in names)])


@pytest.mark.parametrize("seed", range(20))
async def test_a_node_that_upgrades_what_another_deletes_brings_nothing_back(
    new_service, store, older, bob, seed
):
    writer, deleter = (
        new_service(YieldingStore(store, 2 * seed + number), LocalBroadcaster(), shared_store=True)
        for number in range(2)
    )
    await writer.agent_session(bob, ID)
    await asyncio.gather(
        writer.sync(bob, ID, SECRET, [part("late")]), deleter.delete(bob, ID, SECRET), return_exceptions=True
    )
    await writer.close()
    assert await code_of(new_service().agent_session(bob, ID)) is ErrorCode.SHARE_NOT_FOUND
    assert not any(b"Old times" in body for body in contents(store).values())


async def test_a_node_that_read_it_before_another_upgraded_and_compacted_it_goes_on(
    new_service, store, older, bob
):
    reader = new_service(hearing=LocalBroadcaster(), shared_store=True)
    await reader.agent_session(bob, ID)
    compacting = CompactionPolicy(tail_size=0, tail_ratio=0.0, tail_entries=0)
    writer = new_service(settings=LogSettings(compaction=compacting, grace=0.0))
    for name in "abc":
        await writer.sync(bob, ID, SECRET, [part(name)])
        async with using(writer, ID) as log:
            await log._compactor.finish()
    assert await part_ids(reader, bob) == ["prt_1", "a", "b", "c"]
    assert await reader.sync(bob, ID, SECRET, [part("d")]) == 11


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", ["sync", "delete"])
async def test_an_upgrade_may_be_interrupted_at_any_call(new_service, bob, alice, after, operation):
    for at in range(1, 40):
        store = MemoryStore()
        await put_older(store)
        dying = DyingStore(FolderStore(store), at, after=after)
        first = new_service(dying)
        is_sync = operation == "sync"
        call = first.sync(bob, ID, SECRET, [part("new")]) if is_sync else first.delete(bob, ID, SECRET)
        result: object
        (result,) = await asyncio.gather(call, return_exceptions=True)
        await first.close()
        is_acknowledged = not isinstance(result, ShareError)

        second = new_service(FolderStore(store))
        if is_sync:
            assert (await second.create(alice, f"another_{ID}")).id != ID
        found: Any
        (found,) = await asyncio.gather(part_ids(second, bob), return_exceptions=True)
        if is_sync:
            assert found in (["prt_1"], ["prt_1", "new"])
            assert found == ["prt_1", "new"] or not is_acknowledged
            await second.sync(bob, ID, SECRET, [part("last")])
            assert await part_ids(new_service(store), bob) == [*found, "last"]
        elif isinstance(found, ShareError):
            assert found.code is ErrorCode.SHARE_NOT_FOUND
            assert not any(b"Old times" in body for body in contents(store).values())
        else:
            assert found == ["prt_1"]
            assert not is_acknowledged
        if not dying.has_died:
            return
    pytest.fail("it makes more calls than were tried")


@pytest.mark.parametrize(("unheard", "is_kept"), [({}, False), ({"unheard": "of"}, True)])
async def test_what_an_interrupted_upgrade_left_aside_goes_unless_no_share_can_hold_it(
    new_service, store, bob, unheard, is_kept
):
    await put_older(store, share=older_share(**unheard))
    failing = FailingStore(lambda name, key: name == "put" and key.endswith("/head"), store, after=True)
    assert await code_of(new_service(failing).sync(bob, ID, SECRET, [])) is ErrorCode.STORAGE_UNAVAILABLE
    assert f"older/{ID}" in contents(store)
    recording = RecordingStore(store)
    service = new_service(recording, settings=LogSettings(grace=0.0))
    assert await part_ids(service, bob) == ["prt_1"]
    await until(lambda: ("get", f"older/{ID}") in recording.calls)
    await service.close()
    assert (f"older/{ID}" in contents(store)) == is_kept


async def test_what_no_share_can_hold_stays_where_it_was(service, store, bob):
    share = older_share(messages=[{"id": "msg_1"}, {"role": "nobody"}], unheard="of")
    await put_older(store, share=share)
    await service.sync(bob, ID, SECRET, [])
    assert jsontext.decode(contents(store)[f"older/{ID}"]) == share
    assert [message["id"] for message in (await merged(service, bob))["messages"]] == ["msg_1"]
    await service.delete(bob, ID, SECRET)
    assert f"older/{ID}" not in contents(store)


async def test_a_share_that_is_not_older_costs_no_look_at_the_older_place(new_service, store, alice):
    made = await new_service().create(alice, SESSION)
    recording = RecordingStore(store)
    await new_service(recording).agent_session(alice, made.id)
    assert ("get", f"share/{made.id}") not in recording.calls


# Being lenient


@pytest.mark.parametrize("member", [*OTHERS, "metadata"])
def test_a_member_may_be_missing_or_null(member):
    share = older_share()
    whole = decode_legacy(ID, jsontext.encode(share)).snapshot.items
    share[member] = None
    absent = {name: value for name, value in share.items() if name != member}
    for lacking in (share, absent):
        found = decode_legacy(ID, jsontext.encode(lacking))
        assert found.faults == ()
        assert len(found.snapshot.items) == len(whole) - (member != "metadata")


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"session": []}, "session: must be an object"),
        ({"messages": {}}, "messages: must be a list"),
        ({"messages": [{"id": "a"}, 5]}, "messages[1]: must be an object"),
        ({"parts": [{"text": "no id"}]}, "parts[0].id: must be a string that is not empty"),
        ({"models": [{"id": "a"}, {"id": 5}]}, "models[1].id: must be a string that is not empty"),
        ({"diffs": "none"}, "diffs: must be a list"),
        ({"events": []}, "events: is not known"),
    ],
)
def test_what_cannot_be_taken_over_is_named(members, fault):
    assert decode_legacy(ID, jsontext.encode(older_share(**members))).faults == (fault,)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b'{"sessions": []}', b'{"session": ', b"\xff"])
def test_what_is_no_share_at_all_is_refused(body):
    with pytest.raises(StoreError, match=f"share/{ID} is not"):
        decode_legacy(ID, body)


async def test_what_is_no_share_at_all_is_not_served_and_not_touched(service, store, bob):
    await store.put(f"share/{ID}", b"what is this?")
    assert await code_of(service.agent_session(bob, ID)) is ErrorCode.STORAGE_UNAVAILABLE
    assert contents(store) == {f"share/{ID}": b"what is this?"}


@pytest.mark.parametrize(
    ("metadata", "session", "expected"),
    [
        ({"sessionID": "ses_a"}, {"id": "ses_b"}, "ses_a"),
        ({"sessionID": "not one!"}, {"id": "ses_b"}, "ses_b"),
        ({}, {"id": 5}, ID),
    ],
)
def test_the_session_is_the_first_that_can_be_one(metadata, session, expected):
    body = jsontext.encode({"session": session, "metadata": metadata})
    assert decode_legacy(ID, body).head.session_id == expected


@pytest.mark.parametrize("value", [-1, 1e300, True, "1", None, [], float(2**60)])
def test_numbers_that_are_none_count_as_zero(value):
    metadata = {"createdAt": value, "lastUpdated": value, "syncCount": value}
    found = decode_legacy(ID, jsontext.encode({"metadata": metadata}))
    assert (found.head.created_at, found.snapshot.last_updated, found.snapshot.sync_count) == (0, 0, 0)
    row = decode_legacy_index(ID, jsontext.encode(metadata))
    assert (row.index.created_at, row.index.last_updated, row.index.sync_count) == (0, 0, 0)


def test_a_share_that_was_never_told_when_it_was_made_is_as_old_as_its_session():
    body = jsontext.encode({"session": {"time": {"created": 1e12}}})
    assert decode_legacy(ID, body).head.created_at == 10**12
