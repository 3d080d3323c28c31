"""A server that restarts: its subscribers come back spread over some seconds, and miss nothing."""

import asyncio
import re
import resource
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

import rpcshare
from rpcshare.client.backoff import Backoff
from support.running_server import RunningServer
from support.waiting import eventually

SUBSCRIBERS = 300

RETURN = re.compile(r"the server is being stopped \(retry-after=(\d+\.\d+)\)")


def part(number: int) -> dict[str, Any]:
    return {"type": "part", "data": {"id": f"prt_{number:05d}"}}


def made(server: RunningServer, session_id: str) -> str:
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = httpx.post(f"{server.url}/api/share", json={"sessionID": session_id}, headers=headers)
    return str(answer.json()["id"])


def synced(server: RunningServer, share_id: str, number: int) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    url = f"{server.url}/api/share/{share_id}/sync"
    httpx.post(url, json={"data": [part(number)]}, headers=headers).raise_for_status()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/rpc", "/ws/{share}"])
async def test_a_server_that_stops_tells_each_client_when_to_come_back(tmp_path: Path, path: str) -> None:
    with RunningServer(tmp_path / "data") as server:
        address = server.url.replace("http", "ws") + path.format(share=made(server, "ses_rolling_0001"))
        headers = {"Authorization": f"Bearer {server.token}"}
        async with AsyncExitStack() as stack:
            sockets = [
                await stack.enter_async_context(connect(address, additional_headers=headers))
                for _ in range(20)
            ]
            assert await asyncio.to_thread(server.stop) == 0
            await asyncio.gather(*(socket.wait_closed() for socket in sockets))
            delays = []
            for socket in sockets:
                said = RETURN.fullmatch(socket.close_reason or "")
                assert socket.close_code == 1001
                assert said is not None
                delays.append(float(said[1]))
    assert 0 <= min(delays) < max(delays) <= 5


@pytest.mark.slow
def test_an_event_stream_ends_with_when_to_come_back(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        url = f"{server.url}/api/share/{made(server, 'ses_rolling_0002')}/events"
        with httpx.stream("GET", url, timeout=30) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            server.process.terminate()
            last = [line for line in lines if line][-1]
    assert first == "retry: 2000"
    assert re.fullmatch(r"retry: \d{1,4}", last)
    assert 2000 <= int(last.removeprefix("retry: ")) <= 7000


def test_a_client_asks_often_while_a_server_restarts() -> None:
    backoff = Backoff()
    backoff.after_connection(lasted=100, retry_after=0.0)
    assert max(backoff.after_failure() for _ in range(50)) <= 2.0


def test_a_client_waits_for_as_long_as_it_was_told() -> None:
    assert Backoff().after_connection(lasted=100, retry_after=3.5) == 3.5
    assert Backoff().after_connection(lasted=100) <= 0.1


@pytest.mark.rare
async def test_hundreds_of_subscribers_come_back_within_10_seconds_without_a_gap(tmp_path: Path) -> None:
    """Each waits until it has been told; the first sync after the restart reaches all."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * SUBSCRIBERS + 100:
        pytest.skip("needs more open files (ulimit -n)")
    with RunningServer(tmp_path / "data") as server:
        share_id = made(server, "ses_rolling_0003")
        counts: list[list[int]] = [[] for _ in range(SUBSCRIBERS)]

        async def follow(client: rpcshare.ShareClient, seen: list[int]) -> None:
            async with client.subscribe(share_id) as events:
                async for event in events:
                    seen.append(event.sync_count or 0)  # noqa: PERF401 -- others look at them in the meantime

        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    rpcshare.ShareClient(server.url, token=server.token, reconnect=True)
                )
                for _ in range(SUBSCRIBERS)
            ]
            group = await stack.enter_async_context(asyncio.TaskGroup())
            following = [
                group.create_task(follow(client, seen)) for client, seen in zip(clients, counts, strict=True)
            ]
            await eventually(lambda: all(seen == [0] for seen in counts))
            await asyncio.to_thread(synced, server, share_id, 1)
            await eventually(lambda: all(seen == [0, 1] for seen in counts))

            await asyncio.to_thread(server.restart)
            restarted = asyncio.get_running_loop().time()
            await asyncio.to_thread(synced, server, share_id, 2)
            await eventually(lambda: all(seen[-1] == 2 for seen in counts))
            print(f"all were back after {asyncio.get_running_loop().time() - restarted:.1f} s")
            for task in following:
                task.cancel()
    assert {tuple(seen) for seen in counts} == {(0, 1, 2)}
    assert "Traceback" not in server.log.read_text()
