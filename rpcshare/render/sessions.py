"""A session as a whole: what stands above its messages, and what its files have become."""

import re

import msgspec

from rpcshare.render import figures
from rpcshare.render.changed_files import changed_files_in_time
from rpcshare.render.lenient_json import Fields
from rpcshare.render.messages import MessageFacts, anchor_of, facts_of, prompt_of
from rpcshare.render.revert import taken_back
from rpcshare.shares.outline import Transcript

__all__ = [
    "FILES_PER_PAGE",
    "Prompt",
    "SessionView",
    "directory_of",
    "is_counted",
    "is_unnamed",
    "prompts_of",
    "view_of_session",
]

_MAX_PROMPTS = 300
FILES_PER_PAGE = 60
_LOOKED_FOR_PROMPT = 20  # messages
_COUNTING = 0.03  # seconds of CPU time on the way to a page; the page hears of the rest when it is live


class SessionView(msgspec.Struct, frozen=True):
    """What stands above the messages."""

    title: str
    description: str
    """One sentence, for whoever previews a link."""
    directory: str
    models: list[str]
    messages: int
    syncs: int
    cost: str
    input: str
    output: str
    cached: str
    created: str
    created_iso: str
    updated: str
    updated_iso: str
    files: int
    additions: int
    deletions: int
    is_counted: bool
    """Whether the files are counted; where that takes long, a page is shown first."""
    version: str
    parent: str = ""
    """The share of the session that started it as a sub-agent."""
    children: int = 0
    """How many sub-agents are in the figures."""


class Prompt(msgspec.Struct, frozen=True):
    """An entry of the table of contents."""

    anchor: str
    text: str


def view_of_session(transcript: Transcript, counting: float = _COUNTING) -> SessionView:
    """Return what stands above the messages.

    Args:
        transcript: the share.
        counting: how many seconds of CPU time there are to count the files that were changed.
    """
    session = Fields.decode(transcript.session)
    facts = [facts_of(entry) for entry in transcript.entries]
    time = session.fields("time")
    told = [each.created for each in facts if each.created]
    ends = [each.completed or each.created for each in facts if each.completed or each.created]
    # Before opencode has sent the session, its times are those of the share.
    is_told = not _is_stand_in(session)
    created = (is_told and time.number("created")) or (min(told) if told else transcript.created_at)
    updated = (is_told and time.number("updated")) or (max(ends) if ends else transcript.last_updated)
    models = list(dict.fromkeys(each.model for each in facts if each.model and each.role == "assistant"))
    total = _with_children(_total(session, facts), transcript)
    changes = _changes(session, transcript, counting)
    if changes is None:
        transcript.__dict__["is_uncounted"] = True
    else:
        transcript.__dict__.pop("is_uncounted", None)
    files, additions, deletions = changes or (0, 0, 0)
    title = _title(session, transcript)
    directory = session.line("directory")
    said = [figures.plural(len(facts), "message")]
    if models:
        said.append("with " + _names(transcript, models[:2]))
    if directory:
        said.append(f"in {directory}")
    return SessionView(
        title=title,
        description=f"A coding session: {' '.join(said)}.",
        directory=directory,
        models=[_name(transcript, model) for model in models[:6]],
        messages=len(facts),
        syncs=transcript.sync_count,
        cost=figures.money(total.cost),
        input=figures.tokens(total.input) if total.input else "",
        output=figures.tokens(total.output + total.reasoning) if total.output + total.reasoning else "",
        cached=figures.tokens(total.cached) if total.cached else "",
        created=figures.moment(created),
        created_iso=figures.iso_time(created),
        updated=figures.moment(updated),
        updated_iso=figures.iso_time(updated),
        files=files,
        additions=additions,
        deletions=deletions,
        is_counted=changes is not None,
        version=session.line("version", limit=20),
        parent=transcript.parent or "",
        children=len(transcript.children),
    )


def total_of(transcript: Transcript) -> MessageFacts:
    """Return what a session itself took, without its sub-agents."""
    return _total(Fields.decode(transcript.session), [facts_of(entry) for entry in transcript.entries])


