"""Messages within a process."""

import logging
from collections.abc import AsyncIterator

import pytest

from rpcshare.broadcast import LocalBroadcaster, LogAppended


def message(share_id: str, entry: int) -> LogAppended:
    return LogAppended(share_id=share_id, generation="g1", entry=entry)


@pytest.fixture
async def broadcaster() -> AsyncIterator[LocalBroadcaster]:
    opened = LocalBroadcaster()
    yield opened
    await opened.close()


async def test_a_subscriber_has_each_message_in_order_once_publish_returns(
    broadcaster: LocalBroadcaster,
) -> None:
    heard: list[LogAppended] = []
    broadcaster.subscribe("a", heard.append)
    for entry in range(3):
        await broadcaster.publish(message("a", entry))
    assert heard == [message("a", entry) for entry in range(3)]


async def test_a_subscriber_hears_of_its_own_share_only(broadcaster: LocalBroadcaster) -> None:
    heard: list[LogAppended] = []
    broadcaster.subscribe("a", heard.append)
    await broadcaster.publish(message("ab", 1))
    assert heard == []


async def test_a_message_without_subscribers_is_dropped(broadcaster: LocalBroadcaster) -> None:
    heard: list[LogAppended] = []
    await broadcaster.publish(message("a", 1))
    broadcaster.subscribe("a", heard.append)
    assert heard == []


async def test_every_subscriber_of_a_share_hears_in_order_of_subscription(
    broadcaster: LocalBroadcaster,
) -> None:
    heard: list[str] = []
    broadcaster.subscribe("a", lambda _: heard.append("first"))
    broadcaster.subscribe("a", lambda _: heard.append("second"))
    await broadcaster.publish(message("a", 1))
    assert heard == ["first", "second"]


async def test_a_callback_subscribed_twice_is_called_twice(broadcaster: LocalBroadcaster) -> None:
    heard: list[LogAppended] = []
    unsubscribe = broadcaster.subscribe("a", heard.append)
    broadcaster.subscribe("a", heard.append)
    await broadcaster.publish(message("a", 1))
    unsubscribe()
    await broadcaster.publish(message("a", 2))
    assert [m.entry for m in heard] == [1, 1, 2]


async def test_who_unsubscribed_hears_nothing_more(broadcaster: LocalBroadcaster) -> None:
    heard: list[LogAppended] = []
    unsubscribe = broadcaster.subscribe("a", heard.append)
    unsubscribe()
    await broadcaster.publish(message("a", 1))
    assert heard == []


async def test_unsubscribing_twice_ends_no_later_subscription(
    broadcaster: LocalBroadcaster,
) -> None:
    heard: list[LogAppended] = []
    unsubscribe = broadcaster.subscribe("a", heard.append)
    unsubscribe()
    broadcaster.subscribe("a", heard.append)
    unsubscribe()
    await broadcaster.publish(message("a", 1))
    assert len(heard) == 1


async def test_a_callback_may_unsubscribe_another_that_has_not_been_called_yet(
    broadcaster: LocalBroadcaster,
) -> None:
    heard: list[LogAppended] = []
    broadcaster.subscribe("a", lambda _: unsubscribe_second())
    unsubscribe_second = broadcaster.subscribe("a", heard.append)
    await broadcaster.publish(message("a", 1))
    assert heard == []


async def test_a_subscription_made_by_a_callback_begins_with_the_next_message(
    broadcaster: LocalBroadcaster,
) -> None:
    heard: list[LogAppended] = []

    def subscribe_once(_: LogAppended) -> None:
        unsubscribe()
        broadcaster.subscribe("a", heard.append)

    unsubscribe = broadcaster.subscribe("a", subscribe_once)
    await broadcaster.publish(message("a", 1))
    await broadcaster.publish(message("a", 2))
    assert [m.entry for m in heard] == [2]


async def test_a_callback_that_fails_is_logged_and_stops_no_other(
    broadcaster: LocalBroadcaster, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: LogAppended) -> None:
        raise LookupError("broken subscriber")

    heard: list[LogAppended] = []
    broadcaster.subscribe("a", fail)
    broadcaster.subscribe("a", heard.append)
    await broadcaster.publish(message("a", 1))
    assert len(heard) == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


async def test_a_closed_broadcaster_calls_nobody(broadcaster: LocalBroadcaster) -> None:
    heard: list[LogAppended] = []
    broadcaster.subscribe("a", heard.append)
    await broadcaster.close()
    await broadcaster.publish(message("a", 1))
    assert heard == []


async def test_a_share_without_subscribers_takes_no_memory(broadcaster: LocalBroadcaster) -> None:
    for n in range(10):
        broadcaster.subscribe(f"share{n}", lambda _: None)()
    assert broadcaster._callbacks == {}


async def test_it_answers(broadcaster: LocalBroadcaster) -> None:
    await broadcaster.check()
