"""What drives a session waits for."""

import asyncio

from rpcshare.rpc.waiting import Signal


async def test_who_waits_goes_on_when_it_is_set() -> None:
    signal = Signal()
    waiting = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    signal.set()
    await asyncio.gather(*waiting)


async def test_nobody_waits_while_it_is_set() -> None:
    signal = Signal(is_set=True)
    await signal.wait()
    signal.clear()
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    signal.set()
    await waiting


async def test_who_waited_goes_on_though_it_was_cleared_at_once() -> None:
    signal = Signal()
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    signal.set()
    signal.clear()
    await waiting


async def test_one_who_gives_up_is_no_hindrance_to_others() -> None:
    signal = Signal()
    one, other = asyncio.create_task(signal.wait()), asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    one.cancel()
    signal.set()
    await other
    await asyncio.wait([one])
    assert one.cancelled()
