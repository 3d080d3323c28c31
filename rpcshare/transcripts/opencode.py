"""opencode's own forms of a session: SyncData, AgentSession, ``opencode export``, and its storage folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rpcshare import jsontext
from rpcshare.transcripts.json_fields import JsonObject, number, obj, text
from rpcshare.transcripts.session_file import LocatedItem, SessionFile, SessionFileError, SyncData

__all__ = [
    "is_export",
    "is_messages",
    "is_storage",
    "is_sync_data",
    "read_agent_session",
    "read_export",
    "read_messages",
    "read_storage",
    "read_sync_data",
    "sync_data_of_agent_session",
]

_SYNC_TYPES = frozenset({"session", "message", "part", "session_diff", "model"})
_SHOWN_IDS = 5


def is_sync_data(items: list[object]) -> bool:
    """Whether a list looks like SyncData: one of its elements does."""
    return any(
        isinstance(item, dict) and text(item, "type") in _SYNC_TYPES and "data" in item for item in items
    )


def is_export(document: JsonObject) -> bool:
    """Whether a JSON object is what ``opencode export`` prints."""
    return isinstance(document.get("info"), dict) and isinstance(document.get("messages"), list)


def is_messages(items: list[object]) -> bool:
    """Whether a list is that of a session's messages with their parts."""
    return bool(items) and all(
        isinstance(item, dict) and isinstance(item.get("info"), dict) and isinstance(item.get("parts"), list)
        for item in items
    )


def read_sync_data(items: Iterator[LocatedItem] | list[LocatedItem]) -> SessionFile:
    """Return SyncData as it is."""
    located = list(items)
    return SessionFile("SyncData", located, _session_id(item for item, _ in located))


def read_agent_session(session: JsonObject) -> SessionFile:
    """Return the SyncData that makes an AgentSession.

    Raises:
        SessionFileError: one of its lists is none.
    """
    own = text(obj(session, "metadata"), "sessionID") or text(obj(session, "session"), "id")
    return SessionFile("an AgentSession", list(_items_of_session(session)), own or None)


def sync_data_of_agent_session(session: JsonObject) -> list[SyncData]:
    """Return what makes an AgentSession anew, item by item."""
    return [item for item, _ in _items_of_session(session) if isinstance(item, dict)]


def read_export(document: JsonObject) -> SessionFile:
    """Return the SyncData of what ``opencode export`` printed."""
    info = document["info"]
    items = [LocatedItem({"type": "session", "data": info}, "info")]
    items += _items_of_messages(document["messages"], "messages")
    return SessionFile("an opencode export", items, text(info, "id") or None)


def read_messages(messages: list[Any]) -> SessionFile:
    """Return the SyncData of messages as opencode's API answers them."""
    own = next((found for each in messages if (found := text(obj(each, "info"), "sessionID"))), None)
    return SessionFile("messages of an opencode session", list(_items_of_messages(messages, "item")), own)


def is_storage(folder: Path) -> bool:
    """Whether a folder is one in which opencode keeps sessions as files."""
    return (folder / "session").is_dir() and (folder / "message").is_dir()


def read_storage(folder: Path, session_id: str | None = None) -> SessionFile:
    """Return a session of opencode's storage folder: the one asked for, or the only one.

    Raises:
        SessionFileError: there is none, or there are several and none is asked for.
        OSError: a file cannot be read.
    """
    sessions = {path.stem: path for path in sorted((folder / "session").rglob("ses_*.json"))}
    if session_id is None and len(sessions) == 1:
        session_id = next(iter(sessions))
    if session_id is None and sessions:
        newest = sorted(sessions, key=lambda each: sessions[each].stat().st_mtime, reverse=True)
        some = ", ".join(newest[:_SHOWN_IDS]) + (", …" if len(newest) > _SHOWN_IDS else "")
        raise SessionFileError(f"holds {len(sessions)} sessions: name one behind it ({some})")
    path = sessions.get(session_id or "")
    if path is None or session_id is None:
        which = "no session" if session_id is None else "no session of this id"
        raise SessionFileError(f"is a storage folder of opencode, with {which}")
    return SessionFile("a storage folder of opencode", list(_items_of_storage(folder, path)), session_id)


def _items_of_storage(folder: Path, session: Path) -> Iterator[LocatedItem]:
    session_id = session.stem
    yield LocatedItem({"type": "session", "data": _file(session)}, session.name)
    messages = _by_time(_files(folder / "message" / session_id, folder / "session" / "message" / session_id))
    for path, message in messages:
        yield LocatedItem({"type": "message", "data": message}, path.name)
        old = folder / "session" / "part" / session_id / path.stem
        for part_path, part in sorted(_files(folder / "part" / path.stem, old)):
            yield LocatedItem({"type": "part", "data": part}, part_path.name)
    diffs = folder / "session_diff" / session.name
    if diffs.is_file() and (content := _file(diffs)):
        yield LocatedItem({"type": "session_diff", "data": content}, f"session_diff/{diffs.name}")


def _by_time(messages: list[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    return sorted(messages, key=lambda each: (number(obj(_object(each[1]), "time"), "created"), each[0].name))


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _files(*folders: Path) -> list[tuple[Path, Any]]:
    folder = next((each for each in folders if each.is_dir()), None)
    return [] if folder is None else [(path, _file(path)) for path in folder.glob("*.json")]


def _file(path: Path) -> Any:  # noqa: ANN401 -- JSON is whatever the file holds
    try:
        return jsontext.decode(path.read_bytes())
    except jsontext.JSONDecodeError as exc:
        raise SessionFileError(f"{path.name}: not JSON: {exc}") from None


def _items_of_messages(messages: list[Any], place: str) -> Iterator[LocatedItem]:
    for index, message in enumerate(messages):
        here = f"{place}[{index}]"
        if not isinstance(message, dict):
            raise SessionFileError(f"{here}: must be an object with info and parts")
        yield LocatedItem({"type": "message", "data": message.get("info")}, f"{here}.info")
        parts = message.get("parts", [])
        if not isinstance(parts, list):
            raise SessionFileError(f"{here}.parts: must be a list")
        for number_, part in enumerate(parts):
            yield LocatedItem({"type": "part", "data": part}, f"{here}.parts[{number_}]")


def _items_of_session(session: JsonObject) -> Iterator[LocatedItem]:
    yield LocatedItem({"type": "session", "data": session["session"]}, "session")
    for name, kind in (("messages", "message"), ("parts", "part")):
        for index, data in enumerate(_values(session, name)):
            yield LocatedItem({"type": kind, "data": data}, f"{name}[{index}]")
    for name, kind in (("diffs", "session_diff"), ("models", "model")):
        if values := _values(session, name):
            yield LocatedItem({"type": kind, "data": values}, name)


def _values(session: JsonObject, name: str) -> list[Any]:
    values = session.get(name, [])
    if not isinstance(values, list):
        raise SessionFileError(f"{name}: must be a list")
    return values


def _session_id(items: Iterator[object]) -> str | None:
    """Return the id of the session that items are of: the session's own, or what the others say."""
    said = None
    for item in items:
        fields = _object(item)
        data = _object(fields.get("data"))
        if fields.get("type") == "session" and text(data, "id"):
            return text(data, "id")
        said = said or text(data, "sessionID") or None
    return said
