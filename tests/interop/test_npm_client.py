"""npm's capnweb as a client of a server of ours: each case of tests/node/interop_client.mjs."""

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agreed_values import VALUES
from websockets.asyncio.server import ServerConnection, serve

from rpcshare.rpc import (
    Connection,
    RpcError,
    RpcTarget,
    Stub,
    WebSocketTransport,
    rpc_method,
    rpc_property,
)
from support.narrowing import not_none

pytestmark = pytest.mark.node

NODE = Path(__file__).parent.parent / "node"
CASES = re.findall(r"^  async (\w+)\(", (NODE / "interop_client.mjs").read_text(), re.MULTILINE)


class Counter(RpcTarget):
    def __init__(self, value: int, disposed: Callable[[], None]) -> None:
        self.count = value
        self.disposed = disposed

    @rpc_method("increment(n?)")
    def increment(self, n: int = 1) -> int:
        self.count += n
        return self.count

    @rpc_property("value")
    def value(self) -> int:
        return self.count

    def dispose(self) -> None:
        self.disposed()


class Target(RpcTarget):
    """What each connection finds."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.websocket = websocket
        self.connection: Connection | None = None
        self.log: list[object] = []
        self.kept: Stub | None = None
        self.disposed = 0

    def note_disposal(self) -> None:
        self.disposed += 1

    @rpc_method("square(i)")
    def square(self, i: float) -> float:
        return i * i

    @rpc_method("callSquare(self, i)")
    def call_square(self, itself: Stub, i: int) -> dict[str, object]:
        return {"result": itself.square(i)}

    @rpc_method("callFunction(func, i)")
    async def call_function(self, func: Stub, i: int) -> dict[str, object]:
        return {"result": await func(i)}

    @rpc_method("throwError()")
    def throw_error(self) -> None:
        raise RpcError("test error", name="RangeError", properties={"code": "OUT", "detail": {"list": [1]}})

    @rpc_method("crash()")
    async def crash(self) -> None:
        raise ZeroDivisionError

    @rpc_method("makeCounter(i)")
    async def make_counter(self, i: int) -> Counter:
        await asyncio.sleep(0)
        return Counter(i, self.note_disposal)

    @rpc_method("incrementCounter(counter, n?)")
    async def increment_counter(self, counter: Stub, n: int = 1) -> int:
        return await counter.increment(n)

    @rpc_method("useCounter(counter)")
    async def use_counter(self, counter: Stub) -> list[object]:
        return list(await asyncio.gather(counter.value, counter.increment(5), counter.value))

    @rpc_method("callTwice(func, value)")
    async def call_twice(self, func: Stub, value: object) -> object:
        return await func(func(value))

    @rpc_method("errorOf(callback)")
    async def error_of(self, callback: Stub) -> dict[str, object] | None:
        try:
            await callback()
        except RpcError as exc:
            return {"name": exc.name, "message": exc.message, "code": exc.code}
        return None

    @rpc_method("adder(n)")
    def adder(self, n: int) -> object:
        return lambda value: value + n

    @rpc_method("keep(stub)")
    def keep(self, stub: Stub) -> None:
        self.kept = stub.dup()

    @rpc_method("callKept(value)")
    async def call_kept(self, value: object) -> object:
        return await not_none(self.kept)(value)

    @rpc_method("release()")
    def release(self) -> None:
        not_none(self.kept).dispose()

    @rpc_method("generateFibonacci(length)")
    def generate_fibonacci(self, length: int) -> list[int]:
        numbers = [0, 1]
        while len(numbers) < length:
            numbers.append(numbers[-1] + numbers[-2])
        return numbers[:length]

    @rpc_method("returnNull()")
    def return_null(self) -> None:
        return None

    @rpc_method("returnUndefined()")
    def return_undefined(self) -> object:
        return VALUES["undefined"]

    @rpc_method("returnNumber(i)")
    def return_number(self, i: float) -> float:
        return i

    @rpc_method("echo(value?)")
    def echo(self, value: object = VALUES["undefined"]) -> object:
        return value

    @rpc_method("valueOf_(name)")
    def value_of(self, name: str) -> object:
        return VALUES[name]

    @rpc_method("note(value)")
    def note(self, value: object) -> None:
        self.log.append(None if isinstance(value, Stub) else value)

    @rpc_method("noteLater(value)")
    async def note_later(self, value: object) -> None:
        self.log.append(value)
        await asyncio.sleep(0)

    @rpc_method("noted()")
    def noted(self) -> list[object]:
        return self.log

    @rpc_method("greet(name, greeting?, punctuation?)")
    def greet(self, name: str, greeting: str = "hello", punctuation: str = "!") -> str:
        return f"{greeting}, {name}{punctuation}"

    @rpc_method("createShare(sessionID, data?)")
    async def create_share(self, session_id: str, data: list[object] | None = None) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"id": session_id[-2:], "secret": f"secret of {session_id}"}

    @rpc_method("syncShare(shareID, secret, data)")
    async def sync_share(self, share_id: str, secret: str, data: list[object]) -> dict[str, object]:
        return {"id": share_id, "secret": secret, "data": data}

    @rpc_method("authorization()")
    def authorization(self) -> str:
        return not_none(self.websocket.request).headers["Authorization"]

    @rpc_method("stats()")
    def stats(self) -> dict[str, int]:
        stats = not_none(self.connection).session.stats()
        return {"imports": stats.imports, "exports": stats.exports}

    @rpc_method("disposals()")
    def disposals(self) -> int:
        return self.disposed

    @rpc_method("hangUp()")
    def hang_up(self) -> None:
        self.websocket.transport.abort()

    @rpc_method("forever()")
    async def forever(self) -> None:
        await asyncio.Event().wait()


async def handle(websocket: ServerConnection) -> None:
    target = Target(websocket)
    connection = target.connection = Connection(WebSocketTransport(websocket), target, call_grace=0)
    await connection.run()


async def run_client(node: str) -> dict[str, str | None]:
    async with serve(handle, "127.0.0.1", 0, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            node, "interop_client.mjs", f"ws://127.0.0.1:{port}", cwd=NODE, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    return json.loads(output)


@pytest.fixture(scope="module")
def outcomes(node: str) -> dict[str, str | None]:
    """What became of each case: None, or what went wrong. All of them run at once, in one process."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run_client(node)).result()


@pytest.mark.parametrize("case", CASES)
def test_npm_capnweb(outcomes: dict[str, str | None], case: str) -> None:
    assert outcomes[case] is None, outcomes[case]
