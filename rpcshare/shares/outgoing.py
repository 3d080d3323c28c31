"""A large event on its way to one reader, as text that is made in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rpcshare.shares.content import Content
from rpcshare.shares.events import Snapshot, Sync
from rpcshare.shares.old_versions import Hold, OldVersions
from rpcshare.shares.syncdata import PART, Item, json_pieces_of, text_parts

__all__ = ["Outgoing"]

_LONG = 2 * PART  # bytes of a body that is sent in parts itself


class Outgoing:
    """The event, as far as it has not left.

    Where readers hold too much of what has been replaced, the rest of it has the newest values. Only a body
    that is half sent has to be what it was: if there is too much of those, the reader cannot be kept.
    """

    def __init__(
        self,
        event: Snapshot | Sync,
        content: Content,
        versions: OldVersions,
        *,
        merge: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """Send ``event``.

        Args:
            event: of which all values are, or were, in ``content``.
            content: what the share holds.
            versions: where it is counted that a reader holds the event.
            merge: has what comes behind the event be no older than the newest values.
            give_up: ends the reader.
        """
        self._event = event
        self._content = content
        self._versions = versions
        self._merge = merge
        self._give_up = give_up
        self._long: Hold | None = None  # of a body that is half sent
        self._hold = self._held()

    def end(self) -> None:
        """Hold the event no longer."""
        self._hold.end()
        self._end_long()

    def parts(self) -> Iterator[bytes]:
        """Yield the text in parts of about 64 KiB."""
        return text_parts(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        kinds = [item.kind for item in self._event.items]
        yield self._event.opening
        yield from json_pieces_of((kind, self._bodies(number)) for number, kind in enumerate(kinds))
        yield b"}"

    def _bodies(self, item: int) -> Iterator[bytes]:
        # Each is taken when its turn comes: nothing here holds the others.
        for number in range(len(self._event.items[item].values)):
            value = self._event.items[item].values[number]
            if len(value[1]) > _LONG:
                alone = (Item(self._event.items[item].kind, (value,)),)
                self._long = self._versions.hold(
                    value, self._content, alone, len(value[1]), self._let_go_of_value, ends_reader=True
                )
            yield value[1]
            if self._long is not None:
                self._end_long()

    def _held(self) -> Hold:
        event = self._event
        return self._versions.hold(event, self._content, event.items, event.size, self._let_go)

    def _let_go(self, shared: dict[str, object]) -> None:
        newest = shared.get("newest")
        if not isinstance(newest, Snapshot | Sync):
            event = self._event
            newest = event.with_items(self._content.newest(event.items))
            shared["newest"] = newest
        self._merge()
        self._hold.end()
        self._event = newest
        self._hold = self._held()

    def _let_go_of_value(self, _shared: dict[str, object]) -> None:
        self.end()
        self._give_up()

    def _end_long(self) -> None:
        if self._long is not None:
            self._long.end()
            self._long = None
