"""Showing on a terminal, and nowhere else, how far a command has got."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

__all__ = ["counting", "measuring"]


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """Show how many of ``what`` there have been; what this yields is called after each."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    # Not with the module: they take longer to import than most commands to run.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TextColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn(f"{{task.completed}} {what}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda: progress.advance(task)


@contextmanager
def measuring(total: int, *phases: str) -> Iterator[list[Callable[[int], None]]]:
    """Show for each of ``phases`` how many of ``total`` bytes are done.

    Yields a function for each, which is called with the size of each piece.
    """
    if not sys.stderr.isatty():
        yield [lambda _size: None] * len(phases)
        return
    from rich.console import Console  # noqa: PLC0415 -- takes long to import
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = [progress.add_task(phase, total=total) for phase in phases]
        yield [partial(progress.advance, bar) for bar in bars]
