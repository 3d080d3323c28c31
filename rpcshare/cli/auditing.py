"""The audit log of what is done on the command line, where the settings name a file for it."""

from __future__ import annotations

import getpass
import logging
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # it takes longer to import than most commands to run
    from rpcshare.auth.audit import Action
    from rpcshare.config import Settings

__all__ = ["tell_audit_log"]


def tell_audit_log(settings: Settings, action: Action, **details: str) -> None:
    """Append a line on what has been done to the audit log's file; without one, do nothing.

    Its subject is the name of the operating system's user.

    Raises:
        click.ClickException: the file cannot be written.
    """
    if settings.audit_log is None:
        return
    from rpcshare.auth.audit import LOGGER, AuditLog  # noqa: PLC0415 -- as above
    from rpcshare.auth.caller import Caller  # noqa: PLC0415 -- as above
    from rpcshare.server.logs import configure_logging  # noqa: PLC0415 -- as above

    try:
        configure_logging(settings)
    except OSError as exc:
        raise click.ClickException(
            f"it is done, but the audit log {settings.audit_log} cannot be written: {exc.strerror}"
        ) from exc
    AuditLog().done(action, Caller(_user()), **details)
    for handler in logging.getLogger(LOGGER).handlers:
        handler.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user id without a name, as containers have
        return "cli"
