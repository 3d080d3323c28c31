"""A credential that is synced reaches nobody: not the store, a reader, a subscriber or a listing."""

import msgspec
import pytest

from rpcshare.shares.objects import unpack
from support.invented_credentials import PRIVATE_KEYS, some

KEY = "ghp_" + some(36)
WORDS = [KEY, *PRIVATE_KEYS[0].splitlines()[1:-1]]

ITEMS = [
    {"type": "session", "data": {"id": "ses_redact01", "title": f"With {KEY}", "directory": f"/tmp/{KEY}"}},
    {"type": "message", "data": {"id": "msg_1", "role": "user"}},
    {"type": "part", "data": {"id": "prt_1", "type": "tool", "state": {"output": f"KEY={KEY}\n"}}},
    {"type": "session_diff", "data": [{"file": "key.pem", "after": PRIVATE_KEYS[0]}]},
    {"type": "model", "data": [{"id": "m", "options": {"apiKey": KEY}}]},
]


def assert_clean(text: bytes) -> None:
    assert not any(word.encode() in text for word in WORDS)


async def everything_in(store) -> bytes:
    return b"\n".join([stored.key.encode() + unpack(stored.body) async for stored in store.scan("")])


async def test_it_is_in_no_object_of_the_store_and_in_no_answer(new_service, store, alice):
    service = new_service()
    made = await service.create(alice, "ses_redact01", ITEMS)
    await service.sync(alice, made.id, made.secret, ITEMS)
    answers = [
        await service.agent_session(alice, made.id),
        await service.sync_data(alice, made.id),
        msgspec.json.encode(await service.metadata(alice, made.id)),
        msgspec.json.encode(await service.list_own(alice)),
    ]
    await service.close()
    for text in [*answers, await everything_in(store)]:
        assert_clean(text)
    assert all(b"[redacted:github-token]" in answer for answer in answers)
    assert b"[redacted:private-key]" in answers[0]


async def test_no_subscriber_is_told_of_it(new_service, alice):
    service = new_service()
    made = await service.create(alice, "ses_redact01", ITEMS)
    subscription = await service.subscribe(alice, made.id)
    snapshot = await anext(subscription)
    await service.sync(alice, made.id, made.secret, ITEMS)
    for event in (snapshot, await anext(subscription)):
        text = event.json
        assert_clean(text)
        assert b"[redacted:github-token]" in text


async def test_nobody_finds_a_share_by_it(new_service, alice):
    service = new_service()
    await service.create(alice, "ses_redact01", ITEMS)
    assert not (await service.list_own(alice, query=KEY)).sessions


async def test_ids_are_redacted_alike_each_time(new_service, alice):
    service = new_service()
    part = {"type": "part", "data": {"id": f"prt_1 {KEY}", "text": "a"}}
    made = await service.create(alice, "ses_redact01", [part])
    await service.sync(alice, made.id, made.secret, [part])
    assert (await service.metadata(alice, made.id)).part_count == 1


@pytest.mark.parametrize("redact", [True, False])
async def test_redaction_can_be_turned_off(new_service, store, alice, redact):
    service = new_service(redact=redact)
    made = await service.create(alice, "ses_redact01", ITEMS)
    assert (KEY.encode() in await service.agent_session(alice, made.id)) is not redact
    await service.close()
    assert (KEY.encode() in await everything_in(store)) is not redact
