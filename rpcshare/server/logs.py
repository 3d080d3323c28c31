"""How the server logs: one event a line, to standard error."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import unicodedata
from typing import TextIO

from rpcshare.auth.audit import LOGGER as AUDIT
from rpcshare.config import Settings
from rpcshare.server.audit_file import audit_file
from rpcshare.server.request_log import LOGGER as ACCESS
from rpcshare.structured_log import structlog

__all__ = ["configure_logging"]


def configure_logging(settings: Settings) -> None:
    """Send structlog's events, and those of the libraries, to standard error in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            _escaped,
            structlog.dev.ConsoleRenderer(
                # no-color.org: whatever it is, unless it is empty.
                colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
                exception_formatter=_write_traceback,
            ),
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_news)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # The audit log is not for the log level to cut.
    audit = logging.getLogger(AUDIT)
    audit.setLevel(logging.INFO)
    audit.handlers[:] = [] if settings.audit_log is None else [audit_file(settings.audit_log)]
    audit.propagate = settings.audit_log is None
    # Nor is the access log, which whoever wants it has asked for.
    logging.getLogger(ACCESS).setLevel(logging.INFO)
    # What these say of each connection or request at info is noise to an operator.
    for name in ("uvicorn", "uvicorn.error", "websockets", "httpx", "httpcore", "alembic"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


# Controls, formats (which reorder or hide text), halves of surrogate pairs, separators of lines.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _printable(text: str, kept: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) in _UNPRINTABLE and char not in kept else char
        for char in text
    )


def _escaped(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keep what a store, a client or a file says from driving the terminal, and from making lines."""
    return {name: _printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _write_traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """Write a traceback, without the values of local variables, which may be anything."""
    told = io.StringIO()
    traceback.print_exception(*exc_info, file=told)
    out.write("\n" + _printable(told.getvalue(), kept="\n").rstrip("\n"))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is worth a line: uvicorn calls a handshake that was refused an error of ours."""
    return record.getMessage() != "ASGI callable returned without completing handshake."
