"""A clock that is set: nothing is destroyed, nobody gets more time, and no share grows younger."""

import asyncio
import json

import pytest

from rpcshare.errors import ShareError
from rpcshare.shares.clock_steps import SteadyClock
from support.share_stores import GatedStore, contents

SESSION = "ses_12345678"
DAY = 86_400


class Clocks:
    """The clock, in milliseconds, and the monotonic one, in seconds."""

    def __init__(self):
        self.wall, self.monotonic = 1_700_000_000_000, 100.0

    def pass_time(self, seconds):
        self.wall += round(seconds * 1000)
        self.monotonic += seconds

    def set_by(self, seconds):
        self.wall += round(seconds * 1000)


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def steady(clocks):
    return SteadyClock(lambda: clocks.wall, lambda: clocks.monotonic)


def test_time_that_passes_is_believed(clocks, steady):
    for seconds in (0, 0.5, 5, 3600, 30 * DAY):
        clocks.pass_time(seconds)
        assert steady() == clocks.wall


def test_a_clock_that_is_corrected_by_a_little_is_believed(clocks, steady):
    steady()
    clocks.set_by(3)
    assert steady() == clocks.wall


def test_a_clock_that_is_set_forward_is_believed_after_it_has_gone_on_for_an_hour(clocks, steady, caplog):
    began = steady()
    clocks.set_by(2 * DAY)
    for _ in range(719):
        assert steady() <= began + 3600_000
        clocks.pass_time(5)
    clocks.pass_time(10)
    assert steady() == clocks.wall
    assert caplog.text.count("The clock was set forward by 172800 s") == 1


def test_a_clock_that_is_set_back_again_is_believed_at_once(clocks, steady):
    steady()
    clocks.set_by(2 * DAY)
    steady()
    clocks.pass_time(60)
    clocks.set_by(-2 * DAY)
    assert steady() == clocks.wall


def test_a_second_step_waits_as_long_as_the_first(clocks, steady):
    for _ in range(2):
        began = steady()
        clocks.set_by(DAY)
        assert steady() == began
        clocks.pass_time(3600)
        assert steady() == clocks.wall


def part(part_id):
    return {"type": "part", "data": {"id": part_id, "text": "content"}}


async def test_a_share_that_is_due_only_by_a_step_is_there_when_the_clock_is_right_again(
    new_service, store, clocks, alice
):
    service = new_service(clock=lambda: clocks.wall)
    service.start_expiry()
    share = await service.create(alice, SESSION, [part("a")], {"expiresIn": DAY})
    await service.remove_expired()
    clocks.set_by(2 * DAY)
    for call in (
        service.agent_session(alice, share.id),
        service.create(alice, SESSION),
        service.delete(alice, share.id, None),
    ):
        with pytest.raises(ShareError, match="Share expired"):
            await call
    await service.remove_expired()
    await asyncio.sleep(0.1)  # in which the background could have removed it
    assert any(b"content" in body for body in contents(store).values())
    clocks.set_by(-2 * DAY)
    assert len(json.loads(await service.agent_session(alice, share.id))["parts"]) == 1


async def test_a_share_grows_no_younger_when_the_clock_is_set_back(new_service, clocks, alice):
    service = new_service(clock=lambda: clocks.wall)
    share = await service.create(alice, SESSION, [part("a")])
    clocks.pass_time(10)
    await service.sync(alice, share.id, None, [part("b")])
    before = await service.metadata(alice, share.id)
    clocks.set_by(-2 * DAY)
    await service.sync(alice, share.id, None, [part("c")])
    after = await service.metadata(alice, share.id)
    assert after.last_updated == before.last_updated > after.created_at
    assert after.sync_count == before.sync_count + 1


async def test_a_writer_that_was_overtaken_by_a_node_whose_clock_is_ahead_does_not_set_it_back(
    new_service, store, alice
):
    held = GatedStore(lambda name, key: name == "put" and "/log/" in key, store)
    behind = new_service(held, clock=lambda: 1_700_000_000_000, shared_store=True)
    ahead = new_service(clock=lambda: 1_700_000_000_000 + DAY * 1000, shared_store=True)
    share = await behind.create(alice, SESSION)
    writing = asyncio.create_task(behind.sync(alice, share.id, None, [part("a")]))
    await held.reached.wait()
    await ahead.sync(alice, share.id, None, [part("b")])
    before = await ahead.metadata(alice, share.id)
    held.open()
    assert await writing == 2
    assert (await ahead.metadata(alice, share.id)).last_updated >= before.last_updated
