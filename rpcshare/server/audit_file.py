"""The audit log as a file of its own: JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from io import FileIO, TextIOWrapper
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING

from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["audit_file"]

logger = structlog.get_logger("rpcshare.server")

_OWNER_ONLY = 0o600
_OF_THE_LOG = ("event", "level", "logger", "timestamp", "worker")


def audit_file(path: Path) -> logging.Handler:
    """Return a handler that appends to ``path``, which only its owner may read.

    A file that has been moved away, as logrotate does, is made anew for the next line.

    Raises:
        OSError: the file cannot be written.
    """
    handler = _AuditFile(path, encoding="utf-8")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_fields_of_the_log,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    return handler


class _AuditFile(WatchedFileHandler):
    def _open(self) -> TextIOWrapper:
        file = FileIO(self.baseFilename, "a", opener=_opened_for_its_owner)
        # Each line in one write, lest those of several processes get mixed.
        return TextIOWrapper(file, self.encoding, write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 -- logging's signature
        """Say in the log that a line could not be written, such as on a full disk."""
        error = sys.exc_info()[1]
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        logger.error("the audit log cannot be written", reason=reason)


def _opened_for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, _OWNER_ONLY)


def _without_fields_of_the_log(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {name: value for name, value in event.items() if name not in _OF_THE_LOG}
