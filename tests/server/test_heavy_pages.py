"""Pages that would take hours to draw: they are answered, say what they leave out, and delay no other."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import httpx
import pytest

from support.drawing_shares import Document
from support.running_server import RunningServer
from support.sample_session import message, part, tool

pytestmark = pytest.mark.slow

SESSIONS = count()

# Pygments takes cubic time for these.
SLOW_CODE = {
    "docker": "CMD" + "\n" * 1500 + "x",
    "ldif": "version:" + " " * 1900 + "x\\",
}
LINES_ALIKE = {
    "before": "s\n" + "".join("a\n" if number % 2 else f"x{number}\n" for number in range(790)) + "e\n",
    "after": "t\n" + "a\n" * 197 + "g\n",
}
LARGE_TABLE = "|a" * 300 + "\n" + "|-" * 300 + "\n" + "a\n" * 220


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("heavy") / "data") as server:
        yield server


@pytest.fixture
def visitor(own_server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=own_server.url, timeout=50) as client:
        yield client


def share(server: RunningServer, *items: object) -> str:
    """Make a share of an assistant's message and ``items``; return the path of its page."""
    body = {"sessionID": f"ses_heavy_{next(SESSIONS):08}", "data": [message("m1", "assistant"), *items]}
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = httpx.post(f"{server.url}/api/share", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return f"/share/{answer.json()['id']}"


def slow_part(language: str, number: int = 1) -> object:
    text = f"**Before** it, number {number}.\n\n```{language}\n{SLOW_CODE[language]}\n```\n\nAfter it."
    return part("m1", f"p{number}", "text", text=text)


def metric(client: httpx.Client, line: str) -> float:
    for each in client.get("/metrics").text.splitlines():
        if each.startswith(line + " "):
            return float(each.rpartition(" ")[2])
    return 0.0


@pytest.mark.parametrize("language", ["docker", "ldif"])
def test_code_that_cannot_be_highlighted_in_time_is_shown_without_colours(
    own_server: RunningServer, visitor: httpx.Client, language: str
) -> None:
    ends, drawn = (
        'rpcshare_drawing_process_ends_total{cause="time"}',
        'rpcshare_drawn_pieces_total{cause="time",detail="uncoloured"}',
    )
    before = metric(visitor, ends), metric(visitor, drawn)
    answer = visitor.get(share(own_server, slow_part(language)))
    assert answer.status_code == 200
    assert "<strong>Before</strong>" in answer.text
    assert "Shown without colours: drawing it took too long." in answer.text
    assert "After it." in answer.text
    assert (metric(visitor, ends), metric(visitor, drawn)) == (before[0] + 1, before[1] + 1)
    assert "a piece of a page is drawn with less detail" in own_server.log.read_text()


def test_what_took_too_long_once_is_not_tried_again(own_server: RunningServer, visitor: httpx.Client) -> None:
    ends = 'rpcshare_drawing_process_ends_total{cause="time"}'
    first = visitor.get(share(own_server, slow_part("docker", 7)))
    before = metric(visitor, ends)
    again = visitor.get(share(own_server, slow_part("docker", 7)))  # another share, of the same content
    assert first.status_code == again.status_code == 200
    assert "Shown without colours" in again.text
    assert metric(visitor, ends) == before


def test_pages_of_others_are_drawn_meanwhile(own_server: RunningServer, visitor: httpx.Client) -> None:
    visitor.get(share(own_server))  # so that all processes are there, or will be
    slow = share(own_server, *(slow_part("docker", number) for number in range(100, 104)))
    usual = [share(own_server, part("m1", "p1", "text", text=f"*usual* {number}")) for number in range(5)]
    with ThreadPoolExecutor(1) as other:
        drawing = other.submit(httpx.get, own_server.url + slow, timeout=50)
        while not metric(visitor, 'rpcshare_drawing_process_ends_total{cause="time"}'):
            time.sleep(0.01)
        for path in usual:
            assert "<em>usual</em>" in visitor.get(path).text
        assert not drawing.done()
        assert drawing.result().status_code == 200


def test_files_whose_lines_are_alike_are_compared_as_a_whole(
    own_server: RunningServer, visitor: httpx.Client
) -> None:
    diffs = [{"file": f"f{number}", **LINES_ALIKE} for number in range(60)]
    answer = visitor.get(share(own_server, {"type": "session_diff", "data": diffs}) + "?view=changes")
    page = Document(answer.text)
    assert answer.text.count('id="fh-') == 60
    assert page.text.count("Shown as lines removed and added") == 60


def test_a_table_of_too_many_cells_is_shown_as_it_was_written(
    own_server: RunningServer, visitor: httpx.Client
) -> None:
    parts = [part("m1", f"p{number}", "text", text=LARGE_TABLE) for number in range(50)]
    answer = visitor.get(share(own_server, *parts))
    assert "Shown as it was written: its tables have more than 10,000 cells." in answer.text
    assert "<td" not in answer.text
    assert len(answer.content) < 500_000


@pytest.mark.parametrize(
    "output", ["<content>" * 55_555, "<file>\n" * 70_000, "<content>\n(End of file" * 20_000]
)
def test_a_file_that_was_read_is_found_in_time_that_grows_with_its_length(
    own_server: RunningServer, visitor: httpx.Client, output: str
) -> None:
    item = tool("m1", "p1", "read", {"filePath": "/a.txt"}, output)
    answer = visitor.get(share(own_server, item))
    assert "/a.txt" in answer.text
    assert "took too long" not in answer.text


def children(of: int) -> dict[int, str]:
    """Return the processes that one has started, and what each runs."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="],  # -ww: whole lines, whatever COLUMNS is
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    return {int(pid): args for pid, parent, args in rows if int(parent) == of}


def drawing_processes(of: int) -> list[int]:
    """Return the processes that draw for a server."""
    return [pid for pid, args in children(of).items() if "render_process" in args]


def test_a_server_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server, ThreadPoolExecutor(1) as other:
        slow = share(server, *(slow_part("docker", number) for number in range(3)))
        drawing = other.submit(httpx.get, server.url + slow, timeout=50)
        while len(found := drawing_processes(server.process.pid)) < 2:
            time.sleep(0.05)
        server.kill()
        with pytest.raises(httpx.HTTPError):
            drawing.result()
        deadline = time.monotonic() + 30
        while any(map(is_there, found)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_server_that_stops_finishes_the_page_that_is_being_drawn(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server, ThreadPoolExecutor(1) as other:
        slow = share(server, slow_part("docker"))
        drawing = other.submit(httpx.get, server.url + slow, timeout=50)
        while len(found := drawing_processes(server.process.pid)) < 2:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        answer = drawing.result()
        assert answer.status_code == 200
        assert "Shown without colours" in answer.text
        assert server.process.wait(timeout=12) == 0
        assert not any(map(is_there, found))


def test_workers_draw_too_and_leave_nothing_behind(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--workers", "2") as server:
        slow = share(server, slow_part("docker"))
        assert "Shown without colours" in httpx.get(server.url + slow, timeout=50).text
        workers = children(server.process.pid)
        found = [pid for worker in workers for pid in drawing_processes(worker)]
        assert found
        server.process.terminate()
        assert server.process.wait(timeout=12) == 0
        assert not any(map(is_there, found))


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
