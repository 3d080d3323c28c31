"""What servers, stores and files say drives no terminal and makes no line of its own, in any command."""

import asyncio
import json
import os
import pty
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from websockets.asyncio.server import ServerConnection, serve

from rpcshare.auth.api_keys import KEY_PREFIX, ApiKeys
from rpcshare.cli import main
from rpcshare.rpc import Connection, RpcError, RpcTarget, Stub, WebSocketTransport, rpc_method
from rpcshare.storage import SqliteStore
from support.running_server import RPCSHARE, bare_environment

pytestmark = pytest.mark.slow  # real servers, several of them at a time

# Colours, a title, a hyperlink, the clipboard, a report that a shell would read; CSI in one byte; lines and
# columns of one's own; bidirectional overrides and isolates; hidden characters; half a surrogate pair.
EVIL = (
    "\x1b[31mred\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]52;c;cm0=\x07\x1b[6n\x1bP1$q\x1b\\\x9b2J\x9d0;t\x9c"
    "\x00\x07\x08\x0b\x7f\x85\rrpcshare: forged\nrpcshare: forged\u2028forged"
    "\u202egnp\u202c\u2066\u2069\u200b\ud800"
)

TIME = 1_795_000_000_000
ROW = {
    "id": EVIL, "sessionID": EVIL, "title": EVIL, "directory": EVIL, "messageCount": 1, "partCount": 1,
    "diffCount": 0, "modelCount": 0, "lastUpdated": TIME, "syncCount": 1, "createdAt": TIME,
}  # fmt: skip
SHARE: dict[str, Any] = {
    "session": {"id": EVIL, EVIL: EVIL}, "messages": [{"id": EVIL}], "parts": [{"id": EVIL}],
    "diffs": [{"file": EVIL}], "models": [{"id": EVIL}], "metadata": {},
}  # fmt: skip
ITEMS = [
    {"type": "session", "data": {"id": EVIL, "title": EVIL, "directory": EVIL}},
    {"type": "message", "data": {"id": EVIL, "role": EVIL, "modelID": EVIL}},
    {"type": "part", "data": {"id": EVIL, "type": "text", "text": EVIL}},
    {"type": "part", "data": {"id": EVIL, "type": EVIL, "name": EVIL}},
    {"type": "session_diff", "data": [{"file": EVIL}]},
    {"type": "model", "data": [{"id": EVIL, "providerID": EVIL}]},
    {"type": EVIL, "data": EVIL},
]

Answer = Callable[[str, object], object]
"""What a server says to a call, by the name of the method and the usual answer."""

ANSWERS = {
    "createShare": {"id": EVIL, "url": EVIL, "secret": EVIL},
    "updateShare": {"visibility": "link", "hasPassword": False, "expiresAt": None},
    "createViewToken": {"token": EVIL, "expiresAt": TIME},
    "getShareMetadata": ROW,
    "getShare": SHARE,
    "listShares": {"sessions": [ROW], "count": 2, "cursor": None},
    "deleteShare": {"success": True},
}


