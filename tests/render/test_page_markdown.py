"""Markdown as it gets into a page."""

import pytest
from field_inputs import field

from rpcshare.render.markdown import MAX_MARKDOWN, markdown
from support.drawing_shares import Document, page_of


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


@pytest.mark.parametrize(
    ("written", "drawn"),
    [
        (r"Say $a_1 * b * c$ here", "<msub><mi>a</mi><mn>1</mn></msub>"),
        (r"$$\int_0^1 x\,dx$$", "<msubsup>"),
        (r"\(x_1\) and *more*", "<msub>"),
        ("\\[\na = b\n- c\n\\]", "<mo>\u2212</mo><mi>c</mi>"),
        ("Text:\n$$\n# x\n+ y\n$$\nmore", '<math display="block"'),
        ("\\begin{align*}\na &= b \\\\\nc &= d\n\\end{align*}", "<mtable"),
        ("| a |\n|---|\n| $x^2$<br>two |", "<msup>"),
        ("- item\n  $$\n  x^2\n  $$", "<msup>"),
        ("> so\n> $$\n> x^2\n> $$\n> on", "<msup>"),
        # As models write them: behind other words, with signs of money within, in environments of their own.
        ("as$$\n\\mathbf{6} \\to x_1\n$$\nwith *more*", "<msub>"),
        (r"it pays $\$0.60$ at *more*", "<mi>$</mi><mn>0.60</mn>"),
        (r"is $5 if $5 < x \le 10$ and $12 if not", "<mn>5</mn><mo>&lt;</mo>"),
        ("$$\\begin{aligned} a &= b \\\\ &= c \\end{aligned}$$", "<mtable"),
        (r"\[ \{ x \mid x > 0 \} \]", '<mo stretchy="false">{</mo>'),
        ("\\[\nf = \\begin{cases} 1 & x > 0 \\\\ 0 & \\text{else} \\end{cases}\n\\]", "<mtable>"),
        (r"The $k$th of $n$-grams, $O(n \log n)$", "<mi>k</mi></mrow></math>th"),
        (r"It is $\boxed{42}$", '<menclose notation="box">'),
    ],
)
def test_formulas_are_drawn_and_markdown_leaves_them_alone(written: str, drawn: str) -> None:
    html = markdown(written)
    assert drawn in html
    assert "<em>" not in html.replace("<em>more</em>", "")
    assert "<ul>" not in html.replace("<ul>\n<li>item", "")


@pytest.mark.parametrize(
    "formula",
    [
        r"$\begin{tabbing}a_1\end{tabbing}$",
        r"$a_1 & *b*$",
        r"$\unknowncommand{a_b}_c$",
        r"$\frac{a$",
        r"$\def\a{\a\a}\a *x* y$",
        r"\(\cancel{x_1} * y\)",
    ],
)
def test_a_formula_that_cannot_be_drawn_stays_as_it_was_written(formula: str) -> None:
    assert f'<span class="tex">{formula}</span>' in str(markdown(f"Say {formula} *here*")).replace(
        "&amp;", "&"
    )


@pytest.mark.parametrize(
    "text",
    [
        "from $5 to $10, or more",
        "$5 and $6",
        "$1.5M-$2M or $20 million",
        "it is $5 (see `x$`)",
        "$HOME/$USER and ${a}-${b}",
        "US$5 for A$6",
        "$10/month, $100k$",
        "$PATH$ and $foo_bar$",
        "$10K flat, Phase 2 at $8K",
        "$155 lifetime spend, $34",
        "We pay $20 or `$5`",
    ],
)
def test_prices_and_variables_are_no_formulas(text: str) -> None:
    html = markdown(text)
    assert "<math" not in html
    assert Document(html).text.strip() == text.replace("`", "")


