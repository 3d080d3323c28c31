"""What a share holds: its items, merged. This is the only place that merges.

Bodies stay the JSON bytes that :mod:`~rpcshare.shares.batch_validation` made, so that a document is a join
of bytes, and a size is a sum of lengths. It is compiled: every sync goes through it twice, before and after
it is written.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rpcshare.shares.batch_validation import Value
from rpcshare.shares.items import Item, Kind
from rpcshare.shares.reverts import Reverts

__all__ = ["Content", "Growth"]

_ITEM_OVERHEAD: Final = 260  # bytes of memory beside an item's own: three objects and their place in a dict
_PLACE: Final = 4  # bytes of a diff's place among the distinct ones

# Members of an enum are looked up each time that compiled code names them; these are not.
_SESSION: Final = Kind.SESSION
_MESSAGE: Final = Kind.MESSAGE
_PART: Final = Kind.PART
_DIFF: Final = Kind.DIFF
_MODEL: Final = Kind.MODEL


class DiffList:
    """FileDiffs in the order in which they came, with the body of equal ones kept once.

    opencode sends all diffs of a turn again with every batch, so nearly all of them are repeats.
    """

    def __init__(self) -> None:
        self.distinct: list[bytes] = []
        self.numbers: dict[bytes, int] = {}  # the place of each body in distinct
        self.repeated = 0
        """Bytes of those that came again: so much longer is a document than what is kept."""
        self._values: list[Value] = []  # those in distinct, as an Item has them
        self._order = array("I")  # of every diff that came, its place in distinct

    def append(self, value: Value) -> int:
        """Add a diff, and return by how many bytes that made the list larger."""
        body = value[1]
        number = self.numbers.setdefault(body, len(self.distinct))
        self._order.append(number)
        if number < len(self.distinct):
            self.repeated += len(body)
            return _PLACE
        self.distinct.append(body)
        self._values.append(value)
        return _PLACE + len(body)

    def held(self, value: Value) -> Value:
        """Return the value that is kept of those which are equal to ``value``."""
        number = self.numbers.get(value[1])
        return value if number is None else self._values[number]

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[bytes]:
        return map(self.distinct.__getitem__, self._order)

    def values(self, start: int = 0) -> tuple[Value, ...]:
        """Return those from number ``start`` on, as an Item has them."""
        return tuple(map(self._values.__getitem__, self._order[start:] if start else self._order))


class Growth:
    """By how much a batch can make a share larger."""

    __slots__ = ("items", "size")

    def __init__(self, size: int, items: int) -> None:
        self.size = size
        """Bytes, a repeated diff counted as often as it comes."""
        self.items = items


class Content:
    """Items merged: the session replaced, the others by key in first-seen order, diffs appended."""

    def __init__(self) -> None:
        self.session: bytes | None = None
        # As an Item has them, so that a copy of what a share holds is made of references alone.
        self.messages: dict[bytes, Value] = {}
        self.parts: dict[bytes, Value] = {}
        self.models: dict[bytes, Value] = {}
        self.diffs = DiffList()
        self.size = 0
        """Bytes of what is held, with a repeated diff counted as the number that stands for it."""
        self.replaced = 0
        """Bytes of all bodies that others have replaced since the beginning."""
        self.reverts = Reverts()
        """What of it the user has taken back for good."""

    @property
    def expanded_size(self) -> int:
        """Bytes of what readers are shown, with every diff counted as often as it came."""
        return self.size + self.diffs.repeated

    @property
    def count(self) -> int:
        """How many messages, parts, diffs and models there are, repeated diffs included."""
        return len(self.messages) + len(self.parts) + len(self.models) + len(self.diffs)

    def by_key(self, kind: Kind) -> Mapping[bytes, Value]:
        """Return the values of a kind that has keys."""
        return self._keyed(kind)

    def _keyed(self, kind: Kind) -> dict[bytes, Value]:
        if kind is _PART:
            return self.parts
        return self.messages if kind is _MESSAGE else self.models

    def apply(self, items: Iterable[Item]) -> None:
        """Merge ``items`` into what is here, at a cost that depends on them alone."""
        session: bytes | None = None
        messages = len(self.messages)
        came: list[bytes] = []
        for item in items:
            kind = item.kind
            if kind is _SESSION:
                for value in item.values:
                    session = value[1]
                    before_size = 0 if self.session is None else len(self.session)
                    self.size += len(session) - before_size
                    self.replaced += before_size
                    self.session = session
            elif kind is _DIFF:
                for value in item.values:
                    self.size += self.diffs.append(value)
            else:
                self._merge(self._keyed(kind), item)
                if kind is _MESSAGE:
                    came += [value[0] for value in item.values]
        if self.reverts.is_of_interest(session):
            self.reverts.apply(session, self.messages, came, len(self.messages) - messages)

    def _merge(self, held: dict[bytes, Value], item: Item) -> None:
        if not held:  # as in a new share, which may come with thousands
            new = {value[0]: value for value in item.values}
            if len(new) == len(item.values):
                held.update(new)
                self.size += item.size
                return
        for value in item.values:
            key = value[0]
            size = len(value[1])
            before = held.get(key)
            if before is None:
                self.size += len(key) + size
            else:
                before_size = len(before[1])
                self.size += size - before_size
                self.replaced += before_size
            held[key] = value

    def growth(self, items: Iterable[Item]) -> Growth:
        """Return by how much :meth:`apply` can make this larger, shrinking not counted."""
        size = count = 0
        for item in items:
            kind = item.kind
            if kind is _SESSION:
                size += max(0, item.size - (0 if self.session is None else len(self.session)))
            elif kind is _DIFF:
                size += item.size + _PLACE * len(item.values)
                count += len(item.values)
            else:
                held = self._keyed(kind)
                if not held:
                    size += item.size
                    count += len(item.values)
                    continue
                for value in item.values:
                    key = value[0]
                    body_size = len(value[1])
                    before = held.get(key)
                    if before is None:
                        size += len(key) + body_size
                        count += 1
                    elif body_size > len(before[1]):
                        size += body_size - len(before[1])
        return Growth(size, count)

    def replaced_of(self, items: Iterable[Item]) -> int:
        """Return how many bytes of ``items``, which were here, are not any longer."""
        size = 0
        for item in items:
            if item.kind is _SESSION:
                size += sum(len(body) for _, body in item.values if body is not self.session)
            elif item.kind is not _DIFF:
                held = self._keyed(item.kind)
                size += sum(len(value[1]) for value in item.values if held.get(value[0]) is not value)
        return size

    def newest(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """Return ``items``, which were here, each with the values that are here now."""
        return tuple(Item(item.kind, self._newest(item)) for item in items)

    def _newest(self, item: Item) -> tuple[Value, ...]:
        if item.kind is _SESSION:
            return item.values if self.session is None else ((b"", self.session),) * len(item.values)
        if item.kind is _DIFF:
            return tuple(self.diffs.held(value) for value in item.values)
        held = self._keyed(item.kind)
        return tuple(held.get(value[0], value) for value in item.values)

    def items(self) -> tuple[Item, ...]:
        """Return what is here as items that make the same of an empty content."""
        in_order = (
            (_SESSION, () if self.session is None else ((b"", self.session),)),
            (_MESSAGE, tuple(self.messages.values())),
            (_PART, tuple(self.parts.values())),
            (_DIFF, self.diffs.values()),
            (_MODEL, tuple(self.models.values())),
        )
        return tuple(Item(kind, values) for kind, values in in_order if values)

    @property
    def footprint(self) -> int:
        """About how many bytes of memory this takes."""
        held = len(self.messages) + len(self.parts) + len(self.models) + len(self.diffs.distinct)
        return self.size + _ITEM_OVERHEAD * held
