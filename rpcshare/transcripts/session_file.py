"""A session as a file holds it: SyncData, and where in the file each item is."""

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["LocatedItem", "SessionFile", "SessionFileError", "SyncData"]

SyncData = dict[str, Any]
"""One item: ``{"type": "session" | "message" | "part" | "session_diff" | "model", "data": …}``."""


class SessionFileError(Exception):
    """A file that holds no session. The message says where it goes wrong, and how, and quotes nothing."""


class LocatedItem(NamedTuple):
    """What should be a SyncData, and its place in the file, for people."""

    item: object
    place: str


class SessionFile(NamedTuple):
    """What was found in a file."""

    kind: str
    """What the file is, in words: ``a Codex transcript``."""
    items: Iterable[LocatedItem]
    session_id: str | None = None
    """The session's own id; None where the file has none."""
