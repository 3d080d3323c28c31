"""Calls of tools, each as fits what it does; one that is not known here, by its input and output."""

import re
from collections.abc import Callable

import msgspec

from rpcshare.render import blocks, code_and_prose
from rpcshare.render.blocks import Block, Bounds, Checklist, Choices, Fold, Note, Table
from rpcshare.render.diffs import DiffBlock, diff_of_file
from rpcshare.render.figures import plural
from rpcshare.render.highlighting import language_of
from rpcshare.render.lenient_json import Fields
from rpcshare.render.mcp_results import result_blocks, said_error
from rpcshare.render.safe_text import clean, plain
from rpcshare.transcripts.opencode_changes import changes_of_tool, short_path
from rpcshare.transcripts.opencode_tools import (
    problems_of_files,
    questions_of_call,
    read_result,
    task_result,
)

__all__ = ["ToolCall", "ToolView", "view_of_tool"]

_MAX_DIFFS = 20
_MAX_TODOS = 200
_MAX_PROBLEMS = 20


class ToolCall(msgspec.Struct, frozen=True):
    """What a tool was called with, and what came of it."""

    name: str
    status: str
    """``pending``, ``running``, ``completed``, ``error``, or whatever else a newer opencode says."""
    title: str
    input: Fields
    metadata: Fields
    output: str
    directory: str
    """Where the session works; file names below it are shown without it."""
    bounds: Bounds

    def path(self, *names: str) -> str:
        """Return a file name out of the input."""
        return self.short(self.input.line(*names))

    def short(self, path: str) -> str:
        """Return a file name as it is seen from the session's directory."""
        return short_path(path, self.directory)


class ToolView(msgspec.Struct, frozen=True):
    """How a call is shown."""

    icon: str
    label: str
    title: str = ""
    detail: str = ""
    """A few more words, less important than the title."""
    blocks: list[Block] = []
    is_open: bool = False
    link: str = ""
    has_failed: bool = False
    """Whether the call failed although its status says nothing of it."""
    copied: str = ""
    """What a reader copies of it: a command without its output."""


def view_of_tool(call: ToolCall) -> ToolView:
    """Return how a call is shown, but for its error, its status and its attachments."""
    draw = _TOOLS.get(call.name.lower().replace("-", "_"), _unknown)
    return draw(call)


def _shell(call: ToolCall) -> ToolView:
    output = call.output or call.metadata.raw("output")
    if output.strip() == "(no output)":
        output = ""
    command = call.input.raw("command", "cmd")
    code = call.metadata.number("exit")
    shown = code_and_prose.code(output, call.bounds, command=command, is_output=True)
    if code:
        shown = [*shown, Note(f"Exit status {int(code)}", "warning")]
    title = call.input.line("description") or call.title or "Command"
    return ToolView("terminal", "Shell", title, blocks=shown, is_open=True, copied=clean(command))


def _read(call: ToolCall) -> ToolView:
    path = call.path("filePath", "file_path", "path")
    found = read_result(call.input.whole, call.metadata.whole, call.output)
    language = "" if found.is_directory else language_of(path)
    shown = code_and_prose.code(found.text, call.bounds, language=language, first_line=found.first_line)
    one, many = ("entry", "entries") if found.is_directory else ("line", "lines")
    detail = plural(found.shown, one, many) if found.first_line or found.is_directory else ""
    if detail and found.total > found.shown:
        detail = f"{found.shown:,} of {found.total:,} {many}"
        if found.first_line:
            detail = f"lines {found.first_line}-{found.first_line + found.shown - 1} of {found.total:,}"
    return ToolView("file", "Read", path or call.title, detail, shown)


def _write(call: ToolCall) -> ToolView:
    path = call.path("filePath", "file_path", "path")
    content = call.input.raw("content", "contents", "text")
    shown = code_and_prose.code(content, call.bounds, language=language_of(path), first_line=1)
    lines = content.count("\n") + (not content.endswith("\n")) if content else 0
    is_new = call.metadata.value("exists") is False
    label = "Create" if is_new else "Write"
    return ToolView(
        "pencil",
        label,
        path or call.title,
        plural(lines, "line"),
        [*shown, *_diagnostics(call)],
        is_open=call.status != "completed" or lines <= 40,
    )


def _edit(call: ToolCall) -> ToolView:
    path = call.path("filePath", "file_path", "path")
    return ToolView(
        "pencil", "Edit", path or call.title, "", [*_edits(call, path), *_diagnostics(call)], is_open=True
    )


def _edits(call: ToolCall, path: str) -> list[Block]:
    diffs = changes_of_tool(call.name, call.input.whole, call.metadata.whole)
    found: list[Block] = []
    for diff in diffs[:_MAX_DIFFS]:
        block = diff_of_file(Fields(diff), call.bounds)
        found.append(msgspec.structs.replace(block, file=call.short(block.file or path)))
    if len(diffs) > _MAX_DIFFS:
        found.append(Note(f"and {plural(len(diffs) - _MAX_DIFFS, 'more file')}"))
    return found


def _patch(call: ToolCall) -> ToolView:
    shown = _edits(call, "")
    if not shown:
        shown = code_and_prose.code(
            call.input.raw("patchText", "patch", "input"), call.bounds, language="diff"
        )
    return ToolView(
        "pencil", "Patch", _files_of(shown) or call.title, "", [*shown, *_diagnostics(call)], is_open=True
    )


