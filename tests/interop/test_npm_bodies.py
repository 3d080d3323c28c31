"""Blobs, requests, responses and local stubs, against a peer made with npm's capnweb (values_peer.mjs)."""

import asyncio
import contextlib
import gc
import json
import subprocess
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from rpcshare import rpc
from rpcshare.rpc import (
    JSON,
    URL,
    AggregateError,
    Blob,
    Connection,
    Headers,
    ReadableStream,
    Request,
    Response,
    RpcError,
    RpcTarget,
    TransportClosedError,
    memory_pair,
    rpc_method,
)
from support.narrowing import not_none

# One process serves all of the tests, so they share an event loop.
pytestmark = [pytest.mark.node, pytest.mark.asyncio(loop_scope="module")]

NODE = Path(__file__).parent.parent / "node"


def hello() -> ReadableStream:
    return ReadableStream([b"hello"])


# What tests/node/interop_bodies.mjs has under the same names.
BODIES = {
    "blob": lambda: Blob(b"hello", "Text/Plain"),
    "empty blob": lambda: Blob(b""),
    "request": lambda: Request("https://example.com/a?b=c"),
    "request with headers": lambda: Request(
        "https://example.com/",
        method="DELETE",
        headers={"x-a": "1", "x-b": "2"},
        options={"redirect": "manual"},
    ),
    "request with a body": lambda: Request(
        "https://example.com/", method="POST", headers={"x-a": "1"}, body=hello()
    ),
    "response": Response,
    "response with a body": lambda: Response(hello(), status=201, status_text="Created"),
    "response without content": lambda: Response(status=204, headers={"x-a": "1"}),
}


class LinesTransport:
    """Carries messages over the standard streams of a process, one a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def receive(self) -> bytes | str:
        line = await not_none(self._process.stdout).readline()
        if not line:
            raise TransportClosedError("the process has ended")
        return line

    async def send(self, frame: bytes, *, text: bool) -> None:
        not_none(self._process.stdin).write(frame + b"\n")
        await not_none(self._process.stdin).drain()

    async def close(self, code: int, reason: str) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            not_none(self._process.stdin).close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def peer(node: str) -> AsyncIterator[rpc.Stub]:
    """The main target of a process."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        node, "values_peer.mjs", cwd=NODE, stdin=pipe, stdout=pipe, limit=2**24
    )
    try:
        async with Connection(LinesTransport(process)) as connection:
            yield connection.remote_main
            gc.collect()
            await asyncio.sleep(0)
            assert connection.session.stats() == rpc.Stats(imports=1, exports=1, calls_in_flight=0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def body_of(value: object) -> object:
    """Return what compares equal of what was sent and what came back."""
    if isinstance(value, Request):
        return ("request", value.url, value.method, value.headers, value.options, await value.read())
    if isinstance(value, Response):
        return ("response", value.status, value.status_text, value.headers, await value.read())
    return value


@pytest.fixture(scope="module")
def npm_messages(node: str) -> dict[str, object]:
    """In which messages npm's capnweb sends each value, to a peer that answers nothing."""
    command = [node, "values_peer.mjs", "frames"]
    return json.loads(subprocess.run(command, cwd=NODE, capture_output=True, check=True).stdout)


async def messages_of(value: object) -> list[object]:
    """Return in which messages we do."""
    near, far = memory_pair()
    sent = []
    async with Connection(near) as connection:
        call = asyncio.ensure_future(connection.remote_main.take(value))
        with contextlib.suppress(TimeoutError):
            while True:
                sent.append(JSON.decode(await asyncio.wait_for(far.receive(), 0.05)))
        call.cancel()
    return sent


@pytest.mark.parametrize("name", BODIES)
async def test_both_send_the_same_messages(npm_messages: dict[str, object], name: str) -> None:
    assert await messages_of(BODIES[name]()) == npm_messages[name]


@pytest.mark.parametrize("name", BODIES)
async def test_what_the_peer_makes_arrives(peer: rpc.Stub, name: str) -> None:
    assert await body_of(await peer.get(name)) == await body_of(BODIES[name]())


@pytest.mark.parametrize("name", BODIES)
async def test_what_is_sent_comes_back(peer: rpc.Stub, name: str) -> None:
    assert await body_of(await peer.remake(BODIES[name]())) == await body_of(BODIES[name]())


async def test_a_long_blob_arrives_whole_in_both_directions(peer: rpc.Stub) -> None:
    assert await peer.get("long blob") == Blob(b"\7" * 150_000, "application/octet-stream")
    blob = Blob(bytes(range(256)) * 4_000)
    assert await peer.echo(blob) == blob


async def test_blobs_within_a_value_arrive(peer: rpc.Stub) -> None:
    value = {"blobs": [Blob(b"a"), Blob(b"b", "text/plain")], "n": 1}
    assert await peer.echo(value) == value


async def test_a_body_that_is_no_stream_arrives(peer: rpc.Stub) -> None:
    for body in ("hello", b"hello"):
        request = Request("https://example.com/", method="PUT", body=body)
        assert (await peer.describe(request))["text"] == "hello"
        assert (await peer.describe(Response(body)))["text"] == "hello"
    assert (await peer.describe(Response("")))["text"] == ""


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (b"\1", {"kind": "Uint8Array", "numbers": [1]}),
        (rpc.ArrayBuffer(b"ab"), {"kind": "ArrayBuffer", "text": "ab"}),
        (rpc.DataView(b"ab"), {"kind": "DataView", "text": "ab"}),
        (rpc.Uint8ClampedArray(b"\1\xff"), {"kind": "Uint8ClampedArray", "numbers": [1, 255]}),
        (array("d", [1.5]), {"kind": "Float64Array", "numbers": [1.5]}),
        (array("q", [-(2**63)]), {"kind": "BigInt64Array", "numbers": ["-9223372036854775808"]}),
        (array("H", [513]), {"kind": "Uint16Array", "numbers": [513]}),
        (Blob(b"hi", "text/plain"), {"kind": "Blob", "type": "text/plain", "text": "hi"}),
        (URL("https://EXAMPLE.com"), {"kind": "URL", "href": "https://example.com/"}),
        (Headers({"B": "2", "A": "1"}), {"kind": "Headers", "pairs": [["a", "1"], ["b", "2"]]}),
    ],
)
async def test_a_value_is_what_it_should_be_there(peer: rpc.Stub, value: object, described: object) -> None:
    assert await peer.describe(value) == described


