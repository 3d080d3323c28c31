"""Redaction: what looks like a credential is replaced in what callers send, before anybody else sees it.

It works on the JSON text of each item, so it finds credentials in every string, however deeply that is nested
and even if it is JSON itself. What it replaces never begins or ends within an escape.

Nearly all text holds no credential, and that has to be found out quickly, for many values at once. Of every
credential, characters stand together without a space, a quote or a bracket, more of them than most text has;
text that has so many is searched for the marks of all shapes. Only text that has one is gone through shape by
shape. No expression goes back over what it has taken for longer than a shape is, so none can be made slow.
"""

import functools
import re
import string
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, groupby

from rpcshare.shares.batch_text import stand_together
from rpcshare.shares.batch_validation import Value
from rpcshare.shares.credential_shapes import SHAPES, Shape
from rpcshare.shares.items import Batch, Item, batch_of

__all__ = ["may_hold_credential", "redact", "redact_batch", "redact_items"]

_SEPARATORS = "-_."

# What may be before a lead, though it is a letter, a digit or a hyphen: the end of an escape, of one in a
# URL, of a terminal's colours; the sign of a line that a diff removes.
_BEFORE = (
    r"(?<=\\[bfnrt]{})",
    r"(?<=\\u[0-9a-fA-F]{{4}}{})",
    "(?<=%[0-9A-Fa-f]{{2}}{})",
    *(rf"(?<=[\[;]{code}{{}})" for code in ("m", "[0-9]m", "[0-9][0-9]m", "K")),
    r"(?<=\\[nr]-{})",
    '(?<="-{})',
)


@functools.cache  # compiled on first use: most leads occur in no session
def _expression(shape: Shape) -> re.Pattern[bytes]:
    lead = re.escape(shape.lead)
    if not shape.lead[0].isalnum():
        return re.compile((lead + shape.rest).encode())
    # The lead comes first: an expression that begins with plain text is looked for quickly. A backslash
    # before it might make its first letter an escape's.
    before = "|".join([rf"(?<![\\A-Za-z0-9_-]{lead})", *(each.format(lead) for each in _BEFORE)])
    return re.compile(f"{lead}(?:{before}){shape.rest}".encode())


def _marks() -> Iterator[str]:
    yield from {shape.mark for shape in SHAPES if shape.mark is not None}
    for separator in _SEPARATORS:
        leads = {shape.lead for shape in SHAPES if shape.mark is None and shape.lead[-1] == separator}
        # A look behind has one length.
        by_length = (sorted(group) for _, group in groupby(sorted(leads, key=len), len))
        behind = "|".join(f"(?<={'|'.join(map(re.escape, group))})" for group in by_length)
        yield rf"{re.escape(separator)}(?<![_.-].)(?=[A-Za-z0-9_+/=.%-]{{16}})(?:{behind})"
    yield "-----BEGIN "  # of a private key


def _looks() -> list[re.Pattern[bytes]]:
    # A search for what begins with one character jumps to that, many times as fast as to one of several.
    def first(mark: str) -> str:
        return mark.removeprefix("\\")[0]

    by_first = groupby(sorted(_marks(), key=first), first)
    return [re.compile("|".join(marks).encode()) for _, marks in by_first]


_SHAPES = [(shape.lead.encode(), shape.kind.encode(), shape) for shape in SHAPES]
_LOOKS = _looks()

# The shortest that stands together: ":", a password of 16 characters and "@". A webhook has less where its
# slashes are escaped in JSON that is text within ours.
_TOGETHER = (string.ascii_letters + string.digits + "_.~!$*+,;=%^&:@/-").encode()
_CLASSES = bytes(ord("x") if byte in _TOGETHER else ord(" ") for byte in range(256))
_SHORTEST = 18
_BACKSLASH = ord("\\")
_ESCAPED_WEBHOOK = rb"hooks.slack.com\\/"

_VALUES_AT_ONCE = 128

_LONG = 256 * 1024  # bytes of a text between two searches of which others have their turn

# A line of a .env file in a JSON string: of the file itself, of a diff, or behind a line number.
_ENV_WORDS = (b"PASSW", b"SECRET", b"TOKEN", b"KEY")
_ENV_LINE = re.compile(
    rb"(?P<before>(?:\\[nr]|\")(?:[ +>-]|\\t|export |[0-9]{1,6}(?:[:|]|\xe2\x86\x92|\\t)){0,12}+"
    rb"(?P<name>[A-Z][A-Z0-9_]{1,63}+)=(?P<quote>\\\"|'|))"
    rb"(?P<value>[^\s\"'\\]{6,512}+)(?=(?P=quote)(?:\\[nrt]|\"|[ ]))"
)
_ENV_NAME = re.compile(rb"(?:^|_)(?:[A-Z0-9]{0,8}PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|KEY)(?:_|$)")
# What is no secret: a reference, a call, a placeholder, a number, a path, or what has been replaced.
_NO_ENV_VALUE = re.compile(
    rb"[$<{\[(%*.~/]|(?:your|my|some|the|change|replace|insert|example|test|dummy|fake|xxx|todo|true|false"
    rb"|null|none|undefined|process\.|os\.|env\.|import)|[0-9.]+$|.*[(){}<>\[\]]|(.)\1*$",
    re.IGNORECASE,
)
_HAS_DIGIT_AND_LETTER = re.compile(rb"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z]).{8}")

