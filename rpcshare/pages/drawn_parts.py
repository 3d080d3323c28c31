"""Parts that have been drawn, so that a part is drawn once for all who look at it."""

from collections import OrderedDict
from collections.abc import Callable

from markupsafe import Markup

from rpcshare.shares.outline import PartEntry

__all__ = ["DrawnParts"]

_OVERHEAD = 400  # bytes of one that is kept, beside its text


class DrawnParts:
    """The least recently used go first. Not for more than one thread."""

    def __init__(self, budget: int) -> None:
        """Keep up to about ``budget`` bytes."""
        self._budget = budget
        self._held: OrderedDict[tuple[PartEntry, str, str, int], Markup] = OrderedDict()
        self._size = 0

    def get(
        self, part: PartEntry, role: str, directory: str, index: int, draw: Callable[[], Markup]
    ) -> Markup:
        """Return a version of a part as it looks there, drawing it with ``draw`` if need be."""
        key = (part, role, directory, index)
        drawn = self._held.get(key)
        if drawn is not None:
            self._held.move_to_end(key)
            return drawn
        drawn = self._held[key] = draw()
        self._size += _weight(part, drawn)
        while self._size > self._budget and len(self._held) > 1:
            (old, *_), dropped = self._held.popitem(last=False)
            self._size -= _weight(old, dropped)
        return drawn


def _weight(part: PartEntry, drawn: Markup) -> int:
    return len(part.body) + len(drawn) + _OVERHEAD
