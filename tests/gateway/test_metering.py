"""What an answer has cost, by what providers say of it: in whatever way they say it."""

import json
from typing import Any

import msgspec
import pytest

from gateway.gateway_fixtures import tables
from gateway.scripted_provider import chunk, event
from rpcshare.gateway.metering import MAX_KEPT, AnswerMeter, Usage
from rpcshare.gateway.models import Model

URL = "http://127.0.0.1:1/v1"
LARGE = tables(URL).find("acme/large")
CLAUDE = tables(URL).find("claude/large")
SMALL = tables(URL).find("acme/small")  # without prices
ASKED = 1000


def near(usage: Usage) -> Usage:
    """Return it with a cost that floating point has no say in."""
    return msgspec.structs.replace(usage, cost=round(usage.cost, 9))


def used(model: Model, *pieces: bytes, is_stream: bool = True) -> Usage:
    meter = AnswerMeter(model.table.kind, is_stream=is_stream)
    for piece in pieces:
        meter.feed(piece)
    meter.end()
    return near(meter.usage(model, ASKED))


def openai(usage: Any, model: Model = LARGE) -> Usage:
    return used(
        model,
        chunk("Hi"),
        chunk(finish_reason="stop"),
        event({"choices": [], "usage": usage}),
        b"data: [DONE]\n\n",
    )


def anthropic(start: Any, *deltas: Any, said: str = "Hello", stop: bool = True) -> Usage:
    pieces = [
        event({"type": "message_start", "message": {"usage": start}}, "message_start"),
        event({"type": "ping"}),
    ]
    pieces.append(event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": said}}))
    pieces += [event({"type": "message_delta", "delta": {}, "usage": usage}) for usage in deltas]
    return used(CLAUDE, *pieces, *([event({"type": "message_stop"})] if stop else []))


def test_tokens_of_a_chat_completion_cost_what_the_table_says():
    assert openai({"prompt_tokens": 1000, "completion_tokens": 100}) == near(Usage(1000, 100, cost=0.0045))


def test_cached_tokens_are_a_part_of_the_prompt_and_are_counted_once():
    usage = openai(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 800, "cache_write_tokens": 100},
        }
    )
    assert usage == Usage(100, 100, 800, 100, cost=(100 * 3 + 100 * 15 + 800 * 0.3 + 100 * 3.75) / 1e6)
    deepseek = openai({"prompt_tokens": 1000, "completion_tokens": 1, "prompt_cache_hit_tokens": 900})
    assert (deepseek.input, deepseek.cache_read) == (100, 900)


def test_more_cached_tokens_than_there_are_make_no_negative_count():
    usage = openai(
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}}
    )
    assert (usage.input, usage.cache_read, usage.cost > 0) == (0, 10, True)


def test_reasoning_that_only_the_total_has_is_output():
    usage = openai({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135})
    assert (usage.input, usage.output) == (32, 103)


def test_null_with_each_chunk_and_totals_twice_are_counted_once():
    usage = {"prompt_tokens": 50, "completion_tokens": 5}
    pieces = [chunk("a", usage=None), chunk("b", usage={"prompt_tokens": 50, "completion_tokens": 2})]
    pieces += [
        chunk(finish_reason="stop", usage=usage),
        event({"choices": [], "usage": usage}),
        b"data: [DONE]\n\n",
    ]
    assert used(LARGE, *pieces) == near(Usage(50, 5, cost=0.000225))


def test_zeros_at_the_end_take_nothing_back():
    usage = {"prompt_tokens": 50, "completion_tokens": 5}
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    usage_of = used(LARGE, chunk(finish_reason="stop", usage=usage), chunk(usage=zeros))
    assert (usage_of.input, usage_of.output, usage_of.is_estimated) == (50, 5, False)


def test_reasoning_is_output_where_only_its_details_have_it():
    details = {"completion_tokens_details": {"reasoning_tokens": 60}}
    assert openai({"prompt_tokens": 21, "completion_tokens": 0, **details}).output == 60
    assert openai({"prompt_tokens": 21, "completion_tokens": 70, **details}).output == 70


