import asyncio
import json
import tracemalloc

import pytest

from rpcshare.shares.events import Deleted, Snapshot, Sync
from rpcshare.shares.old_versions import OldVersions
from rpcshare.shares.state import ShareState
from rpcshare.shares.subscriptions import RECENT_SYNCS, Subscriptions
from rpcshare.shares.syncdata import parse_batch
from support.items import part


class Share:
    """A state and its hub, grown together as an open share grows them."""

    def __init__(self, budget=2**20):
        self.state = ShareState("abcdefgh", "ses_abcdefgh", 1000)
        self.hub = Subscriptions("abcdefgh", OldVersions(budget))

    def sync(self, *batch):
        items = parse_batch(list(batch)).items
        self.state.apply(items, 2000)
        self.hub.sync(Sync("abcdefgh", self.state.sync_count, items))

    def subscribe(self, from_sync_count=None):
        return self.hub.subscribe(self.state, from_sync_count)


@pytest.fixture
def share():
    return Share()


def diff(file):
    return {"type": "session_diff", "data": [{"file": file}]}


async def waiting(subscription):
    """Return the events that wait, without waiting for others."""
    events = []
    while True:
        try:
            events.append(await asyncio.wait_for(anext(subscription), 0.01))
        except (TimeoutError, StopAsyncIteration):
            return events


def counts(events):
    return [(event.type, event.sync_count) for event in events]


async def test_a_subscription_begins_with_a_snapshot(share):
    share.sync(part("a"))
    event = await anext(share.subscribe())
    assert isinstance(event, Snapshot)
    assert json.loads(event.json) == {
        "type": "snapshot",
        "shareID": "abcdefgh",
        "syncCount": 1,
        "data": json.loads(share.state.sync_data()),
    }


async def test_every_sync_follows_in_order_as_it_was_sent(share):
    subscription = share.subscribe()
    share.sync(part("b"), part("a"), {"type": "session_diff", "data": []})
    share.sync()
    _, first, second = await waiting(subscription)
    assert first.value == {
        "type": "sync",
        "shareID": "abcdefgh",
        "syncCount": 1,
        "data": [part("b"), part("a"), {"type": "session_diff", "data": []}],
    }
    assert (second.value["syncCount"], second.value["data"]) == (2, [])


async def test_a_waiting_consumer_is_woken(share):
    subscription = share.subscribe()
    await anext(subscription)
    consumer = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    share.sync(part("a"))
    assert (await consumer).sync_count == 1


async def test_subscribers_share_one_event(share):
    subscriptions = [share.subscribe(), share.subscribe()]
    share.sync(part("a"))
    (snapshot, sync), (other_snapshot, other_sync) = [await waiting(each) for each in subscriptions]
    assert snapshot is other_snapshot
    assert sync is other_sync
    assert sync.json is other_sync.json
    assert sync.value is other_sync.value


async def test_who_comes_back_gets_only_what_it_missed(share):
    for number in range(5):
        share.sync(part(str(number)))
    assert counts(await waiting(share.subscribe(3))) == [("sync", 4), ("sync", 5)]


async def test_who_missed_nothing_waits_for_the_next(share):
    share.sync(part("a"))
    subscription = share.subscribe(1)
    assert await waiting(subscription) == []
    share.sync(part("b"))
    assert counts(await waiting(subscription)) == [("sync", 2)]


async def test_who_has_seen_what_is_not_yet_gets_a_snapshot(share):
    share.sync(part("a"))
    assert counts(await waiting(share.subscribe(2))) == [("snapshot", 1)]


@pytest.mark.parametrize(("syncs", "size"), [(600, 1), (10, 300_000)])
async def test_who_missed_more_than_is_remembered_gets_a_snapshot(share, syncs, size):
    for number in range(syncs):
        share.sync(part(str(number), "x" * size))
    assert counts(await waiting(share.subscribe(1))) == [("snapshot", syncs)]
    assert share.hub.size <= 2**20


async def test_the_oldest_sync_that_is_remembered_can_be_missed_and_no_older(share):
    for number in range(600):
        share.sync(part(str(number)))
    events = await waiting(share.subscribe(600 - RECENT_SYNCS))
    assert [event.sync_count for event in events] == list(range(601 - RECENT_SYNCS, 601))
    assert counts(await waiting(share.subscribe(599 - RECENT_SYNCS))) == [("snapshot", 600)]


async def test_deleted_comes_last_and_ends_the_iteration(share):
    subscription = share.subscribe()
    share.sync(part("a"))
    share.hub.delete()
    events = [event async for event in subscription]
    assert [event.type for event in events] == ["snapshot", "sync", "deleted"]
    assert events[-1].value == {"type": "deleted", "shareID": "abcdefgh"}


