"""Calls whose success is all that matters, to peers that know "stream" and to those that do not."""

from collections.abc import Callable

import pytest
from wire import Wire

from rpcshare.rpc import Preencoded, RpcTarget, Stub, notify, rpc_method

PROBE = ["push", ["remap", -1, [], [], [["headers", []]]]]


class Watched(RpcTarget):
    """Takes a callback, to which the test sends."""

    def __init__(self) -> None:
        self.callback: Stub | None = None
        self.outcomes: list[Exception | None] = []

    @rpc_method("watch(callback)")
    def watch(self, callback: Stub) -> None:
        self.callback = callback.dup()

    def send(self, value: int) -> None:
        assert self.callback is not None
        notify(self.callback, (Preencoded(value),), self.outcomes.append)


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def begin(wire: Wire) -> None:
    await wire.say(["push", ["pipeline", 0, ["watch"], [["export", -1]]]], ["release", 1, 1])
    await wire.hear_all()


def call(value: int) -> list[object]:
    return ["pipeline", -1, [], [value]]


async def test_a_peer_is_asked_once_and_called_meanwhile(watched: Watched) -> None:
    async with Wire(watched) as wire:
        await begin(wire)
        watched.send(1)
        watched.send(2)
        assert await wire.hear(6) == [
            PROBE,
            ["pull", 1],
            ["push", call(1)],
            ["pull", 2],
            ["push", call(2)],
            ["pull", 3],
        ]


async def test_one_that_knows_gets_stream_messages_from_then_on(watched: Watched) -> None:
    async with Wire(watched) as wire:
        await begin(wire)
        watched.send(1)
        await wire.hear(4)
        await wire.say(["resolve", 1, ["headers", []]], ["resolve", 2, ["undefined"]])
        assert await wire.hear(2) == [["release", 1, 1], ["release", 2, 1]]
        watched.send(2)
        assert await wire.hear(1) == [["stream", call(2)]]
        await wire.say(["resolve", 3, ["undefined"]])
        assert await wire.hear_all() == []
        assert watched.outcomes == [None, None]


UNKNOWING: dict[str, Callable[[int], list[object]]] = {
    "refuses": lambda number: ["reject", number, ["error", "TypeError", "unknown special value"]],
    "answers with something else": lambda number: ["reject", number, 5],
}


@pytest.mark.parametrize("answer", UNKNOWING.values(), ids=UNKNOWING)
async def test_one_that_does_not_is_called_and_its_results_are_released(
    watched: Watched, answer: Callable[[int], list[object]]
) -> None:
    async with Wire(watched) as wire:
        await begin(wire)
        watched.send(1)
        await wire.hear(4)
        await wire.say(answer(1), ["resolve", 2, "whatever it returned"])
        assert await wire.hear(2) == [["release", 1, 1], ["release", 2, 1]]
        watched.send(2)
        assert await wire.hear(2) == [["push", call(2)], ["pull", 3]]
        await wire.say(["reject", 3, ["error", "Error", "no more"]])
        assert await wire.hear(1) == [["release", 3, 1]]
        assert [error and str(error) for error in watched.outcomes] == [None, "no more"]


@pytest.mark.parametrize("said", [["pipe"], ["stream", ["pipeline", 0, ["nothing"], []]]])
async def test_one_that_has_sent_one_is_not_asked(watched: Watched, said: list[object]) -> None:
    async with Wire(watched) as wire:
        await begin(wire)
        await wire.say(said)
        await wire.hear_all()
        watched.send(1)
        assert await wire.hear(1) == [["stream", call(1)]]


async def test_what_was_called_fails_with_the_session(watched: Watched) -> None:
    async with Wire(watched) as wire:
        await begin(wire)
        watched.send(1)
        await wire.lose()
    assert len(watched.outcomes) == 1
    assert watched.outcomes[0] is not None
