"""Long JSON text becomes an expression in time slices, and the same one as at once."""

import asyncio
import random

import pytest

from rpcshare import jsontext
from rpcshare.jsontext import InParts
from rpcshare.rpc import JSON, RpcError
from rpcshare.rpc.encoding import Encoder
from rpcshare.rpc.messagepack import MESSAGEPACK
from rpcshare.rpc.sliced_encoding import encode_text

CODECS = pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=["json", "messagepack"])

SCALARS = (0, 1, 2**60, -(2**53), 1.5, 1e300, None, True, "", "a,b[{", 'q"\\', "é€" * 5, "half \ud800 pair")


def value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.random() if depth < 5 else 0
    if kind < 0.3:
        return rng.choice(SCALARS)
    size = rng.choice((0, 1, 3, 15, 20))
    if kind < 0.65:
        return [value(rng, depth + 1) for _ in range(size)]
    return {f"é{number}": value(rng, depth + 1) for number in range(size)}


def at_once(text: bytes, codec) -> object:
    return codec.decode(
        codec.encode(Encoder(None, max_depth=256, raw_bytes=True).encode(jsontext.decode(text)))
    )


@CODECS
@pytest.mark.parametrize("seed", range(3))
async def test_it_is_the_same_as_at_once(codec, seed) -> None:
    rng = random.Random(seed)
    many = [value(rng, 2) for _ in range(40)]
    text = jsontext.encode({"a": many, "b": [many, {"c": {str(key): each for key, each in enumerate(many)}}]})
    assert len(text) > 65_536
    assert codec.decode(await encode_text(text, codec)) == at_once(text, codec)


@CODECS
@pytest.mark.parametrize("length", [0, 1, 15, 16, 65_535, 65_536])
async def test_containers_of_every_length_have_the_right_heads(codec, length) -> None:
    array = b"[" + b",".join([b'"some text"'] * length) + b"]"
    members = b"{" + b",".join([b'"%d":"some text"' % number for number in range(length)]) + b"}"
    for text in (array, members, b'{"in":%b}' % array):
        assert codec.decode(await encode_text(text, codec)) == at_once(text, codec)


@CODECS
async def test_a_text_in_parts_is_the_same_as_the_whole(codec) -> None:
    long = b'"%b"' % (b"x" * 50_000)
    parts: InParts = {"a": [b"1", long, b"[[2]]", {"b": long, "c": []}], "d": b"{}"}
    whole = b'{"a":[1,%b,[[2]],{"b":%b,"c":[]}],"d":{}}' % (long, long)
    assert codec.decode(await encode_text(parts, codec)) == at_once(whole, codec)


@CODECS
@pytest.mark.parametrize("around", [b"%b", b'{"a":[{"b":%b}]}'])
async def test_others_have_their_turns_meanwhile(codec, around) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    taking = asyncio.create_task(take_turns())
    await encode_text(around % (b"[" + b",".join([b'{"a":[1,{}]}'] * 100_000) + b"]"), codec)
    taking.cancel()
    assert turns > 10


async def test_what_is_nested_too_deeply_is_refused() -> None:
    padding = b'"%b"' % (b"x" * 50_000)
    with pytest.raises(RpcError, match="nested"):
        await encode_text(b'{"a":' * 300 + padding + b"}" * 300, JSON)


async def test_what_cannot_be_split_and_has_too_many_values_is_refused() -> None:
    with pytest.raises(RpcError, match="too many values") as raised:
        await encode_text(rb'{"\ud800":[' + b",".join([b"{}"] * 300_000) + b"]}", JSON)
    assert raised.value.properties["code"] == "PAYLOAD_TOO_LARGE"
