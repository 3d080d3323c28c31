"""The commands for people: what they print, what the server then holds, and how they fail."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from rpcshare import connect_blocking
from rpcshare.cli import main
from rpcshare.cli.push import BATCH_ITEMS
from support.running_server import RPCSHARE, RunningServer, bare_environment

RECORDING = Path(__file__).parent / "fixtures" / "opencode-share-traffic.jsonl"

SESSION = {"type": "session", "data": {"id": "ses_1", "title": "A title", "directory": "/work"}}
MESSAGE = {"type": "message", "data": {"id": "msg_1", "role": "user", "cost": 1.0}}
PART = {"type": "part", "data": {"id": "prt_1", "messageID": "msg_1", "type": "text", "text": "hé 🎉"}}
DIFF = {"type": "session_diff", "data": [{"file": "a.py", "additions": 1, "deletions": 2}]}
MODEL = {"type": "model", "data": [{"id": "m", "providerID": "p"}]}
ITEMS: list[dict[str, Any]] = [SESSION, MESSAGE, PART, DIFF, MODEL]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(server, monkeypatch):
    """Run a command against the server, as somebody whose environment names it."""
    monkeypatch.setenv("RPCSHARE_URL", server.url)
    monkeypatch.setenv("RPCSHARE_TOKEN", server.token)
    return run_command


def run_command(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def client(server):
    with connect_blocking(server.url, token=server.token) as client:
        yield client


@pytest.fixture
def session_id() -> str:
    return f"ses_{uuid4().hex}"


@pytest.fixture
def share(client, session_id):
    """A share of the recording's kind, small."""
    return client.create_share(session_id, ITEMS)


