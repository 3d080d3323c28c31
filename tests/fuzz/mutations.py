"""Ways to spoil a message: as a structure, and as bytes."""

import copy
from collections.abc import Callable
from random import Random
from typing import Any

from fuzz.dialogues import DIALOGUES, TAGS, Message

SCALARS: list[object] = [
    *(None, True, False, 0, -0.0, 1, -1, 2, -2, 3, 7, -7, 0.5, 2.0, 255, 65_536),
    *(2**31, 2**53, -(2**53), 2**63, 2**64 - 1, -(2**63), 10**30, -(10**400), 1e308, 5e-324, 8.64e15),
    *("", "0", "-1", "x" * 5000, "\ud800", "a\udc00", "\0", "é" * 100, "AA==", "A", "9" * 400, "https://["),
    *([], {}, [[]], [[[]]], {"": {}}, [None], [[None]], ["hello"]),
]

NodeContext = tuple[object, object]
"""A list or a dict, and where in it a value is."""


def nodes_of(message: object) -> list[NodeContext]:
    """Return the places of the values within ``message``."""
    found: list[NodeContext] = []
    left = [message]
    while left:
        value = left.pop()
        items = (
            enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
        )
        for key, item in items:
            found.append((value, key))
            left.append(item)
    return found


class Mutator:
    """Spoils messages, always in the same way for the same seed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._operations: list[Callable[[object, object], None]] = [
            *[self._replace_by_scalar] * 3,
            *[self._replace_by_part_of_another] * 3,
            *[self._nudge] * 4,
            *[self._retag] * 4,
            *(self._remove, self._double, self._wrap, self._nest, self._multiply, self._swap, self._empty),
        ]

    def spoil(self, message: Message) -> object:
        """Return a message that is like ``message``, but for one to three changes."""
        spoilt: list[object] = [copy.deepcopy(message)]
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            places = nodes_of(spoilt)
            # The places deep within a message are the most, and those at its top as worth trying.
            container, key = self._random.choice(places[: self._random.choice((4, 12, len(places)))])
            operation = self._random.choice(self._operations)
            operation(container, key)
            if not spoilt:
                return None
            if operation == self._nest:
                break  # what copies it next might not be able to
        return spoilt[0]

    def spoil_bytes(self, frame: bytes) -> bytes:
        """Return a frame that is like ``frame``, but for a few bytes."""
        spoilt = bytearray(frame)
        for _ in range(self._random.choice((1, 1, 2, 5))):
            at = self._random.randrange(len(spoilt) + 1)
            match self._random.randrange(5):
                case 0:
                    spoilt[at:] = b""
                case 1:
                    spoilt[at:at] = self._random.randbytes(self._random.choice((1, 4, 30)))
                case 2:
                    spoilt[at : at + self._random.choice((1, 2, 10))] = b""
                case 3:
                    spoilt[at:at] = spoilt[at // 2 : at] * self._random.choice((1, 2, 50))
                case _ if at < len(spoilt):
                    spoilt[at] ^= 1 << self._random.randrange(8)
        return bytes(spoilt)

    def _replace_by_scalar(self, container: Any, key: Any) -> None:
        container[key] = copy.deepcopy(self._random.choice(SCALARS))

    def _replace_by_part_of_another(self, container: Any, key: Any) -> None:
        other = self._random.choice(self._random.choice(DIALOGUES))
        place: Any
        place, where = self._random.choice(nodes_of([other]))
        container[key] = copy.deepcopy(place[where])

    def _nudge(self, container: Any, key: Any) -> None:
        value = container[key]
        if type(value) is int:
            container[key] = self._random.choice(
                (value + 1, value - 1, -value, 2 * value, [value], f"{value}")
            )
        elif isinstance(value, str):
            at = self._random.randrange(len(value) + 1)
            container[key] = value[:at] + self._random.choice(("", "x", "0", '"', "\ud83d")) + value[at + 1 :]
        else:
            self._retag(container, key)

    def _retag(self, container: Any, key: Any) -> None:
        value = container[key]
        if isinstance(value, list) and value and isinstance(value[0], str):
            value[0] = self._random.choice(TAGS)
        else:
            container[key] = self._random.choice(TAGS)

    def _remove(self, container: Any, key: Any) -> None:
        del container[key]

    def _double(self, container: Any, key: Any) -> None:
        if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        else:
            container[f"{key}2"] = copy.deepcopy(container[key])

    def _wrap(self, container: Any, key: Any) -> None:
        value = container[key]
        container[key] = self._random.choice(([value], [[value]], {"a": value}, [value, value]))

    def _nest(self, container: Any, key: Any) -> None:
        value = container[key]
        for _ in range(self._random.choice((10, 100, 180))):
            value = {"a": value} if self._random.random() < 0.5 else [[value]]
        container[key] = value

    def _multiply(self, container: Any, key: Any) -> None:
        value = container[key]
        container[key] = [[copy.deepcopy(value) for _ in range(self._random.choice((2, 20, 200)))]]

    def _swap(self, container: Any, key: Any) -> None:
        if isinstance(container, list):
            self._random.shuffle(container)
        else:
            self._wrap(container, key)

    def _empty(self, container: Any, key: Any) -> None:
        value = container[key]
        container[key] = type(value)() if isinstance(value, list | dict | str) else None
