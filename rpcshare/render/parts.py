"""A part of a message, from its JSON to what is seen of it."""

import base64
import re
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

import msgspec

from rpcshare.render import blocks, code_and_prose, figures
from rpcshare.render.anchors import anchor
from rpcshare.render.blocks import Block, Bounds, Download, Note, Picture
from rpcshare.render.highlighting import language_of
from rpcshare.render.lenient_json import Fields
from rpcshare.render.part_groups import entry_name, first_bold_line
from rpcshare.render.safe_text import clean_but_for_styles, without_terminal_controls
from rpcshare.render.tools import ToolCall, view_of_tool
from rpcshare.transcripts.opencode_changes import short_path
from rpcshare.transcripts.opencode_tools import read_result

__all__ = ["PartView", "view_of_part"]


class PartView(msgspec.Struct, frozen=True):
    """How a part is shown.

    ``form`` is ``bare`` (its blocks and nothing else), ``card`` (foldable, under a heading), ``line``, or
    ``divider``; ``none`` for what is not seen.
    """

    anchor: str
    form: str
    blocks: list[Block] = []
    icon: str = ""
    label: str = ""
    title: str = ""
    is_code: bool = False
    """Whether the title is a name out of a file system or a program."""
    link: str = ""
    """Where the title leads; http or https."""
    detail: str = ""
    status: str = ""
    """``pending``, ``running``, ``interrupted``, ``error``; empty for what is done."""
    duration: str = ""
    is_open: bool = False
    download: str = ""
    """Where its bytes are to be had."""
    remark: str = ""
    """Why it is shown with less than it might be."""
    copied: str = ""
    """What its button copies: an answer as Markdown, a command alone; empty for what can be seen of it."""
    child: str = ""
    """Where the session of the sub-agent is that it started."""


def view_of_part(
    part: Fields,
    role: str,
    directory: str,
    bounds: Bounds,
    *,
    is_over: bool = False,
    content: str = "",
    contexts: tuple[bytes, ...] = (),
    is_in_group: bool = False,
    child: str = "",
) -> PartView:
    """Return how a part of a message is shown.

    Args:
        part: its JSON.
        role: its message's: ``user``, ``assistant`` or something else.
        directory: where the session works.
        bounds: how much of it is shown.
        is_over: whether nothing works on its message any more.
        content: where a file's bytes are to be had, from the page's own address.
        contexts: the JSON of the parts that hold the content of a file that was mentioned.
        is_in_group: whether it stands under a heading that it shares with others.
        child: where the session of a sub-agent is, from the page's own address; empty if it is nowhere.
    """
    draw = _PARTS.get(part.raw("type"), _unknown)
    place = anchor(part.raw("id"))
    view = draw(_Part(part, place, role, directory, bounds, is_over, content, contexts, is_in_group))
    return msgspec.structs.replace(view, child=child) if child else view


class _Part(msgspec.Struct, frozen=True):
    fields: Fields
    anchor: str
    role: str
    directory: str
    bounds: Bounds
    is_over: bool
    content: str
    contexts: tuple[bytes, ...]
    is_in_group: bool


def _text(part: _Part) -> PartView:
    written = clean_but_for_styles(part.fields.raw("text"))
    if part.fields.flag("synthetic") or part.fields.flag("ignored"):
        shown = blocks.text(written, part.bounds)
        if not shown:
            return PartView(part.anchor, "none")
        name = entry_name(part.fields.value("metadata"))
        return PartView(part.anchor, "card", shown, "file", "Context", name or "added to the prompt")
    if part.role == "user":
        shown = blocks.prompt(written, part.bounds)
    else:
        shown = code_and_prose.prose(written, part.bounds, part.anchor)
    copied = "" if part.role == "user" else _copied(written, part.bounds)
    return PartView(part.anchor, "bare" if shown else "none", shown, copied=copied)


_PLAIN_TEXT = re.compile(r"[^\W_][\w ,.;:'()?%/-]*", re.UNICODE)


def _copied(written: str, bounds: Bounds) -> str:
    """Return Markdown to be copied, unless it reads the same when it is drawn.

    What is cut is to be had on the page of the whole part.
    """
    if len(written) > bounds.prose or (_PLAIN_TEXT.fullmatch(written.strip()) and "_" not in written):
        return ""
    return without_terminal_controls(written).strip("\n")


