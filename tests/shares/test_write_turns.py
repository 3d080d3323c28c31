"""Several nodes that write one share all the time: none waits for ever, and nothing is lost or twice."""

import asyncio

import pytest

from rpcshare.shares.write_turns import WriteTurns
from support.items import part
from support.share_stores import WrappedStore

CALLERS, ENTRIES = 4, 40
DISTANCE = 0.01  # seconds that each request to the store takes


class FarStore(WrappedStore):
    """Decides at once, and answers later."""

    async def call(self, name, arguments, run):
        try:
            return await run()
        finally:
            await asyncio.sleep(DISTANCE)


def diff(number):
    return {"type": "session_diff", "data": [{"file": f"f{number}", "after": "x" * number}]}


@pytest.mark.parametrize("make", [lambda number: part(f"p{number}"), diff], ids=["parts", "diffs"])
async def test_of_two_nodes_that_write_all_the_time_none_has_to_wait_for_ever(
    new_service, alice, store, make
):
    share = await new_service(store).create(alice, "ses_12345678")
    nodes = [new_service(FarStore(store), None, shared_store=True) for _ in range(2)]
    counts = [0, 0]
    acknowledged: list[int] = []

    async def write(which: int, caller: int) -> None:
        while sum(counts) < ENTRIES * CALLERS:
            number = 1000 * (CALLERS * which + caller) + counts[which]
            acknowledged.append(await nodes[which].sync(alice, share.id, None, [make(number)]))
            counts[which] += 1

    await asyncio.gather(*(write(which, caller) for which in range(2) for caller in range(CALLERS)))
    assert min(counts) > sum(counts) / 10, counts
    # Each sync is one place in the order of all.
    assert sorted(acknowledged) == list(range(1, len(acknowledged) + 1))
    fresh = new_service(store)
    assert (await fresh.metadata(alice, share.id)).sync_count == len(acknowledged)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def wrote(turns: WriteTurns, clock: Clock, *, took: float = 0.03) -> None:
    began_at = clock.now
    clock.now += took
    turns.wrote(began_at)


def test_whoever_is_alone_with_a_store_never_pauses(clock):
    turns = WriteTurns(is_shared=False, clock=clock)
    turns.others_wrote()
    wrote(turns, clock)
    assert turns.pause() == 0


def test_who_knows_of_others_pauses_after_each_entry_for_longer_than_a_request_takes(clock):
    turns = WriteTurns(is_shared=True, clock=clock)
    turns.others_wrote()
    for _ in range(3):
        wrote(turns, clock, took=0.03)
        assert 0.03 < turns.pause() < 0.06
        clock.now += turns.pause()
        assert turns.pause() == 0


def test_who_knows_of_no_others_pauses_now_and_then(clock):
    turns = WriteTurns(is_shared=True, clock=clock)
    pauses = []
    for _ in range(100):
        wrote(turns, clock, took=0.03)
        pauses.append(turns.pause())
        clock.now += pauses[-1]
    assert 4 <= len([pause for pause in pauses if pause]) <= 8


def test_who_is_not_asked_for_a_while_has_paused(clock):
    turns = WriteTurns(is_shared=True, clock=clock)
    turns.others_wrote()
    wrote(turns, clock, took=0.03)
    clock.now += 0.05
    assert turns.pause() == 0


def test_who_hears_of_one_that_has_written_nothing_gives_way_once(clock):
    turns = WriteTurns(is_shared=True, clock=clock)
    turns.give_way()
    wrote(turns, clock, took=0.03)
    assert 0.1 < turns.pause() < 0.13
    clock.now += 0.2
    wrote(turns, clock, took=0.03)
    assert turns.pause() == 0


def test_a_pause_stays_short_where_writing_takes_long(clock):
    turns = WriteTurns(is_shared=True, clock=clock)
    turns.others_wrote()
    wrote(turns, clock, took=30)
    assert 0 < turns.pause() < 0.5
