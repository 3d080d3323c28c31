"""A real opencode that has no key: all that it asks of models goes through the gateway."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.gateway_fixtures import ANTHROPIC_KEY, KEY, Gateway, tables
from gateway.loopback_port import port_of
from gateway.scripted_provider import Asked, Script, ScriptedProvider, chunk, event, stream
from opencode.opencode_runner import AVAILABLE, MISSING, Opencode, Provider
from rpcshare.errors import ErrorCode, ShareError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not AVAILABLE, reason=MISSING)]


def opencode_of(folder: Path, provider: Provider, gateway: Gateway, port: int, model: str) -> Opencode:
    config: dict[str, Any] = {
        "provider": gateway.it.catalogue.opencode_providers(port),
        "enabled_providers": ["acme", "claude"],
        "model": model,
        "small_model": "acme/small",
        "permission": {"task": "allow"},
    }
    return Opencode(folder, provider, config=config)


def has_answer(asked: Asked) -> bool:
    """Whether a tool has answered already."""
    return any(name in asked.body for name in (b'"role":"tool"', b'"tool_result"'))


def with_sub_agent(asked: Asked, writer: asyncio.StreamWriter) -> Any:
    """Answer as a model that has a sub-agent do it all, on either wire."""
    names = [tool.get("name") or tool["function"]["name"] for tool in asked.json.get("tools", [])]
    task = {"description": "do it", "prompt": "Say hello", "subagent_type": "general"}
    calls = "task" in names and b"Have it done" in asked.body and not has_answer(asked)
    return (of_anthropic if asked.target.endswith("/messages") else of_openai)(task if calls else None)(
        asked, writer
    )


def of_openai(task: object) -> Script:
    function = {"name": "task", "arguments": json.dumps(task)}
    said = [chunk("Done.")]
    if task is not None:
        delta = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}
        said = [event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})]
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 60}}
    finish = chunk(finish_reason="stop" if task is None else "tool_calls")
    return stream([*said, finish, event({"id": "c", "choices": [], "usage": usage}), b"data: [DONE]\n\n"])


def of_anthropic(task: object) -> Script:
    def named(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    usage = {
        "input_tokens": 40,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "large",
        "content": [],
        "usage": usage,
    }
    if task is None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": "Done."}
    else:
        block = {"type": "tool_use", "id": "tu_1", "name": "task", "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(task)}
    return stream(
        [
            named("message_start", message={**message, "stop_reason": None}),
            named("content_block_start", index=0, content_block=block),
            named("ping"),
            named("content_block_delta", index=0, delta=delta),
            named("content_block_stop", index=0),
            named(
                "message_delta",
                delta={"stop_reason": "end_turn" if task is None else "tool_use"},
                usage={"output_tokens": 10},
            ),
            named("message_stop"),
        ]
    )


async def test_a_turn_with_tools_works_and_is_counted(provider, tmp_path, monkeypatch):
    with Provider(tmp_path / "project") as fake:
        async with (
            Gateway(provider, tmp_path, monkeypatch, catalogue=tables(fake.url)) as gateway,
            port_of(gateway.path) as port,
        ):
            opencode = opencode_of(tmp_path, fake, gateway, port, "acme/large")
            done = await asyncio.to_thread(opencode.run, "Write it [scenario:edit]")
            assert "changed the greeting to an f-string" in done.stdout, done.stderr
            assert 'f"hello {name}"' in (fake.project / "app.py").read_text()
            assert KEY not in done.stdout + done.stderr
            charged = gateway.sessions.charged
            (session,) = {each for each, _, _ in charged}
            assert session is not None
            assert session.startswith("ses_")
            # Five calls of tools and what is said in the end; and the title, by the small model.
            of_large = [usage for _, model, usage in charged if model == "acme/large"]
            assert [usage.input for usage in of_large] == [1000] * 5 + [1200]
            assert not any(usage.is_estimated for usage in of_large)
            assert [model for _, model, _ in charged].count("acme/small") == 1
            dollars = gateway.it.counts.dollars["acme/large"] / 1e6
            assert dollars == pytest.approx(sum(usage.cost for usage in of_large), abs=1e-5)


@pytest.mark.parametrize("name", ["acme", "claude"])
async def test_requests_of_sub_agents_and_for_titles_are_of_the_session_at_the_top(
    provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    provider.answers(with_sub_agent)
    with Provider(tmp_path / "project") as fake:
        async with Gateway(provider, tmp_path, monkeypatch) as gateway, port_of(gateway.path) as port:
            opencode = opencode_of(tmp_path, fake, gateway, port, f"{name}/large")
            done = await asyncio.to_thread(opencode.run, "Have it done")
            assert "Done." in done.stdout, done.stderr
            assert len({session for session, _, _ in gateway.sessions.charged}) == 1
            models = sorted(model for _, model, _ in gateway.sessions.charged)
            assert models == sorted(["acme/small", *[f"{name}/large"] * 3])
            for _, model, usage in gateway.sessions.charged:
                assert (usage.input, usage.cache_read, usage.output, usage.is_estimated) == (
                    40,
                    60,
                    10,
                    model == "acme/small",
                )
    shown = [asked.headers.get("authorization", asked.headers.get("x-api-key")) for asked in provider.asked]
    assert set(shown) <= {f"Bearer {KEY}", ANTHROPIC_KEY}
    assert not any("session" in each for asked in provider.asked for each in asked.headers)


async def test_a_spent_budget_is_said_and_not_tried_again(provider, tmp_path, monkeypatch):
    with Provider(tmp_path / "project") as fake:
        async with Gateway(provider, tmp_path, monkeypatch) as gateway, port_of(gateway.path) as port:
            gateway.sessions.error = ShareError(
                ErrorCode.FORBIDDEN, "Forbidden: the budget of this agent is spent"
            )
            opencode = opencode_of(tmp_path, fake, gateway, port, "claude/large")
            done = await asyncio.to_thread(opencode.run, "Hello")
            assert "the budget of this agent is spent" in done.stdout + done.stderr
            assert gateway.it.counts.refused["session"] <= 2  # the turn, and its title
    assert provider.asked == []
