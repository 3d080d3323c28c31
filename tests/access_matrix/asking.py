"""Asking a running server, as one caller, for everything that there is; all answers are kept."""

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any
from uuid import uuid4

import httpx
from websockets.asyncio.client import ClientConnection, connect

from access_matrix.callers import Caller
from access_matrix.deployments import Made
from access_matrix.operations import CALLS, REQUESTS, Asked, Call, Messages, Request
from access_matrix.rights import ANSWERS, SHARES, expected
from rpcshare.render.assets import Assets
from rpcshare.server.failures import STATUS

__all__ = ["Answers", "ask_http", "ask_over_batches", "ask_over_websocket", "entry_of"]

Answers = dict[str, tuple[str, str]]
"""By operation and share: the cell, and what was answered in the same words."""

TIMEOUT = 10  # seconds

_ASSET = Assets().style
_NO_IDS = {
    "key_id": "0" * 12,
    "entry_id": "vlt_0",
    "workspace_id": "wsp_0",
    "path": "a",
    "making": "none",
    "session_id": "ses_0",
    "approval_id": "per_0",
    "message_id": "msg_0",
    "agent_id": "ses_0",
    "request_id": "per_0",
    "token": "0" * 32,
}
_OF_CODES = {code.value: cell for cell, code in ANSWERS.items() if code is not None}


class BlockingWebSocket:
    """A WebSocket whose calls wait.

    That of websockets.sync reads and writes in two threads, which an ssl.SSLSocket does not bear: about one
    handshake in a thousand is lost (https://github.com/python/cpython/issues/143756).
    """

    def __init__(self, runner: asyncio.Runner, connection: ClientConnection) -> None:
        self._runner = runner
        self._connection = connection

    def send(self, text: str) -> None:
        self._runner.run(self._connection.send(text))

    def recv(self) -> bytes:
        """Return a message; raise TimeoutError if there is none."""
        return self._runner.run(asyncio.wait_for(self._connection.recv(decode=False), TIMEOUT))


class Asker:
    """One caller, and the answers that it gets."""

    def __init__(self, caller: Caller, entry: str) -> None:
        self.caller = caller
        self.entry = entry
        self.deployment = caller.deployment
        self.handed = caller.deployment.handed
        self.answers: Answers = {}

    def client(self) -> httpx.Client:
        """Return what sends requests from the caller's address, with what it shows."""
        caller = self.caller
        transport = httpx.HTTPTransport(
            verify=caller.tls or self.deployment.nobody, local_address=caller.address
        )
        return httpx.Client(
            base_url=self.deployment.url,
            transport=transport,
            headers={**caller.headers, "Accept-Encoding": "identity"},
            timeout=200,
        )

    @contextlib.contextmanager
    def websocket(self, path: str) -> Iterator[BlockingWebSocket]:
        """Open a WebSocket."""
        with asyncio.Runner() as runner:
            connection = runner.run(self._connected(path))
            try:
                yield BlockingWebSocket(runner, connection)
            finally:
                runner.run(connection.close())

    async def _connected(self, path: str) -> ClientConnection:
        caller = self.caller
        return await connect(
            f"{self.deployment.url.replace('http', 'ws', 1)}{caller.prefix}{path}",
            additional_headers=caller.headers,
            ssl=caller.tls or self.deployment.nobody,
            local_addr=(caller.address, 0),
            proxy=None,
            max_size=None,
            open_timeout=TIMEOUT,
        )

    def asked(self, share: Made) -> Asked:
        token = self.deployment.keys["owner"]
        return Asked(share, self.caller.secret_of(share), f"ses_{uuid4().hex}", token)

    def share_of(self, name: str | None, *, ends: bool, cell: str) -> Made:
        """Return the share that an operation is about; one of its own, if it is to be the end of it."""
        if name is None:
            return self.deployment.shares["missing"]
        return self.deployment.fresh(name) if ends and cell == "ok" else self.deployment.shares[name]

    def note(self, operation: str, share: str | None, cell: str, answered: str, raw: bytes) -> None:
        """Note what one operation was answered."""
        self.answers[operation if share is None else f"{operation} {share}"] = (cell, answered)
        self.handed.answered(f"{self.entry}: {operation} {share or ''} by {self.caller.name}", raw)

    def hand_out(self, value: object, member: str, raw: bytes) -> None:
        """Note the credential that an answer hands out."""
        if member and isinstance(value, dict) and isinstance(value.get(member), str):
            self.handed.secret(value[member], raw)


