"""The kinds of callers: each module here has some, by name, in ``KINDS``."""

import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping

from abuse.target import Target

__all__ = ["Kind", "all_kinds"]

Kind = Callable[[Target, random.Random, float], None]


def all_kinds() -> Mapping[str, Kind]:
    """Return every kind there is, by name, in the order of their names."""
    kinds: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        found: Mapping[str, Kind] = importlib.import_module(module.name).KINDS
        kinds.update(found)
    return dict(sorted(kinds.items()))