def _reasoning(part: _Part) -> PartView:
    written = clean_but_for_styles(part.fields.raw("text"))
    shown = code_and_prose.prose(written, part.bounds, part.anchor)
    if not shown:
        return PartView(part.anchor, "none")
    copied = _copied(written, part.bounds)
    if part.is_in_group:
        return PartView(part.anchor, "bare", shown, copied=copied)
    time = part.fields.fields("time")
    took = figures.duration(time.number("start"), time.number("end"))
    label = "Thought" if time.number("end") or part.is_over else "Thinking"
    title = first_bold_line(written)
    return PartView(part.anchor, "card", shown, "thought", label, title, duration=took, copied=copied)


def _shown_status(status: str, *, is_over: bool) -> str:
    return "interrupted" if is_over and status in ("pending", "running") else _STATUSES.get(status, "")


_STATUSES = {"pending": "pending", "running": "running", "error": "error"}


def _tool(part: _Part) -> PartView:
    state = part.fields.fields("state")
    status = state.line("status")
    time = state.fields("time")
    call = ToolCall(
        name=part.fields.line("tool", limit=80),
        status=status,
        title=state.line("title"),
        input=state.fields("input"),
        metadata=state.fields("metadata"),
        output=state.raw("output"),
        directory=part.directory,
        bounds=part.bounds,
    )
    view = view_of_tool(call)
    error = blocks.note(state.raw("error"), part.bounds, "error")
    attached = state.all_fields("attachments")[:_MAX_ATTACHMENTS]
    files = [block for each in attached for block in _attachment(each, part)]
    return PartView(
        part.anchor,
        "card",
        [*view.blocks, *files, *error],
        view.icon,
        view.label,
        view.title,
        is_code=view.icon in ("file", "pencil", "search"),
        link=view.link,
        detail=view.detail,
        status="error" if view.has_failed else _shown_status(status, is_over=part.is_over),
        duration=figures.duration(time.number("start"), time.number("end")),
        is_open=view.is_open or status == "error",
        copied=view.copied if len(view.copied) <= part.bounds.prose else "",
    )


def _attachment(file: Fields, part: _Part) -> list[Block]:
    """Return a file that a tool has returned: what is in it, and where it is to be had."""
    folder, separator, _ = part.content.rpartition("/parts/")
    attachment_id = file.raw("id")
    address = ""
    if separator and attachment_id and file.raw("url")[:5].lower() == "data:":
        quoted = quote(attachment_id.encode("utf-8", "replace"), safe="")
        address = f"{folder}/parts/{quoted}/content"
    shown = _content(file, part.bounds, address)
    name = file.line("filename") or file.line("mime", limit=80) or "file"
    return [*shown, Download(address, name)] if address else shown


def _file(part: _Part) -> PartView:
    fields = part.fields
    name = fields.line("filename") or fields.fields("source").line("path") or "File"
    url = fields.raw("url")
    link = url if re.match(r"https?://[^\s]{1,2000}$", url) else ""
    shown = _content(fields, part.bounds, part.content) or _contexts(part, name)
    is_picture = any(block.form == "picture" for block in shown)
    return PartView(
        part.anchor,
        "card",
        shown,
        "image" if is_picture else "file",
        "Image" if is_picture else "File",
        name,
        is_code=True,
        link=link,
        detail=fields.line("mime", limit=80),
        is_open=is_picture,
        download=part.content if url[:5].lower() == "data:" else "",
    )


def _contexts(part: _Part, name: str) -> list[Block]:
    """Return what a mention put into the prompt: what the read tool said of its file."""
    shown: list[Block] = []
    for body in part.contexts:
        found = read_result({}, {}, Fields.decode(body).raw("text"))
        language = "" if found.is_directory else language_of(name)
        shown += code_and_prose.code(found.text, part.bounds, language=language, first_line=found.first_line)
    return shown


_MAX_ATTACHMENTS = 20  # of one tool
_TEXT_TYPE = re.compile(
    r"(?:text/[\w.+-]+|application/(?:[\w.-]+\+)?(?:json|xml|yaml|toml|javascript|x-sh)|image/svg\+xml)$"
)
_LANGUAGES = {"application/json": "json", "image/svg+xml": "xml", "text/html": "html", "text/css": "css"}


