"""What the catalogue has of a share: its row, and the figures that are counted for it."""

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any, Self

import msgspec

from rpcshare import jsontext
from rpcshare.shares.batch_validation import Value
from rpcshare.shares.objects import Head, Visibility
from rpcshare.shares.search_words import clean
from rpcshare.shares.state import SessionIndex, ShareState

__all__ = ["CatalogueRow", "Figures", "FiguresSource"]

_MAX_NUMBER = 2**53
_PROMPT = 300  # characters of the first prompt
_PROMPT_WITHIN = 200  # parts, of at most so many bytes:
_PROMPT_BODY = 256 * 1024
_NAME = 200  # characters of a project or model


class Figures(msgspec.Struct, frozen=True):
    """What is counted, or looked for, in the messages of a share."""

    model: str = ""
    """Of the last answer."""
    cost: float = 0.0
    """Dollars."""
    tokens: int = 0
    """All that were read and written, cached ones too."""
    files: int = 0
    additions: int = 0
    deletions: int = 0
    """Files and lines that were changed."""
    first_prompt: str = ""


class CatalogueRow(msgspec.Struct, frozen=True):
    """A share as a listing shows it, whose it is, and who may see it."""

    index: SessionIndex
    generation: str
    owner: str | None
    revision: int = 0
    """Of the head that this was taken from."""
    expires_at: int | None = None
    is_private: bool = False
    has_password: bool = False
    figures: Figures = Figures()
    is_for_organization: bool = False
    """For the users of the owner's organization."""
    size: int = 0
    """Bytes of what it holds."""

    @classmethod
    def of(cls, head: Head, state: ShareState, figures: Figures) -> Self:
        """Return the row of a share."""
        index = state.index()
        title, directory = clean(index.title), clean(index.directory)
        return cls(
            msgspec.structs.replace(index, title=title, directory=directory),
            head.generation,
            head.owner,
            head.revision,
            head.expires_at,
            head.visibility is Visibility.PRIVATE,
            head.password_hash is not None,
            figures,
            head.visibility is Visibility.ORGANIZATION,
            state.content.size,
        )

    @property
    def project(self) -> str:
        """The last name in the session's directory."""
        return self.index.directory.replace("\\", "/").rstrip("/").rpartition("/")[2][:_NAME]

    def merged_with(self, other: Self) -> Self:
        """Return the newest of both, which are rows of one share: nodes learn of its news in any order."""
        of_log = self if self.index.sync_count >= other.index.sync_count else other
        settings = self if self.revision >= other.revision else other
        return msgspec.structs.replace(settings, index=of_log.index, figures=of_log.figures, size=of_log.size)

    def tells_the_same_as(self, other: Self) -> bool:
        """Whether both are of one state of a share, whose figures may have been counted at other times."""
        return msgspec.structs.replace(self, figures=other.figures) == other


class FiguresSource:
    """The items that figures are counted of: references to those of a share, taken at one moment."""

    def __init__(self, state: ShareState) -> None:
        """Take what ``state`` has now."""
        content = state.content
        self._session = content.session
        self._messages: tuple[Value, ...] = tuple(content.messages.values())
        self._parts: tuple[Value, ...] = tuple(islice(content.parts.values(), _PROMPT_WITHIN))
        self._diffs: tuple[bytes, ...] = tuple(content.diffs.distinct)

    def __len__(self) -> int:
        return len(self._messages) + len(self._diffs)

    def counted(self) -> Figures:
        """Return the figures. In a thread where there are many messages."""
        session = _decoded(self._session) if self._session is not None else {}
        model, cost, tokens, prompt_id = "", 0.0, 0, ""
        changed: dict[str, tuple[int, int]] = {}
        for _, body in self._messages:
            message = _message(body)
            if message.role == "user":
                prompt_id = prompt_id or (message.id if isinstance(message.id, str) else "")
                if isinstance(message.summary, dict):
                    _take_changes(message.summary.get("diffs"), changed)
            elif message.role == "assistant":
                model = message.modelID if isinstance(message.modelID, str) else model
                cost += _number(message.cost)
                tokens += _tokens(message.tokens)
        _take_changes([_decoded(body) for body in self._diffs], changed)
        files, additions, deletions = _changes(session.get("summary"), changed)
        return Figures(
            clean(model)[:_NAME],
            _number(session.get("cost")) or cost,
            min(_tokens(session.get("tokens")) or tokens, _MAX_NUMBER),
            files,
            additions,
            deletions,
            self._first_prompt(prompt_id),
        )

    def _first_prompt(self, message_id: str) -> str:
        if not message_id:
            return ""
        for _, body in self._parts:
            if len(body) <= _PROMPT_BODY and b'"text"' in body:
                part = _decoded(body)
                is_prompt = part.get("messageID") == message_id and part.get("type") == "text"
                if is_prompt and not part.get("synthetic") and isinstance(part.get("text"), str):
                    words = " ".join(clean(part["text"][: 4 * _PROMPT]).split())
                    if words:
                        return words if len(words) <= _PROMPT else words[: _PROMPT - 1] + "…"
        return ""


class _Message(msgspec.Struct):
    id: Any = None
    role: Any = None
    modelID: Any = None  # noqa: N815 -- opencode's name
    cost: Any = None
    tokens: Any = None
    summary: Any = None


_message_decoder = msgspec.json.Decoder(_Message)


def _message(body: bytes) -> _Message:
    try:
        return _message_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a half of a surrogate pair, for one
        fields = _decoded(body)
        return _Message(**{name: fields.get(name) for name in _Message.__struct_fields__})


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        value = jsontext.decode(body)
    except jsontext.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < value < _MAX_NUMBER and math.isfinite(value) else 0.0


def _tokens(value: object) -> int:
    if not isinstance(value, dict):
        return 0
    cache = value.get("cache")
    cached = (cache.get("read"), cache.get("write")) if isinstance(cache, dict) else ()
    return int(sum(map(_number, (value.get("input"), value.get("output"), value.get("reasoning"), *cached))))


def _take_changes(diffs: object, changed: dict[str, tuple[int, int]]) -> None:
    """Take in the changes of files, of which the last word on each counts."""
    for diff in diffs if isinstance(diffs, Iterable) else ():
        file = diff.get("file") if isinstance(diff, dict) else None
        if isinstance(file, str):
            changed[file] = int(_number(diff.get("additions"))), int(_number(diff.get("deletions")))


def _changes(summary: object, changed: dict[str, tuple[int, int]]) -> tuple[int, int, int]:
    if not changed and isinstance(summary, dict):
        return (
            int(_number(summary.get("files"))),
            int(_number(summary.get("additions"))),
            int(_number(summary.get("deletions"))),
        )
    added, removed = (sum(each[side] for each in changed.values()) for side in (0, 1))
    return len(changed), min(added, _MAX_NUMBER), min(removed, _MAX_NUMBER)
