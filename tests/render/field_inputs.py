"""Inputs as opencode writes them, one for each kind of thing that pages once drew wrong."""

from pathlib import Path
from typing import Any

from rpcshare.transcripts import read_session_file

__all__ = ["field", "field_file"]

_FOLDER = Path(__file__).parent / "field"


def field_file(number: str) -> bytes:
    """Return an input as the file that it is, such as ``01``."""
    (path,) = _FOLDER.glob(f"{number}-*.json")
    return path.read_bytes()


def field(number: str) -> list[Any]:
    """Return the SyncData of an input; of an export, what it is pushed as."""
    return [item for item, _ in read_session_file(field_file(number)).items]