class Hostile(RpcTarget):
    """A server that says what it likes."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    @rpc_method("authenticate(token)")
    def authenticate(self, token: object) -> object:
        return self

    @rpc_method("subscribe(shareID, onEvent, from?)")
    async def subscribe(self, share_id: object, on_event: Stub, start: object = None) -> object:
        for event in (
            {"type": "snapshot", "shareID": share_id, "syncCount": 1, "data": ITEMS},
            {"type": "deleted", "shareID": share_id},
        ):
            await on_event(self.answer("subscribe", event))
        return Hostile(self.answer)


def _answering(name: str) -> Callable[..., object]:
    def answer(self: Hostile, a: object = None, b: object = None, c: object = None) -> object:
        return self.answer(name, ANSWERS[name])

    return rpc_method(f"{name}(a?, b?, c?)")(answer)


def lie(_name: str, usual: object) -> object:
    return usual


def refuse(_name: str, _usual: object) -> object:
    raise RpcError(EVIL, code="FORBIDDEN")


def fail(_name: str, _usual: object) -> object:
    raise RpcError(EVIL, name=EVIL, code=EVIL)


def babble(_name: str, _usual: object) -> object:
    return {EVIL: EVIL}


@contextmanager
def hostile_server(answer: Answer) -> Iterator[str]:
    """Run one in a thread, and yield its URL."""
    methods = {name: _answering(name) for name in ANSWERS}
    target = type("Hostile", (Hostile,), methods)
    ready: queue.Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def handle(websocket: ServerConnection) -> None:
        await Connection(WebSocketTransport(websocket), target(answer), call_grace=0).run()

    async def run() -> None:
        stop = asyncio.Event()
        async with serve(handle, "127.0.0.1", 0, close_timeout=1) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.put((url, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    url, loop, stop = ready.get(timeout=30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class Output(NamedTuple):
    status: int
    out: bytes
    err: bytes


def run_command(*arguments: object, on_terminal: bool = False, stdin: bytes = b"", **env: str) -> Output:
    """Run a command; on a terminal, what it writes there is in ``out``."""
    # A terminal without a language, and wide: escape sequences and line ends that others write are seen.
    variables = {**bare_environment(**env), "TERM": "dumb", "COLUMNS": "20000"}
    if not on_terminal and (arguments[0] != "serve" or "--config" in arguments):  # a server sets up logging
        result = CliRunner().invoke(main, [str(each) for each in arguments], input=stdin, env=env)
        return Output(result.exit_code, result.stdout_bytes, result.stderr_bytes)
    command = [RPCSHARE.encode(), *(os.fsencode(str(each)) for each in arguments)]
    if not on_terminal:
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=variables, timeout=60, check=False
        )
        return Output(done.returncode, done.stdout, done.stderr)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    told = b""
    with suppress(OSError):  # the other end is closed
        while chunk := os.read(ours, 65536):
            told += chunk
    os.close(ours)
    watchdog.cancel()
    return Output(process.wait(60), told.replace(b"\r\n", b"\n"), b"")


def assert_harmless(output: Output) -> str:
    """Return all that was written, of which nothing drives a terminal or pretends to be a line of ours."""
    text = (output.out + output.err).decode()
    text = text.lstrip("\n")  # of a progress bar on a terminal that can show none
    for line in text.split("\n"):
        assert line.replace("\t", "").isprintable(), ascii(line)  # a tab is between two cells
        assert not line.startswith("rpcshare: forged")
    assert "Traceback" not in text
    assert "internal error" not in text
    return text


on_terminals = pytest.mark.parametrize("on_terminal", [False, True], ids=["piped", "terminal"])

SHOWN_ON_TERMINALS = ("ls", "watch", "push", "access", "pull lines", "watch as JSON")

REMOTE = {
    "ls": (["ls"], 0),
    "watch": (["watch", "abcdefgh"], 0),
    "push": (["push", "-", "ses_12345678"], 0),
    "push with the secret": (["push", "--show-secret", "-", "ses_12345678"], 0),
    "access": (["access", "abcdefgh"], 0),
    "view token": (["access", "--view-token", "abcdefgh"], 0),
    "pull": (["pull", "abcdefgh"], 0),
    "pull data": (["pull", "--format", "data", "abcdefgh"], 0),
    "pull lines": (["pull", "--format", "jsonl", "abcdefgh"], 0),
    "rm": (["rm", "--yes", "abcdefgh"], 0),
    "ls as JSON": (["ls", "--json"], 0),
    "watch as JSON": (["watch", "--json", "abcdefgh"], 0),
    "push as JSON": (["push", "--json", "--show-secret", "-", "ses_12345678"], 0),
    "access as JSON": (["access", "--json", "--view-token", "abcdefgh"], 0),
}


@pytest.mark.parametrize(
    ("command", "on_terminal"),
    [*((command, False) for command in REMOTE), *((command, True) for command in SHOWN_ON_TERMINALS)],
)
def test_what_a_server_says(command: str, on_terminal: bool) -> None:
    arguments, status = REMOTE[command]
    with hostile_server(lie) as url:
        output = run_command(*arguments, f"--url={url}", "--token=t", on_terminal=on_terminal, stdin=b"[]")
    text = assert_harmless(output)
    assert output.status == status, text
    if command not in ("rm", "access"):
        assert "red" in text  # so it was told


@on_terminals
@pytest.mark.parametrize("answer", [refuse, fail, babble], ids=lambda answer: answer.__name__)
def test_how_a_server_refuses(answer: Answer, on_terminal: bool) -> None:
    with hostile_server(answer) as url:
        for command in ("ls", "watch", "push", "view token", "pull data", "rm")[: 2 if on_terminal else 6]:
            if (command, answer) == ("rm", babble):
                continue  # of which nothing is told
            output = run_command(
                *REMOTE[command][0], f"--url={url}", "--token=t", on_terminal=on_terminal, stdin=b"[]"
            )
            text = assert_harmless(output)
            assert output.status == 1, text
            (line,) = text.split("\n")[:-1]
            assert line.startswith("rpcshare: ")


def test_json_is_exactly_what_the_server_said() -> None:
    with hostile_server(lie) as url:

        def told(command: str) -> list[Any]:
            output = run_command(*REMOTE[command][0], f"--url={url}", "--token=t", stdin=b"[]")
            return [json.loads(line) for line in output.out.splitlines()]

        (listed,) = told("ls as JSON")
        assert listed == [{**ROW, "url": f"{url}/share/{EVIL}"}]
        assert told("watch as JSON")[0]["data"] == ITEMS
        assert told("pull") == [SHARE]
        assert [item["data"] for item in told("pull lines")] == [
            SHARE["session"], SHARE["messages"][0], SHARE["parts"][0], SHARE["diffs"], SHARE["models"],
        ]  # fmt: skip
        assert told("push as JSON") == [{"id": EVIL, "url": EVIL, "secret": EVIL, "syncCount": 1}]
        (access,) = told("access as JSON")
        assert access["viewToken"]["token"] == EVIL


# --- what a store and files say -------------------------------------------------------------------

# Of what a path, an argument and a certificate can hold.
NAME = EVIL.replace("\x00", "").replace("/", "").replace("\ud800", "")
KEY = ascii(NAME)[1:-1].encode().decode("unicode_escape").encode("ascii", "ignore").decode()  # keys are ASCII


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with an evil name, and a store of which all keys and bodies are evil."""
    folder = tmp_path / NAME
    asyncio.run(_fill(folder / "store.sqlite3"))
    return folder


