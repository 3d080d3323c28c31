"""A session without a connection: a test plays the peer, message by message, and the driver too."""

import asyncio
import json
from typing import Any

from rpcshare.rpc import JSON, Promise, RpcError, RpcTarget, Session, Stub, rpc_method, rpc_property
from rpcshare.rpc.local_references import Call


class BareSession:
    """One side of a session, whose other side is written out in the test."""

    def __init__(self, main: object = None, **options: Any) -> None:
        self.session = Session(main, **options)

    @property
    def main(self) -> Stub:
        return self.session.remote_main

    def feed(self, *messages: object) -> None:
        """Have these messages arrive, in JSON as on the wire, and carry out no call."""
        for message in messages:
            self.session.receive(json.loads(json.dumps(message)))

    def asked(self) -> list[Call]:
        """Take the calls that the session wants carried out."""
        calls = []
        while (call := self.session.next_call()) is not None:
            calls.append(call)
        return calls

    def carry_out(self) -> None:
        """Carry out, as a driver does, every call whose function is not async."""
        while (call := self.session.next_call()) is not None:
            try:
                result = call.start()
            except Exception as exc:  # noqa: BLE001 -- it is the peer's
                call.reject(exc)
            else:
                call.resolve(result)

    def sent(self) -> list[Any]:
        """Take what the session sends, in JSON as on the wire."""
        return [json.loads(JSON.encode(message)) for message in self.session.take_output()]

    def exchange(self, *messages: object) -> list[Any]:
        """Have these messages arrive, each with its calls carried out at once; return the answers."""
        for message in messages:
            self.feed(message)
            self.carry_out()
        return self.sent()


class Pair:
    """Two sessions that pass their messages to each other until neither has more to say."""

    def __init__(self, client_main: object, server_main: object) -> None:
        self.client = BareSession(client_main)
        self.server = BareSession(server_main)

    def settle(self) -> None:
        quiet = False
        while not quiet:
            quiet = True
            for one, other in ((self.client, self.server), (self.server, self.client)):
                one.carry_out()
                for message in one.sent():
                    quiet = False
                    other.feed(message)


async def awaiting(promise: Promise) -> asyncio.Future[Any]:
    """Begin to await ``promise``; what it asks of the peer is in the output when this returns."""
    future = asyncio.ensure_future(promise)
    await asyncio.sleep(0)
    return future


class Counter(RpcTarget):
    """Counts, and notes how often it was disposed of."""

    def __init__(self, value: int = 0) -> None:
        self.count = value
        self.disposals = 0

    @rpc_method("increment(by?)")
    def increment(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @rpc_property("value")
    def value(self) -> int:
        return self.count

    def dispose(self) -> None:
        self.disposals += 1


class Api(RpcTarget):
    """What the peer finds at 0."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.counter = Counter(10)
        self.kept: Stub | None = None

    @rpc_method("square(i)")
    def square(self, i: int) -> int:
        return i * i

    @rpc_method("note(value)")
    def note(self, value: object) -> int:
        self.log.append(value)
        return len(self.log)

    @rpc_method("wrap(value)")
    def wrap(self, value: object) -> dict[str, object]:
        return {"value": value, "list": [value]}

    @rpc_method("callSquare(self, i)")
    def call_square(self, itself: Stub, i: int) -> dict[str, object]:
        return {"result": itself.square(i)}

    @rpc_method("callBack(callback, value)")
    def call_back(self, callback: Stub, value: object) -> object:
        return callback(value)

    @rpc_method("makeCounter(i)")
    def make_counter(self, i: int) -> Counter:
        return Counter(i)

    @rpc_method("incrementCounter(counter, by?)")
    def increment_counter(self, counter: Stub, by: int = 1) -> object:
        return counter.increment(by)

    @rpc_method("itself()")
    def itself(self) -> RpcTarget:
        return self

    @rpc_method("sameCounter()")
    def same_counter(self) -> Counter:
        return self.counter

    @rpc_method("twoCounters()")
    def two_counters(self) -> list[Counter]:
        return [self.counter, self.counter]

    @rpc_method("keep(stub)")
    def keep(self, stub: Stub) -> None:
        self.kept = stub.dup()

    @rpc_method("fail(message)")
    def fail(self, message: str) -> None:
        raise RpcError(message, name="RangeError", properties={"code": "OUT_OF_RANGE", "limit": 5})

    @rpc_method("crash()")
    def crash(self) -> None:
        raise ValueError("a detail of the implementation")

    @rpc_method("unsendable()")
    def unsendable(self) -> object:
        return [self.counter, object()]

    @rpc_property("version")
    def version(self) -> str:
        return "1.2"


def call(*path: str, args: list[object] | None = None, of: int = 0) -> list[object]:
    """Return the push that calls ``path`` of the import ``of``; without arguments, that reads it."""
    expression: list[object] = ["pipeline", of, list(path)]
    return ["push", expression if args is None else [*expression, args]]


class Holder(RpcTarget):
    """Keeps one counter, and stubs if it is told to."""

    def __init__(self) -> None:
        self.counter = Counter()
        self.stubs: list[Stub] = []

    @rpc_method("take(stub)")
    def take(self, stub: Stub) -> None:
        self.stubs.append(stub)

    @rpc_method("takeDup(stub)")
    def take_dup(self, stub: Stub) -> None:
        self.stubs.append(stub.dup())

    @rpc_method("give()")
    def give(self) -> Counter:
        return self.counter

    @rpc_property("counter")
    def read(self) -> Counter:
        return self.counter