async def test_a_waiting_consumer_hears_of_the_end(share):
    subscription = share.subscribe()
    await anext(subscription)
    consumer = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    share.hub.delete()
    assert isinstance(await consumer, Deleted)


async def test_closing_the_hub_delivers_what_waits_and_ends(share):
    subscription = share.subscribe()
    share.hub.close()
    assert [event.type async for event in subscription] == ["snapshot"]


async def test_a_closed_subscription_ends_at_once_and_is_forgotten(share):
    subscription = share.subscribe()
    await subscription.aclose()
    share.sync(part("a"))
    assert [event async for event in subscription] == []
    assert len(share.hub) == 0


async def test_closing_lets_a_waiting_consumer_go(share):
    subscription = share.subscribe()
    await anext(subscription)
    consumer = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    await subscription.aclose()
    with pytest.raises(StopAsyncIteration):
        await consumer


async def test_a_cancelled_wait_loses_nothing(share):
    subscription = share.subscribe()
    await anext(subscription)
    consumer = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    share.sync(part("a"))
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert counts(await waiting(subscription)) == [("sync", 1)]


async def test_a_second_consumer_is_refused(share):
    subscription = share.subscribe()
    await anext(subscription)
    consumer = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one consumer"):
        await anext(subscription)
    consumer.cancel()


async def test_a_slow_subscriber_gets_the_newest_value_of_each_item(share):
    subscription = share.subscribe()
    for number in range(200):
        share.sync(part("same", str(number)), part(f"own {number}"), diff(str(number % 3)))
    snapshot, merged = await waiting(subscription)
    assert merged.sync_count == 200
    follower = ShareState("abcdefgh", "ses_abcdefgh", 1000)
    for event in (snapshot, merged):
        follower.content.apply(parse_batch(json.loads(event.json)["data"]).items)
    assert json.loads(follower.sync_data()) == json.loads(share.state.sync_data())


async def test_a_few_large_syncs_are_too_much_as_well(share):
    subscription = share.subscribe(0)
    for number in range(10):
        share.sync(part(str(number), "x" * 100_000))
    assert counts(await waiting(subscription)) == [("sync", 10)]


async def test_syncs_come_one_by_one_again_once_the_backlog_is_taken(share):
    subscription = share.subscribe()
    for number in range(100):
        share.sync(part(str(number)))
    assert counts(await waiting(subscription)) == [("snapshot", 0), ("sync", 100)]
    share.sync(part("x"))
    share.sync(part("y"))
    assert counts(await waiting(subscription)) == [("sync", 101), ("sync", 102)]


async def test_a_backlog_takes_no_more_than_the_share(share):
    subscription = share.subscribe(0)
    for number in range(2000):
        share.sync(part(str(number % 10), f"{number:5}" * 2000), diff("x" * 5000))
    assert len(subscription._events) == 0
    (merged,) = await waiting(subscription)
    assert merged.size - 1000 * len("session_diff") <= share.state.content.expanded_size


