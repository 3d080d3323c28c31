"""The commonest messages, read and written without the objects in between, where C is compiled.

``short_messages.c`` is this module in C, which ``make install`` compiles and Python then prefers. In pure
Python nothing is gained by a second way, so here each function says that it does not know what it is given.
The one in C says so of whatever is not of the commonest form: the general code reads or writes that. So there
is one place that decides what is an error, and which.

- A call: ``["push",["pipeline",N,["name",…],[argument,…]]]``, and ``["pull",N]``, ``["release",N,N]`` and
  ``["resolve",N,["undefined"]]``, without white space. Arguments are plain JSON, dates and bytes, nested to
  64 levels.
- A result of plain JSON without floats, of up to 64 kB of text.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["ShortCall", "count", "read", "write"]

ShortCall: TypeAlias = "tuple[int, tuple[str, ...], list[object], int]"
"""What is called: an export, and the path from there; the arguments, and how many values these are."""


def read(
    frame: object,  # noqa: ARG001 -- as of the function in C
    max_depth: int,  # noqa: ARG001
) -> ShortCall | list[object] | None:
    """Return the call in ``frame``, or the message if that is one of the others; None: not known here.

    Args:
        frame: bytes; anything else is not known here.
        max_depth: to which arguments may be nested.
    """
    return None


def write(
    export_id: int,  # noqa: ARG001 -- as of the function in C
    value: object,  # noqa: ARG001
    max_depth: int,  # noqa: ARG001
) -> tuple[bytes, int] | None:
    """Return the frame that resolves an export, and how many values there are; None: not known here."""
    return None


def count(value: object) -> int:  # noqa: ARG001 -- as of the function in C
    """Return how many values there are in one of plain types; -1: not known here."""
    return -1