@pytest.fixture
def start(server):
    """Start a command in a process of its own, which is ended with the test."""
    processes = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        env = bare_environment(RPCSHARE_URL=server.url, RPCSHARE_TOKEN=server.token)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([RPCSHARE, *arguments], **{"env": env, "text": True, **pipes, **options})
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextmanager
def pseudo_terminal():
    """Yield the two ends of a terminal: ours, and the one for a process."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def assert_ok(result: Result) -> str:
    """Return what was printed; on standard error, push alone tells what it has read."""
    told = re.fullmatch(r"([^\n]+: (an? |messages|SyncData)[\w ]*\n)?", result.stderr)
    assert (result.exit_code, told is not None) == (0, True), result.stderr
    return result.stdout


def assert_one_line(result: Result, status: int = 1) -> str:
    """Return the only line printed, which is on standard error."""
    assert (result.exit_code, result.stdout) == (status, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("rpcshare: ")


def recorded_items() -> list[dict]:
    requests = map(json.loads, RECORDING.read_text().splitlines())
    return [item for request in requests for item in (request.get("body") or {}).get("data", ())]


def lines_of(items: Sequence[object]) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in items)


def without_metadata(session: dict) -> dict:
    return {name: value for name, value in session.items() if name != "metadata"}


# --- push and pull --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "session", "data", "jsonl"])
def test_a_pulled_share_can_be_pushed_as_another(run, client, session_id, tmp_path, form):
    share = client.create_share(session_id, recorded_items())
    original = client.get_share(share.id)
    assert_ok(run("pull", share.id, "--format", form, "-o", "share"))
    url = assert_ok(run("push", "share", f"{session_id}x")).strip()
    copy = json.loads(assert_ok(run("pull", url)))
    assert without_metadata(copy) == without_metadata(original)


def test_pull_prints_an_agent_session(run, client, share):
    assert json.loads(assert_ok(run("pull", share.id))) == client.get_share(share.id)


def test_pull_prints_a_list_of_sync_data(run, share):
    assert json.loads(assert_ok(run("pull", share.id, "--format", "data"))) == ITEMS


def test_pull_prints_a_line_for_each_sync_data(run, share):
    lines = assert_ok(run("pull", share.id, "--format", "jsonl")).splitlines()
    assert [json.loads(line) for line in lines] == ITEMS


def test_push_reads_standard_input(run, client, session_id):
    url = assert_ok(run("push", "-", session_id, stdin=lines_of(ITEMS))).strip()
    assert client.get_share(url.rpartition("/")[2])["parts"] == [PART["data"]]


def test_push_of_a_single_line(run, client, session_id):
    url = assert_ok(run("push", "-", session_id, stdin=lines_of([MESSAGE]))).strip()
    assert client.get_share(url.rpartition("/")[2])["messages"] == [MESSAGE["data"]]


def test_push_prints_the_url_and_no_more(run, client, session_id):
    output = assert_ok(run("push", "-", session_id, stdin=json.dumps(ITEMS)))
    assert output == client.create_share(session_id).url + "\n"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_share_is_named_by_its_session_id_as_well(run, client, share, session_id, form):
    by_id = assert_ok(run("pull", share.id, "--format", form))
    assert assert_ok(run("pull", session_id, "--format", form)) == by_id
    assert "whoever has the link" in assert_ok(run("access", session_id))
    assert_ok(run("rm", "--yes", session_id))
    assert "Share not found" in assert_one_line(run("pull", share.id), 5)
    assert "Share not found" in assert_one_line(run("rm", "--yes", session_id), 5)


def test_another_s_share_is_named_by_its_session_id(run, server, share, session_id):
    key = run("keys", "create", "another", "--data-dir", server.data_dir).stdout.strip()
    assert assert_ok(run("pull", session_id, "--token", key)) == assert_ok(run("pull", share.id))


def test_push_says_what_it_found_and_takes_the_session_id_of_the_file(run, client, session_id):
    export = {
        "info": {"id": session_id},
        "messages": [{"info": MESSAGE["data"], "parts": [PART["data"]]}],
    }
    result = run("push", "-", stdin=f"Exporting session: {session_id}\n{json.dumps(export)}")
    assert_ok(result)
    assert result.stderr == "standard input: an opencode export\n"
    assert result.stdout == client.create_share(session_id).url + "\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps([MESSAGE]), "standard input: SyncData without a session ID: give one behind it"),
        ('[{"type": "session", "data": {"id": "no id"}}]', "SyncData whose session ID cannot be shared"),
        ("%PDF-1.7", "standard input: seems to be a PDF; taken are SyncData"),
    ],
)
def test_push_says_what_a_file_lacks(run, content, told):
    result = run("push", "-", stdin=content)
    assert result.exit_code != 0
    assert told in result.stderr


def test_push_takes_a_storage_folder_of_opencode(run, client, session_id, tmp_path):
    folder = tmp_path / "session" / "global"
    folder.mkdir(parents=True)
    (tmp_path / "message").mkdir()
    (folder / f"{session_id}.json").write_text(json.dumps({"id": session_id, "title": "Kites"}))
    url = assert_ok(run("push", tmp_path)).strip()
    assert client.get_share(url.rpartition("/")[2])["session"]["title"] == "Kites"


def test_push_prints_json_without_the_secret(run, client, session_id):
    output = assert_ok(run("push", "--json", "-", session_id, stdin=json.dumps(ITEMS)))
    share = client.create_share(session_id)
    assert json.loads(output) == {"id": share.id, "url": share.url, "syncCount": 1}


def test_push_prints_the_secret_when_asked(run, client, session_id):
    output = assert_ok(run("push", "--json", "--show-secret", "-", session_id, stdin="[]"))
    secret = client.create_share(session_id).secret
    assert json.loads(output)["secret"] == secret
    output = assert_ok(run("push", "--show-secret", "-", session_id, stdin="[]"))
    assert output.splitlines()[1:] == [f"secret: {secret}"]


def test_push_of_nothing_makes_an_empty_share(run, session_id):
    output = assert_ok(run("push", "--json", "-", session_id, stdin="[]"))
    assert json.loads(output)["syncCount"] == 0


def test_push_again_adds_to_the_share(run, client, session_id):
    urls = {assert_ok(run("push", "-", session_id, stdin=lines_of([item]))) for item in (MESSAGE, PART, PART)}
    assert len(urls) == 1
    session = client.get_share(client.create_share(session_id).id)
    assert (session["messages"], session["parts"]) == ([MESSAGE["data"]], [PART["data"]])


def test_push_sends_a_long_file_in_several_syncs_in_order(run, client, session_id):
    ids = [f"prt_{n}" for n in range(2 * BATCH_ITEMS + 1)]
    parts = [{"type": "part", "data": {"id": each}} for each in ids]
    output = assert_ok(run("push", "--json", "-", session_id, stdin=lines_of(parts)))
    assert json.loads(output)["syncCount"] == 3
    session = client.get_share(json.loads(output)["id"])
    assert [part["id"] for part in session["parts"]] == ids


def test_push_sends_a_long_list_of_diffs_in_several_syncs_in_order(run, client, session_id):
    diffs = [{"file": f"{n}.py", "patch": "x" * 300_000} for n in range(8)]
    stdin = json.dumps([{"type": "session_diff", "data": diffs}])
    told = json.loads(assert_ok(run("push", "--json", "-", session_id, stdin=stdin)))
    assert told["syncCount"] == 3
    assert client.get_share(told["id"])["diffs"] == diffs


def test_text_that_javascript_cut_through_an_emoji_survives(run, session_id):
    text = '{"type":"part","data":{"id":"prt_1","text":"cut \\ud83c"}}'
    url = assert_ok(run("push", "-", session_id, stdin=text)).strip()
    assert json.loads(assert_ok(run("pull", url)))["parts"][0]["text"] == "cut \ud83c"


def test_push_sends_nothing_of_a_file_with_a_fault():
    # Nobody is there, so whoever tried to send anything would have failed of that instead.
    stdin = lines_of([MESSAGE, {"type": "part", "data": {}}])
    line = assert_one_line(run_command("push", "-", "ses_1", "--url", "http://127.0.0.1:1", stdin=stdin))
    assert line.startswith("standard input: line 2.data.id: must be a string")


def test_push_of_a_file_that_is_not_there(run):
    line = assert_one_line(run("push", "nonesuch.json", "ses_1"))
    assert line == "nonesuch.json: No such file or directory"


def test_push_for_what_is_no_session_id(run):
    assert "sessionID" in assert_one_line(run("push", "-", "no session", stdin="[]"), 2)


def test_push_shows_its_progress_on_a_terminal(start, session_id):
    Path("share.jsonl").write_text(lines_of(ITEMS))
    with pseudo_terminal() as (ours, theirs):
        process = start("push", "share.jsonl", session_id, stderr=theirs)
        shown = b""
        while b"bytes" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait() == 0
        assert process.stdout.read().startswith("http://")


# --- pull to a file -------------------------------------------------------------------------------


def test_pull_puts_a_file_in_the_place_of_another(run, client, share):
    Path("share.json").write_text("before")
    assert assert_ok(run("pull", share.id, "-o", "share.json")) == ""
    assert json.loads(Path("share.json").read_text()) == client.get_share(share.id)
    assert [path.name for path in Path().iterdir()] == ["share.json"]


def test_pull_leaves_a_file_to_those_who_may_read_it(run, share):
    Path("share.json").touch(mode=0o600)
    assert_ok(run("pull", share.id, "-o", "share.json"))
    assert Path("share.json").stat().st_mode & 0o777 == 0o600


def test_pull_writes_through_a_link(run, share):
    Path("real.json").write_text("before")
    Path("link.json").symlink_to("real.json")
    assert_ok(run("pull", share.id, "-o", "link.json"))
    assert Path("link.json").is_symlink()
    assert "session" in json.loads(Path("real.json").read_text())


def test_pull_that_fails_leaves_the_file_as_it_was(run):
    Path("share.json").write_text("before")
    assert assert_one_line(run("pull", "nonesuch", "-o", "share.json"), 5) == "Share not found"
    assert Path("share.json").read_text() == "before"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonesuch/share.json", "No such file or directory"),
        ("file/share.json", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_pull_names_the_file_that_it_cannot_write(run, share, tmp_path, name, reason):
    Path("file").touch()
    assert assert_one_line(run("pull", share.id, "-o", name)) == f"{tmp_path}/{name}: {reason}"


def test_pull_writes_into_what_is_no_file(run, share):
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()))
    reader.start()
    assert_ok(run("pull", share.id, "-o", "pipe"))
    reader.join()
    assert Path("pipe").is_fifo()
    assert "session" in json.loads(read[0])


def test_pull_into_a_pipe_that_nobody_reads_is_silent(client, start, session_id):
    text = {"type": "part", "data": {"id": "prt_1", "text": "x" * 1_000_000}}
    share = client.create_share(session_id, [text])
    process = start("pull", share.id)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()


# --- rm -------------------------------------------------------------------------------------------


def is_shared(client, share) -> bool:
    return share.id in {index.id for index in client.list_shares(query=share.id).sessions}


def test_rm_takes_a_share_of_one_s_own_down(run, client, share):
    assert assert_ok(run("rm", share.url)) == f"deleted {share.url}\n"
    assert not is_shared(client, share)


def test_rm_takes_a_share_down_with_its_secret(run, client, share):
    assert_ok(run("rm", share.id, "--secret", share.secret))
    assert not is_shared(client, share)


def test_rm_with_a_wrong_secret_leaves_the_share(run, client, share):
    assert assert_one_line(run("rm", share.id, "--secret", "horse")) == "Invalid secret"
    assert is_shared(client, share)


@pytest.mark.parametrize(("answer", "status"), [("n", 1), ("", 1), ("y", 0)])
def test_rm_asks_on_a_terminal(start, client, share, answer, status):
    with pseudo_terminal() as (ours, theirs):
        process = start("rm", share.id, stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        assert process.wait() == status
    assert process.stderr.read().startswith(f"Take down {share.url} for good? [y/N]: ")
    assert is_shared(client, share) is (status == 1)


def test_rm_does_not_ask_who_said_yes_already(start, client, share):
    with pseudo_terminal() as (_, theirs):
        process = start("rm", share.id, "--yes", stdin=theirs)
        assert (process.wait(), process.stderr.read()) == (0, "")
    assert not is_shared(client, share)


# --- ls -------------------------------------------------------------------------------------------


@pytest.fixture
def titled(client):
    """Three shares whose title, which nothing else has, is the fixture's value."""
    title = f"title {uuid4().hex}"
    for _ in range(3):
        session = {"id": "s", "title": title, "directory": "/work"}
        client.create_share(f"ses_{uuid4().hex}", [{"type": "session", "data": session}, MESSAGE, PART])
    return title


