"""Unified patches: of one file or several, as git, the npm package ``diff`` and models write them."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["FilePatch", "PatchHunk", "read_patch"]

PatchLine = tuple[str, str]  # "+", "-" or " ", and what follows it

_HUNK: Final = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@ ?(.*)")
_NO_FILE: Final = "/dev/null"
_ESCAPE: Final = re.compile(r"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class PatchHunk(msgspec.Struct):
    """Lines that follow each other in a file."""

    heading: str
    old_start: int
    new_start: int
    lines: list[PatchLine]


class FilePatch(msgspec.Struct):
    """What a patch does to one file."""

    old_path: str = ""
    new_path: str = ""
    """As the patch has it, without git's ``a/`` and ``b/``; empty where there is none."""
    status: str = ""
    """``added``, ``deleted``, ``renamed``, ``copied``; empty where the patch does not say."""
    old_mode: str = ""
    new_mode: str = ""
    is_binary: bool = False
    old_ends_without_newline: bool = False
    new_ends_without_newline: bool = False
    hunks: list[PatchHunk] = msgspec.field(default_factory=list)

    @property
    def path(self) -> str:
        """The file's name after the patch, or before it where it is deleted."""
        return self.old_path if self.status == "deleted" or not self.new_path else self.new_path

    @property
    def additions(self) -> int:
        """How many lines it adds."""
        return sum(sign == "+" for hunk in self.hunks for sign, _ in hunk.lines)

    @property
    def deletions(self) -> int:
        """How many lines it removes."""
        return sum(sign == "-" for hunk in self.hunks for sign, _ in hunk.lines)


def read_patch(patch: str) -> list[FilePatch]:
    """Return the files of a patch, in its order; none for text that is no patch.

    A line between two hunks that is no header is passed over, and nothing is made up for it.
    """
    reader = _Reader()
    lines = patch.split("\n")
    for number, line in enumerate(lines):
        reader.take(line, lines[number + 1] if number + 1 < len(lines) else "")
    return [each for each in reader.files if each.path or each.hunks or each.status or each.is_binary]


