"""The text of one argument of a long call, found without making objects of it, where C is compiled.

``argument_text.c`` is this module in C, which ``make install`` compiles and Python then prefers. In pure
Python nothing is gained by a second way, so here the function says that it does not know what it is given.
The one in C says so of whatever is not plain JSON in the form in which ``JSON.stringify`` writes it: the
general code decodes that. So there is one place that decides what is an error, and which.
"""

from __future__ import annotations

__all__ = ["find"]


def find(
    frame: bytes,  # noqa: ARG001 -- as of the function in C
    at: int,  # noqa: ARG001
    index: int,  # noqa: ARG001
    max_depth: int,  # noqa: ARG001
) -> tuple[int, int, bytes | memoryview, int] | None:
    """Find an argument that is an array or an object of plain JSON; None: it is not known here.

    Nor is one of more than 500,000 values: it is likely to be refused, and must not take long before that.

    Args:
        frame: a message in JSON. What is around the argument need not be well formed.
        at: where in it the first argument begins.
        index: which is wanted.
        max_depth: to which arguments may be nested.

    Returns:
        From where to where in the frame it is; its text, with arrays as JSON has them; and how many values
        are in it, as :meth:`~rpcshare.rpc.codec.JSONCodec.count` counts those of a frame.
    """
    return None