def test_ls_prints_a_table(run, server, client, titled):
    heading, *rows = assert_ok(run("ls", titled)).splitlines()
    assert heading.split() == ["id", "title", "directory", "messages", "parts", "updated", "url"]
    assert [row.split() for row in rows] == [
        [index.id, *titled.split(), "/work", "1", "1", "just", "now", f"{server.url}/share/{index.id}"]
        for index in client.list_shares(query=titled).sessions
    ]


def test_ls_prints_json(run, server, client, titled):
    listed = json.loads(assert_ok(run("ls", titled, "--json")))
    assert [(share["id"], share["url"]) for share in listed] == [
        (index.id, f"{server.url}/share/{index.id}") for index in client.list_shares(query=titled).sessions
    ]
    assert {(share["title"], share["messageCount"]) for share in listed} == {(titled, 1)}


def test_ls_of_nothing(run):
    query = uuid4().hex
    assert assert_ok(run("ls", query)) == ""
    assert assert_ok(run("ls", query, "--json")) == "[]\n"


def test_ls_says_that_there_are_more(run, titled):
    result = run("ls", titled, "--json", "--limit", "2")
    assert len(json.loads(result.stdout)) == 2
    assert result.stderr == "2 of 3 shares; --all-pages lists all\n"


def test_ls_lists_all_pages(run, titled):
    listed = json.loads(assert_ok(run("ls", titled, "--json", "--limit", "2", "--all-pages")))
    assert len({share["id"] for share in listed}) == 3


