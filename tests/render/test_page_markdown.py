"""Markdown as it gets into a page."""

import pytest
from drawing_shares import Document

from rpcshare.render.markdown import MAX_MARKDOWN, markdown


def test_code_is_highlighted_by_classes_and_never_by_styles() -> None:
    html = markdown("```python\ndef f():\n    return '<b>'\n```")
    assert '<span class="k">def</span>' in html
    assert "&lt;b&gt;" in html
    assert "style=" not in html


def test_headings_go_on_below_those_of_the_page_one_level_at_a_time() -> None:
    tags = [tag for tag, _ in Document(markdown("# A\n\n### B\n\n###### C\n\n## D\n")).elements]
    assert tags == ["h3", "h4", "h5", "h4"]


def test_an_image_is_a_link_and_nothing_is_loaded() -> None:
    page = Document(markdown("![a chart](https://elsewhere.example/x.png)"))
    (element,) = [attributes for tag, attributes in page.elements if tag == "a"]
    assert element["href"] == "https://elsewhere.example/x.png"
    assert element["rel"] == "noopener noreferrer nofollow"
    assert "img" not in [tag for tag, _ in page.elements]


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "data:text/html,x", "vbscript:x", "/relative", "//host/x", "file:///etc/passwd"],
)
def test_links_lead_to_the_web_and_to_mail_alone(url: str) -> None:
    assert not Document(markdown(f"[x]({url}) <{url}> ![x]({url})")).all("href")


def test_line_breaks_of_a_text_are_kept() -> None:
    assert markdown("one\ntwo\n\nthree") == "<p>one<br>\ntwo</p>\n<p>three</p>\n"


def test_html_is_text() -> None:
    assert Document(markdown("<script>alert(1)</script> <b onclick=x>y</b>")).elements == [("p", {})]


def test_alignment_of_cells_is_a_class() -> None:
    assert '<td class="right">1</td>' in markdown("|a|\n|--:|\n|1|")


@pytest.mark.parametrize(
    "unit", ["[", "![](", "*a **a ", "http://a.", "> ", "- ", "`a``b", "<", "[a](", "|a"]
)
def test_repetition_without_end_is_still_drawn(unit: str) -> None:
    assert markdown(unit * (16_000 // len(unit)))


def test_what_is_very_long_is_shown_as_it_was_written() -> None:
    assert '<pre class="as-written"' in markdown("**a** " * MAX_MARKDOWN)


@pytest.mark.parametrize(
    "text", ["> " * 30 + "the end", "".join("  " * n + "* a\n" for n in range(40)) + "the end"]
)
def test_what_is_nested_too_deeply_is_shown_as_it_was_written_and_not_left_out(text: str) -> None:
    page = Document(markdown(text)).text
    assert "Shown as it was written: it is nested too deeply." in page
    assert "the end" in page


def test_tables_of_too_many_cells_are_shown_as_they_were_written() -> None:
    table = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 1000 + "\n"
    assert "<td" in markdown(table)
    assert "<td" not in markdown(table * 4)
    assert "more than 10,000 cells" in markdown(table * 4)
    assert "<td" not in markdown("|a" * 300 + "\n" + "|-" * 300 + "\n" + "a\n" * 220)


def test_formulas_stay_as_they_were_written() -> None:
    for formula in (r"$a_1 * b * c$", r"$$\int_0^1 x\,dx$$", r"\(x\_1\)", r"\[\frac12\]"):
        assert formula in markdown(f"Say {formula} here")


def test_prices_are_no_formulas() -> None:
    assert "math" not in markdown("from $5 to $10, *or* more")


def test_tasks_have_boxes_and_alerts_their_names() -> None:
    html = markdown("- [x] done\n- [ ] open\n\n> [!NOTE]\n> mind")
    assert "\u2611 done" in html
    assert "\u2610 open" in html
    assert "<strong>Note</strong>" in html


def test_a_line_breaks_within_a_table() -> None:
    assert "one<br>" in markdown("| a |\n|---|\n| one<br>two |").replace("\n", "")
