"""Frames that are slow to leave, and what the session does meanwhile."""

import asyncio
import json

import pytest
from links import SlowTransport

from rpcshare.rpc import JSON, Connection, driver, session
from support.waiting import eventually


def text(size: int) -> str:
    return "x" * size


class TestThrottle:
    """A peer that asks for much and reads nothing of it."""

    SIZE = 256 * 1024

    def transport(self, calls: int) -> SlowTransport:
        push = JSON.encode(["push", ["pipeline", 0, [], [self.SIZE]]])
        frames = [frame for number in range(1, calls + 1) for frame in (push, JSON.encode(["pull", number]))]
        return SlowTransport(*frames)

    async def test_is_read_no_further_while_too_much_waits_for_it(self) -> None:
        transport = self.transport(100)
        async with Connection(transport, text, throttle=True) as connection:
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert len(transport.arriving) > 100
            assert driver.HIGH_WATER < connection._pending < driver.HIGH_WATER + 2 * self.SIZE
            transport.gate.set()
            await eventually(lambda: len(transport.sent) == 100)

    async def test_may_be_off(self) -> None:
        transport = self.transport(30)
        async with Connection(transport, text) as connection:
            await eventually(lambda: not transport.arriving)
            assert connection.session.stats().calls_in_flight == 0
            transport.gate.set()
            await eventually(lambda: len(transport.sent) == 30)

    async def test_does_not_keep_a_lost_connection_from_ending(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(driver, "CLOSE_TIMEOUT", 0.01)
        transport = self.transport(100)
        async with Connection(transport, text, throttle=True) as connection:
            await eventually(lambda: connection._pending > driver.HIGH_WATER)
            await connection.close()
        assert transport.sent == []
        assert transport.closed == (1000, "")


class TestWhatIsLargeInMemoryAndSmallOnTheWire:
    """Ten results that take 100 MB, and 2 MB when they are encoded, which the transport takes at once."""

    async def test_is_sent_to_the_end(self) -> None:
        value: list[object] = [{}] * 100_000
        push = JSON.encode(["push", ["pipeline", 0, [], []]])
        frames = [frame for number in range(1, 11) for frame in (push, JSON.encode(["pull", number]))]
        transport = SlowTransport(*frames)
        transport.gate.set()
        async with Connection(transport, lambda: value):
            await eventually(lambda: len(transport.sent) == 10)

    async def test_lets_those_go_on_who_wait_for_room(self) -> None:
        transport = SlowTransport()
        transport.gate.set()
        async with Connection(transport, lambda: None) as connection:
            told: list[bool] = []
            connection.session.unsent = session.MAX_UNSENT + 1
            assert not connection.session.when_room(lambda: told.append(True))
            connection.session.send(["pull", 0])
            await eventually(lambda: bool(told))


class TestTheLastWord:
    async def test_the_transport_is_closed_with_the_reason(self) -> None:
        transport = SlowTransport(b'["pull",7]')
        transport.gate.set()
        async with Connection(transport, text):
            await eventually(lambda: transport.closed is not None)
        assert transport.closed == (3000, "7 is not exported")

    async def test_the_reason_is_sent_though_other_frames_were_on_their_way(self) -> None:
        transport = SlowTransport(
            JSON.encode(["push", 5]),
            JSON.encode(["pull", 1]),
            *[JSON.encode(["push", None])] * 5,
            b"nonsense",
        )
        async with Connection(transport, text) as connection:
            await eventually(lambda: connection.session.closed is not None)
            transport.gate.set()
        assert [json.loads(frame)[0] for frame in transport.sent] == ["resolve", "abort"]