def _files_of(shown: list[Block]) -> str:
    names = [block.file for block in shown if isinstance(block, DiffBlock)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _diagnostics(call: ToolCall) -> list[Block]:
    files = [call.input.raw("filePath", "file_path", "path")]
    files += [each.raw("movePath", "filePath") for each in call.metadata.all_fields("files")]
    problems = problems_of_files(call.metadata.whole, list(filter(None, files)))
    shown: list[Block] = []
    for each in problems[:_MAX_PROBLEMS]:
        where = f", line {each.line}:{each.column}" if each.line else ""
        file = f" in {call.short(plain(each.file)[:300])}" if len(files) > 1 else ""
        shown += blocks.note(
            f"{each.severity.title()}{file}{where}: {each.message}",
            call.bounds,
            "error" if each.severity == "error" else "warning",
        )
    if len(problems) > _MAX_PROBLEMS:
        shown.append(Note(f"and {plural(len(problems) - _MAX_PROBLEMS, 'more problem')}", "warning"))
    return shown


def _search(label: str, *names: str) -> Callable[[ToolCall], ToolView]:
    def draw(call: ToolCall) -> ToolView:
        found = call.metadata.number("matches") or call.metadata.number("count")
        where = call.path("path", "include")
        detail = plural(int(found), "match", "matches") if found else ""
        if where and names[0] != "path":
            detail = f"in {where}" + (f" · {detail}" if detail else "")
        shown = code_and_prose.code(call.output, call.bounds, is_output=True)
        return ToolView("search", label, call.path(*names) or call.title, detail, shown)

    return draw


_TODO_STATES = {
    "completed": "completed",
    "in_progress": "in progress",
    "pending": "pending",
    "cancelled": "cancelled",
}


def _todos(call: ToolCall) -> ToolView:
    todos = call.metadata.all_fields("todos") or call.input.all_fields("todos")
    items = [
        (todo.line("content", "text", "title"), _TODO_STATES.get(todo.line("status"), "pending"))
        for todo in todos[:_MAX_TODOS]
    ]
    done = sum(state == "completed" for _, state in items)
    shown: list[Block] = (
        [Checklist(items)] if items else code_and_prose.code(call.output, call.bounds, is_output=True)
    )
    return ToolView(
        "list", "To-do list", "", f"{done} of {len(items)} done" if items else "", shown, is_open=True
    )


def _task(call: ToolCall) -> ToolView:
    prompt = blocks.text(call.input.text("prompt"), call.bounds)
    agent = call.input.line("subagent_type", "agent")
    result = task_result(call.metadata.whole, call.output)
    draw = blocks.note if result.has_failed else code_and_prose.prose
    answer = draw(clean(result.answer), call.bounds)
    steps = call.metadata.all_fields("summary")
    shown: list[Block] = []
    if prompt:
        shown.append(Fold("What it was asked", prompt))
    if steps:
        rows = [
            (step.line("tool") or "step", step.fields("state").line("title") or step.line("title"))
            for step in steps[:100]
        ]
        shown.append(Fold(plural(len(steps), "step"), [Table(rows)]))
    title = call.input.line("description") or call.title
    return ToolView("agent", "Sub-agent", title, agent, [*shown, *answer], is_open=True)


def _web(label: str, *names: str) -> Callable[[ToolCall], ToolView]:
    def draw(call: ToolCall) -> ToolView:
        asked = call.input.line(*names)
        link = asked if re.match(r"https?://", asked) else ""
        shown = code_and_prose.code(call.output, call.bounds, is_output=True)
        return ToolView("globe", label, asked or call.title, "", shown, link=link)

    return draw


def _question(call: ToolCall) -> ToolView:
    shown: list[Block] = []
    for asked in questions_of_call(call.input.whole, call.metadata.whole, call.output):
        choices = [(plain(label), plain(description), chosen) for label, description, chosen in asked.choices]
        shown.append(Choices(plain(asked.header)[:300], clean(asked.question)[:4000], choices))
    return ToolView("question", "Question", call.title, "", shown or _call(call), is_open=True)


def _invalid(call: ToolCall) -> ToolView:
    why = call.input.raw("error") or call.output
    title = call.input.line("tool", limit=80)
    shown = blocks.note(why, call.bounds, "error")
    return ToolView("tool", "Invalid call", title, "", shown, is_open=True, has_failed=True)


def _skill(call: ToolCall) -> ToolView:
    return ToolView(
        "file",
        "Skill",
        call.input.line("name") or call.title,
        "",
        code_and_prose.prose(call.output, call.bounds),
    )


def _unknown(call: ToolCall) -> ToolView:
    name = " ".join(call.name.replace("_", " ").split())
    has_failed = said_error(call.output)
    return ToolView(
        "tool", name or "Tool", call.title, "", _call(call), is_open=has_failed, has_failed=has_failed
    )


def _call(call: ToolCall) -> list[Block]:
    shown: list[Block] = []
    if call.input:
        rows = blocks.rows_of(call.input, call.bounds)
        shown += [Table(rows)] if rows else code_and_prose.json_code(call.input.whole, call.bounds, "input")
    return shown + result_blocks(call.output, call.bounds)


_TOOLS: dict[str, Callable[[ToolCall], ToolView]] = {
    "bash": _shell,
    "shell": _shell,
    "read": _read,
    "write": _write,
    "edit": _edit,
    "multiedit": _edit,
    "patch": _patch,
    "apply_patch": _patch,
    "grep": _search("Grep", "pattern", "query"),
    "glob": _search("Glob", "pattern"),
    "list": _search("List", "path"),
    "ls": _search("List", "path"),
    "codesearch": _web("Code search", "query"),
    "websearch": _web("Web search", "query"),
    "webfetch": _web("Fetch", "url"),
    "todowrite": _todos,
    "todoread": _todos,
    "subagent": _task,
    "task": _task,
    "question": _question,
    "invalid": _invalid,
    "skill": _skill,
}
