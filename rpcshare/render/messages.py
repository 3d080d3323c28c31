"""A message, from its JSON to what is seen around its parts."""

from collections.abc import Sequence

import msgspec
from markupsafe import Markup

from rpcshare.render import blocks, figures
from rpcshare.render.anchors import anchor
from rpcshare.render.blocks import NORMAL, Block
from rpcshare.render.lenient_json import Fields
from rpcshare.render.part_groups import is_context_alone
from rpcshare.shares.outline import Entry

__all__ = [
    "MessageFacts",
    "MessageView",
    "anchor_of",
    "facts_of",
    "is_over",
    "prompt_of",
    "turn_of",
    "view_of_message",
]

_USUAL_ROLES = frozenset({"user", "assistant"})
_MAX_MODEL = 80  # characters
_PROMPT = 90  # characters in the table of contents


class MessageFacts(msgspec.Struct, frozen=True):
    """What is summed up over all messages of a session."""

    role: str
    cost: float = 0.0
    input: int = 0
    """Tokens, those out of a cache not counted."""
    output: int = 0
    reasoning: int = 0
    cached: int = 0
    model: str = ""
    completed: float = 0.0
    """Milliseconds since the epoch; 0 for what is not completed."""
    created: float = 0.0
    """Milliseconds since the epoch; 0 where it does not say."""


class MessageView(msgspec.Struct, frozen=True):
    """How a message is shown, or a run of its parts."""

    anchor: str
    role: str
    name: str
    """Who speaks."""
    parts: list[tuple[int, Markup]]
    """Those that are seen, drawn, with their place in the message."""
    first: int
    """The place of the first part that this run covers."""
    is_end: bool
    """Whether the run goes to the end of the message."""
    after: str
    """The anchor of the message before; empty for the first."""
    agent: str = ""
    model: str = ""
    provider: str = ""
    time: str = ""
    iso_time: str = ""
    figures: list[str] = []
    """Tokens, cost, duration."""
    trouble: list[Block] = []
    is_stopped: bool = False
    """Whether it ended because somebody stopped it."""
    is_summary: bool = False
    is_running: bool = False
    is_interrupted: bool = False
    """Whether it was never completed, and nothing works on it any more."""
    taken_back: list[tuple[int, Markup]] = []
    """Parts that were taken back, drawn, with their place in the message."""
    is_taken_back: bool = False
    """Whether all of it was."""


class _Message(msgspec.Struct, rename={"model_id": "modelID", "provider_id": "providerID"}):
    """The fields that are looked at: a user's message may hold all diffs of its turn beside them."""

    role: object = None
    cost: object = None
    tokens: object = None
    time: object = None
    agent: object = None
    mode: object = None
    model_id: object = None
    provider_id: object = None
    model: object = None
    error: object = None
    finish: object = None


class _Cached(msgspec.Struct):
    read: float = 0
    write: float = 0


class _Tokens(msgspec.Struct):
    input: float = 0
    output: float = 0
    reasoning: float = 0
    cache: _Cached = msgspec.field(default_factory=_Cached)


class _Time(msgspec.Struct):
    completed: float = 0
    created: float = 0


class _Usual(msgspec.Struct, rename={"model_id": "modelID"}):
    """A message as opencode writes it. Any other is read field by field, which takes ten times as long."""

    role: str
    cost: float = 0
    tokens: _Tokens = msgspec.field(default_factory=_Tokens)
    time: _Time = msgspec.field(default_factory=_Time)
    model_id: str = ""


class _Summary(msgspec.Struct):
    summary: bool = False


_decode = msgspec.json.Decoder(_Message).decode
_decode_usual = msgspec.json.Decoder(_Usual).decode
_decode_summary = msgspec.json.Decoder(_Summary).decode


def anchor_of(entry: Entry) -> str:
    """Return what stands for a message in links."""
    known = entry.__dict__.get("anchor")
    if known is None:
        known = entry.__dict__["anchor"] = anchor(entry.id)
    return str(known)


def facts_of(entry: Entry) -> MessageFacts:
    """Return what is summed up, decoded once for each version of a message."""
    known = entry.__dict__.get("facts")
    if not isinstance(known, MessageFacts):
        known = entry.__dict__["facts"] = _usual_facts(entry.body) or _facts(_fields(entry))
    return known


def turn_of(entries: Sequence[Entry], place: int) -> MessageFacts | None:
    """Return the sums of the turn, all steps since the prompt, that a message ends; None in its midst."""
    if facts_of(entries[place]).role != "assistant":
        return None
    if place + 1 < len(entries) and facts_of(entries[place + 1]).role == "assistant":
        return None
    steps = [facts_of(entries[place])]
    while place and facts_of(entries[place - 1]).role == "assistant":
        place -= 1
        steps.append(facts_of(entries[place]))
    return MessageFacts(
        role="assistant",
        cost=sum(step.cost for step in steps),
        input=sum(step.input for step in steps),
        output=sum(step.output for step in steps),
        reasoning=sum(step.reasoning for step in steps),
        cached=sum(step.cached for step in steps),
        completed=steps[0].completed,
        created=steps[-1].created,
    )


def is_over(entry: Entry, *, is_last: bool, is_quiet: bool) -> bool:
    """Return whether nothing works on a message any more.

    Args:
        entry: the message.
        is_last: whether no message follows it.
        is_quiet: whether its share has had no sync for minutes.
    """
    return is_quiet or not is_last or bool(facts_of(entry).completed)


