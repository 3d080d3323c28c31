"""The libraries of OpenAI and Anthropic, which others wrote, as clients of the gateway.

They are large, so they are installed when these tests are run, in an environment of their own.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.loopback_port import port_of
from gateway.scripted_provider import Script, ScriptedProvider, chunk, event, json_answer, stream

PACKAGES = ("openai==3.57.0", "anthropic==2.14.0")
CLIENT = Path(__file__).with_name("sdk_client.py")

pytestmark = pytest.mark.rare


@pytest.fixture(scope="module")
def python(pytestconfig: pytest.Config) -> Path:
    """An interpreter that has the libraries. It is kept in pytest's cache."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("model-sdks")
    python = folder / "bin" / "python"
    done = folder / "-".join(PACKAGES)
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True)
        installing = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
        if (code := subprocess.run(installing, capture_output=True, check=False).returncode) != 0:
            pytest.skip(f"the libraries cannot be installed here: pip has ended with {code}")
        done.touch()
    return python


def completion() -> list[bytes]:
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at"'},
    }
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "large"}
    calls = [{**base, "choices": [{"index": 0, "delta": {"tool_calls": [each]}}]} for each in (call, rest)]
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return [
        b": OPENROUTER PROCESSING\n\n",
        chunk("Hel"),
        chunk("lo"),
        *map(event, calls),
        chunk(finish_reason="tool_calls"),
        event({**base, "choices": [], "usage": usage}),
        b"data: [DONE]\n\n",
    ]


def message() -> list[bytes]:
    usage = {"input_tokens": 9, "output_tokens": 1}
    start = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "large",
        "content": [],
        "usage": usage,
    }
    return [
        event({"type": "message_start", "message": {**start, "stop_reason": None}}, "message_start"),
        event({"type": "ping"}, "ping"),
        event(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            "content_block_start",
        ),
        event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
            "content_block_delta",
        ),
        event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
        event(
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
            "message_delta",
        ),
        event({"type": "message_stop"}, "message_stop"),
    ]


ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
WHOLE = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "large",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "large",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
ANSWERS: list[Script] = [
    stream(completion()),
    json_answer(WHOLE),
    json_answer(
        {"error": {"message": "slow down", "type": "tokens", "code": "rate_limit"}}, 429, "Retry-After: 9\r\n"
    ),
    stream(completion()[:3], end=False),
    stream(message()),
    json_answer(MESSAGE),
    json_answer(ERROR, 529),
    stream([*message()[:4], event(ERROR, "error")]),
    stream(message()[:4], end=False),
]
CUT = "the provider's answer has ended too soon"


async def test_what_they_see_is_what_they_see_of_a_provider(
    provider: ScriptedProvider, gateway: Any, python: Path
):
    provider.answers(*ANSWERS)
    async with port_of(gateway.path) as port:
        process = await asyncio.create_subprocess_exec(
            python, CLIENT, str(port), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    seen = json.loads(output)
    assert seen.pop("openai models") == ["large", "small"]
    assert seen.pop("anthropic models") == ["large"]
    for name in ("openai other model", "anthropic other model", "openai path", "anthropic count"):
        assert seen.pop(name)[:2] == ["NotFoundError", 404]
    assert seen.pop("openai stream") == ["Hello", '{"at": 1}', 3]
    assert seen.pop("openai whole") == ["Hello", 9]
    assert seen.pop("openai limit")[:2] == ["RateLimitError", 429]
    kind, _, said = seen.pop("openai broken")
    assert (kind, said) == ("APIError", CUT)
    assert seen.pop("anthropic stream") == ["Hello", 3]
    assert seen.pop("anthropic whole") == ["Hello", 9]
    assert seen.pop("anthropic overloaded")[:2] == ["OverloadedError", 529]
    assert "Overloaded" in seen.pop("anthropic error")[2]
    assert CUT in seen.pop("anthropic broken")[2]
    assert seen == {}
    assert len(provider.asked) == len(ANSWERS)
    estimates = [usage.is_estimated for _, _, usage in gateway.sessions.charged]
    assert estimates == [False, False, False, True, False, False, False, True, True]
