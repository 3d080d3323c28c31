"""Writes files of a session, in the forms that are not SyncData as it is."""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from rpcshare.transcripts.markdown import markdown_pieces
from rpcshare.transcripts.opencode_export import export_pieces
from rpcshare.transcripts.turns import Turns

__all__ = ["EXPORTS", "Export", "ExportFormat"]


class ExportFormat(StrEnum):
    """The forms in which a share is exported."""

    OPENCODE = "opencode"
    """What ``opencode import FILE`` takes."""
    MARKDOWN = "markdown"
    JSON = "json"
    """An AgentSession."""
    JSONL = "jsonl"
    """SyncData, one a line."""


class Export(NamedTuple):
    """How the file of a format is called, and what it is."""

    extension: str
    media_type: str
    pieces: Callable[[Turns], Iterator[bytes]] | None = None
    """Writes it; None for what a share holds as it is."""


EXPORTS: Mapping[ExportFormat, Export] = {
    ExportFormat.OPENCODE: Export("json", "application/json", export_pieces),
    ExportFormat.MARKDOWN: Export("md", "text/markdown; charset=utf-8", markdown_pieces),
    ExportFormat.JSON: Export("json", "application/json"),
    ExportFormat.JSONL: Export("jsonl", "application/x-ndjson"),
}
