"""Command-line options that say who may read a share, and until when."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import click
from msgspec import UNSET, UnsetType

from rpcshare.durations import parse_duration

__all__ = ["DURATION", "with_password"]

_Command = Callable[..., int | None]


class _Duration(click.ParamType[str | float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        try:
            parse_duration(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        return value if isinstance(value, str | float) else str(value)


DURATION = _Duration()
"""A length of time such as 30d, 12h, 90m, 45s or 2w."""


def with_password(command: _Command) -> _Command:
    """Give a command the options that tell a password; its argument ``password`` is UNSET if none does.

    A password itself is no argument of a command line: others on the machine could read it there.
    """

    @functools.wraps(command)
    def run(password_prompt: bool, password_file: Path | None, **arguments: object) -> int | None:
        password = _password(password_prompt, password_file)
        return command(password=password, **arguments)

    run = click.option(
        "--password-file",
        metavar="FILE",
        type=click.Path(path_type=Path, allow_dash=True),
        help="Require a password, the first line of FILE (- for standard input).",
    )(run)
    return click.option("--password-prompt", is_flag=True, help="Require a password, and prompt for it.")(run)


def _password(is_asked_for: bool, file: Path | None) -> str | UnsetType:
    if is_asked_for and file is not None:
        raise click.UsageError("--password-prompt and --password-file exclude each other")
    if is_asked_for:
        if not sys.stdin.isatty():
            raise click.UsageError("--password-prompt needs a terminal; there is --password-file")
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return password
    if file is None:
        return UNSET
    try:
        with click.open_file(str(file), encoding="utf-8") as opened:
            line = str(opened.readline()).rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException(f"{file}: is not UTF-8") from None
    if not line:
        raise click.ClickException(f"{file}: its first line is empty")
    return line