def _with_children(total: MessageFacts, transcript: Transcript) -> MessageFacts:
    children = transcript.children
    return msgspec.structs.replace(
        total,
        cost=total.cost + sum(child.cost for child in children),
        input=total.input + sum(child.input for child in children),
        output=total.output + sum(child.output for child in children),
        cached=total.cached + sum(child.cached for child in children),
    )


def is_counted(transcript: Transcript) -> bool:
    """Return whether no page was shown that lacks how many files were changed."""
    return "is_uncounted" not in transcript.__dict__


_UNNAMED = re.compile(r"(?:New|Child) session - \d{4}-\d\d-\d\dT[\d:.]+Z?")


def is_unnamed(title: str) -> bool:
    """Whether a title is one that opencode gives until it has a better one."""
    return _UNNAMED.fullmatch(title) is not None


def _title(session: Fields, transcript: Transcript) -> str:
    """Return the session's title, or its first prompt where it has none of its own yet."""
    title = session.line("title")
    if title and not is_unnamed(title):
        return title
    for entry in transcript.entries[:_LOOKED_FOR_PROMPT]:
        prompt = prompt_of(entry)
        if prompt and prompt != "…":
            return prompt
    return title or "Untitled session"


def _is_stand_in(session: Fields) -> bool:
    """Return whether a session is the one that a share begins with."""
    return session.raw("slug") == session.raw("id") and session.value("version") == "1"


def prompts_of(transcript: Transcript) -> tuple[list[Prompt], int]:
    """Return the table of contents, and how many more prompts there are than are in it."""
    prompts: list[Prompt] = []
    more = 0
    back = taken_back(transcript)
    for place, entry in enumerate(transcript.entries):
        if facts_of(entry).role != "user" or (back is not None and back.removes(place, entry)):
            continue
        if len(prompts) >= _MAX_PROMPTS:
            more += 1
            continue
        if "prompt" not in entry.__dict__:
            entry.__dict__["prompt"] = prompt_of(entry)
        if text := entry.__dict__["prompt"]:
            prompts.append(Prompt(anchor_of(entry), text))
    return prompts, more


def directory_of(transcript: Transcript) -> str:
    """Return where the session works."""
    known = transcript.__dict__.get("directory")
    if known is None:
        known = transcript.__dict__["directory"] = Fields.decode(transcript.session).line("directory")
    return str(known)


def _total(session: Fields, facts: list[MessageFacts]) -> MessageFacts:
    """Return what the session says that it took, or what its messages do where it says nothing."""
    summed = MessageFacts(
        role="",
        cost=sum(each.cost for each in facts),
        input=sum(each.input for each in facts),
        output=sum(each.output for each in facts),
        reasoning=sum(each.reasoning for each in facts),
        cached=sum(each.cached for each in facts),
    )
    tokens = session.fields("tokens")
    if not tokens.natural("input") and not tokens.natural("output"):
        return summed
    cache = tokens.fields("cache")
    return MessageFacts(
        role="",
        cost=max(0.0, session.number("cost") or summed.cost),
        input=tokens.natural("input"),
        output=tokens.natural("output"),
        reasoning=tokens.natural("reasoning"),
        cached=cache.natural("read") + cache.natural("write"),
    )


def _changes(session: Fields, transcript: Transcript, seconds: float) -> tuple[int, int, int] | None:
    """Return how many files were changed, and lines added and removed; None if counting them takes longer.

    The session's own count is taken where it has one, so that not every part has to be read for it.
    """
    summary = session.fields("summary")
    if not transcript.files and summary.natural("files"):
        return summary.natural("files"), summary.natural("additions"), summary.natural("deletions")
    files = changed_files_in_time(transcript, seconds)
    if files is None:
        return None
    return len(files), sum(file.additions for file in files), sum(file.deletions for file in files)


def _names(transcript: Transcript, models: list[str]) -> str:
    return " and ".join(_name(transcript, model) for model in models)


def _name(transcript: Transcript, model: str) -> str:
    """Return a model's name as people know it, where the session tells it."""
    for body in transcript.models[:50]:
        fields = Fields.decode(body)
        if fields.line("id", limit=80) == model:
            return fields.line("name", limit=80) or model
    return model
