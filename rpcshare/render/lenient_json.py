"""Reading JSON of which nothing is known: a field that is missing or of a wrong type reads as empty."""

import math
from collections.abc import Iterator
from typing import Self

from rpcshare import jsontext
from rpcshare.render.safe_text import clean, plain

__all__ = ["Fields"]


class Fields:
    """An object out of JSON, or what stands for one that is not there."""

    __slots__ = ("_object",)

    def __init__(self, value: object = None) -> None:
        """Read ``value``, which is anything that a JSON decoder makes."""
        self._object: dict[str, object] = value if isinstance(value, dict) else {}

    @classmethod
    def decode(cls, body: bytes | None) -> Self:
        """Read a JSON text; None and text that is none read as empty."""
        if body is None:
            return cls()
        try:
            return cls(jsontext.decode(body))
        except jsontext.JSONDecodeError:
            return cls()

    def __bool__(self) -> bool:
        return bool(self._object)

    def __contains__(self, name: str) -> bool:
        return name in self._object

    def __iter__(self) -> Iterator[str]:
        return iter(self._object)

    @property
    def whole(self) -> dict[str, object]:
        """The object itself."""
        return self._object

    def value(self, name: str) -> object:
        """Return a field, whatever it is."""
        return self._object.get(name)

    def raw(self, *names: str) -> str:
        """Return the first of the fields that is a string with something in it, exactly as it came."""
        for name in names:
            value = self._object.get(name)
            if isinstance(value, str) and value:
                return value
        return ""

    def text(self, *names: str) -> str:
        """Return the same, as prose may be shown."""
        return clean(self.raw(*names))

    def line(self, *names: str, limit: int = 300) -> str:
        """Return the same, as a name may be shown: in one line, deceiving nobody, and not too long."""
        value = self.raw(*names)
        text = " ".join(plain(value[: 2 * limit]).split())
        return text if len(text) <= limit else text[: limit - 1] + "…"

    def number(self, name: str) -> float | None:
        """Return a finite number."""
        value = self._object.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def natural(self, name: str) -> int:
        """Return a whole number that is not negative; 0 if it is not there."""
        return max(0, int(self.number(name) or 0))

    def flag(self, name: str) -> bool:
        """Return whether the field is ``true``."""
        return self._object.get(name) is True

    def fields(self, name: str) -> "Fields":
        """Return an object."""
        return Fields(self._object.get(name))

    def items(self, name: str) -> list[object]:
        """Return a list."""
        value = self._object.get(name)
        return value if isinstance(value, list) else []

    def all_fields(self, name: str) -> list["Fields"]:
        """Return the objects in a list."""
        return [Fields(value) for value in self.items(name) if isinstance(value, dict)]

    def lines(self, name: str) -> list[str]:
        """Return the strings in a list, each as :meth:`line` does."""
        return [Fields({"": value}).line("") for value in self.items(name) if isinstance(value, str)]
