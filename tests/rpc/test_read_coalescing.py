"""What arrives for a connection with many calls under way gathers for a moment."""

import asyncio
from collections.abc import Sequence

import pytest

from rpcshare.rpc import JSON, RpcTarget, rpc_method
from rpcshare.rpc.callback_connection import CallbackConnection
from rpcshare.rpc.read_coalescing import FEW, MANY, PAUSE, RECOVERY, TOO_LONG, WINDOW, ReadCoalescing
from rpcshare.rpc.transport import Receiver


class Pauses:
    """Time that passes in pauses alone."""

    def __init__(self, wire: "Wire | None" = None) -> None:
        self.now = 0.0
        self.asked_for: list[float] = []
        self.written_before: list[int] = []
        self.takes = PAUSE
        self._wire = wire

    def sleep(self, seconds: float) -> None:
        self.asked_for.append(seconds)
        if self._wire is not None:
            self.written_before.append(len(self._wire.written))
        self.now += self.takes

    def clock(self) -> float:
        return self.now


class Wire:
    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.written: list[object] = []

    def attach(self, receiver: Receiver, *, text: bool) -> None:
        self.receiver = receiver

    def write(self, frames: Sequence[bytes], *, text: bool) -> int:
        self.written += map(JSON.decode, frames)
        return 0

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    async def close(self, code: int, reason: str) -> None:
        pass


class Doubling(RpcTarget):
    @rpc_method("double(number)")
    def double(self, number: int) -> int:
        return 2 * number


class Served:
    """A connection, and what it does when frames arrive."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.pauses = Pauses(self.wire)
        coalescing = ReadCoalescing(
            asyncio.get_running_loop(), sleep=self.pauses.sleep, clock=self.pauses.clock
        )
        self.connection = CallbackConnection(self.wire, Doubling(), coalescing=coalescing)
        self.connection.attach()
        self._pushed = 0

    def calls(self, count: int) -> list[bytes]:
        frames = []
        for _ in range(count):
            self._pushed += 1
            frames += [
                JSON.encode(["push", ["pipeline", 0, ["double"], [self._pushed]]]),
                JSON.encode(["pull", self._pushed]),
            ]
        return frames

    def arrive(self, *frames: bytes) -> None:
        assert self.wire.receiver is not None
        self.wire.receiver.frames_received(frames)

    async def turn(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


async def test_the_loop_pauses_while_a_peer_has_many_calls_under_way_and_little_arrives() -> None:
    served = Served()
    served.arrive(*served.calls(MANY - 1))
    await served.turn()
    assert served.pauses.asked_for == []

    served.arrive(*served.calls(1))
    await served.turn()
    assert served.pauses.asked_for == [PAUSE]


async def test_results_have_left_before_the_pause() -> None:
    served = Served()
    served.arrive(*served.calls(MANY))
    served.arrive(*served.calls(1))
    await served.turn()
    assert served.pauses.written_before == [MANY + 1]
    assert served.wire.written[-1] == ["resolve", MANY + 1, 2 * (MANY + 1)]


async def test_there_is_one_pause_in_a_turn_of_the_loop() -> None:
    served = Served()
    served.arrive(*served.calls(MANY))
    for _ in range(5):
        served.arrive(*served.calls(1))
    await served.turn()
    assert len(served.pauses.asked_for) == 1


async def test_what_arrives_in_a_large_number_is_no_reason_to_pause() -> None:
    served = Served()
    served.arrive(*served.calls(MANY))
    await served.turn()
    served.arrive(*served.calls(FEW))
    await served.turn()
    assert served.pauses.asked_for == []


async def test_calls_whose_results_are_released_do_not_count() -> None:
    served = Served()
    for number in range(1, 5 * MANY):
        served.arrive(*served.calls(1), JSON.encode(["release", number, 1]))
        await served.turn()
    assert served.connection.session.exports.calls == 0
    assert served.pauses.asked_for == []


@pytest.mark.parametrize("long", [2 * TOO_LONG, 0.02])
async def test_a_pause_that_took_long_is_followed_by_none_for_ten_times_as_long(long: float) -> None:
    served = Served()
    served.arrive(*served.calls(MANY))
    served.pauses.takes = long
    served.arrive(*served.calls(1))
    await served.turn()
    for passed in (0.5, 0.99):
        served.pauses.now = long + passed * RECOVERY * long
        served.arrive(*served.calls(1))
        await served.turn()
    assert len(served.pauses.asked_for) == 1

    served.pauses.now = long + 1.01 * RECOVERY * long
    served.arrive(*served.calls(1))
    await served.turn()
    assert len(served.pauses.asked_for) == 2


def answered(coalescing: ReadCoalescing, sources: Sequence[object]) -> None:
    for source in sources:
        coalescing.arrived(source, 1, 0, is_answered=False)


async def test_the_loop_pauses_while_many_connections_send_what_needs_no_answer() -> None:
    pauses = Pauses()
    coalescing = ReadCoalescing(asyncio.get_running_loop(), sleep=pauses.sleep, clock=pauses.clock)
    subscribers = [object() for _ in range(MANY)]
    answered(coalescing, subscribers[:-1])
    await asyncio.sleep(0)
    assert pauses.asked_for == []

    answered(coalescing, subscribers[-1:])
    await asyncio.sleep(0)
    assert len(pauses.asked_for) == 1

    # The next window, which begins where the last one ended.
    pauses.now = 1.5 * WINDOW
    answered(coalescing, subscribers[:1])
    await asyncio.sleep(0)
    assert len(pauses.asked_for) == 2


async def test_much_that_needed_no_answer_some_time_ago_is_no_reason_to_pause() -> None:
    pauses = Pauses()
    coalescing = ReadCoalescing(asyncio.get_running_loop(), sleep=pauses.sleep, clock=pauses.clock)
    subscribers = [object() for _ in range(2 * MANY)]
    answered(coalescing, subscribers)
    await asyncio.sleep(0)
    pauses.now = 3 * WINDOW
    answered(coalescing, subscribers[: MANY - 1])
    await asyncio.sleep(0)
    assert len(pauses.asked_for) == 1


async def test_what_is_answered_or_of_one_connection_is_no_reason_to_pause() -> None:
    pauses = Pauses()
    coalescing = ReadCoalescing(asyncio.get_running_loop(), sleep=pauses.sleep, clock=pauses.clock)
    answered(coalescing, [coalescing] * 5 * MANY)
    for _ in range(5 * MANY):
        coalescing.arrived(object(), 1, 1, is_answered=True)
    await asyncio.sleep(0)
    assert pauses.asked_for == []
