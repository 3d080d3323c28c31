"""HTTP batches between npm's capnweb and this package, either way."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import rpcshare
from rpcshare import ConnectFailedError, RpcError, SessionClosedError
from support.running_server import RunningServer

pytestmark = pytest.mark.node

NODE = Path(__file__).parent.parent / "node"

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def run(node: str, server: RunningServer) -> Run:
    def run(scenario: str) -> dict[str, Any]:
        finished = subprocess.run(
            [node, "batch_client.mjs", server.url, server.token, scenario],
            cwd=NODE,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        output: dict[str, Any] = json.loads(finished.stdout)
        return output

    return run


@pytest.fixture(scope="module")
def url(node: str) -> Iterator[str]:
    with subprocess.Popen([node, "batch_server.mjs"], cwd=NODE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the server did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


class TestNpmClient:
    def test_makes_and_fills_a_share_in_one_request(self, run: Run) -> None:
        output = run("pipelined")
        share, synced = output["result"]
        assert share["id"] == "h_000001"
        assert synced == {"success": True, "syncCount": 1}
        assert len(output["bodies"]) == 1

    def test_passes_values(self, run: Run) -> None:
        assert run("values")["result"] == {
            "when": "2009-02-13T23:31:30.123Z",
            "bytes": [1, 255],
            "size": 2,
            "nested": [[]],
        }

    def test_sees_each_call_fail_alone(self, run: Run) -> None:
        missing, unknown, who = run("errors")["result"]
        assert missing == {"name": "Error", "message": "Share not found", "code": "SHARE_NOT_FOUND"}
        assert unknown["message"] == "'noSuchMethod' is not a function."
        assert who["subject"] == "admin"

    def test_is_told_that_it_cannot_be_asked(self, run: Run) -> None:
        result = run("callback")["result"]
        assert result["called"]["message"] == "the peer has sent its whole batch, and cannot be asked"
        assert result["heard"] == ["server-called"]

    def test_uses_a_capability_within_the_batch(self, run: Run) -> None:
        assert run("capability")["result"] == {"success": True, "syncCount": 1}

    def test_maps_a_result_within_the_batch(self, run: Run) -> None:
        assert run("mapped")["result"] == [{"id": "h_000003"}]

    def test_fails_what_comes_after(self, run: Run) -> None:
        assert run("again")["result"]["message"] == "Batch RPC request ended."

    def test_is_refused_with_a_bad_token(self, run: Run) -> None:
        assert run("refused")["result"]["message"] == "RPC request failed: 401 Unauthorized"


class TestNpmServer:
    async def test_answers_a_whole_batch_in_one_request(self, url: str) -> None:
        async with rpcshare.batch(url) as api:
            before = await api.requests()
        async with rpcshare.batch(url) as api:
            counter = api.makeCounter(5)
            counter.increment(2)
            results = await asyncio.gather(counter.increment(3), api.square(4), api.requests())
        assert results == [10, 16, before + 1]

    async def test_passes_values(self, url: str) -> None:
        value = {
            "bytes": b"\x00\xff",
            "when": datetime(2020, 1, 2, tzinfo=UTC),
            "big": 2**70,
            "list": [[], [1.5, None, True]],
            "text": "größer 🙂",
        }
        async with rpcshare.batch(url) as api:
            assert await api.echo(value) == value

    async def test_sends_its_errors(self, url: str) -> None:
        async with rpcshare.batch(url) as api:
            with pytest.raises(RpcError, match="RangeError: too far") as failed:
                await api.fail()
        assert failed.value.code == "TOO_FAR"

    async def test_maps_a_result_within_the_batch(self, url: str) -> None:
        async with rpcshare.batch(url) as api:
            assert await api.list(3).map(api.square) == [0, 1, 4]

    async def test_may_tell_the_client_something(self, url: str) -> None:
        heard: list[object] = []
        async with rpcshare.batch(url) as api:
            await api.tell(heard.append)
        assert heard == ["told"]

    async def test_is_not_asked_again(self, url: str) -> None:
        async with rpcshare.batch(url) as api:
            await api.square(1)
            with pytest.raises(SessionClosedError, match="the batch has been sent"):
                await api.square(2)

    async def test_without_such_an_endpoint_is_a_failure(self, url: str) -> None:
        with pytest.raises(ConnectFailedError, match="answered 404 to the batch"):
            async with rpcshare.batch(f"{url}/elsewhere") as api:
                await api.square(1)