def _content(file: Fields, bounds: Bounds, address: str = "") -> list[Block]:
    """Return what a file part holds in its ``data:`` URL; an image that is large by its own ``address``."""
    url, name = file.raw("url"), file.line("filename")
    if url[:5].lower() != "data:" or "," not in url[:300]:
        return []
    kind, _, data = url[5:].partition(",")
    media_type, *parameters = (each.strip().lower() for each in kind.split(";"))
    if _TEXT_TYPE.match(media_type):
        limit = bounds.characters * 4
        data_read, is_base64 = data[: limit - limit % 4], "base64" in parameters
        raw = _base64(data_read) if is_base64 else unquote_to_bytes(data_read)
        text = raw.decode("utf-8", "replace")
        if len(data) > limit:
            text = text.rstrip("\ufffd") + "\n…"
        language = language_of(name) or _LANGUAGES.get(media_type, "")
        return code_and_prose.code(text, bounds, language=language)
    if len(url) > bounds.image and address and media_type in _PICTURE_TYPES:
        return [Picture(address, name or "image")]
    return blocks.picture(url, name, bounds)


_PICTURE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"})


def _base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=False)
    except ValueError:
        return b""


def _step_finish(part: _Part) -> PartView:
    reason = part.fields.line("reason", limit=40)
    if reason in ("length", "content-filter", "error"):
        said = {"length": "The answer was cut off at the limit of its length."}
        return PartView(
            part.anchor, "bare", [Note(said.get(reason, f"The step ended: {reason}."), "warning")]
        )
    return PartView(part.anchor, "none")


def _snapshot(part: _Part) -> PartView:
    return PartView(
        part.anchor, "line", icon="snapshot", label="Snapshot", detail=part.fields.line("snapshot")[:10]
    )


def _patch(part: _Part) -> PartView:
    files = [_short(file, part.directory) for file in part.fields.lines("files")]
    shown = ", ".join(files[:6]) + (f" and {len(files) - 6} more" if len(files) > 6 else "")
    return PartView(
        part.anchor,
        "line",
        icon="snapshot",
        label=f"{figures.plural(len(files), 'file')} changed",
        title=shown,
        is_code=True,
    )


def _short(path: str, directory: str) -> str:
    return short_path(path, directory)


def _agent(part: _Part) -> PartView:
    return PartView(
        part.anchor, "line", icon="agent", label="Agent", title="@" + part.fields.line("name", limit=80)
    )


def _subtask(part: _Part) -> PartView:
    return PartView(
        part.anchor,
        "card",
        blocks.text(part.fields.text("prompt"), part.bounds),
        "agent",
        "Sub-task",
        part.fields.line("description", "command"),
        detail=part.fields.line("agent", limit=80),
        is_open=True,
    )


def _retry(part: _Part) -> PartView:
    attempt = part.fields.natural("attempt")
    error = part.fields.fields("error")
    said = error.fields("data").raw("message") or error.raw("message", "name")
    return PartView(
        part.anchor,
        "card",
        blocks.note(said, part.bounds, "warning"),
        "retry",
        "Retry",
        f"attempt {attempt}" if attempt else "",
        is_open=True,
    )


def _compaction(part: _Part) -> PartView:
    how = "automatically" if part.fields.flag("auto") else "on request"
    why = ", because the context was full" if part.fields.flag("overflow") else ""
    return PartView(part.anchor, "divider", icon="fold", label=f"Context compacted {how}{why}")


def _nothing(part: _Part) -> PartView:
    return PartView(part.anchor, "none")


def _unknown(part: _Part) -> PartView:
    kind = part.fields.line("type", limit=80) or "no type"
    known = ("id", "messageID", "sessionID", "type")
    rest = {name: value for name, value in part.fields.whole.items() if name not in known}
    shown = code_and_prose.json_code(rest, part.bounds) if rest else []
    return PartView(part.anchor, "card", shown, "tool", "Part", kind)


_PARTS: dict[str, Callable[[_Part], PartView]] = {
    "text": _text,
    "reasoning": _reasoning,
    "tool": _tool,
    "file": _file,
    "step-start": _nothing,
    "step-finish": _step_finish,
    "snapshot": _snapshot,
    "patch": _patch,
    "agent": _agent,
    "subtask": _subtask,
    "retry": _retry,
    "compaction": _compaction,
}
