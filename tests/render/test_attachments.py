"""Files in messages, and files that a prompt mentions."""

from field_inputs import field

from support.drawing_shares import Document, page_of


def part_of(html: str, part_id: str) -> str:
    start = html.index(f'id="p-{part_id}"')
    return html[start : html.find('<div class="part ', start)]


def test_text_in_base64_is_shown() -> None:
    assert "hello\nworld" in part_of(page_of(field("12")), "f4")


def test_svg_is_shown_as_text_and_not_run() -> None:
    html = part_of(page_of(field("12")), "f2")
    assert "<img" not in html
    assert "rect" in html


def test_every_attachment_can_be_downloaded() -> None:
    html = page_of(field("12"))
    for part_id in ("f1", "f2", "f3", "f4"):
        address = f'href="../api/share/everything/parts/{part_id}/content" download'
        assert address in part_of(html, part_id)


def test_a_file_that_was_mentioned_is_shown_once_with_its_lines() -> None:
    html = page_of(field("12"))
    assert "Called the Read tool" not in html
    assert 'id="p-f6"' not in html
    shown = part_of(html, "f7")
    assert ">a.py</span>" in shown
    assert 'data-first="1"' in shown
    assert "a = " in Document(shown).text


def test_a_large_image_is_loaded_when_it_is_scrolled_to() -> None:
    items = field("12")
    image = next(item["data"] for item in items if item["data"]["id"] == "f1")
    image["url"] = "data:image/png;base64," + "A" * 400_000
    html = part_of(page_of(items), "f1")
    assert 'src="../api/share/everything/parts/f1/content"' in html
    assert 'loading="lazy"' in html


def test_what_a_tool_attached_can_be_downloaded() -> None:
    assert 'href="../api/share/everything/parts/x/content" download' in part_of(page_of(field("12")), "t1")
