"""What opencode's tools say of their results, in each version that changed its shape.

========  ===========  ======================================================================================
tool      version      shape
========  ===========  ======================================================================================
read      until 1.1    ``<file>``, lines as ``00001| x``, then ``(End of file - total N lines)``
          from 1.2     ``<path>``, ``<type>``, ``<content>``, lines as ``1: x``; a directory has ``<entries>``
          later        ``metadata.display``: ``text`` and ``lineStart``
          from 2.0     ``Read file PATH, lines 1-20``, then lines as ``1: x``; of a directory, its entries
task      until 1.0    the answer, then ``<task_metadata>`` with ``session_id: ID``
          from 1.1     ``task_id: ID (…)``, then ``<task_result>``
          from 1.17    ``<task id="ID" state="STATE">`` around ``<task_result>`` or ``<task_error>``
          from 2.0     named ``subagent``: ``<subagent sessionID="ID" state="STATE">`` around the answer
question  first ones   the answers within the output, as ``"QUESTION"="ANSWER"``
          later        ``metadata.answers``: a list of labels for each question
invalid   all          a call that could not be made, completed; why stands in ``input.error``
========  ===========  ======================================================================================
"""

import re
from typing import Final, NamedTuple

from rpcshare.transcripts.json_fields import JsonObject, number, obj, objects, text

__all__ = [
    "Choice",
    "Problem",
    "Question",
    "ReadResult",
    "TaskResult",
    "problems_of_files",
    "questions_of_call",
    "read_result",
    "task_result",
]


class ReadResult(NamedTuple):
    """What ``read`` found."""

    text: str
    """Lines without their numbers, or the names in a directory."""
    first_line: int
    """The number of the first line; 0 for a directory, and for what are no lines of a file."""
    shown: int
    """Lines or entries that are shown."""
    total: int
    """Those that there are; 0 where that is not said."""
    is_directory: bool = False


_NUMBERED: Final = re.compile(r" {0,6}0{0,5}(\d{1,7})(?:\||:|→|\t) ?")
_HEADING: Final = re.compile(
    r"Read (file|directory) [^\n]{0,4096}, (?:(?:lines|entries) \d{1,9}-\d{1,9}|0 lines|0 entries)(?:\n|$)"
)
_END: Final = re.compile(
    r"\[Output truncated[^\n]{0,300}\]|"
    r"\((?:End of file|Showing |File has more lines|Output capped|Output truncated|\d+ entries)[^\n]{0,300}\)"
)
_TOTAL: Final = re.compile(r"total (\d{1,9}) lines|of (\d{1,9})(?: entries)?\b|^\((\d{1,9}) entries\)")


def read_result(given: JsonObject, metadata: JsonObject, output: str) -> ReadResult:
    """Return what a call of ``read`` found."""
    display = obj(metadata, "display")
    if shown := text(display, "text"):
        first = number(display, "lineStart") or number(given, "offset") or 1
        return ReadResult(shown, first, _lines_of(shown), number(display, "totalLines"))
    if (entries := _between(output, "entries")) is not None:
        names, total = _without_end(entries)
        return ReadResult(names, 0, len([name for name in names.split("\n") if name]), total, True)
    content = _between(output, "content")
    if content is None:
        content = _between(output, "file")
    if content is None:
        heading = _HEADING.match(output)
        if heading is None:
            return ReadResult(output, 0, 0, 0)
        content = output[heading.end() :]
        if heading[1] == "directory":
            names, total = _without_end(content)
            return ReadResult(names, 0, len([name for name in names.split("\n") if name]), total, True)
    body, total = _without_end(content)
    lines = body.split("\n") if body else []
    matches = [_NUMBERED.match(line) for line in lines]
    if lines and all(matches):
        numbers = [int(match[1]) for match in matches if match]
        unnumbered = [line[match.end() :] for line, match in zip(lines, matches, strict=True) if match]
        return ReadResult("\n".join(unnumbered), numbers[0], len(lines), total)
    return ReadResult(body, number(given, "offset") or 1, len(lines), total)


def _between(output: str, name: str) -> str | None:
    """Return what is between two tags, of which each stands at the start of a line."""
    start = 0 if output.startswith(f"<{name}>") else output.find(f"\n<{name}>") + 1
    if not start and not output.startswith(f"<{name}>"):
        return None
    begin = start + len(name) + 2
    end = output.find(f"\n</{name}>", begin)
    return output[begin : end if end >= 0 else len(output)].removeprefix("\n")


def _without_end(content: str) -> tuple[str, int]:
    """Return content without the remark that ends it, and how much there is in all, by that remark."""
    head, _, last = content.rstrip().rpartition("\n")
    if not _END.fullmatch(last):
        return content.removesuffix("\n"), 0
    found = _TOTAL.search(last)
    total = next((int(group) for group in found.groups() if group), 0) if found else 0
    return head.removesuffix("\n"), total


def _lines_of(shown: str) -> int:
    return shown.count("\n") + (not shown.endswith("\n"))


