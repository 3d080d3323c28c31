"""The steps of what is done to a share, at each of which a process may be the last time it is seen.

A step is known by what is asked of the store or of the broadcaster then, so the server that dies at one
(mortal_server.py) is the server that users run, and nothing in it knows of steps. What each leaves
behind is in docs/architecture.md, "Where a process may die".
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from rpcshare.shares import objects

__all__ = [
    "APPENDING",
    "COMPACTING",
    "CREATING",
    "DELETING",
    "STEPS",
    "UPGRADING",
    "Moment",
    "Operation",
    "Step",
]


class Moment(Enum):
    """When in an operation the process dies."""

    BEFORE = "nothing of it has taken effect"
    HALFWAY = "of several keys, every other one is done"
    AFTER = "it has taken effect, and whoever asked for it does not know"


class Operation(NamedTuple):
    """What is about to be asked of the store, or published."""

    name: str
    keys: Sequence[str] = ()
    body: bytes = b""
    is_first: bool = False
    """Whether a put is to succeed only if there is nothing yet."""


class Step(NamedTuple):
    """A moment in an operation."""

    matches: Callable[[Operation], bool]
    moment: Moment


def _puts(prefix: str, part: str = "") -> Callable[[Operation], bool]:
    def matches(operation: Operation) -> bool:
        return operation.name == "put" and operation.keys[0].startswith(prefix) and part in operation.keys[0]

    return matches


def _deletes(prefix: str) -> Callable[[Operation], bool]:
    """Match a deletion of one kind of key alone."""
    return lambda operation: (
        operation.name == "delete" and all(key.startswith(prefix) for key in operation.keys)
    )


def _entry(operation: Operation) -> bool:
    return _puts("share/", "/log/")(operation) and not objects.decode_entry(operation.body).is_tombstone


def _tombstone(operation: Operation) -> bool:
    return _puts("share/", "/log/")(operation) and objects.decode_entry(operation.body).is_tombstone


def _head(operation: Operation) -> bool:
    return _puts("share/", "/head")(operation) and not objects.decode_head(operation.body).deleted


def _dead_head(operation: Operation) -> bool:
    return _puts("share/", "/head")(operation) and objects.decode_head(operation.body).deleted


def _published(operation: Operation) -> bool:
    return operation.name == "publish"


def _trim(operation: Operation) -> bool:
    return _deletes("share/")(operation) and len(operation.keys) > 1


def _sweep(operation: Operation) -> bool:
    return _deletes("share/")(operation) and len(operation.keys) == 1 and "/log/" in operation.keys[0]


def _removal(operation: Operation) -> bool:
    """Match the deletion of a share's content, which has what may be aside of an older layout with it."""
    has_aside = any(key.startswith(objects.ASIDE_PREFIX) for key in operation.keys)
    return operation.name == "delete" and has_aside and len(operation.keys) > 1


def _older_object(operation: Operation) -> bool:
    return operation.name == "delete" and any(
        key.startswith("share/") and key.count("/") == 1 for key in operation.keys
    )


CREATING = {
    "session unclaimed": Step(_puts("session/"), Moment.BEFORE),
    "session claimed": Step(_puts("session/"), Moment.AFTER),
    "head written": Step(_head, Moment.AFTER),
}

APPENDING = {
    "entry unwritten": Step(_entry, Moment.BEFORE),
    "entry durable": Step(_entry, Moment.AFTER),
    "entry applied": Step(_published, Moment.BEFORE),
    "entry announced": Step(_published, Moment.AFTER),
}

COMPACTING = {
    "snapshot unwritten": Step(_puts("share/", "/snapshot/"), Moment.BEFORE),
    "snapshot written": Step(_puts("share/", "/snapshot/"), Moment.AFTER),
    "log untrimmed": Step(_trim, Moment.BEFORE),
    "log half trimmed": Step(_trim, Moment.HALFWAY),
    "log trimmed": Step(_trim, Moment.AFTER),
}

DELETING = {
    "tombstone unwritten": Step(_tombstone, Moment.BEFORE),
    "tombstone written": Step(_tombstone, Moment.AFTER),
    "end announced": Step(_published, Moment.AFTER),
    "content half removed": Step(_removal, Moment.HALFWAY),
    "content removed": Step(_removal, Moment.AFTER),
    "row removed": Step(_deletes("index/"), Moment.AFTER),
    "head marked": Step(_dead_head, Moment.AFTER),
    "tombstone unswept": Step(_sweep, Moment.BEFORE),
}

UPGRADING = {
    "share set aside": Step(_puts(objects.ASIDE_PREFIX), Moment.AFTER),
    "older objects removed": Step(_older_object, Moment.AFTER),
    "session disowned": Step(_puts("session/"), Moment.AFTER),
    "content installed": Step(_puts("share/", "/snapshot/"), Moment.AFTER),
    "head installed": Step(_head, Moment.AFTER),
    "aside removed": Step(_deletes(objects.ASIDE_PREFIX), Moment.AFTER),
}

STEPS = CREATING | APPENDING | COMPACTING | DELETING | UPGRADING
"""All steps by name, each group in the order in which a process comes by."""
