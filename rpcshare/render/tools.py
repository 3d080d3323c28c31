"""Calls of tools, each as fits what it does; one that is not known here, by its input and output."""

import re
from collections.abc import Callable

import msgspec

from rpcshare.render import blocks, code_and_prose
from rpcshare.render.blocks import Block, Bounds, Checklist, Fold, Note, Table
from rpcshare.render.diffs import DiffBlock, diff_of_file
from rpcshare.render.figures import plural
from rpcshare.render.highlighting import language_of
from rpcshare.render.lenient_json import Fields
from rpcshare.transcripts.opencode_changes import changes_of_tool, short_path

__all__ = ["ToolCall", "ToolView", "view_of_tool"]

_MAX_DIFFS = 20
_MAX_TODOS = 200


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
    return ToolView("terminal", "Shell", title, blocks=shown, is_open=True)


_NUMBERED = re.compile(r"^ {0,6}0{0,5}(\d{1,7})(?:\||:|→|\t) ?(.*)$")


def _read(call: ToolCall) -> ToolView:
    path = call.path("filePath", "file_path", "path")
    display = call.metadata.fields("display")
    first = max(1, display.natural("lineStart") or call.input.natural("offset"))
    content = display.raw("text")
    if not content:
        content = _between_tags(call.output)
        numbered = [_NUMBERED.match(line) for line in content.split("\n")]
        if content and all(numbered):
            first = int(numbered[0][1]) if numbered[0] else first
            content = "\n".join(match[2] for match in numbered if match)
    shown = code_and_prose.code(content, call.bounds, language=language_of(path), first_line=first)
    lines = content.count("\n") + 1 if content else 0
    detail = plural(lines, "line") if lines else ""
    return ToolView("file", "Read", path or call.title, detail, shown)


def _between_tags(output: str) -> str:
    """Return what stands between ``<content>`` or ``<file>`` and its end, or all where nothing does."""
    starts = sorted((at, name) for name in ("content", "file") if (at := output.find(f"<{name}>")) >= 0)
    for start, name in starts:
        begin = start + len(name) + 2
        end = output.find(f"</{name}>", begin)
        if end < 0:
            continue
        content = output[begin:end].removeprefix("\n")
        last = content.rstrip().rpartition("\n(End of file")
        if last[1] and last[2].endswith(")") and "\n" not in last[2]:
            content = last[0]
        return content.removesuffix("\n")
    return output


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
    problems = call.metadata.fields("diagnostics")
    number = sum(len(problems.items(file)) for file in problems)
    return [Note(f"{plural(number, 'problem')} reported in the files", "warning")] if number else []


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


_TASK_WRAPPING = re.compile(r"</?task_(?:result|metadata)>|^task_id:.*$|^session_id:.*$", re.MULTILINE)


def _task(call: ToolCall) -> ToolView:
    prompt = blocks.text(call.input.text("prompt"), call.bounds)
    agent = call.input.line("subagent_type", "agent")
    answer = code_and_prose.prose(_TASK_WRAPPING.sub("", call.output).strip(), call.bounds)
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
    answers = call.metadata.items("answers")
    shown: list[Block] = []
    for index, question in enumerate(call.input.all_fields("questions")[:20]):
        shown += blocks.text(question.text("question", "header"), call.bounds)
        answer = answers[index] if index < len(answers) else None
        chosen = Fields({"": answer if isinstance(answer, list) else [answer]}).lines("")
        options = [option.line("label") for option in question.all_fields("options")[:20]]
        items = [(option, "completed" if option in chosen else "pending") for option in options]
        items += [(each, "completed") for each in chosen if each not in options]
        if items:
            shown.append(Checklist(items))
    return ToolView("question", "Question", call.title, "", shown or _call(call), is_open=True)


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
    return ToolView("tool", name or "Tool", call.title, "", _call(call))


def _call(call: ToolCall) -> list[Block]:
    shown: list[Block] = []
    if call.input:
        rows = blocks.rows_of(call.input, call.bounds)
        shown += [Table(rows)] if rows else code_and_prose.json_code(call.input.whole, call.bounds, "input")
    return shown + code_and_prose.code(call.output, call.bounds, is_output=True, label="output")


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
    "task": _task,
    "question": _question,
    "skill": _skill,
}