def memory_of_backlogs(subscribers):
    """Return how much is held once so many subscribers have not taken 100 syncs of 300 parts."""
    share = Share()
    share.sync(*(part(str(index)) for index in range(300)))
    subscriptions = [share.subscribe(1) for _ in range(subscribers)]
    tracemalloc.start()
    try:
        for number in range(100):
            share.sync(*(part(str(index), str(number)) for index in range(300)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return held, subscriptions


async def test_what_waits_takes_no_more_memory_for_many_subscribers_than_for_one():
    of_one, _ = memory_of_backlogs(1)
    of_many, _ = memory_of_backlogs(50)
    assert of_many < of_one + 49 * 4_000  # a backlog of 300 references for each would take more


async def test_subscribers_who_lag_behind_by_the_same_share_one_event():
    _, subscriptions = memory_of_backlogs(5)
    events = [await anext(each) for each in subscriptions]
    assert all(event is events[0] for event in events)


async def test_what_a_subscriber_lags_behind_by_is_what_it_has_not_seen(share):
    late, later = share.subscribe(0), None
    for number in range(100):
        share.sync(part(f"p{number}"), diff(f"d{number}"))
    later = share.subscribe(100)
    for number in range(100, 200):
        share.sync(part(f"p{number}"), part("p0", str(number)), diff(f"d{number}"))
    first, second = [(await waiting(each))[0].value["data"] for each in (late, later)]
    assert [each["data"]["id"] for each in first if each["type"] == "part"] == [f"p{n}" for n in range(200)]
    assert {each["data"]["id"] for each in second if each["type"] == "part"} == {
        "p0",
        *(f"p{n}" for n in range(100, 200)),
    }
    assert [each["file"] for each in second[-1]["data"]] == [f"d{n}" for n in range(100, 200)]


async def test_nothing_is_noted_for_nobody(share):
    subscription = share.subscribe(0)
    for number in range(100):
        share.sync(part(str(number)))
    await waiting(subscription)
    share.sync(part("x"))
    assert share.hub.changes._items == {}


async def test_deleted_follows_a_merged_backlog(share):
    subscription = share.subscribe(0)
    for number in range(100):
        share.sync(part(str(number)))
    share.hub.delete()
    assert [event.type async for event in subscription] == ["sync", "deleted"]


async def test_a_share_read_anew_replaces_what_waits(share):
    subscription = share.subscribe()
    share.sync(part("a"))
    share.hub.restart(share.state)
    share.sync(part("b"))
    assert counts(await waiting(subscription)) == [("snapshot", 1), ("sync", 2)]


async def test_each_subscriber_has_a_backlog_of_its_own(share):
    slow, quick = share.subscribe(0), share.subscribe(0)
    seen: list[Sync] = []
    for number in range(100):
        share.sync(part(str(number)))
        seen += await waiting(quick) if number % 25 == 0 else []
    seen += await waiting(quick)
    assert counts(await waiting(slow)) == [("sync", 100)]
    assert [event.sync_count for event in seen] == list(range(1, 101))


# Readers that stop in the middle of a large event, while all of it is written again and again


SIZE = 600 * 1024  # bytes of a share, in 300 parts


def written(share, round_number, size=2048):
    count = SIZE // size
    share.sync(*(part(f"p{number}", f"{round_number:04}" * (size // 4)) for number in range(count)))


async def stopped_readers(share, versions, readers=3):
    """Return subscriptions that have taken a part of their first event each, and those parts."""
    stopped = []
    for round_number in range(versions):
        written(share, round_number)
        for _ in range(readers):
            subscription = share.subscribe()
            parts = subscription.parts(await anext(subscription))
            stopped.append((subscription, parts, next(parts)))
    return stopped


async def test_readers_who_stopped_at_different_versions_hold_few_of_them():
    share = Share(budget=3 * SIZE)
    tracemalloc.start()
    try:
        written(share, 0)
        before, _ = tracemalloc.get_traced_memory()
        stopped = await stopped_readers(share, versions=20, readers=2)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(stopped) == 40
    assert after - before < 10 * SIZE  # of 20 versions, with 40 times a part


async def test_a_reader_who_goes_on_gets_the_newest_values_and_never_an_older_one_again():
    share = Share(budget=SIZE)
    stopped = await stopped_readers(share, versions=5)
    for subscription, parts, first in stopped:
        known: dict[str, int] = {}
        sync_count = 0
        texts = [first + b"".join(parts)]
        texts += [b"".join(subscription.parts(event)) for event in await waiting(subscription)]
        for text in texts:
            event = json.loads(text)
            assert event["syncCount"] > sync_count
            sync_count = event["syncCount"]
            for item in event["data"]:
                if item["type"] == "part":
                    written_in = int(item["data"]["text"][:4])
                    assert known.get(item["data"]["id"], 0) <= written_in
                    known[item["data"]["id"]] = written_in
        assert set(known.values()) == {4}
        assert sync_count == 5


async def test_a_reader_who_stopped_within_one_large_value_is_given_up_if_too_many_are_held():
    share = Share(budget=2 * SIZE)
    given_up = []
    held = []
    for round_number in range(8):
        written(share, round_number, SIZE)
        subscription = share.subscribe()
        subscription.on_give_up(lambda number=round_number: given_up.append(number))
        parts = subscription.parts(await anext(subscription))
        held.append((subscription, next(parts), next(parts), parts))
    assert given_up == [0, 1, 2, 3, 4, 5]


async def test_a_share_that_grows_costs_its_slow_readers_nothing():
    share = Share(budget=SIZE)
    written(share, 0)
    subscription = share.subscribe()
    subscription.on_give_up(pytest.fail)
    event = await anext(subscription)
    text = b"".join(event.text_parts())
    parts = subscription.parts(event)
    first = next(parts)
    for number in range(1000):
        share.sync(part("new", "x" * number * 10), part(f"n{number}", "x" * 4000))
    assert first + b"".join(parts) == text


async def test_what_a_reader_holds_is_counted_no_longer_than_it_reads():
    share = Share(budget=SIZE)
    stopped = await stopped_readers(share, versions=3)
    for subscription, parts, _ in stopped:
        parts.close()
        subscription.close()
    assert share.hub.old_versions._versions == {}
