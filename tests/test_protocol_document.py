"""PROTOCOL.md against the code: its examples happen as written, its tables and names are the code's.

A fenced block says by its info string how it is checked; one of a kind that is unknown here is an error.
"""

import asyncio
import contextlib
import json
import math
import re
import socket
import uuid
from array import array
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest
import uvicorn

from rpcshare import jsontext, rpc
from rpcshare.auth.admin_token import ADMIN, AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings, option_name
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc.decoding import Decoder
from rpcshare.rpc.encoding import Encoder
from rpcshare.rpc.messagepack import MESSAGEPACK
from rpcshare.server.agents_rpc import AgentRpc, AgentsRpc, ApprovalRpc
from rpcshare.server.app import create_app
from rpcshare.server.failures import STATUS, error_response, to_rpc_error
from rpcshare.server.keys_rpc import KeysRpc
from rpcshare.server.share_rpc import ShareRpc
from rpcshare.server.vault_rpc import VaultRpc
from rpcshare.server.workspaces_rpc import FilesRpc, WorkspaceRpc, WorkspacesRpc
from rpcshare.shares.events import Deleted, Snapshot, Sync
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.shares.syncdata import parse_batch
from rpcshare.storage import MemoryStore

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "PROTOCOL.md").read_text()

# What the examples take for granted.
CREDENTIALS = Credentials(uuid.UUID("2c1f6f0e-5d3a-4b0c-9a57-0f6f6f2b8e11"), "https://share.example")
NOW = 1757214689123
TOKEN = "TOKEN"
HOST = "share.example"


class Block(NamedTuple):
    kind: str
    lines: list[str]
    place: int


def blocks() -> Iterator[Block]:
    for match in re.finditer(r"^```(.+)\n((?:.*\n)*?)```$", DOCUMENT, re.MULTILINE):
        place = DOCUMENT[: match.start()].count("\n") + 1
        # An indented line goes on with the one above it, except in what is code anyway.
        text = match[2] if match[1].startswith(("python", "json")) else re.sub(r"\n {2,}", " ", match[2])
        yield Block(match[1], text.splitlines(), place)


BLOCKS = list(blocks())


def of_kind(kind: str) -> list[object]:
    return [pytest.param(block, id=f"line {block.place}") for block in BLOCKS if block.kind == kind]


