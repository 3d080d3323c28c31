"""What passes through the gateway, there and back, and how."""

import asyncio
import gzip
import json
import resource
import zlib
from contextlib import aclosing

import httpx
import pytest

from gateway.gateway_fixtures import ANTHROPIC_KEY, KEY, Gateway, tables
from gateway.scripted_provider import Asked, chunk, event, json_answer, stream
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.upstream import SecretScrubber, UpstreamTimeouts
from support.waiting import eventually

SAID = [
    chunk("Hel"),
    chunk("lo é𝄞"),
    chunk(finish_reason="stop"),
    event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}),
    b"data: [DONE]\n\n",
]
WHOLE = {"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
MESSAGE = {"content": [{"type": "text", "text": "Hi"}], "usage": {"input_tokens": 9, "output_tokens": 3}}


async def test_the_key_is_added_and_nothing_else_of_the_request_goes_out(gateway, provider):
    provider.answers(json_answer(WHOLE))
    headers = {
        "authorization": "Bearer none-in-here",
        "x-api-key": "inner",
        "cookie": "a=b",
        "x-session-id": "ses_1",
        "x-forwarded-for": "1.2.3.4",
        "openai-organization": "org-evil",
        "proxy-authorization": "Basic x",
        "anthropic-beta": "context-1m",
        "user-agent": "opencode/1.18.33",
        "accept": "text/html",
    }
    assert (await gateway.chat(headers=headers)).json() == WHOLE
    (asked,) = provider.asked
    assert asked.target == "/v1/chat/completions"
    assert asked.headers == {
        "host": f"127.0.0.1:{provider.port}",
        "connection": "keep-alive",
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "rpcshare",
        "authorization": f"Bearer {KEY}",
        "content-length": str(len(asked.body)),
    }


async def test_a_message_goes_out_with_the_headers_of_its_wire(gateway, provider):
    provider.answers(json_answer(MESSAGE))
    headers = {"anthropic-version": "2024-01-01", "anthropic-beta": "a-2025-01-01,b", "x-api-key": "inner"}
    assert (await gateway.messages(headers=headers)).json() == MESSAGE
    await gateway.messages(headers={"anthropic-version": "x\ty", "anthropic-beta": "a" * 600})
    first, second = (asked.headers for asked in provider.asked)
    assert first["x-api-key"] == ANTHROPIC_KEY
    assert "authorization" not in first
    assert (first["anthropic-version"], first["anthropic-beta"]) == ("2024-01-01", "a-2025-01-01,b")
    assert second["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in second


async def test_a_stream_is_asked_to_say_what_it_has_counted(gateway, provider):
    provider.answers(stream(SAID))
    for options in ({}, {"stream_options": {"include_usage": False, "x": 1}}, {"stream_options": None}):
        await gateway.chat(stream=True, **options)
    await gateway.chat(stream=False)
    assert [asked.json.get("stream_options") for asked in provider.asked] == [{"include_usage": True}] * 3 + [
        None
    ]
    assert provider.asked[0].headers["accept"] == "text/event-stream"


async def test_a_provider_that_refuses_options_of_streams_gets_none(provider, tmp_path, monkeypatch):
    provider.answers(stream(SAID))
    catalogue = tables(provider.url, acme={"stream_usage": False})
    async with Gateway(provider, tmp_path, monkeypatch, catalogue=catalogue) as gateway:
        await gateway.chat(stream=True, stream_options={"include_usage": True})
        assert "stream_options" not in provider.asked[0].json
        assert (await gateway.sessions.usage()).output == 3


async def test_fields_that_nobody_here_knows_go_on(gateway, provider):
    provider.answers(json_answer(WHOLE))
    more = {"reasoning_effort": "high", "seed": 2**70, "temperature": 0.1, "x": {"ü": [None, True]}}
    await gateway.chat(**more)
    assert {name: provider.asked[0].json[name] for name in more} == more


@pytest.mark.parametrize("size", [1, 3, 7, 100_000])
async def test_a_stream_is_the_same_however_it_is_cut(gateway, provider, size):
    body = b": OPENROUTER PROCESSING\n\n".join(SAID)
    provider.answers(stream([body[at : at + size] for at in range(0, len(body), size)]))
    response = await gateway.chat(stream=True, headers={"x-session-id": "ses_1"})
    assert response.content == body
    assert response.headers["content-type"] == "text/event-stream"
    usage = await gateway.sessions.usage()
    assert (usage.input, usage.output, usage.is_estimated) == (9, 3, False)
    assert gateway.sessions.admitted == [("ses_1", "acme/large")]


async def test_each_piece_passes_as_it_arrives(gateway, provider):
    taken = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for piece in SAID:
            writer.write(piece)
            await taken.wait()  # until it has reached the other end
            taken.clear()
        writer.close()

    provider.answers(script)
    body = {"model": "large", "messages": [], "stream": True}
    seen = []
    async with gateway.client.stream("POST", "/acme/v1/chat/completions", json=body) as response:
        async for piece in response.aiter_raw():
            seen.append(piece)
            taken.set()
    assert seen == SAID


async def test_an_error_of_the_provider_passes_on_without_the_key(gateway, provider):
    body = {"error": {"message": f"Incorrect API key {KEY}, sk-te***********cdef", "type": "x", "code": "y"}}
    headers = f"Retry-After: 7\r\nx-request-id: r{KEY}\r\nx-ratelimit-remaining-tokens: 3\r\n"
    headers += "Set-Cookie: a=b\r\nServer: s\r\n"
    provider.answers(json_answer(body, 429, headers))
    response = await gateway.chat()
    assert response.status_code == 429
    message = "Incorrect API key [redacted], [redacted]"
    assert response.json() == {"error": {"message": message, "type": "x", "code": "y"}}
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-request-id"] == "r[redacted]"
    assert response.headers["x-ratelimit-remaining-tokens"] == "3"
    assert not {"set-cookie", "server"} & set(response.headers)
    usage = await gateway.sessions.usage()
    assert (usage.tokens, usage.cost) == (0, 0.0)
    assert gateway.it.counts.requests == {("acme/large", "error"): 1}
    assert len(provider.asked) == 1


async def test_overloaded_passes_on_as_it_is(gateway, provider):
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    provider.answers(json_answer(body, 529))
    response = await gateway.messages(stream=True)
    assert (response.status_code, response.json()) == (529, body)
    assert len(provider.asked) == 1


async def test_a_long_error_passes_on_in_part(gateway, provider):
    provider.answers(json_answer(b"x" * 10_000_000, 500, media_type="text/plain"))
    response = await gateway.chat()
    assert (response.status_code, response.content) == (500, b"x" * 65536)


async def test_a_key_in_an_answer_is_taken_out_though_it_be_cut(gateway, provider):
    text = f"a{KEY}b{KEY[:9]}c{KEY}"
    body = event({"choices": [{"delta": {"content": text}}]})
    provider.answers(stream([body[at : at + 5] for at in range(0, len(body), 5)]))
    response = await gateway.chat(stream=True)
    assert KEY not in response.text
    assert f"a[redacted]b{KEY[:9]}c[redacted]" in response.text


def test_no_more_is_held_back_than_may_be_the_beginning_of_the_key():
    scrubber = SecretScrubber("sk-aab")
    assert [scrubber.feed(each) for each in (b"x sk-", b"aa", b"c", b"s\n\n", b"sk-aa", b"bs")] == [
        b"x ",
        b"",
        b"sk-aac",
        b"s\n\n",
        b"",
        b"[redacted]",
    ]
    assert scrubber.end() == b"s"


async def test_a_redirect_is_not_followed(gateway, provider):
    provider.answers(json_answer({}, 307, f"Location: http://127.0.0.1:{provider.port}/other\r\n"))
    response = await gateway.chat()
    assert response.status_code == 502
    assert (
        response.json()["error"]["message"]
        == "the provider answers with 307, a redirect, which is not followed"
    )
    assert "location" not in response.headers
    assert len(provider.asked) == 1


async def test_a_provider_that_cannot_be_reached_costs_nothing(provider, tmp_path, monkeypatch):
    catalogue = tables("http://127.0.0.1:9/v1")
    async with Gateway(provider, tmp_path, monkeypatch, catalogue=catalogue) as gateway:
        response = await gateway.messages()
        assert response.status_code == 502
        error = {"type": "api_error", "message": "the provider cannot be reached"}
        assert response.json() == {"type": "error", "error": error}
        usage = await gateway.sessions.usage()
        assert (usage.tokens, usage.is_estimated) == (0, False)
        assert gateway.it.counts.requests == {("claude/large", "failed"): 1}


async def test_a_provider_that_never_answers_is_asked_once_and_may_have_read_it(
    provider, tmp_path, monkeypatch
):
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    provider.answers(script)
    timeouts = UpstreamTimeouts(begin=0.2)
    async with Gateway(provider, tmp_path, monkeypatch, timeouts=timeouts) as gateway:
        response = await gateway.chat(messages=[{"role": "user", "content": "x" * 4000}])
        assert (response.status_code, response.json()["error"]["type"]) == (504, "timeout_error")
        usage = await gateway.sessions.usage()
        assert 1000 < usage.input < 1050
        assert usage.is_estimated
    assert len(provider.asked) == 1


async def test_a_provider_that_closes_is_asked_once(gateway, provider):
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    provider.answers(script)
    response = await gateway.chat()
    assert response.status_code == 502
    assert response.json()["error"]["message"] == "the provider has closed the connection"
    assert (await gateway.sessions.usage()).is_estimated
    assert len(provider.asked) == 1


async def test_a_connection_that_the_provider_has_closed_meanwhile_is_not_used_again(gateway, provider):
    provider.answers(json_answer(WHOLE))
    for _ in range(5):
        assert (await gateway.chat()).status_code == 200
        await asyncio.sleep(0.02)  # it closes after each answer, and has not said so
    assert len(provider.asked) == 5


async def test_an_error_in_the_first_event_passes_on_as_it_is(gateway, provider):
    body = event({"error": {"message": "You exceeded your quota", "code": 429}}) + b"data: [DONE]\n\n"
    provider.answers(stream([body]))
    response = await gateway.chat(stream=True)
    assert (response.status_code, response.content) == (200, body)
    assert (await gateway.sessions.usage()).output == 0


async def test_chunks_without_choices_are_counted_and_pass_on(gateway, provider):
    """Azure's first has the results of its filters, and the last the usage."""
    first = event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "usage": None})
    provider.answers(stream([first, *SAID]))
    response = await gateway.chat(stream=True)
    assert response.content == b"".join([first, *SAID])
    assert (await gateway.sessions.usage()).output == 3


