"""README.md, PROTOCOL.md and docs/: the files, headings, classes and options that they name exist."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rpcshare.cli.group import CommandGroup

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rpcshare"
DOCUMENTS = [ROOT / "README.md", ROOT / "PROTOCOL.md", *sorted((ROOT / "docs").glob("*.md"))]
READMES = sorted((ROOT / "clients").glob("*/README.md"))

# Not in the repository: made by a command, or no file at all.
NO_FILES = {".bench/", "application/"}

NO_CLASSES = {"HttpOnly"}


def names_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fenced(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Return ``text`` without what is fenced."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def named_files(text: str) -> Iterator[str]:
    """Yield the files and folders that ``text`` names in backticks; a folder's name ends with a slash."""
    for name in re.findall(r"`([\w.@-]+(?:/[\w.@-]+)*/?)`", prose(text)):
        suffix = name.rpartition(".")[2]
        is_path = "/" in name and suffix in {"py", "mjs", "ts", "js", "css", "html", "md", "json", "yaml"}
        if (is_path or suffix == "py" or name.endswith("/")) and name not in NO_FILES:
            yield name


def exists(name: str) -> bool:
    """Whether ``name`` is a path in the repository or the package, or the bare name of a module."""
    found = (ROOT / name).exists() or (PACKAGE / name).exists()
    return found or ("/" not in name and any(PACKAGE.rglob(name)))


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    """Return the relative links in ``text`` that lead to no file, or to no heading of one."""
    return [
        link
        for link in re.findall(r"\]\(([^)\s:]+)\)", prose(text))
        if not leads_somewhere(link, text, folder)
    ]


def leads_somewhere(link: str, text: str, folder: Path) -> bool:
    path, _, anchor = link.partition("#")
    if path and not (folder / path).exists():
        return False
    return not anchor or anchor in anchors((folder / path).read_text() if path else text)


def classes() -> set[str]:
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    return set(re.findall(r"^\s*class (\w+)", sources, re.MULTILINE))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``rpcshare`` command in the fenced shell blocks of ``text``."""
    for block in fenced(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\(|\)|>", line):
                words = shlex.split(part, comments=True)
                if words[:1] == ["rpcshare"]:
                    yield words[1:]


def unknown_words(arguments: list[str]) -> list[str]:
    """Return what the command line does not know: a command's name, or its options."""
    command: click.Command = CommandGroup()
    context = click.Context(command)
    words = list(arguments)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return words[:1]
        command, context, words = found, click.Context(found), words[1:]
    options = {
        spelling for each in command.get_params(context) for spelling in (*each.opts, *each.secondary_opts)
    }
    return [word for word in words if word.startswith("-") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_files_that_a_document_names_exist(document: Path) -> None:
    assert [name for name in named_files(document.read_text()) if not exists(name)] == []


@pytest.mark.parametrize("document", DOCUMENTS + READMES, ids=names_of)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    assert broken_links(document.read_text(), document.parent) == []


def test_the_readme_links_every_document() -> None:
    links = {os.path.normpath(link) for link in re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())}
    assert {names_of(path) for path in DOCUMENTS[1:]} <= links


def test_classes_that_the_documents_name_exist() -> None:
    text = "\n".join(prose(path.read_text()) for path in (ROOT / "docs").glob("*.md"))
    named = set(re.findall(r"`(?:\w+\.)*([A-Z][a-z]+(?:[A-Z][a-z]+)+)[.\w]*`", text))
    assert len(named) > 1
    assert named - classes() - NO_CLASSES == set()


def test_folders_of_the_diagram_exist() -> None:
    diagram = fenced((ROOT / "docs" / "architecture.md").read_text(), "")[0]
    named = re.findall(r"(?<![\w/])(\w+)/(?=\s)", diagram)
    assert len(named) > 1
    assert [name for name in named if not (PACKAGE / name).is_dir()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_commands_of_a_document_are_those_of_the_command_line(document: Path) -> None:
    assert [words for words in map(unknown_words, commands(document.read_text())) if words] == []


@pytest.mark.parametrize(
    "text", ["`server/nowhere.py`", "`nowhere.py`", "`nowhere/`", "`tests/nowhere.mjs`", "`docs/nowhere.md`"]
)
def test_a_file_that_does_not_exist_is_noticed(text: str) -> None:
    assert [name for name in named_files(text) if not exists(name)] == [text.strip("`")]


@pytest.mark.parametrize("link", ["nowhere.md", "README.md#nowhere", "#nowhere"])
def test_a_link_that_leads_nowhere_is_noticed(link: str) -> None:
    assert broken_links(f"# Here\n[there]({link}) and [here](#here)", ROOT) == [link]


@pytest.mark.parametrize(
    ("line", "unknown"), [("rpcshare nowhere", "nowhere"), ("rpcshare keys create --nowhere 1", "--nowhere")]
)
def test_a_command_that_does_not_exist_is_noticed(line: str, unknown: str) -> None:
    assert [unknown_words(words) for words in commands(f"```sh\n{line}\n```")] == [[unknown]]