def test_escaped_brackets_are_no_formulas() -> None:
    assert "[not a link](x)" in markdown(r"\[not a link\](x) and \(in words only\)")


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "^",
        r"\frac",
        r"\sqrt",
        r"\left(",
        r"\begin{matrix}",
        "x_{",
        r"\over",
        r"\hbox{$",
        "$",
        "$$",
        r"\(",
    ],
)
def test_formulas_without_end_are_still_shown(unit: str) -> None:
    assert markdown("$$" + unit * (16_000 // len(unit)))
    assert markdown(f"${unit * 300}$ " * 8)


def test_no_formula_is_larger_than_what_is_around_it() -> None:
    html = markdown(r"$\rule{100em}{100em}$ $\hspace{99em}x$ $\hspace{-50em}x$ $\color{red}{x}$")
    assert "99em" not in html.replace("hspace{99em}", "")
    assert "<mspace" not in html
    assert "red" not in html.replace("{red}", "")


def test_no_html_comes_out_of_a_formula() -> None:
    html = markdown(r"$\text{<img src=x onerror=alert(1)><style>}$ $\unicode{x3c}$ $\href{javascript:a}{x}$")
    tags = {tag for tag, _ in Document(html).elements}
    assert tags <= {"p", "math", "mrow", "mtext", "span"}
    assert not Document(html).all("href")


def test_footnotes_are_linked_with_their_places() -> None:
    page = Document(markdown("One[^1] and two[^1].\n\n[^1]: The *note*.\n"))
    ids, links = page.all("id"), page.all("href")
    assert len(ids) == 3
    assert sorted(set(links)) == sorted(f"#{each}" for each in ids)
    assert "The note." in page.text


def test_footnotes_of_two_texts_do_not_have_the_same_names() -> None:
    text = "A[^1]\n\n[^1]: x\n"
    ids = Document(markdown(text, name="p1") + markdown(text, name="p2")).all("id")
    assert len(ids) == len(set(ids)) == 4


def test_each_block_has_its_own_direction() -> None:
    page = Document(
        markdown("\u05e9\u05dc\u05d5\u05dd\n\nHello\n\n- \u05d0\n- b\n\n> ok\n\n# H\n\n|a|\n|-|\n|\u05d0|")
    )
    directions = {tag: attributes.get("dir") for tag, attributes in page.elements}
    assert directions["ul"] == "rtl"
    assert directions["blockquote"] == "ltr"
    assert {directions[tag] for tag in ("p", "li", "h3", "th", "td")} == {"auto"}


def test_a_path_or_a_formula_says_nothing_of_a_block_s_direction() -> None:
    page = Document(markdown("`./run.sh` \u05d4\u05e8\u05e5\n\n- `a.py` \u05d0\n\n$x$ \u05d0"))
    directions = [(tag, attributes["dir"]) for tag, attributes in page.elements if "dir" in attributes]
    assert ("code", "ltr") in directions
    assert ("math", "ltr") in directions
    assert ("ul", "rtl") in directions


def test_formulas_in_code_stay_code() -> None:
    for code in ("    \\(x\\)", "```\n$x$ \\(y\\)\n```", "`$x$`"):
        assert "<math" not in markdown(f"Text\n\n{code}\n\nend")


def test_terminal_styles_are_shown_in_prose_and_in_its_code() -> None:
    html = markdown("\x1b[31mred **bold**\x1b[0m plain `\x1b[1mx`\n\n```\n\x1b[32mok\x1b[0m\n```\n")
    assert '<span class="ansi-f1">red <strong>bold</strong></span> plain <code>x</code>' in html
    assert '<span class="ansi-f2">ok</span>' in html
    assert "\x1b" not in html


def test_letters_cannot_be_put_into_another_order_but_marks_of_languages_stay() -> None:
    html = markdown("it is \u202eevil\u202c, \u200f\u05e9\u05dc\u05d5\u05dd\u200f")
    assert "[U+202E]evil" in html
    assert "\u200f\u05e9\u05dc\u05d5\u05dd" in html


def test_tasks_have_boxes_and_alerts_their_names() -> None:
    html = markdown("- [x] done\n- [ ] open\n\n> [!NOTE]\n> mind")
    assert "\u2611 done" in html
    assert "\u2610 open" in html
    assert "<strong>Note</strong>" in html


def test_a_line_breaks_within_a_table() -> None:
    assert "one<br>" in markdown("| a |\n|---|\n| one<br>two |").replace("\n", "")


def test_the_markdown_of_the_field_has_each_of_its_forms() -> None:
    html = page_of(field("09"))
    assert '<span class="language">text</span><pre' in html  # the name stands before the code, not over it
    assert '<blockquote class="alert note">' in html
    page = Document(html)
    assert {"math", "table", "sup"} <= {tag for tag, _ in page.elements}
    assert "<details><summary>More</summary>" in page.text  # HTML that somebody wrote is text
    for raw in ("[x]", "[ ]", "[^1]", "\\int", "|--"):
        assert raw not in page.text
