"""No release leaves before a message that names what is released: the peer would not know it any longer."""

import asyncio
import contextlib
from typing import Any

import pytest
from transcript import BareSession, Counter, call
from wire import Wire, resolved, stream

from rpcshare.rpc import (
    Connection,
    EncodeError,
    Promise,
    RpcTarget,
    Stub,
    WritableStream,
    memory_pair,
    rpc_method,
)


def named_in(message: object) -> set[int]:
    """Return the numbers of the sender's imports that ``message`` refers to."""
    if isinstance(message, dict):
        return set().union(*map(named_in, message.values()))
    if not isinstance(message, list):
        return set()
    if message[:1] in (["import"], ["pipeline"], ["remap"]):
        return {message[1]}.union(*map(named_in, message[2:]))
    return set().union(*map(named_in, message))


def check(messages: list[Any]) -> None:
    """Fail if a message names what one before it has released."""
    released: set[int] = set()
    for message in messages:
        if message[0] == "release":
            released.add(message[1])
        else:
            assert not named_in(message) & released, messages


class Relay(RpcTarget):
    """Uses the stubs that it is given for the length of the call, and keeps none."""

    @rpc_method("take(callback, to)")
    def take(self, callback: Stub, to: Stub) -> Promise:
        return to.take(callback)

    @rpc_method("takeDeep(callback, to)")
    def take_deep(self, callback: Stub, to: Stub) -> Promise:
        return to.inner.take({"callbacks": [callback, callback.name]})

    @rpc_method("map(callback, to)")
    def map(self, callback: Stub, to: Stub) -> Promise:
        return to.list().map(lambda item: [callback(item)])

    @rpc_method("read(callback, to)")
    def read(self, callback: Stub, to: Stub) -> Promise:
        return to.echo(callback).name


class TestARelease:
    @pytest.mark.parametrize("method", ["take", "takeDeep", "map", "read"])
    def test_leaves_after_the_call_that_names_it(self, method: str) -> None:
        relay = BareSession(Relay())
        sent = relay.exchange(call(method, args=[["export", -1], ["export", -2]]), ["release", 1, 1])
        assert {message[1] for message in sent if message[0] == "release"} >= {-1, -2}
        check(sent)

    def test_leaves_after_the_call_that_a_pipelined_argument_waited_for(self) -> None:
        # The argument is passed on when the promise of its receiver has settled, and is nobody else's then.
        client = BareSession()
        received = client.main.receiver()
        waiting = received.take
        client.feed()
        client.exchange()
        client.session.receive(["resolve", 1, {"take": ["export", -1]}])
        waiting(client.main).dispose()
        check(client.sent())

    def test_leaves_after_the_call_to_a_target_that_was_passed_through(self) -> None:
        # What the peer pipelines on its own target comes back to it, with the arguments.
        class Echo(RpcTarget):
            @rpc_method("echo(value)")
            def echo(self, value: object) -> object:
                return value

        echo = BareSession(Echo())
        sent = echo.exchange(
            call("echo", args=[["export", -1]]),
            call("take", args=[["export", -2], {"more": [[["export", -3]]]}], of=1),
            ["pull", 2],
        )
        assert sent[0] == ["push", ["pipeline", -1, ["take"], [["import", -2], {"more": [[["import", -3]]]}]]]
        assert sorted(sent[1:]) == [["pull", 1], ["release", -3, 1], ["release", -2, 1]]

    def test_leaves_after_the_map_that_captured_it(self) -> None:
        class Echo(RpcTarget):
            @rpc_method("echo(value)")
            def echo(self, value: object) -> object:
                return value

        echo = BareSession(Echo())
        sent = echo.exchange(
            call("echo", args=[["export", -1]]),
            ["push", ["remap", 1, ["items"], [["export", -2]], [["pipeline", -1, [], [["pipeline", 0]]]]]],
            ["release", 1, 1],
        )
        assert sent == [
            ["push", ["remap", -1, ["items"], [["import", -2]], [["pipeline", -1, [], [["pipeline", 0]]]]]],
            ["release", -2, 1],
            ["release", -1, 1],
        ]

    def test_leaves_with_a_call_that_has_no_form_on_the_wire(self) -> None:
        class Broken(RpcTarget):
            @rpc_method("take(callback, to)")
            def take(self, callback: Stub, to: Stub) -> None:
                with contextlib.suppress(EncodeError):
                    to.take(callback, object())

        broken = BareSession(Broken())
        sent = broken.exchange(call("take", args=[["export", -1], ["export", -2]]))
        assert ["release", -1, 1] in sent

    def test_leaves_after_the_call_even_if_a_target_among_the_arguments_calls_when_it_goes(self) -> None:
        # The arguments of one call are let go of, which runs the application's code in between.
        class Telling(RpcTarget):
            def __init__(self, stub: Stub) -> None:
                self.stub = stub

            def dispose(self) -> None:
                self.stub.told().dispose()

        class Main(RpcTarget):
            @rpc_method("run(callback, to)")
            def run(self, callback: Stub, to: Stub) -> Promise:
                return to.take([Telling(to.dup()), callback])

        main = BareSession(Main())
        check(main.exchange(call("run", args=[["export", -1], ["export", -2]]), ["release", -1, 1]))