class TaskResult(NamedTuple):
    """What a sub-agent answered."""

    session_id: str
    answer: str
    has_failed: bool = False


_TASK: Final = re.compile(
    r'<(?:task id|subagent sessionID)="([A-Za-z0-9_-]{1,256})"(?: state="(\w{1,20})")?[^>]{0,200}>'
)
_TASK_ID: Final = re.compile(r"^(?:task_id|session_id): ([A-Za-z0-9_-]{1,256})", re.MULTILINE)
_TASK_METADATA: Final = re.compile(r"<task_metadata>([^<]{0,4000})</task_metadata>")
_METADATA_ID: Final = re.compile(r"session_?id\W{1,6}([A-Za-z0-9_-]{1,256})", re.IGNORECASE)
_TASK_LINES: Final = re.compile(
    r"^(?:</?(?:subagent|task(?:_result|_error|_metadata)?)(?: [^>\n]{0,400})?>|"
    r"(?:task_id|session_id): [^\n]*)[ \t]*\n?",
    re.MULTILINE,
)


def task_result(metadata: JsonObject, output: str) -> TaskResult:
    """Return what a call of ``task`` came to."""
    begun = _TASK.match(output.lstrip()[:1000])
    noted = _TASK_ID.search(output[:400]) or _TASK_ID.search(output[-400:])
    session_id = text(metadata, "sessionId", "sessionID") or (
        begun[1] if begun else noted[1] if noted else ""
    )
    if described := _TASK_METADATA.search(output):
        # Plugins write it as JSON, and say behind it how the model goes on with the task.
        output = (output[: described.start()] + output[described.end() :]).strip()
        if not session_id and (found := _METADATA_ID.search(described[1])):
            session_id = found[1]
    has_failed = begun is not None and begun[2] in ("error", "failed")
    for name in ("task_result", "task_error"):
        start, end = output.find(f"<{name}>"), output.rfind(f"</{name}>")
        if 0 <= start < end:
            is_error = has_failed or name == "task_error"
            return TaskResult(session_id, output[start + len(name) + 2 : end].strip("\n"), is_error)
    answer = output
    if begun is not None or "<task_" in output or noted is not None:
        answer = _TASK_LINES.sub("", output).removesuffix("</task>").removesuffix("</subagent>").strip()
    return TaskResult(session_id, answer, has_failed)


class Choice(NamedTuple):
    """An answer that could be chosen, or was written."""

    label: str
    description: str
    is_chosen: bool


class Question(NamedTuple):
    """What the user was asked."""

    header: str
    question: str
    choices: list[Choice]


_MAX_QUESTIONS = 20


def questions_of_call(given: JsonObject, metadata: JsonObject, output: str) -> list[Question]:
    """Return the questions of a call of ``question``, with what was answered."""
    told = metadata.get("answers")
    answers = told if isinstance(told, list) else []
    made = []
    for index, asked in enumerate(objects(given.get("questions"))[:_MAX_QUESTIONS]):
        question = text(asked, "question")
        answer = answers[index] if index < len(answers) else _answered(question, output)
        chosen = [
            each for each in (answer if isinstance(answer, list) else [answer]) if isinstance(each, str)
        ]
        choices = [
            Choice(text(option, "label"), text(option, "description"), text(option, "label") in chosen)
            for option in objects(asked.get("options"))[:_MAX_QUESTIONS]
        ]
        labels = {choice.label for choice in choices}
        choices += [Choice(each, "", True) for each in chosen if each and each not in labels]
        made.append(Question(text(asked, "header"), question, choices))
    return made


def _answered(question: str, output: str) -> list[str]:
    start = output.find(f'"{question}"="') if question else -1
    if start < 0:
        return []
    begin = start + len(question) + 4
    end = output.find('"', begin)
    answer = output[begin : end if end >= 0 else len(output)]
    return [] if answer == "Unanswered" else answer.split(", ")


class Problem(NamedTuple):
    """A diagnostic of a language server."""

    file: str
    severity: str
    line: int
    """From 1; 0 where it does not say."""
    column: int
    message: str


_SEVERITIES: Final = ("error", "warning", "information", "hint")


def problems_of_files(metadata: JsonObject, files: list[str]) -> list[Problem]:
    """Return the diagnostics of some files, errors first, as ``metadata.diagnostics`` has them."""
    told = obj(metadata, "diagnostics")
    wanted = {file.replace("\\", "/") for file in files}
    found = []
    for file, problems in told.items():
        slashed = file.replace("\\", "/")
        if slashed not in wanted and not any(slashed.endswith(f"/{each}") for each in wanted if each):
            continue
        for problem in objects(problems):
            severity = number(problem, "severity") or 1
            start = obj(obj(problem, "range"), "start")
            line = number(start, "line") + 1 if start else 0
            column = number(start, "character") + 1 if start else 0
            name = _SEVERITIES[min(severity, len(_SEVERITIES)) - 1]
            found.append(Problem(file, name, line, column, text(problem, "message")))
    return sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.line))
