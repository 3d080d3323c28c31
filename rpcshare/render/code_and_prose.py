"""Blocks of code and of prose: what highlighting and markdown make of text, which may take long."""

from typing import Final

from markupsafe import Markup, escape

from rpcshare.render import figures
from rpcshare.render.blocks import Block, Bounds, Code, Prose, Text, cut_characters, cut_lines, scalar
from rpcshare.render.highlighting import highlighted
from rpcshare.render.markdown import markdown
from rpcshare.render.safe_text import clean_but_for_styles, plain, without_terminal_controls
from rpcshare.render.terminal import has_controls, shown_by_terminal

__all__ = ["code", "json_code", "prose"]

_READ: Final = 10  # times as many characters of output as are shown: of a progress bar, the end is shown
_MARKED: Final = 8  # times as many characters of HTML as of text


def prose(written: str, bounds: Bounds, name: str = "") -> list[Block]:
    """Return markdown; nothing for none. Its ``name`` tells it from the same text elsewhere on a page."""
    if not written.strip():
        return []
    written = clean_but_for_styles(written)
    shown, cut = cut_characters(written, bounds.prose)
    if bounds.is_plain:
        return [Text(without_terminal_controls(shown).strip("\n"), cut)]
    return [Prose(markdown(shown, has_colours=bounds.has_colours, name=name), cut)]


def code(
    written: str,
    bounds: Bounds,
    *,
    language: str = "",
    label: str = "",
    command: str = "",
    is_output: bool = False,
    first_line: int = 0,
) -> list[Block]:
    """Return text of fixed width; nothing for none."""
    if not written.strip() and not command:
        return []
    if is_output and has_controls(written) and not bounds.is_plain:
        return _terminal_output(written, bounds, label, command)
    shown, cut = cut_lines(written, bounds)
    shown_command, cut_command = cut_lines(command, bounds)
    body = plain(shown).strip("\n") if is_output else plain(shown).rstrip("\n")
    html = highlighted(body, language) if bounds.has_colours else escape(body)
    return [Code(html, label, plain(shown_command).strip(), is_output, first_line, cut or cut_command)]


def _terminal_output(written: str, bounds: Bounds, label: str, command: str) -> list[Block]:
    """Return output as a terminal would show it in the end."""
    read = written[: bounds.characters * _READ]
    lines = shown_by_terminal(read)
    while lines and not lines[-1].strip():
        lines.pop()
    kept: list[Markup] = []
    room = bounds.characters * _MARKED
    for line in lines[: bounds.lines]:
        room -= len(line)
        if room < 0:
            break
        kept.append(line)
    is_cut = len(kept) < len(lines) or len(read) < len(written)
    shown_command, cut_command = cut_lines(command, bounds)
    cut = figures.plural(max(len(lines), written.count("\n")), "line") if is_cut else cut_command
    html = Markup("\n").join(kept)
    return [Code(html, label, plain(shown_command).strip(), is_output=True, cut=cut)]


def json_code(value: object, bounds: Bounds, label: str = "") -> list[Block]:
    """Return a JSON value, laid out for reading."""
    return code(_laid_out(value, bounds.characters * 2), bounds, language="json", label=label)


def _laid_out(value: object, room: int, indent: str = "") -> str:
    """Return JSON over several lines, no longer than about ``room``; what goes in one line does."""
    if room <= 0:
        return "…"
    if isinstance(value, dict | list) and value:
        inner = indent + "  "
        pieces: list[str] = []
        used = 0
        items = value.items() if isinstance(value, dict) else (("", each) for each in value)
        for name, item in items:
            if used > room or len(indent) > 120:
                pieces.append(f"{inner}…")
                break
            start = f"{scalar(name)}: " if isinstance(value, dict) else ""
            pieces.append(f"{inner}{start}{_laid_out(item, room - used, inner)}")
            used += len(pieces[-1])
        body = ",\n".join(pieces)
        return f"{{\n{body}\n{indent}}}" if isinstance(value, dict) else f"[\n{body}\n{indent}]"
    return scalar(value)
