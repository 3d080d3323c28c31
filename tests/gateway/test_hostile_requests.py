"""What who controls a sandbox may try: nothing of it reaches a provider, and nobody else waits for it."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.gateway_fixtures import KEY, Gateway
from gateway.scripted_provider import Asked, json_answer
from rpcshare.gateway.http_connection import ConnectionLimits
from rpcshare.gateway.models import WireKind
from rpcshare.gateway.wires import GatewayError, wire_of
from support.waiting import eventually

WHOLE = {"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
BODY = json.dumps({"model": "large", "messages": []}).encode()


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(gateway.path)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(gateway: Gateway, data: bytes) -> bytes:
    """Return all that the gateway answers to ``data``, after which it closes."""
    async with connected(gateway) as (reader, writer), asyncio.timeout(30):
        writer.write(data)
        return await reader.read(-1)


def head(target: str = "/acme/v1/chat/completions", method: str = "POST", *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *(fields or (f"Content-Length: {len(BODY)}",))]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/acme",
        "/acme/v1",
        "/acme/v1/",
        "/acme/v1/completions",
        "/acme/v1/embeddings",
        "/acme/v1/messages",
        "/acme/v1/messages/count_tokens",
        "/claude/v1/messages/count_tokens",
        "/claude/v1/chat/completions",
        "/acme/v1/files",
        "/acme/v1/../v1/chat/completions",
        "/acme/v1/chat/completions/../../../admin",
        "/acme/v1/chat/completions/",
        "/acme/v1//chat/completions",
        "/acme/v1/chat/%63ompletions",
        "/acme/v1/chat/completions%2f..%2f..%2fkeys",
        "/ACME/v1/chat/completions",
        "/acme/v2/chat/completions",
        "/other/v1/chat/completions",
        "/acme/v1/chat/completions;x",
        "/acme/v1/chat/completions#?x",
        "http://evil.example/acme/v1/chat/completions",
        "http://127.0.0.1/acme/v1/chat/completions",
        "//evil.example/acme/v1/chat/completions",
        "*",
        "acme/v1/chat/completions",
        "/acme/v1/chat/completions\\..\\x",
    ],
)
async def test_a_path_that_is_none_of_the_wires_leads_nowhere(gateway, provider, target):
    answer = await said(gateway, head(target) + BODY)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] == "there is nothing at this path"
    assert provider.asked == []


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "post"]
)
async def test_another_method_does_nothing(gateway, provider, method):
    answer = await said(gateway, head(method=method) + BODY)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert (await said(gateway, head("/acme/v1/models", "POST") + BODY)).startswith(b"HTTP/1.1 405 ")
    assert provider.asked == []


async def test_what_is_behind_a_question_mark_does_not_go_out(gateway, provider):
    provider.answers(json_answer(WHOLE))
    assert b" 200 " in await said(gateway, head("/acme/v1/chat/completions?beta=true&api-version=1") + BODY)
    assert provider.asked[0].target == "/v1/chat/completions"


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 50"),
        ("Content-Length: 5, 6",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: -1",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding : chunked",),
        ("Content-Length: 5", " folded: x"),
        ("Content-Length: 5", "X: a\0b"),
        ("Content-Length: 5", "Host: y"),
        ("Content-Length: 5", "X\x7f: a"),
    ],
)
async def test_a_request_that_can_be_read_in_two_ways_is_not_read(gateway, provider, fields):
    hidden = b"0\r\n\r\nPOST /acme/v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await said(gateway, head("/acme/v1/chat/completions", "POST", *fields) + hidden)
    assert answer.split(b" ")[1] in (b"400", b"501")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert provider.asked == []


async def test_a_request_hidden_behind_a_body_counts_as_one_of_its_own(gateway, provider):
    """Whoever connects is the sandbox, for all of the connection: each request is admitted by itself."""
    provider.answers(json_answer(WHOLE))
    first = head().replace(b"Connection: close\r\n", b"") + BODY
    answer = await said(gateway, first + head() + BODY)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert len(gateway.sessions.admitted) == 2


async def test_no_upgrade_is_taken(gateway, provider):
    provider.answers(json_answer(WHOLE))
    fields = (
        "Upgrade: websocket",
        "Sec-WebSocket-Key: x",
        "Sec-WebSocket-Version: 13",
        f"Content-Length: {len(BODY)}",
    )
    lines = [
        "POST /acme/v1/chat/completions HTTP/1.1",
        "Host: x",
        *fields,
        "Connection: Upgrade, close",
        "",
        "",
    ]
    answer = await said(gateway, "\r\n".join(lines).encode() + BODY)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert "upgrade" not in provider.asked[0].headers
    assert (await said(gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).startswith(b"HTTP/1.1 404 ")


async def test_the_host_of_a_request_changes_nothing(gateway, provider):
    provider.answers(json_answer(WHOLE))
    for name in ("evil.example", "127.0.0.1:1", "", "x@evil"):
        await gateway.chat(headers={"host": name, "x-forwarded-host": "evil.example"})
    assert {asked.headers["host"] for asked in provider.asked} == {f"127.0.0.1:{provider.port}"}


async def test_a_head_that_is_too_long_is_refused(gateway, provider):
    for fields in (
        [f"X-{n}: {'x' * 100}" for n in range(500)],
        [f"X{n}: x" for n in range(150)],
        ["X: " + "x" * 100_000],
    ):
        answer = await said(gateway, head("/acme/v1/chat/completions", "POST", *fields))
        assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert provider.asked == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        # From Python 3.12 on, what is nested is bounded by the C stack and not by the limit on recursion.
        (b'{"a":' * 70_000 + b"1" + b"}" * 70_000, "the body is not JSON"),
        (b"[]", "the body must be an object"),
        (b'{"model": "large"}garbage', "the body is not JSON"),
        (gzip.compress(BODY, mtime=0), "the body is not JSON"),
        (BODY.decode().encode("utf-16"), "the body is not JSON"),
        (b'{"model": 7}', "model: must be the name of a model"),
        (b'{"model": ["large"]}', "model: must be the name of a model"),
        (b'{"messages": []}', "model: must be the name of a model"),
        (b'{"model": "large", "stream": "true"}', "stream: must be true or false"),
        (b'{"model": "large", "MODEL": "huge"}', "two fields whose names differ in their case alone"),
        (b'{"model": "large", "Model": "huge"}', "two fields whose names differ in their case alone"),
        ('{"model": "large", "\u017ftream": true}'.encode(), "stream: must be in lower case"),
        (b'{"model": "large", "Stream": true}', "stream: must be in lower case"),
        (b'{"Model": "large"}', "model: must be in lower case"),
        (b'{"model": "large", "tools": {}}', "tools: must be a list"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(gateway, provider, body, message):
    response = await gateway.client.post("/acme/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert provider.asked == []


@pytest.mark.parametrize("body", [
    b'{"model": "huge", "messages": [], "model": "large"}',
    b'{"mod\\u0065l": "huge", "messages": [], "model": "large"}',
    b'{"messages": [1], "model": "large", "messages": []}',
])  # fmt: skip
async def test_a_name_that_is_there_twice_goes_out_once_as_it_was_read(gateway, provider, body):
    provider.answers(json_answer(WHOLE))
    response = await gateway.client.post("/acme/v1/chat/completions", content=body)
    assert response.status_code == 200
    assert provider.asked[0].body.count(b"model") == 1
    assert provider.asked[0].json == {"model": "large", "messages": []}
    response = await gateway.client.post(
        "/acme/v1/chat/completions", content=b'{"model":"large","model":"huge"}'
    )
    assert response.status_code == 404


@pytest.mark.parametrize(
    "model", ["huge", "large ", "Large", "acme/large", "large:online", "claude/large", ""]
)
async def test_another_model_is_refused(gateway, provider, model):
    response = await gateway.chat(model=model)
    assert response.status_code == 404
    message = "model: acme has large, small, and no other for this agent"
    assert response.json()["error"] == {
        "message": message,
        "type": "not_found_error",
        "param": None,
        "code": None,
    }
    response = await gateway.messages(model=model)
    assert response.json()["error"]["type"] == "not_found_error"
    assert provider.asked == []
    assert gateway.sessions.admitted == []


@pytest.mark.parametrize(
    "field",
    [
        "models",
        "fallbacks",
        "route",
        "plugins",
        "service_tier",
        "Service_Tier",
        "speed",
        "mcp_servers",
        "web_search_options",
        "api_base",
        "base_url",
        "api_key",
        "extra_headers",
        "provider",
        "litellm_params",
        "AWS_region_name",
    ],
)
async def test_fields_that_choose_another_model_host_or_price_are_refused(gateway, provider, field):
    for response in (await gateway.chat(**{field: ["huge"]}), await gateway.messages(**{field: "x"})):
        assert response.status_code == 403
        assert response.json()["error"]["message"] == f"{field.lower()}: this field is not let through"
    assert provider.asked == []


def read(kind: WireKind, **fields: Any) -> object:
    body = {"model": "large", "messages": [], **fields}
    return wire_of(kind).read(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("kind", "tool", "is_taken"),
    [
        (WireKind.OPENAI, {"type": "function", "function": {"name": "x"}}, True),
        (WireKind.OPENAI, {"type": "custom", "custom": {}}, True),
        (WireKind.OPENAI, {"type": "web_search"}, False),
        (WireKind.OPENAI, {"type": "mcp", "server_url": "https://evil.example"}, False),
        (WireKind.OPENAI, {"function": {}}, False),
        (WireKind.ANTHROPIC, {"name": "x", "input_schema": {}}, True),
        (WireKind.ANTHROPIC, {"type": "custom", "name": "x"}, True),
        (WireKind.ANTHROPIC, {"type": "bash_20250124", "name": "bash"}, True),
        (WireKind.ANTHROPIC, {"type": "web_search_20250305", "name": "web_search"}, False),
        (WireKind.ANTHROPIC, {"type": "web_fetch_20250910", "name": "web_fetch"}, False),
        (WireKind.ANTHROPIC, {"type": "code_execution_20250825"}, False),
        (WireKind.ANTHROPIC, {"type": "mcp_toolset"}, False),
        (WireKind.ANTHROPIC, {"type": 7}, False),
    ],
)
def test_tools_that_run_at_the_provider_are_refused(kind, tool, is_taken):
    if is_taken:
        read(kind, tools=[tool])
        return
    with pytest.raises(GatewayError) as caught:
        read(kind, tools=[{"type": "custom"}, tool])
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (WireKind.OPENAI, {"type": "image_url", "image_url": {"url": "https://evil.example/?data"}}),
        (WireKind.OPENAI, {"type": "image_url", "image_url": " HTTP://evil.example"}),
        (WireKind.OPENAI, {"type": "video_url", "video_url": {"url": "s3://bucket"}}),
        (WireKind.OPENAI, {"type": "file", "file": {"file_data": "https://evil.example"}}),
        (WireKind.OPENAI, {"image_url": {"url": "https://evil.example"}, "type": "x"}),
        (WireKind.OPENAI, {"type": "image_url", "image_url": {"url": "\x01 ht\ntps:evil.example"}}),
        (WireKind.OPENAI, {"type": "image_url", "image_url": {"url": " " * 5000 + "https:/evil.example"}}),
        (WireKind.ANTHROPIC, {"type": "image", "source": {"type": "url", "url": "https://evil.example"}}),
        (WireKind.ANTHROPIC, {"type": "document", "source": {"type": "url", "url": "https://evil.example"}}),
        (
            WireKind.ANTHROPIC,
            {
                "type": "tool_result",
                "tool_use_id": "x",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://evil.example"}}],
            },
        ),
    ],
)
def test_a_file_by_its_url_is_refused(kind, part):
    with pytest.raises(GatewayError) as caught:
        read(kind, messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, part]}])
    assert (caught.value.status, caught.value.reason) == (403, "url")


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (WireKind.OPENAI, {"type": "text", "text": "https://example.com is a page"}),
        (WireKind.OPENAI, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        (WireKind.ANTHROPIC, {"type": "tool_use", "name": "fetch", "input": {"url": "https://example.com"}}),
        (WireKind.ANTHROPIC, {"type": "tool_result", "content": "https://example.com"}),
        (WireKind.ANTHROPIC, {"type": "thinking", "thinking": "http://x"}),
        (
            WireKind.ANTHROPIC,
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "https://x"}},
        ),
        (WireKind.ANTHROPIC, {"type": "image", "source": {"type": "base64", "data": "AAAA"}}),
        (
            WireKind.ANTHROPIC,
            {"type": "document", "title": "Note: see", "source": {"type": "base64", "data": "AAAA"}},
        ),
        (
            WireKind.OPENAI,
            {"type": "file", "file": {"filename": "C:\\a.pdf", "file_data": "data:x;base64,AA"}},
        ),
    ],
)
def test_urls_in_texts_and_calls_are_no_files(kind, part):
    read(
        kind,
        messages=[{"role": "user", "content": [part]}, {"role": "user", "content": "https://example.com"}],
    )


async def test_several_answers_to_one_request_are_refused(gateway, provider):
    provider.answers(json_answer(WHOLE))
    for more in ({"n": 128}, {"n": "2"}, {"best_of": 2}, {"N": 2}):
        assert (await gateway.chat(**more)).status_code in (400, 403)
    assert provider.asked == []
    assert (await gateway.chat(n=1)).status_code == 200


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(provider, tmp_path, monkeypatch):
    limits = ConnectionLimits(body_bytes=1000)
    async with Gateway(provider, tmp_path, monkeypatch, limits=limits) as gateway:
        for fields in (("Content-Length: 1001",), ("Content-Length: 99999999999999999999",)):
            answer = await said(gateway, head("/claude/v1/messages", "POST", *fields, "Expect: 100-continue"))
            assert answer.startswith(b"HTTP/1.1 413 ")
            error = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert error["error"]["type"] == "request_too_large"
        assert gateway.it.pool.held == 0
        assert gateway.it.counts.refused == {"size": 2}


async def test_a_body_in_chunks_is_refused(gateway, provider):
    chunks = b"1\r\nx\r\n" * 1000
    answer = await said(
        gateway, head("/acme/v1/chat/completions", "POST", "Transfer-Encoding: chunked") + chunks
    )
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert provider.asked == []


@pytest.mark.parametrize("value", ["[],", "1,", "{},", '"a",', "[["])
async def test_a_body_of_very_many_values_holds_nobody_up(gateway, provider, value):
    body = b'{"model": "large", "messages": [' + value.encode() * (20 * 2**20 // len(value)) + b"1]}"
    longest, last = 0.0, asyncio.get_running_loop().time()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.001)
            longest, last = (
                max(longest, asyncio.get_running_loop().time() - last),
                asyncio.get_running_loop().time(),
            )

    watching = asyncio.create_task(watch())
    response = await gateway.client.post("/acme/v1/chat/completions", content=body)
    watching.cancel()
    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the request has more than 100,000 values"
    assert longest < 2.0  # to decode it takes ten


async def test_many_requests_go_at_a_pace(provider, tmp_path, monkeypatch):
    async with Gateway(provider, tmp_path, monkeypatch, limits=ConnectionLimits(requests=20)) as gateway:
        began = asyncio.get_running_loop().time()
        for _ in range(110):
            assert (await gateway.client.get("/acme/v1/models")).status_code == 200
        assert asyncio.get_running_loop().time() - began > 0.4


async def test_who_expects_100_is_told_to_go_on(gateway, provider):
    provider.answers(json_answer(WHOLE))
    async with connected(gateway) as (reader, writer), asyncio.timeout(30):
        writer.write(
            head("/acme/v1/chat/completions", "POST", f"Content-Length: {len(BODY)}", "Expect: 100-continue")
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        writer.write(BODY)
        assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 ")


async def test_bodies_take_a_bounded_room(provider, tmp_path, monkeypatch):
    limits = ConnectionLimits(held_bytes=100_000)
    async with Gateway(provider, tmp_path, monkeypatch, limits=limits) as gateway:
        async with connected(gateway) as (_, writer):
            writer.write(head("/acme/v1/chat/completions", "POST", "Content-Length: 90000") + b"x" * 80_000)
            await eventually(lambda: gateway.it.pool.held == 80_000)
            answer = await said(
                gateway, head("/acme/v1/chat/completions", "POST", "Content-Length: 50000") + b"x" * 50_000
            )
            assert answer.startswith(b"HTTP/1.1 429 ")
        await eventually(lambda: gateway.it.pool.held == 0)


async def test_a_thousand_slow_connections_keep_nobody_else_waiting(provider, tmp_path, monkeypatch):
    provider.answers(json_answer(WHOLE))
    limits = ConnectionLimits(connections=64, head=1.0, idle=1.0, body=1.0)
    async with Gateway(provider, tmp_path, monkeypatch, limits=limits) as gateway:
        other = await gateway.it.open(tmp_path / "other.sock", gateway.sessions)
        slow = [await asyncio.open_unix_connection(gateway.path) for _ in range(1000)]
        for number, (_, writer) in enumerate(slow):
            writer.write(
                (
                    b"POST /acme/v1/ch",
                    b"",
                    head("/acme/v1/chat/completions", "POST", "Content-Length: 9") + b"x",
                )[number % 3]
            )
        gateway.path = other.path
        assert (await said(gateway, head() + BODY)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(reader.read(-1) for reader, _ in slow), return_exceptions=True)
        assert sum(isinstance(each, bytes) and each.startswith(b"HTTP/1.1 408 ") for each in answers) > 30
        for _, writer in slow:
            writer.close()
        assert (await said(gateway, head() + BODY)).startswith(b"HTTP/1.1 200 ")


async def test_a_sandbox_has_a_bounded_number_of_requests_under_way(provider, tmp_path, monkeypatch):
    go_on = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await json_answer(WHOLE)(asked, writer)

    provider.answers(script)
    async with Gateway(provider, tmp_path, monkeypatch, limits=ConnectionLimits(under_way=5)) as gateway:
        asking = [asyncio.create_task(gateway.chat()) for _ in range(50)]
        await eventually(lambda: len(provider.asked) == 5 and sum(each.done() for each in asking) == 45)
        go_on.set()
        statuses = sorted([(await each).status_code for each in asking])
        assert statuses == [200] * 5 + [429] * 45
        assert len(provider.asked) == 5
        await gateway.sessions.usage(5)


async def test_an_answer_that_is_not_taken_ends(provider, tmp_path, monkeypatch):
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            writer.write(b": x\n" * 10_000)
            await writer.drain()

    provider.answers(script)
    async with Gateway(provider, tmp_path, monkeypatch, limits=ConnectionLimits(stalled=0.3)) as gateway:
        async with connected(gateway) as (_, writer):
            body = json.dumps({"model": "large", "stream": True}).encode()
            writer.write(head("/acme/v1/chat/completions", "POST", f"Content-Length: {len(body)}") + body)
            assert (await gateway.sessions.usage()).is_estimated
        await eventually(lambda: provider.left == 1)


async def test_random_bytes_are_no_request(gateway, provider):
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        bytes(1000),
        b"\r\n" * 1000,
        b"GET\r\n\r\n",
        b"\xff" * 50_000,
    ):
        async with connected(gateway) as (reader, writer), asyncio.timeout(30):
            writer.write(data)
            writer.write_eof()
            answer = await reader.read(-1)
            assert answer == b"" or answer.split(b" ")[1] in (b"400", b"431")
    assert provider.asked == []
    assert KEY not in str(gateway.it.counts)