def test_an_answer_of_very_many_values_is_not_decoded_but_estimated():
    body = b'{"choices": [' + b"[]," * 200_000 + b'1], "usage": {"prompt_tokens": 1}}'
    usage = used(LARGE, body, is_stream=False)
    assert (usage.output, usage.is_estimated) == (-(-len(body) // 4), True)


@pytest.mark.parametrize(
    "wrong", [[], "x", 7, {"prompt_tokens": "7"}, {"prompt_tokens": -5}, {"completion_tokens": True}]
)
def test_a_count_that_is_none_is_estimated_and_says_so(wrong):
    usage = openai(wrong)
    assert usage.is_estimated
    assert (usage.input, usage.output) == (ASKED, 1)


def test_an_answer_without_any_usage_is_estimated_by_what_was_said():
    calls = [{"index": 0, "function": {"name": "write", "arguments": "x" * 400}}]
    delta = {"choices": [{"delta": {"tool_calls": calls, "reasoning_content": "y" * 400}}]}
    usage = used(LARGE, event(delta), chunk("é" * 200), chunk(finish_reason="stop"), b"data: [DONE]\n\n")
    assert usage.is_estimated
    assert (usage.input, usage.output) == (ASKED, 302)
    assert usage.cost == pytest.approx((1000 * 3 + 302 * 15) / 1e6)


def test_a_piece_is_a_token_at_least():
    usage = used(LARGE, *[chunk("a")] * 50)
    assert usage.output == 50


def test_without_prices_the_provider_says_what_it_costs():
    said = openai({"prompt_tokens": 10, "completion_tokens": 1, "cost": 0.25}, SMALL)
    assert said == near(Usage(10, 1, cost=0.25))
    assert openai({"prompt_tokens": 10, "completion_tokens": 1}, SMALL) == Usage(10, 1, is_estimated=True)
    assert openai({"prompt_tokens": 10, "completion_tokens": 1, "cost": -3}, SMALL).cost == 0.0
    with_prices = openai(
        {"prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000, "cost": 9}, LARGE
    )
    assert with_prices.cost < 1


def test_tokens_of_a_message_are_not_those_of_its_cache():
    usage = anthropic(
        {
            "input_tokens": 25,
            "cache_read_input_tokens": 5000,
            "cache_creation_input_tokens": 100,
            "output_tokens": 1,
        },
        {"output_tokens": 15},
    )
    cost = (25 * 3 + 15 * 15 + 5000 * 0.3 + 100 * 3.75) / 1e6
    assert usage == near(Usage(25, 15, 5000, 100, cost=cost))


def test_counts_of_a_message_are_totals_and_not_added_up():
    usage = anthropic({"input_tokens": 25, "output_tokens": 1}, {"output_tokens": 15}, {"output_tokens": 40})
    assert (usage.input, usage.output, usage.is_estimated) == (25, 40, False)


def test_later_counts_of_the_input_replace_the_first_unless_they_are_null_or_zero():
    later = {"input_tokens": 900, "cache_read_input_tokens": 100, "output_tokens": 7}
    usage = anthropic({"input_tokens": 25, "output_tokens": 1}, later)
    assert (usage.input, usage.cache_read) == (900, 100)
    for nothing in (None, 0):
        usage = anthropic(
            {"input_tokens": 25, "output_tokens": 1}, {"input_tokens": nothing, "output_tokens": 7}
        )
        assert (usage.input, usage.output) == (25, 7)


def test_what_is_cached_for_an_hour_costs_more():
    start = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 100}
    short = anthropic({**start, "cache_creation": {"ephemeral_5m_input_tokens": 100}}, {"output_tokens": 1})
    long = anthropic({**start, "cache_creation": {"ephemeral_1h_input_tokens": 100}}, {"output_tokens": 1})
    assert long.cost - short.cost == pytest.approx(100 * 3.75 * 0.6 / 1e6)
    assert short.cache_write == long.cache_write == 100


def test_a_message_that_ends_in_an_error_costs_what_it_has_said():
    pieces = [
        event({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}})
    ]
    pieces.append(
        event({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "z" * 400}})
    )
    pieces.append(
        event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")
    )
    usage = used(CLAUDE, *pieces)
    assert (usage.input, usage.output, usage.is_estimated) == (25, 100, True)


def test_a_whole_answer_says_its_usage_in_itself():
    body = json.dumps(
        {"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    )
    half = len(body) // 2
    usage = used(LARGE, body[:half].encode(), body[half:].encode(), is_stream=False)
    assert usage == near(Usage(9, 3, cost=(9 * 3 + 3 * 15) / 1e6))
    body = json.dumps(
        {"content": [{"type": "text", "text": "Hi"}], "usage": {"input_tokens": 9, "output_tokens": 3}}
    )
    usage = used(CLAUDE, body.encode(), is_stream=False)
    assert (usage.input, usage.output, usage.is_estimated) == (9, 3, False)


def test_a_whole_answer_that_is_none_is_estimated_by_its_size():
    for body in (b"x" * 400, b"[1]" + b" " * 397):
        usage = used(LARGE, body, is_stream=False)
        assert (usage.input, usage.output, usage.is_estimated) == (ASKED, 100, True)


def test_an_answer_larger_than_is_kept_is_estimated_by_its_size():
    piece = b"x" * 2**20
    usage = used(LARGE, *[piece] * 9, is_stream=False)
    assert MAX_KEPT == 8 * 2**20
    assert usage.output == 9 * 2**18
    assert usage.is_estimated


def test_events_that_are_no_json_change_nothing():
    pieces = [
        b"data: {\n\n",
        b"data: [1]\n\n",
        b"data: \n\n",
        event({"choices": 7, "usage": 7}),
        event({"choices": [7]}),
    ]
    assert used(LARGE, *pieces).output == 0
    anthropic_pieces = [event({"type": "message_start", "message": 7}), event({"type": 7}), event({})]
    assert used(CLAUDE, *anthropic_pieces).output == 0
