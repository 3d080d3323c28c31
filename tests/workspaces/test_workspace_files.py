"""Looking into a workspace: what is found, and that nothing leads out."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.workspaces import beneath
from rpcshare.workspaces.file_search import Searching
from rpcshare.workspaces.files import WorkspaceFiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("of the server")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("of another")
    root = tmp_path / "workspace"
    (root / "src" / "deep").mkdir(parents=True)
    (root / "README.md").write_text("# Hello\n")
    (root / "src" / "main.py").write_text("print('hello')\nx = 'Hello world'\n")
    (root / "src" / "deep" / "data.bin").write_bytes(b"\0\1\2")
    return root


@pytest.fixture(params=["openat2", "walk"])
def files(root: Path, request: pytest.FixtureRequest, monkeypatch) -> WorkspaceFiles:
    """By the kernel's own resolution, and without."""
    if request.param == "walk":

        def missing(*_: object) -> int:
            raise OSError(38, "not implemented")

        monkeypatch.setattr(beneath, "_openat2", missing)
    return WorkspaceFiles(root)


@contextlib.contextmanager
def swapping(root: Path, one: str, other: str) -> Iterator[None]:
    """Have two names change places meanwhile, as fast as they can."""
    end = threading.Event()

    def swap() -> None:
        spare = root / "spare"
        while not end.is_set():
            (root / one).rename(spare)
            (root / other).rename(root / one)
            (root / one).rename(root / other)
            spare.rename(root / one)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def refused(work, code=ErrorCode.INVALID_ARGUMENT) -> str:
    with pytest.raises(ShareError) as caught:
        work()
    assert caught.value.code is code
    return caught.value.message


def test_a_listing_has_directories_first(files, root):
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    listing = files.list()
    assert [(each.name, each.type) for each in listing.entries] == [
        ("src", "directory"),
        ("README.md", "file"),
        ("link", "symlink"),
        ("pipe", "other"),
    ]
    assert not listing.truncated
    assert [each.path for each in files.list("src/deep").entries] == ["src/deep/data.bin"]


def test_text_is_a_string_and_the_rest_is_bytes(files):
    text, data = files.read("README.md"), files.read("./src//deep/data.bin")
    assert (text.content, text.mime_type, text.size) == ("# Hello\n", "text/markdown", 8)
    assert (data.content, data.size) == (b"\0\1\2", 3)
    assert text.last_modified > 1_600_000_000_000


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "..",
        "src/../../secret",
        "src/..",
        "/etc/passwd",
        "/",
        "a\0b",
        "x" * 5000,
        "\ud800",
    ],
)
def test_a_path_that_goes_up_or_is_none_is_refused(files, path):
    assert "path:" in refused(lambda: files.read(path))
    assert "path:" in refused(lambda: files.list(path))


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../secret", "README.md", ".", "/proc/self/root/etc/passwd"]
)
def test_no_symbolic_link_is_followed(files, root, target):
    (root / "link").symlink_to(target)
    assert "symbolic link" in refused(lambda: files.read("link"))
    (root / "src" / "out").symlink_to("/" if target.startswith("/") else "..")
    for path in ("src/out/secret", "src/out/README.md", "src/out/etc/passwd"):
        message = refused(lambda path=path: files.read(path))
        assert "symbolic link" in message or "no such file" in message
    message = refused(lambda: files.list("src/out"))
    assert "symbolic link" in message or "no such file" in message


def test_what_is_no_file_is_not_opened(files, root):
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        for name in ("pipe", "socket"):
            assert "no file" in refused(lambda name=name: files.read(name))
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
        assert "no file" in refused(lambda: files.read("device"))
    assert "is a directory" in refused(lambda: files.read("src"))
    assert "is a directory" in refused(lambda: files.read(""))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of several users")
def test_a_hard_link_to_a_file_of_another_user_is_refused(files, root, tmp_path):
    os.chown(root, 65534, 65534)
    os.link(tmp_path / "secret", root / "hard")
    assert "hard link" in refused(lambda: files.read("hard"))
    own = root / "own"
    own.write_text("mine")
    os.chown(own, 65534, 65534)
    os.link(own, root / "again")
    assert files.read("again").content == "mine"


def test_a_large_file_is_refused_and_so_is_one_that_grows(files, root):
    os.truncate(os.open(root / "large", os.O_CREAT | os.O_RDWR), 9 << 20)
    refused(lambda: files.read("large"), ErrorCode.PAYLOAD_TOO_LARGE)
    (root / "small").write_text("12345")
    assert len(files.read("small", 5).content) == 5


def test_find_looks_at_names_in_every_directory_but_through_no_link(files, root):
    (root / "src" / "loop").symlink_to(root)
    (root / "out").symlink_to("../outside")
    (root / ".git").mkdir()
    (root / ".git" / "main.py").touch()
    assert files.find("MAIN").paths == ["src/main.py"]
    assert files.find("*.bin").paths == ["src/deep/data.bin"]
    assert files.find("file").paths == []
    assert "name" in refused(lambda: files.find(""))


def test_a_find_of_very_much_is_cut_off(files, root):
    for number in range(1200):
        (root / f"n{number}").touch()
    found = files.find("n")
    assert (len(found.paths), found.truncated) == (1000, True)