async def test_a_stream_that_dies_between_events_ends_in_an_error_of_its_wire(gateway, provider):
    provider.answers(stream(SAID[:2], end=False))
    response = await gateway.chat(stream=True)
    assert response.content.startswith(b"".join(SAID[:2]))
    last = response.text.strip().rpartition("data: ")[2]
    assert json.loads(last)["error"]["message"] == "the provider's answer has ended too soon"
    assert "[DONE]" not in response.text
    start = event({"type": "message_start", "message": {"usage": {"input_tokens": 7}}}, "message_start")
    provider.answers(stream([start], end=False))
    response = await gateway.messages(stream=True)
    name, data = response.text.strip().split("\n")[-2:]
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "api_error"
    usage = await gateway.sessions.usage(2)
    assert (usage.input, usage.is_estimated) == (7, True)


async def test_a_stream_that_dies_within_an_event_is_cut(gateway, provider):
    provider.answers(stream([SAID[0], SAID[1][:20]], end=False))
    with pytest.raises(httpx.HTTPError):
        await gateway.chat(stream=True)
    assert (await gateway.sessions.usage()).output == 1


async def test_a_stream_that_stops_is_ended(provider, tmp_path, monkeypatch):
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + SAID[0])
        await asyncio.sleep(3600)

    provider.answers(script)
    for timeouts, message in (
        (UpstreamTimeouts(idle=0.2), "the provider has stopped in the middle of its answer"),
        (UpstreamTimeouts(total=0.2), "the answer takes too long"),
    ):
        async with Gateway(provider, tmp_path, monkeypatch, timeouts=timeouts) as gateway:
            response = await gateway.chat(stream=True)
            assert message in response.text
            assert (await gateway.sessions.usage()).is_estimated


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_an_answer_that_is_compressed_all_the_same_is_read(gateway, provider, coding):
    body = b"".join(SAID)
    data = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    provider.answers(
        stream(
            [data[at : at + 9] for at in range(0, len(data), 9)], headers=f"Content-Encoding: {coding}\r\n"
        )
    )
    response = await gateway.chat(stream=True)
    assert response.content == body
    assert "content-encoding" not in response.headers
    assert (await gateway.sessions.usage()).output == 3


