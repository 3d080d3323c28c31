"""News between the processes of one server."""

from collections.abc import Iterator

import pytest

from rpcshare.broadcast import LogAppended
from rpcshare.broadcast.worker_broadcaster import WorkerBroadcaster
from support.inboxes import Office, until, with_office

SHARE = "a"
MISSED = LogAppended.missed(SHARE)


def message(entry: int) -> LogAppended:
    return LogAppended(share_id=SHARE, generation="g1", entry=entry)


@pytest.fixture
def office() -> Iterator[Office]:
    with with_office(2) as office:
        yield office


class Process:
    """One of them, with all that it hears of the share."""

    def __init__(self, office: Office, slot: int) -> None:
        self.inbox = office.reader(slot)
        self.broadcaster = WorkerBroadcaster(self.inbox)
        self.inbox.start()
        self.heard: list[LogAppended] = []

    def watch(self):
        return self.broadcaster.subscribe(SHARE, self.heard.append)

    def is_watched_by(self, slot: int) -> bool:
        return slot in self.broadcaster._watching.get(SHARE, set())


async def both(office: Office) -> tuple[Process, Process]:
    here, there = Process(office, 0), Process(office, 1)
    await until(lambda: here.inbox.others and there.inbox.others)
    return here, there


async def test_who_watches_at_another_process_hears_each_message_in_order(office):
    here, there = await both(office)
    there.watch()
    await until(lambda: here.is_watched_by(1))
    for entry in range(1000):
        await here.broadcaster.publish(message(entry))
    await until(lambda: len(there.heard) == 1000)
    assert there.heard == [message(entry) for entry in range(1000)]


async def test_who_watches_at_the_same_process_has_heard_when_publish_returns(office):
    here, _ = await both(office)
    here.watch()
    await here.broadcaster.publish(message(1))
    assert here.heard == [message(1)]


async def test_nothing_is_sent_to_who_does_not_watch(office):
    here, there = await both(office)
    unsubscribe = there.watch()
    await until(lambda: here.is_watched_by(1))
    unsubscribe()
    unsubscribe()
    await until(lambda: not here.is_watched_by(1))
    await here.broadcaster.publish(message(1))
    assert office.boxes.receive(1) is None


async def test_one_of_two_subscriptions_that_ends_leaves_the_other(office):
    here, there = await both(office)
    there.watch()()
    there.watch()
    second = there.watch()
    await until(lambda: here.is_watched_by(1))
    second()
    await here.broadcaster.publish(message(1))
    await until(lambda: message(1) in there.heard)


async def test_who_begins_to_watch_what_another_has_open_may_have_missed_something(office):
    here, there = await both(office)
    here.watch()
    await until(lambda: there.is_watched_by(0))
    there.watch()
    await until(lambda: there.heard)
    assert there.heard == [MISSED]


async def test_what_the_way_had_no_room_for_is_missed_once_it_is_free(office, monkeypatch):
    monkeypatch.setattr("rpcshare.broadcast.worker_messages._LARGEST_QUEUE", 10_000)  # bytes
    here, there = await both(office)
    there.watch()
    await until(lambda: here.is_watched_by(1))
    entries = 10_000
    for entry in range(entries):
        await here.broadcaster.publish(message(entry))
    await until(lambda: MISSED in there.heard)
    delivered = [heard.entry for heard in there.heard if heard != MISSED]
    assert delivered == list(range(len(delivered)))
    assert 1 < len(delivered) < entries
    assert there.heard[-1] == MISSED


async def test_who_watches_may_have_missed_what_one_wrote_that_has_ended(office):
    here, there = await both(office)
    here.watch()
    office.end(there.inbox)
    await until(lambda: not here.inbox.others)
    new = Process(office, 1)
    await until(lambda: here.heard)
    assert here.heard == [MISSED]
    await until(lambda: new.is_watched_by(0))
    await new.broadcaster.publish(message(5))
    await until(lambda: len(here.heard) == 2)
    assert here.heard[1] == message(5)


async def test_a_new_process_is_told_of_all_that_is_watched(office):
    here = Process(office, 0)
    for n in range(2500):
        here.broadcaster.subscribe(f"share{n}", here.heard.append)
    there = Process(office, 1)
    await until(lambda: len(there.broadcaster._watching) == 2500)


async def test_it_answers_that_it_is_well(office):
    here, _ = await both(office)
    await here.broadcaster.check()


async def test_once_it_is_closed_nobody_is_called(office):
    here, there = await both(office)
    there.watch()
    await until(lambda: here.is_watched_by(1))
    await there.broadcaster.close()
    await here.broadcaster.publish(message(1))
    there.broadcaster.subscribe("b", there.heard.append)
    await until(lambda: here.broadcaster._watching.get("b"))
    assert there.heard == []
