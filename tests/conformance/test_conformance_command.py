"""python -m rpcshare.conformance, as it is called."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from conformance.servers import over_websocket, scripted
from rpcshare.conformance.serving import serving
from support.narrowing import not_none

COMMAND = [sys.executable, "-m", "rpcshare.conformance"]


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    return not_none(process.returncode), output.decode(), errors.decode()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The URL of ``serve``, in a process of its own that has to stop as it should."""
    with subprocess.Popen([*COMMAND, "serve"], stdout=subprocess.PIPE, text=True) as process:
        ready = not_none(process.stdout).readline()
        assert ready.startswith("the conformance target is at http://127.0.0.1:")
        yield ready.split()[-1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_a_run_prints_a_line_for_each_case_and_succeeds(served):
    status, output, errors = await run("run", over_websocket(served), "--filter", "pipelined-target")
    assert (status, errors) == (0, "")
    first, *_, last = output.splitlines()
    assert first.startswith("ok   pipelined-target")
    assert last == "2 of 2 cases passed"


async def test_a_run_may_be_of_the_cases_of_one_rule(served):
    status, output, _ = await run("run", served, "--filter", "M-14", "--json")
    assert status == 0
    reports = [json.loads(line) for line in output.splitlines()]
    assert {rule for report in reports for rule in report["checks"]} >= {"M-14"}
    assert all(report["passed"] and "M-14" in report["checks"] for report in reports)


async def test_a_run_speaks_messagepack_if_it_is_told_to(served):
    status, output, _ = await run("run", over_websocket(served), "--messagepack", "--filter", "bytes")
    assert status == 0
    assert "ok   bytes-padded" in output


async def test_a_failed_case_is_told_with_what_came_instead():
    async def nonsense(websocket):
        await websocket.send('["hello"]')

    with scripted(nonsense) as url:
        status, output, _ = await run("run", url, "--filter", "pull-twice")
    assert status == 1
    assert output.splitlines() == [
        "FAIL pull-twice  A second pull of the same entry adds nothing [M-7]",
        '      expected ["resolve",1,16]',
        '      got      ["hello"]',
        "0 of 1 cases passed",
    ]


async def test_a_server_that_is_not_there_is_said_in_a_line():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        status, output, errors = await run("run", f"ws://127.0.0.1:{unused.getsockname()[1]}/")
    assert (status, output) == (1, "")
    assert errors.startswith("rpcshare.conformance: ")
    assert len(errors.splitlines()) == 1


async def test_a_filter_that_leaves_nothing_is_a_misuse(served):
    status, _, errors = await run("run", served, "--filter", "no-such-case")
    assert status == 2
    assert errors == "rpcshare.conformance: no case is about that, or runs over that kind of URL\n"


async def test_a_port_that_is_taken_is_said_in_a_line(served):
    status, output, errors = await run("serve", "--port", str(urlsplit(served).port))
    assert (status, output) == (1, "")
    assert len(errors.splitlines()) == 1


async def test_serving_ends_at_once_with_sessions_open():
    async with asyncio.timeout(5), serving() as url, connect(over_websocket(url), proxy=None) as websocket:
        await websocket.send('["push",1]')


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /elsewhere HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n\r\n", 426),
        (b"nonsense\r\n\r\n", 404),
    ],
)
async def test_what_is_neither_a_batch_nor_a_handshake_is_refused(head, status):
    async with serving() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(head)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_a_client_that_waits_to_be_told_to_go_on_is():
    async with serving() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 21\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'["push",5]\n["pull",1]')
        assert (await reader.read()).endswith(b'\r\n\r\n["resolve",1,5]')
        writer.close()
