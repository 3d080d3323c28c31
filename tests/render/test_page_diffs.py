"""Changes to files."""

import pytest

from rpcshare.render.blocks import NORMAL, Bounds
from rpcshare.render.diffs import DiffBlock, compared, diff_of_file, patched
from rpcshare.render.lenient_json import Fields

PATCH = "--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@ def f():\n one\n-two = 1\n+two = 22\n three\n"


def rows(block: DiffBlock) -> list[tuple[str, int, int, str, str]]:
    return [
        (row.sign, row.old_number, row.new_number, str(row.old), str(row.new))
        for hunk in block.hunks
        for row in hunk.rows
    ]


def test_a_patch_in_one_column() -> None:
    block = patched("", PATCH, NORMAL)
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
    assert rows(patched("x.py", PATCH, NORMAL, is_split=True)) == [
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
