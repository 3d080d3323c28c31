"""Texts of which two characters each are one, for SQLite's index of three characters.

That index finds a text by the rows that have each three characters of it, one behind the other; of *the
parser* all rows may have these. Of pairs, three are six characters, which few rows have unless they have the
words. A text may begin at the first or at the second character of a pair, so rows have both.

What is written so is in databases: whoever changes it makes the index again, in a migration.
"""

import re
from zlib import crc32

__all__ = ["SHORTEST", "pairs_of", "terms_of"]

SHORTEST = 6
"""Characters of a text that can be found by pairs."""

_FIRST = 0x3400  # behind it are letters alone, and no surrogates up to:
_LAST = 0xD7A3
_ASCII = 2**14  # pairs, each with a character of its own; others share what is left
_MOST_TERMS = 64
_MARK = re.compile("[\ue000-\uefff]{3}")


def pairs_of(words: str) -> str:
    """Return what is indexed of the words of a row; what stands for its owner is in it as it is."""
    return " ".join([*_MARK.findall(words), _paired(words), _paired(words[1:])])


def terms_of(text: str) -> list[str]:
    """Return what all rows have that have ``text``, of at least SHORTEST characters; others may, too."""
    paired = _paired(text)
    terms = list(dict.fromkeys(paired[start : start + 3] for start in range(len(paired) - 2)))
    return terms[:: len(terms) // _MOST_TERMS + 1]


def _paired(text: str) -> str:
    if text.isascii():
        codes = text.encode("ascii")
        numbers = [first << 7 | second for first, second in zip(codes[::2], codes[1::2], strict=False)]
    else:
        numbers = [_number(text[at : at + 2]) for at in range(0, len(text) - 1, 2)]
    return "".join([chr(_FIRST + number) for number in numbers])


def _number(pair: str) -> int:
    if pair.isascii():
        return ord(pair[0]) << 7 | ord(pair[1])
    return _ASCII + crc32(pair.encode("utf-8", "surrogatepass")) % (_LAST - _FIRST - _ASCII)