_PRIVATE_KEY = b"PRIVATE KEY"
_KEY_BLOCK = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{1,10}+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    # To the end of the block, whatever stands at the beginning of its lines; or, of a block that has been
    # cut, the lines that are there.
    rb"(?:(?P<body>(?:[^\"\\-]++|\\.|-(?!----))*+)"
    rb"-{5,6}END (?:[A-Z0-9]{1,10}+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    rb"|(?:\\[\\nrt]|[ +>|])++[A-Za-z0-9+/=]{40,}+(?:(?:\\[\\nrt]|[ +>|])++[A-Za-z0-9+/=]{16,}+)*+)",
    re.DOTALL,
)
# What tells a key from a program that mentions its first and last line.
_KEY_MATERIAL = re.compile(rb"[A-Za-z0-9+/]{40}")


def redact_items(items: Iterable[Item]) -> Iterator[Item]:
    """Yield ``items`` with what looks like a credential replaced, in values and their keys alike."""
    return map(_redacted, items)


def redact_batch(batch: Batch) -> Batch:
    """Return ``batch`` with what looks like a credential replaced, in values and their keys alike."""
    items: list[Item] = []
    is_changed = False
    for item in batch.items:
        redacted = _redacted(item)
        is_changed = is_changed or redacted is not item
        items.append(redacted)
    return batch_of(items) if is_changed else batch


def _redacted(item: Item) -> Item:
    values = item.values
    redacted: list[Value] | None = None  # made where there is something to redact
    for start in range(0, len(values), _VALUES_AT_ONCE):
        group = values[start : start + _VALUES_AT_ONCE]
        if may_hold_credential(b"\n".join(chain.from_iterable(group))):
            if redacted is None:
                redacted = list(values)
            redacted[start : start + len(group)] = [(redact(value[0]), redact(value[1])) for value in group]
    return item if redacted is None else Item(item.kind, tuple(redacted))


def redact(text: bytes) -> bytes:
    """Return the JSON ``text`` with ``[redacted:KIND]`` in the place of all that looks like a credential."""
    if not may_hold_credential(text):
        return text
    if _PRIVATE_KEY in text:
        text = _KEY_BLOCK.sub(_without_key, text)
    for lead, kind, shape in _SHAPES:
        if lead in text:
            _let_others(text)
            text = _expression(shape).sub(partial(_without_secret, kind), text)
    if _has_env_words(text):
        text = _ENV_LINE.sub(_without_value, text)
    return text


def _has_env_words(text: bytes) -> bool:
    return b"=" in text and any(word in text for word in _ENV_WORDS)


def may_hold_credential(text: bytes) -> bool:
    """Whether there may be a credential in ``text``: JSON, or several JSON values with line feeds between."""
    if _has_env_words(text) and _ENV_LINE.search(text):
        return True
    if not stand_together(text, _CLASSES, _SHORTEST):
        return _BACKSLASH in text and _ESCAPED_WEBHOOK in text
    for look in _LOOKS:
        _let_others(text)
        if look.search(text):
            return True
    return False


def _let_others(text: bytes) -> None:
    """Let other threads run. Compiled code keeps the interpreter's lock from one search to the next."""
    if len(text) >= _LONG:
        time.sleep(0)


def _without_secret(kind: bytes, match: re.Match[bytes]) -> bytes:
    # If a group is in the expression, the rest is what tells people what has been there.
    start, end = match.span(match.re.groups)
    before, after = match[0][: start - match.start()], match[0][end - match.start() :]
    return b"%b[redacted:%b]%b" % (before, kind, after)


def _without_value(match: re.Match[bytes]) -> bytes:
    name, value = _ENV_NAME.search(match["name"]), match["value"]
    if name is None or _NO_ENV_VALUE.match(value):
        return match[0]
    # A token or a key of a few letters is more often the name of one.
    is_named = b"PASSW" in name[0] or b"SECRET" in name[0]
    if not is_named and _HAS_DIGIT_AND_LETTER.match(value) is None:
        return match[0]
    return match["before"] + b"[redacted:env-value]"


def _without_key(match: re.Match[bytes]) -> bytes:
    body = match["body"]
    if body is not None and _KEY_MATERIAL.search(body) is None:
        return match[0]
    return b"[redacted:private-key]"
