"""Text of strangers, without what cannot be shown, steers a terminal, or poses as other text."""

import re
import unicodedata

__all__ = [
    "STYLE_SEQUENCE",
    "clean",
    "clean_but_for_styles",
    "plain",
    "unmistakable",
    "visible",
    "without_terminal_controls",
]

# Half of a surrogate pair has no form in UTF-8; of the control characters, HTML has tab and newline.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# What makes text look different from what it is (Unicode UAX #9; CVE-2021-42574).
_DECEIVING = re.compile("[\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\u061c\u2028\u2029\ufeff]")

# Letters in another order than they are written in: what prose of no language needs, as it needs the others.
_OVERRIDE = re.compile("[\u202d\u202e]")

# ECMA-48: control sequences, operating system commands, and the rest of what a terminal swallows.
_TERMINAL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[ -/]*[0-~]"
)

_NOT_ASCII = re.compile(r"[^\x00-\x7f\u2400-\u2426]")

# Default_Ignorable_Code_Point (Unicode DerivedCoreProperties) of other categories than controls and formats.
_WITHOUT_LOOK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

_CONTROLS = re.compile("[\x01-\x08\x0b-\x1f]")  # of ASCII, but tab and newline

STYLE_SEQUENCE = re.compile(r"\x1b\[[\d;]{0,60}m")
"""Sets colours and styles on a terminal (SGR)."""


def clean(text: str) -> str:
    """Return ``text`` without what HTML has no form for."""
    if not text.isprintable():
        text = _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text


def clean_but_for_styles(text: str) -> str:
    """Return prose without terminal controls and what HTML has no form for, but with its styles."""
    text = _OVERRIDE.sub(_named, text)
    if "\x1b" not in text:
        return clean(text)
    pieces: list[str] = []
    end = 0
    for match in STYLE_SEQUENCE.finditer(text):
        pieces += [clean(_TERMINAL.sub("", text[end : match.start()])), match[0]]
        end = match.end()
    return "".join([*pieces, clean(_TERMINAL.sub("", text[end:]))])


def without_terminal_controls(text: str) -> str:
    """Return prose without the sequences that a terminal swallows."""
    return _TERMINAL.sub("", text) if "\x1b" in text else text


def visible(text: str) -> str:
    """Return text of which nothing is hidden: signs stand for what a terminal would obey or swallow.

    It is for what somebody has to judge. :func:`plain` drops what a carriage return overwrites on a terminal.
    """
    text = text.replace("\r\n", "\n")
    return _DECEIVING.sub(_named, _UNPRINTABLE.sub("\ufffd", _CONTROLS.sub(_picture, text)))


def unmistakable(text: str) -> str:
    """Return text that somebody decides by: all in it that has no look of its own is named.

    Characters that join, fill, select variants or are spaces of another kind are named, too. In prose and in
    emoji they have their use; in a command they let two look alike.
    """
    text = visible(text)
    return text if text.isascii() else _NOT_ASCII.sub(_named_unless_seen, text)


def plain(text: str) -> str:
    """Return code, output or a name as it is: terminal controls applied, and no character hidden."""
    if "\x1b" in text:
        text = _TERMINAL.sub("", text)
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    if text.isascii():
        return clean(text)
    return _DECEIVING.sub(_named, clean(text))


def _named_unless_seen(character: re.Match[str]) -> str:
    char = character[0]
    has_look = unicodedata.category(char)[0] not in "CZ" and not _WITHOUT_LOOK.match(char)
    return char if has_look or char == "\ufffd" else _named(character)


def _picture(character: re.Match[str]) -> str:
    return chr(0x2400 + ord(character[0]))  # Unicode has a picture of each


def _named(character: re.Match[str]) -> str:
    return f"[U+{ord(character[0]):04X}]"
