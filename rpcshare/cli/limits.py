"""Limits of users and organizations on the command line: as options, and as they are printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

__all__ = ["changed_limits", "limit_options", "used_of"]

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(
    r"(?P<number>[0-9]{1,16}(\.[0-9]{1,6})?)\s*(?P<unit>[KMGTP]?)(?P<binary>i?)B?", re.IGNORECASE
)
_UNITS = " KMGTP"
_UNCHANGED = object()


class _Limit(click.ParamType[object]):
    """A number; ``none``; or ``default``, for what the settings of the server say."""

    def __init__(self, *, is_size: bool) -> None:
        self.name = "size" if is_size else "number"
        self._is_size = is_size

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Return the number; 0: no limit, None: the default."""
        if value is _UNCHANGED:
            return value
        text = str(value).strip().lower()
        if text == "default":
            return None
        if text == "none":
            return 0
        match = _SIZE.fullmatch(text) if self._is_size else re.fullmatch(r"(?P<number>[0-9]{1,16})", text)
        if match is None:
            what = "a size such as 10GiB" if self._is_size else "a number"
            self.fail(f"must be {what}, none or default", param, ctx)
        if not self._is_size:
            return int(match["number"])
        step = 1024 if match["binary"] else 1000
        return int(float(match["number"]) * step ** _UNITS.index(match["unit"].upper() or " "))


def limit_options(command: F) -> F:
    """Give a command the options by which limits are changed; those that are not given stay."""
    for name, is_size, help_text in (
        ("requests", False, "Requests, and calls over RPC, in a minute: a number, none or default."),
        ("shares", False, "Number of shares: a number, none or default."),
        ("storage", True, "Size of all shares: such as 10GiB, none or default."),
    ):
        option = click.option(f"--{name}", type=_Limit(is_size=is_size), default=_UNCHANGED, help=help_text)
        command = option(command)
    return command


def changed_limits(**given: object) -> dict[str, object]:
    """Return those limits that are to be changed."""
    return {name: value for name, value in given.items() if value is not _UNCHANGED}


def used_of(measured: Mapping[str, Mapping[str, int | None]]) -> str:
    """Return what is used and what the limits are, in a line."""
    return ", ".join(
        f"{each['used'] or 0:,} {_of(each['limit'])}{'bytes' if name == 'storage' else _named(name)}"
        for name, each in measured.items()
    )


def _of(limit: int | None) -> str:
    return "" if limit is None else f"of {limit:,} "


def _named(name: str) -> str:
    return "requests in this minute" if name == "requests" else name
