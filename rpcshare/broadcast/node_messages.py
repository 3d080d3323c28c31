"""What one node sends to another, so that both can write one share: syncs to be written, and entries.

Unlike :class:`~rpcshare.broadcast.LogAppended` these carry content, and go to one node alone. How they are
used, and why it is safe to lose, repeat or delay any of them: ``docs/architecture.md``.

A *writer* is a share as one node has it open. Its name is that of the node, of 16 characters, and more that
tells one opening of the share from every other; this much is the *origin* of the syncs of its callers. Behind
a dash, it changes whenever the whole share is read anew: what names a writer has been made since then, and by
a node on the same store.
"""

from __future__ import annotations

import msgspec

__all__ = ["NODE_NAME", "EntryWritten", "NodeMessage", "SyncsDeclined", "SyncsForwarded", "node_of"]

NODE_NAME = 16
"""Characters of a node's name, with which the names of its writers begin."""


class SyncsForwarded(msgspec.Struct, frozen=True, tag="forwarded", omit_defaults=True):
    """Syncs of ``origin``'s callers, for ``writer`` to write."""

    share_id: str
    generation: str
    writer: str
    origin: str
    reader: str
    """The writer that is to be told of the entries."""
    first: int
    """The number of the first sync among those of ``origin``; the others follow without a gap."""
    settled: int
    """No sync up to this number waits to be written any more."""
    since: int
    """The entry that ``origin`` had when the first sync got its number: none of them is in it or before."""
    body: bytes
    """A packed log entry that holds the syncs. Its diffs refer to no others."""


class SyncsDeclined(msgspec.Struct, frozen=True, tag="declined"):
    """``writer`` will not write any sync of ``origin``'s that is not in the log yet."""

    share_id: str
    writer: str
    origin: str


class EntryWritten(msgspec.Struct, frozen=True, tag="written"):
    """An entry that ``reader`` is waiting for, as it is in the store by now."""

    share_id: str
    generation: str
    reader: str
    entry: int
    """Its number."""
    previous: str
    """The ID of the entry before it; empty if it is the first."""
    body: bytes
    etag: str


NodeMessage = SyncsForwarded | SyncsDeclined | EntryWritten


def node_of(writer: str) -> str:
    """Return the name of a writer's node."""
    return writer[:NODE_NAME]