class TestAReleaseOfAStream:
    async def test_leaves_after_the_write_that_names_it(self) -> None:
        class Writer(RpcTarget):
            @rpc_method("write(callback, stream)")
            async def write(self, callback: Stub, into: WritableStream) -> None:
                await into.write({"callback": callback})
                await into.close()

        async with Wire(Writer()) as wire:
            await wire.say(call("write", args=[["export", -1], ["writable", -2]]))
            assert await wire.hear(2) == [
                stream(-2, "write", {"callback": ["import", -1]}),
                stream(-2, "close"),
            ]
            await wire.say(resolved(1), resolved(2))
            assert sorted(await wire.hear(2)) == [["release", -2, 1], ["release", -1, 1]]

    async def test_leaves_after_the_write_of_a_stream_that_is_passed_on(self) -> None:
        # Chunks of the peer's go back to the peer, with the stubs in them, which only the chunk keeps.
        class Echo(RpcTarget):
            @rpc_method("echo(value)")
            def echo(self, value: object) -> object:
                return value

        async with Wire(Echo()) as wire:
            await wire.say(["pipe"], stream(1, "write", {"stub": ["export", -1]}), stream(1, "close"))
            await wire.say(call("echo", args=[["readable", 1]]), ["pull", 4])
            heard = await wire.hear(6)
            await wire.say(resolved(2), resolved(3), ["release", 4, 1], ["release", 1, 1])
            heard += await wire.hear(2)
            check(heard)
            assert stream(1, "write", {"stub": ["import", -1]}) in heard
            assert ["release", -1, 1] in heard

    async def test_leaves_after_the_call_of_a_stream_that_came_back(self) -> None:
        # "stream" calls on what the peer has passed through this side, with a stub among their arguments.
        class Echo(RpcTarget):
            @rpc_method("echo(value)")
            def echo(self, value: object) -> object:
                return value

        async with Wire(Echo()) as wire:
            await wire.say(
                call("echo", args=[["export", -1]]),
                ["stream", ["pipeline", 1, ["write"], [{"stub": ["export", -2]}]]],
            )
            heard = await wire.hear(3)
            check(heard)
            assert heard[0] == ["push", ["pipeline", -1, ["write"], [{"stub": ["import", -2]}]]]


class TestACallbackToATargetThatWasEchoed:
    async def test_is_called_in_the_call(self) -> None:
        called: list[object] = []

        class Mine(RpcTarget):
            @rpc_method("take(f)")
            async def take(self, f: Stub) -> object:
                called.append(await f(1))
                return called[-1]

        class Echo(RpcTarget):
            @rpc_method("echo(value)")
            def echo(self, value: object) -> object:
                return value

        one, other = memory_pair()
        async with Connection(one, Echo()), Connection(other) as client:
            async with asyncio.timeout(5):
                assert await client.remote_main.echo(Mine()).take(lambda x: x + 1) == 2
        assert called == [2]


def test_a_target_that_is_not_kept_goes_with_the_call_that_took_it() -> None:
    counter = Counter()
    client = BareSession()
    with client.main.take(counter):
        client.feed(["release", -1, 1])
        assert counter.disposals == 1
