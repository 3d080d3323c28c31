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
# Marks belong to the letter before them: accents, and the vowel signs of the languages of India.
_MARKS = "\u0300-\u036f\u0900-\u0903\u093a-\u0963\u0980-\u0dff"
_WORD = re.compile(rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*)*")
# Points of Hebrew and vowels of Arabic: one writes, and looks for, most words without.
_POINTS = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")  # soft hyphens, joiners, byte order marks
_LETTER_APOSTROPHE = "\u02bc"  # a letter to databases, unlike all other apostrophes
_SHARP_S, _RUSSIAN_E = ("ss", "ß"), ("\u0435", "\u0451")
_VARIABLE = re.compile(f"[ßẞ]|ss|[{''.join(_RUSSIAN_E)}]", re.I)
_MAX_VARIABLE = 4  # in a word of which all spellings are looked for
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
    """Return ``text`` with a mark between the characters that are words by themselves.

    What is written in several ways is written in one: in full width or as a ligature, with points, with
    characters that nobody sees.
    """
    if text.isascii():
        return text
    text = _POINTS.sub("", _INVISIBLE.sub("", text)).replace(_LETTER_APOSTROPHE, "\u2019")
    return _BOUNDARY.sub(_SEPARATOR, unicodedata.normalize("NFKC", text))


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
    """Return how a word is spelled, with ß or ss, and with or without the dots of a Russian letter.

    SQLite tells these apart.
    """
    pieces = _VARIABLE.split(word)
    if not 1 < len(pieces) <= _MAX_VARIABLE + 1:
        return [word]
    found = [_RUSSIAN_E if each.lower() in _RUSSIAN_E else _SHARP_S for each in _VARIABLE.findall(word)]
    return [
        pieces[0] + "".join(map("".join, zip(spelled, pieces[1:], strict=True)))
        for spelled in product(*found)
    ]
