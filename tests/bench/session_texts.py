"""Session text made up: words as often as in a language (Zipf), and some that come once."""

import itertools
import random
import string
from collections.abc import Iterator

__all__ = ["COMMON", "MIDDLE", "RARE", "WORDS", "texts"]

_VOWELS, _CONSONANTS = "aeiou", "bcdfghklmnprstvwz"
_VOCABULARY = 100_000
_PARAGRAPHS, _WORDS_OF_ONE = 20_000, 40  # of which texts are put together: making words takes long
_SINGLES = 0.02  # of all words: paths, hashes, identifiers


def _vocabulary() -> list[str]:
    rng, found = (
        random.Random(18),
        dict.fromkeys(("the", "to", "of", "a", "in", "is", "self", "if", "return")),
    )
    while len(found) < _VOCABULARY:
        syllables = rng.choices((1, 2, 3, 4), (len(found) < 300 and 6, 8, 8, 3))[0]
        word = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables))
        found[word + rng.choice(("", "", "n", "r", "s", "t", "ing"))] = None
    return list(found)


WORDS = _vocabulary()
"""The most frequent first."""
COMMON, MIDDLE, RARE = WORDS[:30], WORDS[300:600], WORDS[20_000:40_000]


def _paragraphs() -> list[str]:
    rng = random.Random(19)
    weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(_VOCABULARY)))
    return [
        " ".join(rng.choices(WORDS, cum_weights=weights, k=_WORDS_OF_ONE)) + ".\n" for _ in range(_PARAGRAPHS)
    ]


def texts(size: int, seed: int = 1) -> Iterator[str]:
    """Yield texts of together ``size`` bytes: many short ones, a few of tens of thousands of characters."""
    paragraphs, rng = _paragraphs(), random.Random(seed)
    while size > 0:
        count = min(200, max(1, int(rng.lognormvariate(0.8, 1.1))))
        singles = " ".join(
            "".join(rng.choices(string.hexdigits, k=10))
            for _ in range(1 + int(_SINGLES * count * _WORDS_OF_ONE))
        )
        text = f"{singles}\n{''.join(rng.choices(paragraphs, k=count))}"
        yield text
        size -= len(text)
