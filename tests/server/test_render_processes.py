"""The processes that draw what pages are made of: what ends them, and whose turn it is."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rpcshare.render.pieces import Answer, Cause, Detail, PartPiece, Request
from rpcshare.server.web.render_processes import RenderProcesses

pytestmark = pytest.mark.slow

# What Pygments takes cubic time for: hours at this length.
ENDLESS = "```docker\nCMD" + "\n" * 5000 + "x\n```"


Pool = Callable[..., RenderProcesses]


def request(text: str, detail: Detail = Detail.FULL, cause: Cause | None = None) -> Request:
    return Request(piece({"id": "p", "type": "text", "text": text}), detail, cause)


def piece(part: object, *, is_whole: bool = False) -> PartPiece:
    return PartPiece(json.dumps(part).encode(), "p", "assistant", "", 0, "s/part/p", is_whole)


@pytest.fixture
async def pool() -> AsyncIterator[Callable[..., RenderProcesses]]:
    pools = []

    def make(**options: object) -> RenderProcesses:
        pools.append(RenderProcesses(**options))  # type: ignore[arg-type]
        return pools[-1]

    yield make
    for each in pools:
        await each.close()


async def warm(processes: RenderProcesses) -> None:
    """Return when every process is there."""
    await asyncio.gather(*(processes.draw(f"warming {number}", request("a")) for number in range(2)))


def children() -> set[int]:
    """Return the processes that draw for this one."""
    found = set()
    for place in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, place.read_text().split()):
            if b"render_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_what_takes_too_long_ends_its_process_and_no_other(
    pool: Pool,
) -> None:
    ended: list[Cause] = []
    processes = pool(on_end=ended.append)
    answer = await processes.draw("share", request(ENDLESS))
    assert (answer.html, answer.cause, answer.is_accident) == ("", Cause.TIME, False)
    assert ended == [Cause.TIME]
    again = await processes.draw("share", request(ENDLESS, Detail.UNCOLOURED, Cause.TIME))
    assert "Shown without colours: drawing it took too long." in again.html
    assert ended == [Cause.TIME]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS limits no process's memory")
async def test_what_takes_too_much_memory_ends_its_process(pool: Pool) -> None:
    ended: list[Cause] = []
    processes = pool(number=1, memory=64 * 2**20, on_end=ended.append)
    assert (await processes.draw("share", request("x" * 2**25))).cause is Cause.MEMORY
    assert (await processes.draw("share", request("after"))).cause is None
    assert ended == [Cause.MEMORY]


async def test_what_is_too_large_when_it_is_drawn_is_drawn_plain(pool: Pool) -> None:
    state = {"status": "completed", "input": {"command": "&" * 1_900_000}, "output": "&" * 1_900_000}
    whole = piece({"id": "p", "type": "tool", "tool": "bash", "state": state}, is_whole=True)
    processes = pool(number=1)
    answer = await processes.draw("share", Request(whole, Detail.FULL, None))
    assert (answer.html, answer.cause) == ("", Cause.SIZE)
    plain = await processes.draw("share", Request(whole, Detail.PLAIN, answer.cause))
    assert "Shown as plain text: it is too large when it is drawn." in plain.html


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_process_that_is_killed_is_replaced(pool: Pool) -> None:
    processes = pool(number=1)
    before = children()
    await processes.draw("share", request("a"))
    (process,) = children() - before
    os.kill(process, signal.SIGKILL)
    answer = await processes.draw("share", request("b"))
    if answer.is_accident:  # it was asked before it was known to be gone
        answer = await processes.draw("share", request("b"))
    assert "<p>b</p>" in answer.html
    assert process not in children()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_process_is_left_when_they_are_closed(pool: Pool) -> None:
    processes = pool()
    before = children()
    await warm(processes)
    slow = asyncio.create_task(processes.draw("share", request(ENDLESS)))
    await asyncio.sleep(0)
    assert len(children() - before) == 2
    await processes.close()
    assert not children() - before
    with pytest.raises(asyncio.CancelledError):
        await slow


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_they_know_nothing_of_the_servers_settings(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCSHARE_TOKEN", "s3cret-admin-token")
    before = children()
    await pool(number=1).draw("share", request("a"))
    (process,) = children() - before
    assert b"s3cret" not in environment_of(process)


async def test_a_share_that_takes_long_leaves_a_process_to_others(
    pool: Pool,
) -> None:
    processes = pool()
    await warm(processes)
    slow = [asyncio.create_task(processes.draw("slow", request(ENDLESS + str(each)))) for each in range(3)]
    for number in range(20):
        assert (await processes.draw("quick", request(f"number {number}"))).cause is None
        assert not slow[1].done()


async def test_the_share_that_has_taken_least_is_next(pool: Pool) -> None:
    processes = pool(number=1)
    order: list[str] = []

    async def draw(share_id: str, text: str) -> None:
        await processes.draw(share_id, request(text))
        order.append(share_id)

    first = asyncio.create_task(draw("slow", ENDLESS))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(draw("slow", str(each))) for each in range(5)]
    await asyncio.sleep(0)
    quick = asyncio.create_task(draw("quick", "now"))
    await asyncio.gather(first, *waiting, quick)
    assert order[:2] == ["slow", "quick"]


async def test_who_is_gone_has_no_turn(pool: Pool) -> None:
    processes = pool(number=1)
    first = asyncio.create_task(processes.draw("share", request("a")))
    await asyncio.sleep(0)
    gone = [asyncio.create_task(processes.draw("share", request(ENDLESS))) for _ in range(50)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    began_at = time.process_time()
    answers: list[Answer] = [await first, await processes.draw("other", request("b"))]
    assert [answer.cause for answer in answers] == [None, None]
    assert all(task.cancelled() for task in gone)
    assert time.process_time() - began_at < 5  # CPU time of this process, which only waits
