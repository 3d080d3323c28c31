"""structlog, imported without rich, which it would import for tracebacks that nothing here shows.

With what rich imports itself, that is a tenth of the time until a server is ready.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["structlog"]


@contextmanager
def _missing(name: str) -> Iterator[None]:
    """Have ``import NAME`` fail as where it is not installed, unless it has been imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the documented way to do so
    try:
        yield
    finally:
        del sys.modules[name]


with _missing("rich"):
    import structlog
