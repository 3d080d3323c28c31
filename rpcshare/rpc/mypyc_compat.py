"""What the compiler of the core has to know of a class (docs/performance.md, "Compiled or not").

A class of the core is no ``abc.ABC``, even if it has abstract methods: the compiler does not run ``ABCMeta``,
so that all of them would share what that remembers of ``isinstance()``, and be taken for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["mypyc_attr"]

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:
    # The compiler has read it in the source by then; nothing needs it where a program runs.
    def mypyc_attr(**_attributes: object) -> object:
        """Return a decorator that leaves a class as it is."""
        return lambda marked: marked
