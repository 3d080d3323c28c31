"""With which status a command ends, and the failures that have one of their own."""

from enum import IntEnum

import click

__all__ = ["ExitStatus", "NotFoundError", "NotSignedInError"]


class ExitStatus(IntEnum):
    """What scripts may rely on; docs/clients.md has the table."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    NOT_SIGNED_IN = 4
    NOT_FOUND = 5
    INTERRUPTED = 130


class NotSignedInError(click.ClickException):
    """There is no credential where one is needed."""

    exit_code = ExitStatus.NOT_SIGNED_IN


class NotFoundError(click.ClickException):
    """What the command line names is not there."""

    exit_code = ExitStatus.NOT_FOUND