# RPC


def ask_over_websocket(caller: Caller) -> Answers:
    """Call everything over one session."""
    asker = Asker(caller, "WebSocket")
    if expected("connect", caller.name, None) != "ok":
        with asker.client() as client:
            answered, raw = _refused_handshake(client, f"{caller.prefix}/rpc")
        for operation, call, share in _calls():
            asker.note(operation, share, _cell(caller, call, share), answered, raw)
        return asker.answers
    with asker.websocket("/rpc") as websocket:

        def exchange(lines: list[str]) -> Generator[bytes]:
            for line in lines:
                websocket.send(line)
            while True:
                raw = websocket.recv()
                yield raw
                match json.loads(raw):
                    case ["pull", number]:
                        websocket.send(json.dumps(["resolve", number, "heard"]))

        messages = Messages()
        for operation, call, share in _calls():
            _call(asker, messages, operation, call, share, exchange)
    return asker.answers


def ask_over_batches(caller: Caller) -> Answers:
    """Call everything, each in a batch of its own."""
    asker = Asker(caller, "batch")
    with asker.client() as client:

        def exchange(lines: list[str]) -> Generator[bytes]:
            with client.stream("POST", f"{caller.prefix}/rpc", content="\n".join(lines)) as answer:
                if answer.status_code == 200:
                    # A stream goes on after what was asked for has been answered.
                    yield from (line.encode() for line in answer.iter_lines())
                else:
                    yield answer.read()

        for operation, call, share in _calls():
            if not call.is_stream or _cell(caller, call, share) != "ok":
                _call(asker, Messages(), operation, call, share, exchange)
    return asker.answers


def _calls() -> Iterator[tuple[str, Call, str | None]]:
    for operation, call in CALLS.items():
        for share in SHARES if call.of_share else (None,):
            yield operation, call, share


def _cell(caller: Caller, call: Call, share: str | None) -> str:
    # Without a session there is no call.
    session = expected("connect", caller.name, None)
    return expected(call.right, caller.name, share) if session == "ok" else session


def _call(
    asker: Asker,
    messages: Messages,
    operation: str,
    call: Call,
    share: str | None,
    exchange: Callable[[list[str]], Generator[bytes]],
) -> None:
    cell = _cell(asker.caller, call, share)
    asked = asker.asked(asker.share_of(share, ends=call.ends_share, cell=cell))
    awaited = call.make(messages, asked)
    with contextlib.closing(exchange(messages.pulling(awaited))) as heard:
        answered, raw = _outcome(asker, operation, call, heard, awaited)
    asker.note(operation, share, cell, answered, raw)


def _outcome(
    asker: Asker, operation: str, call: Call, heard: Iterator[bytes], awaited: int
) -> tuple[str, bytes]:
    """Return what a call was answered, in the words of the table and as it was said."""
    for raw in heard:
        match json.loads(raw):
            case ["resolve", number, value] if number == awaited:
                asker.hand_out(value, call.hands_out, raw)
                return "ok", raw
            case ["reject", number, ["error", _, _, _, {"code": code}]] if number == awaited:
                if code == call.refused_with:
                    return "ok", raw
                return _OF_CODES.get(code, code), raw
            case ["reject", number, ["error", _, message]] if number == awaited and call.calls_back:
                # It was called, and its client's function too, which nobody hears of (PROTOCOL.md, P-5).
                return "ok" if "has sent its whole batch" in message else message, raw
            case {"error": _, "code": code}:
                return _OF_CODES.get(code, code), raw
            case _:
                asker.handed.answered(f"an event of {operation}", raw)
    return "no answer", b""


# HTTP


def ask_http(caller: Caller, entry: str) -> Answers:
    """Send every request that one of the entries in ENTRIES_OVER_HTTP has."""
    asker = Asker(caller, entry)
    with asker.client() as client:
        for operation, request in REQUESTS.items():
            if entry_of(operation, request) != entry:
                continue
            for share in SHARES if request.share else (None,):
                _request(asker, client, operation, request, share)
    return asker.answers


