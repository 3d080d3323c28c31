"""What there is to find in a share: the texts of its items, each with what it is of."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from rpcshare import jsontext
from rpcshare.shares.batch_validation import Value
from rpcshare.shares.search_words import clean
from rpcshare.shares.state import ShareState
from rpcshare.shares.syncdata import Kind

__all__ = ["Items", "SearchableText", "reverted_to", "texts_of"]

MAX_TEXT = 64 * 1024
"""Characters of a text that are indexed: of a longer one the beginning, and a quarter as much of its end."""

_END = MAX_TEXT // 5
_MAX_DEPTH = 6
_MAX_FILES = 200
_FILE_NAMES = frozenset(
    {"file", "filePath", "filepath", "filename", "path", "notebook_path", "relativePath", "movePath"}
)


class SearchableText(msgspec.Struct, frozen=True):
    """One text, as it is indexed."""

    item: str
    """Of the item that it is from: its kind and key."""
    message_id: str | None
    part_id: str | None
    role: str
    tool: str
    files: str
    """In small letters, one a line."""
    time: int
    body: str


class Items(msgspec.Struct, frozen=True):
    """Some of the items of a share, or all, as they are now: references, and no copies."""

    session: bytes | None
    messages: Mapping[bytes, Value]
    """All of them: a part says only by its message whose it is."""
    parts: tuple[Value, ...]
    changed_messages: tuple[Value, ...]
    diffs: tuple[bytes, ...]
    first_diff: int
    last_updated: int
    removed: Mapping[str, str]
    """From which part on messages are removed; empty for all of one."""

    @classmethod
    def of(cls, state: ShareState, keys: Iterable[tuple[Kind, bytes]] | None) -> "Items":
        """Return the items of ``keys``, or all."""
        content = state.content
        diffs, removed = tuple(content.diffs.distinct), dict(content.reverts.messages)
        if keys is None:
            messages = dict(content.messages)
            parts, changed = tuple(content.parts.values()), tuple(messages.values())
            return cls(content.session, messages, parts, changed, diffs, 0, state.last_updated, removed)
        some = list(keys)
        changed = tuple(
            content.messages[key] for kind, key in some if kind is Kind.MESSAGE and key in content.messages
        )
        parts = tuple(content.parts[key] for kind, key in some if kind is Kind.PART and key in content.parts)
        return cls(
            content.session if (Kind.SESSION, b"") in some else None,
            content.messages if len(content.messages) < 1000 else _of_parts(content.messages, parts),
            parts,
            changed,
            diffs if any(kind is Kind.DIFF for kind, _ in some) else (),
            0,
            state.last_updated,
            removed,
        )


def _of_parts(messages: Mapping[bytes, Value], parts: Iterable[Value]) -> dict[bytes, Value]:
    found = {}
    for _, body in parts:
        key = jsontext.encode(_fields(body).get("messageID"))
        if key in messages:
            found[key] = messages[key]
    return found


def texts_of(items: Items, reverted: tuple[str, str]) -> Iterator[SearchableText]:
    """Yield the texts of ``items``, without those that the user has taken back.

    Each is decoded as it is asked for: of a large share, some at a time, in a thread.

    Args:
        items: of a share.
        reverted: the message and, if not all of that, the part from which on all is taken back.
    """
    if items.session is not None:
        session = _fields(items.session)
        text = _text([session.get("title"), session.get("directory")])
        if text:
            yield SearchableText("session", None, None, "", "", "", items.last_updated, text)
    roles = _Messages(items)
    for key, body in items.changed_messages:
        if not roles.is_reverted(key, None, reverted):
            yield from roles.summary_of(key, body)
    for key, body in items.parts:
        if text_of_part := _part(key, body, roles, reverted):
            yield text_of_part
    for number, body in enumerate(items.diffs):
        diff = _fields(body)
        text = _text(_strings(diff))
        if text:
            files = _files(diff)
            yield SearchableText(
                f"diff:{items.first_diff + number}", None, None, "", "", files, items.last_updated, text
            )


def reverted_to(session: bytes | None) -> tuple[str, str]:
    """Return the message and the part from which on a session is taken back; empty if it is not."""
    if session is None or b'"revert"' not in session:
        return "", ""
    revert = _fields(session).get("revert")
    if not isinstance(revert, dict) or not isinstance(revert.get("messageID"), str):
        return "", ""
    part = revert.get("partID")
    return revert["messageID"], part if isinstance(part, str) else ""


class _Messages:
    """What parts are told of their messages."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._known: dict[str, tuple[str, int]] = {}
        self.has_removed = bool(items.removed)

    def of(self, message_id: str) -> tuple[str, int]:
        """Return role and time."""
        if message_id not in self._known:
            value = self._items.messages.get(jsontext.encode(message_id))
            role, created = _role_and_time(value[1]) if value is not None else (None, None)
            self._known[message_id] = (
                clean(role) if isinstance(role, str) else "",
                int(created)
                if isinstance(created, int | float) and 0 < created < 2**42
                else self._items.last_updated,
            )
        return self._known[message_id]

    def summary_of(self, key: bytes, body: bytes) -> Iterator[SearchableText]:
        """Yield the changes that a message sums up."""
        if b'"summary"' not in body:
            return
        message = _fields(body)
        summary, message_id = message.get("summary"), message.get("id")
        if isinstance(summary, dict) and isinstance(message_id, str) and (text := _text(_strings(summary))):
            role, time = self.of(message_id)
            item = f"message:{key.decode()}"
            yield SearchableText(item, clean(message_id), None, role, "", _files(summary), time, text)

    def is_reverted(self, message_key: bytes, part_id: str | None, reverted: tuple[str, str]) -> bool:
        """Whether a message, or a part of it, is taken back: ids are in the order of time."""
        removed = self._items.removed
        if not reverted[0] and not removed:
            return False
        message_id = jsontext.decode(message_key)
        cut_from = removed.get(message_id)
        if cut_from is not None and (not cut_from or (part_id is not None and part_id >= cut_from)):
            return True
        if not reverted[0]:
            return False
        if message_id != reverted[0] or not reverted[1] or part_id is None:
            return bool(message_id >= reverted[0]) and (message_id != reverted[0] or not reverted[1])
        return part_id >= reverted[1]


