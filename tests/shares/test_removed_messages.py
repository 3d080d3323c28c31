"""Messages that were taken back are gone after the next prompt, which is all that opencode says of it."""

import pytest

from rpcshare.shares.objects import LogSnapshot, decode_snapshot, encode_snapshot, pack
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import parse_batch

T0 = 1_760_000_000_000


def session(updated, **more):
    return {"type": "session", "data": {"id": "ses", "time": {"created": T0, "updated": updated}, **more}}


def message(name, created, role="assistant"):
    return {"type": "message", "data": {"id": name, "role": role, "time": {"created": created}}}


def part(name, of):
    return {"type": "part", "data": {"id": name, "messageID": of, "type": "text", "text": name}}


TOLD = [
    session(T0 + 9000),
    message("m1", T0 + 1000, "user"),
    message("m2", T0 + 2000),
    part("p1", "m2"),
    part("p2", "m2"),
    message("m3", T0 + 8000, "user"),
    message("m4", T0 + 9000),
]
TAKEN_BACK = [session(T0 + 20_000, revert={"messageID": "m3", "snapshot": "0"})]
PROMPT = [session(T0 + 30_050), message("m5", T0 + 30_060, "user"), message("m6", T0 + 30_070)]


def synced(*batches):
    state = ShareState("share", "ses", T0)
    for number, batch in enumerate(batches):
        state.apply(parse_batch(batch).items, T0 + number)
    return state


def removed(state):
    return dict(state.content.reverts.messages)


def test_the_next_prompt_removes_what_was_taken_back():
    assert removed(synced(TOLD, TAKEN_BACK)) == {}
    assert removed(synced(TOLD, TAKEN_BACK, PROMPT)) == {"m3": "", "m4": ""}


def test_the_prompt_may_come_in_a_later_sync_and_before_its_session():
    assert removed(synced(TOLD, TAKEN_BACK, PROMPT[:1], PROMPT[1:])) == {"m3": "", "m4": ""}
    assert removed(synced(TOLD, TAKEN_BACK, PROMPT[::-1])) == {"m3": "", "m4": ""}


def test_the_parts_of_a_message_before_the_revert_stay():
    reverted = [session(T0 + 20_000, revert={"messageID": "m2", "partID": "p2"})]
    assert removed(synced(TOLD, reverted, PROMPT)) == {"m2": "p2", "m3": "", "m4": ""}


@pytest.mark.parametrize(
    "after",
    [
        [[session(T0 + 25_000)]],
        [[session(T0 + 25_000)], PROMPT],
        [[session(T0 + 25_000), message("m4", T0 + 9000)]],
        [[session(T0 + 25_000), message("m7", T0 + 25_000)]],
        [[session(T0 + 25_000, revert={"messageID": "m3"})], PROMPT[1:]],
        [[message("m5", T0 + 30_000, "user")]],
    ],
    ids=[
        "restored",
        "restored, then a prompt",
        "an old one again",
        "no prompt",
        "still reverted",
        "no session",
    ],
)
def test_what_is_restored_stays(after):
    assert removed(synced(TOLD, TAKEN_BACK, *after)) == {}


def test_a_message_that_comes_again_is_there_again():
    state = synced(TOLD, TAKEN_BACK, PROMPT, [message("m4", T0 + 9000)])
    assert removed(state) == {"m3": ""}


def test_ids_need_not_be_in_the_order_of_time():
    told = [session(T0), message("z", T0 + 1, "user"), message("y", T0 + 2), message("x", T0 + 3, "user")]
    reverted = [session(T0 + 4, revert={"messageID": "y"})]
    assert removed(synced(told, reverted, [session(T0 + 5), message("a", T0 + 6, "user")])) == {
        "y": "",
        "x": "",
    }


@pytest.mark.parametrize("syncs", [1, 2, 3, 4])
def test_a_snapshot_at_any_time_leads_to_the_same(syncs):
    batches = [TOLD, TAKEN_BACK, PROMPT[:1], PROMPT[1:]]
    whole = synced(*batches)
    state = synced(*batches[:syncs])
    content = state.content
    snapshot = LogSnapshot(state.sync_count, state.last_updated, content.items(), content.reverts.removed)
    read = decode_snapshot(pack(encode_snapshot(snapshot)))
    again = ShareState("share", "ses", T0)
    again.restore(read.items, read.sync_count, read.last_updated, read.removed)
    for batch in batches[syncs:]:
        again.apply(parse_batch(batch).items, T0)
    assert removed(again) == removed(whole) == {"m3": "", "m4": ""}


def test_pages_can_tell_when_something_was_taken_back_or_restored_last():
    batches = [TOLD, TAKEN_BACK, [part("p3", "m2")], PROMPT, [part("p4", "m2")]]
    assert [synced(*batches[:count]).reverted_since for count in range(1, 6)] == [0, 2, 2, 4, 4]


def test_what_was_sent_is_kept_all_the_same():
    state = synced(TOLD, TAKEN_BACK, PROMPT)
    assert list(state.content.messages) == [b'"m%d"' % number for number in range(1, 7)]
