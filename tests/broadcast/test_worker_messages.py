"""Messages between the processes of one server."""

import asyncio
import logging
import os
from collections.abc import Iterator

import msgspec
import pytest

from rpcshare.broadcast.worker_messages import MAX_MESSAGE, Topic, WorkerMessages
from support.inboxes import Office, until, with_office


class Said(msgspec.Struct, frozen=True):
    text: str


TALK = Topic("talk", Said)
NOBODY_LISTENS = Topic("nobody listens", Said)


@pytest.fixture
def office() -> Iterator[Office]:
    with with_office(3) as office:
        yield office


def listening(office: Office, slot: int) -> tuple[WorkerMessages, list[tuple[int, str]]]:
    """Return an inbox, and what is heard in it: who said it, and what."""
    inbox, heard = office.reader(slot), []
    inbox.on(TALK, lambda sender, said: heard.append((sender.slot, said.text)))
    inbox.start()
    return inbox, heard


async def both(office: Office):
    (one, heard_by_one), (other, heard_by_other) = listening(office, 0), listening(office, 1)
    await until(lambda: one.others and other.others)
    return one, heard_by_one, other, heard_by_other


async def test_a_message_reaches_who_it_is_for_and_nobody_else(office):
    one, heard_by_one, _, heard_by_other = await both(office)
    third, heard_by_third = listening(office, 2)
    await until(lambda: len(one.others) == len(third.others) == 2)
    assert one.post([1], TALK, Said("to one")) == []
    one.post_all(TALK, Said("to all"))
    await until(lambda: heard_by_third)
    assert heard_by_other == [(0, "to one"), (0, "to all")]
    assert heard_by_third == [(0, "to all")]
    assert heard_by_one == []


async def test_messages_arrive_in_their_order_however_many_wait(office):
    one, _, _, heard = await both(office)
    # Far more than the system keeps for one inbox.
    for n in range(20_000):
        assert one.post([1], TALK, Said(f"{n:100}")) == []
    await until(lambda: len(heard) == 20_000)
    assert [int(text) for _, text in heard] == list(range(20_000))


async def test_what_cannot_be_kept_is_dropped_and_told_and_the_way_is_free_again(office):
    one, _, _, heard = await both(office)
    free: list[int] = []
    one.on_free(free.append)
    large = Said("x" * 300_000)
    sent = 0
    while not one.post([1], TALK, large):
        sent += 1
    assert sent > 10
    assert one.post([1], TALK, large) == [1]
    await until(lambda: free)
    await until(lambda: len(heard) == sent)
    assert free == [1]
    assert one.post([1], TALK, large) == []


async def test_a_message_that_is_too_large_is_not_sent(office):
    one, _, _, heard = await both(office)
    assert one.post([1], TALK, Said("x" * MAX_MESSAGE)) == [1]
    assert one.post([1], TALK, Said("small")) == []
    await until(lambda: heard)
    assert heard == [(0, "small")]


async def test_they_hear_of_each_other_whoever_is_there_first(office):
    first, _ = listening(office, 0)
    joined: list[int] = []
    first.on_joined(joined.append)
    first.post_all(TALK, Said("to nobody"))
    await asyncio.sleep(0)
    second, heard = listening(office, 1)
    await until(lambda: joined == [1] and list(second.others) == [0])
    first.post_all(TALK, Said("hello"))
    await until(lambda: heard)
    assert heard == [(0, "hello")]


async def test_one_that_has_ended_is_there_no_more_until_its_place_is_taken(office):
    one, heard, other, _ = await both(office)
    events: list[object] = []
    one.on_joined(lambda slot: events.append(("joined", slot)))
    one.on_left(lambda member: events.append(("left", member)))
    old = other.me
    office.end(other)
    await until(lambda: events)
    assert not one.others
    assert one.post([1], TALK, Said("to nobody")) == []
    new, heard_by_new = listening(office, 1)
    await until(lambda: new.others and one.others)
    assert events == [("left", old), ("joined", 1)]
    assert (one.is_there(old), one.is_there(new.me)) == (False, True)
    one.post_all(TALK, Said("welcome"))
    new.post_all(TALK, Said("thanks"))
    await until(lambda: heard and heard_by_new)
    assert heard_by_new == [(0, "welcome")]


async def test_what_waited_for_one_that_has_ended_is_dropped(office):
    one, _, other, _ = await both(office)
    while not one.post([1], TALK, Said("x" * 300_000)):
        pass
    office.end(other)
    await until(lambda: not one.others)
    new, heard = listening(office, 1)
    await until(lambda: one.others and new.others)
    one.post_all(TALK, Said("welcome"))
    await until(lambda: heard)
    assert heard == [(0, "welcome")]


async def test_a_handler_that_fails_is_logged_and_holds_up_nothing(office, caplog):
    one, _, other, heard = await both(office)
    other.on(NOBODY_LISTENS, lambda _sender, _said: 1 / 0)
    with caplog.at_level(logging.ERROR):
        one.post_all(NOBODY_LISTENS, Said("secret"))
        one.post_all(TALK, Said("next"))
        await until(lambda: heard)
    assert "A message about nobody listens could not be dealt with" in caplog.text
    assert "secret" not in caplog.text


async def test_what_nobody_handles_is_ignored(office):
    one, _, _, heard = await both(office)
    one.post_all(NOBODY_LISTENS, Said("?"))
    one.post_all(TALK, Said("next"))
    await until(lambda: heard)
    assert heard == [(0, "next")]


async def test_a_process_that_is_forked_keeps_its_own_inbox_alone(office):
    for slot in range(3):
        assert office.boxes.inbox(slot).fileno() >= 0
    kept = os.dup(office.boxes.inbox(1).fileno())
    office.boxes.keep_inbox(1)
    assert [office.boxes.inbox(slot).fileno() >= 0 for slot in range(3)] == [False, True, False]
    os.close(kept)
