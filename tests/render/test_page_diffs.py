"""Changes to files."""

import msgspec
import pytest

from rpcshare.render.blocks import NORMAL, Bounds
from rpcshare.render.diffs import DiffBlock, compared, diff_of_file, patched
from rpcshare.render.lenient_json import Fields

UNCOLOURED = msgspec.structs.replace(NORMAL, has_colours=False)

PATCH = "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@ def f():\n one\n-two = 1\n+two = 22\n three\n"


def rows(block: DiffBlock) -> list[tuple[str, int, int, str, str]]:
    return [
        (row.sign, row.old_number, row.new_number, str(row.old), str(row.new))
        for hunk in block.hunks
        for row in hunk.rows
    ]


def test_a_patch_in_one_column() -> None:
    block = patched("", PATCH, UNCOLOURED)
    assert block.file == "x.py"
    assert (block.additions, block.deletions, block.status) == (1, 1, "modified")
    assert block.hunks[0].heading == "def f():"
    assert rows(block) == [
        (" ", 1, 1, "one", "one"),
        ("-", 2, 0, "two = <mark>1</mark>", "two = <mark>1</mark>"),
        ("+", 0, 2, "two = <mark>22</mark>", "two = <mark>22</mark>"),
        (" ", 3, 3, "three", "three"),
    ]


def test_a_patch_in_two_columns() -> None:
    assert rows(patched("x.py", PATCH, UNCOLOURED, is_split=True)) == [
        (" ", 1, 1, "one", "one"),
        ("~", 2, 2, "two = <mark>1</mark>", "two = <mark>22</mark>"),
        (" ", 3, 3, "three", "three"),
    ]


def test_two_versions_of_a_file_are_compared() -> None:
    before = "".join(f"line {number}\n" for number in range(100))
    block = compared("x", before, before.replace("line 50\n", "line fifty\n"), NORMAL)
    assert (block.additions, block.deletions) == (1, 1)
    assert [row[1] for row in rows(block)] == [48, 49, 50, 51, 0, 52, 53, 54]


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [("", "a\nb\n", "added"), ("a\nb\n", "", "deleted"), ("a\n", "b\n", "modified")],
)
def test_what_became_of_a_file(before: str, after: str, status: str) -> None:
    assert compared("x", before, after, NORMAL).status == status


def test_counts_and_status_are_taken_as_opencode_gives_them() -> None:
    diff = Fields({"file": "x", "patch": PATCH, "additions": 7, "deletions": 0, "status": "added"})
    block = diff_of_file(diff, NORMAL)
    assert (block.additions, block.deletions, block.status) == (7, 0, "added")


def test_a_long_diff_is_cut() -> None:
    block = compared("x", "", "line\n" * 5000, Bounds(lines=10, characters=1000, prose=0, image=0))
    assert len(rows(block)) == 10
    assert block.cut == "5,000 lines"


def test_files_that_differ_everywhere_cost_little() -> None:
    before = "\n".join(f"a{number % 7}" for number in range(20_000))
    after = "\n".join(f"a{number % 5}" for number in range(20_000))
    assert compared("x", before, after, NORMAL).cut


@pytest.mark.parametrize(
    "patch", ["", "\n", "garbage", "@@ -1 +1 @@", "@@ -999999999 +1 @@\n+x", "+a\n-b", "@@ @@"]
)
def test_what_is_no_patch_breaks_nothing(patch: str) -> None:
    assert isinstance(patched("x", patch, NORMAL), DiffBlock)
    assert isinstance(patched("x", patch, NORMAL, is_split=True), DiffBlock)


def test_content_is_escaped() -> None:
    block = compared("x", "<b>one</b>\n", "<b>two</b>\n", NORMAL)
    assert "&lt;b&gt;<mark>" in rows(block)[0][3]


def test_a_huge_file_is_not_read_among_others() -> None:
    block = diff_of_file(
        Fields({"file": "x", "before": "", "after": "line\n" * 500_000, "additions": 500_000}), NORMAL
    )
    assert block.remark == "Too large to be shown among others."
    assert block.additions == 500_000


def test_lines_that_are_alike_are_not_compared_for_long() -> None:
    before = "s\n" + "".join("a\n" if number % 2 else f"x{number}\n" for number in range(790)) + "e\n"
    block = compared("x", before, "t\n" + "a\n" * 197 + "g\n", NORMAL)
    assert block.remark.startswith("Shown as lines removed and added")
    assert (block.additions, block.deletions) == (199, 792)


def test_of_a_new_file_however_long_nothing_is_said_to_be_left_out() -> None:
    block = compared("x", "", "a\n" * 5000, NORMAL)
    assert (block.additions, block.remark) == (5000, "")


def test_lines_are_coloured_and_changed_words_marked_in_them() -> None:
    block = patched("x.py", "@@ -1 +1 @@\n-return 1\n+return 22\n", NORMAL)
    assert rows(block)[1][3] == ('<span class="k">return</span> <mark><span class="mi">22</span></mark>')


GIT = {
    "new and empty": ("new file mode 100644\nindex 000..e69\n", "added", "A new, empty file."),
    "deleted and empty": ("deleted file mode 100644\nindex e69..000\n", "deleted", "Deleted; it was empty."),
    "renamed": (
        "similarity index 100%\nrename from old.py\nrename to x.py\n",
        "renamed",
        "Renamed from old.py. Its content stayed as it was.",
    ),
    "copied": (
        "similarity index 100%\ncopy from old.py\ncopy to x.py\n",
        "copied",
        "Copied from old.py. Its content stayed as it was.",
    ),
    "mode only": ("old mode 100644\nnew mode 100755\n", "modified", "Made executable."),
    "another mode": (
        "old mode 100644\nnew mode 120000\n",
        "modified",
        "Mode changed from 100644 to 120000.",
    ),
    "binary": ("index 1..2 100644\nBinary files a/x.py and b/x.py differ\n", "modified", "A binary file."),
    "binary patch": ("index 1..2\nGIT binary patch\nliteral 3\nKcmZ\n", "modified", "A binary file."),
    "line endings": (
        "--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n-a\r\n-b\r\n+a\n+b\n",
        "modified",
        "Only the line endings changed, from CRLF to LF.",
    ),
    "no newline any more": (
        "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n",
        "modified",
        "No newline at the end of the new version.",
    ),
    "a newline now": (
        "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n",
        "modified",
        "The old version had no newline at its end.",
    ),
}


@pytest.mark.parametrize("kind", GIT)
def test_what_git_says_beside_lines_is_said_in_words(kind: str) -> None:
    head, status, remark = GIT[kind]
    block = patched("x.py", f"diff --git a/x.py b/x.py\n{head}", NORMAL)
    assert (block.status, block.remark) == (status, remark)


def test_no_line_is_made_up_for_a_patch_without_any() -> None:
    assert rows(patched("x.py", f"diff --git a/x.py b/x.py\n{GIT['binary patch'][0]}", NORMAL)) == []


def test_a_line_that_looks_like_a_header_is_a_line() -> None:
    patch = "--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1,1 @@\n--- a comment\n-++ y\n+++ z\n"
    assert [row[3] for row in rows(patched("x.sql", patch, UNCOLOURED))] == ["-- a comment", "++ y", "++ z"]


def test_names_in_octal_escapes_are_read() -> None:
    patch = 'diff --git "a/\\303\\251t\\303\\251.txt" "b/\\303\\251t\\303\\251.txt"\nnew file mode 100644\n'
    assert patched("", patch, NORMAL).file == "\xe9t\xe9.txt"
