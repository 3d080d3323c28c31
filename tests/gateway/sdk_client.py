"""Asks a gateway by the providers' own libraries, and prints what each call came to. See test_sdks.py."""

import json
import sys
from collections.abc import Callable

import anthropic
import openai

port = sys.argv[1]
chat = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/acme/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}/claude", api_key="none", max_retries=0)
ASKED: list = [{"role": "user", "content": "Hello"}]
TOOLS: list = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def openai_stream() -> object:
    text, usage, calls = "", None, ""
    for chunk in chat.chat.completions.create(model="large", messages=ASKED, tools=TOOLS, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            calls += "".join(each.function.arguments or "" for each in choice.delta.tool_calls or [])
        usage = chunk.usage or usage
    return [text, calls, usage and usage.completion_tokens]


def openai_whole() -> object:
    answer = chat.chat.completions.create(model="large", messages=ASKED)
    return [answer.choices[0].message.content, answer.usage and answer.usage.prompt_tokens]


def anthropic_stream() -> object:
    with claude.messages.stream(model="large", max_tokens=9, messages=ASKED) as stream:
        text = "".join(stream.text_stream)
        return [text, stream.get_final_message().usage.output_tokens]


def anthropic_whole() -> object:
    answer = claude.messages.create(model="large", max_tokens=9, messages=ASKED)
    return [answer.content[0].text, answer.usage.input_tokens]


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except (openai.APIError, anthropic.APIError) as exc:
        return [type(exc).__name__, getattr(exc, "status_code", None), exc.message]


CALLS: dict[str, Callable[[], object]] = {
    "openai models": lambda: [each.id for each in chat.models.list()],
    "anthropic models": lambda: [each.id for each in claude.models.list()],
    "openai other model": lambda: chat.chat.completions.create(model="huge", messages=ASKED),
    "anthropic other model": lambda: claude.messages.create(model="huge", max_tokens=9, messages=ASKED),
    "openai path": lambda: chat.embeddings.create(model="large", input="x"),
    "anthropic count": lambda: claude.messages.count_tokens(model="large", messages=ASKED),
    "openai stream": openai_stream,
    "openai whole": openai_whole,
    "openai limit": openai_whole,
    "openai broken": openai_stream,
    "anthropic stream": anthropic_stream,
    "anthropic whole": anthropic_whole,
    "anthropic overloaded": anthropic_whole,
    "anthropic error": anthropic_stream,
    "anthropic broken": anthropic_stream,
}
print(json.dumps({name: outcome(call) for name, call in CALLS.items()}))
