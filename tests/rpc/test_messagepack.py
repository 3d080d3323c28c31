"""Messages in MessagePack: what is in a frame, and what may not be."""

import json

import msgpack
import pytest

from rpcshare.rpc import (
    Connection,
    Preencoded,
    ProtocolError,
    RpcTarget,
    SessionClosedError,
    TransportClosedError,
    memory_pair,
    rpc_method,
)
from rpcshare.rpc.messagepack import MESSAGEPACK


class Api(RpcTarget):
    @rpc_method("echo(value)")
    def echo(self, value: object) -> object:
        return value


def pack(message: object) -> bytes:
    return msgpack.packb(message)


class TestFrames:
    @pytest.mark.parametrize(
        "message",
        [
            ["push", ["pipeline", 0, ["echo"], [[[1, 2]], {"a": None, "": True}, -1.5]]],
            ["resolve", 1, ["bytes", b"\x00\xff"]],
            ["resolve", 1, "größer 🙂"],
            ["resolve", 1, 2**53 - 1],
            ["resolve", 1, -0.0],
        ],
    )
    def test_hold_one_message_each_in_plain_messagepack(self, message: object) -> None:
        frame = MESSAGEPACK.encode(message)
        assert msgpack.unpackb(frame) == message
        assert MESSAGEPACK.decode(frame) == message

    def test_keep_half_a_surrogate_pair(self) -> None:
        message = ["resolve", 1, {"cut \ud83d": ["\ude42"], "b": ["bytes", b"\xff"]}]
        assert MESSAGEPACK.decode(MESSAGEPACK.encode(message)) == message

    def test_splice_what_was_encoded_before(self) -> None:
        event = Preencoded({"text": "x"})
        for message in (["push", event], ["push", [event, event]]):
            assert MESSAGEPACK.encode(message) == msgpack.packb(message, default=lambda _: {"text": "x"})

    def test_are_shorter_than_json_where_there_are_bytes(self) -> None:
        assert len(MESSAGEPACK.encode(["push", ["bytes", bytes(3000)]])) < 3020


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param('["push",1]', "comes in a binary frame", id="text"),
        pytest.param(b'["push",1]', "is not MessagePack", id="JSON in a binary frame"),
        pytest.param(b"", "is not MessagePack", id="nothing"),
        pytest.param(pack(["push", 1])[:-1], "is not MessagePack", id="half a message"),
        pytest.param(pack(["push", 1]) * 2, "is not MessagePack", id="two messages"),
        pytest.param(b"\x92\xa4push\xa1\xff", "is not MessagePack", id="text that is not UTF-8"),
        pytest.param(b"\x92\xa4push\xc1", "is not MessagePack", id="the code that is never used"),
        pytest.param(b"\xdd\xff\xff\xff\xff", "is not MessagePack", id="a length that there is not"),
        pytest.param(pack(["push", msgpack.ExtType(5, b"x")]), "an extension type", id="an extension type"),
        pytest.param(pack(["push", msgpack.Timestamp(1, 2)]), "an extension type", id="a timestamp"),
        pytest.param(pack(["push", {1: 2}]), "a key that is no string", id="a number as a key"),
        pytest.param(pack(["push", {b"a": 2}]), "a key that is no string", id="bytes as a key"),
        pytest.param(b"\x92\xa4push\x81\x90\x01", "a key that is no string", id="a list as a key"),
        pytest.param(b"\x91" * 100_000 + b"\x90", "nested too deeply", id="endless lists"),
        pytest.param(b"\x81\xa1a" * 100_000 + b"\x90", "nested too deeply", id="endless maps"),
    ],
)
def test_what_is_no_message_is_refused(frame: bytes | str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        MESSAGEPACK.decode(frame)


class TestSessions:
    @pytest.mark.parametrize(
        ("expression", "result"),
        [
            (["bytes", b"\x01\xff"], ["bytes", b"\x01\xff"]),
            (["bytes", "Af8"], ["bytes", b"\x01\xff"]),
            ([[1, [["x"]]]], [[1, [["x"]]]]),
            (["bigint", str(2**80)], ["bigint", str(2**80)]),
            (["date", 5], ["date", 5]),
            (["nan"], ["nan"]),
            (2**63, float(2**63)),
        ],
    )
    async def test_take_and_give_values(self, expression: object, result: object) -> None:
        near, far = memory_pair()
        async with Connection(near, Api(), codec=MESSAGEPACK):
            await far.send(pack(["push", ["pipeline", 0, ["echo"], [expression]]]), text=False)
            await far.send(pack(["pull", 1]), text=False)
            sent = msgpack.unpackb(await far.receive())
        assert json.loads(json.dumps(sent, default=list)) == json.loads(
            json.dumps(["resolve", 1, result], default=list)
        )

    @pytest.mark.parametrize("expression", [b"bare", {"in": b"an object"}, [[b"in an array"]]])
    async def test_end_at_bytes_that_are_no_expression(self, expression: object) -> None:
        near, far = memory_pair()
        async with Connection(near, Api(), codec=MESSAGEPACK):
            await far.send(pack(["push", expression]), text=False)
            sent = msgpack.unpackb(await far.receive())
        reason = "a message in MessagePack has bytes that are not in ['bytes', …]"
        assert sent == ["abort", ["error", "Error", reason]]

    async def test_end_at_a_text_frame_with_code_3000(self) -> None:
        near, far = memory_pair()
        async with Connection(near, Api(), codec=MESSAGEPACK) as connection:
            await far.send('["push",1]', text=True)  # type: ignore[arg-type]  # text
            assert msgpack.unpackb(await far.receive())[0] == "abort"
            with pytest.raises(TransportClosedError, match="3000 a message in MessagePack"):
                await far.receive()
            assert isinstance(connection.session.closed, ProtocolError)

    async def test_of_two_peers_call_both_ways(self) -> None:
        near, far = memory_pair()
        async with (
            Connection(near, Api(), codec=MESSAGEPACK),
            Connection(far, codec=MESSAGEPACK) as client,
        ):
            value = {"data": b"\x00" * 1000, "list": [1, [2.5], None], "text": "\ud83d"}
            assert await client.remote_main.echo(value) == value
            assert await client.remote_main.echo(lambda: 1)() == 1

    async def test_do_not_understand_a_peer_that_speaks_json(self) -> None:
        near, far = memory_pair()
        async with Connection(near, Api(), codec=MESSAGEPACK), Connection(far) as client:
            with pytest.raises(SessionClosedError):
                await client.remote_main.echo(1)
