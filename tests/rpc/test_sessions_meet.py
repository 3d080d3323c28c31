"""A process with two sessions, in two encodings: what a peer of one may do to the other."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from transcript import Api
from wire import Wire

from rpcshare.rpc import JSON, Connection, JSONCodec, RpcTarget, Stub, memory_pair, rpc_method
from rpcshare.rpc.messagepack import MESSAGEPACK


class Subscriptions(RpcTarget):
    """Gives its peer what the peer of another session offers."""

    def __init__(self, other: Stub) -> None:
        self.other = other

    @rpc_method("other()")
    def get_other(self) -> Stub:
        return self.other.dup()


@asynccontextmanager
async def hub() -> AsyncIterator[tuple[Wire, Connection]]:
    """Yield the wire of a peer that may reach, in JSON, what a session in MessagePack offers."""
    one, other = memory_pair()
    async with (
        Connection(one, Api(), codec=MESSAGEPACK),
        Connection(other, codec=MESSAGEPACK) as connection,
        Wire(Subscriptions(connection.remote_main)) as wire,
    ):
        await wire.say(["push", ["pipeline", 0, ["other"], []]])
        yield wire, connection


async def test_calls_pass_from_one_to_the_other() -> None:
    async with hub() as (wire, _):
        await wire.say(["push", ["pipeline", 1, ["square"], [4]]], ["pull", 2])
        assert await wire.hear(1) == [["resolve", 2, 16]]


async def test_a_name_that_one_encoding_does_not_have_ends_the_session_that_it_came_by() -> None:
    async with hub() as (wire, connection):
        await wire.say(["push", ["pipeline", 1, ["square", 10**30], [4]]])
        why = "malformed expression: a property path is a list of names"
        assert await wire.hear_the_end() == [["abort", ["error", "Error", why]]]
        assert await connection.remote_main.square(3) == 9


@pytest.mark.parametrize(
    ("number", "mapped"),
    [("1" + "0" * 30, 1e30), ("1e999", ["inf"]), ("-1e999", ["-inf"]), ("9007199254740993", 2**53)],
)
async def test_numbers_in_a_mapper_function_that_is_passed_on_are_what_they_are_elsewhere(
    number: str, mapped: object
) -> None:
    async with hub() as (wire, _):
        await wire.say(["push", ["pipeline", 1, ["wrap"], [5]]])
        await wire._far.send(f'["push", ["remap", 2, [], [], [{number}]]]'.encode(), text=True)
        await wire.say(["pull", 3])
        assert await wire.hear(1) == [["resolve", 3, mapped]]


async def test_a_message_without_a_form_ends_its_session_and_not_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Choosy(JSONCodec):
        def encode(self, message: object) -> bytes:
            if "unspeakable" in json.dumps(message):
                raise OverflowError
            return super().encode(message)

    caplog.set_level(logging.CRITICAL, "rpcshare.rpc")
    one, other = memory_pair()
    async with Connection(one, Api(), codec=Choosy()) as connection:
        await other.send(JSON.encode(["push", ["pipeline", 0, ["wrap"], ["unspeakable"]]]), text=True)
        await other.send(b'["pull", 1]', text=True)
        abort = ["abort", ["error", "Error", "Internal server error", None, {"code": "INTERNAL"}]]
        assert json.loads(await other.receive()) == abort
        assert connection.session.closed is not None
