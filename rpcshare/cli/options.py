"""Command-line options that are settings (:mod:`rpcshare.config`)."""

import difflib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_origin

import click
from pydantic import ByteSize

from rpcshare.config import (
    FILE_ONLY,
    ConfigError,
    Settings,
    environment_name,
    known_variables,
    load_configuration,
    option_name,
    unknown_variables,
)

__all__ = ["setting_places", "spelled", "variable_warnings", "with_settings"]

_Command = Callable[..., int | None]

_PLACES = "rpcshare.setting_places"
_PREFIX = environment_name("")


def with_settings(*fields: str) -> Callable[[_Command], _Command]:
    """Give a command the options that set ``fields`` (none named: every one), and ``--config``.

    The command's first argument is then the :class:`~rpcshare.config.Settings`, from all three
    places. A :class:`~rpcshare.config.ConfigError` of loading them, or of the command itself, is a
    usage error.
    """
    names = fields or tuple(name for name in Settings.model_fields if name not in FILE_ONLY)

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def run(config: Path | None, **arguments: object) -> int | None:
            command_line = {name: arguments.pop(name) for name in names}
            try:
                settings, places = load_configuration(command_line, config)
                click.get_current_context().meta[_PLACES] = places
                return command(settings, **arguments)
            except ConfigError as exc:
                raise click.UsageError(str(exc)) from exc

        # click lists options in the order of decorators, the last one applied first.
        decorated: _Command = _config_option(run)
        for name in reversed(names):
            decorated = _option(name)(decorated)
        return decorated

    return decorate


_config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=environment_name("config"),
    help=f"TOML file with settings. [env: {environment_name('config')}]",
)


def _option(name: str) -> Callable[[_Command], _Command]:
    field = Settings.model_fields[name]
    notes = f"[env: {environment_name(name)}]"
    # What stands for None is told by the description.
    if field.default not in (None, ()):
        notes = f"[default: {spelled(field.default)}] {notes}"
    help_text = f"{field.description} {notes}"
    if field.annotation is bool:
        spelling = f"{option_name(name)}/{option_name(f'no_{name}')}"
        return click.option(spelling, name, default=None, help=help_text)
    if get_origin(field.annotation) is tuple:
        return click.option(
            option_name(name), name, metavar="VALUE", multiple=True, callback=_joined, help=help_text
        )
    # Values go to the settings as they are: one place checks them, wherever they come from.
    return click.option(option_name(name), name, metavar="VALUE", help=help_text)


def _joined(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> str | None:
    # Given several times it is as good as given once, with commas.
    return ",".join(values) if values else None


def setting_places() -> dict[str, str]:
    """Return where each setting of the command comes from that is no default."""
    places: dict[str, str] = click.get_current_context().meta[_PLACES]
    return places


def variable_warnings(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that is a mistake by its looks. No value is in it.

    It looks like a setting and is none, or quotes are a part of its value.
    """
    warnings = []
    for name in unknown_variables(environment):
        # What all names begin with would make any two of them alike.
        known = {each.removeprefix(_PREFIX): each for each in known_variables()}
        close = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), known, n=1)
        meant = f": did you mean {known[close[0]]}?" if close else ""
        warnings.append(f"the environment variable {name} is no setting{meant}")
    for name, value in sorted(environment.items()):
        # docker's --env-file keeps what a shell and docker compose take away.
        if name.startswith(_PREFIX) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            warnings.append(f"the environment variable {name} has quotes as a part of its value")
    return warnings


def spelled(default: object) -> str:
    """Return a setting's value as it is given on the command line."""
    if isinstance(default, tuple):
        return ",".join(
            "=".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in default
        )
    if isinstance(default, ByteSize):
        return default.human_readable(separator=" ").replace(".0 ", " ")
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)