def _part(key: bytes, body: bytes, messages: _Messages, reverted: tuple[str, str]) -> SearchableText | None:
    part = _fields(body)
    message_id, part_id, kind = part.get("messageID"), part.get("id"), part.get("type")
    if not isinstance(message_id, str):
        message_id = ""
    if not isinstance(part_id, str):
        return None
    if (messages.has_removed or reverted[0]) and messages.is_reverted(
        jsontext.encode(message_id), part_id, reverted
    ):
        return None
    looked_at = [part.get("text")]
    tool = ""
    if kind == "tool":
        name = part.get("tool")
        tool = clean(name).lower() if isinstance(name, str) else ""
        state = part.get("state")
        state = state if isinstance(state, dict) else {}
        looked_at += [name, state.get("title"), state.get("input"), state.get("error"), state.get("output")]
    elif kind in ("file", "patch", "subtask", "agent"):
        looked_at += [part.get(name) for name in ("filename", "files", "prompt", "description", "name")]
    text = _text(string for value in looked_at for string in _strings(value))
    if not text:
        return None
    role, time = messages.of(message_id)
    item = f"part:{key.decode()}"
    # All of _FILE_NAMES have one of these.
    files = _files(part) if b"file" in body or b'ath"' in body else ""
    # Ids are what somebody sent, and may have characters that no database takes.
    return SearchableText(item, clean(message_id) or None, clean(part_id), role, tool, files, time, text)


class _Times(msgspec.Struct):
    created: Any = None


class _Message(msgspec.Struct):
    role: Any = None
    time: _Times | None = None


_message_decoder = msgspec.json.Decoder(_Message)


def _role_and_time(body: bytes) -> tuple[object, object]:
    """Return what a message says of itself, without making objects of all that is in it."""
    try:
        message = _message_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # another shape, or half of a surrogate pair
        fields = _fields(body)
        time = fields.get("time")
        return fields.get("role"), time.get("created") if isinstance(time, dict) else None
    return message.role, message.time.created if message.time is not None else None


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = jsontext.decode(body)
    except jsontext.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _strings(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif depth < _MAX_DEPTH:
        if isinstance(value, dict):
            for each in value.values():
                yield from _strings(each, depth + 1)
        elif isinstance(value, list):
            for each in value:
                yield from _strings(each, depth + 1)


def _files(value: object) -> str:
    found: dict[str, None] = {}
    _gather_files(value, found, 0)
    return clean("\n".join(found)).lower() if found else ""


def _gather_files(value: object, found: dict[str, None], depth: int) -> None:
    if depth > _MAX_DEPTH or len(found) >= _MAX_FILES:
        return
    if isinstance(value, dict):
        for name, each in value.items():
            if isinstance(each, str):
                if name in _FILE_NAMES and 0 < len(each) < 1000:
                    found[each] = None
            elif isinstance(each, dict | list):
                if name == "files" and isinstance(each, list):
                    found.update(dict.fromkeys(file for file in each[:_MAX_FILES] if isinstance(file, str)))
                _gather_files(each, found, depth + 1)
    elif isinstance(value, list):
        for each in value[:_MAX_FILES]:
            _gather_files(each, found, depth + 1)


def _text(strings: Iterable[object]) -> str:
    """Return the text that ``strings`` make, shortened to its beginning and its end where that is long."""
    pieces = [_shortened(string) for string in strings if isinstance(string, str) and string]
    return clean(_shortened("\n".join(pieces)))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - _END]}\n{text[-_END:]}"
