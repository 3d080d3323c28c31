import asyncio

import pytest

from rpcshare.maintenance.concurrently import for_each


async def numbers(end):
    for number in range(end):
        yield number


async def test_all_are_done_and_no_more_at_once_than_allowed():
    done, running, most = [], 0, 0

    async def work(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(number)

    await for_each(numbers(20), work, at_once=3)
    assert sorted(done) == list(range(20))
    assert most == 3


async def test_the_first_failure_is_raised_and_the_others_are_cancelled():
    cancelled = []

    async def work(number):
        if number == 2:
            raise ValueError("this one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(ValueError, match="this one"):
        await for_each(numbers(20), work, at_once=3)
    assert sorted(cancelled) == [0, 1]  # in whichever order


async def test_a_listing_that_fails_cancels_what_is_under_way():
    cancelled = []

    async def failing():
        yield 1
        await asyncio.sleep(0)
        raise ValueError("this listing")

    async def work(number):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(number)

    with pytest.raises(ValueError, match="this listing"):
        await for_each(failing(), work, at_once=3)
    assert cancelled == [1]
