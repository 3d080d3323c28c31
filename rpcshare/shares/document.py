"""A share as one JSON text, and which of its states that shows."""

import asyncio
import weakref
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec

from rpcshare import jsontext
from rpcshare.shares.state import ShareState

__all__ = ["Document", "Documents", "Form", "Version"]

_KEPT_FOR = 1.0  # seconds


class Form(StrEnum):
    """The JSON texts that there are of a share."""

    AGENT_SESSION = "agent-session"
    SYNC_DATA = "sync-data"
    """A list of SyncData."""
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
    """One form of a share, made once for all who read it at the same time."""

    version: Version
    body: bytes

    @cached_property
    def value(self) -> Any:  # noqa: ANN401 -- it is JSON
        """What a JSON decoder makes of the body. Not to be changed: others hold it too."""
        return jsontext.decode(self.body)


class Documents:
    """The documents of one share that are in use, so that many readers hold one copy."""

    def __init__(self) -> None:
        self._held: dict[Form, weakref.ref[Document]] = {}

    def get(self, form: Form, version: Version, state: ShareState) -> Document:
        """Return ``state``, which is ``version`` of the share, in the form ``form``. Needs an event loop."""
        held = self._held[form]() if form in self._held else None
        if held is not None and held.version == version:
            return held
        made = Document(version, _MAKE[form](state))
        self._held[form] = weakref.ref(made)
        # Who asks next, rather than at the same time, finds it too.
        asyncio.get_running_loop().call_later(_KEPT_FOR, _let_go, made)
        return made


def _metadata(state: ShareState) -> bytes:
    return jsontext.encode(state.index())


_MAKE: dict[Form, Callable[[ShareState], bytes]] = {
    Form.AGENT_SESSION: ShareState.agent_session,
    Form.SYNC_DATA: ShareState.sync_data,
    Form.METADATA: _metadata,
}


def _let_go(_document: Document) -> None:
    """Be the last to hold a document for a while."""