def test_ls_shows_a_title_that_the_terminal_s_encoding_lacks(server, start, client, session_id):
    session = {"id": "s", "title": f"{session_id} é", "directory": "/x"}
    client.create_share(session_id, [{"type": "session", "data": session}])
    env = bare_environment(RPCSHARE_URL=server.url, RPCSHARE_TOKEN=server.token, PYTHONIOENCODING="ascii")
    process = start("ls", session_id, env=env)
    assert process.wait() == 0
    assert f"{session_id} ?" in process.stdout.read()


def test_ls_shows_no_control_characters_of_a_title(run, client, session_id):
    session = {"id": "s", "title": f"\x1b[31m{session_id}\x07\u202e\x9b2J", "directory": "\x1b]0;t\x07/x"}
    client.create_share(session_id, [{"type": "session", "data": session}])
    for arguments in ([], ["--json"]):
        output = assert_ok(run("ls", session_id, *arguments))
        assert session_id in output
        assert re.sub(r"[\n\t]", "", output).isprintable()


# --- watch ----------------------------------------------------------------------------------------


def test_watch_prints_each_event_as_json_until_the_share_is_deleted(start, client, share):
    process = start("watch", share.url, "--json")
    assert json.loads(process.stdout.readline()) == {
        "type": "snapshot", "shareID": share.id, "syncCount": 1, "data": ITEMS,
    }  # fmt: skip
    client.sync_share(share.id, share.secret, [PART])
    assert json.loads(process.stdout.readline()) == {
        "type": "sync", "shareID": share.id, "syncCount": 2, "data": [PART],
    }  # fmt: skip
    client.delete_share(share.id)
    assert json.loads(process.stdout.readline()) == {"type": "deleted", "shareID": share.id}
    assert (process.wait(), process.stderr.read()) == (0, "")


