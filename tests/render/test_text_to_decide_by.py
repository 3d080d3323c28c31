"""Text that somebody decides by: whatever is in it can be seen."""

import unicodedata

from rpcshare.render.safe_text import unmistakable, visible


def test_what_a_terminal_obeys_has_a_sign():
    assert visible("safe\rrm\x1b[2K -rf\r\nx\t") == "safe\u240drm\u241b[2K -rf\nx\t"


def test_a_file_keeps_what_joins_emoji_and_a_command_does_not():
    family = "\U0001f468\u200d\U0001f469 \u26a0\ufe0f"
    assert visible(family) == family
    assert unmistakable(family) == "\U0001f468[U+200D]\U0001f469 \u26a0[U+FE0F]"


def test_no_character_of_a_command_is_without_a_look():
    for number in (
        *range(0x80, 0x3200),
        *range(0xA000, 0xD7FF),
        *range(0xE000, 0x10000),
        *range(0xE0000, 0xE0200),
    ):
        shown = unmistakable(f"a{chr(number)}b")
        assert len(shown) > 3 or unicodedata.category(shown[1])[0] not in "CZ", hex(number)


def test_words_of_all_scripts_stay():
    words = "naïve Привет مرحبا 日本語 한국어 हिन्दी rm -rf"
    assert unmistakable(words) == words