async def _fill(path: Path, body: bytes = EVIL.encode(errors="replace")) -> None:
    store = await SqliteStore.open(path)
    new = await ApiKeys(store).create("name", ("create",), None)
    key = await store.get(KEY_PREFIX + new.kept.id)
    assert key is not None
    evil = {**json.loads(key.body), "name": NAME}
    await store.put(KEY_PREFIX + new.kept.id, json.dumps(evil).encode())
    for prefix in ("", "share/", "share/abcdefgh/", "index/", "index/abcdefgh/", "older/", "expiry/"):
        await store.put(f"{prefix}{KEY}", body)
        if prefix:
            await store.put(f"{prefix}abcdefgh", body)
    await store.put("share/abcdefgh/head", body)
    await store.close()


def store_url(data: Path) -> str:
    return f"sqlite:///{data / 'store.sqlite3'}"


@on_terminals
def test_what_a_store_holds(data: Path, tmp_path: Path, on_terminal: bool) -> None:
    other = tmp_path / f"other {NAME}"
    asyncio.run(_fill(other / "store.sqlite3", b"another"))
    place = f"--data-dir={data}"
    commands: list[list[str | Path]] = [
        ["keys", "list", place],
        ["keys", "list", "--json", place],
        ["keys", "revoke", NAME, place],
        ["keys", "create", NAME, place],
        ["doctor", place],
        ["doctor", "--json", place],
        ["doctor", "--fix", "--grace=0", place],
        ["export", tmp_path / f"to {NAME}", place],
        ["export", tmp_path / f"to {NAME}", NAME, place],
        ["restore", tmp_path / f"to {NAME}", place],
        ["restore", tmp_path / f"none {NAME}", place],
        ["migrate", "--from", store_url(data), "--to", store_url(other)],
        ["migrate", "--from", store_url(data), "--to", NAME],
        ["import-bucket", "--from", store_url(data), f"--data-dir={other}"],
        ["import-bucket", "--json", "--from", store_url(data), f"--data-dir={other}"],
        ["credentials", "ses_12345678", place],
        ["credentials", NAME, place],
    ]
    for arguments in commands[:: 3 if on_terminal else 1]:
        output = run_command(*arguments, on_terminal=on_terminal)
        assert assert_harmless(output) or output.status == 0, arguments
        if "--json" in arguments and not on_terminal:
            assert json.loads(output.out)


