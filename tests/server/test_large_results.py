"""Large shares over RPC: encoded in time slices, once for all, and no reader holds up another."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import partial
from uuid import UUID

import pytest

from rpcshare import jsontext
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.rpc import JSON, Codec, Preencoded, RpcError
from rpcshare.rpc.messagepack import MESSAGEPACK
from rpcshare.server import rpc_results, subscriptions
from rpcshare.server.share_rpc import ShareRpc
from rpcshare.server.subscriptions import event_stream
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage.memory import MemoryStore

ALICE, BOB = (Caller(name, frozenset({Scope.ADMIN})) for name in ("alice", "bob"))

BOTH_CODECS = pytest.mark.parametrize("codec", [JSON, MESSAGEPACK], ids=["json", "messagepack"])


def part(number: int) -> dict[str, object]:
    data = {"id": f"p{number}", "messageID": "m", "list": [[number], {"half": "\ud800"}], "text": "x" * 2000}
    return {"type": "part", "data": data}


@pytest.fixture
async def service() -> AsyncIterator[ShareService]:
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    yield service
    await service.close()


@pytest.fixture
async def share_id(service: ShareService) -> str:
    """Return the id of a share of about 1 MB."""
    return (await service.create(ALICE, "ses_large_results", [part(number) for number in range(500)])).id


def api(service: ShareService, codec: Codec = JSON) -> ShareRpc:
    return ShareRpc(service, Authenticator([]), ALICE, codec=codec)


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the lengths of the texts that are decoded from now on."""
    lengths = []
    decode = jsontext.decode

    def noting(text: bytes | str) -> object:
        lengths.append(len(text))
        return decode(text)

    monkeypatch.setattr(jsontext, "decode", noting)
    return lengths


@BOTH_CODECS
async def test_a_large_share_is_never_decoded_as_a_whole(service, share_id, codec, longest) -> None:
    result = await api(service, codec).get_share(share_id)
    frame = codec.encode(["resolve", 1, result])
    assert max(longest) < 100_000
    session = codec.decode(frame)[2]
    assert [each["list"] for each in session["parts"][0][:2]] == [
        [[[[number]], {"half": "\ud800"}]] for number in (0, 1)
    ]
    assert len(session["parts"][0]) == 500


@BOTH_CODECS
async def test_nor_is_a_large_event(service, share_id, codec, longest) -> None:
    stream = event_stream(partial(service.subscribe, ALICE, share_id), ALICE, codec)
    event = await anext(stream)
    frame = codec.encode(["push", event])
    assert max(longest) < 100_000
    data = codec.decode(frame)[1]["data"][0]
    assert [item["data"]["id"] for item in data if item["type"] == "part"] == [f"p{n}" for n in range(500)]
    assert isinstance(stream, AsyncGenerator)
    await stream.aclose()


async def test_all_who_read_a_share_at_once_share_what_is_encoded(service, share_id, longest) -> None:
    first, *others = await asyncio.gather(*(api(service).get_share(share_id) for _ in range(20)))
    assert all(other is first for other in others)
    assert sum(longest) < 3_000_000


async def test_a_share_too_large_for_one_result_is_refused_with_the_limit(
    service, share_id, monkeypatch
) -> None:
    monkeypatch.setattr(rpc_results, "LARGEST_DOCUMENT", 100_000)
    with pytest.raises(RpcError, match="at most 100,000") as raised:
        await api(service).get_share(share_id)
    assert raised.value.properties["code"] == "PAYLOAD_TOO_LARGE"


async def test_who_reads_no_large_events_keeps_no_other_caller_from_them(
    service, share_id, monkeypatch
) -> None:
    monkeypatch.setattr(subscriptions, "LARGE_EVENTS", 1_500_000)
    held = [event_stream(partial(service.subscribe, ALICE, share_id), ALICE, JSON) for _ in range(2)]
    await anext(held[0])
    waiting = asyncio.ensure_future(anext(held[1]))
    reading = event_stream(partial(service.subscribe, BOB, share_id), BOB, JSON)
    event = await asyncio.wait_for(anext(reading), 30)
    assert isinstance(event, Preencoded)
    assert json.loads(JSON.encode(event))["type"] == "snapshot"
    assert not waiting.done()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    for stream in (*held, reading):
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()
