"""What is acknowledged stays, whatever happens to the server."""

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from support.plain_merge import PlainShare, assert_same
from support.running_server import RunningServer

pytestmark = pytest.mark.slow

RECORDING = Path(__file__).parents[1] / "fixtures" / "opencode-share-traffic.jsonl"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data") as server:
        yield server


def recorded_requests() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDING.read_text().splitlines()]


async def test_recorded_traffic_equals_a_plain_merge_before_and_after_a_kill(
    own_server: RunningServer,
) -> None:
    plain: dict[str, PlainShare] = {}
    async with rpcshare.ShareClient(own_server.url, token=own_server.token) as client:
        secrets: dict[str, str] = {}
        for request in recorded_requests():
            _, _, _, *rest = request["path"].split("/")
            if not rest:
                share = await client.create_share(request["body"]["sessionID"])
                plain[share.id], secrets[share.id] = PlainShare(), share.secret
            elif request["method"] == "DELETE":
                await client.delete_share(rest[0], secrets[rest[0]])
                del plain[rest[0]]
            else:
                await client.sync_share(rest[0], secrets[rest[0]], request["body"]["data"])
                plain[rest[0]].sync(request["body"]["data"])
        assert len(plain) == 4
        before = {share_id: await client.get_share(share_id) for share_id in plain}
    own_server.kill()
    own_server.restart()
    async with rpcshare.ShareClient(own_server.url, token=own_server.token) as client:
        for share_id, expected in plain.items():
            assert_same(json.dumps(before[share_id]), expected)
            assert await client.get_share(share_id) == before[share_id]
        assert (await client.list_shares()).count == 4


# More than a writer gets to before its server is killed, so that what is written later is always greater.
ROUND = 100_000


async def write_until_cut_off(
    client: rpcshare.ShareClient,
    share: rpcshare.ShareCredentials,
    writer: int,
    first: int,
    acked: dict[str, str],
) -> None:
    for number in range(first, first + ROUND):
        part = {"id": f"prt_{writer}_{number % 50}", "text": f"{number}"}
        try:
            await client.sync_share(share.id, share.secret, [{"type": "part", "data": part}])
        except rpcshare.SessionClosedError:
            return
        acked[part["id"]] = part["text"]


async def test_a_kill_under_load_loses_no_acknowledged_sync(own_server: RunningServer) -> None:
    randomness = random.Random(20)
    acked: dict[str, dict[str, str]] = {}
    for turn in range(4):
        async with rpcshare.ShareClient(own_server.url, token=own_server.token) as client:
            shares = [await client.create_share(f"ses_killed_{number:08d}") for number in range(4)]
            for share in shares:
                found = await client.get_share(share.id)
                held = {part["id"]: part["text"] for part in found["parts"]}
                # What was acknowledged is there; what was on its way may be there, but nothing older.
                for part_id, text in acked.setdefault(share.id, {}).items():
                    assert int(held[part_id]) >= int(text)
                acked[share.id] = held
            writers = [
                asyncio.create_task(write_until_cut_off(client, share, writer, turn * ROUND, acked[share.id]))
                for share in shares
                for writer in range(3)
            ]
            await asyncio.sleep(randomness.uniform(0.1, 0.5))
            own_server.kill()
            await asyncio.gather(*writers)
        own_server.restart()
    assert sum(map(len, acked.values())) > 100