def view_of_message(
    entry: Entry,
    parts: list[tuple[int, Markup]],
    *,
    first: int,
    is_end: bool,
    after: str,
    turn: MessageFacts | None = None,
    is_ended: bool = False,
    kept: int | None = None,
) -> MessageView:
    """Return how a message is shown.

    Args:
        entry: the message.
        parts: some of its parts, drawn, with their places.
        first: the place of the first part.
        is_end: whether they go to the end of the message.
        after: the anchor of the message before.
        turn: the sums of the turn that it ends; None in its midst.
        is_ended: whether nothing works on it any more.
        kept: how many of its parts were not taken back; None for all.
    """
    fields = _fields(entry)
    facts = _facts(fields)
    time = fields.fields("time")
    error = fields.fields("error")
    is_assistant = facts.role == "assistant"
    is_stopped = error.raw("name") == "MessageAbortedError"
    is_context = facts.role == "user" and is_context_alone(entry.parts)
    name = {"user": "User", "assistant": "Assistant"}.get(facts.role) or facts.role.title() or "Message"
    is_incomplete = (
        is_assistant and time.number("completed") is None and not error and bool(time.number("created"))
    )
    return MessageView(
        anchor=anchor_of(entry),
        role=facts.role if facts.role in _USUAL_ROLES and not is_context else "other",
        name="Context" if is_context else name,
        parts=[part for part in parts if kept is None or part[0] < kept],
        taken_back=[part for part in parts if kept is not None and part[0] >= kept],
        is_taken_back=kept == 0,
        first=first,
        is_end=is_end,
        after=after,
        agent=fields.line("agent", "mode", limit=60),
        model=facts.model if is_assistant else "",
        provider=fields.line("providerID", limit=_MAX_MODEL) if is_assistant else "",
        time=figures.moment(time.number("created")),
        iso_time=figures.iso_time(time.number("created")),
        figures=_figures(turn) if turn is not None else [],
        trouble=[] if is_stopped else _trouble(error),
        is_stopped=is_stopped,
        is_summary=is_assistant and _is_summary(entry),
        is_running=is_incomplete and not is_ended,
        is_interrupted=is_incomplete and is_ended,
    )


def prompt_of(entry: Entry) -> str | None:
    """Return the beginning of what a user said, for a table of contents; None for another's message."""
    if facts_of(entry).role != "user":
        return None
    for part in entry.parts:
        fields = Fields.decode(part.body)
        if fields.raw("type") == "text" and not fields.flag("synthetic"):
            line = fields.line("text", limit=_PROMPT)
            if line:
                return line
        if fields.raw("type") == "compaction":
            return None
    return None if is_context_alone(entry.parts) or not entry.parts else "…"


def _fields(entry: Entry) -> Fields:
    if entry.body is None:
        return Fields()
    try:
        message = _decode(entry.body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # half a surrogate pair somewhere
        return Fields.decode(entry.body)
    return Fields(
        msgspec.structs.asdict(message) | {"modelID": message.model_id, "providerID": message.provider_id}
    )


def _usual_facts(body: bytes | None) -> MessageFacts | None:
    try:
        message = _decode_usual(body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    tokens, model = message.tokens, message.model_id
    is_plain = model.isascii() and model.isprintable() and len(model) <= _MAX_MODEL
    numbers = (tokens.input, tokens.output, tokens.reasoning, tokens.cache.read, tokens.cache.write)
    if message.role not in _USUAL_ROLES or not (model or message.role == "user") or not is_plain:
        return None
    if message.cost < 0 or min(numbers) < 0:
        return None
    return MessageFacts(
        message.role,
        message.cost,
        int(tokens.input),
        int(tokens.output),
        int(tokens.reasoning),
        int(tokens.cache.read + tokens.cache.write),
        model,
        message.time.completed,
        message.time.created,
    )


def _facts(fields: Fields) -> MessageFacts:
    tokens = fields.fields("tokens")
    cache = tokens.fields("cache")
    model = fields.fields("model")
    return MessageFacts(
        role=fields.line("role", limit=40),
        cost=max(0.0, fields.number("cost") or 0.0),
        input=tokens.natural("input"),
        output=tokens.natural("output"),
        reasoning=tokens.natural("reasoning"),
        cached=cache.natural("read") + cache.natural("write"),
        model=fields.line("modelID", limit=_MAX_MODEL) or model.line("modelID", "id", limit=_MAX_MODEL),
        completed=fields.fields("time").number("completed") or 0.0,
        created=fields.fields("time").number("created") or 0.0,
    )


def _figures(facts: MessageFacts) -> list[str]:
    said = []
    if facts.input:
        said.append(f"{figures.tokens(facts.input)} in")
    if made := facts.output + facts.reasoning:
        said.append(f"{figures.tokens(made)} out")
    if facts.cached:
        said.append(f"{figures.tokens(facts.cached)} cached")
    took = figures.duration(facts.created, facts.completed or None)
    return [*said, *(each for each in (figures.money(facts.cost), took) if each)]


_ERRORS = {
    "ProviderAuthError": "The provider refused the credentials",
    "MessageOutputLengthError": "The answer grew too long",
    "ContextOverflowError": "The context is full",
    "APIError": "The provider answered with an error",
    "UnknownError": "Something failed",
}


def _trouble(error: Fields) -> list[Block]:
    if not error:
        return []
    name = error.line("name", limit=80)
    message = error.fields("data").raw("message") or error.raw("message")
    status = error.fields("data").number("statusCode")
    said = _ERRORS.get(name, name or "Something failed") + (f" ({int(status)})" if status else "")
    return blocks.note(f"{said}: {message}" if message else f"{said}.", NORMAL, "error")


def _is_summary(entry: Entry) -> bool:
    try:
        return _decode_summary(entry.body or b"{}").summary
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
