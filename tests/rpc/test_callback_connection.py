"""A session driven from the callbacks of a transport."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from rpcshare.rpc import JSON, JSONCodec, Limits, RpcTarget, SessionClosedError, rpc_method
from rpcshare.rpc.callback_connection import CallbackConnection
from rpcshare.rpc.transport import Receiver


class Wire:
    """A transport that takes all that is written."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.written: list[object] = []
        self.closed_with: int | None = None

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
        self.closed_with = code


class Noting(RpcTarget):
    def __init__(self) -> None:
        self.noted: list[int] = []

    @rpc_method("note(number)")
    def note(self, number: int) -> None:
        self.noted.append(number)


class Choosy(JSONCodec):
    def decode(self, frame: bytes | str) -> object:
        if frame == b"odd":
            raise LookupError("secret content")
        return super().decode(frame)


def note(number: int) -> bytes:
    return JSON.encode(["push", ["pipeline", 0, ["note"], [number]]])


async def test_a_codec_that_fails_ends_its_session_and_repeats_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "rpcshare.rpc")
    wire, main = Wire(), Noting()
    connection = CallbackConnection(wire, main, codec=Choosy())
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    assert wire.receiver is not None
    wire.receiver.frames_received([note(1), b"odd", note(2)])
    wire.receiver.frames_received([note(3)])
    await running
    assert main.noted == [1]
    assert type(connection.session.closed) is SessionClosedError
    abort: Any
    [abort] = wire.written
    assert abort[0] == "abort"
    assert "secret" not in str(abort)


async def test_results_that_nobody_asks_for_count_and_leave_in_the_order_of_the_calls() -> None:
    wire, main = Wire(), Noting()
    # One call may be under way: each has ended before the next frame is looked at.
    connection = CallbackConnection(wire, main, limits=Limits(calls_in_flight=1))
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    assert wire.receiver is not None
    pull = [JSON.encode(["pull", number]) for number in (1, 2, 3)]
    wire.receiver.frames_received([note(1), note(2), pull[1], note(3), pull[0], pull[2]])
    assert main.noted == [1, 2, 3]
    said: list[Any] = wire.written
    assert [message[:2] for message in said] == [["resolve", 2], ["resolve", 1], ["resolve", 3]]
    assert connection.session.stats().calls_in_flight == 0
    await connection.close()
    await running
