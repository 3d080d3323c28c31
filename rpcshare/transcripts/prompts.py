"""What a user typed, apart from what programs put around it.

Agents send their surroundings, reminders and the results of background work to the model as messages of the
user, in elements such as ``<environment_context>``. HTML has no element whose name has an underscore, so each
such element at the start of a prompt is taken for an agent's, and so are the others that are known.
"""

import re
from typing import Final, NamedTuple

__all__ = ["Prompt", "read_prompt"]

_OPENING: Final = re.compile(r"<([A-Za-z][\w-]*(?: instructions)?)((?: [^<>\n]{0,300})?)>")
_KNOWN: Final = frozenset(
    {
        # Claude Code
        "bash-stderr",
        "bash-stdout",
        "local-command-caveat",
        "local-command-stderr",
        "local-command-stdout",
        "system-reminder",
        "task-notification",
        "user-prompt-submit-hook",
        # Codex
        "INSTRUCTIONS",
        "permissions instructions",
        "skill",
    }
)
_TYPED: Final = frozenset({"bash-input", "command-args", "command-message", "command-name"})
# Headings under which an editor's extension of Codex puts what is open, and behind it what was typed.
_IDE_CONTEXT: Final = "# Context from my IDE setup:"
_IDE_REQUEST: Final = re.compile(r"^## My request for Codex:[ \t]*\n?", re.MULTILINE)


class Prompt(NamedTuple):
    """A prompt, taken apart."""

    context: list[tuple[str, str]]
    """What programs added: the name of each piece, and its text as it was."""
    typed: str
    """What the user typed; a command as it is typed."""


def read_prompt(words: str) -> Prompt:
    """Return what the user typed in ``words``, and what programs put before it."""
    context: list[tuple[str, str]] = []
    command: dict[str, str] = {}
    rest = words
    while (element := _element(rest)) is not None:
        name, whole, inner = element
        if name in _TYPED:
            command[name] = inner.strip()
        elif inner.strip():
            context.append((name, whole))
        rest = rest[rest.index(whole) + len(whole) :]
    if not context and not command and not rest.startswith(_IDE_CONTEXT):
        return Prompt([], words)
    rest = rest.strip("\n")
    if rest.startswith(_IDE_CONTEXT) and (request := _IDE_REQUEST.search(rest)):
        context.append(("IDE context", rest[: request.start()].rstrip()))
        rest = rest[request.end() :].strip("\n")
    name = command.get("command-name", "")
    said = command.get("command-message", "")
    if said and said != name.removeprefix("/"):
        context.append(("command-message", said))
    shell = f"! {command['bash-input']}" if command.get("bash-input") else ""
    return Prompt(
        context, "\n".join(filter(None, (f"{name} {command.get('command-args', '')}".strip(), shell, rest)))
    )


def _element(words: str) -> tuple[str, str, str] | None:
    """Return an agent's element at the start: its name, all of it, and what is in it; None without one."""
    start = len(words) - len(words.lstrip())
    opening = _OPENING.match(words, start)
    if opening is None:
        return None
    name = opening[1]
    if "_" not in name and name not in _KNOWN and name not in _TYPED:
        return None
    closing = f"</{name}>"
    end = words.find(closing, opening.end())
    if end < 0:
        return name, words[start:], words[opening.end() :]  # cut off
    return name, words[start : end + len(closing)], words[opening.end() : end]
