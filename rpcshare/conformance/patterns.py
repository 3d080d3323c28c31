"""Patterns for what a peer sends: JSON, with placeholders for what the protocol leaves to the peer.

A placeholder is an object whose one member has a name with a ``$`` in front (``vectors/README.md``).
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Bindings", "filled_in", "matches"]

Bindings = dict[str, int]
"""The numbers that the peer has chosen, by the names that the case has for them."""


def matches(pattern: object, value: object, bindings: Bindings) -> bool:
    """Whether ``value`` is as ``pattern`` says; what numbers the peer has chosen goes to ``bindings``."""
    if isinstance(pattern, dict):
        placeholder = _placeholder(pattern)
        if placeholder is not None:
            name, argument = placeholder
            return _PLACEHOLDERS[name](argument, value, bindings)
        return (
            isinstance(value, dict)
            and pattern.keys() == value.keys()
            and all(matches(item, value[name], bindings) for name, item in pattern.items())
        )
    if isinstance(pattern, list):
        return (
            isinstance(value, list)
            and len(pattern) == len(value)
            and all(matches(part, item, bindings) for part, item in zip(pattern, value, strict=True))
        )
    # In Python true is 1; on the wire it is not. But 1.0 is.
    return isinstance(pattern, bool) is isinstance(value, bool) and pattern == value


def filled_in(message: object, bindings: Bindings) -> object:
    """Return ``message`` with the numbers that the peer has chosen in the places of their names.

    Raises:
        KeyError: the peer has chosen no number of that name yet.
    """
    if isinstance(message, dict):
        if message.keys() == {"$id"}:
            return bindings[str(message["$id"])]
        return {name: filled_in(item, bindings) for name, item in message.items()}
    if isinstance(message, list):
        return [filled_in(item, bindings) for item in message]
    return message


def _placeholder(pattern: dict[str, object]) -> tuple[str, object] | None:
    if len(pattern) == 1:
        ((name, argument),) = pattern.items()
        if name in _PLACEHOLDERS:
            return name, argument
    return None


def _is_id(name: object, value: object, bindings: Bindings) -> bool:
    if type(value) is not int:
        return False
    return bindings.setdefault(str(name), value) == value


def _is_string(_argument: object, value: object, _bindings: Bindings) -> bool:
    return isinstance(value, str)


def _is_error(kind: object, value: object, _bindings: Bindings) -> bool:
    """Whether ``value`` is an error expression, of the type ``kind`` if that is not true."""
    if not isinstance(value, list) or len(value) < 3 or value[0] != "error":
        return False
    return (kind is True or value[1] == kind) and isinstance(value[1], str) and isinstance(value[2], str)


def _is_any(_argument: object, _value: object, _bindings: Bindings) -> bool:
    return True


_PLACEHOLDERS: dict[str, Callable[[object, object, Bindings], bool]] = {
    "$any": _is_any,
    "$error": _is_error,
    "$id": _is_id,
    "$string": _is_string,
}