def entry_of(operation: str, request: Request) -> str:
    """Return where an operation over HTTP belongs."""
    if request.kind in ("stream", "socket"):
        return "events"
    path = operation.split()[1]
    return "HTTP API" if path.startswith(("/api", "/rpc", "/ws")) or request.kind == "json" else "pages"


def _request(asker: Asker, client: httpx.Client, operation: str, request: Request, share: str | None) -> None:
    cell = expected(request.right, _row(asker.caller, request), share)
    made = asker.share_of(share, ends=request.share == "ends", cell=cell)
    asked = asker.asked(made)
    method, path = operation.split()
    path = (
        path.replace(":path}", "}").format(
            share_id=made.id, part="prt_1", part_id="prt_file", name=_ASSET, **_NO_IDS
        )
        + request.query
    )
    if method == "WEBSOCKET":
        _handshake(asker, client, operation, path, share, cell)
        return
    options: dict[str, Any] = {}
    if request.body is not None:
        options["data" if request.kind == "form" else "json"] = request.body(asked)
    if request.kind == "form":
        options["headers"] = {"Origin": asker.deployment.url}
    path = asker.caller.prefix + path
    if request.kind == "stream":
        with client.stream(method, path) as answer:
            body = next(answer.iter_raw()) if answer.status_code == 200 else answer.read()
    else:
        answer = client.request(method, path, **options)
        body = answer.content
    raw = b"".join(b"%b: %b\n" % pair for pair in answer.headers.raw if pair[0].lower() != b"date") + body
    if request.hands_out and request.kind == "form":
        # One may be set for several paths.
        for name, value in {cookie.name: cookie.value or "" for cookie in answer.cookies.jar}.items():
            if name.startswith(request.hands_out):
                asker.handed.secret(value, raw)
        client.cookies.clear()  # a caller shows what its row says, and nothing besides
    elif request.hands_out and answer.status_code == 200:
        asker.hand_out(answer.json(), request.hands_out, raw)
    done = answer.status_code == request.status
    asker.note(operation, share, cell, "ok" if done else _refusal(body, answer.status_code), raw)
    if method == "GET" and request.kind in ("json", "page") and not path.startswith("/api/shares/"):
        head = client.head(path)
        answered = "ok" if head.status_code == request.status else f"{head.status_code}"
        asker.note(f"HEAD of {operation}", share, cell, answered, head.content)


def _row(caller: Caller, request: Request) -> str:
    """Return the row that counts: pages have no place to show a secret, and some forms ask for nobody."""
    if not request.sees_credentials:
        return "open: nobody" if caller.name.startswith("open: ") else "nobody"
    if request.kind in ("page", "form") and caller.shows_secret:
        before, _, secret = caller.name.rpartition(", ")
        return before or re.sub("(wrong )?secret", "nobody", secret)
    return caller.name


def _handshake(
    asker: Asker, client: httpx.Client, operation: str, path: str, share: str | None, cell: str
) -> None:
    if cell != "ok":
        asker.note(operation, share, cell, *_refused_handshake(client, asker.caller.prefix + path))
        return
    if REQUESTS[operation].status == 404:  # of what is not there there are no events
        answered, raw = _refused_handshake(client, asker.caller.prefix + path)
        asker.note(operation, share, cell, "ok" if b"NOT_FOUND" in raw else answered, raw)
        return
    with asker.websocket(path) as websocket:
        raw = b"" if share is None else websocket.recv()
    asker.note(operation, share, cell, "ok", raw)


def _refused_handshake(client: httpx.Client, path: str) -> tuple[str, bytes]:
    """Return what a handshake is answered that is not to succeed."""
    key = base64.b64encode(bytes(16)).decode()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    sec = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    with client.stream("GET", path, headers=upgrade | sec) as answer:
        if answer.status_code == 101:
            return "ok", b""
        body = answer.read()
    return _refusal(body, answer.status_code), body


def _refusal(body: bytes, status: int) -> str:
    """Return the cell for what was refused: by its code, which has to come with its own status."""
    if not body.startswith(b"{"):
        return str(status)
    code = json.loads(body)["code"]
    cell = _OF_CODES.get(code, code)
    return cell if STATUS.get(code) == status else f"{code} with {status}"