async def test_an_answer_in_another_coding_is_refused(gateway, provider):
    provider.answers(stream(SAID, headers="Content-Encoding: br\r\n"))
    response = await gateway.chat(stream=True)
    assert response.status_code == 502
    assert "the provider compresses its answer" in response.json()["error"]["message"]


async def test_a_small_answer_that_becomes_large_is_not_held(gateway, provider):
    size = 100 * 2**20
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(packing.compress(bytes(2**20)) for _ in range(size // 2**20)) + packing.flush()
    assert len(data) < 2**20
    provider.answers(stream([data], headers="Content-Encoding: gzip\r\n"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = 0
    body = {"model": "large", "messages": [], "stream": True}
    async with gateway.client.stream("POST", "/acme/v1/chat/completions", json=body) as response:
        async for piece in response.aiter_raw():
            got += len(piece)
    assert got == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


async def test_a_slow_reader_slows_the_provider_down(gateway, provider):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = 0
    piece = event({"choices": [{"delta": {"content": "x" * 100_000}}]})

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for _ in range(1000):  # 100 MB
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        writer.close()

    provider.answers(script)
    body = {"model": "large", "messages": [], "stream": True}
    async with gateway.client.stream("POST", "/acme/v1/chat/completions", json=body) as response:
        last = -1
        while sent != last:  # until it waits
            last = sent
            await asyncio.sleep(0.3)
        assert sent < 40_000_000  # nearly all of it in the kernel's buffers
        got = 0
        async with aclosing(response.aiter_raw()) as pieces:
            async for each in pieces:
                got += len(each)
    assert got == 1000 * len(piece)
    assert (await gateway.sessions.usage()).output == 1000 * 25_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


async def test_who_goes_away_at_the_end_pays_for_all_of_it(gateway, provider):
    """Of a model that thinks unseen, no text shows how much that was."""
    go_on = asyncio.Event()
    usage = {"prompt_tokens": 9, "completion_tokens": 30_000}

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(chunk("All of it"))
        await go_on.wait()
        writer.write(
            chunk(finish_reason="stop") + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
        )
        await writer.drain()
        writer.close()

    provider.answers(script)
    body = {"model": "large", "messages": [], "stream": True}
    async with gateway.client.stream("POST", "/acme/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_raw():
            break
    await asyncio.sleep(0.2)
    go_on.set()
    used = await gateway.sessions.usage()
    assert (used.output, used.is_estimated) == (30_000, False)


async def test_who_goes_away_ends_a_stream_and_pays_for_what_was_said(gateway, provider):
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + chunk("x" * 400))
        await asyncio.sleep(3600)

    provider.answers(script)
    body = {"model": "large", "messages": [], "stream": True}
    async with gateway.client.stream("POST", "/acme/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_raw():
            break
    usage = await gateway.sessions.usage()
    assert (usage.output, usage.is_estimated) == (100, True)
    await eventually(lambda: provider.left > 0)
    assert gateway.it.counts.requests == {("acme/large", "left"): 1}
    assert gateway.it.counts.under_way == 0


async def test_an_answer_that_is_no_stream_is_counted_though_nobody_waits_for_it(gateway, provider):
    go_on = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await json_answer(WHOLE)(asked, writer)

    provider.answers(script)
    asking = asyncio.create_task(gateway.chat())
    await eventually(lambda: bool(provider.asked))
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.sleep(0.1)
    assert provider.left == 0
    go_on.set()
    usage = await gateway.sessions.usage()
    assert (usage.input, usage.output, usage.is_estimated) == (9, 3, False)


async def test_models_are_listed_in_the_form_of_the_wire_and_nobody_is_asked(gateway, provider):
    listed = (await gateway.client.get("/acme/v1/models")).json()
    assert [each["id"] for each in listed["data"]] == ["large", "small"]
    listed = (await gateway.client.get("/claude/v1/models")).json()
    assert (listed["data"][0]["id"], listed["has_more"], listed["last_id"]) == ("large", False, "large")
    assert provider.asked == []
    assert gateway.sessions.admitted == []


async def test_what_the_agents_refuse_is_said_in_the_form_of_the_wire(gateway, provider):
    for code, status, kind in (
        (ErrorCode.FORBIDDEN, 403, "permission_error"),
        (ErrorCode.RATE_LIMITED, 429, "rate_limit_error"),
        (ErrorCode.STORAGE_UNAVAILABLE, 503, "overloaded_error"),
    ):
        gateway.sessions.error = ShareError(code, "the budget is spent", retry_after=2.0)
        for response in (await gateway.chat(), await gateway.messages()):
            assert response.status_code == status
            assert response.json()["error"]["type"] == kind
            assert response.json()["error"]["message"] == "the budget is spent"
            assert response.headers["retry-after"] == "2"
    assert provider.asked == []
    assert gateway.sessions.charged == []
    assert gateway.it.counts.refused == {"session": 6}


async def test_a_failure_of_the_agents_is_told_to_nobody(gateway, provider, caplog):
    gateway.sessions.error = RuntimeError("sk-secret of the agents")
    response = await gateway.chat()
    assert (response.status_code, response.json()["error"]["message"]) == (500, "Internal server error")


async def test_requests_of_sub_agents_are_those_of_the_session_at_the_top(gateway, provider):
    provider.answers(json_answer(WHOLE))
    for headers in (
        {},
        {"x-session-id": "ses_top"},
        {"x-session-id": "ses_child", "x-parent-session-id": "ses_top"},
        {"x-session-id": "ses_grandchild", "x-parent-session-id": "ses_child"},
        {"x-session-id": "a", "x-parent-session-id": "b"},
        {"x-session-id": "b", "x-parent-session-id": "a"},
        {"x-session-id": "no such id!"},
        {"x-session-affinity": "ses_affinity"},
        {"x-opencode-session": "ses_zen"},
    ):
        await gateway.chat(headers=headers)
    sessions = [session for session, _ in gateway.sessions.admitted]
    assert sessions[:4] == [None, "ses_top", "ses_top", "ses_top"]
    assert sessions[6:] == [None, "ses_affinity", "ses_zen"]


async def test_closing_ends_what_is_under_way_and_tells_what_it_has_used(provider, tmp_path, monkeypatch):
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + chunk("x" * 40))
        await asyncio.sleep(3600)

    provider.answers(script)
    async with Gateway(provider, tmp_path, monkeypatch) as gateway:
        asking = asyncio.create_task(gateway.chat(stream=True))
        await eventually(lambda: bool(provider.asked and gateway.it.counts.under_way))
        await asyncio.sleep(0.1)
        await gateway.it.close()
        with pytest.raises(httpx.HTTPError):
            await asking
        assert [usage.output for _, _, usage in gateway.sessions.charged] == [10]
        assert not gateway.path.exists()
