"""A share as one JSON text, and which of its states that shows."""

import asyncio
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cached_property, partial

import msgspec

from rpcshare import jsontext
from rpcshare.shares.old_versions import Hold, OldVersions
from rpcshare.shares.state import ShareState, WholeShare
from rpcshare.shares.syncdata import Item, json_lines, json_lines_size, json_pieces, json_size, text_parts

__all__ = ["Document", "Documents", "Form", "Version"]

_KEPT_FOR = 1.0  # seconds
_WHOLE = 2**20  # bytes of a text that is kept as one


class Form(StrEnum):
    """The JSON texts that there are of a share."""

    AGENT_SESSION = "agent-session"
    SYNC_DATA = "sync-data"
    """A list of SyncData."""
    SYNC_DATA_LINES = "sync-data-lines"
    """SyncData, one a line."""
    METADATA = "metadata"
    """A SessionIndex."""


class Version(msgspec.Struct, frozen=True):
    """A state of a share: what is read of two equal versions is equal."""

    generation: str
    """Tells a share from another that was made later under the same id."""
    sync_count: int
    last_updated: int
    """Milliseconds since the epoch."""


class Document(msgspec.Struct, frozen=True, dict=True, weakref=True):
    """One form of a share, shared by all who read it at the same time.

    A large one is never in memory as a whole: whoever reads it holds one part of it at a time.
    """

    version: Version
    form: Form
    size: int
    """Bytes of the text."""
    pieces: Callable[[], Iterable[bytes]]
    """Returns the text in pieces of any length, from the beginning."""
    whole: WholeShare | None = None
    """What an AgentSession is made of."""
    held: Callable[["Document", Callable[[], object]], Hold] | None = None

    @cached_property
    def text(self) -> bytes | None:
        """The whole text if it is short, made once."""
        return b"".join(self.pieces()) if self.size <= _WHOLE else None

    @property
    def body(self) -> bytes:
        """The whole text."""
        return b"".join(self.pieces()) if self.text is None else self.text

    def hold(self, let_go: Callable[[], object]) -> Hold | None:
        """Count it as held by a reader who takes its time, until the hold is ended.

        Args:
            let_go: ends the reader, if readers hold too much that is out of date.
        """
        return self.held(self, let_go) if self.held is not None else None

    def parts(self) -> Iterator[bytes]:
        """Yield the text in parts of about 64 KiB."""
        return text_parts(self.pieces() if self.text is None else (self.text,))

    def text_in_parts(self) -> jsontext.InParts:
        """Return the texts of what the whole consists of, as far as they are known; else its text."""
        return self.body if self.whole is None else self.whole.in_parts()


class Documents:
    """The documents of one share that are in use, so that many readers hold one."""

    def __init__(self, old_versions: OldVersions) -> None:
        self._old_versions = old_versions
        self._held: dict[Form, weakref.ref[Document]] = {}

    def get(self, form: Form, version: Version, state: ShareState) -> Document:
        """Return ``state``, which is ``version`` of the share, in the form ``form``. Needs an event loop."""
        held = self._held[form]() if form in self._held else None
        if held is not None and held.version == version:
            return held
        made = _made(form, version, state, self._old_versions)
        self._held[form] = weakref.ref(made)
        # Who asks next, rather than at the same time, finds it too.
        asyncio.get_running_loop().call_later(_KEPT_FOR, _let_go, made)
        return made


def _made(form: Form, version: Version, state: ShareState, old_versions: OldVersions) -> Document:
    def held(items: Sequence[Item], document: Document, let_go: Callable[[], object]) -> Hold:
        return old_versions.hold(
            document, content, items, document.size, lambda _: let_go(), ends_reader=True
        )

    content = state.content
    match form:
        case Form.AGENT_SESSION:
            whole = state.whole()
            return Document(version, form, whole.size, whole.pieces, whole, partial(held, whole.items()))
        case Form.SYNC_DATA:
            items = state.items()
            size, pieces = json_size(items), partial(json_pieces, items)
            return Document(version, form, size, pieces, held=partial(held, items))
        case Form.SYNC_DATA_LINES:
            items = state.items()
            size, pieces = json_lines_size(items), partial(json_lines, items)
            return Document(version, form, size, pieces, held=partial(held, items))
        case Form.METADATA:
            text = jsontext.encode(state.index())
            return Document(version, form, len(text), lambda: (text,))


def _let_go(_document: Document) -> None:
    """Hold a document until this is called."""
