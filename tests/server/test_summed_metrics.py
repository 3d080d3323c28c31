"""The numbers of several processes as those of one."""

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rpcshare.broadcast.worker_messages import Member, packed, unpacked
from rpcshare.server import summed_metrics
from rpcshare.server.summed_metrics import (
    DEPARTED,
    TAKEN,
    Departed,
    Family,
    SummedMetrics,
    counters,
    families,
    merged,
)
from support.inboxes import Office, until, with_office

SUPERVISOR = 2


class Numbers:
    """What one process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["method"], registry=self.registry)
        self.seconds = Histogram("seconds", "Time.", buckets=(1.0, 2.0), registry=self.registry)
        self.open = Gauge("open", "Open.", registry=self.registry)
        self.lag = Gauge("rpcshare_event_loop_lag_seconds", "Lag.", registry=self.registry)


def values(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f" {label}" for label in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def values_of(of: list[Family]) -> dict[str, float]:
    return values(summed_metrics._text(of).decode())


def test_one_process_alone_has_the_numbers_that_it_has():
    one = Numbers()
    one.calls.labels("get").inc(2)
    one.seconds.observe(1.5)
    text = generate_latest(one.registry).decode()
    assert values_of(merged([families(one.registry)])) == values(text)


def test_numbers_are_added_but_for_times_and_lags():
    one, other = Numbers(), Numbers()
    one.calls.labels("get").inc(2)
    other.calls.labels("get").inc(3)
    other.calls.labels("put").inc(1)
    for process, lag in ((one, 0.5), (other, 0.25)):
        process.seconds.observe(1.5)
        process.open.set(4)
        process.lag.set(lag)
    found = values_of(merged([families(one.registry), families(other.registry)]))
    assert (found["calls_total get"], found["calls_total put"]) == (5, 1)
    assert [found[f"seconds_bucket {le}"] for le in ("1.0", "2.0", "+Inf")] == [0, 2, 2]
    assert (found["seconds_count"], found["seconds_sum"]) == (2, 3)
    assert found["open"] == 8
    assert found["rpcshare_event_loop_lag_seconds"] == 0.5


def test_of_what_has_ended_only_what_grows_counts():
    one = Numbers()
    one.calls.labels("get").inc()
    one.open.set(1)
    assert [family.name for family in counters(families(one.registry))] == ["calls", "seconds"]


@pytest.fixture
def office() -> Iterator[Office]:
    with with_office(3) as office:
        yield office


class Process(Numbers):
    def __init__(self, office: Office, slot: int, departed: list[Family] | None = None) -> None:
        super().__init__()
        self.inbox = office.reader(slot)
        self.summed = SummedMetrics(self.inbox, self.registry, SUPERVISOR, departed or [])
        self.inbox.start()

    async def scraped(self) -> dict[str, float]:
        return values((await self.summed.text()).decode())


async def both(office: Office) -> tuple[Process, Process]:
    here, there = Process(office, 0), Process(office, 1)
    await until(lambda: here.inbox.others and there.inbox.others)
    here.calls.labels("get").inc(1)
    there.calls.labels("get").inc(2)
    return here, there


def left_with_supervisor(office: Office, member: Member) -> list[Family]:
    """Return what ``member`` has left last."""
    found: list[Family] = []
    while (data := office.boxes.receive(SUPERVISOR)) is not None:
        letter = unpacked(data)
        if letter.topic == TAKEN.name and letter.sender == member:
            found = TAKEN.read(letter.body).families
    return found


def depart(office: Office, process: Process, to: Process) -> list[Family]:
    """Have a process end as the supervisor tells of it."""
    left = left_with_supervisor(office, process.inbox.me)
    departed = Departed(*process.inbox.me, left)
    office.boxes.outbox(to.inbox.me.slot).send(packed(Member(SUPERVISOR, 0), DEPARTED, departed))
    office.end(process.inbox)
    return left


async def test_each_shows_the_sum(office):
    here, there = await both(office)
    assert (await here.scraped())["calls_total get"] == 3
    assert (await there.scraped())["calls_total get"] == 3
    assert (await there.scraped())["rpcshare_workers"] == 2


async def test_scrapes_at_the_same_time_are_answered_each(office):
    here, there = await both(office)
    shown = await asyncio.gather(*(process.scraped() for process in (here, there) * 5))
    assert [each["calls_total get"] for each in shown] == [3] * 10


async def test_no_number_goes_back_when_a_process_ends(office):
    here, there = await both(office)
    there.open.set(5)
    assert (await here.scraped())["calls_total get"] == 3
    there.calls.labels("get").inc(10)  # which nobody has seen
    left = depart(office, there, here)
    await until(lambda: not here.inbox.others)
    shown = await here.scraped()
    assert (shown["calls_total get"], shown["open"], shown["rpcshare_workers"]) == (3, 0, 1)
    new = Process(office, 1, departed=left)
    await until(lambda: here.inbox.others and new.inbox.others)
    assert (await new.scraped())["calls_total get"] == 3
    new.calls.labels("get").inc()
    assert (await here.scraped())["calls_total get"] == 4


async def test_what_is_counted_until_an_orderly_end_is_all_left(office):
    _, there = await both(office)
    there.calls.labels("get").inc(10)
    there.summed.close()
    left = left_with_supervisor(office, there.inbox.me)
    assert values_of(left)["calls_total get"] == 12


async def test_one_that_ends_while_it_is_asked_is_waited_for_no_longer(office, monkeypatch):
    monkeypatch.setattr(summed_metrics, "ANSWER_WITHIN", 3600.0)
    here, there = await both(office)
    there.inbox.close()  # it hangs
    scrape = asyncio.create_task(here.scraped())
    await until(lambda: here.summed._questions)
    there.inbox.start()
    depart(office, there, here)
    assert (await scrape)["calls_total get"] == 1


async def test_of_one_that_hangs_the_last_numbers_count(office, monkeypatch):
    monkeypatch.setattr(summed_metrics, "ANSWER_WITHIN", 0.05)
    here, there = await both(office)
    there.open.set(5)
    await here.scraped()
    there.inbox.close()
    shown = await here.scraped()
    assert (shown["calls_total get"], shown["open"]) == (3, 0)
    there.inbox.start()
