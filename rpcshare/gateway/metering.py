"""What an answer has cost: tokens and dollars, as the provider counts them.

Providers count alike in few things. Of OpenAI's ``prompt_tokens``, those from the cache are a part;
Anthropic's ``input_tokens`` are those that are neither read from it nor written to it. Counts in a stream
are totals so far, whether they come once, twice or with each piece; nothing is added up. A count that is
missing, null or 0 leaves the one before it. A stream that ends too soon has no count, or half of one: what
it said is then counted here, and the figure says that it is an estimate.
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec

from rpcshare import jsontext
from rpcshare.auth.caller import Caller
from rpcshare.gateway.event_stream import EventReader
from rpcshare.gateway.models import Model, WireKind
from rpcshare.json_values import ValueCounter

__all__ = ["AnswerMeter", "ModelSessions", "Usage"]

BYTES_A_TOKEN = 4
"""Of text, for estimates."""

MAX_KEPT = 8 * 1024 * 1024
"""Bytes of an answer that is no stream; of a larger one, the size is what counts."""

_LONG = 64 * 1024
_MOST_VALUES = 100_000
_MOST_TOKENS = 10**9  # of one answer: nobody has that many
_MOST_DOLLARS = 10**6
_LONG_CACHE = 1.6  # tokens kept for an hour cost twice as others, for five minutes 1.25 times


class Usage(msgspec.Struct, frozen=True):
    """What one request has used. No token is counted in two of these."""

    input: int = 0
    """Tokens that were neither read from the cache of a prompt nor written to it."""
    output: int = 0
    """Tokens of the answer, of its reasoning and of its calls of tools."""
    cache_read: int = 0
    cache_write: int = 0
    cost: float = 0.0
    """Dollars: by the table's prices, or else what the provider says; 0 where nobody says."""
    is_estimated: bool = False
    """Whether a count or the cost was not to be had, and this is the best guess. A cost of 0 may be one."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input + self.output + self.cache_read + self.cache_write


class ModelSessions(Protocol):
    """What the gateway asks of the agents of one sandbox.

    ``session_id`` is what the sandbox says: whoever controls it can name any. So it tells sessions of one
    sandbox apart, and proves nothing: answer for sessions of this sandbox alone, and refuse, or count for
    the sandbox as a whole, what names no session (None) or another's. A request of a sub-agent comes under
    the id of the session that began it, as far as the gateway has seen: for one that was begun before the
    gateway was opened, it may be that of a sub-agent.
    """

    async def admit(self, session_id: str | None, model: str) -> Caller:
        """Allow one request to a model, ``NAME/model``; return whose vault has the key.

        For each that is allowed, :meth:`charge` is called exactly once, with zeros if nothing was used. So
        what is allowed and not yet charged is in flight, and counts:
        :class:`~rpcshare.gateway.spending.Spending` does that. It may take its time; if whoever asks goes
        away meanwhile, it is cancelled, and has allowed nothing.

        Raises:
            ShareError: the budget is spent (FORBIDDEN: agents do not try that again), there is no such
                session (FORBIDDEN), or it may not use this model. The message is shown within the sandbox.
        """

    async def charge(self, session_id: str | None, model: str, usage: Usage) -> None:
        """Count what a request has used that was allowed. It is called after the answer has ended."""


class AnswerMeter:
    """Counts what one answer uses, from its bytes as they pass."""

    def __init__(self, kind: WireKind, *, is_stream: bool) -> None:
        self._kind = kind
        self._events = EventReader() if is_stream else None
        self._kept = bytearray()
        self._size = 0
        self._counts = _Counts()
        self._said = 0  # bytes of what the model has said
        self._pieces = 0
        self._is_complete = False

    @property
    def is_between_events(self) -> bool:
        """Whether another event may be put behind what has passed."""
        return self._events is not None and self._events.is_between_events

    def feed(self, data: bytes) -> None:
        """Count a piece of the answer."""
        self._size += len(data)
        if self._events is None:
            if self._size <= MAX_KEPT:
                self._kept += data
            else:
                self._kept.clear()
            return
        for event in self._events.feed(data):
            self._take_event(event)

    def end(self) -> None:
        """Count what is known only once the whole answer has passed."""
        if self._events is None and self._kept:
            value = _decoded(bytes(self._kept))
            self._is_complete = value is not None
            if value is not None:
                self._counts.take(self._kind, value.get("usage"))
                self._said = _weight(value.get("choices")) + _weight(value.get("content"))
            self._kept.clear()

    def usage(self, model: Model, asked: int) -> Usage:
        """Return what was used.

        Args:
            model: whose prices count.
            asked: roughly, how many tokens the request has.
        """
        counts = self._counts
        said = self._size if self._events is None and not self._is_complete else self._said
        is_known = self._is_complete and counts.has_output and counts.has_input
        output = counts.output
        if not is_known:
            output = max(output, math.ceil(said / BYTES_A_TOKEN), self._pieces)
        given = counts.input + counts.cache_read + counts.cache_write
        return _priced(
            model,
            counts,
            asked if not counts.has_input and not given else counts.input,
            output,
            is_known=is_known,
        )

    def _take_event(self, event: bytes) -> None:
        if event.strip() == b"[DONE]":
            self._is_complete = True
            return
        value = _decoded(event)
        if value is None:
            return
        if self._kind is WireKind.OPENAI:
            self._counts.take(self._kind, value.get("usage"))
            for choice in _listed(value.get("choices")):
                self._say(choice.get("delta"))
                # The provider has counted to the end; not all say [DONE] behind it.
                self._is_complete |= bool(choice.get("finish_reason"))
            return
        match value.get("type"):
            case "message_start":
                message = value.get("message")
                self._counts.take(self._kind, message.get("usage") if isinstance(message, dict) else None)
                self._counts.has_output = False  # it is that of the first piece
            case "message_delta":
                self._counts.take(self._kind, value.get("usage"))
            case "content_block_delta":
                self._say(value.get("delta"))
            case "message_stop":
                self._is_complete = True

    def _say(self, delta: object) -> None:
        if weight := _weight(delta):
            self._said += weight
            self._pieces += 1


class _Counts:
    """What the provider says, so far."""

    def __init__(self) -> None:
        self.input = 0
        self.output = 0
        self.cache_read = 0
        self.cache_write = 0
        self.cache_write_long = 0
        self.cost: float | None = None
        self.has_input = False
        self.has_output = False

    def take(self, kind: WireKind, usage: object) -> None:
        """Take the totals of a ``usage``; null, and what is none, changes nothing."""
        if not isinstance(usage, dict):
            return
        (self._take_openai if kind is WireKind.OPENAI else self._take_anthropic)(usage)
        cost = usage.get("cost")
        if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost <= _MOST_DOLLARS:
            self.cost = float(cost)

    def _take_openai(self, usage: dict[str, object]) -> None:
        prompt, output = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        # xAI's completion_tokens leave out reasoning, which its total_tokens include, and its bill as well.
        output = max(output, _count(usage, "total_tokens") - prompt)
        # And with Gemini's, reasoning may be all that there is.
        output = max(output, _count(_nested(usage, "completion_tokens_details"), "reasoning_tokens"))
        details = _nested(usage, "prompt_tokens_details")
        read = _count(details, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens")
        read, write = min(read, prompt), _count(details, "cache_write_tokens")
        write = min(write, prompt - read)
        if prompt:
            self.input, self.cache_read, self.cache_write = prompt - read - write, read, write
            self.has_input = True
        if output:
            self.output = output
            self.has_output = True

    def _take_anthropic(self, usage: dict[str, object]) -> None:
        for name, field in _ANTHROPIC.items():
            if count := _count(usage, field):
                setattr(self, name, count)
        if long := _count(_nested(usage, "cache_creation"), "ephemeral_1h_input_tokens"):
            self.cache_write_long = long
        self.has_input |= any(_count(usage, field) for field in _ANTHROPIC.values() if "input" in field)
        self.has_output |= _count(usage, "output_tokens") > 0


_ANTHROPIC = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_input_tokens",
    "cache_write": "cache_creation_input_tokens",
}


def _priced(model: Model, counts: _Counts, given: int, output: int, *, is_known: bool) -> Usage:
    prices = model.prices
    cost, is_cost_known = counts.cost, counts.cost is not None
    if prices is not None:
        read, write = model.cache_prices
        written = counts.cache_write + (_LONG_CACHE - 1) * min(counts.cache_write_long, counts.cache_write)
        millionths = given * prices.input + output * prices.output + counts.cache_read * read
        cost, is_cost_known = (millionths + written * write) / 1_000_000, True
    return Usage(
        input=given,
        output=output,
        cache_read=counts.cache_read,
        cache_write=counts.cache_write,
        cost=cost or 0.0,
        is_estimated=not (is_known and is_cost_known),
    )


def estimated(model: Model, asked: int) -> Usage:
    """Return what a request may have used that got no answer: the provider may have read it."""
    return _priced(model, _Counts(), asked, 0, is_known=False)


def _decoded(text: bytes) -> dict[str, object] | None:
    if len(text) > _LONG:
        counter = ValueCounter(text)
        if any(counter.values > _MOST_VALUES for _ in counter.count()):
            return None  # to decode it would hold everybody up
    try:
        value = jsontext.decode(text)
    except jsontext.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _nested(usage: dict[str, object], name: str) -> dict[str, object]:
    value = usage.get(name)
    return value if isinstance(value, dict) else {}


def _count(usage: dict[str, object], name: str) -> int:
    value = usage.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value <= _MOST_TOKENS else 0


def _listed(value: object) -> list[dict[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _weight(value: object) -> int:
    """Return how many bytes of text are in a value, at whatever depth."""
    waiting, weight = [value], 0
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            weight += len(each.encode("utf-8", "replace"))
        elif isinstance(each, dict):
            waiting.extend(text for name, text in each.items() if name not in _NOT_SAID)
        elif isinstance(each, list):
            waiting.extend(each)
    return weight


_NOT_SAID = frozenset({"type", "role", "id", "index", "finish_reason", "signature", "object"})