class _Reader:
    def __init__(self) -> None:
        self.files: list[FilePatch] = []
        self._old_left = self._new_left = 0  # lines that the present hunk still has, as its header says
        self._is_in_hunk = False
        self._is_headed = False  # whether the present file began with a line of its own, before "---"

    def take(self, line: str, following: str) -> None:
        if self._is_in_hunk and self._take_line(line, following):
            return
        self._is_in_hunk = False
        if match := _HUNK.match(line):
            file = self._file()
            file.hunks.append(PatchHunk(match[5], int(match[1]), int(match[3]), []))
            self._old_left = int(match[2]) if match[2] is not None else 1
            self._new_left = int(match[4]) if match[4] is not None else 1
            self._is_in_hunk = True
        else:
            self._take_header(line)

    def _take_line(self, line: str, following: str) -> bool:
        """Take a line of the present hunk; return whether it is one."""
        file, sign = self.files[-1], line[:1]
        if sign == "\\":
            self._end_without_newline(file)
            return True
        if self._old_left <= 0 and self._new_left <= 0:
            is_next = line.startswith("--- ") and following.startswith("+++ ")
            # What a model wrote may have other counts than lines.
            if sign not in ("+", "-", " ") or is_next or line == "-- ":
                return False
        if sign not in ("+", "-", " "):
            if line or not (self._old_left > 0 and self._new_left > 0):
                return False
            sign = " "  # an empty line of context, whose space an editor took off
            if not following and self._old_left == 1 and self._new_left == 1:
                return False
        self._old_left -= sign != "+"
        self._new_left -= sign != "-"
        file.hunks[-1].lines.append((sign, line[1:]))
        return True

    def _end_without_newline(self, file: FilePatch) -> None:
        lines = file.hunks[-1].lines
        if not lines:
            return
        file.old_ends_without_newline |= lines[-1][0] != "+"
        file.new_ends_without_newline |= lines[-1][0] != "-"

    def _take_header(self, line: str) -> None:  # noqa: C901, PLR0912 -- one branch a kind
        name, _, value = line.rstrip("\r").partition(" ")
        if line.startswith("diff --git "):
            old, new = _git_names(value.removeprefix("--git "))
            self._begin(FilePatch(old, new))
        elif line.startswith("Index: "):
            self._begin(FilePatch(_name(value), _name(value)))
        elif line.startswith("--- "):
            if not self._is_headed:
                self._begin(FilePatch())
            self._set_old(_name(value, "a/"))
            self._is_headed = True
        elif line.startswith("+++ "):
            self._set_new(_name(value, "b/"))
            self._is_headed = False
        elif not self.files:
            return
        elif name in ("rename", "copy"):
            way, _, path = value.partition(" ")
            self.files[-1].status = "renamed" if name == "rename" else "copied"
            if way == "from":
                self.files[-1].old_path = _name(path)
            elif way == "to":
                self.files[-1].new_path = _name(path)
        elif line.startswith("new file mode "):
            self.files[-1].status = "added"
            self.files[-1].new_mode = value[10:]
        elif line.startswith("deleted file mode "):
            self.files[-1].status = "deleted"
        elif line.startswith("old mode "):
            self.files[-1].old_mode = value[5:]
        elif line.startswith("new mode "):
            self.files[-1].new_mode = value[5:]
        elif line.startswith(("Binary files ", "GIT binary patch")):
            self.files[-1].is_binary = True

    def _begin(self, file: FilePatch) -> None:
        self.files.append(file)
        self._is_headed = True

    def _file(self) -> FilePatch:
        if not self.files:
            self._begin(FilePatch())
        self._is_headed = False
        return self.files[-1]

    def _set_old(self, path: str) -> None:
        file = self.files[-1]
        if path == _NO_FILE:
            file.status = "added"
        elif not (file.old_path and file.status == "renamed"):
            file.old_path = path

    def _set_new(self, path: str) -> None:
        if not self.files:
            self._begin(FilePatch())
        file = self.files[-1]
        if path == _NO_FILE:
            file.status = "deleted"
        elif not (file.new_path and file.status == "renamed"):
            file.new_path = path


def _name(written: str, prefix: str = "") -> str:
    """Return a file's name: without the time behind a tab, git's quotes, and git's prefix."""
    if written.startswith('"'):
        end = next(_ends(written), len(written))
        name = _unquoted(written[1:end])
    else:
        name = written.partition("\t")[0].rstrip()
    return name.removeprefix(prefix) if prefix else name


def _git_names(written: str) -> tuple[str, str]:
    """Return both names of ``a/OLD b/NEW``."""
    if written.startswith('"'):
        end = next(_ends(written), len(written) - 1)
        return _unquoted(written[1:end]).removeprefix("a/"), _name(written[end + 2 :], "b/")
    if written.endswith('"') and ' "' in written:
        old, _, new = written.partition(' "')
        return old.removeprefix("a/"), _name(f'"{new}', "b/")
    # Names may hold spaces; they are the same on both sides unless a line further down says otherwise.
    half = (len(written) - 1) // 2
    old, new = written[:half].removeprefix("a/"), written[half + 1 :].removeprefix("b/")
    if old == new:
        return old, new
    old, _, new = written.partition(" b/")
    return old.removeprefix("a/"), new


def _ends(written: str) -> Iterator[int]:
    """Yield where quotes stand that no backslash precedes, but for the first character."""
    at = 1
    while at < len(written):
        if written[at] == "\\":
            at += 2
            continue
        if written[at] == '"':
            yield at
        at += 1


def _unquoted(quoted: str) -> str:
    """Return what git wrote as a string of C: an escape in octal is one byte of UTF-8."""

    def unescaped(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 3:
            return chr(int(code, 8) & 0xFF)
        return _ESCAPED.get(code, code)

    if quoted.isascii():
        return _ESCAPE.sub(unescaped, quoted).encode("latin-1").decode("utf-8", "replace")
    return _ESCAPE.sub(unescaped, quoted)
