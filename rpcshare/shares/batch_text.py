"""The JSON text of a batch cut into its values without the objects in between, where C is compiled.

``batch_text.c`` is this module in C, which ``make install`` compiles and Python then prefers. In pure
Python nothing is gained by a second way to cut, so here :func:`split` says that it does not know what it is
given. The one in C says so of whatever is wrong, or is not as ``JSON.stringify`` writes a list of SyncData,
``type`` first: the general code checks that. So there is one place that decides what is an error, and which.
"""

from rpcshare.shares.batch_validation import Value

__all__ = ["split", "stand_together"]


def split(
    text: bytes | memoryview,  # noqa: ARG001 -- as of the function in C
    at: int,  # noqa: ARG001
    room: int,  # noqa: ARG001
    most: int,  # noqa: ARG001
    step: int,  # noqa: ARG001
) -> tuple[list[tuple[str, list[Value], int]], int] | None:
    """Return the values of the next elements of a batch; None: they are not known here.

    Args:
        text: of a list of SyncData.
        at: where the next element begins, or 0 at the start.
        room: how many values there may be, as for :func:`~rpcshare.shares.batch_validation.checked`.
        most: how many values one of them may hold, if it has 256 KiB or more; -1: any number.
        step: bytes after which the next elements are left for later.

    Returns:
        What :func:`~rpcshare.shares.batch_validation.checked` does of these elements, with the bytes of the
        keys and bodies of each; and where the next begins, or -1 at the end.
    """
    return None


def stand_together(text: bytes, classes: bytes, length: int) -> bool:
    """Whether ``length`` bytes of a class stand together; ``classes`` has an ``x`` for each that is of it."""
    return b"x" * length in text.translate(classes)
