"""A connection whose peer the test plays, one message after another as it is on the wire."""

import json
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.lowlevel import checkpoint

from rpcshare.rpc import Connection, Promise, Session, Stub, TransportClosedError, memory_pair

FRESH = Session().stats()


class Wire:
    """Runs a connection as a context manager; what the peer says and hears is up to the test."""

    def __init__(self, main: object = None, **options: Any) -> None:
        near, self._far = memory_pair()
        self.connection = Connection(near, main, call_grace=0.2, **options)
        self._pushed = 0
        self._kept: list[Promise] = []

    @property
    def main(self) -> Stub:
        """The main target that the peer pretends to have."""
        return self.connection.remote_main

    def call(self, name: str, *arguments: object) -> Promise:
        """Call a method of that target, and keep the promise of its result."""
        self._kept.append(self.main[name](*arguments))
        return self._kept[-1]

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.connection.__aexit__(exc_type, exc, traceback)

    async def say(self, *messages: list[object]) -> None:
        """Send what the peer says."""
        for message in messages:
            self._pushed += message[0] in ("push", "stream", "pipe")
            await self._far.send(json.dumps(message).encode(), text=True)

    async def hear(self, count: int) -> list[Any]:
        """Return the next messages to the peer."""
        with anyio.fail_after(5):
            return [json.loads(await self._far.receive()) for _ in range(count)]

    async def hear_all(self) -> list[Any]:
        """Return the messages to the peer up to now, by asking for one more."""
        await self.say(["push", "the last word"])
        number = self._pushed
        await self.say(["pull", number])
        heard = []
        while (message := (await self.hear(1))[0]) != ["resolve", number, "the last word"]:
            heard.append(message)
        await self.say(["release", number, 1])
        return heard

    async def hear_the_end(self) -> list[Any]:
        """Return the messages to the peer up to the end of the connection."""
        heard: list[object] = []
        while True:
            try:
                heard += await self.hear(1)
            except TransportClosedError:
                return heard

    async def lose(self) -> None:
        """Break the connection off."""
        await self._far.close(1006, "lost")

    async def is_fresh(self) -> bool:
        """Whether the tables are as at the beginning, as soon as what has been said is dealt with."""
        await self.hear_all()
        for _ in range(100):
            if self.connection.session.stats() == FRESH:
                return True
            await checkpoint()
        return False


def stream(number: int, method: str, *arguments: object) -> list[Any]:
    """Return the message that calls a method of the stream that is the sender's import ``number``."""
    return ["stream", ["pipeline", number, [method], list(arguments)]]


def resolved(number: int) -> list[Any]:
    """Return the answer to a call of a stream that went well."""
    return ["resolve", number, ["undefined"]]