class TestErrors:
    async def test_several_in_one_arrive_with_their_causes(self, peer: rpc.Stub) -> None:
        with pytest.raises(AggregateError) as caught:
            await peer.fail()
        assert caught.value.message == "both"
        first, second = caught.value.exceptions
        assert isinstance(first, RpcError)
        cause = second.__cause__
        assert isinstance(cause, RpcError)
        assert (first.name, first.message) == ("TypeError", "first")
        assert (cause.name, cause.message) == ("RangeError", "why")

    async def test_a_group_that_a_callback_raises_is_an_aggregate_error_there(self, peer: rpc.Stub) -> None:
        def fail() -> None:
            second = RpcError("second")
            second.__cause__ = RpcError("why", name="RangeError")
            raise ExceptionGroup("both", [RpcError("first", name="TypeError"), second])

        nothing = {"cause": None, "errors": None}
        why = {"kind": "RangeError", "message": "why", **nothing}
        assert await peer.errorOf(fail) == {
            "kind": "AggregateError",
            "message": "both",
            "cause": None,
            "errors": [
                {"kind": "TypeError", "message": "first", **nothing},
                {"kind": "Error", "message": "second", "cause": why, "errors": None},
            ],
        }


class Counter(RpcTarget):
    def __init__(self) -> None:
        self.count = 0
        self.disposals = 0

    @rpc_method("increment()")
    def increment(self) -> int:
        self.count += 1
        return self.count

    def dispose(self) -> None:
        self.disposals += 1


class TestLocalStubs:
    async def test_a_stub_is_called_by_the_peer(self, peer: rpc.Stub) -> None:
        with rpc.stub(Counter()) as counter:
            assert await peer.useCounter(counter) == [1, 2]
            assert await counter.increment() == 3

    async def test_a_promise_is_waited_for_by_the_peer(self, peer: rpc.Stub) -> None:
        settled = asyncio.get_running_loop().create_future()
        used = asyncio.ensure_future(peer.useCounter(rpc.promise(settled)))
        await peer.echo(1)
        assert not used.done()
        settled.set_result(Counter())
        assert await used == [1, 2]
