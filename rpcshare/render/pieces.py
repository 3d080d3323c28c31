"""Pieces of a page: what of it is made of hostile text, and drawn in a process that can be killed.

A page is drafted first. Its draft names pieces, each with all that is needed to draw it. A process
(:mod:`~rpcshare.render.render_process`) makes HTML of them, and the draft is rendered with that.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
from markupsafe import Markup

__all__ = [
    "LIMITS",
    "OUT_OF_MEMORY",
    "Answer",
    "Cause",
    "CodePiece",
    "Detail",
    "Draft",
    "FilePiece",
    "Limits",
    "PartPiece",
    "Piece",
    "Request",
]

T = TypeVar("T")


class Detail(StrEnum):
    """How much is made of the text of a piece; each next one costs less."""

    FULL = "full"
    UNCOLOURED = "uncoloured"
    """Code is not highlighted."""
    PLAIN = "plain"
    """Text stands as it was written, and files are not compared."""


class Cause(StrEnum):
    """Why a piece is drawn with less detail, or not at all."""

    TIME = "time"
    MEMORY = "memory"
    SIZE = "size"
    ERROR = "error"
    PAGE = "page"
    """The pieces before it have taken what the whole page may take."""


class PartPiece(msgspec.Struct, frozen=True, tag="part"):
    """A part of a message."""

    body: bytes
    """Its JSON."""
    anchor: str
    role: str
    """Its message's."""
    directory: str
    """Where the session works."""
    index: int
    """Its place in the message."""
    address: str
    """Of the page with all of it, from where it is shown; empty where that is this one."""
    is_whole: bool = False
    is_over: bool = False
    """Whether nothing works on its message any more."""
    content: str = ""
    """Where a file's bytes are to be had, from where it is shown."""
    contexts: tuple[bytes, ...] = ()
    """The JSON of the parts that hold what is in a file that was mentioned."""
    child: str = ""
    """Where the session of the sub-agent is that it started, from where it is shown."""
    is_in_group: bool = False
    """Whether it stands under a heading that it shares with others."""


class FilePiece(msgspec.Struct, frozen=True, tag="file"):
    """A file that was changed."""

    body: bytes
    """The JSON of its FileDiff."""
    directory: str
    number: int
    """Its place among the files, from 1."""
    is_split: bool
    is_whole: bool


class CodePiece(msgspec.Struct, frozen=True, tag="code"):
    """A file of a workspace, or anything else that is shown as code."""

    body: bytes
    """Its text, in UTF-8."""
    name: str = ""
    """The file's, which tells its language; empty: it has none."""
    is_numbered: bool = False
    is_whole: bool = True


Piece = PartPiece | FilePiece | CodePiece


class Draft(NamedTuple, Generic[T]):
    """A page but for its pieces."""

    pieces: list[Piece]
    render: Callable[[Mapping[Piece, Markup]], T]
    """Makes the page, given each piece as HTML."""


class Limits(NamedTuple):
    """What drawing one piece may take."""

    seconds: float
    """CPU time. A piece usually takes 2 ms, and 100 more where it is the first in a language of code."""
    characters: int
    """Of HTML."""


LIMITS: Final = {False: Limits(1.0, 4 * 2**20), True: Limits(3.0, 16 * 2**20)}
"""By whether it is shown whole, on a page of its own."""

OUT_OF_MEMORY: Final = 70
"""The exit status of a render process that has reached the limit of its memory."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What a render process is asked for."""

    piece: Piece
    detail: Detail
    cause: Cause | None
    """Why that is not :attr:`Detail.FULL`."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a render process answers."""

    seconds: float
    """CPU time that it took."""
    html: str = ""
    cause: Cause | None = None
    """Why there is none."""
    where: str = ""
    """What failed for :attr:`Cause.ERROR`: nothing that a user wrote."""
    is_accident: bool = False
    """Whether it may be drawn if it is tried again: the process was ended by something else."""
    memory: int = 0
    """Bytes that the process has held at most."""