def lines_of(kind: str) -> list[object]:
    found = (line for block in BLOCKS if block.kind == kind for line in block.lines)
    return [pytest.param(line, id=line) for line in found]


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table with this heading row, without its marks of emphasis."""
    rows = DOCUMENT.partition(f"\n{heading}\n")[2].splitlines()[1:]
    cut = next(i for i, row in enumerate(rows) if not row.startswith("|"))
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows[:cut]]


def test_every_example_is_of_a_kind_that_is_checked() -> None:
    checked = {"transcript demo", "transcript shares", "http", "expressions", "aborts", "faults"}
    checked |= {"python demo", "json expression", "json error", "json syncdata", "json event"}
    checked |= {"batch", "messagepack", "messagepack aborts"}
    assert {block.kind for block in BLOCKS} - checked == {"text"}


# Names


def test_every_rule_is_named_once_and_no_other_is_cited() -> None:
    defined = re.findall(r"^(?:\| )?\*\*\[([A-Z]-\d+)\]\*\*", DOCUMENT, re.MULTILINE)
    # A row of a table may name a rule that a paragraph goes on about.
    in_text = re.findall(r"^\*\*\[([A-Z]-\d+)\]", DOCUMENT, re.MULTILINE)
    assert len(in_text) == len(set(in_text))
    assert set(re.findall(r"\b[A-Z]-\d+\b", DOCUMENT)) <= set(defined)


def test_links_within_the_document_lead_to_its_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT)) <= anchors


def test_sections_that_the_code_cites_exist() -> None:
    headings = re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "rpcshare").rglob("*.py")))
    cited = re.findall(r'PROTOCOL\.md,\s+(?:#\s+)?"([^"]+)"', sources)
    assert cited
    assert set(cited) <= set(headings)


# Expressions


def known(value: object) -> object:
    """Return ``value`` in a form in which what differs on the wire is not equal."""
    if isinstance(value, rpc.RpcError):
        errors = [known(error) for error in getattr(value, "exceptions", ())]
        return ("error", value.name, value.message, value.properties, value.stack, errors)
    if isinstance(value, rpc.Headers | rpc.Request | rpc.Response):
        return value
    return repr(value)


@pytest.mark.parametrize("line", lines_of("expressions"))
def test_expression_stands_for_the_value(line: str) -> None:
    text, arrow, python = re.split(r" (<?=>) ", line, maxsplit=1)
    names = {**vars(rpc), "array": array, "datetime": partial(datetime), "math": math, "UTC": UTC}
    value = eval(python, names)
    session = rpc.Session()
    assert known(Decoder(session, session).decode(json.loads(text)).value) == known(value)
    if arrow == "<=>":
        encoder = Encoder(session, max_depth=session.limits.depth, raw_bytes=False)
        assert json.loads(rpc.JSON.encode(encoder.encode(value))) == json.loads(text)


@pytest.mark.parametrize("block", of_kind("json expression"))
def test_expression_can_be_read(block: Block) -> None:
    session = rpc.Session()
    Decoder(session, session).decode(json.loads("\n".join(block.lines)))
    assert session.closed is None


@pytest.mark.parametrize("line", lines_of("aborts"))
async def test_message_ends_the_session(line: str) -> None:
    text, _, why = line.partition(" => ")
    text = re.sub(r"\{(\d+) zeros\}", lambda match: "0" * int(match[1]), text)
    abort = json.dumps(["abort", ["error", "Error", why]])
    await replay([f"> {text}", f"< {abort}", f"= closed: 3000 {why}"], demo())


# Transcripts


def demo() -> rpc.RpcTarget:
    (block,) = (block for block in BLOCKS if block.kind == "python demo")
    names: dict[str, object] = dict(vars(rpc))
    exec("\n".join(block.lines), names)
    target = names["Demo"]()  # type: ignore[operator]
    assert isinstance(target, rpc.RpcTarget)
    return target


async def replay(lines: list[str], main: rpc.RpcTarget) -> None:
    """Play the client of a transcript; the server must send what is shown, and nothing else before it."""
    near, far = rpc.memory_pair()
    async with asyncio.timeout(30), rpc.Connection(near, main, describe_error=to_rpc_error) as connection:
        for line in [*lines, *last_word(lines)]:
            sign, _, text = line.partition(" ")
            if sign == ">":
                await far.send(text.encode(), text=True)
            elif sign == "<":
                assert json.loads(await far.receive()) == json.loads(text)
            elif text.startswith("closed: "):
                with pytest.raises(rpc.TransportClosedError) as caught:
                    await far.receive()
                assert f"closed: {caught.value}" == text
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        while tables_of(connection.session) != text:  # noqa: ASYNC110 -- tables tell nobody
                            await asyncio.sleep(0)
                assert tables_of(connection.session) == text


def last_word(lines: list[str]) -> list[str]:
    """Return a call whose answer is the next message only if the server had nothing more to say."""
    if lines[-1].startswith("= closed: "):
        return []
    number = sum(line.startswith(('> ["push"', '> ["pipe"', '> ["stream"')) for line in lines) + 1
    return ['> ["push", null]', f'> ["pull", {number}]', f'< ["resolve", {number}, null]']


def tables_of(session: rpc.Session) -> str:
    stats = session.stats()
    counts = [(stats.imports, "import"), (stats.exports, "export")]
    return ", ".join(f"{count} {noun}{'s' * (count != 1)}" for count, noun in counts)


@contextlib.asynccontextmanager
async def share_service() -> AsyncIterator[ShareService]:
    service = ShareService(MemoryStore(), LocalBroadcaster(), CREDENTIALS, clock=lambda: NOW)
    try:
        yield service
    finally:
        await service.close()


@pytest.mark.parametrize("block", of_kind("transcript demo"))
async def test_transcript_with_the_demo_target(block: Block) -> None:
    await replay(block.lines, demo())


@pytest.mark.parametrize("block", of_kind("transcript shares"))
async def test_transcript_with_share_rpc(block: Block) -> None:
    async with share_service() as service:
        await replay(block.lines, ShareRpc(service, Authenticator([]), ADMIN))


# Data and events


@pytest.mark.parametrize("block", of_kind("json syncdata"))
def test_sync_data_is_accepted(block: Block) -> None:
    data = json.loads("\n".join(block.lines))
    assert len(parse_batch(data).items) == len(data)


@pytest.mark.parametrize("line", lines_of("faults"))
def test_sync_data_is_refused(line: str) -> None:
    text, _, why = line.partition(" => ")
    with pytest.raises(ShareError) as caught:
        parse_batch(json.loads(text))
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_ARGUMENT, why)


@pytest.mark.parametrize("block", of_kind("json event"))
def test_event_has_its_form(block: Block) -> None:
    shown = json.loads("\n".join(block.lines))
    event: Snapshot | Sync | Deleted
    if shown["type"] == Deleted.type:
        event = Deleted(shown["shareID"])
    else:
        kind = next(kind for kind in (Snapshot, Sync) if kind.type == shown["type"])
        event = kind(shown["shareID"], shown["syncCount"], parse_batch(shown["data"]).items)
    assert jsontext.decode(event.json) == shown


# HTTP


@contextlib.asynccontextmanager
async def http_server() -> AsyncIterator[httpx.AsyncClient]:
    async with share_service() as service:
        authenticator = Authenticator([AdminTokenVerifier(TOKEN)])
        app, connections = create_app(Settings(), service, authenticator, f"https://{HOST}")
        config = uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve([listener]))
            port = listener.getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                yield client
            server.should_exit = True
            await serving
        await connections.close()


def message(lines: list[str]) -> tuple[str, dict[str, str], object]:
    """Return the first line, the headers and the JSON body of one side of an exchange."""
    headers = dict(line.split(": ", 1) for line in lines[1:] if not line.startswith(("{", "[")))
    bodies = [json.loads(line) for line in lines[1:] if line.startswith(("{", "["))]
    return lines[0], headers, bodies[0] if bodies else None


async def test_http_exchanges_take_place_one_after_the_other() -> None:
    exchanges = [
        text for block in BLOCKS if block.kind == "http" for text in "\n".join(block.lines).split("\n\n")
    ]
    async with http_server() as client:
        for lines in map(str.splitlines, exchanges):
            request, headers, body = message([line[2:] for line in lines if line[0] == ">"])
            status, wanted_headers, wanted = message([line[2:] for line in lines if line[0] == "<"])
            method, path = request.split(" ")
            content = None if body is None else json.dumps(body)
            async with client.stream(method, path, headers=headers, content=content) as response:
                assert str(response.status_code) == status, request
                assert {name: response.headers.get(name) for name in wanted_headers} == wanted_headers
                if wanted is not None:
                    assert json.loads(await response.aread()) == wanted


@pytest.mark.parametrize("block", of_kind("batch"))
async def test_batch_is_answered_as_shown(block: Block) -> None:
    lines = {sign: [line[2:] for line in block.lines if line[0] == sign] for sign in "><"}
    async with http_server() as client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        response = await client.post("/rpc", headers=headers, content="\n".join(lines[">"]))
    assert [json.loads(line) for line in response.text.split("\n")] == [
        json.loads(line) for line in lines["<"]
    ]


# MessagePack


@pytest.mark.parametrize("line", lines_of("messagepack"))
def test_messagepack_holds_the_message(line: str) -> None:
    octets, arrow, message = re.split(r" +(<?=>) ", line, maxsplit=1)
    frame = bytes.fromhex(octets)
    assert MESSAGEPACK.decode(frame) == eval(message)
    if arrow == "<=>":
        assert MESSAGEPACK.encode(eval(message)) == frame


@pytest.mark.parametrize("line", lines_of("messagepack aborts"))
def test_messagepack_is_refused(line: str) -> None:
    octets, why = re.split(r" +=> ", line, maxsplit=1)
    with pytest.raises(rpc.ProtocolError) as refused:
        MESSAGEPACK.decode(bytes.fromhex(octets))
    assert str(refused.value) == why


# Errors and tables


@pytest.mark.parametrize("block", of_kind("json error"))
def test_error_is_told_this_way_over_http(block: Block) -> None:
    shown = json.loads("\n".join(block.lines))
    response = error_response(ShareError(ErrorCode(shown["code"]), shown["error"]))
    assert jsontext.decode(bytes(response.body)) == shown


@pytest.mark.parametrize(
    ("heading", "target"),
    [
        ("| method | returns |", ShareRpc),
        ("| method of `ApiKeys` | returns |", KeysRpc),
        ("| method of `Vault` | returns |", VaultRpc),
        ("| method of `Workspaces` | returns |", WorkspacesRpc),
        ("| method of `Workspace` | returns |", WorkspaceRpc),
        ("| method of `Files` | returns |", FilesRpc),
        ("| method of `Agents` | returns |", AgentsRpc),
        ("| method of `Agent` | returns |", AgentRpc),
        ("| method of `Approval` | returns |", ApprovalRpc),
    ],
)
def test_methods_are_those_of_the_target(heading: str, target: type[rpc.RpcTarget]) -> None:
    shown = {row[0] for row in table(heading)}
    assert {name.partition("(")[0] for name in shown} == set(target.rpc_members)
    for signature in shown:
        name, _, parameters = signature.rstrip(")").partition("(")
        method = target.rpc_members[name]
        names = [parameter.strip() for parameter in parameters.split(",") if parameter.strip()]
        assert [parameter.rstrip("?") for parameter in names] == method.parameters  # type: ignore[union-attr]
        assert sum(1 for parameter in names if parameter[-1] != "?") == method.required  # type: ignore[union-attr]


def test_limits_are_the_defaults() -> None:
    shown = [int(row[1].replace(",", "")) for row in table("| name | default | bounds |")]
    assert shown == list(msgspec.structs.astuple(rpc.Limits()))
    settings = Settings()
    assert [
        settings.max_message_size,
        settings.max_values,
        settings.max_session_memory,
        settings.max_calls_in_flight,
    ] == [shown[0], shown[2], shown[3], shown[-1]]


def test_limits_of_callers_are_the_defaults() -> None:
    shown = {row[0].strip("`"): int(row[1].replace(",", "")) for row in table("| limit | default | bounds |")}
    names = ("max_creates", "max_failed_authentications", "max_connections")
    assert shown == {option_name(name): getattr(Settings(), name) for name in names}


def test_codes_have_their_status() -> None:
    for code, status, *_ in table("| code | status | message | when |"):
        assert int(status) == STATUS[ErrorCode(code)]