@on_terminals
def test_what_files_hold_and_are_called(data: Path, tmp_path: Path, on_terminal: bool) -> None:
    place = f"--data-dir={data}"
    document, config = tmp_path / f"{NAME}.json", tmp_path / f"{NAME}.toml"
    for content in (b"[" + EVIL.encode(errors="replace"), json.dumps([{"type": EVIL, "data": {}}]).encode()):
        document.write_bytes(content)
        output = run_command(
            "push", document, "ses_12345678", "--url=http://127.0.0.1:1", on_terminal=on_terminal
        )
        assert assert_harmless(output).startswith("rpcshare: ")
    for text in (f"{json.dumps(NAME)} = 1", f"store = {json.dumps(NAME)}", NAME)[: 1 if on_terminal else 3]:
        config.write_text(text)
        assert assert_harmless(run_command("serve", "--config", config, place, on_terminal=on_terminal))
    commands: list[list[str | Path]] = [
        ["push", tmp_path / NAME / "none", "ses_12345678"],
        ["push", document, NAME],
        ["serve", "--config", tmp_path / NAME / "none"],
        ["serve", f"--host={NAME}", place],
        ["ls", f"--data-dir={tmp_path / NAME / 'none'}"],
        ["ls", f"--url={NAME}"],
        ["pull", NAME],
        ["ls", f"--{NAME}"],
        [NAME],
        ["certs", "init", place],
        ["certs", "init", place],
        ["certs", "issue", f"x{NAME[:20]}", place],
        ["certs", "issue", "client", place],
        ["certs", "list", place],
        ["certs", "revoke", NAME, place],
        ["token", "create", "--subject", NAME, f"--data-dir={tmp_path / NAME / 'none'}"],
    ]
    for arguments in commands[:: 5 if on_terminal else 1]:
        output = run_command(*arguments, on_terminal=on_terminal)
        # What a script is given of a path is the path.
        shown = output if on_terminal or arguments[:2] != ["certs", "issue"] else output._replace(out=b"")
        assert assert_harmless(shown) or output.out, arguments


def test_what_the_log_of_a_server_says() -> None:
    script = (
        "import logging, structlog\n"
        "from rpcshare.config import Settings\n"
        "from rpcshare.server.logs import configure_logging\n"
        f"evil = {EVIL!r}\n"
        "configure_logging(Settings())\n"
        "structlog.get_logger('a').warning(evil, value=evil)\n"
        "logging.getLogger('b').warning('said: %s', evil)\n"
        "try:\n    raise ValueError(evil)\n"
        "except ValueError:\n    logging.getLogger('b').exception('it failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=bare_environment(), check=True
    )
    text = done.stderr.decode()
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("rpcshare: forged\n")
    assert text.count("\\x1b[31mred") == 4