def test_watch_prints_a_line_for_each_item(start, client, share):
    process = start("watch", share.id)
    lines = [process.stdout.readline().split() for _ in ITEMS]
    assert lines == [
        ["session", "A", "title", "/work"],
        ["message", "user"],
        ["text", "hé", "🎉"],
        ["diff", "a.py", "+1", "-2"],
        ["model", "p/m"],
    ]
    client.sync_share(share.id, share.secret, [MESSAGE])
    assert process.stdout.readline().split()[1:] == ["message", "user"]
    client.delete_share(share.id)
    assert process.stdout.readline().split()[1:] == ["deleted", "the", "share", "is", "gone"]


def test_watch_begins_after_the_syncs_that_one_has_seen(start, client, share):
    client.sync_share(share.id, share.secret, [PART])
    process = start("watch", share.id, "--json", "--from", "1")
    event = json.loads(process.stdout.readline())
    assert (event["type"], event["syncCount"]) == ("sync", 2)


def test_watch_ends_well_on_an_interrupt(start, share):
    process = start("watch", share.id)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert (process.wait(), process.stderr.read().strip()) == (0, "")


def test_watch_of_what_is_not_shared(run):
    assert assert_one_line(run("watch", "nonesuch"), 5) == "Share not found"


def test_watch_says_that_the_connection_was_lost(start, tmp_path, session_id):
    with RunningServer(tmp_path / "data") as server:
        with connect_blocking(server.url, token=server.token) as client:
            share = client.create_share(session_id, ITEMS)
        process = start("watch", share.url, "--token", server.token)
        process.stdout.readline()
        server.kill()
        assert process.wait() == 1
    (line,) = process.stderr.read().splitlines()
    assert line.startswith("rpcshare: the connection was lost")


def test_watch_into_a_pipe_that_nobody_reads_is_silent(start, client, share):
    process = start("watch", share.id, "--json")
    process.stdout.readline()
    process.stdout.close()
    client.sync_share(share.id, share.secret, [PART])
    assert process.stderr.read() == ""
    process.wait()
