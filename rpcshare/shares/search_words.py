"""Text taken apart into words, the same way for what is indexed and for what is looked for.

SQLite's own tokenizer and PostgreSQL's parser find no words in languages that are written without spaces. So
every character of those becomes a word, and a word of theirs is a phrase. A trigram index would find them,
but nothing shorter than three characters, as most words of Chinese are; and it is three times as large.
"""

import re
import unicodedata
from itertools import product

__all__ = ["clean", "folded_words", "joined", "separated", "spellings", "words_of"]

# Thai, Lao, Myanmar, Khmer; Han, kana and what belongs to them; Hangul, whose particles are written together
# with what they follow.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
    "\U00020000-\U0003ffff"
)
_SEPARATOR = "\x1f"  # takes one byte, and is part of no word
_BOUNDARY = re.compile(rf"(?<=[{_UNSPACED}])(?=\w)|(?<=\w)(?=[{_UNSPACED}])")
_WORD = re.compile(r"[^\W_]+")
_SHARP_S = re.compile("[ßẞ]|ss", re.I)
_MAX_SHARP = 4  # of a word of which all spellings are looked for
_NEVER_STORED = re.compile("[\x00\x1f]")  # PostgreSQL takes no NUL
_HALF_PAIR = re.compile("[\ud800-\udfff]")
# A terminal's colours and titles (ECMA-48): their letters would be part of the words behind them.
_CONTROL_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b]{0,200}+(?:\x07|\x1b\\)|[ -/]*+[0-~])"
)


def clean(text: str) -> str:
    """Return ``text`` as a database can keep it, without what it tells a terminal."""
    if "\x1b" in text:
        text = _CONTROL_SEQUENCE.sub("", text)
    if "\x00" in text or "\x1f" in text:
        text = _NEVER_STORED.sub(" ", text)
    return text if text.isascii() else _HALF_PAIR.sub("\ufffd", text)


def separated(text: str) -> str:
    """Return ``text`` with a mark between the characters that are words by themselves."""
    return text if text.isascii() else _BOUNDARY.sub(_SEPARATOR, unicodedata.normalize("NFC", text))


def joined(text: str) -> str:
    """Return what :func:`separated` was given."""
    return text.replace(_SEPARATOR, "")


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in their order, as they are written."""
    return _WORD.findall(separated(clean(text)))


def folded_words(text: str) -> list[str]:
    """Return the words of ``text``, without case and accents."""
    if text.isascii():
        return _WORD.findall(text.lower())
    separate = separated(text)
    plain = "".join(c for c in unicodedata.normalize("NFKD", separate) if not unicodedata.combining(c))
    # What is decomposed has to be whole again: Hangul.
    return _WORD.findall(unicodedata.normalize("NFC", plain).casefold())


def spellings(word: str) -> list[str]:
    """Return how a word is spelled with ß and with ss, which SQLite holds to be different."""
    pieces = _SHARP_S.split(word)
    if not 1 < len(pieces) <= _MAX_SHARP + 1:
        return [word]
    return [
        pieces[0] + "".join(map("".join, zip(sharp, pieces[1:], strict=True)))
        for sharp in product(("ss", "ß"), repeat=len(pieces) - 1)
    ]