def test_a_name_that_is_no_utf_8_is_shown_and_hurts_nothing(files, root):
    (root / os.fsdecode(b"\xff\xfe")).touch()
    assert "\ufffd\ufffd" in [each.name for each in files.list().entries]
    assert files.find("main").paths == ["src/main.py"]


def test_a_workspace_that_is_gone_is_said_to_be(tmp_path):
    gone = WorkspaceFiles(tmp_path / "gone")
    refused(gone.list, ErrorCode.STORAGE_UNAVAILABLE)
    refused(lambda: gone.find("a"), ErrorCode.STORAGE_UNAVAILABLE)


def test_nothing_is_read_of_a_link_that_takes_a_directory_s_place_meanwhile(files, root, tmp_path):
    """A race: who reads finds the file, or a refusal, and never what the link leads to."""
    (root / "real").mkdir()
    (root / "real" / "file").write_text("mine")
    (root / "swap").symlink_to("../outside")
    (tmp_path / "outside" / "theirs").touch()
    seen: set[str | bytes] = set()
    with swapping(root, "real", "swap"):
        for _ in range(3000):
            with contextlib.suppress(ShareError):
                seen.add(files.read("real/file").content)
            with contextlib.suppress(ShareError):
                seen |= {each.name for each in files.list("real").entries}
    assert seen == {"mine", "file"}


def test_nothing_is_read_of_a_link_that_takes_a_file_s_place_meanwhile(files, root):
    (root / "a").write_text("mine")
    (root / "b").symlink_to("../secret")
    seen = set()
    with swapping(root, "a", "b"):
        for _ in range(3000):
            with contextlib.suppress(ShareError):
                seen.add(files.read("a").content)
    assert seen == {"mine"}


def test_no_descriptor_is_left_open(files, root):
    before = len(list(Path("/proc/self/fd").iterdir()))
    (root / "link").symlink_to("/etc")
    for path in ("link", "link/passwd", "missing", "src", "README.md", "../x"):
        for work in (files.read, files.list):
            try:
                work(path)
            except ShareError:
                continue
    files.find("a")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Searching


@pytest.fixture(scope="module")
def searching() -> Searching:
    found = Searching.find()
    if found is None:
        pytest.skip("ripgrep or bubblewrap is not installed, or does not run here")
    return found


def test_a_search_finds_lines_and_places(root, searching):
    files = WorkspaceFiles(root, searching)
    found = files.search("hello")
    lines = sorted((each.path, each.line, each.text[each.start : each.end]) for each in found.matches)
    assert lines == [("README.md", 1, "Hello"), ("src/main.py", 1, "hello"), ("src/main.py", 2, "Hello")]
    assert not found.truncated
    assert [each.path for each in files.search("Hello", ("*.py",)).matches] == ["src/main.py"]
    assert files.search("hello", limit=1).truncated
    assert files.search("h.llo").matches == []
    assert len(files.search("h.llo", regexp=True).matches) == 3


def test_a_search_follows_no_link_and_takes_no_option(root, searching, tmp_path):
    files = WorkspaceFiles(root, searching)
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "etc").symlink_to("/etc")
    (root / "file").symlink_to(tmp_path / "secret")
    assert files.search("of another").matches == []
    assert files.search("of the server").matches == []
    assert files.search("--files").matches == []
    assert files.search("hello", ("--pre=/bin/sh",)).matches == []
    (root / ".rgignore").write_text("*")
    (root / ".ripgreprc").write_text("--follow")
    assert files.search("of another").matches == []


def test_a_search_of_a_link_that_takes_a_directory_s_place_finds_nothing_outside(root, searching, tmp_path):
    """What ripgrep is led to is not in its sandbox."""
    (tmp_path / "outside" / "file").write_text("of another\n" * 10)
    (root / "real").mkdir()
    (root / "swap").symlink_to(tmp_path / "outside")
    files = WorkspaceFiles(root, searching)
    with swapping(root, "real", "swap"):
        assert not any(files.search("of another").matches for _ in range(20))


def test_a_long_line_is_shown_where_it_matters(root, searching):
    (root / "long").write_text("x" * 5000 + "needle" + "y" * 5000 + "\n")
    [match] = WorkspaceFiles(root, searching).search("needle").matches
    assert match.text[match.start : match.end] == "needle"
    assert len(match.text) <= 500


@pytest.mark.parametrize(
    ("query", "globs", "limit", "named"),
    [
        ("", (), 10, "query"),
        ("x" * 1001, (), 10, "query"),
        ("a\0", (), 10, "query"),
        ("\ud800", (), 10, "query"),
        ("a", ("",), 10, "glob"),
        ("a", ("*",) * 33, 10, "glob"),
        ("a", (), 0, "limit"),
        ("a", (), 2001, "limit"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_by_name(root, searching, query, globs, limit, named):
    assert named in refused(lambda: WorkspaceFiles(root, searching).search(query, globs, limit))


def test_a_regular_expression_that_is_none_is_a_sentence(root, searching):
    assert "query:" in refused(lambda: WorkspaceFiles(root, searching).search("(", regexp=True))


def test_without_ripgrep_that_is_said(root):
    assert "ripgrep" in refused(lambda: WorkspaceFiles(root).search("a"), ErrorCode.FORBIDDEN)
