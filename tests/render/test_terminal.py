"""Output of commands, as a terminal would show it in the end."""

import time

import pytest
from field_inputs import field

from rpcshare.render.terminal import shown_by_terminal
from support.drawing_shares import Document, page_of


def text(output: str) -> str:
    return "\n".join(Document(str(line)).text for line in shown_by_terminal(output))


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("10%\r100%", "100%"),
        ("long line\rshort", "shortline"),
        ("long line\r\x1b[Kshort", "short"),
        ("abc\b\bX", "aXc"),
        ("one\ntwo\x1b[1A\rONE", "ONE\ntwo"),
        ("one\ntwo\x1b[1A\x1b[2Kthree", " three\ntwo"),
        ("old\n\x1b[2J\x1b[Hnew", "new"),
        ("\x1b[2K\x1b[1Gdone", "done"),
        ("a\x1b[3Cb", "a b"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://example.com\x07link\x1b]8;;\x07", "link"),
        ("\x1b[?25lhidden cursor", "hidden cursor"),
        ("a\r\nb", "a\nb"),
    ],
)
def test_the_cursor_goes_where_it_is_sent(output: str, shown: str) -> None:
    assert text(output) == shown


@pytest.mark.parametrize(
    ("sequence", "classes"),
    [
        ("32", "ansi-f2"),
        ("1;31", "ansi-bold ansi-f1"),
        ("97", "ansi-f15"),
        ("44", "ansi-b4"),
        ("38;5;208", "ansi-f3"),
        ("38;2;0;0;255", "ansi-f4"),
        ("4;9", "ansi-underlined ansi-struck"),
    ],
)
def test_colours_and_styles_are_classes(sequence: str, classes: str) -> None:
    assert shown_by_terminal(f"\x1b[{sequence}mx\x1b[0my") == [f'<span class="{classes}">x</span>y']


def test_the_output_of_the_field_is_shown_as_a_terminal_does() -> None:
    page = page_of(field("10"))
    assert '<span class="ansi-f2">PASS</span> test_a' in page
    assert "progress 10%" not in page
    assert "\x1b" not in page
    assert "example.com" not in page


def test_what_it_shows_is_escaped() -> None:
    assert shown_by_terminal("\x1b[31m<b>\x1b[0m&") == ['<span class="ansi-f1">&lt;b&gt;</span>&amp;']


@pytest.mark.parametrize(
    "unit",
    ["\x1b[31m", "\x1b[499Cx\n", "\x1b[2J", "x\x1b[1J", "\n\x1b[99A", "\x1b[", "\x1b]", "a\b", "x\x1b[1K"],
)
def test_the_work_grows_with_the_output_and_not_with_its_square(unit: str) -> None:
    def work(times: int) -> float:
        started = time.process_time()
        shown_by_terminal(unit * times)
        return time.process_time() - started

    work(100)
    assert work(20_000) < 60 * max(work(2_000), 0.005)
